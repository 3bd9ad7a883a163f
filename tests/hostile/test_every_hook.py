"""Whatever a caller's function raises, wherever the server calls it, one connection ends; the server and others live.

A fault of the function's own (an Exception, alone, in a group, or in a group with a Cancelled) is logged.
KeyboardInterrupt and SystemExit come out of serve(), in the group of its nursery, as of any nursery of trio's. Nothing
is swallowed.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import trio
import trio.testing

from trio_pyjo_ws import ConnectionClosed, HandshakeError, Response, Route
from trio_pyjo_ws.testing import serve_memory

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_pyjo_ws import Request, Transaction
    from trio_pyjo_ws.testing import MemoryServer

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

GO = '"go"'
"""What the client sends; it is JSON, too."""

Fail = Callable[[], NoReturn]
Arguments = dict[str, Any]


class Bug(Exception):  # noqa: N818 - nobody handles it
    """What is wrong with a function of the caller's."""


async def a_cancelled() -> trio.Cancelled:
    """A Cancelled that belongs to a scope which has ended."""
    caught: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            caught.append(exc)
    return caught[0]


async def fault(kind: str) -> BaseException:
    """What a function raises."""
    return {
        "Exception": Bug("a bug"),
        "ExceptionGroup": ExceptionGroup("", [Bug("one"), ExceptionGroup("", [Bug("two")])]),
        "BaseExceptionGroup with Cancelled": BaseExceptionGroup("", [await a_cancelled(), Bug("a bug")]),
        "Cancelled": await a_cancelled(),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "SystemExit": SystemExit(3),
        "SystemExit in a group": BaseExceptionGroup("", [SystemExit(3), Bug("a bug")]),
    }[kind]


FAULTS = [
    *("Exception", "ExceptionGroup", "BaseExceptionGroup with Cancelled", "Cancelled"),
    *("KeyboardInterrupt", "SystemExit", "SystemExit in a group"),
]


# The hooks: each takes what fails, and returns arguments of serve_memory(). The client sends GO, and reads to the end.


async def go(ws: Transaction) -> None:
    """Wait for the client's message."""
    assert await ws.receive() == GO


def handler_at_once(fail: Fail) -> Arguments:
    async def handler(_: Transaction) -> None:
        fail()

    return {"handler": handler}


def handler_in_the_middle(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        await go(ws)
        fail()

    return {"handler": handler}


def handler_behind_a_nursery(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        async def cleans_up() -> None:
            try:
                await trio.sleep_forever()
            finally:
                fail()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cleans_up)
            await go(ws)
            nursery.cancel_scope.cancel()

    return {"handler": handler}


def handler_after_its_close(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        await ws.finish()
        fail()

    return {"handler": handler}


def handler_that_is_no_coroutine(fail: Fail) -> Arguments:
    def handler(_: Transaction) -> Any:
        fail()

    return {"handler": handler}


def cancelled(fail: Fail) -> Callable[[], Awaitable[None]]:
    """A function with a child that fails as soon as it is cancelled, and one that does not."""

    async def cleans_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            fail()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cleans_up)
            nursery.start_soon(trio.sleep_forever)

    return run


def handler_cancelled_by_a_callback(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        @ws.on
        def message(ws: Transaction, message: str) -> None:
            raise Bug(f"of a callback: {message}")

        await cancelled(fail)()

    return {"handler": handler}


def on_request_at_once(fail: Fail) -> Arguments:
    def on_request(ws: Transaction) -> None:
        if is_guest(ws.req):
            fail()

    return {"on_request": on_request}


def on_request_async(fail: Fail) -> Arguments:
    async def on_request(ws: Transaction) -> None:
        if is_guest(ws.req):
            fail()

    return {"on_request": on_request}


def on_request_in_the_middle(fail: Fail) -> Arguments:
    async def on_request(ws: Transaction) -> None:
        if is_guest(ws.req):
            await trio.sleep(1)
            fail()

    return {"on_request": on_request}


def on_request_cancelled_by_the_open_timeout(fail: Fail) -> Arguments:
    async def on_request(ws: Transaction) -> None:
        if is_guest(ws.req):
            await cancelled(fail)()

    return {"on_request": on_request, "open_timeout": 5}


def router(fail: Fail) -> Arguments:
    class Router:
        def route(self, request: Request, /) -> Route | Response:
            if is_guest(request):
                fail()
            return Route(echo, {})

    return {"handler": Router()}


def callback(event: str, fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        ws.on(event, lambda *_: fail())
        await trio.sleep_forever()

    return {"handler": handler}


def callback_async(event: str, fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        async def call(*_: Any) -> None:
            await trio.sleep(1)
            fail()

        ws.on(event, call)
        await trio.sleep_forever()

    return {"handler": handler}


def callback_set_by_on_request(fail: Fail) -> Arguments:
    def on_request(ws: Transaction) -> None:
        if is_guest(ws.req):
            ws.on("connection", lambda _: fail())

    return {"on_request": on_request}


def callback_of_send(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        await go(ws)
        await ws.send(lambda _: fail(), "news")
        await trio.sleep_forever()

    return {"handler": handler}


def callback_of_send_async(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        async def call(_: Transaction) -> None:
            await trio.sleep(1)
            fail()

        await go(ws)
        await ws.send(call, "news")
        await trio.sleep_forever()

    return {"handler": handler}


class Codec:
    """JSON, but for the one method that fails."""

    dumps = staticmethod(json.dumps)
    loads = staticmethod(json.loads)

    def __init__(self, method: str, fail: Fail) -> None:
        setattr(self, method, lambda *_, **__: fail())


def json_receiving(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        await ws.receive_json()

    return {"handler": handler, "json": Codec("loads", fail)}


def json_sending(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        await go(ws)
        await ws.send(json=1)

    return {"handler": handler, "json": Codec("dumps", fail)}


def json_in_a_channel(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        async for _ in ws.open_channel("json"):
            pass

    return {"handler": handler, "json": Codec("loads", fail)}


def json_in_a_callback(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        ws.on("json", lambda *_: None)
        await trio.sleep_forever()

    return {"handler": handler, "json": Codec("loads", fail)}


def pieces(before: int, fail: Fail) -> Arguments:
    async def source() -> AsyncIterator[str]:
        for _ in range(before):
            yield "piece"
        fail()

    async def handler(ws: Transaction) -> None:
        await go(ws)
        await ws.send(text=source())

    return {"handler": handler}


def pieces_cleaned_up(fail: Fail) -> Arguments:
    async def source() -> AsyncIterator[str]:
        try:
            while True:
                yield "piece"
                await trio.sleep(1)
        finally:
            fail()

    async def handler(ws: Transaction) -> None:
        await go(ws)
        with trio.move_on_after(3):
            await ws.send(text=source())

    return {"handler": handler}


def named(*hooks: Callable[[Fail], Arguments]) -> dict[str, Callable[[Fail], Arguments]]:
    return {hook.__name__: hook for hook in hooks}


CALLED = named(
    *(handler_at_once, handler_in_the_middle, handler_after_its_close, handler_that_is_no_coroutine),
    *(on_request_at_once, on_request_async, on_request_in_the_middle, router),
    *(json_receiving, json_sending, json_in_a_channel),
)
CALLED |= {f"pieces after {count}": partial(pieces, count) for count in (0, 2)}

CANCELLED = named(
    *(handler_behind_a_nursery, handler_cancelled_by_a_callback),
    *(on_request_cancelled_by_the_open_timeout, pieces_cleaned_up),
)
"""Those that fail while they are cancelled: a Cancelled that they raise is nothing new."""

CALLBACKS = named(callback_set_by_on_request, callback_of_send, callback_of_send_async, json_in_a_callback)
CALLBACKS |= {f"callback of {event}": partial(callback, event) for event in ("message", "text", "json", "frame")}
CALLBACKS |= {"callback of finish": partial(callback, "finish")}
CALLBACKS |= {f"async callback of {event}": partial(callback_async, event) for event in ("message", "frame", "finish")}

HOOKS = CALLED | CANCELLED | CALLBACKS
CASES = [(hook, kind) for hook in HOOKS for kind in FAULTS]


def is_guest(request: Request | None) -> bool:
    assert request is not None
    return request.path == "/guest"


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


class Scene:
    """A server whose guest meets the fault, and whose other connection does not."""

    def __init__(self, raised: BaseException, caplog: pytest.LogCaptureFixture) -> None:
        self.raised = raised
        self.failed = 0
        self.came_out: list[BaseException] = []
        self.neighbour_is_well = False
        self._caplog = caplog

    def fail(self) -> NoReturn:
        self.failed += 1
        raise self.raised

    async def play(self, arguments: Arguments, act: Callable[[MemoryServer], Awaitable[None]]) -> None:
        """Serve, and keep what comes out of it."""
        handler = arguments.pop("handler", echo)

        async def handle(ws: Transaction) -> None:
            await (handler(ws) if is_guest(ws.req) else echo(ws))

        start = partial(serve_memory, handler if hasattr(handler, "route") else handle, ping_interval=None, **arguments)
        async with trio.open_nursery() as clients:
            try:
                async with trio.open_nursery() as nursery:
                    server = await nursery.start(start)
                    neighbour = await server.connect(clients, "/neighbour", ping_interval=None)
                    clients.start_soon(self._keep_talking, neighbour)
                    await act(server)
                    self.neighbour_is_well = neighbour.closed is None
                    await server.server.aclose()
            except BaseExceptionGroup as exc:
                self.came_out += [leaf for leaf in leaves(exc) if not isinstance(leaf, trio.Cancelled)]
            clients.cancel_scope.cancel()

    async def _keep_talking(self, ws: Transaction) -> None:
        with suppress(trio.EndOfChannel, trio.ClosedResourceError, ConnectionClosed):
            while True:
                await ws.send("still here")
                assert await ws.receive() == "still here"
                await trio.sleep(1)

    def check(self) -> None:
        """See that nothing was swallowed, and nothing else came out than what is meant to."""
        parts = leaves(self.raised)
        logged = {*self.logged()}
        ends = {part for part in parts if isinstance(part, (KeyboardInterrupt, SystemExit))}
        bugs = {part for part in parts if isinstance(part, Bug)}
        assert self.failed
        if ends:
            assert ends <= {*self.came_out} <= ends | bugs
            assert bugs <= logged | {*self.came_out}
        else:
            assert self.came_out == []
            assert bugs <= logged

    def logged(self) -> list[BaseException]:
        """The leaves of what was logged as an error."""
        errors = [record.exc_info for record in self._caplog.records if record.levelno >= logging.ERROR]
        return [leaf for error in errors if error and error[1] for leaf in leaves(error[1])]


def leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for part in exc.exceptions for leaf in leaves(part)]
    return [exc]


async def visit(server: MemoryServer) -> None:
    """Be the guest: connect, send GO, read to the end; and see what happens after that."""
    async with trio.open_nursery() as nursery:
        with suppress(HandshakeError, ConnectionClosed, trio.ClosedResourceError):
            ws = await server.connect(nursery, "/guest", ping_interval=None, open_timeout=None)
            with trio.move_on_after(60):
                await ws.send(GO)
                async for _ in ws:
                    pass
            await ws.finish()
        await trio.sleep(60)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("hook", "kind"), CASES)
async def test_a_fault_ends_one_connection(
    hook: str, kind: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(await fault(kind), caplog)
    await scene.play(HOOKS[hook](scene.fail), visit)
    scene.check()
    if not scene.came_out:
        assert scene.neighbour_is_well
        # A Cancelled from elsewhere would stop the server without a word.
        assert hook in CANCELLED or {*leaves(scene.raised)} <= {*scene.logged()}


# Closing the server, and cancelling it


def handler_cancelled(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        await cancelled(fail)()

    return {"handler": handler}


def handler_that_goes_on(fail: Fail) -> Arguments:
    async def handler(ws: Transaction) -> None:
        with suppress(trio.ClosedResourceError):
            await ws.receive()
            await ws.receive()
        fail()

    return {"handler": handler}


def on_request_cancelled(fail: Fail) -> Arguments:
    return on_request_cancelled_by_the_open_timeout(fail) | {"open_timeout": 1000}


async def call_while_the_guest_is_there(call: Callable[[], Any], server: MemoryServer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visit, server)
        await trio.sleep(10)
        result = call()
        if result is not None:
            await result
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(
    ("hook", "grace"),
    [
        *((handler_cancelled, grace) for grace in (0, 1)),
        *((on_request_cancelled, grace) for grace in (0, 1)),
        (handler_that_goes_on, 1),
    ],
)
async def test_closing_the_server_brings_out_no_fault(
    hook: Callable[[Fail], Arguments],
    kind: str,
    grace: float,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def close(server: MemoryServer) -> None:
        await call_while_the_guest_is_there(partial(server.server.aclose, grace=grace), server)
        assert server.server.connections == frozenset()

    scene = Scene(await fault(kind), caplog)
    await scene.play(hook(scene.fail), close)
    scene.check()


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("hook", [handler_cancelled, on_request_cancelled])
async def test_cancelling_the_server_brings_out_no_fault(
    hook: Callable[[Fail], Arguments], kind: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    scope = trio.CancelScope()

    async def cancel(server: MemoryServer) -> None:
        await call_while_the_guest_is_there(scope.cancel, server)

    scene = Scene(await fault(kind), caplog)
    with scope:
        await scene.play(hook(scene.fail), cancel)
    scene.check()
