"""What tests of programs that use WebSockets need: connections without sockets, scripts, and faults on purpose."""

from .faults import Faults, FaultyStream
from .pairs import open_memory_pair, open_scripted_pair
from .peer import ScriptedPeer
from .server import MemoryServer, serve_memory

__all__ = [
    "Faults",
    "FaultyStream",
    "MemoryServer",
    "ScriptedPeer",
    "open_memory_pair",
    "open_scripted_pair",
    "serve_memory",
]
