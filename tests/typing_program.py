"""What mypy is to accept, and what it is to refuse: checked by `nox -s types`, run by nobody.

A line that mypy must refuse carries the error's name; where mypy accepted it after all, that comment would be an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import orjson
from starlette.applications import Starlette
from starlette.routing import Mount
from typing_extensions import assert_type

from trio_pyjo_ws import (
    Close,
    Event,
    EventChannel,
    Frame,
    Opcode,
    Position,
    Reconnecting,
    Request,
    Response,
    Room,
    Rooms,
    RoomsStatistics,
    Route,
    Routes,
    Server,
    ServerStatistics,
    Transaction,
    TransactionStatistics,
    asgi,
    basic_authentication,
    bearer_authentication,
    broadcast,
    broadcast_nowait,
    connect,
    inherited_listeners,
    is_transient,
    open_rooms,
    open_unix_listener,
    open_websocket,
    reconnecting,
    serve,
    serve_listeners,
)
from trio_pyjo_ws.testing import (
    Faults,
    FaultyStream,
    MemoryServer,
    ScriptedPeer,
    ScriptedWebSocketFixture,
    WebSocketPairFixture,
    WebSocketServerFixture,
    open_memory_pair,
    open_scripted_pair,
    serve_memory,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trio

    from trio_pyjo_ws import AsgiOptions, ClientOptions, Server, ServerOptions


class Order(msgspec.Struct):
    article: str


class Cancel(msgspec.Struct):
    number: int


def sent(ws: Transaction) -> None: ...


async def sent_later(ws: Transaction) -> None: ...


def text(ws: Transaction, payload: bytes) -> None: ...


async def words() -> AsyncIterator[str]:
    yield "a"


async def chunks() -> AsyncIterator[bytes]:
    yield b"a"


async def accepted(ws: Transaction) -> None:
    await ws.send("a")
    await ws.send(b"a")
    await ws.send(bytearray(b"a"))
    await ws.send(memoryview(b"a"))
    await ws.send("a", cb=sent)
    await ws.send("a", cb=None)
    await ws.send(sent, "a")
    await ws.send(sent_later, b"a")
    await ws.send(lambda ws: ws.resume(), "a")
    await ws.send(text="a")
    await ws.send(text="a", cb=sent_later)
    await ws.send(sent, text="a")
    await ws.send(binary=memoryview(b"a"))
    await ws.send(binary=b"a", cb=sent)
    await ws.send(sent, binary=b"a")
    await ws.send(json={"a": [1, None, "b"]})
    await ws.send(json=None, cb=sent)
    await ws.send(sent, json=1)
    await ws.send(frame=[1, 0, 0, 0, 9, b"a"])
    await ws.send(frame=(True, False, False, False, 9, bytearray(b"a")), cb=sent)
    await ws.send(sent, frame=Frame(True, False, False, False, 9, b"a"))
    await ws.send("a", compress=True)
    await ws.send(b"a", cb=sent, compress=False)
    await ws.send(sent, "a", compress=True)
    await ws.send(text="a", compress=True)
    await ws.send(sent, binary=b"a", compress=True)
    await ws.send(json=1, cb=sent, compress=True)
    await ws.send(text=words())
    await ws.send(sent, text=chunks(), compress=True)
    await ws.send(binary=chunks(), cb=sent)
    await ws.send(text=["a", b"b"])
    await ws.send(text=("a", "b"), compress=True)
    await ws.send(binary=[b"a", memoryview(b"b")], cb=sent)
    await ws.send(binary=(data for data in [b"a"]))
    await ws.send(text=iter("abc"))
    async with ws.receive_stream() as message:
        assert_type(message.kind, Literal["text", "binary"])
        async for piece in message:
            assert_type(piece, "str | bytes")
        await ws.send(binary=message)
        await ws.send(text=message)


async def accepted_at_once(ws: Transaction) -> None:
    assert_type(ws.send_nowait("a"), None)
    ws.send_nowait("a", cb=sent, compress=True)
    ws.send_nowait(sent, text="a", compress=False)
    ws.send_nowait(sent, b"a")
    ws.send_nowait(json=1, cb=sent)
    ws.send_nowait(frame=[1, 0, 0, 0, 9, b"a"])
    assert_type(ws.build_message("a"), bytes)
    ws.build_message(json=1)
    ws.build_message(memoryview(b"a"), compress=False)
    ws.build_message(binary=b"a", compress=True)
    channel: trio.abc.Channel[str | bytes] = ws
    await channel.send("a")
    assert_type(await ws.receive(), "str | bytes")
    assert_type(await ws.finish(1000, "bye"), Close)
    assert_type(await ws.ping(), float)
    assert_type(await ws.ping(b"a"), float)
    await ws.pong()
    await ws.pong(b"a")
    assert_type(ws.statistics(), TransactionStatistics)
    assert_type(ws.statistics().latencies, tuple[float, ...])
    ws.on(text)
    ws.once("text", text)
    ws.on("drain", sent_later)
    async for whole in ws:
        assert_type(whole, "str | bytes")


async def tested(nursery: trio.Nursery, stream: trio.SocketStream) -> None:
    assert_type(open_memory_pair(nursery, compression=True), tuple[Transaction, Transaction])
    ws, peer = open_scripted_pair(nursery, "client", ping_interval=None)
    assert_type(ws, Transaction)
    assert_type(await peer.expect("a"), Frame)
    await peer.expect(Opcode.PING, b"a")
    await peer.expect(Close(1000))
    await peer.reply(Frame(True, False, False, False, 9, b"a"))
    assert_type(await ScriptedPeer("server", stream).accept(subprotocol="a"), Request)
    server: MemoryServer = await nursery.start(serve_memory, sent_later)
    faulty = FaultyStream(server.open_stream(), send=Faults(chunk_size=1), receive=Faults(stall_at=10))
    assert_type(await server.connect(nursery, "/a", streams=(faulty, stream)), Transaction)
    faulty.receiving.release()
    ScriptedPeer("peer", stream)  # type: ignore[arg-type]
    await peer.reply(1)  # type: ignore[arg-type]
    Faults(stall="for ever")  # type: ignore[call-arg]


async def tested_by_fixtures(
    websocket_pair: WebSocketPairFixture,
    scripted_websocket: ScriptedWebSocketFixture,
    websocket_server: WebSocketServerFixture,
) -> None:
    assert_type(websocket_pair(subprotocols=["chat"], max_queue=None), tuple[Transaction, Transaction])
    assert_type(scripted_websocket("client", url="ws://test"), tuple[Transaction, ScriptedPeer])
    assert_type(await websocket_server(sent_later, origins=["https://test"], idle_timeout=5), MemoryServer)
    websocket_pair(compress=True)  # type: ignore[call-arg]
    scripted_websocket("peer")  # type: ignore[arg-type]
    await websocket_server(sent_later, max_connections="5")  # type: ignore[arg-type]


def observed(server: Server) -> None:
    assert_type(server.statistics(), ServerStatistics)
    assert_type(server.statistics().compression_sent, tuple[int, int])


async def accepted_as_json(ws: Transaction) -> None:
    assert_type(await ws.receive_json(type=Order), Order)
    assert_type(await ws.receive_json(type=list[Order]), list[Order])
    assert_type(await ws.receive_json(type=Order | Cancel), "Order | Cancel")
    assert_type(await ws.receive_json(type=Order | None), "Order | None")
    assert_type(await broadcast([ws], "a"), int)
    await broadcast({ws}, b"a", slow="wait", compress=False)
    await broadcast((ws,), text="a", code=1008)
    await broadcast((ws,), binary=memoryview(b"a"), compress=True)
    assert_type(broadcast_nowait([ws], json={"a": 1}, slow="close"), int)
    broadcast_nowait([ws], text="a")
    order: Order | Cancel = await ws.receive_json(type=Order | Cancel)
    async for order in ws.iter_json(type=Order | Cancel):
        assert_type(order, "Order | Cancel")
    async for each in ws.iter_json(type=Order):
        assert_type(each, Order)
    assert_type(ws.iter_json(), "AsyncIterator[Any]")
    assert_type(await ws.receive_json(), Any)
    assert_type(ws.open_channel("json", type=Order), EventChannel[Order])
    assert_type(ws.open_channel("json", 5, type=Order | None), "EventChannel[Order | None]")
    assert_type(ws.open_channel("json"), EventChannel[Any])
    assert_type(ws.open_channel("text"), EventChannel[bytes])
    assert_type(ws.open_channel("binary", 1), EventChannel[bytes])
    assert_type(ws.open_channel("message"), "EventChannel[str | bytes]")
    assert_type(ws.open_channel("frame"), EventChannel[Frame])
    assert_type(ws.open_channel("finish"), EventChannel[Close])
    assert_type(ws.open_channel("error"), EventChannel[Exception])
    assert_type(ws.open_channel("drain"), EventChannel[Transaction])
    async with ws.open_channel("finish") as ends:
        assert_type((await ends.receive()).code, int)
    await ws.send(json=Order("lamp"))
    open_websocket("ws://localhost/", json=orjson)
    open_websocket("ws://localhost/", json=json)


def on_request(ws: Transaction) -> Response | None:
    return Response(200, body="fine") if ws.req.path == "/health" else None


class Everything:
    def route(self, request: Request, /) -> Route | Response:
        return Route(sent_later, {"path": request.path}) if request.method == "GET" else Response(405)


async def password_is_right(name: str, password: str) -> bool:
    return bool(name and password)


async def served(nursery: trio.Nursery, server: Server) -> None:
    limits: ServerOptions = {"max_connections": 10, "max_connections_per_address": None, "max_handshakes": 5}
    await serve(sent_later, 8080, on_request=on_request, origins=["https://a", re.compile("b"), None], **limits)
    await serve({"/chat": sent_later, "/feed/{room}": accepted}, 8080, reuse_port=True, max_message_rate=0.5)
    await serve(Everything(), 8080, idle_timeout=60, on_request=basic_authentication({"ada": "secret"}))
    await serve(Routes({"/": sent_later}), 8080, on_request=basic_authentication(password_is_right, realm="a"))
    await serve(sent_later, 8080, on_request=bearer_authentication({"token": 1}.get))
    await serve(sent_later, 8080, trusted_proxies=["unix:", ip_network("10.0.0.0/8")], proxy_header="Forwarded")
    await serve_listeners(sent_later, [open_unix_listener("/run/a", mode=0o600)], max_queue=5)
    await serve_listeners(sent_later, inherited_listeners())
    assert_type(await nursery.start(serve, sent_later, 0), Any)
    await server.aclose(1012, "later", grace=5)
    for ws in server.connections:
        assert_type(ws.user, Any)
        assert_type(ws.remote_address, "str | None")
        assert_type(ws.req.path_parameters, Mapping[str, Any])
        assert_type(ws.req.cookies, Mapping[str, str])
        assert_type(ws.req.query_parameters["token"], str)
        assert_type(ws.res, Response)


async def refused_by_servers(server: Server) -> None:
    await serve("chat", 8080)  # type: ignore[arg-type]
    await serve({"/": text}, 8080)  # type: ignore[dict-item]
    await serve(sent_later, 8080, max_connections="5")  # type: ignore[arg-type]
    await serve(sent_later, 8080, proxy_header="Via")  # type: ignore[arg-type]
    await serve(sent_later, 8080, on_request=text)  # type: ignore[arg-type]
    await server.aclose("1001")  # type: ignore[arg-type]
    basic_authentication(["ada"])  # type: ignore[call-overload]


def hosted(limits: AsgiOptions) -> Starlette:
    app = asgi(sent_later, on_request=on_request, subprotocols=["a"], origins=["https://a", None], **limits)
    asgi(Everything(), ping_interval=20)  # type: ignore[call-arg]
    asgi({"/chat": sent_later}, compression=True)  # type: ignore[call-arg]
    assert_type(app.statistics(), ServerStatistics)
    assert_type(app.connections, frozenset[Transaction])
    return Starlette(routes=[Mount("/live", app=app)])


async def refused(ws: Transaction) -> None:
    await ws.send()  # type: ignore[call-overload]
    await ws.send(1)  # type: ignore[call-overload]
    await ws.send(None)  # type: ignore[call-overload]
    await ws.send(["a"])  # type: ignore[call-overload]
    await ws.send("a", "b")  # type: ignore[call-overload]
    await ws.send("a", text="b")  # type: ignore[call-overload]
    await ws.send("a", sent)  # type: ignore[call-overload]
    await ws.send(sent)  # type: ignore[call-overload]
    await ws.send(cb=sent)  # type: ignore[call-overload]
    await ws.send(sent, "a", cb=sent)  # type: ignore[call-overload]
    await ws.send(text=b"a")  # type: ignore[arg-type]
    await ws.send(binary="a")  # type: ignore[arg-type]
    await ws.send(text="a", binary=b"a")  # type: ignore[call-overload]
    await ws.send(json=1, frame=[])  # type: ignore[call-overload]
    await ws.send(frame=9)  # type: ignore[call-overload]
    await ws.send(binary=words())  # type: ignore[arg-type]
    await ws.send(binary=["a"])  # type: ignore[list-item]
    await ws.send(text=[1])  # type: ignore[list-item]
    await ws.send(words())  # type: ignore[call-overload]
    ws.send_nowait(text=words())  # type: ignore[call-overload]
    ws.open_channel("text", type=Order)  # type: ignore[call-overload]
    await broadcast([ws], {"a": 1})  # type: ignore[call-overload]
    await broadcast([ws], text=b"a")  # type: ignore[call-overload]
    await broadcast([ws], text=words())  # type: ignore[call-overload]
    await broadcast(ws, "a")  # type: ignore[call-overload]
    broadcast_nowait([ws], "a", slow="wait")  # type: ignore[call-overload]
    await ws.receive_json(Order)  # type: ignore[call-overload]
    open_websocket("ws://localhost/", json=msgspec.json)  # type: ignore[arg-type]
    await ws.send(txt="a")  # type: ignore[call-overload]
    await ws.send("a", cb=1)  # type: ignore[call-overload]
    await ws.send("a", cb=text)  # type: ignore[arg-type]
    await ws.send("a", compress=1)  # type: ignore[call-overload]
    await ws.send("a", compress=None)  # type: ignore[call-overload]
    await ws.send(sent, "a", cb=sent, compress=True)  # type: ignore[call-overload]
    await ws.send(frame=[1, 0, 0, 0, 9, b"a"], compress=True)  # type: ignore[call-overload]
    await ws.send(sent, frame=[1, 0, 0, 0, 9, b"a"], compress=False)  # type: ignore[call-overload]
    ws.send_nowait("a", compress="yes")  # type: ignore[call-overload]
    ws.send_nowait()  # type: ignore[call-overload]
    ws.send_nowait(1)  # type: ignore[call-overload]
    ws.send_nowait("a", text="b")  # type: ignore[call-overload]
    ws.build_message()  # type: ignore[call-overload]
    ws.build_message("a", cb=sent)  # type: ignore[call-overload]
    ws.build_message(frame=[1, 0, 0, 0, 9, b"a"], compress=True)  # type: ignore[call-overload]
    ws.on("text")  # type: ignore[call-overload]
    await ws.finish("1000")  # type: ignore[arg-type]
    await ws.pong("a")  # type: ignore[arg-type]
    await ws.ping("a")  # type: ignore[arg-type]
    ws.is_finished = True  # type: ignore[misc]
    ws.send("a")  # type: ignore[unused-coroutine]


async def client_accepted(
    nursery: trio.Nursery, context: ssl.SSLContext, path: Path, stream: trio.SocketStream
) -> None:
    ws = await connect(
        nursery,
        "wss://test",
        additional_headers={"Cookie": "a=b"},
        subprotocols=["v1"],
        origin="https://test",
        user_agent=None,
        ssl_context=context,
        server_hostname="other.test",
        local_address="192.0.2.1",
        max_redirects=0,
        open_timeout=None,
    )
    assert_type(ws, Transaction)
    await connect(nursery, "ws://test", stream=stream, additional_headers=[("X", "a"), ("X", "b")])
    async with open_websocket("ws://test", unix=path, user_agent="a") as ws:
        assert_type(ws, Transaction)
    options: ClientOptions = {"proxy": "socks5h://test", "unix": "/a"}
    waits = reconnecting("ws://test", proxy=True, initial_delay=1, max_delay=0.5, healthy_after=3, max_attempts=None)
    assert_type(waits, Reconnecting)
    async with reconnecting("ws://test", is_transient=lambda exc: not is_transient(exc), **options) as connections:
        assert_type(connections, Reconnecting)
        async for ws in connections:
            assert_type(ws, Transaction)

    async def open_stream() -> trio.SocketStream:
        return stream

    await connect(nursery, "ws://test", open_stream=open_stream)
    async with open_websocket("ws://test", open_stream=lambda: stream) as ws:
        assert_type(ws, Transaction)
    reconnecting("ws://test", open_stream=open_stream)


async def joined(ws: Transaction) -> None:
    async with open_rooms("redis://test", history=10, keep=60, slow="drop-message", code=1008, lease=5) as rooms:
        assert_type(rooms, Rooms)
        async with rooms.join("a", ws, after=Position.parse("a"), who="a") as room:
            assert_type(room, Room)
            assert_type(await room.publish("a"), Position)
            assert_type(await rooms.publish("a", b"a"), Position)
            async for event in room.open_channel(5):
                assert_type(event, Event)
                assert_type(event.message, "str | bytes")
        assert_type(await rooms.who("a"), set[str])
        assert_type(rooms.statistics(), RoomsStatistics)
        rooms.join("a", ws, after="a")  # type: ignore[arg-type]
        await rooms.publish("a", 1)  # type: ignore[arg-type]
    open_rooms(slow="wait")  # type: ignore[arg-type]


async def client_refused(nursery: trio.Nursery, stream: trio.SocketStream) -> None:
    await connect(nursery, "ws://test", headers={})  # type: ignore[call-arg]
    await connect(nursery, "ws://test", proxy=False)  # type: ignore[arg-type]
    await connect(nursery, "ws://test", unix=1)  # type: ignore[arg-type]
    await connect(nursery, "ws://test", additional_headers={"X": 1})  # type: ignore[arg-type]
    reconnecting("ws://test", stream=stream)  # type: ignore[call-arg]
    reconnecting("ws://test", open_stream=stream)  # type: ignore[arg-type]
    await reconnecting("ws://test").aclose()  # type: ignore[attr-defined]
    reconnecting("ws://test", is_transient=True)  # type: ignore[arg-type]
