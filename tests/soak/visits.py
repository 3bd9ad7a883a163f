"""The visitors: what one connection does, from its coming to its end. Most of them do not behave.

Each is called with the world and a random generator, and raises only what is wrong: an end that the visit brings about,
or that befalls it, is none.
"""

from __future__ import annotations

import os
import ssl
import zlib
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from trio_pyjo_ws import ConnectionClosed, HandshakeError, Transaction, open_websocket
from trio_pyjo_ws.handshake.negotiate import make_key
from trio_pyjo_ws.wire.frames import build_frame

from .ledger import Ledger, binary, text
from .world import HOST, MAX_SIZE, OPTIONS, World, read_head, reset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from random import Random

    Visit = Callable[[World, Random], Awaitable[None]]

WORDS = "snake змея 蛇 🐍 ثعبان "
LARGE = 1_000_000
BOMB = zlib.compress(bytes(8 * MAX_SIZE))[2:-4]
PATIENCE = 120.0
"""Seconds that a visit may take; all the timeouts of both sides together are less."""

ENDS = (trio.EndOfChannel, trio.ClosedResourceError, ConnectionClosed)
LOST = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, ssl.SSLError)

VISITS: dict[str, tuple[int, Visit]] = {}


def visit(weight: int) -> Callable[[Visit], Visit]:
    """Enter a visit: out of 100 visits it is about this many."""

    def enter(function: Visit) -> Visit:
        VISITS[function.__name__] = weight, function
        return function

    return enter


async def run(name: str, world: World, random: Random) -> None:
    """One visit; what goes wrong is entered into the world's failures."""
    world.visits[name] += 1
    try:
        with trio.fail_after(PATIENCE):
            await VISITS[name][1](world, random)
    except Exception as exc:
        world.fail(name, exc)


# What visits are made of


@asynccontextmanager
async def client(world: World, random: Random, path: str) -> AsyncIterator[Transaction]:
    """Our client, over TCP or TLS, with compression or without; which comes by chance."""
    kind = random.choice(("tcp", "tls"))
    context = world.client_context if kind == "tls" else None
    url = f"{world.servers[kind].url}{path}"
    async with open_websocket(url, ssl_context=context, compression=random.random() < 0.5, **OPTIONS) as ws:
        yield ws


@contextmanager
def ended() -> Iterator[None]:
    """A part that only the end of the connection ends."""
    try:
        yield
    except ENDS:
        return
    raise AssertionError("the connection goes on")


def message(random: Random, number: int, largest: int = 3000) -> str | bytes:
    """A message for a ledger: text, or half of it noise."""
    size = random.randrange(largest)
    if random.random() < 0.5:
        return text(number, (WORDS * (size // len(WORDS) + 1))[:size])
    return binary(number, os.urandom(size // 2) + bytes(size // 2))


async def converse(world: World, random: Random, ws: Transaction, count: int, largest: int = 3000) -> None:
    """Send messages, several at once, to a server that sends them back, and see that all return in order."""
    ledger, sent = Ledger(), 0
    while sent < count:
        # What is sent before the first is received has to find room on the way: an echo waits for its reader.
        together = random.randrange(1, 20) if largest < LARGE else 1
        batch = [message(random, sent + index, largest) for index in range(min(count - sent, together))]
        sent += len(batch)
        for one in batch:
            await ws.send(one)
        for one in batch:
            back = await ws.receive()
            ledger.enter(back)
            assert back == one
    world.count(ledger)


@asynccontextmanager
async def raw(world: World, path: str, deflate: bool = False) -> AsyncIterator[trio.SocketStream]:
    """A TCP connection with the opening handshake behind it, whose end need not be clean."""
    async with plain(world) as stream:
        await stream.send_all(request(path, deflate))
        assert (await read_head(stream)).startswith(b"HTTP/1.1 101 ")
        yield stream


@asynccontextmanager
async def plain(world: World, kind: str = "tcp") -> AsyncIterator[trio.SocketStream]:
    """A TCP connection to our server."""
    port = world.servers[kind].port
    assert port is not None
    try:
        async with await trio.open_tcp_stream(HOST, port) as stream:
            yield stream
    except LOST:
        pass


def request(path: str, deflate: bool = False) -> bytes:
    extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else ""
    return (
        f"GET /{path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extension}"
        f"Sec-WebSocket-Key: {make_key()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def frame(payload: bytes, opcode: int = 2, fin: bool = True, rsv1: bool = False) -> bytes:
    return build_frame(fin, rsv1, 0, 0, opcode, payload, masked=True)


async def drop(stream: trio.SocketStream, random: Random) -> None:
    """Leave: with a reset, by closing, or closing one way and reading to the end."""
    how = random.randrange(3)
    if how == 0:
        reset(stream)
    elif how == 1:
        await stream.send_eof()
        await exhaust(stream)


async def exhaust(stream: trio.abc.ReceiveStream) -> int:
    """Read to the end of the stream; tell how much that was."""
    size = 0
    async for data in stream:
        size += len(data)
    return size


# Those who behave, and those whom our client and server let down


@visit(25)
async def talk(world: World, random: Random) -> None:
    async with client(world, random, random.choice(("count", "channel"))) as ws:
        await converse(world, random, ws, random.randrange(60))
        await ws.finish(random.choice((1000, 1001, 3000, 4999)), "bye")


@visit(4)
async def talk_at_length(world: World, random: Random) -> None:
    async with client(world, random, "count") as ws:
        await converse(world, random, ws, 5, LARGE)


@visit(4)
async def ping(world: World, random: Random) -> None:
    async with client(world, random, "echo") as ws:
        for _ in range(random.randrange(10)):
            assert await ws.ping() < PATIENCE


@visit(3)
async def fragments(world: World, random: Random) -> None:
    async with client(world, random, "echo") as ws:
        pieces = [os.urandom(random.randrange(1000)) for _ in range(random.randrange(1, 20))]
        for index, piece in enumerate(pieces):
            await ws.send(frame=[index == len(pieces) - 1, 0, 0, 0, 0 if index else 2, piece])
        assert await ws.receive() == b"".join(pieces)


@visit(4)
async def read_slowly(world: World, random: Random) -> None:
    """The server sends more than the socket and the queue hold, and has to wait."""
    count = random.randrange(1000, 4000)
    async with client(world, random, f"flood/{count}") as ws:
        ledger = Ledger()
        for number in range(count):
            if number % 500 == 0:
                await trio.sleep(random.random() / 10)
            ledger.enter(await ws.receive())
        world.count(ledger)
        with ended():
            await ws.receive()


@visit(3)
async def flood(world: World, random: Random) -> None:
    """Send without receiving, until the server has to wait; then receive it all."""
    count = random.randrange(500, 3000)
    ledger = Ledger()
    async with client(world, random, "count") as ws, trio.open_nursery() as nursery:

        async def send() -> None:
            for number in range(count):
                await ws.send(binary(number, bytes(100)))

        nursery.start_soon(send)
        await trio.sleep(random.random() / 5)
        for _ in range(count):
            ledger.enter(await ws.receive())
    world.count(ledger)


@visit(6)
async def cancelled(world: World, random: Random) -> None:
    """Cancelled at some moment: while it connects, talks or closes."""
    with trio.move_on_after(random.random() ** 3 / 5):
        async with client(world, random, "count") as ws:
            await converse(world, random, ws, 200)


@visit(5)
async def leave(world: World, random: Random) -> None:
    """Our client, gone without Close, with messages on the way."""
    async with client(world, random, random.choice(("count", "flood/300"))) as ws:
        for number in range(random.randrange(30)):
            await ws.send(message(random, number))
        await trio.aclose_forcefully(ws)


@visit(3)
async def closed_by_server(world: World, random: Random) -> None:
    async with client(world, random, "close") as ws:
        await ws.send("close")
        with ended():
            await ws.receive()
        assert ws.closed is not None
        assert ws.closed.code == 4000


@visit(3)
async def handler_crashes(world: World, random: Random) -> None:
    async with client(world, random, "crash") as ws:
        await ws.send("crash")
        with ended():
            await ws.receive()
        assert ws.closed is not None
        assert ws.closed.code == 1011


@visit(4)
async def handler_cancelled(world: World, random: Random) -> None:
    async with client(world, random, f"cancel/{random.random() / 20}") as ws:
        with ended():
            await converse(world, random, ws, 100_000)
        assert ws.closed is not None
        assert ws.closed.code == 1000


@visit(3)
async def handler_deaf(world: World, random: Random) -> None:
    """The server closes with its queue full, and its peer has not stopped sending."""
    async with client(world, random, f"deaf/{random.random() / 3}") as ws:
        with ended():
            while True:
                await ws.send(os.urandom(5000))


@visit(5)
async def bad_server(world: World, random: Random) -> None:
    """Our client at a server that breaks the rules."""
    try:
        async with open_websocket(f"ws://{HOST}:{world.bad_port}/", **OPTIONS) as ws:
            while True:
                await ws.receive()
    except (*ENDS, HandshakeError, trio.TooSlowError):
        pass


# Raw bytes, for our server


@visit(4)
async def handshake_breaks(world: World, random: Random) -> None:
    async with plain(world) as stream:
        whole = request("echo")
        await stream.send_all(whole[: random.randrange(len(whole))])
        await drop(stream, random)


@visit(1)
async def handshake_stalls(world: World, random: Random) -> None:
    """The server ends it: with an answer, or over TLS without."""
    async with plain(world, random.choice(("tcp", "tls"))) as stream:
        await stream.send_all(request("echo")[: random.randrange(20)])
        await exhaust(stream)


@visit(2)
async def garbage(world: World, random: Random) -> None:
    async with plain(world, random.choice(("tcp", "tls"))) as stream:
        await stream.send_all(os.urandom(random.randrange(1, 100_000)))
        await exhaust(stream)


@visit(2)
async def tls_breaks(world: World, random: Random) -> None:
    """TLS that ends at some byte, in its handshake or after."""
    async with plain(world, "tls") as stream:
        secure = trio.SSLStream(stream, world.client_context, server_hostname=HOST)
        await secure.send_all(request("echo"))
        await read_head(secure)
        await secure.send_all(frame(os.urandom(1000)))
        if random.random() < 0.5:
            await stream.send_all(os.urandom(random.randrange(100)))
        await drop(stream, random)


@visit(6)
async def frame_breaks(world: World, random: Random) -> None:
    """A connection that ends in the middle of a frame."""
    async with raw(world, random.choice(("echo", "channel"))) as stream:
        last = frame(os.urandom(random.choice((10, 1000, 200_000))))
        await stream.send_all(frame(b"whole") * random.randrange(50) + last[: random.randrange(len(last))])
        await drop(stream, random)


@visit(6)
async def breach(world: World, random: Random) -> None:
    """A breach of the RFC; the server closes."""
    tail = os.urandom(random.randrange(50))
    breaches = [
        build_frame(1, 0, 0, 0, 1, b"unmasked"),
        frame(b"\xff", 1),
        frame(b"", 5),
        frame(b"rsv", rsv1=True),
        frame(b"no beginning", 0),
        frame(b"x", 9, fin=False),
        frame(b"\x00", 8),
        frame(b"\x03\xed", 8),
        b"\x82\xff" + (MAX_SIZE + 1).to_bytes(8, "big"),
        b"\x82\xff" + (2**63 + 1).to_bytes(8, "big"),
        frame(b"", 2, fin=False) + frame(b"", 0, fin=False) * 5000,
    ]
    async with raw(world, "echo") as stream:
        await stream.send_all(random.choice(breaches) + tail)
        await stream.send_eof()
        assert await exhaust(stream) >= 4, "no Close came"


@visit(3)
async def breach_of_compression(world: World, random: Random) -> None:
    """Corrupt data, and data that inflate beyond every bound."""
    async with raw(world, "echo", deflate=True) as stream:
        payload = random.choice((os.urandom(500), BOMB, b"\x06", b""))
        await stream.send_all(frame(payload, rsv1=True) + frame(b"\x03\xe8", 8))
        await exhaust(stream)


@visit(2)
async def never_read(world: World, random: Random) -> None:
    """A peer that asks for much and reads nothing; it leaves, or the keepalive drops it."""
    async with raw(world, random.choice(("echo", "flood/100000"))) as stream:
        with trio.move_on_after(random.choice((0.2, 1.0, 15.0))):
            while True:
                await stream.send_all(frame(os.urandom(10_000)) + frame(b"ping", 9) * 100)
        reset(stream)


@visit(2)
async def stall(world: World, random: Random) -> None:
    """A peer that falls silent in the middle of a message."""
    async with raw(world, "echo") as stream:
        await stream.send_all(frame(b"begun", 1, fin=False) + frame(os.urandom(500))[:200])
        with trio.move_on_after(random.choice((0.2, 1.0, 15.0))):
            await exhaust(stream)


# Those who stay


async def stay(world: World, random: Random, kind: str, compressed: bool, leaving: trio.Event) -> None:
    """A connection that is there from the beginning to the end, and must not notice what happens around it."""
    try:
        context = world.client_context if kind == "tls" else None
        url = f"{world.servers[kind].url}count"
        async with open_websocket(url, ssl_context=context, compression=compressed, **OPTIONS) as ws:
            ledger, number = Ledger(), 0
            while not leaving.is_set():
                batch = [message(random, number + index) for index in range(random.randrange(1, 30))]
                number += len(batch)
                for one in batch:
                    await ws.send(one)
                for one in batch:
                    back = await ws.receive()
                    ledger.enter(back)
                    assert back == one
                await trio.sleep(random.random() / 20)
            world.count(ledger)
            assert (await ws.finish(1000)).code == 1000
    except Exception as exc:
        world.fail(f"a connection that stays, {kind}, {'compressed' if compressed else 'not compressed'}", exc)
