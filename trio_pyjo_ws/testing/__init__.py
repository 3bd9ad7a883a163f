"""A kit for tests of programs that use WebSockets: connections without sockets, scripted peers, and faults."""

from .faults import Faults, FaultyStream
from .fixtures import ScriptedWebSocketFixture, WebSocketPairFixture, WebSocketServerFixture
from .pairs import open_memory_pair, open_scripted_pair
from .peer import ScriptedPeer
from .server import MemoryServer, serve_memory

__all__ = [
    "Faults",
    "FaultyStream",
    "MemoryServer",
    "ScriptedPeer",
    "ScriptedWebSocketFixture",
    "WebSocketPairFixture",
    "WebSocketServerFixture",
    "open_memory_pair",
    "open_scripted_pair",
    "serve_memory",
]
