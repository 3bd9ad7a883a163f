"""Fixtures for pytest and pytest-trio, which open connections and servers in the nursery of the test."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from . import open_memory_pair, open_scripted_pair, serve_memory

if TYPE_CHECKING:
    import trio

    from ..server.serving import Handlers
    from . import MemoryServer, ScriptedWebSocketFixture, WebSocketPairFixture, WebSocketServerFixture

__all__ = ["scripted_websocket", "websocket_pair", "websocket_server"]


@pytest.fixture
def _pytest_trio(pytestconfig: pytest.Config) -> None:
    """Comes first, to say what pytest-trio's absence would say in other words."""
    if not pytestconfig.pluginmanager.has_plugin("trio"):
        pytest.fail("the fixtures of trio_pyjo_ws need pytest-trio: pip install pytest-trio", pytrace=False)


@pytest.fixture
def websocket_pair(_pytest_trio: None, nursery: trio.Nursery) -> WebSocketPairFixture:
    """Call it as :func:`open_memory_pair`, without the nursery."""
    return partial(open_memory_pair, nursery)


@pytest.fixture
def scripted_websocket(_pytest_trio: None, nursery: trio.Nursery) -> ScriptedWebSocketFixture:
    """Call it as :func:`open_scripted_pair`, without the nursery."""
    return partial(open_scripted_pair, nursery)


@pytest.fixture
def websocket_server(_pytest_trio: None, nursery: trio.Nursery) -> WebSocketServerFixture:
    """Await ``websocket_server(handler, **arguments)``: the server that :func:`serve_memory` starts with these."""

    async def start(handler: Handlers, **arguments: Any) -> MemoryServer:
        return cast("MemoryServer", await nursery.start(partial(serve_memory, handler, **arguments)))

    return start
