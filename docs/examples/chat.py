import argparse
import re
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from uuid import uuid4

import msgspec
import trio

from trio_pyjo_ws import ConnectionClosed, Missed, Position, Room, Rooms, Transaction, open_rooms, reconnecting, serve

HISTORY = 20  # lines that a newcomer is shown
YEAR = 365 * 86_400  # seconds of silence after which the room is forgotten
MISSED = 4000  # the close code for "some of what you have missed is not kept: begin anew"
REFUSED = 4001


class Hello(msgspec.Struct):
    """The first message of a client: its name, and the last position that it knows."""

    name: str
    after: str | None = None


class Say(msgspec.Struct):
    """What somebody says, to everybody or to one."""

    id: str  # a client says again what it has not seen come back; by the id it is shown once
    text: str
    to: str | None = None


class Line(msgspec.Struct):
    """What somebody has said, as the room keeps it."""

    sender: str
    say: Say


class Shown(msgspec.Struct):
    """A line, and where it stands in the room."""

    position: str
    line: Line


class Chat:
    """The server."""

    def __init__(self, rooms: Rooms, beginning: Position) -> None:
        self.rooms = rooms
        self.recent = deque([beginning], maxlen=HISTORY + 1)

    async def talk(self, ws: Transaction) -> None:
        hello = await ws.receive_json(type=Hello)
        if not re.fullmatch(r"\w{1,20}", hello.name):
            await ws.finish(REFUSED, "a name has 1 to 20 letters or digits")
            return
        try:
            after = Position.parse(hello.after) if hello.after else self.recent[0]
            async with self.rooms.join("chat", after=after, who=hello.name) as room, trio.open_nursery() as nursery:
                nursery.start_soon(self.show, room, ws, hello.name)
                async for say in ws.iter_json(type=Say):
                    line = msgspec.json.encode(Line(hello.name, say))
                    self.recent.append(await room.publish(line))
                nursery.cancel_scope.cancel()
        except (Missed, ValueError):
            await ws.finish(MISSED, "begin anew")

    async def show(self, room: Room, ws: Transaction, name: str) -> None:
        try:
            async with room.open_channel(max_buffer_size=100) as events:
                async for position, message in events:
                    line = msgspec.json.decode(message, type=Line)
                    if line.say.to in {None, name} or line.sender == name:
                        await ws.send(json=Shown(str(position), line))
        except Missed:  # this member reads too slowly: it comes back, and gets the rest
            await ws.finish(1013, "too slow")


class Person:
    """A client, which comes back when its connection is lost."""

    def __init__(self, name: str, show: trio.MemorySendChannel[Line]) -> None:
        self.name = name
        self.show = show
        self.after: str | None = None
        self.seen: set[str] = set()
        self.unconfirmed: dict[str, Say] = {}
        self.confirmed = trio.lowlevel.ParkingLot()
        self.ws: Transaction | None = None

    async def say(self, text: str, to: str | None = None) -> None:
        """Say it now, or when there is a connection again."""
        say = Say(uuid4().hex, text, to)
        self.unconfirmed[say.id] = say
        if self.ws is not None:
            with suppress(ConnectionClosed, trio.ClosedResourceError):
                await self.ws.send(json=say)

    async def stay(self, ws: Transaction) -> None:
        """Talk over one connection."""
        await ws.send(json=Hello(self.name, self.after))
        self.ws, again = ws, list(self.unconfirmed.values())
        for say in again:
            await ws.send(json=say)
        async for shown in ws.iter_json(type=Shown):
            self.after = shown.position
            if shown.line.say.id not in self.seen:
                self.seen.add(shown.line.say.id)
                await self.show.send(shown.line)
            if self.unconfirmed.pop(shown.line.say.id, None) is not None and not self.unconfirmed:
                self.confirmed.unpark_all()

    async def settle(self) -> None:
        """Wait until all that was said has come back."""
        while self.unconfirmed:
            await self.confirmed.park()


async def join(person: Person, url: str, open_stream: Callable[[], trio.abc.Stream] | None = None) -> None:
    async with reconnecting(url, open_stream=open_stream) as connections:
        async for ws in connections:
            try:
                await person.stay(ws)
            except ConnectionClosed as exc:
                if exc.close.code == REFUSED:
                    raise
                if exc.close.code == MISSED:
                    person.after = None
            finally:
                person.ws = None


async def show_lines(lines: trio.MemoryReceiveChannel[Line]) -> None:
    async for line in lines:
        print(f"{line.sender}{' (privately)' if line.say.to else ''}: {line.say.text}", flush=True)


async def run_client(name: str, url: str) -> None:
    sender, receiver = trio.open_memory_channel[Line](0)
    person = Person(name, sender)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show_lines, receiver)
        nursery.start_soon(join, person, url)
        while text := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            private = re.fullmatch(r"@(\w+) (.*)", text.strip())
            await (person.say(private[2], private[1]) if private else person.say(text.strip()))
        await person.settle()
        nursery.cancel_scope.cancel()


async def run_server(port: int) -> None:
    async with open_rooms(history=1000, keep=YEAR) as rooms, trio.open_nursery() as nursery:
        chat = Chat(rooms, await rooms.publish("chat", "open"))
        server = await nursery.start(partial(serve, chat.talk, port, host="127.0.0.1"))
        print(f"listening on {server.url}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat: the server, or with NAME and URL one who talks.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("name", nargs="?")
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8080/")
    arguments = parser.parse_args()
    if arguments.name is None:
        trio.run(run_server, arguments.port)
    else:
        trio.run(run_client, arguments.name, arguments.url)
