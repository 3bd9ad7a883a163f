"""Who reads: whoever waits, of one connection; one task in the background, of many."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.peer import Peer, Turns, hurry
from trio_pyjo_ws import ConnectionClosed, Transaction
from trio_pyjo_ws._engine import reading
from trio_pyjo_ws._engine.housekeeper import Housekeeper
from trio_pyjo_ws._engine.hub import Hub, Member
from trio_pyjo_ws._engine.reading import GRACE, WOKEN, Reader, who_reads
from trio_pyjo_ws._engine.transport import SocketTransport
from trio_pyjo_ws.options import Settings
from trio_pyjo_ws.wire.frames import Frame, Opcode
from trio_pyjo_ws.wire.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

    from trio.testing import MockClock


ENOUGH = 100
"""Seconds in which whoever receives now and then has received all."""


class House:
    """Connections of one housekeeper, as those of a server are."""

    def __init__(self, nursery: trio.Nursery, peers: ExitStack) -> None:
        self.nursery = nursery
        self.peers = peers
        self.keeper = Housekeeper(nursery)
        nursery.start_soon(self.keeper.run, name="housekeeper")

    def connect(self, transport: type[SocketTransport] = SocketTransport, **options: Any) -> tuple[Transaction, Peer]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.peers.enter_context(theirs)
        settings = Settings.of({"ping_interval": None, **options})
        ws = Transaction(Protocol("server"), transport(ours), self.keeper, settings)
        ws.__connection__.start()
        return ws, Peer(theirs, "server")

    @property
    def readers(self) -> int:
        """Tasks that read in the background."""
        return sum(task.name.startswith("reader") for task in self.nursery.child_tasks)


@asynccontextmanager
async def housed() -> AsyncIterator[House]:
    with trio.fail_after(100_000), ExitStack() as peers:
        async with trio.open_nursery() as nursery:
            yield House(nursery, peers)
            nursery.cancel_scope.cancel()


async def send_later(peer: Peer, message: str) -> None:
    await trio.sleep(10 * GRACE)
    peer.send(message)


@pytest.mark.parametrize(
    ("room", "waiting", "urgent", "quiet"), list(product([False, True], repeat=4)), ids=lambda flag: str(int(flag))
)
def test_of_one_connection_whoever_waits_reads(room: bool, waiting: bool, urgent: bool, quiet: bool) -> None:
    reader = who_reads(members=1, room=room, waiting=waiting, urgent=urgent, quiet=quiet)
    assert (reader is Reader.NOBODY) is not room
    if room and urgent:
        assert reader is Reader.BACKGROUND
    elif room and waiting:
        assert reader is Reader.RECEIVER
    elif room:
        assert reader is (Reader.BACKGROUND if quiet else Reader.LATER)


def test_without_connections_nobody_reads() -> None:
    assert who_reads(members=0, room=True, waiting=True, urgent=True, quiet=True) is Reader.NOBODY


@pytest.mark.parametrize("members", [2, 1000])
def test_of_many_connections_the_background_reads(members: int) -> None:
    for room, waiting, urgent, quiet in product([False, True], repeat=4):
        reader = who_reads(members=members, room=room, waiting=waiting, urgent=urgent, quiet=quiet)
        assert reader is Reader.BACKGROUND


async def test_a_task_that_waits_alone_has_no_reader_beside_it(autojump_clock: MockClock) -> None:
    async with housed() as house:
        ws, peer = house.connect()

        house.nursery.start_soon(send_later, peer, "Hello")
        assert await ws.receive() == "Hello"
        assert not house.readers


async def test_a_task_that_led_is_read_for_once_there_is_a_second_connection(autojump_clock: MockClock) -> None:
    """It waited for its own socket; the second connection has nobody who waits, so nobody else begins to read."""
    async with housed() as house:
        ws, peer = house.connect()
        received: list[str | bytes] = []

        async def receive() -> None:
            received.append(await ws.receive())

        house.nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        house.connect()
        await wait_all_tasks_blocked()
        peer.send("Hello")
        await wait_all_tasks_blocked(0.01)
        assert received == ["Hello"]


async def test_the_last_of_many_connections_is_read_by_whoever_waits_again(autojump_clock: MockClock) -> None:
    async with housed() as house:
        ws, peer = house.connect()
        other, _ = house.connect()
        await wait_all_tasks_blocked()
        assert house.readers == 1
        await other.aclose()
        await trio.sleep(10 * GRACE)
        for message in ("read by the background, which then leaves", "read by the task that waits"):
            house.nursery.start_soon(send_later, peer, message)
            assert await ws.receive() == message
        assert not house.readers


async def test_a_task_that_waits_is_read_for_once_the_connection_whose_task_led_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with housed() as house:
        led, began = house.connect()

        async def read_and_stay() -> None:
            async with led.receive_stream() as message:
                assert await message.__anext__() == "a piece"
                with pytest.raises(trio.ClosedResourceError):
                    await message.__anext__()
                await trio.sleep_forever()  # in the block, whose end would see to the reading

        began.send(Frame(False, False, False, False, Opcode.TEXT, b"a piece"))
        house.nursery.start_soon(read_and_stay)
        await wait_all_tasks_blocked()
        ws, peer = house.connect()
        led.__connection__.abandon()  # before its task has found that it leads no more
        house.nursery.start_soon(send_later, peer, "Hello")
        assert await ws.receive() == "Hello"


class Faulty(SocketTransport):
    """Reading from it fails, as if by a fault of this library."""

    faulty = False

    def try_receive(self) -> bytes | None:
        if self.faulty:
            raise RuntimeError("a fault")
        return super().try_receive()


async def test_many_that_are_ready_at_once_leave_the_others_their_turn(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with housed() as house:
        pairs = [house.connect() for _ in range(20)]
        got: list[Any] = []
        for ws, _ in pairs:
            ws.on("message", lambda _, message: got.append(message))
        await trio.sleep(3 * GRACE)
        hurry(monkeypatch)
        turns = Turns()
        house.nursery.start_soon(turns.run)
        for _, peer in pairs:
            peer.send("Hello")
        with trio.fail_after(1):
            while len(got) < len(pairs):
                await trio.lowlevel.checkpoint()
        assert turns.count >= len(pairs) - 2  # trio may run the reader after it at first, and before it in the end


async def test_a_fault_of_ours_ends_one_connection_of_many(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with housed() as house:
        (bad, bad_peer), (good, good_peer) = house.connect(Faulty), house.connect()
        await trio.sleep(3 * GRACE)
        bad.__connection__.transport.faulty = True  # type: ignore[attr-defined]
        bad_peer.send("Hello")
        good_peer.send("Hello")
        assert await good.receive() == "Hello"
        with pytest.raises(ConnectionClosed, match="1006"):
            await bad.receive()
        assert "has failed" in caplog.text
        assert "a fault" in caplog.text


async def test_a_fault_of_ours_as_reading_goes_on_ends_the_connection(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with housed() as house:
        ws, peer = house.connect(Faulty, max_queue=1)
        peer.send("one")
        await trio.sleep(3 * GRACE)
        peer.send("two")  # for which there is no room
        ws.__connection__.transport.faulty = True  # type: ignore[attr-defined]
        assert ws.receive_nowait() == "one"
        await trio.sleep(3 * GRACE)
        assert ws.closed is not None
        assert "a fault" in caplog.text


async def test_a_socket_that_another_process_still_holds_disturbs_nobody(autojump_clock: MockClock) -> None:
    async with housed() as house:
        (ours, peer), (other, other_peer), (_third, _) = house.connect(), house.connect(), house.connect()
        await trio.sleep(3 * GRACE)
        copy = os.dup(ours.__connection__.transport.fd)  # as fork() makes them
        house.peers.callback(os.close, copy)
        ours.__connection__.abandon()
        peer.send("to nobody")
        other_peer.send("Hello")
        assert await other.receive() == "Hello"


@pytest.mark.parametrize("places", [0, 1], ids=["no place", "one place"])
async def test_a_connection_for_which_the_set_has_no_place_is_read_for_by_itself(
    places: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """No descriptor may be left, and the system bounds how many sockets all sets may hold."""

    class Full(Hub):
        def add(self, connection: Member, fd: int) -> None:
            if len(made) == places:
                raise OSError(errno.ENOSPC, "full")
            made.append(fd)
            super().add(connection, fd)

    made: list[int] = []
    monkeypatch.setattr(reading, "Hub", Full)
    async with housed() as house:
        connected = [house.connect() for _ in range(3)]
        for number, (_, peer) in enumerate(connected):
            house.nursery.start_soon(send_later, peer, str(number))
        assert [await ws.receive() for ws, _ in connected] == ["0", "1", "2"]
        assert len({ws.__connection__.reading for ws, _ in connected}) == 3


async def test_a_task_that_is_woken_gets_nothing_however_often() -> None:
    def count() -> Generator[int, None, None]:
        for number in range(2):
            assert (yield number) is None

    async def count_later() -> AsyncGenerator[int, None]:
        for number in count():
            yield number

    numbers = count()
    async with aclosing(count_later()) as later:
        for number in range(2):
            WOKEN.unwrap()
            assert WOKEN.send(numbers) == await WOKEN.asend(later) == number


@pytest.mark.parametrize("seed", range(50))
async def test_whatever_begins_and_ends_every_message_is_received(seed: int, autojump_clock: MockClock) -> None:
    """Connections come and go, tasks wait and are cancelled, callbacks are there and not: nobody waits for ever."""
    dice = Random(seed)
    async with housed() as house:
        open_ones: list[tuple[Transaction, Peer, list[str], list[str]]] = []

        async def receive(ws: Transaction, received: list[Any]) -> None:
            with suppress(trio.ClosedResourceError):
                while True:
                    with trio.move_on_after(dice.choice([0, GRACE / 3, GRACE, 3 * GRACE, 100])):
                        received.append(await ws.receive())
                    if dice.random() < 0.3:
                        callback = ws.on("message", lambda _, message: received.append(message))
                        await trio.sleep(dice.choice([0, GRACE / 2, 2 * GRACE]))
                        ws.unsubscribe("message", callback)
                    await trio.sleep(dice.choice([0, 0, GRACE / 2, 2 * GRACE]))

        for number in range(60):
            choice = dice.random()
            if choice < 0.15 and len(open_ones) < 5:
                ws, peer = house.connect(max_queue=dice.choice([1, 2, 100]))
                received: list[str] = []
                open_ones.append((ws, peer, [], received))
                house.nursery.start_soon(receive, ws, received)
            elif choice < 0.2 and open_ones:
                ws, peer, sent, received = open_ones.pop(dice.randrange(len(open_ones)))
                await trio.sleep(ENOUGH)
                assert received == sent
                await ws.aclose()
            elif open_ones:
                _, peer, sent, _ = dice.choice(open_ones)
                texts = [f"{number}.{index}" for index in range(dice.choice([1, 1, 5]))]
                peer.send(*texts)
                sent += texts
            await trio.sleep(dice.choice([0, 0, GRACE / 3, GRACE]))
        await trio.sleep(ENOUGH)
        for _, _, sent, received in open_ones:
            assert received == sent
