"""Connections in memory, open from the start: two transactions, or one and a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio.testing

from .. import Options, Transaction
from ..housekeeper import Housekeeper
from ..settings import Settings
from ..transport import open_transport
from ..wire.http1 import ClientHandshake, ServerHandshake
from ..wire.negotiate import choose_subprotocol
from ..wire.protocol import Protocol
from .peer import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from ..wire.negotiate import HeadersLike

__all__ = ["open_memory_pair", "open_scripted_pair"]


def open_memory_pair(
    nursery: trio.Nursery,
    *,
    url: str = "ws://memory.test/",
    additional_headers: HeadersLike = (),
    subprotocols: Sequence[str] = (),
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    **options: Unpack[Options],
) -> tuple[Transaction, Transaction]:
    """A client's and a server's transaction that are connected in memory, and live in ``nursery``.

    They have been through the opening handshake for ``url`` with ``additional_headers`` and ``subprotocols``, and are
    open. Nothing about them needs real time: run the test under ``trio.testing.MockClock(autojump_threshold=0)``.
    ``streams`` are used in place of :func:`trio.testing.memory_stream_pair`'s: the client's, and the server's.
    ``options`` are those of :class:`~trio_pyjo_ws.Options`, for both sides. Raises TypeError and ValueError for
    arguments that do not fit. No checkpoint.
    """
    settings = Settings.of(options)
    client, server = _shake_hands(url, additional_headers, subprotocols, settings)
    client_stream, server_stream = streams or trio.testing.memory_stream_pair()
    return _start(nursery, client, client_stream, settings), _start(nursery, server, server_stream, settings)


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
    """A transaction of ``role`` that lives in ``nursery``, and in place of its peer a script.

    As :func:`open_memory_pair`: the opening handshake is behind them. ``streams``: the transaction's, and the script's.
    """
    settings = Settings.of(options)
    if role not in ("client", "server"):
        raise ValueError(f"the role is 'client' or 'server', not {role!r}")
    client, server = _shake_hands(url, additional_headers, subprotocols, settings)
    ours, theirs = streams or trio.testing.memory_stream_pair()
    if role == "client":
        return _start(nursery, client, ours, settings), ScriptedPeer("server", theirs)
    return _start(nursery, server, ours, settings), ScriptedPeer("client", theirs)


def _shake_hands(
    url: str, headers: HeadersLike, subprotocols: Sequence[str], settings: Settings
) -> tuple[Protocol, Protocol]:
    request = ClientHandshake(url, headers=headers, subprotocols=subprotocols, deflate=settings.compression)
    size, fragments = settings.max_websocket_size, settings.max_empty_fragments
    client = Protocol("client", handshake=request, max_websocket_size=size, max_empty_fragments=fragments)
    server = Protocol("server", handshake=ServerHandshake(), max_websocket_size=size, max_empty_fragments=fragments)
    server.server_read(client.client_write())
    server.accept(subprotocol=choose_subprotocol(request.request, subprotocols), deflate=settings.compression)
    client.client_read(server.server_write())
    return client, server


def _start(nursery: trio.Nursery, protocol: Protocol, stream: trio.abc.Stream, settings: Settings) -> Transaction:
    housekeeper = Housekeeper(nursery)
    transaction = Transaction(protocol, open_transport(stream), housekeeper, settings)
    housekeeper.retire()
    nursery.start_soon(housekeeper.run, name=f"housekeeper of {transaction!r}")
    transaction._start()
    return transaction
