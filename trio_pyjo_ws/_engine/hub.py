# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""The sockets of many connections in one epoll set, registered once, each for as long as it is open.

trio waits for the set alone: an epoll descriptor is readable while a socket in it is. Edges are asked for, so a socket
that is not read from, because there is no room for what it would bring, wakes nobody. What an edge has told is not
forgotten: the transport is ``ready`` until a read comes back short.
"""

from __future__ import annotations

import logging
import select
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .turn import Turn

__all__ = ["Hub", "Member"]

logger = logging.getLogger("trio_pyjo_ws")

MAX_EVENTS = 1024
"""Sockets that one call asks for. More are asked for in the next turn."""

# Where there is no epoll there is no hub either.
EDGES: int = getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLET", 0)
GONE: int = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)


class Member(Protocol):
    """What a hub asks of a connection that it reads from."""

    def note_edge(self, gone: bool) -> None:
        """Its socket may have something to read; perhaps the end."""
        ...

    def may_pull(self) -> bool:
        """Whether there may be something to read, and room for it."""
        ...

    def pull(self) -> object:
        """Read once, without waiting, and do what that means. Raises nothing."""
        ...


class Hub:
    """One epoll set, and the connections whose sockets are in it."""

    __slots__ = ("_members", "_poll", "fd", "ready")

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._members: dict[int, Member] = {}
        self.fd = self._poll.fileno()
        """What to wait for."""
        self.ready: deque[Member] = deque()
        """The connections that may have something to read."""

    def add(self, connection: Member, fd: int) -> None:
        """Watch the socket ``fd`` of ``connection``."""
        self._poll.register(fd, EDGES)
        self._members[fd] = connection
        self.ready.append(connection)  # It may have been read from before, and not to the end.

    def remove(self, fd: int) -> None:
        """Forget a socket that is about to be closed; that takes it out of the set."""
        self._members.pop(fd, None)

    def close(self) -> None:
        """Give the descriptor of the set back. Nobody may be waiting for it."""
        self._poll.close()

    def read(self, turn: Turn) -> None:
        """Read from all that are ready, or until the ``turn`` is over. The rest stays ``ready``."""
        ready = self.ready
        members = self._members
        for fd, mask in self._poll.poll(0, MAX_EVENTS):
            connection = members.get(fd)
            if connection is not None:  # Another process may still hold the socket of one that has left.
                connection.note_edge(mask & GONE != 0)
                ready.append(connection)
        while ready:
            connection = ready.popleft()
            connection.pull()
            if connection.may_pull():
                ready.append(connection)
            if turn.is_over():
                break
