"""Connections in memory, open from the start: two transactions, or one and a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio.testing

from .. import Options, Transaction
from .._engine.tls import open_transport
from ..client.connecting import transaction_in
from ..handshake.http1 import ClientHandshake, ServerHandshake
from ..handshake.negotiate import choose_subprotocol
from ..options import Settings
from ..signatures import shows
from ..wire.protocol import Protocol
from .peer import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from ..handshake.messages import HeadersLike

__all__ = ["open_memory_pair", "open_scripted_pair"]


@shows(Options, defaults=Settings.defaults())
def open_memory_pair(
    nursery: trio.Nursery,
    *,
    url: str = "ws://memory.test/",
    additional_headers: HeadersLike = (),
    subprotocols: Sequence[str] = (),
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    **options: Unpack[Options],
) -> tuple[Transaction, Transaction]:
    """Return a client's and a server's transaction that are connected in memory, and live in ``nursery``.

    They are open: the opening handshake for ``url``, with ``additional_headers`` and ``subprotocols``, is done. Nothing
    about them needs real time: run the test under ``trio.testing.MockClock(autojump_threshold=0)``. ``streams`` (the
    client's and the server's) replace those of :func:`trio.testing.memory_stream_pair`. ``options`` are those of
    :class:`~trio_pyjo_ws.Options`, for both sides. Raises TypeError and ValueError for wrong arguments. No checkpoint.
    """
    _check_nursery(nursery, "open_memory_pair(nursery)")
    settings = Settings.of(options)
    client, server = _shake_hands(url, additional_headers, subprotocols, settings)
    client_stream, server_stream = streams or trio.testing.memory_stream_pair()
    return _start(nursery, client, client_stream, settings), _start(nursery, server, server_stream, settings)


@shows(Options, defaults=Settings.defaults())
def open_scripted_pair(
    nursery: trio.Nursery,
    role: Literal["client", "server"],
    *,
    url: str = "ws://memory.test/",
    additional_headers: HeadersLike = (),
    subprotocols: Sequence[str] = (),
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    **options: Unpack[Options],
) -> tuple[Transaction, ScriptedPeer]:
    """Return a transaction of ``role`` that lives in ``nursery``, and a scripted peer for it.

    As with :func:`open_memory_pair`, the opening handshake is done. ``streams``: the transaction's, and the peer's.
    """
    _check_nursery(nursery, 'open_scripted_pair(nursery, "client")')
    settings = Settings.of(options)
    if role not in ("client", "server"):
        raise ValueError(f"the role must be 'client' or 'server', not {role!r}")
    client, server = _shake_hands(url, additional_headers, subprotocols, settings)
    ours, theirs = streams or trio.testing.memory_stream_pair()
    if role == "client":
        return _start(nursery, client, ours, settings), ScriptedPeer("server", theirs)
    return _start(nursery, server, ours, settings), ScriptedPeer("client", theirs)


def _check_nursery(given: object, example: str) -> None:
    if not isinstance(given, trio.Nursery):
        raise TypeError(f"the first argument must be a nursery, as in {example}, not {given!r:.60}")


def _shake_hands(
    url: str, headers: HeadersLike, subprotocols: Sequence[str], settings: Settings
) -> tuple[Protocol, Protocol]:
    request = ClientHandshake(url, headers=headers, subprotocols=subprotocols, deflate=settings.compression)
    client = Protocol("client", handshake=request, max_websocket_size=settings.max_websocket_size)
    server = Protocol("server", handshake=ServerHandshake(), max_websocket_size=settings.max_websocket_size)
    server.server_read(client.client_write())
    server.accept(subprotocol=choose_subprotocol(request.request, subprotocols), deflate=settings.compression)
    client.client_read(server.server_write())
    return client, server


def _start(nursery: trio.Nursery, protocol: Protocol, stream: trio.abc.Stream, settings: Settings) -> Transaction:
    transaction = transaction_in(nursery, protocol, open_transport(stream), settings)
    transaction.__connection__.start()
    return transaction
