from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_pyjo_ws import HandshakeError, Server, Transaction, open_websocket
from trio_pyjo_ws.cli import web

from .test_serve import end_of, get, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .program import Pipes

    StartServer = Callable[..., Awaitable[Server]]


class Visitor:
    """What the page does, without a page."""

    def __init__(self, ws: Transaction) -> None:
        self.ws = ws
        self.reports: list[dict[str, Any]] = []

    async def receive(self, kind: str) -> dict[str, Any]:
        """The next message of this type; reports about the connection are kept aside."""
        with trio.fail_after(10):
            while True:
                message: dict[str, Any] = json.loads(await self.ws.receive())
                if message["type"] == kind:
                    return message
                self.reports.append(message)

    async def join(self, name: str) -> dict[str, Any]:
        await self.ws.send(json={"type": "join", "name": name})
        return await self.receive("welcome")

    async def names(self) -> list[str]:
        return [person["name"] for person in (await self.receive("people"))["people"]]


@pytest.fixture
async def url(start_server: StartServer) -> str:
    server = await start_server({web.SOCKET: web.Room().join}, on_request=web.answer, **web.OPTIONS)
    return f"{str(server.url).rstrip('/')}{web.SOCKET}"


async def test_the_page_and_its_socket_come_from_one_port(pipes: Pipes) -> None:
    announced = r"Open http(://127\.0\.0\.1:\d+/) in two windows of a browser\. Ctrl-C stops the server\."
    async with running(pipes, program=("demo", "--web"), announced=announced) as place:
        url = f"ws{place}"
        assert await pipes.read_line() == f"Its WebSocket is {url}socket"
        answer = await get(url, "/")
        assert answer.startswith(b"HTTP/1.1 200 ")
        async with open_websocket(f"{url}socket") as ws:
            assert (await Visitor(ws).join("Ada"))["number"] == 1


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/", "text/html"),
        ("/?a=b", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
async def test_what_the_page_is_made_of(target: str, kind: str, url: str) -> None:
    answer = (await get(url.removesuffix("socket"), target)).decode()
    assert answer.startswith("HTTP/1.1 200 ")
    assert f"Content-Type: {kind}; charset=utf-8\r\n" in answer
    assert "Content-Security-Policy: default-src 'none'; script-src 'self';" in answer
    assert "X-Content-Type-Options: nosniff\r\n" in answer


@pytest.mark.parametrize("name", ["index.html", "page.css", "page.js"])
def test_nothing_is_fetched_from_elsewhere_and_nothing_runs_inline(name: str) -> None:
    text = next(page.body.decode() for path, page in web.PAGES.items() if path == f"/{name}" or name == "index.html")
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert (
        re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|innerHTML|insertAdjacentHTML|eval\(", text) == []
    )


async def test_what_there_is_not(url: str) -> None:
    assert (await get(url.removesuffix("socket"), "/etc/passwd")).startswith(b"HTTP/1.1 404 ")
    assert (await get(url.removesuffix("socket"), web.SOCKET)).startswith(b"HTTP/1.1 426 ")


async def test_another_site_s_page_is_refused(url: str) -> None:
    with pytest.raises(HandshakeError, match="403"):
        async with open_websocket(url, origin="http://evil.test"):
            pass
    own = url.removeprefix("ws://").removesuffix(web.SOCKET)
    async with open_websocket(url, origin=f"http://{own}") as ws:
        await Visitor(ws).join("Ada")


async def test_a_conversation(url: str) -> None:
    async with open_websocket(url) as first, open_websocket(url) as second:
        ada, grace = Visitor(first), Visitor(second)
        assert (await ada.join("  Ada \n Lovelace "))["history"] == []
        assert await ada.names() == ["Ada Lovelace"]
        await grace.join("")
        assert await grace.names() == ["Ada Lovelace", "Guest 2"]
        assert await ada.names() == ["Ada Lovelace", "Guest 2"]
        await grace.ws.send(json={"type": "join", "name": "G" * 100})
        assert await ada.names() == ["Ada Lovelace", "G" * web.MAX_NAME]
        await ada.ws.send(json={"type": "say", "text": "   "})  # says nothing
        await ada.ws.send(json={"type": "say", "text": " <b>Hello</b> "})
        for visitor in (ada, grace):
            said = await visitor.receive("said")
            assert (said["number"], said["name"], said["text"]) == (1, "Ada Lovelace", "<b>Hello</b>")
        await ada.ws.finish()
        assert await grace.names() == ["G" * web.MAX_NAME]


async def test_who_comes_late_finds_what_was_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_websocket(url) as first, open_websocket(url) as second:
        ada, grace = Visitor(first), Visitor(second)
        await ada.join("Ada")
        for number in range(web.MAX_HISTORY - 2, web.MAX_HISTORY + 2):
            await ada.ws.send(json={"type": "say", "text": f"{number}" + "x" * 3000})
            said = await ada.receive("said")
            assert len(said["text"]) == web.MAX_TEXT
        history = (await grace.join("Grace"))["history"]
        assert [said["text"][:2] for said in history] == ["48", "49", "50", "51"]
        assert history[-1]["key"] == said["key"]


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "[" * 10_000,
        b"\x80",
        "[]",
        '{"type":"nonsense"}',
        '{"type":"join","name":1}',
        '{"type":"say","text":"before joining"}',
    ],
)
async def test_what_the_page_would_not_send_ends_the_connection(message: str | bytes, url: str) -> None:
    async with open_websocket(url) as ws:
        await ws.send(message)
        assert await end_of(ws) == (1008, "this is not what the page sends")


async def test_a_flood_ends_the_connection(url: str) -> None:
    async with open_websocket(url) as ws:
        for _ in range(100):
            ws.send_nowait(json={"type": "join", "name": "Ada"})
        end = await end_of(ws)
        assert end is not None
        assert end.code == 1008  # type: ignore[attr-defined]


async def test_the_frames_of_ones_own_connection_are_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PING_INTERVAL", 0.01)
    async with open_websocket(url, compression=True) as ws:
        visitor = Visitor(ws)
        welcome = await visitor.join("Ada")
        assert welcome["extensions"].startswith("permessage-deflate")
        await visitor.names()
        await ws.send(json={"type": "say", "text": "x" * 200})
        await visitor.receive("said")
        assert (await visitor.receive("latency"))["milliseconds"] > 0
    frames = [message for message in visitor.reports if message["type"] == "frame"]
    assert frames[0] == {
        "type": "frame",
        "direction": "received",
        "bits": [1, 0, 0, 0],
        "opcode": "text",
        "size": 28,
        "payload": '{"type":"join","name":"Ada"}',
    }
    assert frames[1]["payload"].startswith('{"type":"welcome","number":1,')
    compressed = [frame for frame in frames if frame["bits"] == [1, 1, 0, 0]]
    assert {frame["direction"] for frame in compressed} == {"sent", "received"}
    assert all(frame["size"] < 150 and re.match(r"[0-9a-f]{2} ", frame["payload"]) for frame in compressed)
    pings = [frame for frame in frames if frame["opcode"] == "ping"]
    pongs = [frame for frame in frames if frame["opcode"] == "pong"]
    assert pings[0]["payload"] == pongs[0]["payload"]
    assert (pings[0]["direction"], pongs[0]["direction"]) == ("sent", "received")
    # What tells of frames is not told of.
    assert not any('"type":"frame"' in frame["payload"] for frame in frames)


async def test_who_does_not_answer_a_ping_is_gone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PING_INTERVAL", 0.01)
    monkeypatch.setattr(web, "PING_TIMEOUT", 0.0)
    async with open_websocket(url) as ws:
        assert await end_of(ws) == (1001, "no pong")


async def test_who_does_not_read_is_told_nothing_more(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_websocket(url) as ws, open_websocket(url) as other:
        ada, grace = Visitor(ws), Visitor(other)
        await ada.join("Ada")
        monkeypatch.setattr(web, "MAX_UNSENT", 0)
        await ada.ws.send(json={"type": "say", "text": "not told"})
        await ada.ws.ping()
        monkeypatch.undo()
        await grace.join("Grace")
        await ada.ws.send(json={"type": "say", "text": "told"})
        assert (await ada.receive("said"))["text"] == "told"


async def test_a_lost_connection_leaves_the_room(start_server: StartServer) -> None:
    room = web.Room()
    server = await start_server(room.join, close_timeout=0.1)
    stream = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
    async with open_websocket(str(server.url), stream=stream) as ws:
        await Visitor(ws).join("Ada")
        assert [person.name for person in room.people.values()] == ["Ada"]
        await server.aclose()
    assert room.people == {}
