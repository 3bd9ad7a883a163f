"""What the tests of more than one program need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from trio_pyjo_ws import Server, Transaction, serve

from .program import Pipes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    import trio


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


@pytest.fixture
async def start_server(nursery: trio.Nursery) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    servers: list[Server] = []

    async def start(handler: Callable[[Transaction], Awaitable[object]], **options: Any) -> Server:
        options.setdefault("close_timeout", 1)
        server: Server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1", **options))
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.aclose()
