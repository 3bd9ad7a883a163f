"""The scenarios of a server, one function each: what the load does, and the figure that comes of it."""

from __future__ import annotations

import os
import re
import select
import struct
import zlib
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from . import load
from .compression import messages

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from .plan import Scenario

WARM_CONNECTIONS = 20  # before memory is counted: the first ones pay for what all share
DIFFERENT = 64
"""Messages of JSON that differ; after them the first one comes again."""
ACCEPTING = 100
"""Messages that are sent while the server accepts a crowd."""

LONGEST = load.masked_frame(b"longest", opcode=1)
JOINED = load.masked_frame(b"joined?", opcode=1)


class Target(NamedTuple):
    """The server that is measured."""

    port: int
    pid: int
    context: ssl.SSLContext | None = None
    """That of a client which trusts it, for one that speaks TLS."""


def exchange(scenario: Scenario, server: Target, seconds: float) -> float:
    """So many messages in flight on one connection."""
    if scenario.kind == "cut":
        blob, count = load.message_in_fragments(os.urandom(scenario.size), scenario.amount), 1
    else:
        text, count = scenario.kind == "text", scenario.amount
        payload = b"x" * scenario.size if text else os.urandom(scenario.size)
        blob = load.masked_frame(payload, opcode=1 if text else 2) * count
    expected = load.unmasked_size(scenario.size) * count
    with load.open_websocket(server.port, server.context) as stream:
        return load.slice_of(lambda: load.exchange(stream, blob, expected), count, server.pid, seconds)


def talk(scenario: Scenario, server: Target, seconds: float) -> float:
    """So many connections, with one message in flight on each: a server as it is in the field."""
    frame, expected = load.masked_frame(os.urandom(scenario.size)), load.unmasked_size(scenario.size)
    with load.many(server.port, scenario.amount, server.context) as streams:

        def once() -> None:
            for stream in streams:
                stream.sendall(frame)
            for stream in streams:
                load.receive_exactly(stream, expected)

        return load.slice_of(once, len(streams), server.pid, seconds)


def connect(_: Scenario, server: Target, seconds: float) -> float:
    """Open, echo once, close."""
    frame, bye = load.masked_frame(b"hello"), load.masked_frame(struct.pack("!H", 1000), opcode=8)

    def once() -> None:
        with load.open_websocket(server.port) as stream:
            stream.sendall(frame)
            load.receive_exactly(stream, load.unmasked_size(5))
            stream.sendall(bye)
            while stream.recv(4096):
                pass

    return load.slice_of(once, 1, server.pid, seconds)


def idle(scenario: Scenario, server: Target, _: float) -> float:
    """KiB that a connection adds to what is resident in a server that has served nothing yet."""
    with load.many(server.port, WARM_CONNECTIONS):
        load.settle(server.pid)
        before = load.resident_kib(server.pid)
        with load.many(server.port, scenario.amount):
            load.settle(server.pid)
            return (load.resident_kib(server.pid) - before) / scenario.amount


def compressed(scenario: Scenario, server: Target, seconds: float) -> float:
    """JSON, compressed by permessage-deflate in both directions, one message in flight."""
    with load.connect(server.port) as stream:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        stream.sendall(load.opening_request(server.port, offer))
        response = load.read_response(stream.recv).decode("latin-1")
        if "permessage-deflate" not in response:
            raise ConnectionError("it does not compress")
        bits = re.search("client_max_window_bits=(\\d+)", response)
        compressor = zlib.compressobj(wbits=-int(bits[1]) if bits else -zlib.MAX_WBITS)
        texts = cycle(messages(scenario.size, DIFFERENT))

        def once() -> None:
            data = compressor.compress(next(texts)) + compressor.flush(zlib.Z_SYNC_FLUSH)
            stream.sendall(load.masked_frame(data[:-4], opcode=1, rsv1=True))  # RFC 7692, section 7.2.1
            load.receive_frame(stream)

        return load.slice_of(once, 1, server.pid, seconds)


def broadcast(scenario: Scenario, server: Target, seconds: float) -> float:
    """The cost of a delivery. Whatever a reader says, the server broadcasts: here always the first one speaks."""
    with load.many(server.port, scenario.amount) as readers:
        return load.slice_of(lambda: _speak(readers, scenario.size), len(readers), server.pid, seconds)


def deliver(scenario: Scenario, server: Target, seconds: float) -> float:
    """The cost of a delivery by a room. Each member asks first whether it has joined: joining takes a while."""
    with load.many(server.port, scenario.amount) as members:
        for member in members:
            load.exchange(member, JOINED, load.unmasked_size(len("joined")))
        return load.slice_of(lambda: _speak(members, scenario.size), len(members), server.pid, seconds)


def longest_turn(scenario: Scenario, server: Target, seconds: float) -> float:
    """Milliseconds of the server's longest turn, which it measures, while it sends to all by `send_nowait`."""
    with load.many(server.port, scenario.amount) as readers:
        found = []

        def once() -> None:
            _speak(readers, scenario.size)
            readers[0].sendall(LONGEST)
            found.append(float(load.receive_frame(readers[0])))

        load.slice_of(once, len(readers), server.pid, seconds)
        return max(found[load.WARM_UP :])


def _speak(readers: list[socket.socket], size: int) -> None:
    readers[0].sendall(load.masked_frame(bytes(size)))
    for reader in readers:
        load.receive_exactly(reader, load.unmasked_size(size))


def crowd(scenario: Scenario, server: Target, seconds: float) -> float:
    """Milliseconds of the server's CPU time until somebody has a message back, at most, while others connect.

    They all connect first, and then send their requests. With a core of its own the server would answer after so long.
    """
    frame, expected = load.masked_frame(bytes(256)), load.unmasked_size(256)
    delays: list[int] = []

    def echo() -> None:
        before = load.cpu_ns(server.pid)
        load.exchange(somebody, frame, expected)
        delays.append(load.cpu_ns(server.pid) - before)

    with load.open_websocket(server.port) as somebody:
        others: list[socket.socket] = []
        try:
            for _ in range(scenario.amount):
                others.append(load.connect(server.port))  # noqa: PERF401 - as in load.many()
            for _ in range(ACCEPTING):
                echo()
            for other in others:
                other.sendall(load.opening_request(server.port))
            answered = select.poll()
            answered.register(others[-1], select.POLLIN)
            while not answered.poll(0):
                echo()
            for other in others:
                load.read_response(other.recv)
        finally:
            for other in others:
                other.close()
            load.settle(server.pid)
    return max(delays) / 1e6


MEASURES: dict[str, Callable[[Scenario, Target, float], float]] = {
    **dict.fromkeys(["rtt", "text", "pipe", "cut"], exchange),
    "talk": talk,
    "conn": connect,
    "idle": idle,
    "json": compressed,
    "room": broadcast,
    "members": deliver,
    "turn": longest_turn,
    "crowd": crowd,
}
"""By the kind of a scenario; each takes it, the server, and the seconds of a slice."""
