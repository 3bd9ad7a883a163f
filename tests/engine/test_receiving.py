"""Messages in pieces: received as they arrive, within bounded memory, and sent as they come, never torn."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed, Deflate, Transaction, broadcast
from trio_pyjo_ws._engine.reading import GRACE
from trio_pyjo_ws.testing import open_memory_pair
from trio_pyjo_ws.wire.frames import Frame, Opcode
from trio_pyjo_ws.wire.inflating import STEP

from ..peer import Peer, Turns, connected, control, hurry, limit_writes, receive_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

SMALL = 1_000
"""max_websocket_size, where a test says small."""

PING = control(Opcode.PING, b"?")
PONG = control(Opcode.PONG, b"?")


def fragment(payload: bytes, *, fin: bool = False, first: int = 0) -> Frame:
    return Frame(fin, False, False, False, first, payload)


def begin(payload: bytes) -> Frame:
    return fragment(payload, first=Opcode.TEXT)


def end(payload: bytes) -> Frame:
    return fragment(payload, fin=True)


async def pieces_of(ws: Transaction) -> list[str | bytes]:
    async with ws.receive_stream() as message:
        return [piece async for piece in message]


def close_of(code: int) -> Frame:
    return control(Opcode.CLOSE, struct.pack("!H", code))


# Receiving


async def test_pieces_are_given_as_they_arrive(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        got: list[Any] = []

        async def receive() -> None:
            async with ws.receive_stream() as message:
                got.append(message.kind)
                async for piece in message:
                    got.append(piece)  # noqa: PERF401 - one by one, as a test of that
            got.append(await ws.receive())

        nursery.start_soon(receive)
        for frames, expected in [
            ([begin(b"one")], ["text", "one"]),
            ([PING], ["text", "one"]),
            ([fragment(b"two"), fragment("dr\u00fc".encode()[:-1])], ["text", "one", "twodr"]),
            ([end("\u00fc".encode()[1:]), "next"], ["text", "one", "twodr", "\u00fc", "next"]),
        ]:
            peer.send(*frames)
            await wait_all_tasks_blocked()
            assert got == expected
        assert peer.read() == [PONG]


@pytest.mark.parametrize(("message", "kind"), [("Gr\u00fc\u00dfe", "text"), (b"bytes", "binary")])
async def test_what_receive_would_return_at_once_is_one_piece(
    message: str | bytes, kind: str, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        peer.send(message, "next")
        await trio.sleep(3 * GRACE)
        assert ws.statistics().messages_waiting == 2
        async with ws.receive_stream() as stream:
            assert stream.kind == kind
            assert [piece async for piece in stream] == [message]
        assert await ws.receive() == "next"


async def test_an_empty_message_has_a_kind_and_no_pieces(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(b"")
        async with ws.receive_stream() as stream:
            assert stream.kind == "binary"
            assert [piece async for piece in stream] == []
            assert [piece async for piece in stream] == []


async def pump(peer: Peer, data: bytes) -> int:
    """Send as the kernel takes it; return how much that was when it stopped for good."""
    sent = 0
    while sent < len(data):
        try:
            sent += peer.sock.send(data[sent:])
        except BlockingIOError:  # noqa: PERF203 - the peer waits for the kernel
            with trio.move_on_after(10):
                await trio.lowlevel.wait_writable(peer.sock)
                continue
            break
    return sent


async def test_a_message_over_the_limit_is_received_within_bounded_memory(autojump_clock: MockClock) -> None:
    whole = bytes(range(256)) * 40_000
    async with connected(max_websocket_size=SMALL, max_queue_bytes=100_000) as (ws, peer, nursery):
        data = peer.bytes_of(whole, "next")
        nursery.start_soon(pump, peer, data)
        async with ws.receive_stream() as message:
            await trio.sleep(5)  # A slow consumer: the background reader stops, and with it the peer.
            assert 100_000 <= message._arriving.held < 1_000_000
            assert b"".join([piece async for piece in message]) == whole  # type: ignore[arg-type]
        assert await ws.receive() == "next"


async def test_leaving_early_discards_the_rest_and_the_next_message_is_whole(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, nursery):
        data = peer.bytes_of(bytes(3_000_000), "next")
        nursery.start_soon(pump, peer, data)
        async with ws.receive_stream() as message:
            async for _ in message:
                break
        assert await ws.receive() == "next"
        peer.send(begin(b"again"), fragment(b"and"))
        async with ws.receive_stream() as message:
            assert await message.__anext__() == "againand"
        peer.send(end(b"again"), begin(b"third "), end(b"message"))
        assert "".join(await pieces_of(ws)) == "third message"  # type: ignore[arg-type]


async def test_a_block_that_is_left_answers_pings_still(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"one"))
        async with ws.receive_stream() as message:
            assert await message.__anext__() == "one"
            peer.send(PING)
            await trio.sleep(3 * GRACE)
            assert peer.read() == [PONG]  # behind a consumer that takes its time, too
        peer.send(PING, end(b"two"), "next")
        await trio.sleep(3 * GRACE)
        assert peer.read() == [PONG]
        assert ws.receive_nowait() == "next"


@pytest.mark.parametrize("frames", [["whole"], [begin(b"wh"), end(b"ole")]])
async def test_cancelled_while_it_waits_it_loses_nothing(frames: list[Any], autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        with trio.move_on_after(5):
            await pieces_of(ws)
        peer.send(*frames)
        assert await ws.receive() == "whole"


async def test_cancelled_as_the_message_arrives_it_loses_nothing(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        ws.on("finish", lambda *_: None)
        await trio.sleep(3 * GRACE)  # The background reader waits for data now.
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(pieces_of, ws)
                await wait_all_tasks_blocked()
                peer.send(begin(b"wh"))
                scope.cancel()
        peer.send(end(b"ole"))
        assert await ws.receive() == "whole"
        assert nursery.child_tasks


async def test_cancelled_between_its_pieces_it_loses_nothing(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"one"))
        async with ws.receive_stream() as message:
            assert await message.__anext__() == "one"
            with trio.move_on_after(1):
                await message.__anext__()
            peer.send(end(b"two"))
            assert [piece async for piece in message] == ["two"]


async def test_what_the_background_reader_has_begun_to_read_is_given_from_its_beginning(
    autojump_clock: MockClock,
) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"one"), fragment(b"two"))
        await trio.sleep(3 * GRACE)
        async with ws.receive_stream() as message:
            assert await message.__anext__() == "onetwo"
            peer.send(end(b"three"))
            assert [piece async for piece in message] == ["three"]


async def test_a_background_reader_lets_a_stream_read(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        await trio.sleep(3 * GRACE)
        got: list[Any] = []

        async def receive() -> None:
            got.extend(await pieces_of(ws))

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        for frame in [PONG, begin(b"one"), fragment(b"two"), end(b"three")]:
            peer.send(frame)
            await wait_all_tasks_blocked()
        assert got == ["one", "two", "three"]


# What is over the limit


async def stream_one(ws: Transaction, peer: Peer) -> None:
    peer.send("first")
    assert await pieces_of(ws) == ["first"]


async def test_who_has_streamed_finds_a_message_over_the_limit_waiting(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, _):
        await stream_one(ws, peer)
        peer.send("small", b"x" * 5_000, "behind")
        await trio.sleep(5)
        assert ws.closed is None
        assert ws.statistics().messages_waiting == 1
        assert await ws.receive() == "small"
        async with ws.receive_stream() as message:
            assert b"".join([piece async for piece in message]) == b"x" * 5_000  # type: ignore[arg-type]
        assert await ws.receive() == "behind"


async def test_who_wants_it_whole_fails_it(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, _):
        await stream_one(ws, peer)
        peer.send(b"x" * 5_000)
        await trio.sleep(5)
        assert ws.closed is None
        with pytest.raises(ConnectionClosed, match="1009"):
            await ws.receive()


async def test_a_subscriber_wants_it_whole(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, _):
        await stream_one(ws, peer)
        peer.send(b"x" * 5_000)
        await trio.sleep(5)
        ws.open_channel("binary")
        await trio.sleep(5)
        assert peer.read()[-1] == control(Opcode.CLOSE, struct.pack("!H", 1009) + b"a message of more than 1000 bytes")


async def test_who_has_not_streamed_fails_it_at_once(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, _):
        peer.send(b"x" * 5_000)
        await trio.sleep(5)
        assert ws.closed is not None
        assert ws.closed.code == 1009


async def test_behind_a_streamed_message_the_next_may_be_over_the_limit_too(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, _):
        peer.send(*[b"x" * 5_000] * 5)
        for _ in range(5):
            assert b"".join(await pieces_of(ws)) == b"x" * 5_000  # type: ignore[arg-type]


async def test_a_close_reads_past_what_waits(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, nursery):
        await stream_one(ws, peer)
        peer.send(b"x" * 5_000, b"y" * 5_000, close_of(1000))
        await trio.sleep(5)

        async def answer() -> None:
            await trio.sleep(1)
            peer.sock.close()

        nursery.start_soon(answer)
        assert await ws.finish(1001) == (1000, "")


async def test_what_a_lost_peer_has_left_is_over_the_limit(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, _):
        await stream_one(ws, peer)
        peer.send("small", b"x" * 5_000)
        await trio.sleep(5)
        peer.sock.close()
        await ws.send("x")
        await trio.sleep(1)
        with pytest.raises(ConnectionClosed):
            await ws.send("x")
        assert await ws.receive() == "small"


async def test_a_bomb_is_received_within_bounded_memory(autojump_clock: MockClock) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(30_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, compression=True, max_queue_bytes=100_000)
        await client.send("first")
        assert await pieces_of(server) == ["first"]
        await client.send(frame=[1, 1, 0, 0, Opcode.BINARY, bomb[:-4]])
        await client.send("next")
        await trio.sleep(5)
        size = 0
        async with server.receive_stream() as message:
            async for piece in message:
                assert message._arriving.held <= 100_000 + 2 * STEP
                size += len(piece)
        assert size == 30_000_000
        assert await server.receive() == "next"
        nursery.cancel_scope.cancel()


async def test_reading_past_a_bomb_lets_the_others_run(autojump_clock: MockClock) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(60_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, compression=True)
        turns = Turns()
        await client.send(frame=[1, 1, 0, 0, Opcode.BINARY, bomb[:-4]])
        await client.send("next")
        async with server.receive_stream():
            pass
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(turns.run)
                await trio.lowlevel.checkpoint()
                before = turns.count
                assert await server.receive() == "next"
                assert turns.count > before + 2
                scope.cancel()
        nursery.cancel_scope.cancel()


# Others


async def test_a_streamed_message_is_not_delivered_elsewhere(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        got: list[Any] = []
        nursery.start_soon(receive_all, ws.open_channel("message"), got)
        seen: list[Any] = []
        ws.on("frame", lambda _, frame: seen.append(frame.payload))
        await wait_all_tasks_blocked()
        streamed: list[Any] = []

        async def receive() -> None:
            streamed.extend(await pieces_of(ws))

        for frames in [["whole", "other"], [begin(b"in "), end(b"pieces"), "other"]]:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            peer.send(*frames)
            await wait_all_tasks_blocked()
        assert "".join(streamed) == "wholein pieces"
        assert got == ["other", "other"]
        assert seen == [b"whole", b"other", b"in ", b"pieces", b"other"]


async def test_a_stream_and_the_readers_of_channels_take_turns(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=SMALL, max_queue_bytes=5_000) as (ws, peer, nursery):
        got: list[Any] = []
        nursery.start_soon(receive_all, ws.open_channel("message"), got)
        await wait_all_tasks_blocked()
        streamed: list[Any] = []
        halfway = trio.Event()

        async def receive() -> None:
            async with ws.receive_stream() as message:
                streamed.append(await message.__anext__())
                await halfway.wait()
                streamed.extend([piece async for piece in message])

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        peer.send(PONG, begin(b"1"))
        await wait_all_tasks_blocked()
        peer.send(*[fragment(b"x" * 900)] * 10)
        await wait_all_tasks_blocked()
        assert streamed == ["1"]
        peer.send(*[fragment(b"x" * 900)] * 10, end(b"2"), "behind")
        await trio.sleep(5)  # Its reader is slow, and those of the channel do not read on for it.
        assert got == []
        halfway.set()
        await wait_all_tasks_blocked()
        assert "".join(streamed) == "1" + "x" * 18_000 + "2"
        assert got == ["behind"]


async def test_a_message_over_the_limit_goes_to_a_stream_that_waits_beside_a_channel(
    autojump_clock: MockClock,
) -> None:
    async with connected(max_websocket_size=SMALL) as (ws, peer, nursery):
        got: list[Any] = []
        nursery.start_soon(receive_all, ws.open_channel("message"), got)
        await wait_all_tasks_blocked()
        streamed: list[Any] = []

        async def receive() -> None:
            streamed.extend(await pieces_of(ws))

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        peer.send("x" * 5_000, "behind")
        await wait_all_tasks_blocked()
        assert "".join(streamed) == "x" * 5_000
        assert got == ["behind"]
        peer.send("x" * 5_000)
        await wait_all_tasks_blocked()
        assert ws.closed is not None
        assert ws.closed.code == 1009


async def test_while_it_is_open_nobody_else_receives(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"one"))
        async with ws.receive_stream() as message:
            assert ws.statistics().tasks_waiting_receive == 0
            with pytest.raises(trio.BusyResourceError):
                await ws.receive()
            with pytest.raises(trio.BusyResourceError):
                ws.receive_nowait()
            with pytest.raises(trio.BusyResourceError):
                await pieces_of(ws)
            peer.send(end(b""))
            assert [piece async for piece in message] == ["one"]


async def test_it_tells_its_state(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("one")
        message = ws.receive_stream()
        assert repr(message) == f"<MessageStream not open of {ws.connection}>"
        with pytest.raises(trio.ClosedResourceError, match="not open"):
            await message.__anext__()
        async with message:
            assert repr(message).startswith("<MessageStream open of")
            assert [piece async for piece in message] == ["one"]
            assert repr(message).startswith("<MessageStream ended of")
        assert [piece async for piece in message] == []
        with pytest.raises(trio.ClosedResourceError, match="has been received"):
            await message.__aenter__()


@pytest.mark.parametrize("code", [1000, 1011])
async def test_the_connection_ends_in_the_middle(code: int, autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"one"), fragment(b"two"), close_of(code))
        async with ws.receive_stream() as message:
            assert await message.__anext__() == "onetwo"
            with pytest.raises(ConnectionClosed) as caught:
                await message.__anext__()
            assert caught.value.close.code == code


async def test_this_side_closes_in_the_middle(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        peer.send(begin(b"one"))
        async with ws.receive_stream() as message:
            assert await message.__anext__() == "one"
            nursery.start_soon(ws.finish)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.ClosedResourceError):
                await message.__anext__()


@pytest.mark.parametrize("whole", [False, True])
async def test_while_this_side_closes_what_the_peer_sends_before_its_close_is_received(
    whole: bool, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, nursery):
        peer.send(begin(b"one"))
        async with ws.receive_stream() as message:
            nursery.start_soon(ws.finish)
            await wait_all_tasks_blocked()
            peer.send(fragment(b"two"), (end if whole else fragment)(b"three"), close_of(1000))
            await wait_all_tasks_blocked()
            assert await message.__anext__() == "onetwothree"
            with pytest.raises(StopAsyncIteration if whole else trio.ClosedResourceError):
                await message.__anext__()


async def test_a_reader_that_has_not_begun_yet_answers_pings(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"one"))
        async with ws.receive_stream():
            peer.send(PING)
            await trio.sleep(3 * GRACE)
            assert peer.read() == [PONG]


async def test_there_is_no_message_any_more(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(close_of(1000))
        with pytest.raises(trio.EndOfChannel):
            await pieces_of(ws)


async def test_text_that_is_not_utf_8_ends_it(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"good"))
        async with ws.receive_stream() as message:
            assert await message.__anext__() == "good"
            peer.send(fragment(b"bad \xff"))
            with pytest.raises(ConnectionClosed, match="1007"):
                await message.__anext__()


async def test_a_piece_that_is_there_is_given_in_its_turn(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"one"), fragment(b"two"))
        async with ws.receive_stream() as message:
            hurry(monkeypatch)
            with assert_checkpoints():
                assert await message.__anext__() == "onetwo"


async def test_a_consumer_that_never_waits_lets_the_others_run(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with connected(max_queue_bytes=100) as (ws, peer, nursery):
        nursery.start_soon(pump, peer, peer.bytes_of(*[begin(b"x"), *[fragment(b"x" * 100)] * 10_000, end(b"x")]))
        turns = Turns()
        hurry(monkeypatch)
        nursery.start_soon(turns.run)
        pieces = await pieces_of(ws)
        assert sum(map(len, pieces)) == 1_000_002
        assert turns.count >= len(pieces) > 5


# Sending


def sender(channel: Any) -> Callable[[], AsyncIterator[str]]:
    async def generate() -> AsyncIterator[str]:
        async for piece in channel:
            yield piece

    return generate


async def send_pieces(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


async def test_pieces_are_sent_as_they_come(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        feed, source = trio.open_memory_channel[str](0)
        called: list[Transaction] = []

        async def send() -> None:
            await ws.send(called.append, text=source)

        nursery.start_soon(send)
        for piece, frame in [("one", begin(b"one")), ("", None), ("two", fragment(b"two"))]:
            await feed.send(piece)
            await wait_all_tasks_blocked()
            assert peer.read() == [frame] * (frame is not None)
        assert called == []
        await feed.aclose()
        await wait_all_tasks_blocked()
        assert peer.read() == [end(b"")]
        assert called == [ws]


async def test_between_its_pieces_goes_nothing_but_control_frames(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        feed, source = trio.open_memory_channel[bytes](0)

        async def stream(source: Any) -> None:
            await ws.send(binary=source)

        nursery.start_soon(stream, source)
        await feed.send(b"one")
        for call in [
            lambda: ws.send("second"),
            lambda: stream(send_pieces(b"third")),
            lambda: ws.send(frame=[1, 0, 0, 0, 1, b"fourth"]),
            lambda: ws.send(b"fifth", compress=False),
        ]:
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            ws.send_nowait("never")
        ws.send_nowait(frame=[1, 0, 0, 0, 9, b"ping"])
        await ws.send(frame=[1, 0, 0, 0, 10, b"pong"])
        assert await broadcast([ws], "dropped") == 0
        counts: list[int] = []

        async def wait_for_room() -> None:
            counts.append(await broadcast([ws], "sixth", slow="wait"))

        nursery.start_soon(wait_for_room)
        await wait_all_tasks_blocked()
        assert [frame.opcode for frame in peer.read()] == [Opcode.BINARY, Opcode.PING, Opcode.PONG]
        assert ws.statistics().tasks_waiting_send == 5
        await feed.aclose()
        await wait_all_tasks_blocked()
        first, *others = [frame.payload for frame in peer.read()]
        assert first == b""
        at = others.index(b"third")
        assert others[at + 1] == b""
        assert {*others} == {b"second", b"third", b"", b"fourth", b"fifth", b"sixth"}
        assert counts == [1]


class PieceError(Exception):
    pass


@pytest.mark.parametrize("pieces", [[], ["one"], ["one", "two"]])
async def test_an_iterable_that_raises_closes_with_1011(pieces: list[str], autojump_clock: MockClock) -> None:
    async def broken() -> AsyncIterator[str]:
        for piece in pieces:
            yield piece
        raise PieceError

    async with connected() as (ws, peer, _):
        with pytest.raises(PieceError):
            await ws.send(text=broken())
        assert peer.read()[-1].payload == struct.pack("!H", 1011) + b"a message could not be completed"
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("more")


@pytest.mark.parametrize(
    ("form", "pieces"), [("text", ["one", 2]), ("text", [b"\xff"]), ("text", [b"\xc3"]), ("binary", [b"one", "two"])]
)
async def test_a_piece_that_does_not_fit_closes_with_1011(
    form: str, pieces: list[Any], autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        with pytest.raises((TypeError, ValueError)):
            await ws.send(**{form: send_pieces(*pieces)})
        assert peer.read()[-1].payload[:2] == struct.pack("!H", 1011)


@pytest.mark.parametrize("compression", [True, False])
async def test_cancelled_in_the_middle_it_closes(compression: bool, autojump_clock: MockClock) -> None:
    closed = False

    async def slow() -> AsyncIterator[str]:
        nonlocal closed
        try:
            yield "one"
            await trio.sleep(10)
            yield "two"
        finally:
            closed = True

    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, compression=compression)
        with trio.move_on_after(5):
            await client.send(text=slow())
        assert closed
        with pytest.raises(ConnectionClosed) as caught:
            await server.receive()
        assert caught.value.close.code == 1011
        nursery.cancel_scope.cancel()


async def test_cancelled_before_its_first_piece_it_has_no_effect(autojump_clock: MockClock) -> None:
    async def slow() -> AsyncIterator[str]:
        await trio.sleep(10)
        yield "never"

    async with connected() as (ws, peer, _):
        with trio.move_on_after(5):
            await ws.send(text=slow())
        await ws.send("next")
        assert peer.read_messages() == [b"next"]


async def test_it_waits_for_a_peer_that_does_not_read(autojump_clock: MockClock) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(10_000)

    async with connected(write_limit=50_000) as (ws, _, nursery):
        limit_writes(ws, 0)
        nursery.start_soon(lambda: ws.send(binary=endless()))
        await trio.sleep(10)
        assert taken == 5
        assert ws.statistics().bytes_unsent < 51_000


async def test_it_returns_once_its_last_piece_is_written(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        limit_writes(ws, 10)
        done = False

        async def send() -> None:
            nonlocal done
            await ws.send(binary=send_pieces(bytes(1_000)))
            done = True

        limit_writes(ws, 0)
        nursery.start_soon(send)
        await trio.sleep(10)
        assert not done
        limit_writes(ws, None)
        await trio.sleep(10)
        assert done
        assert [len(frame.payload) for frame in peer.read()] == [1_000, 0]


async def test_many_small_pieces_let_the_others_run(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        turns = Turns()
        hurry(monkeypatch)
        nursery.start_soon(turns.run)
        await ws.send(text=send_pieces(*["x"] * 100))
        await ws.drain()
        assert turns.count >= 90
        assert len(peer.read()) == 101


async def test_a_connection_that_closes_ends_it(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        feed, source = trio.open_memory_channel[str](0)
        failures: list[BaseException] = []

        async def send(message: Any) -> None:
            try:
                await ws.send(text=message)
            except trio.BrokenResourceError as exc:
                failures.append(exc)

        nursery.start_soon(send, source)
        await feed.send("one")
        nursery.start_soon(send, send_pieces("waits"))
        nursery.start_soon(send, "waits too")
        await wait_all_tasks_blocked()
        peer.send(close_of(1001))
        await trio.sleep(3 * GRACE)
        await feed.send("two")
        await wait_all_tasks_blocked()
        assert [type(exc) for exc in failures] == [ConnectionClosed] * 3


async def test_what_is_given_whole_takes_no_pieces(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, _nursery):
        source = trio.open_memory_channel[str](0)[1]
        for call in (ws.send_nowait, ws.build_message):
            with pytest.raises(TypeError, match="only send"):
                call(text=source)
        with pytest.raises(TypeError, match="a message must be str or bytes"):
            await ws.send(source)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="not agreed on permessage-deflate"):
            await ws.send(text=source, compress=True)


@pytest.mark.parametrize("deflate", [None, Deflate(), Deflate(client_no_context_takeover=True)])
async def test_a_message_is_relayed_as_it_arrives(deflate: Deflate | None, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        source, relay_in = open_memory_pair(nursery, compression=deflate)  # type: ignore[arg-type]
        relay_out, target = open_memory_pair(nursery, compression=deflate, max_websocket_size=10)  # type: ignore[arg-type]

        async def relay() -> None:
            for _ in range(2):
                async with relay_in.receive_stream() as message:
                    await relay_out.send(binary=message)

        nursery.start_soon(relay)
        for _ in range(2):
            parts = [bytes([index]) * 1_000 for index in range(100)]
            nursery.start_soon(partial(source.send, binary=send_pieces(*parts)))
            assert b"".join(await pieces_of(target)) == b"".join(parts)  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


async def leave_unbegun(ws: Transaction, peer: Peer, nursery: trio.Nursery, *messages: Any) -> None:
    """Ask for ``messages`` in pieces, and be cancelled while a full channel of frames holds the first piece up."""
    frames = ws.open_channel("frame", 1)
    scope = trio.CancelScope()

    async def receive() -> None:
        with scope:
            await pieces_of(ws)

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    peer.send(PING, *messages)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    nursery.start_soon(receive_all, frames, [])


@pytest.mark.parametrize("message", [["one"], [begin(b"on"), end(b"e")]], ids=["whole", "in fragments"])
async def test_a_message_whose_reader_is_cancelled_before_it_begins_is_received_whole(
    message: list[Any], autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, nursery):
        await leave_unbegun(ws, peer, nursery, *message, b"two", "three")
        assert [await ws.receive() for _ in range(3)] == ["one", b"two", "three"]


async def test_it_is_bounded_as_any_message_that_is_received_whole(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=10) as (ws, peer, nursery):
        await leave_unbegun(ws, peer, nursery, begin(b"12345"), fragment(b"67890"), fragment(b"1"), end(b"2"))
        with pytest.raises(ConnectionClosed, match="1009"):
            await ws.receive()


async def test_cancelled_as_all_of_it_has_arrived_it_is_received_whole(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(pieces_of, ws)
                await wait_all_tasks_blocked()
                scope.cancel()
                peer.send(begin(b"wh"), end(b"ole"), "next")
                ws.__connection__.pull()  # before the task that waits runs again
                assert not ws.__connection__.may_pull()  # What is behind it would come before it.
        assert await ws.receive() == "whole"
        assert await ws.receive() == "next"


async def test_cancelled_as_all_of_it_has_arrived_it_goes_to_who_has_subscribed(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        channel = ws.open_channel("message")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(pieces_of, ws)
                await wait_all_tasks_blocked()
                scope.cancel()
                peer.send(begin(b"wh"), end(b"ole"), "next")
                ws.__connection__.pull()
                assert not ws.__connection__.may_pull()
        assert await channel.receive() == "whole"
        assert await channel.receive() == "next"


async def test_what_a_callback_that_is_gone_has_left_comes_before_what_was_claimed(autojump_clock: MockClock) -> None:
    async with connected(max_queue=1) as (ws, peer, _):
        peer.send("left")
        await trio.sleep(1)
        ws.on("message", print)
        ws.unsubscribe("message")
        assert await pieces_of(ws) == ["left"]  # which waits before the callback's turn would have come


async def test_what_a_callback_leaves_comes_before_the_message_that_is_arriving(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("one", "two", "three", begin(b"four, as "))
        await trio.sleep(1)
        told: list[Any] = []

        @ws.on
        def message(ws: Transaction, text: str) -> None:
            told.append(text)
            ws.unsubscribe("message")

        assert await pieces_of(ws) == ["two"]
        assert told == ["one"]
        assert await ws.receive() == "three"
        peer.send(end(b"it came"))
        assert "".join(await pieces_of(ws)) == "four, as it came"  # type: ignore[arg-type]


async def test_cancelled_behind_one_that_is_thrown_away_it_has_claimed_nothing(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(begin(b"left"))
        async with ws.receive_stream():
            pass
        with trio.move_on_after(1):
            await pieces_of(ws)
        peer.send(end(b"over"), "next")
        assert await ws.receive() == "next"


async def test_cancelled_as_one_over_the_limit_has_begun_the_rest_is_thrown_away(autojump_clock: MockClock) -> None:
    async with connected(max_websocket_size=4) as (ws, peer, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(pieces_of, ws)
                await wait_all_tasks_blocked()
                scope.cancel()
                peer.send(begin(b"too large"))
                ws.__connection__.pull()
        peer.send(end(b" for anybody"), "next")
        assert await ws.receive() == "next"
