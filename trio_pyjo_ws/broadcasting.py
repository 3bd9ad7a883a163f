"""One message to many transactions: encoded once for all that are alike, and never held up by a slow one."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Literal, get_args

import trio
from trio.lowlevel import checkpoint_if_cancelled

from .connection import TURN
from .errors import ConnectionClosed
from .forms import Data, Pieces, compose
from .wire.frames import Frame
from .wire.protocol import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .transaction import Transaction

__all__ = ["Slow", "broadcast", "broadcast_nowait"]

Slow = Literal["drop-message", "close", "wait"]
"""What becomes of a recipient that has ``write_limit`` bytes unsent; see :func:`broadcast`."""

SLOW_CODES = (1008, 1013)
"""Close codes for the slow: policy violation, and try again later (RFC 6455, section 7.4.1)."""


class _Broadcast:
    """One message on its way, and the frames that it has become."""

    def __init__(self, message: str | Data, slow: str, code: int, policies: tuple[str, ...]) -> None:
        if slow not in policies:
            raise ValueError(f"slow= is one of {', '.join(map(repr, policies))}, not {slow!r}")
        if code not in SLOW_CODES:
            raise ValueError(f"code= is 1008 or 1013, not {code!r}")
        payload = compose(None, message)[0]
        assert not isinstance(payload, (Frame, Pieces))
        self._message: str | bytes = payload
        self._slow = slow
        self._code = code
        self._frames: dict[tuple[int, ...], bytes] = {}
        self.waiting: list[Transaction] = []
        """The slow, where they are waited for."""

    def offer(self, transaction: Transaction) -> bool:
        """Write to ``transaction`` what can be written now, queue the rest; return whether it gets the message."""
        if transaction._protocol.state is not State.OPEN:
            return False
        if transaction._queued() < transaction._write_limit and not transaction._fragmenting:
            self.send(transaction)
            return True
        if self._slow == "wait":
            self.waiting.append(transaction)
        elif self._slow == "close":
            transaction._close_soon(self._code, "too slow")
        return False

    def send(self, transaction: Transaction) -> None:
        protocol = transaction._protocol
        kind = protocol.frame_kind
        frame = None if kind is None else self._frames.get(kind)
        if frame is None:
            frame = protocol.encode_message(self._message)
            if kind is not None:
                self._frames[kind] = frame
        protocol.send_encoded(frame)
        transaction._write_soon()


async def broadcast(
    transactions: Iterable[Transaction], message: str | Data, *, slow: Slow = "drop-message", code: int = 1013
) -> int:
    """Send ``message`` to all of ``transactions`` that are open: ``str`` as text, ``bytes`` as binary.

    It is encoded once for all recipients whose frames are alike, compressed ones included where the opening handshake
    has agreed on no context takeover, and none of them waits for another. What becomes of a slow recipient, one that
    has ``write_limit`` bytes unsent or is being sent a message in pieces, is said by ``slow``: ``"drop-message"`` (it
    does not get this one), ``"close"`` (it is closed, with ``code`` 1013, try again later, or 1008, policy violation)
    or ``"wait"`` (it gets the message as soon as it has room, and this call waits for that, after all the others have
    it).

    Returns how many got it, that is, to how many it was written or queued within their limit. Raises TypeError and
    ValueError before anything is written. A checkpoint; it yields to the scheduler on its way through many. Cancelled,
    those until then have got the message, whole.
    """
    sending = _Broadcast(message, slow, code, get_args(Slow))
    await checkpoint_if_cancelled()
    count = 0
    for transaction in tuple(transactions):
        count += sending.offer(transaction)
        if perf_counter() - transaction._housekeeper.turn_started > TURN:
            await transaction._yield()
    for transaction in sending.waiting:
        try:
            await transaction._wait_room()
            await transaction._wait_turn()
        except (ConnectionClosed, trio.ClosedResourceError):
            continue  # It is gone, and so is no recipient.
        if transaction._protocol.state is State.OPEN:
            sending.send(transaction)
            count += 1
    return count


def broadcast_nowait(
    transactions: Iterable[Transaction],
    message: str | Data,
    *,
    slow: Literal["drop-message", "close"] = "drop-message",
    code: int = 1013,
) -> int:
    """Do as :func:`broadcast` does, without waiting and without a checkpoint, however many the recipients are."""
    sending = _Broadcast(message, slow, code, ("drop-message", "close"))
    return sum(sending.offer(transaction) for transaction in tuple(transactions))
