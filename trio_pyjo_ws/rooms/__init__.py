"""Rooms: every member gets every message, in one order, in one process or in many."""

from .joining import Room, Rooms, RoomsStatistics, open_rooms
from .positions import Event, Position

__all__ = ["Event", "Position", "Room", "Rooms", "RoomsStatistics", "open_rooms"]
