"""The handlers of `serve` as an ASGI application: a host that is a script, a client behind it, and no real time."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
import trio.testing
from httpx_ws import WebSocketDisconnect, aconnect_ws
from httpx_ws.transport import ASGIWebSocketTransport
from starlette.applications import Starlette
from starlette.middleware import Middleware as Mounted
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute

import trio_pyjo_ws
from trio_pyjo_ws import (
    Close,
    ConnectionClosed,
    HandshakeError,
    LocalProtocolError,
    Response,
    Route,
    ServerOptions,
    Transaction,
    asgi,
    broadcast,
    open_rooms,
)
from trio_pyjo_ws.adapters.asgi import OF_THE_HOST, AsgiHandshake, AsgiOptions, _AsgiTransport

from ..cancelling import at_each_pause, run_cancelled
from ..service import echo, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from trio_pyjo_ws.handshake.messages import Request

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

ACCEPT = {"type": "websocket.accept", "subprotocol": None, "headers": []}
DENIAL = {"websocket.http.response": {}}


def scope_of(kind: str = "websocket", path: str = "/", **changed: Any) -> dict[str, Any]:
    """What a host tells of a connection."""
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("192.0.2.7", 1234),
        "server": ("192.0.2.1", 443),
        "subprotocols": [],
        "extensions": DENIAL,
    }
    if kind == "http":
        scope["method"] = "GET"
    return {**scope, **changed}


class Host:
    """An ASGI host with one connection. The test is its client: it `gives` messages, and sees what is `sent`."""

    def __init__(self, app: Any, scope: dict[str, Any] | None = None) -> None:
        self.app = app
        self.scope = scope or scope_of()
        self.asked = 0
        """How often the application has called `receive`."""
        self.sent: list[Any] = []
        """What the application has sent, the messages that were accepted and answered left out."""
        self.takes = trio.Event()
        """Until it is set, `send` waits: the client does not read."""
        self.takes.set()
        self.fails: Exception | None = None
        """What `send` raises."""
        self.ended = trio.Event()
        """The application has returned."""
        self.scope_of_app = trio.CancelScope()
        self._queue, self._events = trio.open_memory_channel[Any](1000)
        self._news = trio.lowlevel.ParkingLot()

    def give(self, *events: dict[str, Any]) -> None:
        for event in events:
            self._queue.send_nowait(event)

    def say(self, *messages: str | bytes) -> None:
        """The client sends messages."""
        for message in messages:
            form = "text" if isinstance(message, str) else "bytes"
            self.give({"type": "websocket.receive", form: message})

    def leave(self, code: Any = 1000, reason: str = "") -> None:
        """The client has left, or has answered a Close."""
        self.give({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def run(self) -> None:
        with self.scope_of_app:
            await self.app(self.scope, self.receive, self.send)
        self.ended.set()

    async def receive(self) -> Any:
        self.asked += 1
        event = await self._events.receive()
        if isinstance(event, Exception):
            raise event
        return event

    async def send(self, event: Any) -> None:
        await trio.lowlevel.checkpoint()
        await self.takes.wait()
        if self.fails is not None:
            raise self.fails
        self.sent.append(event)
        self._news.unpark_all()

    async def see(self) -> Any:
        """The next of what the application sends."""
        with trio.fail_after(1000):
            while not self.sent:
                await self._news.park()
        return self.sent.pop(0)

    async def see_close(self) -> Close:
        """Code and reason of the Close that comes next; the client answers it."""
        event = await self.see()
        assert event.pop("type") == "websocket.close"
        self.leave(event["code"])
        return Close(**event)

    async def hear(self) -> Any:
        """The next message for the client."""
        event = await self.see()
        assert event.pop("type") == "websocket.send", event
        (message,) = event.values()
        return message


async def dial(nursery: trio.Nursery, app: Any, *arguments: Any, **changed: Any) -> Host:
    """A connection that the application has accepted."""
    host = begin(nursery, app, *arguments, **changed)
    accepted = await host.see()
    assert accepted["type"] == "websocket.accept", accepted
    return host


def begin(nursery: trio.Nursery, app: Any, *arguments: Any, **changed: Any) -> Host:
    host = Host(app, scope_of(*arguments, **changed))
    nursery.start_soon(host.run)
    if host.scope["type"] == "websocket":
        host.give({"type": "websocket.connect"})
    return host


async def ask(app: Any, *arguments: Any, **changed: Any) -> list[Any]:
    """All that the application sends to a request that it does not accept."""
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            host = begin(nursery, app, *arguments, **changed)
    return host.sent


def keeping(kept: list[Any]) -> Any:
    """A handler that keeps its transaction, and how it ended."""

    async def handler(ws: Transaction) -> None:
        kept.append(ws)
        try:
            async for message in ws:
                kept.append(message)  # noqa: PERF401 - what was received before an error counts
        except Exception as exc:
            kept.append(exc)
            raise
        kept.append("end")

    return handler


# Messages


async def test_messages_go_both_ways(nursery: trio.Nursery) -> None:
    host = await dial(nursery, asgi(echo))
    for message in ["text", "", "\u20ac\U0001f600", b"\0\xff", b"", "x" * 70_000, b"y" * 200_000]:
        host.say(message)
        assert await host.hear() == message


async def test_many_messages_of_one_turn_keep_their_order(nursery: trio.Nursery) -> None:
    host = await dial(nursery, asgi(echo))
    messages = [str(number) for number in range(900)]
    host.say(*messages)
    assert [await host.hear() for _ in messages] == messages


async def test_more_messages_than_the_border_looks_at_in_one_step(nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        host.takes = trio.Event()
        for number in range(3000):
            ws.send_nowait(str(number))
        host.takes.set()
        await ws.drain()
        await ws.receive()

    host = Host(asgi(handler))
    nursery.start_soon(host.run)
    host.give({"type": "websocket.connect"})
    assert await host.see() == ACCEPT
    assert [await host.hear() for _ in range(3000)] == [str(number) for number in range(3000)]


async def test_a_message_in_pieces_goes_as_one(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def pieces() -> Any:
        for piece in ("a", "b\u20ac", "", "c"):
            yield piece
            await trio.sleep(1)

    async def handler(ws: Transaction) -> None:
        await ws.send(text=pieces())
        await ws.receive()

    host = await dial(nursery, asgi(handler))
    assert await host.hear() == "ab\u20acc"


async def test_a_message_is_received_in_pieces_though_it_is_over_the_limit(nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        async with ws.receive_stream() as message:
            received = [piece async for piece in message]
        await ws.send(f"{message.kind} {len(b''.join(received))}")  # type: ignore[arg-type]
        await ws.receive()

    host = await dial(nursery, asgi(handler, max_websocket_size=1000))
    host.say(b"x" * 5000)
    assert await host.hear() == "binary 5000"


async def test_channels_callbacks_json_and_broadcast(nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        ws.on("binary", lambda ws, data: ws.send_nowait(data.upper()))
        async with ws.open_channel("json") as channel:
            async for value in channel:
                await ws.send(json=[value])
                await broadcast(app.connections, "to all")

    app = asgi(handler)
    one, another = await dial(nursery, app), await dial(nursery, app)
    one.say('{"a": 1}')
    assert await one.hear() == '[{"a":1}]'
    assert await one.hear() == await another.hear() == "to all"
    another.say(b"data")
    assert await another.hear() == b"DATA"


async def test_members_of_a_room_get_one_order_until_their_connection_ends(nursery: trio.Nursery) -> None:
    async with open_rooms() as rooms:

        async def chat(ws: Transaction) -> None:
            assert ws.req is not None
            async with rooms.join("chat", ws, who=ws.req.query_parameters["who"]) as room:
                async for message in ws:
                    await room.publish(message)

        app = asgi(chat)
        one, another, third = [await dial(nursery, app, query_string=b"who=" + who) for who in (b"anna", b"bert", b"c")]
        await trio.testing.wait_all_tasks_blocked()
        assert await rooms.who("chat") == {"anna", "bert", "c"}
        for number in range(100):
            one.say(f"anna {number}")
            another.say(f"bert {number}")
        whole = [await one.hear() for _ in range(200)]
        assert [await host.hear() for host in (another, third) for _ in range(200)] == 2 * whole
        for who in ("anna", "bert"):
            assert [message for message in whole if message.startswith(who)] == [f"{who} {n}" for n in range(100)]
        one.leave()  # as a client that closes
        await one.ended.wait()
        third.leave(1006)  # as a client that is lost
        await third.ended.wait()
        assert await rooms.who("chat") == {"bert"}
        another.say("alone")
        assert await another.hear() == "alone"
        another.scope_of_app.cancel()  # as a host that ends
        await another.ended.wait()
        assert await rooms.who("chat") == set()
        assert rooms.statistics()[:4] == (0, 0, 201, 601)
        assert one.sent == third.sent == []


async def test_a_member_of_a_room_whose_host_does_not_send_is_closed(nursery: trio.Nursery) -> None:
    async with open_rooms() as rooms:

        async def chat(ws: Transaction) -> None:
            async with rooms.join("chat", ws):
                await ws.receive()

        app = asgi(chat, write_limit=1000)
        slow, quick = await dial(nursery, app), await dial(nursery, app)
        await trio.testing.wait_all_tasks_blocked()
        slow.takes = trio.Event()
        messages = [f"{number} {'x' * 500}" for number in range(10)]
        for message in messages:
            await rooms.publish("chat", message)
            assert await quick.hear() == message
        slow.takes.set()
        got = []
        while (event := await slow.see())["type"] == "websocket.send":
            got.append(event["text"])
        assert 0 < len(got) < 10
        assert got == messages[: len(got)]
        assert event == {"type": "websocket.close", "code": 1013, "reason": "too slow"}


async def test_what_has_been_sent_is_told(nursery: trio.Nursery) -> None:
    told: list[str] = []

    async def handler(ws: Transaction) -> None:
        ws.on("drain", lambda _: told.append("drain"))
        await ws.send("message", cb=lambda _: told.append("sent"))
        await ws.drain()
        await ws.receive()

    host = await dial(nursery, asgi(handler))
    assert await host.hear() == "message"
    assert told == ["sent", "drain"]


async def test_statistics(nursery: trio.Nursery) -> None:
    kept: list[Any] = []
    app = asgi(keeping(kept))
    assert repr(app) == "<Application connections=0>"
    host = await dial(nursery, app)
    host.say("hello")
    await trio.testing.wait_all_tasks_blocked()
    ws, _ = kept
    assert app.connections == {ws}
    assert repr(app) == "<Application connections=1>"
    assert ws.statistics().messages_received == 1
    assert app.statistics().connections_open == app.statistics().connections_accepted == 1
    host.leave()
    await host.ended.wait()
    assert app.statistics().messages_received == 1


# The request


async def test_a_transaction_knows_its_request(nursery: trio.Nursery) -> None:
    kept: list[Any] = []

    def on_request(ws: Transaction) -> Response:
        ws.user = "anna"
        return Response(101, {"X-Trace": "1"})

    app = asgi({"/chat/{room}": keeping(kept)}, on_request=on_request, subprotocols=["v2", "v1"])
    headers = [(b"host", b"test"), (b"cookie", b"a=\xe9"), (b"sec-websocket-protocol", b"v1, v2")]
    host = begin(nursery, app, path="/chat/lounge", query_string=b"a=1&b=%20", headers=headers, scheme="wss")
    assert await host.see() == {"type": "websocket.accept", "subprotocol": "v2", "headers": [(b"x-trace", b"1")]}
    await trio.testing.wait_all_tasks_blocked()
    (ws,) = kept
    assert ws.req.method == "GET"
    assert ws.req.target == "/chat/lounge?a=1&b=%20"
    assert ws.req.path_parameters == {"room": "lounge"}
    assert ws.req.query_parameters == {"a": "1", "b": " "}
    assert ws.req.headers["Cookie"] == "a=\xe9"
    assert ws.req.headers["Upgrade"] == "websocket"
    assert ws.res.headers == {"X-Trace": "1"}
    assert ws.protocol == "v2"
    assert ws.user == "anna"
    assert (ws.remote_address, ws.remote_port) == ("192.0.2.7", 1234)
    assert (ws.local_address, ws.local_port) == ("192.0.2.1", 443)
    assert not ws.compressed
    assert isinstance(ws.handshake, AsgiHandshake)
    assert ws.handshake.scope["scheme"] == "wss"


async def test_a_client_without_an_address(nursery: trio.Nursery) -> None:
    kept: list[Any] = []
    app = asgi(keeping(kept))
    await dial(nursery, app, client=None, server=("/run/socket", None))
    await trio.testing.wait_all_tasks_blocked()
    (ws,) = kept
    assert (ws.remote_address, ws.remote_port) == (None, None)
    assert (ws.local_address, ws.local_port) == ("/run/socket", None)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"path": "/a b", "raw_path": b"/a%20b"}, "/a%20b"),
        ({"path": "/a/b", "raw_path": b"/a%2Fb"}, "/a%2Fb"),
        ({"path": "/a", "raw_path": b"/a?query"}, "/a"),
        ({"path": "/\u20ac", "raw_path": None}, "/%E2%82%AC"),
        ({"path": "/a/b;c=d:e"}, "/a/b;c=d:e"),
        # mounted
        ({"path": "/app/a", "root_path": "/app"}, "/a"),
        ({"path": "/app/a", "root_path": "/app/"}, "/a"),
        ({"path": "/app", "root_path": "/app"}, "/"),
        ({"path": "/app/", "root_path": "/app"}, "/"),
        ({"path": "/one two/b/a", "raw_path": b"/one%20two/b/a%20", "root_path": "/one two/b"}, "/a"),
        ({"path": "/one two/a ", "raw_path": b"/one%20two/a%20", "root_path": "/one two"}, "/a%20"),
        ({"path": "/a", "raw_path": b"/app/a", "root_path": "/app"}, "/a"),  # the mount has changed the path alone
        ({"path": "/application/a", "root_path": "/app"}, "/application/a"),
        ({"path": "/a", "root_path": "/app/deep"}, "/a"),
        ({"path": "", "raw_path": b""}, "/"),
    ],
)
async def test_the_path_is_as_it_was_sent_without_that_of_the_mount(
    nursery: trio.Nursery, told: dict[str, Any], expected: str
) -> None:
    kept: list[Any] = []
    await dial(nursery, asgi(keeping(kept)), **{"raw_path": told["path"].encode(), **told})
    await trio.testing.wait_all_tasks_blocked()
    assert kept[0].req.target == expected


async def test_no_subprotocol_that_the_client_does_not_offer(nursery: trio.Nursery) -> None:
    host = begin(nursery, asgi(echo, subprotocols=["v2"]))
    assert await host.see() == ACCEPT


# Refusals


def denial(status: int, body: bytes, *headers: tuple[bytes, bytes], kind: str = "websocket.http.response") -> list[Any]:
    """What the application sends in place of accepting, with a body of text."""
    text = [(b"content-type", b"text/plain; charset=utf-8")]
    length = [(b"content-length", str(len(body)).encode())]
    return [
        {"type": f"{kind}.start", "status": status, "headers": [*headers, *text, *length]},
        {"type": f"{kind}.body", "body": body},
    ]


async def test_a_response_of_on_request_refuses(nursery: trio.Nursery) -> None:
    refused = Response(401, {"X-Why": "because", "Connection": "close", "Content-Length": "99"}, "go away")
    app = asgi(never, on_request=lambda _: refused)
    assert await ask(app) == denial(401, b"go away", (b"x-why", b"because"))
    assert await ask(app, "http") == denial(401, b"go away", (b"x-why", b"because"), kind="http.response")


async def test_a_host_without_responses_for_websockets_closes(nursery: trio.Nursery) -> None:
    app = asgi(never, on_request=lambda _: Response(401))
    for extensions in ({}, None):
        (event,) = await ask(app, extensions=extensions)
        assert event == {"type": "websocket.close", "code": 1008, "reason": "HTTP 401"}


async def test_a_path_without_a_route_gets_404(nursery: trio.Nursery) -> None:
    assert await ask(asgi({"/chat": never}), path="/nowhere") == denial(404, b"not found\n")
    assert await ask(asgi({"/chat": never}), "http") == denial(404, b"not found\n", kind="http.response")


async def test_plain_http_gets_426(nursery: trio.Nursery) -> None:
    start, body = await ask(asgi(never), "http")
    assert start["status"] == 426
    assert start["headers"][-2:] == [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    assert body["body"] == b"expected a WebSocket\n"
    start, _ = await ask(asgi(never), "http", http_version="2")  # whose headers have no such names
    assert start["status"] == 426
    assert {name for name, _ in start["headers"]} == {b"content-type", b"content-length"}


async def test_plain_http_by_another_method_gets_405(nursery: trio.Nursery) -> None:
    start, _ = await ask(asgi(never), "http", method="POST")
    assert start["status"] == 405
    assert (b"allow", b"GET") in start["headers"]


async def test_plain_http_is_for_on_request_to_answer(nursery: trio.Nursery) -> None:
    def on_request(ws: Transaction) -> Response | None:
        assert ws.req is not None
        return Response(200, body=b"ok") if ws.req.path == "/health" else None

    app = asgi(never, on_request=on_request, origins=["https://example.org"])
    start, body = await ask(app, "http", path="/health")
    assert (start["status"], body["body"]) == (200, b"ok")


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_response_that_has_no_body(status: int) -> None:
    app = asgi(never, on_request=lambda _: Response(status, body=b"nothing"))
    assert await ask(app, "http") == [
        {"type": "http.response.start", "status": status, "headers": []},
        {"type": "http.response.body", "body": b""},
    ]


async def test_another_origin_gets_403() -> None:
    app = asgi(echo, origins=["https://example.org"])
    start, _ = await ask(app, headers=[(b"host", b"test"), (b"origin", b"https://example.com")])
    assert start["status"] == 403
    start, _ = await ask(app)
    assert start["status"] == 403


async def test_the_origins_that_are_given_get_in(nursery: trio.Nursery) -> None:
    app = asgi(echo, origins=["https://example.org"])
    await dial(nursery, app, headers=[(b"host", b"test"), (b"origin", b"https://example.org")])


@pytest.mark.parametrize(
    "told",
    [
        {"headers": [(b"host", b"test"), (b"na me", b"value")]},
        {"headers": [(b"host", b"test"), (b"name", b"va\nlue")]},
        {"headers": [(b"host", b"test"), (b"sec-websocket-protocol", b"no token")]},
        {"query_string": b"a b"},
        {"query_string": b"\xff"},
    ],
    ids=repr,
)
async def test_what_the_host_has_let_through_and_is_malformed_gets_400(told: dict[str, Any]) -> None:
    start, _ = await ask(asgi(never), **told)
    assert start["status"] == 400


async def test_a_client_that_leaves_before_it_is_accepted(errors: Callable[[], list[str]]) -> None:
    host = Host(asgi(never))
    host.leave(1006)
    await host.run()
    assert host.sent == []
    assert errors() == []


async def test_a_host_that_fails_in_the_handshake(errors: Callable[[], list[str]]) -> None:
    host = Host(asgi(never))
    host.give(OSError("gone"))  # type: ignore[arg-type]
    await host.run()
    host = Host(asgi(never))
    host.give({"type": "websocket.connect"})
    host.fails = OSError("gone")
    await host.run()
    assert host.sent == errors() == []


@pytest.mark.parametrize(("raised", "count"), [(OSError("gone"), 0), (RuntimeError("not allowed"), 1)])
async def test_a_fault_of_the_host_is_logged(caplog: pytest.LogCaptureFixture, raised: Exception, count: int) -> None:
    caplog.set_level(logging.INFO)
    host = Host(asgi(never))
    host.give({"type": "websocket.connect"})
    host.fails = raised
    await host.run()
    records = [record for record in caplog.records if record.exc_info and record.exc_info[1] is raised]
    assert len(records) == count


async def test_on_request_has_its_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def on_request(_: Transaction) -> None:
        await trio.sleep_forever()

    host = begin(nursery, asgi(never, on_request=on_request, open_timeout=5))
    await host.ended.wait()
    assert trio.current_time() == 5
    assert host.sent == []  # The host answers with 500.


async def test_limits(nursery: trio.Nursery) -> None:
    app = asgi(echo, max_connections=2, max_connections_per_address=1)
    one = await dial(nursery, app)
    start, _ = await ask(app)
    assert start["status"] == 429
    await dial(nursery, app, client=("192.0.2.8", 1))
    start, _ = await ask(app, client=("192.0.2.9", 1))
    assert start["status"] == 503
    one.leave()
    await one.ended.wait()
    await dial(nursery, app)


async def test_the_client_behind_a_proxy(nursery: trio.Nursery) -> None:
    kept: list[Any] = []
    headers = [(b"host", b"test"), (b"x-forwarded-for", b"198.51.100.9")]
    await dial(nursery, asgi(keeping(kept), trusted_proxies=["192.0.2.7"]), headers=headers)
    await trio.testing.wait_all_tasks_blocked()
    assert kept[0].remote_address == "198.51.100.9"
    assert kept[0].original_remote_address == "192.0.2.7"


async def test_a_client_that_is_silent_or_says_too_much(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    app = asgi(echo, idle_timeout=60, max_message_rate=1)
    host = await dial(nursery, app)
    assert (await host.see_close()).code == 1001
    assert trio.current_time() == 60
    host = await dial(nursery, app)
    host.say(*["message"] * 20)
    while (event := await host.see())["type"] == "websocket.send":
        pass
    assert event["code"] == 1008


def test_an_accept_that_cannot_be() -> None:
    handshake = AsgiHandshake(scope_of())
    handshake.request = trio_pyjo_ws.Request("GET", "/")
    with pytest.raises(ValueError, match="must be one that the client offered, not 'v1'"):
        handshake.accept(subprotocol="v1")
    with pytest.raises(ValueError, match="header Upgrade is set by the handshake"):
        handshake.accept(headers={"Upgrade": "other"})
    with pytest.raises(ValueError, match="status must be 200 to 599, not 101"):
        handshake.refuse(Response(101))
    assert handshake.response is None


def test_the_host_reads_the_handshake() -> None:
    handshake = AsgiHandshake(scope_of())
    with pytest.raises(LocalProtocolError, match="the ASGI host has read the request"):
        handshake.read(b"GET / HTTP/1.1\r\n")
    with pytest.raises(HandshakeError, match="the client closed the connection"):
        handshake.read_eof()


# Closing


async def test_a_handler_that_returns_closes_with_1000(nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        await ws.send("bye")

    host = await dial(nursery, asgi(handler))
    assert await host.hear() == "bye"
    assert await host.see() == {"type": "websocket.close", "code": 1000, "reason": ""}
    assert not host.ended.is_set()  # The host has the client's answer to wait for, and tells of it.
    host.leave()
    await host.ended.wait()


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (4001, Close(4001, "enough")),
        (1000, Close(4001, "enough")),  # A host that does not know the client's answer says so,
        (1005, Close(4001, "enough")),  # or so.
        (4002, Close(4002)),
        (1006, Close(1006, "the connection was lost without a closing handshake")),
    ],
)
async def test_finish_returns_how_it_ended(nursery: trio.Nursery, answer: int, ended: Close) -> None:
    found: list[Any] = []

    async def handler(ws: Transaction) -> None:
        found.append(await ws.finish(4001, "enough"))

    host = await dial(nursery, asgi(handler))
    assert await host.see() == {"type": "websocket.close", "code": 4001, "reason": "enough"}
    host.leave(answer)
    await host.ended.wait()
    assert found == [ended]


async def test_a_close_without_a_code(nursery: trio.Nursery) -> None:
    found: list[Any] = []

    async def handler(ws: Transaction) -> None:
        found.append(await ws.finish())

    host = await dial(nursery, asgi(handler))
    assert await host.see_close() == Close(1000)  # ASGI has no other.
    await host.ended.wait()
    assert found == [Close(1005)]


async def test_what_comes_before_the_answer_to_a_close_is_received(nursery: trio.Nursery) -> None:
    found: list[Any] = []

    async def handler(ws: Transaction) -> None:
        await ws.finish()
        found.append(ws.receive_nowait())

    host = await dial(nursery, asgi(handler))
    await host.see()
    host.say("late")
    host.leave()
    await host.ended.wait()
    assert found == ["late"]


async def test_a_client_that_does_not_answer_the_close(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    found: list[Any] = []

    async def handler(ws: Transaction) -> None:
        found.append(await ws.finish(4001))

    host = await dial(nursery, asgi(handler, close_timeout=3))
    await host.ended.wait()
    assert found[0].code == 1006
    assert trio.current_time() == 3


@pytest.mark.parametrize(
    "event", [{"code": 1000}, {"code": 1001, "reason": "away"}, {"code": 1005}, {"code": None}, {}], ids=repr
)
async def test_a_client_that_leaves_normally_ends_the_loop(
    nursery: trio.Nursery, errors: Callable[[], list[str]], event: dict[str, Any]
) -> None:
    kept: list[Any] = []
    host = await dial(nursery, asgi(keeping(kept)))
    host.say("last")
    host.give({"type": "websocket.disconnect", **event})
    await host.ended.wait()
    ws, *received = kept
    assert received == ["last", "end"]
    assert ws.closed == Close(event.get("code") or 1005, event.get("reason", ""))
    assert host.sent == errors() == []


LOST = Close(1006, "the connection was lost without a closing handshake")


@pytest.mark.parametrize(
    ("code", "reason", "ended"),
    [
        (4000, "why", Close(4000, "why")),
        (1011, None, Close(1011)),
        (4000, "\u20ac" * 99, Close(4000, "\u20ac" * 41)),
        (4000, "\udc80", Close(4000, "?")),
        (1006, "", LOST),
        # what no host should say
        (1015, "", LOST),
        (999, "", LOST),
        ("1000", "", LOST),
    ],
)
async def test_a_client_that_leaves_otherwise(
    nursery: trio.Nursery, errors: Callable[[], list[str]], code: Any, reason: Any, ended: Close
) -> None:
    kept: list[Any] = []
    host = await dial(nursery, asgi(keeping(kept)))
    host.leave(code, reason)
    await host.ended.wait()
    ws, error = kept
    assert isinstance(error, ConnectionClosed)
    assert error.close == ws.closed == ended
    assert host.sent == errors() == []


async def test_a_message_over_the_limit_closes_with_1009(nursery: trio.Nursery) -> None:
    kept: list[Any] = []
    host = await dial(nursery, asgi(keeping(kept), max_websocket_size=1000))
    host.say("x" * 1000, "x" * 1001)
    assert (await host.see_close()).code == 1009
    await host.ended.wait()
    _, message, error = kept
    assert len(message) == 1000
    assert error.close.code == 1009


async def test_text_with_a_lone_surrogate_closes_with_1007(nursery: trio.Nursery) -> None:
    kept: list[Any] = []
    host = await dial(nursery, asgi(keeping(kept)))
    host.say("a\udc80b")
    assert (await host.see_close()).code == 1007
    await host.ended.wait()
    assert kept[1].close.code == 1007


@pytest.mark.parametrize(
    "given",
    [
        {"type": "websocket.receive", "text": None, "bytes": None},
        {"type": "websocket.receive", "text": 5},
        {"type": "websocket.connect"},
        OSError("gone"),
    ],
    ids=repr,
)
async def test_a_host_that_fails_loses_the_connection(nursery: trio.Nursery, given: Any) -> None:
    kept: list[Any] = []
    host = await dial(nursery, asgi(keeping(kept)))
    host.give(given)
    await host.ended.wait()
    assert kept[1].close == LOST


async def send_for_ever(ws: Transaction) -> None:
    while True:
        await ws.send("more")
        await trio.lowlevel.checkpoint()


async def test_a_host_that_does_not_send_loses_the_connection(nursery: trio.Nursery) -> None:
    found: list[Any] = []

    async def handler(ws: Transaction) -> None:
        host.fails = OSError("gone")
        with pytest.raises(ConnectionClosed):
            await send_for_ever(ws)
        found.append(await ws.receive())
        await ws.receive()

    host = Host(asgi(handler))
    nursery.start_soon(host.run)
    host.give({"type": "websocket.connect"})
    await host.see()
    host.say("what had come before")
    await trio.testing.wait_all_tasks_blocked()
    host.leave(1006)
    await host.ended.wait()
    assert found == ["what had come before"]


async def test_what_is_sent_to_a_client_that_has_left_goes_nowhere(nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        host.takes = trio.Event()
        await ws.send("never taken")
        async for _ in ws:
            await ws.send("x" * 100_000)

    host = Host(asgi(handler))
    nursery.start_soon(host.run)
    host.give({"type": "websocket.connect"})
    await host.see()
    host.say("message")
    host.leave()
    await host.ended.wait()
    assert host.sent == []


# Faults


async def test_a_handler_that_raises_closes_with_1011(nursery: trio.Nursery, errors: Callable[[], list[str]]) -> None:
    async def handler(ws: Transaction) -> None:
        if await ws.receive() == "alone":
            raise ValueError("fault")
        raise BaseExceptionGroup("faults", [ValueError("one"), ExceptionGroup("", [KeyError("other")])])

    app = asgi({"/": handler, "/echo": echo})
    neighbour = await dial(nursery, app, path="/echo")
    for said in ("alone", "together"):
        host = await dial(nursery, app)
        host.say(said)
        assert await host.see_close() == Close(1011)
        await host.ended.wait()
    assert [error.partition("failed: ")[2][:12] for error in errors()] == ["ValueError('", "ExceptionGro"]
    neighbour.say("alive")
    assert await neighbour.hear() == "alive"


async def test_hooks_and_routers_that_raise_get_500(nursery: trio.Nursery, errors: Callable[[], list[str]]) -> None:
    class Router:
        def route(self, request: Request, /) -> Any:
            if request.path == "/router":
                raise ValueError("router")
            return Route(echo, {})

    def on_request(ws: Transaction) -> Any:
        assert ws.req is not None
        if ws.req.path == "/hook":
            raise ValueError("hook")
        return "no response" if ws.req.path == "/type" else Response(101, {"Connection": "mine"})

    neighbour = await dial(nursery, asgi(Router()))
    app = asgi(Router(), on_request=on_request)
    for path in ("/router", "/hook", "/type", "/header"):
        start, _ = await ask(app, path=path)
        assert start["status"] == 500
    assert len(errors()) == 4
    neighbour.say("alive")
    assert await neighbour.hear() == "alive"


async def test_a_callback_that_raises_closes_with_1011(nursery: trio.Nursery, errors: Callable[[], list[str]]) -> None:
    async def later(_: Transaction, message: str) -> None:
        raise ValueError(message)

    def at_once(_: Transaction, message: str) -> None:
        raise ValueError(message)

    async def handler(ws: Transaction) -> None:
        ws.on("message", later if ws.req and ws.req.path == "/later" else at_once)
        await trio.sleep_forever()

    app = asgi(handler)
    for path in ("/later", "/at-once"):
        host = await dial(nursery, app, path=path)
        host.say("fault")
        assert await host.see_close() == Close(1011)
        await host.ended.wait()
    assert [error.rpartition("failed: ")[2] for error in errors()] == ["ValueError('fault')"] * 2


async def test_what_is_no_fault_of_the_connection_comes_out() -> None:
    async def handler(_: Transaction) -> None:
        raise KeyboardInterrupt

    host = Host(asgi(handler))
    host.give({"type": "websocket.connect"})
    with pytest.raises(BaseExceptionGroup) as caught:
        await host.run()
    assert caught.value.split(KeyboardInterrupt)[1] is None


# Back pressure


async def test_a_slow_handler_stops_reading(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    received: list[Any] = []
    go_on = trio.Event()

    async def handler(ws: Transaction) -> None:
        received.append(await ws.receive())
        await go_on.wait()
        received.extend([message async for message in ws])

    host = await dial(nursery, asgi(handler, max_queue=3))
    messages = [str(number) for number in range(100)]
    host.say(*messages)
    await trio.sleep(10)
    # websocket.connect, what is received, what is kept, and one message at the border.
    assert host.asked == 1 + 1 + 3 + 1
    go_on.set()
    host.leave()
    await host.ended.wait()
    assert received == messages


async def test_a_slow_client_stops_the_handler(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    sent: list[int] = []

    async def handler(ws: Transaction) -> None:
        for number in range(100):
            await ws.send(number.to_bytes(1, "big") * 10_000)
            sent.append(number)

    host = await dial(nursery, asgi(handler))
    host.takes = trio.Event()
    await trio.sleep(10)
    # What the host was given, and what is behind it: each some 64 KiB, and one message more.
    assert len(sent) < 20
    host.takes.set()
    assert [(await host.hear())[0] for _ in range(100)] == list(range(100))
    assert await host.see_close() == Close(1000)


async def test_nothing_waits_for_send_nowait(nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        host.takes = trio.Event()
        ws.send_nowait("first")
        await trio.testing.wait_all_tasks_blocked()
        ws.send_nowait(b"x" * 20_000)
        with pytest.raises(trio.WouldBlock):
            ws.send_nowait("more")
        assert ws.is_writing
        host.takes.set()
        await ws.drain()
        ws.send_nowait("last")

    host = Host(asgi(handler, write_limit=10_000))
    nursery.start_soon(host.run)
    host.give({"type": "websocket.connect"})
    assert await host.see() == ACCEPT
    assert [await host.hear(), len(await host.hear()), await host.hear()] == ["first", 20_000, "last"]


# Cancellation


async def test_a_send_that_is_cancelled_is_whole_or_nothing(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The client reads nothing for a while; the handler gives up each message after a second, and goes on."""
    sent: list[str] = []
    cancelled: list[bool] = []

    async def handler(ws: Transaction) -> None:
        for number in range(20):
            with trio.move_on_after(1) as scope:
                await ws.send(chr(ord("a") + number) * 20_000)
            cancelled.append(scope.cancelled_caught)
        await ws.send("end")

    host = await dial(nursery, asgi(handler))
    host.takes = trio.Event()
    await trio.sleep(100)
    host.takes.set()
    while (message := await host.hear()) != "end":
        sent.append(message)
    assert cancelled.count(True) > 10
    assert [message[:1] * 20_000 for message in sent] == sent
    assert [ord(message[0]) for message in sent] == sorted({ord(message[0]) for message in sent})
    assert await host.see_close() == Close(1000)


async def test_a_receive_that_is_cancelled_loses_nothing(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    received: list[Any] = []

    async def handler(ws: Transaction) -> None:
        while len(received) < 10:
            with trio.move_on_after(1):
                received.append(await ws.receive())

    host = await dial(nursery, asgi(handler))
    for number in range(10):
        host.say(str(number))
        await trio.sleep(number * 0.7)
    assert await host.see_close() == Close(1000)
    assert received == [str(number) for number in range(10)]


async def test_a_host_that_cancels_ends_all(autojump_clock: MockClock) -> None:
    """At each pause of any task: nothing hangs, and nothing is left."""

    async def handler(ws: Transaction) -> None:
        ws.on("text", send)
        async with ws.open_channel("binary") as channel:
            async for data in channel:
                await ws.send(data)

    async def send(ws: Transaction, text: bytes) -> None:
        await ws.send(text.decode())

    app = asgi(handler)

    async def converse() -> None:
        async with trio.open_nursery() as nursery:
            host = await dial(nursery, app)
            host.say("text", b"data")
            assert {await host.hear(), await host.hear()} == {"text", b"data"}
            host.leave()

    async def attempt(pause: int) -> bool:
        ended = await run_cancelled(pause, converse, any_task=True)
        assert app.statistics().connections_open == app.statistics().connections_opening == 0
        return ended

    assert await at_each_pause(attempt) > 10


async def test_an_aclose_that_is_cancelled_has_sent_its_close(nursery: trio.Nursery) -> None:
    scope = trio.CancelScope()

    async def handler(ws: Transaction) -> None:
        with scope:
            await ws.aclose()
        assert ws.is_finished

    app = asgi(handler)
    host = begin(nursery, app)
    assert await host.see() == ACCEPT
    host.takes = trio.Event()
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert not app.connections
    assert not host.ended.is_set()  # The host is taking the Close, and is not interrupted.
    host.takes.set()
    assert await host.see() == {"type": "websocket.close", "code": 1000, "reason": ""}
    await host.ended.wait()


async def test_a_client_that_reads_nothing_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        await ws.send("never taken")
        if ws.req and ws.req.path == "/abandoned":
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.aclose()

    for path in ("/closed", "/abandoned"):
        host = await dial(nursery, asgi(handler, close_timeout=3), path=path)
        host.takes = trio.Event()
        began = trio.current_time()
        await host.ended.wait()
        assert trio.current_time() == began + 3
        assert host.sent == []


# What ASGI does not have


async def test_what_asgi_does_not_have_is_an_error_at_the_call(nursery: trio.Nursery) -> None:
    def on_request(ws: Transaction) -> None:
        with pytest.raises(RuntimeError, match="no compression under ASGI"):
            ws.with_compression()

    async def handler(ws: Transaction) -> None:
        with pytest.raises(RuntimeError, match="no pings under ASGI, which carries whole messages: the host does that"):
            await ws.ping()
        for send in (ws.pong(), ws.send(frame=[1, 0, 0, 0, 9, b""])):
            with pytest.raises(RuntimeError, match="no frames under ASGI"):
                await send
        with pytest.raises(RuntimeError, match="no frames under ASGI"):
            ws.send_nowait(frame=[1, 0, 0, 0, 9, b""])
        for subscribe in (ws.on, ws.once):
            with pytest.raises(RuntimeError, match="no frame events under ASGI"):
                subscribe("frame", print)
        with pytest.raises(RuntimeError, match="no frame events under ASGI"):
            ws.open_channel("frame")
        assert not ws.has_subscribers("frame")
        with pytest.raises(RuntimeError, match="no masking under ASGI"):
            ws.masked = True
        with pytest.raises(ValueError, match="messages cannot be compressed"):
            ws.compressed = True
        with pytest.raises(ValueError, match="messages cannot be compressed"):
            await ws.send("message", compress=True)
        await ws.send("still open")

    host = await dial(nursery, asgi(handler, on_request=on_request))
    assert await host.hear() == "still open"
    assert await host.see_close() == Close(1000)


@pytest.mark.parametrize("name", sorted(OF_THE_HOST))
def test_what_is_the_hosts_is_no_option(name: str) -> None:
    with pytest.raises(TypeError, match=rf"asgi\(\) does not take '{name}': that is the ASGI host's"):
        asgi(echo, **{name: None})


def test_the_proxy_protocol_is_the_hosts_too() -> None:
    with pytest.raises(TypeError, match=r"asgi\(\) does not take proxy_header='PROXY'"):
        asgi(echo, proxy_header="PROXY")


def annotations(options: Any) -> dict[str, Any]:
    """The options that are named there, and as which types."""
    named = options.__annotations__  # with those of what it is derived from
    return {name: kind.__forward_arg__ for name, kind in named.items()}


def test_the_options_are_those_of_a_server_but_for_the_hosts() -> None:
    of_a_server = annotations(ServerOptions)
    assert annotations(AsgiOptions) == {name: of_a_server[name] for name in of_a_server if name not in OF_THE_HOST}


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(TypeError, match="handler must be an async function"):
        asgi(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_queue must be at least 1, not 0"):
        asgi(echo, max_queue=0)
    with pytest.raises(TypeError, match=r"unknown option 'max_quee' \(did you mean 'max_queue'\?\)"):
        asgi(echo, max_quee=1)  # type: ignore[call-arg]


# The host


async def test_the_lifespan_of_a_host_on_trio(nursery: trio.Nursery) -> None:
    host = Host(asgi(echo), {"type": "lifespan"})
    nursery.start_soon(host.run)
    host.give({"type": "lifespan.startup"})
    assert await host.see() == {"type": "lifespan.startup.complete"}
    host.give({"type": "lifespan.shutdown"})
    assert await host.see() == {"type": "lifespan.shutdown.complete"}
    await host.ended.wait()


def outside_of_trio(scope: dict[str, Any]) -> list[Any]:
    """What the application sends where no loop, or another, runs. It must not come so far as to wait."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": f"{scope['type']}.startup"}

    async def send(event: Any) -> None:
        sent.append(event)

    running = asgi(echo)(scope, receive, send)
    with pytest.raises(
        RuntimeError, match=r"runs on trio, such as `anycorn --worker-class trio` or `hypercorn -k trio`"
    ):
        running.send(None)
    return sent


def test_another_loop_fails_at_startup() -> None:
    (event,) = outside_of_trio({"type": "lifespan"})
    assert event["type"] == "lifespan.startup.failed"
    assert "anycorn" in event["message"]


def test_another_loop_fails_at_the_first_connection() -> None:
    assert outside_of_trio(scope_of()) == outside_of_trio(scope_of("http")) == []


async def test_a_scope_of_another_type() -> None:
    with pytest.raises(ValueError, match="must be http, lifespan or websocket, not 'webtransport'"):
        await asgi(echo)({"type": "webtransport"}, partial(trio.sleep, 0), trio.sleep)


async def test_the_transport_of_a_connection_that_was_closed() -> None:
    taken: list[Any] = []

    async def send(event: Any) -> None:
        taken.append(event)

    transport = _AsgiTransport(scope_of(), trio.sleep_forever, send, 10)
    with trio.testing.assert_checkpoints():
        assert await transport.send_some(b"\x81\x02hi") == 4
    transport.close()
    await transport.write()
    assert taken == [{"type": "websocket.send", "text": "hi"}]
    with pytest.raises(trio.ClosedResourceError):
        await transport.send_some(b"\x81\x02hi")
    with pytest.raises(trio.ClosedResourceError):
        await transport.wait_receive()


# In memory, by clients and frameworks of others


async def test_a_client_of_httpx_ws() -> None:
    async def who(ws: Transaction) -> None:
        assert ws.req is not None
        await ws.send(json=[dict(ws.req.path_parameters), ws.req.query, ws.protocol])
        await ws.finish(4001, "enough")

    app = asgi(
        {"/echo": echo, "/who/{name}": who, "/no": never},
        on_request=lambda ws: Response(401, body="who are you?") if ws.req and ws.req.path == "/no" else None,
        subprotocols=["v1"],
    )
    async with httpx.AsyncClient(transport=ASGIWebSocketTransport(app), base_url="http://test") as client:
        async with aconnect_ws("/echo", client) as ws:
            await ws.send_text("text")
            assert await ws.receive_text() == "text"
            await ws.send_bytes(b"data")
            assert await ws.receive_bytes() == b"data"
        async with aconnect_ws("/who/anna?a=b", client, subprotocols=["v1"]) as ws:
            assert ws.subprotocol == "v1"
            assert await ws.receive_json() == [{"name": "anna"}, "a=b", "v1"]
            with pytest.raises(WebSocketDisconnect) as caught:
                await ws.receive()
            assert (caught.value.code, caught.value.reason) == (4001, "enough")
        # Its host has no responses for WebSockets.
        with pytest.raises(WebSocketDisconnect) as refused:
            async with aconnect_ws("/no", client):
                pass
        assert (refused.value.code, refused.value.reason) == (1008, "HTTP 401")
        assert (await client.get("/no")).status_code == 401
        assert (await client.get("/echo")).status_code == 426
        assert (await client.get("/nowhere")).status_code == 404
    assert not app.connections


async def test_mounted_in_starlette(nursery: trio.Nursery) -> None:
    kept: list[Any] = []

    async def page(_: Any) -> PlainTextResponse:
        return PlainTextResponse("a page")

    class Middleware:
        """Adds to the scope, as those for sessions and authentication do."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "session": "anna's"}, receive, send)

    app = Starlette(
        routes=[StarletteRoute("/", page), Mount("/live", app=asgi({"/chat/{room}": keeping(kept)}))],
        middleware=[Mounted(Middleware)],
    )
    async with httpx.AsyncClient(transport=ASGIWebSocketTransport(app), base_url="http://test") as client:
        assert (await client.get("/")).text == "a page"
        async with aconnect_ws("/live/chat/lounge?a=b", client) as ws:
            await ws.send_text("message")
            await trio.testing.wait_all_tasks_blocked()
        assert (await client.get("/live/nowhere")).text == "not found\n"
    transaction, message, end = kept
    assert (message, end) == ("message", "end")
    assert transaction.req.target == "/chat/lounge?a=b"
    assert transaction.req.path_parameters == {"room": "lounge"}
    assert transaction.handshake.scope["session"] == "anna's"
