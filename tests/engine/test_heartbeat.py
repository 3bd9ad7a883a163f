"""Reading stops while nobody takes what is read; and peers that are gone are noticed all the same."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed, Transaction
from trio_pyjo_ws._engine.connection import MAX_PINGS_OWED
from trio_pyjo_ws._engine.housekeeper import Housekeeper
from trio_pyjo_ws.options import Settings
from trio_pyjo_ws.wire.frames import Opcode
from trio_pyjo_ws.wire.protocol import Protocol

from ..peer import (
    Peer,
    Recorder,
    connected,
    control,
    limit_writes,
    receive_all,
    start,
    stream_connection,
    task_names,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


PING = control(Opcode.PING, b"?")
PONG = control(Opcode.PONG, b"?")


async def receive_until_broken(ws: Transaction) -> None:
    with pytest.raises(ConnectionClosed):
        await receive_all(ws, [])


async def serve_pongs(peer: Peer, delay: float = 0) -> None:
    while not peer.gone:
        await trio.lowlevel.wait_readable(peer.sock)
        await trio.sleep(delay)
        peer.read()
        with suppress(BrokenPipeError):
            peer.answer()


# Back pressure


async def flood_until_it_blocks(peer: Peer, data: bytes) -> int:
    """Send ``data`` over and over, until it is not taken any more; return how often it was."""
    sent = 0
    position = 0
    while True:
        await trio.sleep(1)
        try:
            while True:
                position += peer.sock.send(data[position:])
                if position == len(data):
                    sent, position = sent + 1, 0
        except BlockingIOError:
            before = sent
        await trio.sleep(1)
        try:
            position += peer.sock.send(data[position:])
        except BlockingIOError:
            if before == sent:
                peer.torn = data[position:] if position else b""  # type: ignore[attr-defined]
                return sent + bool(position)


@pytest.mark.parametrize("subscribed", [False, True])
async def test_a_full_inbox_stops_reading_and_nothing_is_dropped(subscribed: bool, autojump_clock: MockClock) -> None:
    async with connected(max_queue=10) as (ws, peer, nursery):
        if subscribed:
            ws.open_channel("binary")
        message = peer.bytes_of("x" * 1000)
        sent = await flood_until_it_blocks(peer, message)
        assert ws.statistics().messages_waiting == 10
        assert "reader" not in task_names(nursery)
        peer.sock.setblocking(True)
        got = 0
        while got < sent:
            assert await ws.receive() == "x" * 1000
            got += 1
            if peer.torn:  # type: ignore[attr-defined]
                peer.sock.setblocking(False)
                try:
                    rest = peer.torn  # type: ignore[attr-defined]
                    peer.torn = rest[peer.sock.send(rest) :]  # type: ignore[attr-defined]
                except BlockingIOError:
                    pass
        with trio.move_on_after(1):
            await ws.receive()
        assert ws.statistics().messages_waiting == 0


async def test_an_inbox_full_of_bytes_stops_reading_too(autojump_clock: MockClock) -> None:
    async with connected(max_queue_bytes=10_000) as (ws, peer, _):
        for _number in range(20):
            peer.send(bytes(4000))
            await trio.sleep(1)
        assert ws.statistics().messages_waiting == 3
        for _number in range(20):
            assert await ws.receive() == bytes(4000)


async def test_empty_messages_fill_the_inbox_by_their_number(autojump_clock: MockClock) -> None:
    async with connected(max_queue=100) as (ws, peer, _):
        peer.send(*[b""] * 5000)
        await trio.sleep(1)
        assert ws.statistics().messages_waiting == 100
        for _number in range(5000):
            assert await ws.receive() == b""
            assert ws.statistics().messages_waiting <= 200


async def test_a_full_channel_stops_reading_and_goes_on_when_there_is_room(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        channel = ws.open_channel("binary", 2)
        for number in range(6):
            peer.send(bytes([number]), f"{number}")
            await trio.sleep(1)
        assert channel.statistics().current_buffer_used == 2
        assert ws.statistics().messages_waiting == 1
        assert [await channel.receive() for _ in range(6)] == [bytes([number]) for number in range(6)]
        assert [await ws.receive() for _ in range(6)] == [f"{number}" for number in range(6)]


async def test_a_callback_that_takes_long_stops_reading(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        done: list[bytes] = []

        @ws.on
        async def message(_: object, value: bytes) -> None:
            await trio.sleep(10)
            done.append(value)

        numbers = [bytes([number]) for number in range(60)]
        for number in numbers:
            peer.send(number)
            await trio.lowlevel.checkpoint()
        await trio.sleep(5)
        peer.send(PING)
        await trio.sleep(4)
        assert peer.read() == []
        await trio.sleep(1000)
        assert done == numbers
        assert peer.read() == [PONG]


async def test_two_receivers_of_one_item_do_not_get_it_twice(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel("binary", 1)
        peer.send(b"1", b"2", b"3", "text")
        await wait_all_tasks_blocked()
        got: list[Any] = []
        nursery.start_soon(receive_all, ws, got)
        await wait_all_tasks_blocked()
        assert [await channel.receive() for _ in range(3)] == [b"1", b"2", b"3"]
        await wait_all_tasks_blocked()
        assert got == ["text"]
        with pytest.raises(trio.WouldBlock):
            channel.receive_nowait()


async def test_a_peer_that_pings_and_reads_no_pongs_is_not_read_from(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        ws.on("message", lambda *_: None)
        limit_writes(ws, 0)
        for _number in range(200):
            peer.send(PING)
            await wait_all_tasks_blocked()
        assert ws.statistics().bytes_unsent <= MAX_PINGS_OWED * 7
        limit_writes(ws, None)
        await trio.sleep(1)
        assert peer.read() == [PONG] * 200


async def test_a_flood_of_pings_is_bounded(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        ping = peer.bytes_of(control(Opcode.PING, bytes(125)))
        await flood_until_it_blocks(peer, ping * 100)
        assert ws.statistics().bytes_unsent < 600_000
        assert not ws.is_finished


async def test_a_flood_of_pongs_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send(*[PONG] * 5000, "end")
        assert await ws.receive() == "end"
        statistics = ws.statistics()
        assert statistics.latencies == ()
        assert statistics[1:7] == (0, 0, 0, 0, 0, None)


async def test_before_the_handshake_has_ended_nobody_reads_for_a_subscription(autojump_clock: MockClock) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        async with trio.open_nursery() as nursery:
            keeper = Housekeeper(nursery)
            nursery.start_soon(keeper.run, name="housekeeper")
            ws = Transaction(Protocol("server"), Recorder(ours), keeper, Settings.of({}))
            ws.on("message", lambda *_: None)
            await trio.sleep(1)
            assert task_names(nursery) == ["housekeeper"]
            ws.__connection__.start()
            await wait_all_tasks_blocked()
            assert task_names(nursery) == ["housekeeper", "reader"]
            nursery.cancel_scope.cancel()


# Keeping alive


@pytest.mark.parametrize(("interval", "patience"), [(10, 3), (3, 10), (10, 10), (10, None)])
async def test_a_ping_goes_out_every_interval(
    interval: float, patience: float | None, autojump_clock: MockClock
) -> None:
    async with connected(ping_interval=interval, ping_timeout=patience) as (ws, peer, nursery):
        nursery.start_soon(receive_all, ws, [])
        for number in range(1, 10):
            await trio.sleep_until(interval * number - 0.1)
            assert peer.read() == []
            await trio.sleep(0.2)
            (ping,) = peer.read()
            assert ping.opcode == Opcode.PING
            peer.answer()
        await trio.sleep(0.1)
        assert ws.statistics().pings_waiting == 0
        assert ws.statistics().latency == pytest.approx(0.1)


@pytest.mark.parametrize(("interval", "patience", "end"), [(10, 3, 13), (3, 10, 13), (10, 10, 20)])
@pytest.mark.parametrize("receiving", [False, True])
async def test_without_a_pong_it_is_dropped_after_the_timeout(
    interval: float, patience: float, end: float, receiving: bool, autojump_clock: MockClock
) -> None:
    async with connected(ping_interval=interval, ping_timeout=patience) as (ws, peer, _):
        finished = ws.open_channel("finish")
        with pytest.raises(ConnectionClosed, match=r"1006 \(no pong came"):  # noqa: PT012
            if receiving:
                await ws.receive()
            await finished.receive()
            await ws.send("too late")
        assert trio.current_time() == pytest.approx(end)
        assert ws.closed is not None
        assert ws.closed.code == 1006
        assert [frame.opcode for frame in peer.read()] == [Opcode.PING, Opcode.CLOSE]
        assert peer.close_code == 1011


async def test_a_peer_that_reads_nothing_is_dropped_though_the_ping_cannot_be_written(
    autojump_clock: MockClock,
) -> None:
    async with connected(ping_interval=10, ping_timeout=5) as (ws, peer, nursery):
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.send(bytes(10_000_000))
        assert trio.current_time() == pytest.approx(15)
        await wait_all_tasks_blocked()
        assert task_names(nursery) == []
        assert peer.read() == []
        assert peer.gone


async def test_the_event_of_a_drop_says_1006_though_its_close_cannot_be_written(autojump_clock: MockClock) -> None:
    async with connected(ping_interval=10, ping_timeout=5) as (ws, peer, _):
        finished = ws.open_channel("finish")
        await trio.sleep(12)
        ws.__connection__.transport.send_eof()  # so that the next write fails
        assert (await finished.receive()).code == 1006
        assert len(peer.read()) == 1


async def test_over_a_stream_that_takes_nothing_it_is_dropped_too(autojump_clock: MockClock) -> None:
    ours, _theirs = memory_stream_pair()
    closed = trio.Event()
    ours.send_stream.send_all_hook = closed.wait
    ours.send_stream.close_hook = closed.set
    async with trio.open_nursery() as nursery:
        ws = stream_connection(nursery, ours, ping_interval=10, ping_timeout=5)
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.receive()
    assert trio.current_time() == pytest.approx(15)


@pytest.mark.parametrize("options", [{"ping_interval": None}, {"ping_timeout": None}, {}])
async def test_without_interval_or_timeout_nothing_is_dropped(
    options: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with connected(**{"ping_interval": 10, "ping_timeout": 5, **options}) as (ws, peer, nursery):
        if not options:
            nursery.start_soon(serve_pongs, peer)
        await trio.sleep(1005)
        assert not ws.is_finished
        pings = [frame for frame in peer.read() if frame.opcode == Opcode.PING]
        assert len(pings) == {"ping_timeout": 100}.get("".join(options), 0)
        assert ws.statistics().pings_waiting <= 1


async def test_the_keepalive_leaves_the_pings_of_the_user_alone(autojump_clock: MockClock) -> None:
    async with connected(ping_interval=10, ping_timeout=None) as (ws, peer, nursery):
        took: list[float] = []

        async def ping() -> None:
            took.append(await ws.ping(b""))

        nursery.start_soon(ping)
        await trio.sleep(25)
        assert [frame.payload == b"" for frame in peer.read()] == [True, False, False]
        peer.send(control(Opcode.PONG, b"unasked"), control(Opcode.PONG, b""))
        await trio.sleep(1)
        assert took == [25]


async def test_a_pong_answers_the_pings_before_it_too(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        took: list[float] = []

        async def ping(payload: bytes) -> None:
            took.append(await ws.ping(payload))

        for payload in (b"1", b"2", b"3"):
            nursery.start_soon(ping, payload)
            await trio.sleep(1)
        peer.send(control(Opcode.PONG, b"2"))
        await trio.sleep(1)
        assert sorted(took) == [2, 3]
        assert ws.statistics().pings_waiting == 1


async def test_a_ping_wakes_when_the_connection_ends(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.ping()


@pytest.mark.parametrize("kind", ["inbox", "channel", "callback"])
async def test_while_back_pressure_stops_reading_the_deadline_stands_still(
    kind: str, autojump_clock: MockClock
) -> None:
    async with connected(ping_interval=10, ping_timeout=5, max_queue=3) as (ws, peer, nursery):
        go_on = trio.Event()
        channel = ws.open_channel("message", 1) if kind == "channel" else None
        if kind == "callback":

            @ws.on
            async def message(*_: object) -> None:
                await go_on.wait()

        for _number in range(30):
            peer.send("message")
            await wait_all_tasks_blocked()
        nursery.start_soon(serve_pongs, peer)
        await trio.sleep(500)
        assert not ws.is_finished

        go_on.set()
        if kind == "inbox":
            nursery.start_soon(receive_until_broken, ws)
        elif channel is not None:
            for _number in range(30):
                await channel.receive()
        await trio.sleep(500)
        assert not ws.is_finished
        peer.answering = False
        await trio.sleep(20)
        assert ws.closed is not None
        assert ws.closed.code == 1006


async def test_a_half_open_connection_is_dropped_after_back_pressure_too(autojump_clock: MockClock) -> None:
    async with connected(ping_interval=10, ping_timeout=5, max_queue=3) as (ws, peer, _):
        peer.send(*["message"] * 3)
        await trio.sleep(100)
        for _number in range(3):
            await ws.receive()
        await trio.sleep(4)
        assert not ws.is_finished  # the time counts from the resumption
        await trio.sleep(2)
        assert ws.is_finished


async def test_what_lies_in_the_socket_when_a_pong_is_overdue_may_be_the_end(autojump_clock: MockClock) -> None:
    class Deaf(Recorder):
        """Nobody is told that there is something to read, as if the loop were late."""

        async def wait_receive(self) -> None:
            await trio.sleep_forever()

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs:
        async with trio.open_nursery() as nursery:
            ws = start(nursery, Deaf(ours), ping_interval=10, ping_timeout=5)
            peer = Peer(theirs, "server")
            await trio.sleep(12)  # A ping is out.
            peer.send(control(Opcode.CLOSE, b"\x0f\xa0"))
            await trio.sleep(4)
            assert ws.closed == (4000, "")
            nursery.cancel_scope.cancel()
