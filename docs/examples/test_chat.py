from collections.abc import AsyncIterator

import pytest
import trio
from chat import HISTORY, Chat, Line, Person, join
from trio.testing import MockClock

from trio_pyjo_ws import ConnectionClosed, open_rooms
from trio_pyjo_ws.testing import FaultyStream, MemoryServer, serve_memory


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[MemoryServer]:
    async with open_rooms(history=1000) as rooms:
        chat = Chat(rooms, await rooms.publish("chat", "open"))
        yield await nursery.start(serve_memory, chat.talk)


class Someone:
    """Somebody in the chat, whose connection the test can cut."""

    def __init__(self, name: str, server: MemoryServer) -> None:
        sender, self.lines = trio.open_memory_channel[Line](100)
        self.person = Person(name, sender)
        self.server = server
        self.streams: list[FaultyStream] = []

    def open_stream(self) -> FaultyStream:
        self.streams.append(FaultyStream(self.server.open_stream()))
        return self.streams[-1]

    async def stay(self) -> None:
        await join(self.person, "ws://chat.test/", self.open_stream)

    async def hears(self) -> str:
        line = await self.lines.receive()
        return f"{line.sender}: {line.say.text}"


async def test_a_newcomer_is_shown_the_last_lines(
    autojump_clock: MockClock, server: MemoryServer, nursery: trio.Nursery
) -> None:
    anna = Someone("anna", server)
    nursery.start_soon(anna.stay)
    for number in range(HISTORY + 5):
        await anna.person.say(f"line {number}")
    await anna.person.settle()
    bert = Someone("bert", server)
    nursery.start_soon(bert.stay)
    assert await bert.hears() == "anna: line 5"


async def test_a_private_line_is_for_two(
    autojump_clock: MockClock, server: MemoryServer, nursery: trio.Nursery
) -> None:
    anna, bert, cleo = people = [Someone(name, server) for name in ("anna", "bert", "cleo")]
    for someone in people:
        nursery.start_soon(someone.stay)
    await anna.person.say("only for you", to="bert")
    await anna.person.say("for all")
    assert [await bert.hears(), await bert.hears()] == ["anna: only for you", "anna: for all"]
    assert [await anna.hears(), await anna.hears()] == ["anna: only for you", "anna: for all"]
    assert await cleo.hears() == "anna: for all"


async def test_whoever_was_away_misses_nothing(
    autojump_clock: MockClock, server: MemoryServer, nursery: trio.Nursery
) -> None:
    anna, bert = Someone("anna", server), Someone("bert", server)
    nursery.start_soon(anna.stay)
    nursery.start_soon(bert.stay)
    await anna.person.say("one")
    assert await bert.hears() == "anna: one"
    bert.streams[-1].receiving.stall()  # a dead network: nothing says so until a ping gets no pong
    bert.streams[-1].sending.stall()
    await anna.person.say("two")
    await bert.person.say("three")  # gets lost, and is said again over the next connection
    assert sorted([await bert.hears(), await bert.hears()]) == ["anna: two", "bert: three"]
    await bert.person.settle()
    assert len(bert.streams) == 2
    await anna.person.say("four")
    assert await bert.hears() == "anna: four"


async def test_a_client_of_an_earlier_server_begins_as_a_newcomer(
    autojump_clock: MockClock, server: MemoryServer, nursery: trio.Nursery
) -> None:
    anna, bert = Someone("anna", server), Someone("bert", server)
    anna.person.after = "0123456789abcdef.5"  # a position that this server has never given
    nursery.start_soon(bert.stay)
    await bert.person.say("before")
    await bert.person.settle()
    nursery.start_soon(anna.stay)
    assert await anna.hears() == "bert: before"


async def test_a_bad_name_is_refused(autojump_clock: MockClock, server: MemoryServer) -> None:
    with pytest.raises(ConnectionClosed, match="a name has"):
        await Someone("a b", server).stay()
