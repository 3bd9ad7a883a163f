"""Sending what takes more than queueing it: a message from a list or a generator, in pieces; a large one compressed."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import ConnectionClosed, Deflate, Transaction
from trio_pyjo_ws._engine.connection import COMPRESSED_AT_ONCE
from trio_pyjo_ws.testing import Faults, FaultyStream, open_memory_pair, open_scripted_pair

from ..peer import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock

WISHES = pytest.mark.parametrize(
    "wish",
    [Deflate(), Deflate(client_no_context_takeover=True, server_no_context_takeover=True)],
    ids=["context takeover", "no context takeover"],
)
BINARY = os.urandom(3 * COMPRESSED_AT_ONCE) + bytes(COMPRESSED_AT_ONCE)
TEXT = "Grüße! " * COMPRESSED_AT_ONCE


def compressing(nursery: trio.Nursery, wish: Deflate) -> tuple[Transaction, Transaction]:
    return open_memory_pair(nursery, compression=wish, max_websocket_size=1 << 24, max_queue_bytes=1 << 26)


@WISHES
@pytest.mark.parametrize("message", [BINARY, TEXT], ids=["binary", "text"])
async def test_a_large_message_arrives_compressed(
    wish: Deflate, message: str | bytes, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, peer = compressing(nursery, wish)
    for _ in range(2):
        await ws.send(message)
        await ws.send("small")
        assert await peer.receive() == message
        assert await peer.receive() == "small"
    assert ws.statistics().compression_sent[0] >= 2 * len(message)


@WISHES
async def test_others_run_while_a_large_message_is_compressed(
    wish: Deflate, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, _ = compressing(nursery, wish)
    turns = Turns()
    async with trio.open_nursery() as others:
        others.start_soon(turns.run)
        await ws.send(BINARY * 5)
        assert turns.count >= len(BINARY * 5) // COMPRESSED_AT_ONCE - 1  # one between any two parts
        others.cancel_scope.cancel()


async def test_as_one_that_compresses_without_it_is_asked_for(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ws, peer = compressing(nursery, Deflate())
    ws.compressed = False
    await ws.send(BINARY, compress=True)
    assert await peer.receive() == BINARY
    assert ws.statistics().compression_sent[0] == len(BINARY)
    await ws.send(BINARY)
    assert await peer.receive() == BINARY
    assert ws.statistics().compression_sent[0] == len(BINARY)


@WISHES
async def test_others_that_send_wait_for_it_and_nobody_sends_at_once(
    wish: Deflate, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, peer = compressing(nursery, wish)
    nursery.start_soon(ws.send, BINARY)
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    with pytest.raises(trio.WouldBlock):
        ws.send_nowait("at once")
    nursery.start_soon(ws.send, "small")
    assert await peer.receive() == BINARY
    assert await peer.receive() == "small"


@WISHES
async def test_a_pong_does_not_wait_for_it(wish: Deflate, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ws, peer = compressing(nursery, wish)
    nursery.start_soon(ws.send, BINARY)
    await trio.lowlevel.checkpoint()
    await ws.ping()
    assert await peer.receive() == BINARY


@WISHES
@pytest.mark.parametrize("steps", range(1, 5))
async def test_cancelled_it_has_sent_all_or_nothing_and_what_follows_decodes(
    wish: Deflate, steps: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, peer = compressing(nursery, wish)
    await ws.send("before " * 100)
    with trio.CancelScope() as scope:

        async def cancel() -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        nursery.start_soon(cancel)
        await ws.send(BINARY)
    await ws.send("before, and behind " * 100)
    assert scope.cancelled_caught
    assert await peer.receive() == "before " * 100
    following = await peer.receive()
    if following == BINARY:
        following = await peer.receive()
    assert following == "before, and behind " * 100


async def test_its_callback_is_called_when_it_was_handed_over(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ws, peer = compressing(nursery, Deflate())
    called: list[Transaction] = []
    await ws.send(called.append, BINARY)
    assert await peer.receive() == BINARY
    assert called == [ws]


@pytest.mark.parametrize("closer", ["this side", "the peer"])
async def test_a_connection_that_ends_meanwhile_is_told(
    closer: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, peer = compressing(nursery, Deflate())
    ending = ws if closer == "this side" else peer
    ws.on("message", lambda *_: None)  # so that somebody reads
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(partial(ending.finish, 4000))
    error = trio.ClosedResourceError if closer == "this side" else ConnectionClosed
    with pytest.raises(error):
        await ws.send(bytes(20 * COMPRESSED_AT_ONCE))


# Pieces that are there already


@pytest.mark.parametrize("make", [list, tuple, iter, lambda pieces: (piece for piece in pieces)])
@pytest.mark.parametrize("compression", [False, True])
async def test_a_list_or_a_generator_goes_as_one_message_in_fragments(
    make: Any, compression: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, peer = open_memory_pair(nursery, compression=compression)
    frames = peer.open_channel("frame")
    await ws.send(text=make(["Gr", "ü".encode()[:1], "ü".encode()[1:], "", "ße"]))
    await ws.send(binary=make([b"a", bytearray(b"b"), memoryview(b"c")]))
    assert await peer.receive() == "Grüße"
    assert await peer.receive() == b"abc"
    fins = [(await frames.receive()).fin for _ in range(frames.statistics().current_buffer_used)]
    assert fins == [False] * 4 + [True] + [False] * 3 + [True]


async def test_no_pieces_are_an_empty_message(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ws, peer = open_memory_pair(nursery)
    await ws.send(text=[])
    await ws.send(binary=iter(()))
    assert [await peer.receive(), await peer.receive()] == ["", b""]


async def test_a_generator_that_raises_ends_the_connection_and_is_closed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ended: list[str] = []

    def pieces(fails: bool) -> Iterator[str]:
        try:
            yield "half of it"
            if fails:
                raise KeyError("a bug")
            yield 5  # type: ignore[misc]
        finally:
            ended.append("closed")

    for fails, error in ((True, KeyError), (False, TypeError)):
        ws, peer = open_memory_pair(nursery)
        with pytest.raises(error):
            await ws.send(text=pieces(fails))
        with pytest.raises(ConnectionClosed, match="1011"):
            await peer.receive()
    assert ended == ["closed", "closed"]


async def test_a_list_that_does_not_fit_leaves_the_connection_open(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, peer = open_memory_pair(nursery)
    with pytest.raises(TypeError, match="the pieces of this message must be bytes, not str"):
        await ws.send(binary=[b"a", "b"])  # type: ignore[call-overload]
    await ws.send("still open")
    assert await peer.receive() == "still open"


async def test_sending_from_an_endless_generator_can_be_cancelled(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws, _ = open_memory_pair(nursery, max_websocket_size=None)

    def endless() -> Iterator[bytes]:
        while True:
            yield b"a" * 1000

    async with trio.open_nursery() as others:

        async def run() -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            others.cancel_scope.cancel()

        others.start_soon(run)
        await ws.send(binary=endless())
    assert others.cancel_scope.cancelled_caught


async def test_a_message_in_pieces_that_cannot_be_sent_does_not_count_as_closing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ws, _ = open_scripted_pair(nursery, "client", streams=(FaultyStream(ours, send=Faults(eof_at=20)), theirs))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"piece"
            await trio.sleep(1)

    with pytest.raises(ConnectionClosed, match="1006"):
        await ws.send(binary=pieces())
    with pytest.raises(ConnectionClosed, match="1006"):  # It was lost: this side has not closed it.
        await ws.receive()
