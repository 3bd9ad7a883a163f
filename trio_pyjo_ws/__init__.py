"""WebSocket client and server for trio: a transaction in a nursery, messages in memory channels."""

from .authentication import basic_authentication, bearer_authentication
from .broadcasting import broadcast, broadcast_nowait
from .client import connect, open_websocket
from .errors import ConnectionClosed, HandshakeError, LocalProtocolError, ProtocolError, RemoteProtocolError
from .figures import ServerStatistics, TransactionStatistics
from .listeners import UnixListener, inherited_listeners, open_unix_listener
from .objects import JsonCodec
from .reconnection import Reconnecting, is_transient, reconnecting
from .routing import Route, Router, Routes
from .server import Server, serve, serve_listeners
from .settings import ClientOptions, Options, ServerOptions
from .streaming import MessageStream
from .transaction import Transaction
from .wire.deflate import Deflate, zlib_name
from .wire.frames import Close, Frame, Opcode, codec
from .wire.negotiate import Request, Response

__all__ = [
    "ClientOptions",
    "Close",
    "ConnectionClosed",
    "Deflate",
    "Frame",
    "HandshakeError",
    "JsonCodec",
    "LocalProtocolError",
    "MessageStream",
    "Opcode",
    "Options",
    "ProtocolError",
    "Reconnecting",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Route",
    "Router",
    "Routes",
    "Server",
    "ServerOptions",
    "ServerStatistics",
    "Transaction",
    "TransactionStatistics",
    "UnixListener",
    "basic_authentication",
    "bearer_authentication",
    "broadcast",
    "broadcast_nowait",
    "codec",
    "connect",
    "inherited_listeners",
    "is_transient",
    "open_unix_listener",
    "open_websocket",
    "reconnecting",
    "serve",
    "serve_listeners",
    "zlib_name",
]
