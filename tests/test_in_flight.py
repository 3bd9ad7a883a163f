"""An exception in flight wins: whatever a block raises comes out of it, as the same object, however the block ends."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from trio_pyjo_ws import Transaction, connect, open_websocket, reconnecting
from trio_pyjo_ws.testing import open_memory_pair, open_scripted_pair

from .client.test_connecting import Peer

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

OpenStream = Callable[[], trio.abc.Stream]
Block = Callable[[trio.Nursery, OpenStream], AbstractAsyncContextManager[object]]

# The blocks


@asynccontextmanager
async def in_client(nursery: trio.Nursery, open_stream: OpenStream) -> AsyncIterator[object]:
    async with await connect(nursery, "ws://test", open_stream=open_stream) as ws:
        yield ws


@asynccontextmanager
async def in_server(nursery: trio.Nursery, _: OpenStream) -> AsyncIterator[object]:
    _, server = open_memory_pair(nursery)
    async with server as ws:
        yield ws


@asynccontextmanager
async def in_open_websocket(_: trio.Nursery, open_stream: OpenStream) -> AsyncIterator[object]:
    async with open_websocket("ws://test", open_stream=open_stream) as ws:
        yield ws


@asynccontextmanager
async def in_the_loop(_: trio.Nursery, open_stream: OpenStream) -> AsyncIterator[object]:
    async with reconnecting("ws://test", open_stream=open_stream) as connections:
        async for ws in connections:
            yield ws
            break


@asynccontextmanager
async def behind_the_loop(_: trio.Nursery, open_stream: OpenStream) -> AsyncIterator[object]:
    async with reconnecting("ws://test", open_stream=open_stream) as connections:
        async for _ws in connections:
            break
        yield connections


@asynccontextmanager
async def before_the_loop(_: trio.Nursery, open_stream: OpenStream) -> AsyncIterator[object]:
    async with reconnecting("ws://test", open_stream=open_stream) as connections:
        yield connections


@asynccontextmanager
async def in_a_message(nursery: trio.Nursery, open_stream: OpenStream) -> AsyncIterator[object]:
    ws = await connect(nursery, "ws://test", open_stream=open_stream)
    async with ws.receive_stream() as message:
        yield message


@asynccontextmanager
async def in_a_channel(nursery: trio.Nursery, open_stream: OpenStream) -> AsyncIterator[object]:
    ws = await connect(nursery, "ws://test", open_stream=open_stream)
    async with ws.open_channel("message") as channel:
        yield channel


@asynccontextmanager
async def in_a_script(nursery: trio.Nursery, _: OpenStream) -> AsyncIterator[object]:
    _, peer = open_scripted_pair(nursery, "client")
    async with peer:
        yield peer


WITH_CONNECTION = [in_client, in_server, in_open_websocket, in_the_loop, behind_the_loop]
BLOCKS = [*WITH_CONNECTION, before_the_loop, in_a_message, in_a_channel, in_a_script]


@pytest.fixture(params=["polite", "silent"])
def open_stream(request: pytest.FixtureRequest, nursery: trio.Nursery) -> OpenStream:
    """Streams to a peer that begins a message, and either answers Close or nothing at all."""

    async def serve(peer: Peer) -> None:
        await peer.accept(behind=b"\x01\x05Hello")
        if request.param == "polite":
            await peer.close()

    def open_stream() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(serve, Peer(theirs))
        return ours

    return open_stream


# What happens in them


def raising(exc: BaseException) -> Callable[[], Awaitable[None]]:
    async def body() -> None:
        raise exc

    return body


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("the block's")


async def fail_in_a_nursery_when_cancelled() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_when_cancelled)
        nursery.start_soon(trio.sleep_forever)


BODIES = {
    "exception": raising(KeyError("the block's")),
    "group": raising(ExceptionGroup("the block's", [KeyError(), ExceptionGroup("", [OSError()])])),
    "ConnectionClosed": raising(trio.BrokenResourceError("another's")),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "SystemExit": raising(SystemExit(3)),
    "cancelled": trio.sleep_forever,
    "exception when cancelled": fail_when_cancelled,
    "group when cancelled": fail_in_a_nursery_when_cancelled,
}


async def leave(
    block: AbstractAsyncContextManager[object], body: Callable[[], Awaitable[None]]
) -> tuple[list[BaseException], list[BaseException | None]]:
    """Let ``body`` raise in ``block``: the exceptions, and their contexts, in the block and outside of it."""
    exceptions: list[BaseException] = []
    contexts: list[BaseException | None] = []
    try:
        async with block:
            try:
                await body()
            except BaseException as exc:
                exceptions.append(exc)
                contexts.append(exc.__context__)
                raise
    except BaseException as exc:
        exceptions.append(exc)
        contexts.append(exc.__context__)
    return exceptions, contexts


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("block", BLOCKS)
async def test_the_exception_of_a_block_comes_out(
    block: Block,
    body: Callable[[], Awaitable[None]],
    open_stream: OpenStream,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.move_on_after(1):
        (raised, came_out), (context, context_outside) = await leave(block(nursery, open_stream), body)
    assert came_out is raised
    assert context_outside is context


@pytest.mark.parametrize("block", [*WITH_CONNECTION, in_a_channel])
async def test_a_block_that_ends_well_raises_what_its_end_raises(
    block: Block, open_stream: OpenStream, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing is in flight: cancelled on its way out, it says so."""
    with trio.CancelScope() as scope:
        async with block(nursery, open_stream):
            scope.cancel()
    assert scope.cancelled_caught


@pytest.mark.parametrize("block", WITH_CONNECTION)
async def test_a_keyboard_interrupt_in_closing_is_not_hidden_by_the_exception_of_the_block(
    block: Block, open_stream: OpenStream, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def aclose(_: Transaction) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    monkeypatch.setattr(Transaction, "aclose", aclose)
    with pytest.raises(KeyboardInterrupt):
        async with block(nursery, open_stream):
            raise KeyError("the block's")
