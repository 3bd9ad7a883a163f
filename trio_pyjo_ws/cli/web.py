"""``demo --web``: one process serves a page and its socket on one port: a chat, and a look into one's own connection.

The page is in ``page/``. What travels is JSON; the types of its messages are the methods of :class:`Person` that take
them, and the calls of ``tell``.
"""

from __future__ import annotations

import itertools
import json
import mimetypes
from collections import deque
from contextlib import suppress
from importlib import resources
from secrets import token_bytes, token_hex
from time import time
from typing import TYPE_CHECKING, Any

import trio

from .. import ConnectionClosed, Frame, Opcode, Response, Transaction
from ..wire.frames import parse_frame
from .serve import serve_until_signal
from .show import preview

if TYPE_CHECKING:
    import argparse

    from ..options import ServerOptions

__all__ = ["Room", "answer", "run"]

SOCKET = "/socket"
ANNOUNCEMENT = f"""\
Open http://{{address}}/ in two windows of a browser. Ctrl-C stops the server.
Its WebSocket is ws://{{address}}{SOCKET}"""

MAX_NAME = 32
MAX_TEXT = 2_000
"""Characters."""

MAX_HISTORY = 50
"""Messages that somebody who comes finds."""

MAX_PREVIEW = 80
"""Characters of a frame's payload that are shown."""

MAX_UNSENT = 32_768
"""Bytes that wait to be written to somebody slow before there is nothing more for them."""

PING_INTERVAL = 2.0
"""Seconds between two measurements of the latency."""

PING_TIMEOUT = 20.0
"""Seconds without a pong after which somebody is gone."""

# The pings of the latency keep the connection alive, and the page shows them all.
OPTIONS: ServerOptions = {
    "compression": True,
    "max_websocket_size": 16_384,
    "ping_interval": None,
    "max_connections": 100,
    "max_message_rate": 5.0,
}

# Nothing but what this process serves, and no script but the page's own: should a message ever get into the page as
# HTML, it could do nothing there.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def _load() -> dict[str, Response]:
    folder = resources.files(__package__) / "page"
    pages = {}
    for name, path in [
        ("index.html", "/"),
        ("page.css", "/page.css"),
        ("page.js", "/page.js"),
        ("icon.svg", "/icon.svg"),
    ]:
        kind = mimetypes.guess_type(name)[0]
        headers = {**HEADERS, "Content-Type": f"{kind}; charset=utf-8"}
        pages[path] = Response(200, headers, (folder / name).read_bytes())
    return pages


PAGES = _load()


def answer(ws: Transaction) -> Response | None:
    """The page, for a plain HTTP request; a WebSocket only for the page itself (RFC 6455, section 10.2)."""
    request = ws.req
    assert request is not None
    if request.path != SOCKET:
        return PAGES.get(request.path) or Response(404, HEADERS, "There is no such page.\n")
    origin = request.headers.get("Origin", "").partition("://")[2]
    return None if origin in ("", request.headers.get("Host")) else Response(403, HEADERS, "This is another page's.\n")


class Room:
    """Who is there, and what was said."""

    def __init__(self) -> None:
        self.name = token_hex(4)  # so that a page knows what it has seen, though the server has begun anew
        self.people: dict[int, Person] = {}
        self.history: deque[dict[str, Any]] = deque(maxlen=MAX_HISTORY)
        self._arrivals = itertools.count(1)
        self._messages = itertools.count(1)

    async def join(self, ws: Transaction) -> None:
        """Handle the connection of somebody who comes."""
        person = Person(self, ws, next(self._arrivals))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.measure)
            try:
                await person.listen()
            finally:
                if self.people.pop(person.number, None) is not None:
                    self.tell_people()
            nursery.cancel_scope.cancel()

    def tell_people(self) -> None:
        """Tell everybody who is there."""
        present = [{"number": person.number, "name": person.name} for person in self.people.values()]
        for person in tuple(self.people.values()):
            person.tell("people", people=present)

    def say(self, person: Person, text: str) -> None:
        """Tell everybody what somebody says."""
        said = {
            "key": f"{self.name}-{next(self._messages)}",
            "number": person.number,
            "name": person.name,
            "text": text,
            "time": round(time() * 1000),
        }
        self.history.append(said)
        for listener in tuple(self.people.values()):
            listener.tell("said", **said)


class Person:
    """Somebody in the room, and the connection."""

    def __init__(self, room: Room, ws: Transaction, number: int) -> None:
        self.number = number
        self.name = f"Guest {number}"
        self._room = room
        self._ws = ws
        ws.on("frame", self._received)

    async def listen(self) -> None:
        """Take what the page sends, until it goes."""
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            async for message in self._ws:
                if not self._take(message):
                    await self._ws.finish(1008, "this is not what the page sends")

    def _take(self, message: str | bytes) -> bool:
        """Do what a message asks for; whether it is one that the page sends."""
        try:
            value = json.loads(message)
        except (ValueError, RecursionError):
            return False
        match value:
            case {"type": "join", "name": str(name)}:
                self._join(name)
            case {"type": "say", "text": str(text)} if self.number in self._room.people:
                if text.strip():
                    self._room.say(self, text.strip()[:MAX_TEXT])
            case _:
                return False
        return True

    def _join(self, name: str) -> None:
        self.name = " ".join(name.split())[:MAX_NAME] or self.name
        if self.number not in self._room.people:
            self._room.people[self.number] = self
            agreed = self._ws.res.headers.get("Sec-WebSocket-Extensions", "")
            self.tell("welcome", number=self.number, history=list(self._room.history), extensions=agreed)
        self._room.tell_people()

    async def measure(self) -> None:
        """Tell the page how long a ping takes, until there is no answer."""
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            while True:
                await trio.sleep(PING_INTERVAL)
                payload = token_bytes(4)
                self._show("sent", Frame(True, False, False, False, Opcode.PING, payload))
                latency = None
                with trio.move_on_after(PING_TIMEOUT):
                    latency = await self._ws.ping(payload)
                if latency is None:
                    await self._ws.finish(1001, "no pong")
                else:
                    self._report({"type": "latency", "milliseconds": latency * 1000})

    def tell(self, kind: str, **more: Any) -> None:
        """Send a message and show its frame. Who does not read gets nothing more until there is room."""
        if not self._has_room():
            return
        buffer = bytearray(self._ws.build_message(json={"type": kind, **more}))
        frame = parse_frame(buffer)
        assert frame is not None
        self._ws.send_nowait(frame=frame)
        self._show("sent", frame)

    def _received(self, _: Transaction, frame: Frame) -> None:
        if frame.opcode != Opcode.CLOSE:  # after which nothing can be told
            self._show("received", frame)

    def _show(self, direction: str, frame: Frame) -> None:
        """Have the page show a frame. Those frames themselves are not shown: there would be no end to it."""
        is_text = frame.opcode == Opcode.TEXT and frame.fin and not frame.rsv1
        payload = frame.payload.decode() if is_text else frame.payload
        self._report(
            {
                "type": "frame",
                "direction": direction,
                "bits": [int(bit) for bit in frame[:4]],
                "opcode": Opcode(frame.opcode).name.lower(),
                "size": len(frame.payload),
                "payload": preview(payload, MAX_PREVIEW),
            }
        )

    def _report(self, message: dict[str, Any]) -> None:
        if self._has_room():
            self._ws.send_nowait(json=message)

    def _has_room(self) -> bool:
        statistics = self._ws.statistics()
        return statistics.state == "open" and statistics.bytes_unsent < MAX_UNSENT


async def run(arguments: argparse.Namespace) -> int:
    """Serve the page until a signal comes, and return the exit status."""
    return await serve_until_signal({SOCKET: Room().join}, arguments, ANNOUNCEMENT, on_request=answer, **OPTIONS)
