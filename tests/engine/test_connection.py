"""Who reads, and when what is sent leaves: at once, or with more."""

from __future__ import annotations

import itertools
import math
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed
from trio_pyjo_ws._engine.reading import GRACE
from trio_pyjo_ws._engine.turn import TURN
from trio_pyjo_ws.wire.frames import Opcode
from trio_pyjo_ws.wire.protocol import Protocol

from ..peer import (
    Flood,
    Peer,
    Turns,
    connected,
    control,
    receive_all,
    set_clock,
    start,
    task_names,
    writes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from trio_pyjo_ws import Transaction


PING = control(Opcode.PING, b"?")
PONG = control(Opcode.PONG, b"?")


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes each look at the clock of turns take the given time."""

    def set_tick(seconds: float) -> None:
        clock = itertools.count(1.0, seconds)
        set_clock(monkeypatch, lambda: next(clock))

    return set_tick


@pytest.fixture
def one_turn(tick: Callable[[float], None]) -> None:
    """However slow the machine, nobody has to yield for having gone on too long."""
    tick(0)


# Whoever receives, reads


async def test_while_receive_is_parked_the_connection_has_no_task(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        got: list[Any] = []
        nursery.start_soon(receive_all, ws, got, name="receiver")
        await trio.sleep(10)
        assert task_names(nursery) == ["housekeeper", "receiver"]
        peer.send("Hello", PING)
        await trio.sleep(10)
        assert got == ["Hello"]
        assert peer.read() == [PONG]
        assert task_names(nursery) == ["housekeeper", "receiver"]


async def test_behind_a_busy_handler_pings_are_answered_after_the_grace(autojump_clock: MockClock) -> None:
    async with connected() as (_ws, peer, nursery):
        peer.send(PING)
        await trio.sleep(GRACE / 2)
        assert task_names(nursery) == ["housekeeper"]
        assert peer.read() == []
        await trio.sleep(GRACE)
        assert task_names(nursery) == ["housekeeper", "reader"]
        assert peer.read() == [PONG]


async def test_behind_a_busy_handler_a_close_is_noticed_after_the_grace(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("last", control(Opcode.CLOSE, struct.pack("!H", 1001)))
        await trio.sleep(2 * GRACE + 0.01)
        assert ws.closed == (1001, "")
        assert await ws.receive() == "last"
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()


@pytest.mark.parametrize("event", ["message", "text", "binary", "json", "frame"])
async def test_a_subscription_is_read_for_at_once(event: str, autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        told: list[Any] = []
        ws.on(event, lambda _, value: told.append(value))
        await wait_all_tasks_blocked()
        assert task_names(nursery) == ["housekeeper", "reader"]
        peer.send(b"1")
        await wait_all_tasks_blocked()
        assert told == {"json": [1], "frame": [control(Opcode.BINARY, b"1")], "text": []}.get(event, [b"1"])
        assert trio.current_time() < GRACE


async def test_a_message_goes_to_every_subscription_that_matches_or_else_to_receive(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        texts, messages = ws.open_channel("text"), ws.open_channel("message")
        peer.send("é")
        assert (await texts.receive(), await messages.receive()) == ("é".encode(), "é")
        messages.close()
        peer.send(b"binary", "text")
        assert await ws.receive() == b"binary"
        assert await texts.receive() == b"text"
        texts.close()
        peer.send("again")
        assert await ws.receive() == "again"


async def test_the_background_reader_lets_go_of_the_role_with_the_message_that_it_hands_over(
    autojump_clock: MockClock,
) -> None:
    async with connected() as (ws, peer, nursery):
        await trio.sleep(1)
        assert "reader" in task_names(nursery)
        got: list[Any] = []
        nursery.start_soon(receive_all, ws, got, name="receiver")
        await wait_all_tasks_blocked()
        peer.send("Hello")
        await trio.sleep(1)
        assert got == ["Hello"]
        assert task_names(nursery) == ["housekeeper", "receiver"]


async def test_the_background_reader_goes_on_where_somebody_subscribes(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        ws.on("frame", lambda ws, frame: None)
        await wait_all_tasks_blocked()
        nursery.start_soon(receive_all, ws, [], name="receiver")
        await wait_all_tasks_blocked()
        peer.send("Hello")
        await wait_all_tasks_blocked()
        assert "reader" in task_names(nursery)


async def test_a_receiver_that_came_first_keeps_the_role(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        got: list[Any] = []
        nursery.start_soon(receive_all, ws, got, name="receiver")
        await wait_all_tasks_blocked()
        channel = ws.open_channel("binary")
        await wait_all_tasks_blocked()
        assert task_names(nursery) == ["housekeeper", "receiver"]
        peer.send("text", b"binary")
        assert await channel.receive() == b"binary"
        assert got == ["text"]


async def test_repeated_work_arms_one_deadline_in_a_grace_period(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        armed: list[float] = []
        at = ws.__connection__.housekeeper.at
        monkeypatch.setattr(
            ws.__connection__.housekeeper, "at", lambda when, call: (armed.append(when), at(when, call))[1]
        )
        for number in range(100):
            peer.send("one", "two")
            await ws.receive()
            await ws.send("answer")
            await ws.receive()
            await trio.sleep(GRACE / 10)
            peer.read()
            assert len(armed) <= 2 + number // 10
        assert peer.protocol.state.value == "open"


async def test_a_handler_that_takes_its_time_with_a_full_queue_does_not_hide_pings(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(*["message"] * 500)
        for _number in range(20):
            await ws.receive()
            await trio.sleep(GRACE / 2)  # so that somebody receives in every grace period, and nobody reads
        peer.send(PING)
        for _number in range(5):
            await ws.receive()
            await trio.sleep(GRACE / 2)
        assert peer.read() == [PONG]


async def test_receive_nowait_finds_what_was_read_in_the_background(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("Hello")
        with pytest.raises(trio.WouldBlock):
            ws.receive_nowait()
        for _number in range(5):
            await trio.sleep(GRACE / 2)
        assert ws.receive_nowait() == "Hello"


async def test_there_is_one_receiver(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, nursery):
        nursery.start_soon(receive_all, ws, [])
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await ws.receive()


# Cancelling receive()


async def test_cancelled_while_it_reads_it_loses_nothing(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        for number in range(3):
            with trio.move_on_after(1) as scope:
                await ws.receive()
            assert scope.cancelled_caught
            data = peer.bytes_of(f"message {number}")
            peer.sock.sendall(data[:5])
            with trio.move_on_after(0.05):
                await ws.receive()
            peer.sock.sendall(data[5:])
            assert await ws.receive() == f"message {number}"


async def test_cancelled_behind_the_background_reader_it_loses_nothing(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        await trio.sleep(1)
        with trio.move_on_after(1) as scope:
            await ws.receive()
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            ws.on("frame", lambda *_: scope.cancel())
            peer.send("Hello", "World")
            await ws.receive()
        assert scope.cancelled_caught
        assert [await ws.receive(), await ws.receive()] == ["Hello", "World"]


async def test_cancelled_in_its_turn_it_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    waiting = ["two", "three"]
    async with connected() as (ws, peer, _):
        peer.send("one", *waiting)
        await ws.receive()
        with monkeypatch.context() as patched, trio.CancelScope() as scope:
            set_clock(patched, lambda: (scope.cancel(), math.inf)[1])
            await ws.receive()
        assert scope.cancelled_caught
        peer.send("last")
        assert [await ws.receive() for _ in [*waiting, "last"]] == [*waiting, "last"]


async def test_cancelled_while_it_delivers_to_a_full_channel_it_loses_nothing(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        channel = ws.open_channel("binary", 1)
        peer.send(b"1", b"2", b"3", "text")
        with trio.move_on_after(0) as scope:
            await ws.receive()
        assert scope.cancelled_caught
        with trio.move_on_after(1) as scope:
            await ws.receive()
        assert scope.cancelled_caught
        assert [await channel.receive() for _ in range(3)] == [b"1", b"2", b"3"]
        assert await ws.receive() == "text"


# Corking


@pytest.mark.usefixtures("one_turn")
async def test_answers_to_messages_that_came_together_leave_together(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(*[f"{number}" for number in range(10)])
        for _number in range(10):
            await ws.send(await ws.receive())
        assert peer.read_messages() == [b"%d" % number for number in range(10)]
        assert len(writes(ws)) == 1


@pytest.mark.usefixtures("one_turn")
async def test_corked_frames_leave_when_the_receiver_finds_the_inbox_empty(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        peer.send("one", "two")
        await ws.send(await ws.receive())
        assert writes(ws) == []
        await ws.receive()
        ws.__connection__.housekeeper._corked.clear()  # not because of the tick
        nursery.start_soon(receive_all, ws, [])
        await wait_all_tasks_blocked()
        assert peer.read_messages() == [b"one"]


@pytest.mark.usefixtures("one_turn")
@pytest.mark.parametrize("block", [trio.sleep_forever, wait_all_tasks_blocked])
async def test_corked_frames_leave_in_the_next_tick_whatever_the_handler_does(
    block: Callable[[], Any], autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        peer.send("one", "two", "three")
        await ws.receive()
        await ws.send("first")
        await ws.send("second")
        ws.send_nowait("third")
        assert peer.read() == []
        with trio.move_on_after(0.001):
            await block()
        assert peer.read_messages() == [b"first", b"second", b"third"]
        assert len(writes(ws)) == 1
        await ws.send("fourth")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert peer.read_messages() == [b"fourth"]


@pytest.mark.usefixtures("one_turn")
async def test_corked_frames_leave_at_64_kib(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(*["?"] * 11)
        quarter = bytes(65_536 // 4)  # of the outbox's CORK_SIZE
        for _number in range(9):
            await ws.receive()
            await ws.send(quarter)
        assert len(writes(ws)) == 2
        assert peer.read_messages() == [quarter] * 8
        await wait_all_tasks_blocked()
        assert peer.read_messages() == [quarter]


@pytest.mark.usefixtures("one_turn")
async def test_pongs_leave_with_the_answers_and_in_order(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(PING, "one", "two")
        for _number in range(2):
            await ws.send(await ws.receive())
        assert [frame.payload for frame in peer.read()] == [b"?", b"one", b"two"]
        assert len(writes(ws)) == 1


# Checkpoints


@pytest.mark.parametrize(
    "call",
    [
        lambda ws: ws.receive(),
        lambda ws: ws.send("Hello"),
        lambda ws: ws.drain(),
        lambda ws: ws.ping(),
        lambda ws: ws.finish(),
        lambda ws: ws.aclose(),
    ],
)
async def test_every_call_checks_for_cancellation(
    call: Callable[[Any], Any], tick: Callable[[float], None], autojump_clock: MockClock
) -> None:
    tick(0)
    async with connected() as (ws, peer, _):
        peer.send("one", "two")
        await ws.receive()
        with trio.CancelScope() as scope:
            scope.cancel()
            await call(ws)
        assert scope.cancelled_caught
        assert peer.read_messages() == []


async def test_a_flood_does_not_starve_the_neighbours_of_a_receiver(
    tick: Callable[[float], None], autojump_clock: MockClock
) -> None:
    tick(TURN / 10)
    async with trio.open_nursery() as nursery:
        ws = start(nursery, Flood(Protocol_bytes("x" * 100, 50)))
        steps = Turns()
        nursery.start_soon(steps.run)
        for _number in range(2000):
            await ws.receive()
        assert 2000 / 12 < steps.count < 2000 / 8
        nursery.cancel_scope.cancel()


async def test_nor_does_a_sender_that_never_waits(tick: Callable[[float], None], autojump_clock: MockClock) -> None:
    tick(TURN / 10)
    async with trio.open_nursery() as nursery:
        ws = start(nursery, Flood(b""))
        steps = Turns()
        nursery.start_soon(steps.run)
        for _number in range(2000):
            await ws.send("Hello")
        assert 2000 / 12 < steps.count < 2000 / 8
        nursery.cancel_scope.cancel()


async def test_nor_does_a_flood_in_the_background(tick: Callable[[float], None], autojump_clock: MockClock) -> None:
    tick(TURN / 10)
    async with trio.open_nursery() as nursery:
        transport = Flood(Protocol_bytes("x" * 100, 50))
        ws = start(nursery, transport)
        ws.on("text", lambda *_: None)
        steps = Turns()
        nursery.start_soon(steps.run)
        while transport.reads < 2000:
            await trio.lowlevel.checkpoint()
        assert 2000 / 12 < steps.count < 2000 / 8
        nursery.cancel_scope.cancel()


async def test_nor_does_a_flood_that_is_discarded(tick: Callable[[float], None], autojump_clock: MockClock) -> None:
    tick(TURN / 10)
    async with trio.open_nursery() as nursery:
        transport = Flood(Protocol_bytes("x" * 100, 50))
        ws = start(nursery, transport)
        nursery.start_soon(ws.finish)
        steps = Turns()
        nursery.start_soon(steps.run)
        while transport.reads < 2000:
            await trio.lowlevel.checkpoint()
        assert 2000 / 12 < steps.count < 2000 / 8
        assert ws.statistics().messages_waiting == 1024
        nursery.cancel_scope.cancel()


def Protocol_bytes(message: str | bytes, times: int = 1) -> bytes:  # noqa: N802
    client = Protocol("client")
    for _number in range(times):
        client.send_message(message)
    return client.take()


async def test_its_name_and_state_are_shown(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, _nursery):
        assert repr(ws.__connection__) == f"<Connection {ws.connection} open>"


# The peer is lost in the middle of something


def reset(peer: Peer) -> None:
    """The peer is gone, and what it has not read is lost."""
    peer.sock.close()


async def test_a_write_that_fails_in_a_callback_does_not_hide_what_comes_behind(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        got: list[Any] = []

        @ws.on
        def message(ws: Transaction, message: str) -> None:
            got.append(message)
            if message == "one":
                ws.send_nowait("nobody reads this")
                ws.resume()

        peer.send("one", "two")
        reset(peer)
        await trio.sleep(1)
        assert got == ["one", "two"]
        assert ws.closed is not None
        assert ws.closed.code == 1006


async def test_whoever_finds_the_peer_lost_as_it_begins_to_wait_receives_what_was_left(
    autojump_clock: MockClock,
) -> None:
    async with connected("client", max_queue=1) as (ws, peer, _):
        with trio.move_on_after(1):
            await ws.receive()
        peer.send("last")
        reset(peer)
        ws.send_nowait("This is written before receive() waits, and cannot be.")
        assert await ws.receive() == "last"
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.receive()


async def test_a_callback_may_hand_over_the_answer_to_the_close_that_came_with_its_message(
    autojump_clock: MockClock,
) -> None:
    async with connected() as (ws, peer, _):
        ws.on("drain", lambda _: None)
        ws.on("message", lambda ws, _: ws.resume())
        peer.send("one", control(Opcode.CLOSE, struct.pack("!H", 3000)))
        await trio.sleep(1)
        assert peer.read() == [control(Opcode.CLOSE, struct.pack("!H", 3000))]
        assert ws.is_finished


async def test_a_limit_that_is_passed_behind_a_close_changes_nothing(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        ws.send_nowait(frame=control(Opcode.CLOSE, struct.pack("!H", 1000)))
        ws.__connection__.fail(1008, "too many messages")
        await trio.sleep(1)
        assert peer.read() == [control(Opcode.CLOSE, struct.pack("!H", 1000))]


async def test_a_close_to_a_peer_that_is_gone_is_the_end(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        reset(peer)
        ws.send_nowait(frame=control(Opcode.CLOSE, struct.pack("!H", 1000)))
        ws.resume()
        assert ws.is_finished
