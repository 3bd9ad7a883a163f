"""One message to many transactions: encoded once for all that are alike, and never held up by a slow one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled

from ._engine.writing import wait_room, wait_turn
from .arguments import Compressing, WholeForms, compose_whole
from .errors import ConnectionClosed
from .signatures import MISSING, shows
from .transaction import Transaction
from .wire.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Unpack

    from ._engine.connection import Connection
    from .arguments import Data
    from .wire.deflate import PerMessageDeflate
    from .wire.protocol import Protocol

__all__ = ["Slow", "broadcast", "broadcast_nowait"]

Slow = Literal["drop-message", "close", "wait"]
"""What happens to a recipient that has ``write_limit`` bytes unsent; see :func:`broadcast`."""

SLOW_CODES = (1008, 1013)
"""Close codes for the slow: policy violation, and try again later (RFC 6455, section 7.4.1)."""


_FORMS = frozenset({"text", "binary", "json", "compress"})


class Broadcasting(Compressing, total=False):
    """What may be said of a message to many."""

    slow: Slow
    code: int


class BroadcastingNow(Compressing, total=False):
    """What may be said of a message to many that waits for nobody."""

    slow: Literal["drop-message", "close"]
    code: int


class _Broadcast:
    """One message on its way, and the frames that it has become."""

    def __init__(
        self, transactions: Iterable[Transaction], message: Any, forms: dict[str, Any], policies: tuple[str, ...]
    ) -> None:
        slow, code = forms.pop("slow", policies[0]), forms.pop("code", 1013)
        if slow not in policies:
            raise ValueError(f"slow must be one of {', '.join(map(repr, policies))}, not {slow!r}")
        if code not in SLOW_CODES:
            raise ValueError(f"code must be 1008 or 1013, not {code!r}")
        if isinstance(transactions, (Transaction, str, bytes)):
            given = f"not {transactions!r:.60}"
            raise TypeError(f"transactions must be an iterable of them, as in broadcast([ws], message), {given}")
        self.recipients = tuple(transactions)
        unknown = [f"{name}=" for name in forms if name not in _FORMS]
        if unknown or callable(message):
            accepted = "a message, text=, binary=, json=, compress=, slow= and code="
            raise TypeError(f"broadcast() takes {accepted}, not {', '.join(unknown) or 'a callback'}")
        codec = self.recipients[0].__connection__.json if self.recipients else None
        payload, _, compress = compose_whole(codec, *(() if message is MISSING else (message,)), **forms)
        assert not isinstance(payload, Frame)
        self._message: str | bytes = payload
        self._compress = compress
        self._slow = slow
        self._code = code
        self._frames: dict[tuple[int, ...], bytes] = {}
        self.waiting: list[Connection] = []
        """The slow, if they are waited for."""

    def offer(self, transaction: Transaction) -> bool:
        """Queue the message for ``transaction``, if that has room; return whether it gets it."""
        connection = transaction.__connection__
        if not connection.is_open():
            return False
        if not (connection.outbox.is_full() or connection.outbox.open_message):
            self.send(connection)
            return True
        if self._slow == "wait":
            self.waiting.append(connection)
        elif self._slow == "close":
            connection.close_soon(self._code, "too slow")
        return False

    def send(self, connection: Connection) -> None:
        """Encode the message as this connection needs it, if no other has needed it so, and have it written."""
        protocol = connection.protocol
        kind = self._kind(protocol)
        frame = None if kind is None else self._frames.get(kind)
        if frame is None:
            frame = self._encode(protocol)
            if kind is not None:
                self._frames[kind] = frame
        protocol.send_encoded(frame)
        connection.write_queued()

    def _kind(self, protocol: Protocol) -> tuple[int, ...] | None:
        """What the bytes of the frame depend on, besides the message; None for what is this connection's alone."""
        if self._compress is None:
            return protocol.frame_kind
        if protocol.masked:
            return None
        deflate = _deflate_of(protocol) if self._compress else None
        return () if deflate is None else deflate.kind

    def _encode(self, protocol: Protocol) -> bytes:
        compress = self._compress
        if compress and _deflate_of(protocol) is None:
            compress = False
        return protocol.encode_message(self._message, compress)


def _deflate_of(protocol: Protocol) -> PerMessageDeflate | None:
    """What compresses the messages of this side, if the opening handshake has agreed on it."""
    deflate = protocol.deflate
    return deflate if deflate is not None and deflate.can_compress else None


@overload
async def broadcast(transactions: Iterable[Transaction], message: str | Data, **more: Unpack[Broadcasting]) -> int: ...
@overload
async def broadcast(transactions: Iterable[Transaction], *, text: str, **more: Unpack[Broadcasting]) -> int: ...
@overload
async def broadcast(transactions: Iterable[Transaction], *, binary: Data, **more: Unpack[Broadcasting]) -> int: ...
@overload
async def broadcast(transactions: Iterable[Transaction], *, json: Any, **more: Unpack[Broadcasting]) -> int: ...


@shows(WholeForms, Broadcasting, defaults={"slow": "drop-message", "code": 1013})
async def broadcast(transactions: Iterable[Transaction], message: Any = MISSING, **forms: Any) -> int:
    """Send a message to all of ``transactions`` that are open: ``str`` as text, ``bytes`` as binary.

    ``text=``, ``binary=``, ``json=`` and ``compress=`` are those of :meth:`Transaction.send`, without pieces. The codec
    of JSON is that of the first recipient, and ``compress=True`` compresses for those that have agreed on it.

    It is encoded once for all recipients with equal frames (compressed ones included, if they agreed on no context
    takeover), and none of them waits for another. A recipient is slow when it has ``write_limit`` bytes unsent, or is
    being sent a message in pieces. ``slow`` says what happens then: ``"drop-message"`` (it does not get this one),
    ``"close"`` (it is closed, with ``code`` 1013, try again later, or 1008, policy violation) or ``"wait"`` (it gets
    the message as soon as it has room, and this call waits for that, after all the others have it).

    Returns the number of recipients that it was written to or queued for. Raises TypeError and
    ValueError before anything is written. A checkpoint; it yields to the scheduler on its way through many. Cancelled,
    the recipients so far have the message, whole.
    """
    sending = _Broadcast(transactions, message, forms, get_args(Slow))
    await checkpoint_if_cancelled()
    count = 0
    for transaction in sending.recipients:
        count += sending.offer(transaction)
        housekeeper = transaction.__connection__.housekeeper
        if housekeeper.turn.is_over():
            await housekeeper.yield_turn()
    for connection in sending.waiting:
        try:
            while connection.outbox.is_full() or connection.outbox.open_message:
                await wait_room(connection.outbox)
                await wait_turn(connection.outbox, control=False)
                if not connection.is_open():
                    break
        except (ConnectionClosed, trio.ClosedResourceError):
            continue  # Closed meanwhile: not counted as a recipient.
        if connection.is_open():
            sending.send(connection)
            count += 1
    return count


@overload
def broadcast_nowait(
    transactions: Iterable[Transaction], message: str | Data, **more: Unpack[BroadcastingNow]
) -> int: ...
@overload
def broadcast_nowait(transactions: Iterable[Transaction], *, text: str, **more: Unpack[BroadcastingNow]) -> int: ...
@overload
def broadcast_nowait(transactions: Iterable[Transaction], *, binary: Data, **more: Unpack[BroadcastingNow]) -> int: ...
@overload
def broadcast_nowait(transactions: Iterable[Transaction], *, json: Any, **more: Unpack[BroadcastingNow]) -> int: ...


@shows(WholeForms, BroadcastingNow, defaults={"slow": "drop-message", "code": 1013})
def broadcast_nowait(transactions: Iterable[Transaction], message: Any = MISSING, **forms: Any) -> int:
    """Do as :func:`broadcast` does, without waiting and without a checkpoint, however many recipients there are."""
    sending = _Broadcast(transactions, message, forms, ("drop-message", "close"))
    return sum(sending.offer(transaction) for transaction in sending.recipients)
