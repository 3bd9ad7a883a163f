"""Whatever a caller's function raises on a client comes out of its block, and the server and its neighbours live on."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import trio
import trio.testing

from trio_pyjo_ws import open_websocket
from trio_pyjo_ws.testing import MemoryServer, serve_memory

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_pyjo_ws import Transaction

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

Fail = Callable[[], NoReturn]
Hook = Callable[["Transaction", Fail], Awaitable[None]]


class Bug(Exception):  # noqa: N818 - nobody handles it
    """What is wrong with a function of the caller's."""


async def a_cancelled() -> trio.Cancelled:
    """A Cancelled that belongs to a scope which has ended."""
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as raised:
            await trio.lowlevel.checkpoint()
    return raised.value


async def fault(kind: str) -> BaseException:
    return {
        "Exception": Bug("a bug"),
        "ExceptionGroup": ExceptionGroup("", [Bug("one"), ExceptionGroup("", [Bug("two")])]),
        "BaseExceptionGroup with Cancelled": BaseExceptionGroup("", [await a_cancelled(), Bug("a bug")]),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "SystemExit": SystemExit(3),
    }[kind]


FAULTS = ["Exception", "ExceptionGroup", "BaseExceptionGroup with Cancelled", "KeyboardInterrupt", "SystemExit"]


def leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for part in exc.exceptions for leaf in leaves(part)]
    return [exc]


# The hooks: each makes the function fail that it is named after. The server sends back what it is sent.


async def a_callback(event: str, ws: Transaction, fail: Fail) -> None:
    ws.on(event, lambda *_: fail())
    await ws.send('"go"')
    await trio.sleep(10)
    await ws.finish()


async def an_async_callback(event: str, ws: Transaction, fail: Fail) -> None:
    async def call(*_: object) -> None:
        await trio.sleep(1)
        fail()

    ws.on(event, call)
    await ws.send('"go"')
    await trio.sleep(10)
    await ws.finish()


async def an_async_callback_that_is_cancelled(ws: Transaction, fail: Fail) -> None:
    async def call(*_: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            fail()

    ws.on("message", call)
    await ws.send("go")
    await trio.sleep(1)
    raise Bug("of the block, which cancels its nursery")


async def a_callback_of_send(ws: Transaction, fail: Fail) -> None:
    await ws.send(lambda _: fail(), "news")
    await trio.sleep(10)


async def an_async_callback_of_send(ws: Transaction, fail: Fail) -> None:
    async def call(_: object) -> None:
        await trio.sleep(1)
        fail()

    await ws.send(call, "news")
    await trio.sleep(10)


async def a_codec_that_loads(ws: Transaction, fail: Fail) -> None:
    await ws.send("1")
    await ws.receive_json()


async def a_codec_that_loads_for_a_channel(ws: Transaction, fail: Fail) -> None:
    await ws.send("1")
    await ws.open_channel("json").receive()


async def a_codec_that_loads_for_a_callback(ws: Transaction, fail: Fail) -> None:
    ws.on("json", lambda *_: None)
    await ws.send("1")
    await trio.sleep(10)


async def a_codec_that_dumps(ws: Transaction, fail: Fail) -> None:
    await ws.send(json=1)


async def pieces(before: int, ws: Transaction, fail: Fail) -> None:
    async def source() -> AsyncIterator[str]:
        for _ in range(before):
            yield "piece"
        fail()

    await ws.send(text=source())


async def pieces_that_are_cancelled(ws: Transaction, fail: Fail) -> None:
    async def source() -> AsyncIterator[str]:
        try:
            while True:
                yield "piece"
                await trio.sleep(1)
        finally:
            fail()

    with trio.move_on_after(3):
        await ws.send(text=source())


HOOKS: dict[str, Hook] = {
    hook.__name__: hook
    for hook in (
        *(an_async_callback_that_is_cancelled, a_callback_of_send, an_async_callback_of_send),
        *(a_codec_that_loads, a_codec_that_loads_for_a_channel, a_codec_that_loads_for_a_callback, a_codec_that_dumps),
        pieces_that_are_cancelled,
    )
}
EVENTS = ("message", "text", "json", "frame", "finish")
HOOKS |= {f"a callback of {event}": partial(a_callback, event) for event in EVENTS}
HOOKS |= {f"an async callback of {event}": partial(an_async_callback, event) for event in EVENTS}
HOOKS |= {f"pieces after {count}": partial(pieces, count) for count in (0, 2)}


class Codec:
    """JSON, but for one method that fails, if one is to."""

    def __init__(self, method: str | None, fail: Fail) -> None:
        self.dumps: Any = json.dumps
        self.loads: Any = json.loads
        if method is not None:
            setattr(self, method, lambda *_, **__: fail())


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("hook", HOOKS)
async def test_it_comes_out_of_the_block(
    hook: str, kind: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    raised = await fault(kind)
    failed = 0

    def fail() -> NoReturn:
        nonlocal failed
        failed += 1
        raise raised

    server: MemoryServer = await nursery.start(partial(serve_memory, echo, ping_interval=None))
    neighbour = await server.connect(nursery, ping_interval=None)
    method = next((method for method in ("loads", "dumps") if method in hook), None)
    open_block = partial(open_websocket, "ws://memory.test/", stream=server.open_stream(), json=Codec(method, fail))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - which of them, it is compared to
        async with open_block(ping_interval=None) as ws:
            await HOOKS[hook](ws, fail)
    assert failed
    parts = {part for part in leaves(raised) if not isinstance(part, trio.Cancelled)}
    found = {part for part in leaves(caught.value) if not isinstance(part, trio.Cancelled)}
    assert parts <= found
    assert ws.is_finished
    await neighbour.send("still here")
    assert await neighbour.receive() == "still here"
