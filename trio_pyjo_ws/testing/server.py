"""A server without a socket."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio.testing

from .. import Server, ServerOptions, Transaction, connect, serve_listeners
from ..options import ServerSettings
from ..signatures import shows

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from .. import ClientOptions
    from ..server.serving import Handlers, OnRequest, Origins

__all__ = ["MemoryServer", "serve_memory"]


class _Listener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the streams that it is offered."""

    def __init__(self) -> None:
        self._sender, self._receiver = trio.open_memory_channel[trio.abc.Stream](math.inf)

    def offer(self, stream: trio.abc.Stream) -> None:
        self._sender.send_nowait(stream)

    async def accept(self) -> trio.abc.Stream:
        return await self._receiver.receive()

    async def aclose(self) -> None:
        # Closing a stream does not wait; but a Cancelled out of it would keep the others open.
        with suppress(trio.WouldBlock), trio.CancelScope(shield=True):
            while True:  # as a socket does with connections that nobody has accepted
                await trio.aclose_forcefully(self._receiver.receive_nowait())
        await self._receiver.aclose()


class MemoryServer:
    """A running server in memory: what ``nursery.start(serve_memory, ...)`` returns."""

    def __init__(self, server: Server, listener: _Listener, secure: bool) -> None:
        self.server: Server = server
        """The server: its connections, and its ``aclose``."""
        self._listener = listener
        self._origin = f"{'wss' if secure else 'ws'}://memory.test"

    def open_stream(
        self, streams: tuple[trio.abc.HalfCloseableStream, trio.abc.Stream] | None = None
    ) -> trio.abc.HalfCloseableStream:
        """Begin a connection, and return the client's end of it: for raw bytes, a script, or ``connect(stream=)``.

        ``streams`` are used in place of :func:`trio.testing.memory_stream_pair`'s: the client's, and the server's.
        Raises :class:`trio.BrokenResourceError` if the server accepts no more.
        """
        ours, theirs = streams or trio.testing.memory_stream_pair()
        self._listener.offer(theirs)
        return ours

    async def connect(
        self,
        nursery: trio.Nursery,
        target: str = "/",
        *,
        streams: tuple[trio.abc.HalfCloseableStream, trio.abc.Stream] | None = None,
        **options: Unpack[ClientOptions],
    ) -> Transaction:
        """Connect to the server, as :func:`~trio_pyjo_ws.connect` does, with its ``options``.

        ``target`` is a path, with a query if need be, or a whole URL. ``streams``: see :meth:`open_stream`.
        """
        url = self._origin + target if target.startswith("/") else target
        return await connect(nursery, url, stream=self.open_stream(streams), **options)


@shows(ServerOptions, defaults=ServerSettings.defaults())
async def serve_memory(
    handler: Handlers,
    *,
    ssl_context: ssl.SSLContext | None = None,
    handler_nursery: trio.Nursery | None = None,
    on_request: OnRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    task_status: trio.TaskStatus[MemoryServer] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Do as :func:`~trio_pyjo_ws.serve` does, with its arguments, but listen in memory.

    ``server = await nursery.start(serve_memory, handler)`` returns the :class:`MemoryServer`, and
    ``await server.connect(nursery, "/path")`` a client's transaction: the whole opening handshake runs between them.
    With ``ssl_context`` they speak TLS.
    """
    offered = _Listener()
    listener: trio.abc.Listener[Any] = offered
    if ssl_context is not None:
        listener = trio.SSLListener(offered, ssl_context, https_compatible=True)

    class Status:
        def started(self, value: Any = None) -> None:
            task_status.started(MemoryServer(value, offered, ssl_context is not None))

    await serve_listeners(
        handler,
        [listener],
        handler_nursery=handler_nursery,
        on_request=on_request,
        subprotocols=subprotocols,
        origins=origins,
        task_status=Status(),
        **options,
    )
