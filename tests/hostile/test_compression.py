"""Compressed messages that are traps: lines 51 to 55."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_pyjo_ws import Deflate, Opcode
from trio_pyjo_ws._engine.sockets import RECEIVE_SIZE
from trio_pyjo_ws.wire.deflate import MAX_STREAMS

from ..metering import Meter
from .attack import BINARY, CLOSE, LIMIT, PING, RSV1, TEXT, peak_memory

if TYPE_CHECKING:
    from trio_pyjo_ws import Transaction

    from .attack import Peer

Attacked = Any

EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
ALONE = Deflate(server_no_context_takeover=True, client_no_context_takeover=True)


def block_of_zeros(size: int) -> bytes:
    """A block that refers to nothing before it, so that it may stand anywhere, any number of times."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(bytes(size)) + compressor.flush(zlib.Z_FULL_FLUSH)


MEGABYTE = block_of_zeros(1 << 20)
BOMB = MEGABYTE * 200
"""A message of 200 MiB, in 0.1 % of that."""


def compressed(message: bytes, dictionary: bytes = b"", *, final: bool = False) -> bytes:
    """What a message is on the wire; ``final`` ends it with BFINAL=1."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=dictionary)
    if final:
        return compressor.compress(message) + compressor.flush(zlib.Z_FINISH)
    return compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


@pytest.mark.parametrize("fragments", [1, 2, 200])
@pytest.mark.parametrize("takeover", [True, False])
async def test_51_a_bomb_is_not_inflated_beyond_the_limit(
    attacked: Attacked, fragments: int, takeover: bool, autojump_clock: MockClock
) -> None:
    async with attacked(over="socket", compression=True if takeover else ALONE) as peer:
        bomb = peer.fragments(RSV1 | BINARY, BOMB, fragments)
        with peak_memory() as peak:
            await peer.pour(bomb)
            await peer.fails_with(1009)
            assert peak() < LIMIT


async def test_51_a_bomb_that_refers_to_the_message_before(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with attacked(over="socket", compression=True, max_websocket_size=50_000) as peer:
        message = bytes(range(250)) * 200
        bomb = peer.frame(RSV1 | BINARY, compressed(message * 400, message))
        peer.send(peer.frame(RSV1 | BINARY, compressed(message)))
        await wait_all_tasks_blocked()
        with peak_memory() as peak:
            await peer.pour(bomb)
            await peer.fails_with(1009)
            assert peak() < LIMIT
        assert peer.messages == [message]


async def test_51_bombs_within_the_limit_wait_for_room_in_the_queue(
    attacked: Attacked, autojump_clock: MockClock
) -> None:
    async def sleep(ws: Transaction) -> None:
        await trio.sleep(100)
        await ws.aclose()

    async with attacked(over="socket", compression=True, application=sleep) as peer:
        bombs = peer.frame(RSV1 | BINARY, block_of_zeros(200_000)[:-4]) * 100
        with peak_memory() as peak:
            peer.send(bombs)
            await trio.sleep(10)
            assert peer.ws.statistics().messages_waiting == 6
            assert peak() < LIMIT + 2 * RECEIVE_SIZE
        await trio.sleep(200)


@pytest.mark.parametrize("how", ["filled", "lowered"])
async def test_52_a_budget_of_nothing_is_not_taken_for_no_limit(
    attacked: Attacked, how: str, autojump_clock: MockClock
) -> None:
    async with attacked(over="socket", compression=True) as peer:
        peer.send(peer.frame(RSV1 | 0x02, block_of_zeros(262_144)))
        await wait_all_tasks_blocked()
        if how == "lowered":
            peer.ws.max_websocket_size = 1000
            assert peer.read() == []
        bomb = peer.frame(0x80, BOMB[:50_000] if how == "filled" else MEGABYTE[:500])
        with peak_memory() as peak:
            await peer.pour(bomb)
            await peer.fails_with(1009)
            assert peak() < LIMIT


async def test_52_a_budget_of_nothing_is_enough_for_nothing(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with attacked(compression=True, max_websocket_size=1000) as peer:
        peer.send(peer.frame(RSV1 | 0x02, block_of_zeros(1000)), peer.frame(0x00, EMPTY_BLOCK), peer.frame(0x80, b"\0"))
        await wait_all_tasks_blocked()
        assert peer.messages == [bytes(1000)]
        await peer.is_closed_with(1006)


CORRUPT = {
    "a block type that there is not": b"\x06",
    "lengths of a stored block that contradict": b"\x00\x01\x00\x01\x00a",
    "a reference to what was not there": compressed(bytes(range(200)) * 2, bytes(range(200))),
    "a torn stored block": b"\x00\xff\x00\x00\xffabc",
    "too many codes": b"\x04\xff\xff\xff",
    "noise": bytes(range(150, 250)),
}


@pytest.mark.parametrize("data", CORRUPT.values(), ids=list(CORRUPT))
@pytest.mark.parametrize("fragmented", [False, True])
async def test_53_corrupt_data(attacked: Attacked, data: bytes, fragmented: bool, autojump_clock: MockClock) -> None:
    async with attacked(compression=True) as peer:
        peer.send(peer.frame(RSV1 | TEXT, compressed(b"before")))
        if fragmented:
            first = block_of_zeros(10)
            peer.send(peer.frame(RSV1 | 0x02, first), peer.frame(PING), peer.frame(0x80, data))
        else:
            peer.send(peer.frame(RSV1 | BINARY, data))
        await peer.fails_with(1007)
        assert peer.messages == ["before"]


@pytest.mark.parametrize("end", [b"", b"\0"], ids=["cut", "padded"])
@pytest.mark.parametrize("fragments", [1, 3])
async def test_54_a_final_block_ends_neither_the_message_nor_the_window(
    attacked: Attacked, end: bytes, fragments: int, autojump_clock: MockClock
) -> None:
    first, second, third = b"first message, with text. ", b"first message, once more. ", b"and a third"
    async with attacked(compression=True) as peer:
        data = compressed(first, final=True) + end
        peer.send(peer.fragments(RSV1 | TEXT, data, fragments))
        # Each refers to those before it.
        peer.send(peer.frame(RSV1 | TEXT, compressed(second, first, final=True) + end))
        peer.send(peer.frame(RSV1 | TEXT, compressed(third, first + second)), peer.frame(CLOSE, b"\x03\xe8"))
        await wait_all_tasks_blocked()
        assert peer.messages == [first.decode(), second.decode(), third.decode()]
        assert [frame.opcode for frame in peer.read()] == [Opcode.CLOSE]
        await peer.ends_normally()


async def work_for(peer: Peer, meter: Meter, data: bytes, expected: int) -> int:
    before = meter.work
    await peer.pour(data)
    await wait_all_tasks_blocked()
    assert sum(map(len, peer.messages)) == expected
    peer.messages.clear()
    return meter.work - before


@pytest.mark.parametrize("takeover", [True, False])
async def test_55_many_tiny_messages_cost_what_one_costs_times_their_number(
    attacked: Attacked, takeover: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    meter = Meter(monkeypatch)
    async with attacked(over="socket", compression=True if takeover else ALONE) as peer:
        frame = peer.frame(RSV1 | BINARY, compressed(b"a"))
        await work_for(peer, meter, frame, 1)
        few = await work_for(peer, meter, frame * 500, 500)
        many = await work_for(peer, meter, frame * 2000, 2000)
        assert many == 4 * few
        await peer.is_closed_with(1006)


@pytest.mark.parametrize("fragments", [1, 100])
async def test_55_many_streams_in_one_message_are_too_many(
    attacked: Attacked, fragments: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Each makes zlib begin anew. No sender has more than one, or one for each fragment."""
    meter = Meter(monkeypatch)
    window = block_of_zeros(32_768)  # as large as it gets, from the beginning
    stream = compressed(b"a", final=True)
    async with attacked(over="socket", compression=True) as peer:
        allowed = peer.fragments(RSV1 | BINARY, window + stream * MAX_STREAMS, fragments)
        one = await work_for(peer, meter, allowed, 32_768 + MAX_STREAMS)
        assert await work_for(peer, meter, allowed * 3, 3 * (32_768 + MAX_STREAMS)) <= 3 * one
        before = meter.work
        await peer.pour(peer.fragments(RSV1 | BINARY, window + stream * 8000, fragments))
        await peer.fails_with(1008)
        assert meter.work - before < 3 * one
