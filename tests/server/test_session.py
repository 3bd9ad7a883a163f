"""One connection of a server: what its hooks may answer, and what becomes of it if one of them fails."""

from __future__ import annotations

import logging
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
import trio.testing

from trio_pyjo_ws import ConnectionClosed, Response, Route, Transaction, serve, serve_listeners
from trio_pyjo_ws.handshake.http1 import ServerHandshake
from trio_pyjo_ws.server import serving

from ..service import REQUEST, MemoryListener, echo, never, read_head, read_to_end, request, start, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from trio_pyjo_ws import Request

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


# Headers on the 101


async def test_on_request_adds_headers_to_the_101(nursery: trio.Nursery) -> None:
    def on_request(_: Transaction) -> Response:
        return Response(101, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Server", "ours")])

    service = await start(nursery, echo, on_request=on_request)
    ws = await service.connect()
    assert ws.res.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert ws.res.headers["Server"] == "ours"
    (connection,) = service.server.connections
    assert connection.res.headers == ws.res.headers
    await ws.send("here")
    assert await ws.receive() == "here"


async def test_headers_on_the_101_leave_the_rest_to_the_handshake(nursery: trio.Nursery) -> None:
    def on_request(ws: Transaction) -> Response:
        ws.with_protocols("v2")
        return Response(101, {"X-Trace": "1"})

    service = await start(nursery, {"/chat/{room}": echo}, on_request=on_request, compression=True)
    stream = service.dial()
    offers = ["Sec-WebSocket-Protocol: v1, v2", "Sec-WebSocket-Extensions: permessage-deflate"]
    await stream.send_all(request("GET /chat/lounge HTTP/1.1", *offers))
    head = (await read_head(stream)).decode()
    for line in ("Sec-WebSocket-Protocol: v2", "Sec-WebSocket-Extensions: permessage-deflate", "X-Trace: 1"):
        assert f"\r\n{line}\r\n" in head
    (connection,) = service.server.connections
    assert connection.req.path_parameters == {"room": "lounge"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [("GET /nowhere HTTP/1.1", 404), ("POST / HTTP/1.1", 405), ("GET / HTTP/1.1", 503)],
)
async def test_headers_for_the_101_accept_nothing_that_is_refused_otherwise(
    nursery: trio.Nursery, line: str, expected: int
) -> None:
    service = await start(nursery, {"/": echo}, on_request=lambda _: Response(101, {"X-A": "1"}), max_connections=1)
    if expected == 503:
        await service.connect()
    response = await service.ask(request(line))
    assert status(response) == expected
    assert b"X-A" not in response


async def test_plain_http_gets_426_though_on_request_has_headers_for_the_101(nursery: trio.Nursery) -> None:
    service = await start(nursery, never, on_request=lambda _: Response(101, {"X-A": "1"}))
    assert status(await service.ask(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")) == 426


# What a router returns


async def test_a_router_may_return_a_handler_alone(nursery: trio.Nursery) -> None:
    class Router:
        def route(self, _: Request, /) -> Any:
            return echo

    service = await start(nursery, Router())
    ws = await service.connect()
    await ws.send("here")
    assert await ws.receive() == "here"


@pytest.mark.parametrize(
    "found",
    [None, "chat", Response(101), Response(103), Route(None, {}), ("chat", {})],
    ids=repr,  # type: ignore[arg-type]
)
async def test_a_router_that_returns_anything_else_is_500_and_logged(
    nursery: trio.Nursery, errors: Callable[[], list[str]], found: Any
) -> None:
    class Router:
        def route(self, _: Request, /) -> Any:
            return found

    service = await start(nursery, Router())
    for _ in range(2):
        assert status(await service.ask()) == 500
    expected = f"a router must return a Route, a handler, or a Response of 200 to 599, not {found!r:.60}"
    assert [expected in error for error in errors()] == [True, True]
    assert "the router failed for <Transaction server-" in errors()[0]


# What a handler is


def not_async(_: Transaction) -> Any:
    """A handler that lacks a word."""


def returns_a_number(_: Transaction) -> Any:
    return 5


async def a_generator(_: Transaction) -> Any:
    yield 5


class Callable_:  # noqa: N801
    def __call__(self, _: Transaction) -> Any:
        return None

    def __repr__(self) -> str:
        return "<a callable>"


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (not_async, "handler not_async is not async: it returned None"),
        (returns_a_number, "handler returns_a_number is not async: it returned 5"),
        (a_generator, "handler a_generator is not async: it returned <async_generator object a_generator"),
        (Callable_(), "handler <a callable> is not async: it returned None"),
        (partial(not_async), "handler functools.partial(<function not_async at "),
    ],
)
async def test_a_handler_that_is_not_async_is_named(
    nursery: trio.Nursery, errors: Callable[[], list[str]], handler: Any, message: str
) -> None:
    service = await start(nursery, {"/": handler, "/echo": echo})
    ws = await service.connect()
    with pytest.raises(ConnectionClosed, match="1011"):
        await ws.receive()
    (error,) = errors()
    assert error.startswith("the handler of <Transaction server-")
    assert message in error
    stream = service.dial()
    await stream.send_all(request("GET /echo HTTP/1.1"))
    assert status(await read_head(stream)) == 101


async def test_a_handler_may_return_any_awaitable(nursery: trio.Nursery) -> None:
    class Later:
        def __init__(self, ws: Transaction) -> None:
            self.ws = ws

        def __await__(self) -> Any:
            return echo(self.ws).__await__()

    service = await start(nursery, Later)  # type: ignore[arg-type]
    ws = await service.connect()
    await ws.send("here")
    assert await ws.receive() == "here"


# Faults


async def test_a_cancelled_that_was_carried_from_elsewhere_is_a_fault(
    nursery: trio.Nursery, errors: Callable[[], list[str]]
) -> None:
    async def work() -> outcome.Outcome[None]:
        with trio.CancelScope() as scope:
            scope.cancel()
            return await outcome.acapture(trio.sleep_forever)
        raise AssertionError

    async def handler(_: Transaction) -> None:
        (await work()).unwrap()

    service = await start(nursery, handler)
    ws = await service.connect()
    with pytest.raises(ConnectionClosed, match="1011"):
        await ws.receive()
    assert "Cancelled" in errors()[0]


async def test_what_fails_in_the_opening_unexpectedly_ends_that_connection_alone(
    nursery: trio.Nursery, errors: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start(nursery, echo)
    other = await service.connect()
    with monkeypatch.context() as patch:
        patch.setattr(ServerHandshake, "accept", lambda *_, **__: 1 / 0)
        assert await service.ask() == b""
    (error,) = errors()
    assert error.startswith("<Transaction server-")
    assert error.endswith("failed: ZeroDivisionError('division by zero')")
    await other.send("still here")
    assert await other.receive() == "still here"
    assert (await service.connect()).established
    assert service.server.statistics().connections_opening == 0


async def test_a_stream_that_no_transport_takes_is_closed_and_the_server_lives(
    nursery: trio.Nursery, errors: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start(nursery, echo)
    with monkeypatch.context() as patch:
        patch.setattr(serving, "open_transport", lambda _: 1 / 0)
        for _ in range(2):
            assert await service.ask() == b""
    assert errors() == ["cannot serve a connection: ZeroDivisionError('division by zero')"] * 2
    assert (await service.connect()).established


async def test_a_tls_context_that_is_for_clients_fails_for_its_connections_alone(
    nursery: trio.Nursery, errors: Callable[[], list[str]]
) -> None:
    plain, secure = MemoryListener(), MemoryListener()
    unfit = trio.SSLListener(secure, ssl.create_default_context())
    await nursery.start(serve_listeners, echo, [unfit, plain])
    for _ in range(2):
        secure.connect()
        await trio.testing.wait_all_tasks_blocked()
    assert [error.partition(":")[0] for error in errors()] == ["cannot serve a connection"] * 2
    stream = plain.connect()
    await stream.send_all(REQUEST)
    assert status(await read_head(stream)) == 101


async def test_a_connection_that_ended_under_a_cancelled_handler_is_no_error(
    nursery: trio.Nursery, errors: Callable[[], list[str]], autojump_clock: MockClock
) -> None:
    async def handler(ws: Transaction) -> None:
        async def says_goodbye() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ws.send_nowait("bye")  # which is closed by then

        async with trio.open_nursery() as inner:
            inner.start_soon(says_goodbye)
            inner.start_soon(trio.sleep_forever)

    service = await start(nursery, handler)
    await service.connect()
    await service.server.aclose(grace=1)
    assert trio.current_time() == 1
    assert errors() == []


async def test_a_failure_beside_a_cancelled_is_logged_without_it(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async def handler(_: Transaction) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            raise BaseExceptionGroup("", [exc, KeyError("a bug")]) from None

    service = await start(nursery, handler)
    await service.ask()
    await service.server.aclose(grace=1)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)
    assert [repr(part) for part in record.exc_info[1].exceptions] == ["KeyError('a bug')"]


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a byte", "a part"])
async def test_aclose_does_not_wait_for_tls_that_has_not_shaken_hands(
    nursery: trio.Nursery, autojump_clock: MockClock, sent: bytes
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1", ssl_context=context))
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        if sent:
            await stream.send_all(sent)
        await trio.sleep(1)
        assert server.statistics().connections_opening == 1
        await server.aclose()
        assert trio.current_time() == pytest.approx(1, abs=0.1)
        assert await read_to_end(stream) == b""


async def test_a_hook_that_takes_too_long_behind_a_shield_opens_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def on_request(_: Transaction) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    service = await start(nursery, never, on_request=on_request, open_timeout=10)
    assert await service.ask() == b""
    assert trio.current_time() == 20
    assert service.server.statistics().connections_opened == 0


async def test_aclose_answers_503_though_the_cancelled_hook_fails(
    nursery: trio.Nursery, autojump_clock: MockClock, errors: Callable[[], list[str]]
) -> None:
    async def on_request(_: Transaction) -> None:
        async def cleans_up() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("a bug")

        async with trio.open_nursery() as inner:
            inner.start_soon(cleans_up)

    service = await start(nursery, never, on_request=on_request)
    stream = service.dial()
    await stream.send_all(REQUEST)
    await trio.sleep(1)
    nursery.start_soon(service.server.aclose)
    assert status(await read_to_end(stream)) == 503
    assert len(errors()) == 1
