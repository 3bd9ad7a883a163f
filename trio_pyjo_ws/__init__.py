"""WebSocket client and server for trio: a transaction in a nursery, messages in memory channels."""

from ._compiled import codec  # first: it chooses how the others are imported
from ._engine.channels import ChannelStatistics, EventChannel
from ._engine.receiving import MessageStream
from ._engine.tls_info import TlsInfo
from ._version import __version__
from .adapters.asgi import AsgiOptions, asgi
from .broadcasting import broadcast, broadcast_nowait
from .client.connecting import connect, open_websocket
from .client.reconnecting import Reconnecting, is_transient, reconnecting
from .errors import (
    ConnectionClosed,
    HandshakeError,
    LocalProtocolError,
    Missed,
    ProtocolError,
    RemoteProtocolError,
    RoomsUnavailable,
)
from .handshake.messages import Request, Response
from .json_codec import JsonCodec
from .options import ClientOptions, Options, ServerOptions
from .rooms import Event, Position, Room, Rooms, RoomsStatistics, open_rooms
from .server.authentication import basic_authentication, bearer_authentication
from .server.listeners import UnixListener, inherited_listeners, open_unix_listener
from .server.routing import Route, Router, Routes
from .server.serving import Server, serve, serve_listeners
from .statistics import ServerStatistics, TransactionStatistics
from .transaction import Transaction
from .wire.deflate import Deflate, zlib_name
from .wire.frames import Close, Frame, Opcode

__all__ = [
    "AsgiOptions",
    "ChannelStatistics",
    "ClientOptions",
    "Close",
    "ConnectionClosed",
    "Deflate",
    "Event",
    "EventChannel",
    "Frame",
    "HandshakeError",
    "JsonCodec",
    "LocalProtocolError",
    "MessageStream",
    "Missed",
    "Opcode",
    "Options",
    "Position",
    "ProtocolError",
    "Reconnecting",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Room",
    "Rooms",
    "RoomsStatistics",
    "RoomsUnavailable",
    "Route",
    "Router",
    "Routes",
    "Server",
    "ServerOptions",
    "ServerStatistics",
    "TlsInfo",
    "Transaction",
    "TransactionStatistics",
    "UnixListener",
    "__version__",
    "asgi",
    "basic_authentication",
    "bearer_authentication",
    "broadcast",
    "broadcast_nowait",
    "codec",
    "connect",
    "inherited_listeners",
    "is_transient",
    "open_rooms",
    "open_unix_listener",
    "open_websocket",
    "reconnecting",
    "serve",
    "serve_listeners",
    "zlib_name",
]
