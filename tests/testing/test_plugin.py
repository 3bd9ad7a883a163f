"""The pytest plugin: it is there where the package is installed, and its fixtures open what they are named for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock

    from trio_pyjo_ws import Transaction
    from trio_pyjo_ws.testing import ScriptedWebSocketFixture, WebSocketPairFixture, WebSocketServerFixture

pytest_plugins = ["pytester"]

TESTS = """
async def test_one(websocket_pair, autojump_clock):
    client, server = websocket_pair()
    await client.send("Hello")
    assert await server.receive() == "Hello"
"""


async def test_a_pair(websocket_pair: WebSocketPairFixture, autojump_clock: MockClock) -> None:
    client, server = websocket_pair(subprotocols=["v1"])
    await trio.sleep(3600)
    await client.send("Hello")
    assert await server.receive() == "Hello"
    assert server.protocol == "v1"


async def test_a_script(scripted_websocket: ScriptedWebSocketFixture, autojump_clock: MockClock) -> None:
    ws, peer = scripted_websocket("client")
    await ws.send("Hello")
    await peer.expect("Hello")


async def test_a_server(
    websocket_server: WebSocketServerFixture, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def echo(ws: Transaction) -> None:
        async for message in ws:
            await ws.send(message)

    server = await websocket_server(echo, max_websocket_size=10)
    ws = await server.connect(nursery, "/path")
    await ws.send("Hello")
    assert await ws.receive() == "Hello"


def test_the_installed_package_brings_it_along(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.runpytest_inprocess("-o", "trio_mode=true").assert_outcomes(passed=1)


def test_without_pytest_trio_a_test_is_told_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "no:trio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["the fixtures of trio_pyjo_ws need pytest-trio: pip install pytest-trio"])
