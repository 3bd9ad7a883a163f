"""Frames that no rule allows, and floods of those that one allows: lines 26 to 38."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import Deflate, Opcode
from trio_pyjo_ws._engine.sockets import RECEIVE_SIZE
from trio_pyjo_ws.wire.frames import apply_mask

from .attack import BINARY, CLOSE, FIN, KEY, PING, PONG, RSV1, RSV2, RSV3, TEXT, peak_memory

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_pyjo_ws import Frame, Transaction

    from .attack import Peer

Attacked = Any


async def test_26_the_wrong_side_masks(attacked: Attacked, role: str, over: str, autojump_clock: MockClock) -> None:
    async with attacked(over=over) as peer:
        peer.send(peer.frame(TEXT, b"before"), peer.frame(TEXT, b"Hello", masked=role == "client"))
        await peer.fails_with(1002)
        assert peer.messages == ["before"]


@pytest.mark.parametrize("bit", [RSV1, RSV2, RSV3])
@pytest.mark.parametrize("head", [TEXT, BINARY, PING, CLOSE])
async def test_27_a_reserved_bit_without_its_extension(
    attacked: Attacked, bit: int, head: int, autojump_clock: MockClock
) -> None:
    async with attacked() as peer:
        peer.send(peer.header(head | bit, 0))
        await peer.fails_with(1002)


@pytest.mark.parametrize(
    ("before", "head"), [(b"", RSV1 | PING), (b"", RSV1 | PONG), (b"", RSV1 | CLOSE), (b"Hel", RSV1 | FIN)]
)
async def test_27_rsv1_where_it_has_no_meaning(
    attacked: Attacked, before: bytes, head: int, autojump_clock: MockClock
) -> None:
    async with attacked(compression=True) as peer:
        if before:
            peer.send(peer.frame(0x01, before))
        peer.send(peer.header(head, 0))
        await peer.fails_with(1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
async def test_28_a_reserved_opcode_is_refused_at_the_header(
    attacked: Attacked, opcode: int, autojump_clock: MockClock
) -> None:
    async with attacked() as peer:
        peer.send(peer.header(FIN | opcode, 100)[:2])
        await peer.fails_with(1002)


@pytest.mark.parametrize("opcode", [8, 9, 10])
@pytest.mark.parametrize(("fin", "length"), [(FIN, 126), (FIN, 65_536), (0, 0), (0, 125)])
async def test_29_a_control_frame_that_is_too_long_or_in_parts(
    attacked: Attacked, opcode: int, fin: int, length: int, autojump_clock: MockClock
) -> None:
    async with attacked() as peer:
        peer.send(peer.header(fin | opcode, length)[:2])
        await peer.fails_with(1002)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
async def test_30_a_length_with_its_highest_bit_set(attacked: Attacked, length: int, autojump_clock: MockClock) -> None:
    async with attacked() as peer:
        peer.send(peer.header(BINARY, length)[:10])
        await peer.fails_with(1002)


@pytest.mark.parametrize("length", [262_145, 1 << 32, 1 << 62, (1 << 63) - 1])
@pytest.mark.parametrize("compression", [False, True])
async def test_31_a_length_over_the_limit_costs_nothing(
    attacked: Attacked, length: int, compression: bool, autojump_clock: MockClock
) -> None:
    async with attacked(compression=compression) as peer:
        with peak_memory() as peak:
            peer.send(peer.header(BINARY, length)[:10])
            await peer.fails_with(1009)
            assert peak() < 65_536


@pytest.mark.parametrize(("length", "form"), [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65_535, 8)])
async def test_32_a_length_that_is_not_in_its_shortest_form(
    attacked: Attacked, length: int, form: int, autojump_clock: MockClock
) -> None:
    async with attacked() as peer:
        peer.send(peer.header(BINARY, length, form=form))
        await peer.fails_with(1002)


@pytest.mark.parametrize("head", [TEXT, BINARY, RSV1 | TEXT])
@pytest.mark.parametrize("arrived", [0, 1000, 200_000])
async def test_33_memory_grows_with_what_arrives_not_with_what_is_announced(
    attacked: Attacked, head: int, arrived: int, autojump_clock: MockClock
) -> None:
    async with attacked(over="socket", compression=True, max_websocket_size=1 << 30) as peer:
        header, payload = peer.header(head, 1 << 30), bytes(arrived)
        if head & RSV1:
            payload = b"\0\0\0\xff\xff" * (arrived // 5)  # blocks of nothing, as it is inflated while it arrives
        if peer.role == "server":
            payload = apply_mask(payload, KEY)
        with peak_memory() as peak:
            peer.send(header)
            await peer.pour(payload)
            await wait_all_tasks_blocked()
            # Room for three times as much is made in advance. What was read last is there, too.
            assert peak() < 4 * arrived + RECEIVE_SIZE + 65_536
        await peer.is_closed_with(1006)


@pytest.mark.parametrize(
    "heads",
    [(0x80,), (0x00,), (0x01, TEXT), (0x01, 0x02), (0x02, 0x00, BINARY), (TEXT, 0x80), (0x01, 0x80, 0x80)],
    ids=lambda heads: " ".join(f"{head:02x}" for head in heads),
)
async def test_34_a_continuation_of_nothing_and_a_message_within_another(
    attacked: Attacked, heads: tuple[int, ...], autojump_clock: MockClock
) -> None:
    async with attacked() as peer:
        peer.send(*(peer.frame(head, b"Hello") for head in heads))
        await peer.fails_with(1002)


@pytest.mark.parametrize("head", [0x01, 0x02])
async def test_35_65536_fragments_make_one_message_and_no_heap_of_pieces(
    attacked: Attacked, head: int, autojump_clock: MockClock
) -> None:
    async with attacked(over="socket") as peer:
        fragments = b"".join(
            peer.frame(head if not number else 0x80 if number == 65_535 else 0, b"%d" % (number % 10))
            for number in range(65_536)
        )
        half = 7 * 32_768 if peer.role == "server" else 3 * 32_768
        with peak_memory() as peak:
            await peer.pour(fragments[:half])
            await wait_all_tasks_blocked()
            assert peer.ws.__connection__.protocol.arriving.held == 32_768
            await peer.pour(fragments[half:])
            await wait_all_tasks_blocked()
            # A heap of pieces would take more than 50 bytes for each. What was read last is there, too, and its rest.
            assert peak() < 4 * 65_536 + 3 * RECEIVE_SIZE
        expected = (b"0123456789" * 6554)[:65_536]
        assert peer.messages == [expected if head == 2 else expected.decode()]
        await peer.is_closed_with(1006)


@pytest.mark.parametrize(("head", "compression"), [(0x01, False), (0x02, True), (0x41, True)])
async def test_36_endless_empty_continuations(
    attacked: Attacked, head: int, compression: bool, autojump_clock: MockClock
) -> None:
    async with attacked(compression=compression) as peer:
        peer.send(peer.frame(head), *[peer.frame(0)] * 1000)
        await wait_all_tasks_blocked()
        assert peer.read() == []
        peer.send(*[peer.frame(0)] * 1000)
        await peer.fails_with(1008)


@pytest.mark.parametrize("last", [0x00, 0x80])
async def test_37_fragments_that_sum_over_the_limit(attacked: Attacked, last: int, autojump_clock: MockClock) -> None:
    async with attacked(max_websocket_size=1000) as peer:
        peer.send(peer.frame(0x02, bytes(400)), peer.frame(0x00, bytes(400)), peer.frame(PING))
        await wait_all_tasks_blocked()
        assert [frame.opcode for frame in peer.read()] == [Opcode.PONG]
        peer.send(peer.header(last, 201))  # of which no byte has to come
        await peer.fails_with(1009)


def session(peer: Peer, deflate: Any) -> bytes:
    """One of everything that a peer may send, and the Close."""
    compressed = deflate.compress(b"compressed " * 20)
    return b"".join(
        [
            peer.frame(TEXT, "Grüße".encode()),
            peer.frame(0x01, "Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}".encode()[:3]),
            peer.frame(PING, b"in between"),
            peer.frame(0x00),
            peer.frame(0x80, "üße €".encode()[1:]),
            peer.frame(BINARY),
            peer.frame(BINARY, bytes(range(126))),
            peer.frame(BINARY, bytes(1000)),
            peer.frame(RSV1 | 0x01, compressed[:5]),
            peer.frame(PONG, b"nobody asked"),
            peer.frame(0x80, compressed[5:]),
            peer.frame(CLOSE, b"\x0b\xb8so long"),
        ]
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
async def test_38_however_the_bytes_are_cut_the_events_are_the_same(
    attacked: Attacked, size: int, autojump_clock: MockClock
) -> None:
    async def listen(ws: Transaction) -> None:
        async with ws.open_channel("frame", 100) as frames:
            async for frame in frames:
                seen.append(frame)  # noqa: PERF401 - the end of the channel raises

    for application in (None, listen):
        seen: list[Frame] = []
        async with attacked(application=application, compression=True) as peer:
            sent = session(peer, Deflate().codec(client=peer.role == "server"))
            for start in range(0, len(sent), size):
                peer.send(sent[start : start + size])
                await wait_all_tasks_blocked()
            assert [frame.opcode for frame in peer.read()] == [Opcode.PONG, Opcode.CLOSE]
            await peer.is_closed_with(3000)
            if application is None:
                assert peer.messages == ["Grüße", "Grüße €", b"", bytes(range(126)), bytes(1000), "compressed " * 20]
            else:
                assert [frame.head for frame in seen] == [
                    0x81,
                    0x01,
                    0x89,
                    0,
                    0x80,
                    0x82,
                    0x82,
                    0x82,
                    0x41,
                    0x8A,
                    0x80,
                    0x88,
                ]
