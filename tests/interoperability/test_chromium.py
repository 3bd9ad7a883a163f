"""What only a browser does, beside the conversations: its Origin, and the ways in which a page ends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_pyjo_ws import Close, ConnectionClosed, Transaction, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .chromium import ChromiumPeer, Tab

pytestmark = pytest.mark.interop


async def ended(chromium: ChromiumPeer, end: Callable[[Tab], Awaitable[object]]) -> Close | None:
    """How our server sees the connection of a page end, when this is done to its tab."""
    found: list[Close | None] = []

    async def handler(ws: Transaction) -> None:
        opened.set()
        try:
            await ws.receive()
        except (trio.EndOfChannel, ConnectionClosed):
            found.append(ws.closed)
        told.set()

    opened, told = trio.Event(), trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, chromium.tab() as tab:
            server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
            await tab.evaluate(f"void talk('{server.url}', 'echo', [])")
            await opened.wait()
            await end(tab)
            await told.wait()
            nursery.cancel_scope.cancel()
    return found[0]


async def test_a_page_that_is_left_goes_away(chromium_peer: ChromiumPeer) -> None:
    assert await ended(chromium_peer, lambda tab: tab.evaluate("void location.reload()")) == Close(1001, "")


async def test_for_a_page_that_crashes_the_browser_says_that_it_goes_away(chromium_peer: ChromiumPeer) -> None:
    async def crash(tab: Tab) -> None:
        with trio.move_on_after(0.1):  # It does not come to an answer.
            await tab.call("Page.crash")

    assert await ended(chromium_peer, crash) == Close(1001, "")


async def test_a_browser_that_is_killed_is_a_lost_connection(own_chromium: ChromiumPeer) -> None:
    async def handler(ws: Transaction) -> None:
        own_chromium.kill()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        ended.append(caught.value.close.code)
        told.set()

    ended: list[int] = []
    told = trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
            with pytest.RaisesGroup(ConnectionClosed, allow_unwrapped=True, flatten_subgroups=True):
                async with own_chromium.tab() as tab:
                    await tab.evaluate(f"talk('{server.url}', 'echo', [])")
            await told.wait()  # The server may hear of it last.
            nursery.cancel_scope.cancel()
    assert ended == [1006]


async def test_a_page_tells_its_origin(chromium_peer: ChromiumPeer) -> None:
    async def handler(ws: Transaction) -> None:
        await ws.finish(4000, ws.req.headers["Origin"])

    async with trio.open_nursery() as nursery, chromium_peer.tab() as tab:
        with trio.fail_after(30):
            origin = await tab.evaluate("location.origin")
            run = partial(serve, handler, 0, host="127.0.0.1")
            here = await nursery.start(partial(run, origins=[origin]))
            elsewhere = await nursery.start(partial(run, origins=["http://example.org"]))
            ended = [await tab.evaluate(f"talk('{server.url}', 'echo', [])") for server in (here, elsewhere)]
        nursery.cancel_scope.cancel()
    assert [one["close"] for one in ended] == [[4000, origin], [1006, ""]]
