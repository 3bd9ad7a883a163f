"""The channels that carry events: their receive() reads the network itself, and otherwise they are as trio's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed
from trio_pyjo_ws._engine import channels
from trio_pyjo_ws._engine.reading import GRACE
from trio_pyjo_ws.wire.frames import Close, Opcode

from ..peer import (
    Peer,
    connected,
    control,
    limit_writes,
    receive_all,
    set_clock,
    stream_connection,
    task_names,
    writes,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_pyjo_ws import Transaction


@asynccontextmanager
async def over_a_stream(**options: Any) -> AsyncIterator[tuple[Transaction, Peer, trio.Nursery]]:
    """As connected(), over a trio stream that is read through its own methods."""
    ours, theirs = trio.socket.socketpair()
    with theirs, trio.fail_after(100_000):
        async with trio.open_nursery() as nursery:
            ws = stream_connection(nursery, Plain(trio.SocketStream(ours)), **options)
            yield ws, Peer(theirs._sock, "server"), nursery
            nursery.cancel_scope.cancel()


class Plain(trio.abc.Stream):
    """A stream that does not look like a socket's."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


WAYS = pytest.mark.parametrize("way", [connected, over_a_stream], ids=["socket", "stream"])


class Outcome:
    """What a call in a task of its own came to."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None

    async def of(self, function: Any) -> None:
        try:
            self.value = await function()
        except (trio.ClosedResourceError, trio.EndOfChannel, ConnectionClosed) as exc:
            self.error = exc


class Fed(NamedTuple):
    """A channel, and what puts an item into it and ends it."""

    channel: Any
    put: Callable[[str], object]
    end: Callable[[], object]


@asynccontextmanager
async def of_trio(size: int) -> AsyncIterator[Fed]:
    sender, receiver = trio.open_memory_channel[str](size)
    yield Fed(receiver, sender.send_nowait, sender.close)


@asynccontextmanager
async def of_ours(size: int) -> AsyncIterator[Fed]:
    async with connected() as (ws, peer, _):
        channel = ws.open_channel("message", size)
        yield Fed(channel, peer.send, lambda: peer.send(control(Opcode.CLOSE, b"\x03\xe8")))


BOTH = pytest.mark.parametrize("opened", [of_trio, of_ours], ids=["trio", "ours"])
"""What a channel of trio's does is what one of ours has to do."""


@BOTH
async def test_it_is_a_receive_channel_and_tells_its_statistics(opened: Any, autojump_clock: MockClock) -> None:
    async with opened(3) as fed, trio.open_nursery() as nursery:
        assert isinstance(fed.channel, trio.abc.ReceiveChannel)
        fed.put("one")
        fed.put("two")
        await trio.sleep(3 * GRACE)
        clone = fed.channel.clone()
        said = fed.channel.statistics()
        assert (said.current_buffer_used, said.max_buffer_size, said.tasks_waiting_receive) == (2, 3, 0)
        assert said.open_receive_channels == 2
        assert [fed.channel.receive_nowait(), await clone.receive()] == ["one", "two"]
        nursery.start_soon(Outcome().of, clone.receive)
        await wait_all_tasks_blocked()
        assert fed.channel.statistics().tasks_waiting_receive == 1
        assert "channel" in repr(fed.channel).lower()
        clone.close()


@BOTH
async def test_without_an_item_nowait_raises_would_block_and_at_the_end_what_receive_raises(
    opened: Any, autojump_clock: MockClock
) -> None:
    async with opened(3) as fed:
        with pytest.raises(trio.WouldBlock):
            fed.channel.receive_nowait()
        fed.put("last")
        fed.end()
        await trio.sleep(1)
        assert fed.channel.receive_nowait() == "last"
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                fed.channel.receive_nowait()
            with pytest.raises(trio.EndOfChannel):
                await fed.channel.receive()
        assert [item async for item in fed.channel] == []


@BOTH
async def test_closed_it_may_be_closed_again_and_is_of_no_more_use(opened: Any, autojump_clock: MockClock) -> None:
    async with opened(3) as fed:
        with fed.channel:
            fed.put("lost")
            await trio.sleep(1)
        fed.channel.close()
        with assert_checkpoints():
            await fed.channel.aclose()
        for use in (fed.channel.receive_nowait, fed.channel.clone):
            with pytest.raises(trio.ClosedResourceError):
                use()
        with pytest.raises(trio.ClosedResourceError):
            await fed.channel.receive()


@BOTH
async def test_closing_one_clone_wakes_those_who_wait_for_it_and_no_others(
    opened: Any, autojump_clock: MockClock
) -> None:
    async with opened(3) as fed, trio.open_nursery() as nursery:
        clone = fed.channel.clone()
        here, there = Outcome(), Outcome()
        nursery.start_soon(here.of, fed.channel.receive)
        nursery.start_soon(there.of, clone.receive)
        await wait_all_tasks_blocked()
        clone.close()
        await wait_all_tasks_blocked()
        assert isinstance(there.error, trio.ClosedResourceError)
        assert (here.value, here.error) == (None, None)
        fed.put("still")
        await trio.sleep(1)
        assert here.value == "still"


async def test_an_item_in_the_hands_of_a_cancelled_task_is_received_by_it(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, nursery):
        channel: Any = ws.open_channel("message")
        scope = trio.CancelScope()
        cancelled, other = Outcome(), Outcome()

        async def receive() -> object:
            with scope:
                return await channel.receive()
            return None

        for outcome, call in ((cancelled, receive), (other, channel.receive)):
            nursery.start_soon(outcome.of, call)
            await wait_all_tasks_blocked()
        scope.cancel()  # Before it runs again it is given an item.
        ws.emit("message", "one")
        ws.emit("message", "two")
        await wait_all_tasks_blocked()
        # Given to the other, it would come behind its successor.
        assert (cancelled.value, other.value) == ("one", "two")


@pytest.mark.parametrize("waits", [False, True])
async def test_an_item_in_the_hands_of_a_task_that_is_interrupted_goes_to_another_or_back(
    waits: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, _, nursery):
        channel, other = ws.open_channel("message"), Outcome()

        async def interrupt(*_: object) -> None:
            monkeypatch.undo()
            if waits:
                nursery.start_soon(other.of, channel.receive)
                await wait_all_tasks_blocked()
            ws.emit("message", "one")
            raise KeyboardInterrupt

        monkeypatch.setattr(channels, "wait_for_news", interrupt)
        with pytest.raises(KeyboardInterrupt):
            await channel.receive()
        await wait_all_tasks_blocked()
        assert (other.value if waits else channel.receive_nowait()) == "one"


async def test_closing_it_unsubscribes(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, _nursery):
        channel = ws.open_channel("message")
        assert ws.has_subscribers("message")
        await channel.aclose()
        assert not ws.has_subscribers("message")


@WAYS
async def test_whoever_receives_reads(way: Any, autojump_clock: MockClock) -> None:
    """There is a reader in the background until somebody receives, and none from then on."""
    async with way() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        await trio.sleep(3 * GRACE)
        assert "reader" in task_names(nursery)
        got: list[Any] = []
        nursery.start_soon(receive_all, channel, got, name="receiver")
        await wait_all_tasks_blocked()
        for number in range(3):
            peer.send(str(number))
            await wait_all_tasks_blocked()
            assert got == [str(each) for each in range(number + 1)]
            assert "reader" not in task_names(nursery)


@WAYS
async def test_pings_are_answered_behind_a_busy_receiver(way: Any, autojump_clock: MockClock) -> None:
    async with way() as (ws, peer, _nursery):
        channel = ws.open_channel("message")
        peer.send("first")
        assert await channel.receive() == "first"
        peer.send(control(Opcode.PING, b"there?"))
        await trio.sleep(1)
        assert peer.read() == [control(Opcode.PONG, b"there?")]


async def test_receiving_what_is_there_yields_only_when_it_is_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    set_clock(monkeypatch, lambda: now)
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel("message", 10)
        await wait_all_tasks_blocked()
        peer.send(*"abcd")
        await wait_all_tasks_blocked()
        turns: list[str] = []

        async def neighbour() -> None:
            turns.append("neighbour")

        nursery.start_soon(neighbour)
        assert [await channel.receive(), await channel.receive()] == ["a", "b"]
        assert turns == []
        now = 1.0
        with assert_checkpoints():
            assert await channel.receive() == "c"
        assert not ws.__connection__.turn.is_over()


async def test_answers_to_what_is_there_go_out_together(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _nursery):
        channel = ws.open_channel("message", 4)
        peer.send(*map(str, range(10)))
        for _ in range(10):
            await ws.send(await channel.receive())
        with trio.move_on_after(1):
            await channel.receive()
        assert peer.read_messages() == [str(number).encode() for number in range(10)]
        assert len(writes(ws)) == 2


@WAYS
async def test_cancelling_receive_loses_nothing(way: Any, autojump_clock: MockClock) -> None:
    async with way() as (ws, peer, _nursery):
        channel = ws.open_channel("message")
        for number in range(3):
            with trio.move_on_after(1) as scope:
                await channel.receive()
            assert scope.cancelled_caught
            peer.send(str(number))
            assert await channel.receive() == str(number)
        peer.send("last")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.receive()
        assert await channel.receive() == "last"


@WAYS
async def test_an_item_that_has_come_is_received_though_cancelled(way: Any, autojump_clock: MockClock) -> None:
    async with way() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        scope = trio.CancelScope()
        ws.on("finish", lambda *_: scope.cancel())
        outcome = Outcome()

        async def receive() -> str | bytes | None:
            with scope:
                return await channel.receive()
            return None

        nursery.start_soon(outcome.of, receive)
        await wait_all_tasks_blocked()
        peer.send("1", control(Opcode.CLOSE, b"\x03\xe8"))
        peer.sock.close()
        await trio.sleep(1)
        # Put back, it could come behind its successor for a task that has received that meanwhile.
        assert scope.cancel_called
        assert outcome.value == "1"


@WAYS
async def test_closing_the_channel_wakes_who_receives_from_it(way: Any, autojump_clock: MockClock) -> None:
    async with way() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        await wait_all_tasks_blocked()
        channel.close()
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, trio.ClosedResourceError)
        peer.send("for receive()")
        assert await ws.receive() == "for receive()"


@pytest.mark.parametrize("last", [(), ("last",)])
async def test_a_connection_that_breaks_as_a_receiver_flushes_ends_the_channel(
    last: tuple[str, ...], autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _nursery):
        channel = ws.open_channel("message")
        peer.send("first", "second")
        assert await channel.receive() == "first"
        await ws.send("written through")
        assert await channel.receive() == "second"
        await ws.send("corked")
        assert ws.is_writing
        peer.send(*last)
        peer.sock.close()
        for message in last:
            assert await channel.receive() == message
        with pytest.raises(ConnectionClosed, match="1006"):
            await channel.receive()


@WAYS
async def test_unsubscribing_ends_the_channel_for_who_receives_from_it(way: Any, autojump_clock: MockClock) -> None:
    async with way() as (ws, _peer, nursery):
        channel = ws.open_channel("message")
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        await wait_all_tasks_blocked()
        ws.unsubscribe_all("message")
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, trio.EndOfChannel)


@WAYS
async def test_closing_a_channel_leaves_the_reading_receiver_of_another_alone(
    way: Any, autojump_clock: MockClock
) -> None:
    async with way() as (ws, peer, nursery):
        texts, binaries = ws.open_channel("text"), ws.open_channel("binary")
        outcome = Outcome()
        nursery.start_soon(outcome.of, texts.receive)
        await wait_all_tasks_blocked()
        binaries.close()
        await wait_all_tasks_blocked()
        peer.send("Hello")
        await wait_all_tasks_blocked()
        assert outcome.value == b"Hello"


@pytest.mark.parametrize("first", ["text", "binary"])
@WAYS
async def test_receivers_of_two_channels_take_turns_at_reading(way: Any, first: str, autojump_clock: MockClock) -> None:
    async with way() as (ws, peer, nursery):
        got: dict[str, list[bytes]] = {"text": [], "binary": []}
        for event in sorted(got, key=lambda event: event != first):
            nursery.start_soon(receive_all, ws.open_channel(event), got[event], name="receiver")
            await wait_all_tasks_blocked()
        for message in ("a", b"b", b"c", "d", "e", b"f"):
            peer.send(message)
            await wait_all_tasks_blocked()
        assert got == {"text": [b"a", b"d", b"e"], "binary": [b"b", b"c", b"f"]}
        assert "reader" not in task_names(nursery)


@WAYS
async def test_a_clone_and_its_original_share_the_items(way: Any, autojump_clock: MockClock) -> None:
    async with way() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        clone = channel.clone()
        shares: list[list[Any]] = [[], []]
        for each, share in zip((channel, clone), shares, strict=True):
            nursery.start_soon(receive_all, each, share, name="receiver")
        for number in range(4):
            peer.send(str(number))
            await wait_all_tasks_blocked()
        assert sorted(shares[0] + shares[1]) == ["0", "1", "2", "3"]


@WAYS
async def test_receive_of_the_connection_and_of_a_channel_read_for_each_other(
    way: Any, autojump_clock: MockClock
) -> None:
    async with way() as (ws, peer, nursery):
        channel = ws.open_channel("binary")
        texts: list[Any] = []
        binaries: list[Any] = []
        nursery.start_soon(receive_all, ws, texts, name="receiver")
        nursery.start_soon(receive_all, channel, binaries, name="receiver")
        for message in ("a", b"b", b"c", "d"):
            peer.send(message)
            await wait_all_tasks_blocked()
        assert (texts, binaries) == (["a", "d"], [b"b", b"c"])


@WAYS
async def test_what_is_emitted_reaches_who_waits_for_the_network(way: Any, autojump_clock: MockClock) -> None:
    async with way() as (ws, _peer, nursery):
        channel = ws.open_channel("text", 1)
        got: list[Any] = []
        nursery.start_soon(receive_all, channel, got, name="receiver")
        await wait_all_tasks_blocked()
        for number in range(3):
            ws.emit("text", number)
        await wait_all_tasks_blocked()
        assert got == [0, 1, 2]


async def test_an_item_behind_one_for_a_full_channel_reaches_its_reader(autojump_clock: MockClock) -> None:
    """Reading stops for the full channel, and what has been read gets as far as its order lets it."""
    async with connected() as (ws, peer, nursery):
        full, other = ws.open_channel("text", 1), ws.open_channel("binary", 1)
        got: list[Any] = []
        nursery.start_soon(receive_all, other, got, name="receiver")
        peer.send("a", b"1", "b", b"2")
        await wait_all_tasks_blocked()
        assert got == []
        assert await full.receive() == b"a"
        await wait_all_tasks_blocked()
        assert got == [b"1"]
        assert await full.receive() == b"b"
        await wait_all_tasks_blocked()
        assert got == [b"1", b"2"]


async def test_a_channel_closed_while_its_receiver_delivers_to_another(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        text = ws.open_channel("text", 1)
        channel = ws.open_channel("binary", 1)
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        await wait_all_tasks_blocked()
        peer.send("a", "b")
        await wait_all_tasks_blocked()
        channel.close()
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, trio.ClosedResourceError)
        assert [await text.receive(), await text.receive()] == [b"a", b"b"]


async def test_a_sender_that_waits_for_room_is_not_disturbed(autojump_clock: MockClock) -> None:
    """Closing the channel wakes whoever waits for the socket; the sender goes back to its waiting."""
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        message = b"x" * (1 << 22)
        done: list[Any] = []

        async def send() -> None:
            await ws.send(message)
            done.append("sent")

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        channel.close()
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, trio.ClosedResourceError)
        assert not done
        received: list[bytes] = []
        while not received:
            received = peer.read_messages()
            await wait_all_tasks_blocked()
        assert received == [message]
        assert done == ["sent"]


@WAYS
@pytest.mark.parametrize("code", [1000, 1011])
async def test_the_end_of_the_connection_is_the_end_of_the_channel(
    way: Any, code: int, autojump_clock: MockClock
) -> None:
    async with way() as (ws, peer, _nursery):
        channel = ws.open_channel("message", 1)
        outcome = Outcome()
        peer.send("a", "b", "c", control(Opcode.CLOSE, code.to_bytes(2, "big")))
        await trio.sleep(1)
        assert [await channel.receive() for _ in range(3)] == ["a", "b", "c"]
        await outcome.of(channel.receive)
        assert type(outcome.error) is (trio.EndOfChannel if code == 1000 else ConnectionClosed)
        assert ws.closed == Close(code)


async def test_a_lost_connection_wakes_who_receives(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        await wait_all_tasks_blocked()
        peer.sock.close()
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, ConnectionClosed)
        assert ws.closed is not None
        assert ws.closed.code == 1006


async def test_who_receives_while_the_connection_is_closed_here_comes_to_its_end(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.finish)
        await wait_all_tasks_blocked()
        peer.read()
        peer.answer()
        peer.sock.close()
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, trio.EndOfChannel)
        assert ws.closed == Close(1005)


async def test_a_failing_write_while_somebody_receives(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel("message")
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        limit_writes(ws, 0)
        with trio.move_on_after(1):
            await ws.send("x")
        channel.close()
        limit_writes(ws, None)
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, trio.ClosedResourceError)
        assert peer.read_messages() == [b"x"]


async def test_messages_that_nobody_receives_hold_the_channels_up(autojump_clock: MockClock) -> None:
    async with connected(max_queue=1) as (ws, peer, nursery):
        peer.send("a", "b", b"c")
        await trio.sleep(1)
        channel = ws.open_channel("binary")
        outcome = Outcome()
        nursery.start_soon(outcome.of, channel.receive)
        await trio.sleep(1)
        assert outcome.value is None
        assert "reader" not in task_names(nursery)
        assert [await ws.receive(), await ws.receive()] == ["a", "b"]
        await wait_all_tasks_blocked()
        assert outcome.value == b"c"
