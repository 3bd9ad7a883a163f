"""Text that is none, and closing against resistance: lines 39 to 50."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_pyjo_ws import Close, ConnectionClosed, Deflate, Opcode
from trio_pyjo_ws.testing import open_memory_pair

from .attack import BINARY, CLOSE, LONG, PING, RSV1, TEXT, peak_memory

if TYPE_CHECKING:
    from trio_pyjo_ws import Transaction

    from .attack import Peer

Attacked = Any

# What may begin a character, and what may not follow it.
NOT_UTF_8 = {
    "a byte that never occurs": (b"", b"\xff"),
    "a continuation of nothing": (b"", b"\x80"),
    "an overlong slash": (b"", b"\xc0\xaf"),
    "a longer overlong slash": (b"\xe0", b"\x80\xaf"),
    "the longest overlong slash": (b"\xf0", b"\x80\x80\xaf"),
    "a surrogate": (b"\xed", b"\xa0\x80"),
    "the last surrogate": (b"\xed", b"\xbf\xbf"),
    "above U+10FFFF": (b"\xf4", b"\x90\x80\x80"),
    "a character that another interrupts": (b"\xe2\x82", b"A"),
}
TRUNCATED = {"two bytes": b"\xc3", "three bytes": b"\xe2\x82", "four bytes": b"\xf0\x9f\x98"}
BAD = {name: begin + rest for name, (begin, rest) in NOT_UTF_8.items()} | TRUNCATED

EACH_BAD = pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
EACH_BEGIN = pytest.mark.parametrize(("begin", "rest"), NOT_UTF_8.values(), ids=list(NOT_UTF_8))


# Text


@EACH_BEGIN
async def test_39_the_first_bad_byte_ends_it_before_the_message_ends(
    attacked: Attacked, begin: bytes, rest: bytes, autojump_clock: MockClock
) -> None:
    async with attacked() as peer:
        peer.send(peer.frame(0x01, "Grüße ".encode() + begin))
        await wait_all_tasks_blocked()
        assert peer.read() == []
        # One byte of a hundred, and more fragments to come.
        peer.send(peer.frame(0x00, rest[:1] + bytes(99))[:-99])
        await peer.fails_with(1007)
        assert peer.messages == []


@EACH_BEGIN
async def test_39_compressed_the_first_bad_fragment_ends_it(
    attacked: Attacked, begin: bytes, rest: bytes, autojump_clock: MockClock
) -> None:
    async with attacked(compression=True) as peer:
        deflate = Deflate().codec(client=peer.role == "server")
        for head, text in ((RSV1 | 0x01, "Grüße ".encode() + begin), (0x00, rest[:1])):
            assert peer.read() == []
            peer.send(peer.frame(head, deflate.compress(text) + b"\0\0\xff\xff"))
            await wait_all_tasks_blocked()
        await peer.fails_with(1007)


@EACH_BAD
@pytest.mark.parametrize("form", ["whole", "in fragments", "compressed"])
async def test_40_text_that_is_not_utf_8(attacked: Attacked, bad: bytes, form: str, autojump_clock: MockClock) -> None:
    text = "Grüße ".encode() + bad
    async with attacked(compression=True) as peer:
        if form == "compressed":
            peer.send(peer.frame(RSV1 | TEXT, Deflate().codec(client=peer.role == "server").compress(text)))
        else:
            peer.send(peer.fragments(TEXT, text, 1 if form == "whole" else len(text)))
        await peer.fails_with(1007)
        assert peer.messages == []


# What a Close may say


@pytest.mark.parametrize(
    "payload",
    [
        b"\x03",
        *(
            code.to_bytes(2, "big")
            for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 9999, 65_535)
        ),
    ],
)
async def test_41_a_code_that_must_not_be_sent(attacked: Attacked, payload: bytes, autojump_clock: MockClock) -> None:
    async with attacked() as peer:
        peer.send(peer.frame(CLOSE, payload))
        await peer.fails_with(1002)


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 3999, 4000, 4999])
async def test_41_a_code_that_may_be_sent_is_answered(attacked: Attacked, code: int, autojump_clock: MockClock) -> None:
    async with attacked() as peer:
        peer.send(peer.frame(CLOSE, code.to_bytes(2, "big") + b"why"))
        await wait_all_tasks_blocked()
        assert [frame.payload for frame in peer.read()] == [code.to_bytes(2, "big") + b"why"]
        await (peer.ends_normally() if code == 1000 else peer.is_closed_with(code))


@EACH_BAD
async def test_42_a_reason_that_is_not_utf_8(attacked: Attacked, bad: bytes, autojump_clock: MockClock) -> None:
    async with attacked() as peer:
        peer.send(peer.frame(CLOSE, b"\x03\xe8Gr\xc3\xbc" + bad))
        await peer.fails_with(1007)


# What comes after a Close


async def test_43_what_follows_a_close_in_the_same_piece_is_ignored(
    attacked: Attacked, over: str, autojump_clock: MockClock
) -> None:
    async with attacked(over=over) as peer:
        peer.send(peer.frame(TEXT, b"before"), peer.frame(CLOSE, b"\x0b\xb8"))
        peer.send(peer.frame(TEXT, b"after"), peer.frame(PING), peer.frame(0x83), b"\xff" * 1000)
        await wait_all_tasks_blocked()
        assert peer.messages == ["before"]
        assert [frame.opcode for frame in peer.read()] == [Opcode.CLOSE]
        await peer.is_closed_with(3000)


async def test_43_a_flood_after_a_close_is_bounded_in_memory_and_time(
    attacked: Attacked, role: str, autojump_clock: MockClock
) -> None:
    async with attacked(over="socket") as peer:
        flood = peer.frame(TEXT, b"after") * 10_000
        with peak_memory() as peak:
            peer.send(peer.frame(CLOSE, b"\x0b\xb8"))
            await peer.pour(flood)
            await trio.sleep(5)
            # The server leaves at once. The client leaves it to the server to close, for as long as a close may take.
            assert peer.ws.is_finished is (role == "server")
            await peer.pour(flood, 10)
            assert peak() < 262_144
        await trio.sleep(6)
        assert peer.ws.is_finished
        assert peer.messages == []
        assert [frame.opcode for frame in peer.read()] == [Opcode.CLOSE]


@pytest.mark.parametrize("part", [0x01, 0x02, RSV1 | 0x01])
async def test_44_a_close_in_the_middle_of_a_message(attacked: Attacked, part: int, autojump_clock: MockClock) -> None:
    async with attacked(compression=True) as peer:
        peer.send(peer.frame(TEXT, b"before"), peer.frame(part, b"\xf2H\xcd"[part & RSV1 == 0 :]))
        peer.send(peer.frame(CLOSE, b"\x0b\xb8"))
        await wait_all_tasks_blocked()
        assert [frame.payload for frame in peer.read()] == [b"\x0b\xb8"]
        assert peer.messages == ["before"]
        await peer.is_closed_with(3000)


async def test_44_a_close_in_the_middle_of_a_frame_is_none(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with attacked() as peer:
        peer.send(peer.header(BINARY, 100), peer.frame(CLOSE, b"\x0b\xb8"))
        await wait_all_tasks_blocked()
        assert peer.read() == []
        await peer.is_closed_with(1006)


# Closing against resistance


class Finishing:
    """An application that reads nothing, and closes when it is told to."""

    def __init__(self) -> None:
        self.told = trio.Event()
        self.closed: Close | None = None
        self.took = -1.0

    async def __call__(self, ws: Transaction) -> None:
        await self.told.wait()
        start = trio.current_time()
        self.closed = await ws.finish(1000, "enough")
        self.took = trio.current_time() - start


async def finish(peer: Peer, application: Finishing) -> None:
    """Have our side send Close, and see that it has."""
    application.told.set()
    await wait_all_tasks_blocked()
    assert [frame.payload for frame in peer.read()] == [b"\x03\xe8enough"]


async def test_45_both_close_at_once(attacked: Attacked, over: str, autojump_clock: MockClock) -> None:
    application = Finishing()
    async with attacked(application=application, over=over) as peer:
        await finish(peer, application)
        peer.send(peer.frame(CLOSE, b"\x0b\xb8"))  # which was on its way
        await wait_all_tasks_blocked()
        assert peer.read() == []  # no second Close
        await peer.ends_normally()
        assert application.closed == Close(3000)
        assert application.took == 0


async def test_45_both_close_at_once_and_both_are_ours(autojump_clock: MockClock) -> None:
    closed: dict[str, Close] = {}

    async def finish(ws: Transaction, code: int) -> None:
        closed[ws.__connection__.protocol.role] = await ws.finish(code)

    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery)
        nursery.start_soon(finish, client, 3001)
        nursery.start_soon(finish, server, 3002)
    assert closed == {"client": Close(3002), "server": Close(3001)}
    assert trio.current_time() == 0


@pytest.mark.parametrize("flood", [None, TEXT, PING], ids=["silence", "messages", "pings"])
@pytest.mark.parametrize("reads", [True, False])
async def test_46_a_close_that_is_not_answered_is_bounded_in_memory_and_time(
    attacked: Attacked, flood: int | None, reads: bool, autojump_clock: MockClock
) -> None:
    application = Finishing()
    async with attacked(application=application, over="socket") as peer:
        if not reads:
            while peer.ws.statistics().bytes_unsent == 0:
                peer.ws.send_nowait(bytes(60_000))
        application.told.set()
        await wait_all_tasks_blocked()
        if flood:
            chunk = peer.frame(flood, b"after") * 100
        with peak_memory() as peak:
            for _ in range(11):
                if flood:
                    await peer.pour(chunk)
                await trio.sleep(1)
            assert peak() < 262_144
        await wait_all_tasks_blocked()
        assert peer.ws.is_finished
        assert application.closed is not None
        assert application.closed.code == 1006
        assert application.took == pytest.approx(10)


@pytest.mark.parametrize("options", [{"max_queue": 4}, {"max_queue_bytes": 200}])
async def test_47_a_close_does_not_wait_behind_a_full_queue(
    attacked: Attacked, over: str, options: dict[str, int], autojump_clock: MockClock
) -> None:
    application = Finishing()
    async with attacked(application=application, over=over, **options) as peer:
        for number in range(9):
            peer.send(peer.frame(TEXT, b"message %d " % number))
            await trio.sleep(60)
        assert peer.ws.statistics().messages_waiting == 4
        await finish(peer, application)
        peer.send(peer.frame(TEXT, b"too late"), peer.frame(CLOSE, b"\x03\xe8"))
        await wait_all_tasks_blocked()
        await peer.ends_normally()
        assert application.took == 0
        assert application.closed == Close(1000, "enough")  # It was answered without a reason.
        # What was queued stays readable, and then it ends.
        assert [peer.ws.receive_nowait() for _ in range(4)] == [f"message {number} " for number in range(4)]
        with pytest.raises(trio.ClosedResourceError):
            await peer.ws.receive()


async def test_47_a_close_does_not_wait_behind_a_full_channel(
    attacked: Attacked, over: str, autojump_clock: MockClock
) -> None:
    application = Finishing()
    async with attacked(application=application, over=over) as peer:
        with peer.ws.open_channel("text", 2) as channel:
            peer.send(*[peer.frame(TEXT, b"message")] * 9)
            await trio.sleep(60)
            await finish(peer, application)
            peer.send(peer.frame(CLOSE, b"\x03\xe8"))
            await wait_all_tasks_blocked()
            await peer.ends_normally()
            assert application.took == 0
            assert [item async for item in channel] == [b"message"] * 2


class Sending:
    """An application that sends without end."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def __call__(self, ws: Transaction) -> None:
        while True:
            await ws.send(bytes(self.size))


@pytest.mark.parametrize("size", [1000, 1_000_000])
async def test_48_send_races_the_peers_close(attacked: Attacked, size: int, autojump_clock: MockClock) -> None:
    async with attacked(application=Sending(size), over="socket", write_limit=size) as peer:
        peer.send(peer.frame(CLOSE, b"\x0b\xb8"))
        frames = []
        while not peer.gone:
            frames += peer.read()  # which sees that none is torn
            if peer.role == "client" and frames and frames[-1].opcode == Opcode.CLOSE:
                break  # It leaves it to us to close.
            await trio.sleep(0.01)
        assert [frame.opcode for frame in frames] == [Opcode.BINARY] * (len(frames) - 1) + [Opcode.CLOSE]
        assert {len(frame.payload) for frame in frames[:-1]} <= {size}
        peer.end.hang_up()
        await wait_all_tasks_blocked()
        assert isinstance(peer.error, ConnectionClosed)
        assert peer.error.close.code == 3000


async def test_48_send_races_our_own_close(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with attacked(application=Sending(1_000_000), over="socket") as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.ws.finish, 3000)
            frames = []
            while not frames or frames[-1].opcode != Opcode.CLOSE:
                frames += peer.read()
                await trio.sleep(0.01)
            peer.end.hang_up()
        assert {frame.opcode for frame in frames[:-1]} == {Opcode.BINARY}
        assert isinstance(peer.error, trio.ClosedResourceError)


async def test_49_a_reason_over_123_bytes_from_the_caller(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with attacked() as peer:
        for reason in ("x" * 124, "ü" * 62):
            with pytest.raises(ValueError, match="123 bytes of UTF-8, not 124"):
                await peer.ws.finish(1000, reason)
        await wait_all_tasks_blocked()
        assert peer.read() == []
        peer.send(peer.frame(TEXT, b"still here"), peer.frame(CLOSE, b"\x03\xe8"))
        await peer.ends_normally()
        assert peer.messages == ["still here"]


@pytest.mark.parametrize(
    ("last", "payload", "code"), [(CLOSE, b"", None), (CLOSE, b"\x0b\xb8", 3000), (0xFF, b"", 1002), (None, b"", 1006)]
)
async def test_50_what_came_before_the_close_is_readable_after_it(
    attacked: Attacked, over: str, last: int | None, payload: bytes, code: int | None, autojump_clock: MockClock
) -> None:
    seen: list[Any] = []

    async def late(ws: Transaction) -> None:
        await trio.sleep(LONG)
        assert ws.is_finished
        while True:
            seen.append(await ws.receive())

    async with attacked(application=late, over=over) as peer:
        peer.send(*(peer.frame(TEXT, b"%d" % number) for number in range(100)))
        if last is not None:
            peer.send(peer.frame(last, payload))
        await trio.sleep(1)
        peer.end.hang_up()
        await peer.handler_is_done.wait()
        assert seen == [str(number) for number in range(100)]
        if code is None:
            assert isinstance(peer.error, trio.EndOfChannel)
        else:
            assert isinstance(peer.error, ConnectionClosed)
            assert peer.error.close.code == code
