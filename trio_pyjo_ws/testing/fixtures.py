"""The types of the pytest fixtures, for the annotations of tests.

.. code-block:: python

   async def test_greeting(websocket_pair: WebSocketPairFixture) -> None:
       client, server = websocket_pair(subprotocols=["chat"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    import trio
    from typing_extensions import Unpack

    from .. import Options, ServerOptions, Transaction
    from ..handshake.messages import HeadersLike
    from ..server.serving import Handlers, OnRequest, Origins
    from .peer import ScriptedPeer
    from .server import MemoryServer

__all__ = ["ScriptedWebSocketFixture", "WebSocketPairFixture", "WebSocketServerFixture"]


class WebSocketPairFixture(Protocol):
    """The fixture ``websocket_pair``: :func:`open_memory_pair` in the nursery of the test."""

    def __call__(
        self,
        *,
        url: str = ...,
        additional_headers: HeadersLike = ...,
        subprotocols: Sequence[str] = ...,
        streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = ...,
        **options: Unpack[Options],
    ) -> tuple[Transaction, Transaction]:
        """A client's and a server's transaction."""
        ...


class ScriptedWebSocketFixture(Protocol):
    """The fixture ``scripted_websocket``: :func:`open_scripted_pair` in the nursery of the test."""

    def __call__(
        self,
        role: Literal["client", "server"],
        *,
        url: str = ...,
        additional_headers: HeadersLike = ...,
        subprotocols: Sequence[str] = ...,
        streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = ...,
        **options: Unpack[Options],
    ) -> tuple[Transaction, ScriptedPeer]:
        """A transaction of ``role``, and the script that is its peer."""
        ...


class WebSocketServerFixture(Protocol):
    """The fixture ``websocket_server``: :func:`serve_memory` in the nursery of the test."""

    async def __call__(
        self,
        handler: Handlers,
        *,
        ssl_context: ssl.SSLContext | None = ...,
        handler_nursery: trio.Nursery | None = ...,
        on_request: OnRequest | None = ...,
        subprotocols: Sequence[str] = ...,
        origins: Origins | None = ...,
        **options: Unpack[ServerOptions],
    ) -> MemoryServer:
        """The running server."""
        ...
