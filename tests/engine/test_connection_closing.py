"""How a connection ends: by either side, by a fault, with its nursery."""

from __future__ import annotations

import itertools
import logging
import math
import re
import struct
from contextlib import suppress
from socket import socketpair
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_pyjo_ws import Close, ConnectionClosed, testing
from trio_pyjo_ws._engine.transport import SocketTransport
from trio_pyjo_ws.wire.frames import Frame, Opcode
from trio_pyjo_ws.wire.protocol import Protocol

from ..peer import (
    Flood,
    connected,
    control,
    limit_writes,
    receive_all,
    set_clock,
    start,
    stream_connection,
    task_names,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_pyjo_ws import Transaction

PING = control(Opcode.PING, b"?")
PONG = control(Opcode.PONG, b"?")


def close_frame(code: int, reason: bytes = b"") -> Frame:
    return control(Opcode.CLOSE, struct.pack("!H", code) + reason)


async def receive_nowait(source: Any) -> object:
    return source.receive_nowait()


async def finish_into(into: list[Close], ws: Transaction, *arguments: Any) -> None:
    into.append(await ws.finish(*arguments))


# Closing, from either side


@pytest.mark.parametrize("role", ["client", "server"])
async def test_finish_says_how_it_ended(role: str, autojump_clock: MockClock) -> None:
    async with connected(role) as (ws, peer, nursery):
        closed: list[Close] = []
        nursery.start_soon(finish_into, closed, ws, 3000, "enough")
        await wait_all_tasks_blocked()
        assert peer.read() == [close_frame(3000, b"enough")]
        assert closed == []
        peer.answer()
        if role == "client":  # which leaves the end of the stream to the server
            await wait_all_tasks_blocked()
            assert closed == []
            peer.sock.close()
        await wait_all_tasks_blocked()
        assert closed == [Close(3000, "enough")]
        assert trio.current_time() == 0
        assert await ws.finish() == Close(3000, "enough")
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("Hello")
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()
        await ws.aclose()


@pytest.mark.parametrize(
    ("payload", "raised"),
    [(b"", None), (b"\x03\xe8", None), (b"\x03\xe9bye", None), (b"\x03\xf3oops", "1011"), (b"\x0b\xb8", "3000")],
)
@pytest.mark.parametrize("role", ["client", "server"])
async def test_the_peers_close_is_answered_and_ends_the_messages(
    payload: bytes, raised: str | None, role: str, autojump_clock: MockClock
) -> None:
    async with connected(role) as (ws, peer, nursery):
        peer.send("before", control(Opcode.CLOSE, payload))
        got: list[Any] = []
        if raised:
            with pytest.raises(ConnectionClosed, match=raised):
                await receive_all(ws, got)
            with pytest.raises(ConnectionClosed, match=raised):
                await ws.send("Hello")
        else:
            await receive_all(ws, got)
            with pytest.raises(trio.EndOfChannel):
                await ws.receive()
        assert got == ["before"]
        assert peer.read() == [control(Opcode.CLOSE, payload)]
        assert peer.gone is (role == "server")
        peer.sock.close()
        await trio.sleep(0.01)
        assert ws.is_finished
        await wait_all_tasks_blocked()
        assert task_names(nursery) == []


@pytest.mark.parametrize("code", [1000, 1001, 4000])
async def test_a_close_in_the_middle_of_a_message_is_no_normal_end(code: int, autojump_clock: MockClock) -> None:
    """Whoever takes what came for all of it would take a part of a message for the whole."""
    async with connected() as (ws, peer, _):
        channel = ws.open_channel("message")
        peer.send(Frame(False, False, False, False, Opcode.TEXT, b"a part of"), close_frame(code))
        for receive in (channel.receive, ws.receive):
            with pytest.raises(ConnectionClosed, match=f"closed with {code} in the middle of a message") as caught:
                await receive()
            assert caught.value.cut
        with pytest.raises(ConnectionClosed):
            assert [message async for message in ws] == []
        assert ws.closed == Close(code)
        assert isinstance(ws.error, ConnectionClosed)
        assert ws.error.cut


async def test_both_close_at_once(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        pair = testing.open_memory_pair(nursery)
        closed: list[Close] = []
        for number, ws in enumerate(pair):
            nursery.start_soon(finish_into, closed, ws, 3000 + number)
    assert sorted(closed) == [Close(3000), Close(3001)]
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x81\x01a", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x82\xff" + struct.pack("!Q", 1 << 40), 1009),
    ],
)
@pytest.mark.parametrize("finishing", [False, True])
async def test_a_breach_is_told_to_the_peer_and_ends_the_connection(
    data: bytes, code: int, finishing: bool, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, nursery):
        before = peer.bytes_of("before")
        peer.sock.sendall(before + data)
        await trio.sleep(1)
        assert await ws.receive() == "before"
        with pytest.raises(ConnectionClosed, match=f"{code}"):
            await ws.receive()
        if finishing:
            nursery.start_soon(ws.finish)
        assert [frame.opcode for frame in peer.read()] == [Opcode.CLOSE]
        assert peer.close_code == code
        assert peer.gone  # this half is closed
        for _number in range(10):  # and what still comes is read, so that nothing resets the connection
            peer.sock.sendall(bytes(100_000))
            await wait_all_tasks_blocked()
        assert not ws.is_finished
        peer.sock.close()
        await trio.sleep(0.001)
        assert ws.is_finished
        assert ws.closed is not None
        assert ws.closed.code == code


async def test_what_came_before_a_breach_is_answered_before_it_is_told(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.sock.sendall(peer.bytes_of("one", "two") + b"\x83\x80\0\0\0\0")
        for _ in range(2):
            await ws.send(f"{await ws.receive()}, answered")
        with pytest.raises(ConnectionClosed, match="1002"):
            await ws.receive()
        *answers, close = peer.read()
        assert [answer.payload for answer in answers] == [b"one, answered", b"two, answered"]
        assert close == close_frame(1002, b"the opcode 3 is reserved")


async def test_after_a_breach_a_peer_that_does_not_end_is_cut_off(autojump_clock: MockClock) -> None:
    async with connected(close_timeout=5) as (ws, peer, _):
        peer.sock.sendall(b"\xff\xff")
        with pytest.raises(ConnectionClosed, match="1002"):
            await ws.receive()
        await trio.sleep(4.9)
        assert not ws.is_finished
        await trio.sleep(0.2)
        assert ws.is_finished


class Deaf(SocketTransport):
    """Its peer takes nothing any more, once it is deaf, and may still send."""

    deaf = False

    def try_send(self, data: bytes | memoryview) -> int:
        if self.deaf:
            raise trio.BrokenResourceError("nobody reads")
        return super().try_send(data)


@pytest.mark.parametrize("role", ["client", "server"])
async def test_who_waits_for_a_pong_is_told_at_once_of_a_breach_that_cannot_be_answered(
    role: str, autojump_clock: MockClock
) -> None:
    ours, theirs = socketpair()
    ours.setblocking(False)
    transport = Deaf(ours)
    with theirs:
        async with trio.open_nursery() as nursery:
            ws = start(nursery, transport, role)

            async def break_a_rule() -> None:
                transport.deaf = True
                theirs.sendall(b"\xff\xff")

            nursery.start_soon(break_a_rule)
            with pytest.raises(ConnectionClosed):
                await ws.ping()
            assert trio.current_time() == 0
            nursery.cancel_scope.cancel()


async def test_over_a_stream_a_server_closes_right_after_it_has_told_of_a_breach(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        ws = stream_connection(nursery, ours)
        await theirs.send_all(b"\xff\xff")
        with pytest.raises(ConnectionClosed, match="1002"):
            await ws.receive()
        assert (await theirs.receive_some())[:4] == b"\x88" + bytes([len(str(ws.closed.reason)) + 2]) + b"\x03\xea"
    assert trio.current_time() == 0


@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_peer_that_does_not_answer_is_cut_off_after_the_timeout(role: str, autojump_clock: MockClock) -> None:
    async with connected(role, close_timeout=5) as (ws, peer, _):
        assert (await ws.finish(1000)).code == 1006
        assert trio.current_time() == 5
        assert peer.read() == [close_frame(1000)]
        assert peer.gone


async def test_a_peer_that_takes_nothing_is_cut_off_too(autojump_clock: MockClock) -> None:
    async with connected(close_timeout=5) as (ws, _, _n):
        limit_writes(ws, 3)
        ws.send_nowait(b"Hello")
        limit_writes(ws, 0)
        assert (await ws.finish(1000)).code == 1006
        assert trio.current_time() == 5


async def test_while_it_closes_there_are_no_pings(autojump_clock: MockClock) -> None:
    async with connected(close_timeout=50, ping_interval=10, ping_timeout=5) as (ws, peer, _):
        assert (await ws.finish(1000)).code == 1006
        assert trio.current_time() == 50
        assert peer.read() == [close_frame(1000)]


async def test_a_flood_instead_of_an_answer_is_cut_off_and_kept_as_far_as_there_is_room(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        client = Protocol("client")
        client.send_message("flood")
        transport = Flood(client.take() * 100)
        ws = start(nursery, transport, close_timeout=5, ping_interval=None)
        closed: list[Close] = []
        nursery.start_soon(finish_into, closed, ws)
        while transport.reads < 3000:
            await trio.lowlevel.checkpoint()
        assert ws.statistics().messages_waiting == 1024
        autojump_clock.jump(5)
        await wait_all_tasks_blocked()
    assert closed[0].code == 1006
    dropped = re.findall(r"(\d+) messages came behind this side's Close, and found no room", caplog.text)
    assert [int(number) for number in dropped] == [ws.statistics().messages_received - 1024]


@pytest.mark.parametrize("way", ["receive", "receive_stream", "channel"])
async def test_what_finds_room_behind_what_found_none_is_not_kept(way: str, autojump_clock: MockClock) -> None:
    async with connected("server", max_queue=2) as (ws, peer, nursery):
        channel = ws.open_channel("message", 2)
        if way != "channel":
            channel.close()
        nursery.start_soon(ws.finish)
        await wait_all_tasks_blocked()
        for number in range(3):
            peer.send(str(number))
            await wait_all_tasks_blocked()
        source = channel if way == "channel" else ws
        assert await source.receive() == "0"
        assert await source.receive() == "1"
        peer.send("3")
        await wait_all_tasks_blocked()
        with pytest.raises((trio.WouldBlock, trio.ClosedResourceError)):  # "3", without "2", would look like all
            await (ws.receive_stream().__aenter__() if way == "receive_stream" else receive_nowait(source))


async def test_a_close_frame_of_ones_own_begins_to_close_as_finish_does(autojump_clock: MockClock) -> None:
    async with connected(max_queue=3) as (ws, peer, _):
        await ws.send(frame=close_frame(3000))
        for _number in range(50):
            peer.send(bytes(10_000))
            await wait_all_tasks_blocked()
        assert ws.statistics().messages_waiting == 3
        peer.read()
        peer.answer()
        await wait_all_tasks_blocked()
        assert ws.closed == (3000, "")
        assert ws.is_finished
        assert trio.current_time() == 0


async def test_a_close_that_nobody_waits_for_is_attended_to_at_once(autojump_clock: MockClock) -> None:
    async with connected(max_queue=2) as (ws, peer, _):
        peer.send("one", "two", "three")
        await trio.sleep(1)
        ws.__connection__.close_soon(1001, "the server is shutting down")
        ws.__connection__.close_soon(1011)
        await wait_all_tasks_blocked()
        peer.read()
        peer.answer()
        await wait_all_tasks_blocked()
        assert ws.is_finished
        assert peer.close_code == 1001
        assert [ws.receive_nowait(), ws.receive_nowait()] == ["one", "two"]


async def test_a_full_queue_does_not_delay_finish_and_stays_readable(autojump_clock: MockClock) -> None:
    async with connected(max_queue=2) as (ws, peer, nursery):
        peer.send(*[str(number) for number in range(100)])
        await trio.sleep(1)
        nursery.start_soon(ws.finish)
        await wait_all_tasks_blocked()
        peer.read()
        peer.answer()
        await wait_all_tasks_blocked()
        assert ws.is_finished
        assert trio.current_time() == 1
        assert [await ws.receive(), await ws.receive()] == ["0", "1"]
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()


@pytest.mark.parametrize("event", ["message", "frame"])
@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_full_channel_does_not_delay_finish(event: str, role: str, autojump_clock: MockClock) -> None:
    async with connected(role) as (ws, peer, nursery):
        channel = ws.open_channel(event, 1)
        peer.send("1", "2", "3")
        await trio.sleep(1)
        nursery.start_soon(ws.finish)
        await wait_all_tasks_blocked()
        peer.send("4", "5")
        peer.read()
        peer.answer()
        await wait_all_tasks_blocked()
        peer.sock.close()
        await wait_all_tasks_blocked()
        assert ws.is_finished
        assert trio.current_time() == 1
        assert len([item async for item in channel]) == 1


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("gone", [False, True])
async def test_a_slow_reader_of_a_channel_gets_all_that_came_before_the_end(
    role: str, gone: bool, autojump_clock: MockClock
) -> None:
    async with connected(role) as (ws, peer, _):
        channel = ws.open_channel("binary", 1)
        finished = ws.open_channel("finish")
        peer.send(b"1", b"2", b"3", "text", close_frame(1000))
        if gone:
            peer.sock.close()
        got = []
        async for item in channel:
            got.append(item)
            await trio.sleep(3600)
            if not gone and len(got) == 3:
                peer.read()
                peer.sock.close()
        assert got == [b"1", b"2", b"3"]
        assert await finished.receive() == (1000, "")
        with pytest.raises(trio.EndOfChannel):
            await finished.receive()
        assert await ws.receive() == "text"
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()


async def test_receive_waits_for_what_is_behind_a_full_channel(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel("binary", 1)
        peer.send(b"1", b"2", "text", b"3", close_frame(1000))
        got: list[Any] = []
        nursery.start_soon(receive_all, ws, got)
        await trio.sleep(1)
        assert got == []
        assert [item async for item in channel] == [b"1", b"2", b"3"]
        await wait_all_tasks_blocked()
        assert got == ["text"]


async def test_aclose_waits_for_no_channel(autojump_clock: MockClock) -> None:
    async with connected(close_timeout=5) as (ws, peer, nursery):
        channel = ws.open_channel("binary", 1)
        peer.send(b"1", b"2", b"3", close_frame(1000))
        await wait_all_tasks_blocked()
        await ws.aclose()
        await wait_all_tasks_blocked()
        assert task_names(nursery) == []
        assert [item async for item in channel] == [b"1"]
        assert trio.current_time() == 0


async def test_send_races_a_close(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        limit_writes(ws, 5000)

        async def send() -> None:
            with pytest.raises((ConnectionClosed, trio.ClosedResourceError)):  # noqa: PT012
                while True:
                    await ws.send(bytes(30_000))

        got: list[bytes] = []

        async def read() -> None:
            while not peer.gone:
                await trio.lowlevel.wait_readable(peer.sock)
                got.extend(frame.payload for frame in peer.read() if frame.opcode == Opcode.BINARY)
                if len(got) > 10 and peer.protocol.state.value == "open":
                    peer.send(close_frame(3000))

        async with trio.open_nursery() as tasks:
            tasks.start_soon(read)
            for _number in range(3):
                tasks.start_soon(send)
            tasks.start_soon(receive_all_until_closed, ws)
        assert set(got) == {bytes(30_000)}
        assert peer.close_code == 3000


async def receive_all_until_closed(ws: Transaction) -> None:
    with pytest.raises(ConnectionClosed, match="3000"):
        await ws.receive()


async def test_those_who_wait_are_woken_by_finish(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        limit_writes(ws, 0)
        woken: list[str] = []

        async def wait_in(name: str, *arguments: Any) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await getattr(ws, name)(*arguments)
            woken.append(name)

        async with trio.open_nursery() as tasks:
            tasks.start_soon(wait_in, "receive")
            tasks.start_soon(wait_in, "send", "Hello")
            tasks.start_soon(wait_in, "ping")
            await wait_all_tasks_blocked()
            tasks.start_soon(ws.finish)
            await wait_all_tasks_blocked()
            peer.send("wakes the reader")
        assert sorted(woken) == ["ping", "receive", "send"]


async def test_two_tasks_may_finish(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        closed: list[Close] = []
        nursery.start_soon(finish_into, closed, ws, 3000)
        nursery.start_soon(finish_into, closed, ws, 3001)
        nursery.start_soon(finish_into, closed, ws, 3002)
        await wait_all_tasks_blocked()
        assert len(peer.read()) == 1
        peer.answer()
        await wait_all_tasks_blocked()
        assert len(closed) == 3
        assert len(set(closed)) == 1


async def test_a_task_that_let_others_run_does_not_read_what_one_of_them_waits_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected("server", max_queue=1) as (ws, peer, nursery):
        closed: list[Close] = []

        async def yield_turn() -> None:
            monkeypatch.undo()
            nursery.start_soon(finish_into, closed, ws, 4000)
            await wait_all_tasks_blocked()
            peer.send("one", "two")
            peer.read()
            peer.answer()

        monkeypatch.setattr(ws.__connection__.housekeeper, "yield_turn", yield_turn)
        set_clock(monkeypatch, lambda: math.inf)
        with suppress(trio.ClosedResourceError):  # or it has the first message already
            await ws.receive()
        await trio.sleep(1)
        assert closed == [Close(4000)]


async def test_of_two_that_finish_the_first_may_be_cancelled(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        closed: list[Close] = []
        with trio.move_on_after(1):
            nursery.start_soon(finish_into, closed, ws)
            await ws.finish()
        peer.read()
        peer.answer()
        await wait_all_tasks_blocked()
        assert closed == [Close(1005)]


@pytest.mark.parametrize("answered", [False, True])
async def test_finish_cancelled_goes_on_in_the_background(answered: bool, autojump_clock: MockClock) -> None:
    async with connected(close_timeout=5) as (ws, peer, nursery):
        with trio.move_on_after(1) as scope:
            await ws.finish(3000)
        assert scope.cancelled_caught
        assert task_names(nursery) == ["housekeeper", "reader"]
        assert peer.read() == [close_frame(3000)]
        if answered:
            peer.answer()
        await trio.sleep(3.9)
        assert ws.is_finished is answered
        await trio.sleep(0.2)
        assert ws.closed is not None
        assert ws.closed.code == (3000 if answered else 1006)
        assert task_names(nursery) == []


async def test_aclose_cancelled_closes_at_once(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        with trio.move_on_after(1) as scope:
            await ws.aclose()
        assert scope.cancelled_caught
        assert ws.is_finished
        assert peer.read() == [close_frame(1000)]
        assert peer.gone
        assert trio.current_time() == 1


async def test_without_a_close_timeout_finish_waits(autojump_clock: MockClock) -> None:
    async with connected(close_timeout=None) as (ws, _, _n):
        with trio.move_on_after(90_000) as scope:
            await ws.finish()
        assert scope.cancelled_caught
        assert not ws.is_finished


# The network


def session(role: str) -> bytes:
    peer = Protocol("client" if role == "server" else "server")
    peer.send_message("Hello")
    peer.send_frame(PING)
    peer.send_message(bytes(200))
    peer.send_close(1000)
    return peer.take()


SESSION = session("server")


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("subscribed", [False, True])
async def test_an_end_at_any_byte_of_a_session(reset: bool, subscribed: bool, autojump_clock: MockClock) -> None:
    for cut in range(len(SESSION)):
        async with connected() as (ws, peer, nursery):
            peer.sock.sendall(SESSION[:cut])
            if reset:
                await ws.send("unread, which makes the end of a socket pair a reset")
            got: list[Any] = []
            channel = ws.open_channel("message", 1) if subscribed else None
            peer.sock.close()
            with pytest.raises(ConnectionClosed, match="1006"):  # noqa: PT012
                if channel:
                    await receive_all(channel, got)
                await receive_all(ws, got)
            assert got == ["Hello", bytes(200)][: len(got)]
            assert len(got) == (cut >= 11) + (cut >= len(SESSION) - 8)
            await wait_all_tasks_blocked()
            assert task_names(nursery) == []
            assert trio.current_time() == 0


async def test_a_session_byte_by_byte(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        got: list[Any] = []
        nursery.start_soon(receive_all, ws, got)
        for byte in SESSION:
            peer.sock.sendall(bytes([byte]))
            await wait_all_tasks_blocked()
        assert got == ["Hello", bytes(200)]
        assert [frame.opcode for frame in peer.read()] == [Opcode.PONG, Opcode.CLOSE]
        assert ws.closed == (1000, "")


async def test_the_end_may_come_while_another_task_is_on_its_way_to_read(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    clock = itertools.count(1.0)
    set_clock(monkeypatch, lambda: next(clock))
    async with connected() as (ws, _, nursery):

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ws.receive()

        async def cancelled_aclose() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.aclose()

        for _number in range(5):
            nursery.start_soon(receive)
            nursery.start_soon(cancelled_aclose)
            await wait_all_tasks_blocked()


# The nursery


@pytest.mark.parametrize("event", [None, "message"])
@pytest.mark.parametrize("sending", [False, True])
async def test_cancelling_the_nursery_closes_at_once_and_leaves_nothing(
    event: str | None, sending: bool, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, nursery):
        channel = ws.open_channel(event, 1) if event else None
        peer.send(*["message"] * 5)
        if sending:
            nursery.start_soon(ws.send, bytes(10_000_000))
            nursery.start_soon(ws.send, "waits")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        assert ws.closed is not None
        assert ws.closed.code == 1006
    assert trio.current_time() == 1
    if channel:
        assert await channel.receive() == "message"
        with pytest.raises(ConnectionClosed, match="1006"):
            await channel.receive()
    else:
        assert ws.statistics().messages_waiting == 5
    with pytest.raises(ConnectionClosed):
        await ws.send("Hello")


@pytest.mark.parametrize("number", [1, 2])
async def test_a_stream_is_closed_with_the_nursery(number: int, autojump_clock: MockClock) -> None:
    streams = [memory_stream_pair() for _ in range(number)]
    async with trio.open_nursery() as nursery:
        for ours, _theirs in streams:
            stream_connection(nursery, ours)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    for ours, _theirs in streams:
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"")


# Callbacks that raise


def fail(*_: object) -> None:
    raise ValueError("from a callback")


async def test_an_exception_of_a_callback_does_not_disturb_the_task_that_reads(autojump_clock: MockClock) -> None:
    told: list[Exception] = []
    async with connected(crash=told.append) as (ws, peer, _):
        ws.on("text", fail)
        peer.send("one", b"two", PING)
        assert await ws.receive() == b"two"
        await wait_all_tasks_blocked()
        assert len(peer.read()) == 1
    assert len(told) == 1


async def test_an_exception_in_the_background_comes_out_of_the_nursery(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="from a callback"), flatten_subgroups=True):
        async with connected() as (ws, peer, _):
            ws.on("text", fail)
            peer.send("one")
            await trio.sleep(1)


async def test_an_exception_in_drain_tears_nothing(autojump_clock: MockClock) -> None:
    told: list[Exception] = []
    async with connected(crash=told.append) as (ws, peer, _):
        ws.on("drain", fail)
        await ws.send("one")
        await wait_all_tasks_blocked()
        limit_writes(ws, 3)
        await ws.send("two")
        ws.send_nowait("three")
        await wait_all_tasks_blocked()
        assert len(told) == 2
        assert len(peer.read()) == 3
        assert not ws.is_finished


async def test_an_exception_in_drain_does_not_hold_up_a_close(autojump_clock: MockClock) -> None:
    told: list[Exception] = []
    async with connected(crash=told.append) as (ws, peer, _):
        limit_writes(ws, 1)
        ws.on("drain", fail)
        peer.send(close_frame(1000))
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()
        await wait_all_tasks_blocked()
        peer.read()
        assert ws.is_finished
        assert peer.close_code == 1000
        assert len(told) == 1


@pytest.mark.parametrize("delivering", [False, True])
async def test_an_exception_in_finish_goes_to_the_nursery(delivering: bool, autojump_clock: MockClock) -> None:
    told: list[Exception] = []
    async with connected(crash=told.append) as (ws, peer, _):
        ws.on("finish", fail)
        channel = ws.open_channel("binary", 1) if delivering else None
        if channel:
            ws.on("text", fail)
            peer.send(b"1", b"2", "text", b"3")
        peer.send(close_frame(1000))
        await trio.sleep(1)
        if channel:
            assert [item async for item in channel] == [b"1", b"2", b"3"]
        await wait_all_tasks_blocked()
        assert len(told) == 1 + delivering
        assert ws.is_finished


async def test_an_exception_of_a_callback_while_finishing_does_not_stop_the_close(autojump_clock: MockClock) -> None:
    told: list[Exception] = []
    async with connected(crash=told.append) as (ws, peer, nursery):
        nursery.start_soon(ws.finish)
        await wait_all_tasks_blocked()
        ws.on("frame", fail)
        peer.send(close_frame(3000))
        await wait_all_tasks_blocked()
        assert ws.closed == (3000, "")
        assert ws.is_finished
