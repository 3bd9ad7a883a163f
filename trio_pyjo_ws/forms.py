"""What the arguments of ``send()`` say: a message or a frame, perhaps a callback, and whether to compress."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from .objects import to_json
from .wire.frames import Frame, Opcode

if TYPE_CHECKING:
    from typing import TypeAlias

    from .objects import JsonCodec
    from .streaming import MessageStream
    from .transaction import Transaction

__all__ = [
    "Binary",
    "Compressing",
    "Data",
    "FrameFields",
    "Pieces",
    "Sending",
    "SentCallback",
    "Text",
    "compose",
    "compose_whole",
]

Data = bytes | bytearray | memoryview
"""What goes as a binary message, and as the payload of a frame."""

Text: TypeAlias = "str | AsyncIterable[str | bytes]"
"""What goes as a text message: whole, or the pieces as they come."""

Binary: TypeAlias = "Data | AsyncIterable[Data] | MessageStream"
"""What goes as a binary message: whole, or the pieces as they come."""

FrameFields = Frame | Sequence[Any]
"""``[fin, rsv1, rsv2, rsv3, opcode, payload]``"""

SentCallback = Callable[["Transaction"], object]
"""Called with the transaction once everything queued so far has been handed to the kernel; may be asynchronous."""

_MISSING: Any = object()


class Pieces(NamedTuple):
    """A message that is sent as its pieces come."""

    opcode: Opcode
    source: AsyncIterable[object]


class Compressing(TypedDict, total=False):
    """What may be said of any message. Without it, what the connection has agreed on decides."""

    compress: bool


class Sending(Compressing, total=False):
    """What may be said of a message that is sent."""

    cb: SentCallback | None


def compose(
    codec: JsonCodec | None,
    /,
    *given: Any,
    text: Any = _MISSING,
    binary: Any = _MISSING,
    json: Any = _MISSING,
    frame: Any = _MISSING,
    cb: SentCallback | None = None,
    compress: Any = _MISSING,
    **unknown: Any,
) -> tuple[str | bytes | Frame | Pieces, SentCallback | None, bool | None]:
    """Return the message, frame or pieces to send, the callback, and whether to compress; None where that is not said.

    ``codec`` encodes what is given as ``json=``.

    Raises TypeError and ValueError that say what was given and what is accepted.
    """
    if unknown:
        accepted = "a message, text=, binary=, json=, frame=, cb= and compress="
        raise TypeError(f"send() takes {accepted}; not {', '.join(unknown)}=")
    if given and callable(given[0]):
        if cb is not None:
            raise TypeError("two callbacks: one given first and one as cb=")
        cb, *given = given  # type: ignore[assignment]
    if len(given) > 1:
        raise TypeError(f"send() takes one message; a callable before it is a callback, and {given[0]!r:.60} is none")
    if cb is not None and not callable(cb):
        raise TypeError(f"cb= is a callable, not {cb!r:.60}")
    if compress is _MISSING:
        compress = None
    elif not isinstance(compress, bool):
        raise TypeError(f"compress= is True or False, not {compress!r:.60}")
    message = given[0] if given else _MISSING
    forms = {"a message": message, "text=": text, "binary=": binary, "json=": json, "frame=": frame}
    names = [name for name, value in forms.items() if value is not _MISSING]
    if len(names) != 1:
        what = " and ".join(names) if names else "nothing"
        raise TypeError(f"one of a message, text=, binary=, json= and frame= is sent; given was {what}")
    if json is not _MISSING:
        return to_json(json, codec), cb, compress
    if frame is not _MISSING:
        if compress is not None:
            raise TypeError("compress= says how a message is sent; frame= is sent as it is, with the rsv1 given in it")
        return _frame(frame), cb, None
    return _message(message, text, binary), cb, compress


def compose_whole(
    codec: JsonCodec | None, /, *given: Any, **forms: Any
) -> tuple[str | bytes | Frame, SentCallback | None, bool | None]:
    """Do as :func:`compose`, for what has no time to wait for pieces."""
    payload, callback, compress = compose(codec, *given, **forms)
    if isinstance(payload, Pieces):
        raise TypeError(f"a message is given whole here, and only send() takes its pieces; not {payload.source!r:.60}")
    return payload, callback, compress


def _message(message: Any, text: Any, binary: Any) -> str | bytes | Pieces:
    """The one of the three that is given."""
    for opcode, source in ((Opcode.TEXT, text), (Opcode.BINARY, binary)):
        if isinstance(source, AsyncIterable):
            return Pieces(opcode, source)
    if text is not _MISSING:
        if not isinstance(text, str):
            raise TypeError(f"text= is str, not {type(text).__name__}; bytes go as binary=")
        return str(text)
    payload = message if binary is _MISSING else binary
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    if binary is _MISSING and isinstance(payload, str):
        return str(payload)
    name, accepted = ("a message", "str or bytes; objects go as json=")
    if binary is not _MISSING:
        name, accepted = ("binary=", "bytes; str goes as text=")
    raise TypeError(f"{name} is {accepted}: not {type(payload).__name__}")


def _frame(fields: Any) -> Frame:
    try:
        fin, rsv1, rsv2, rsv3, opcode, payload = fields
    except (TypeError, ValueError):
        raise TypeError(f"frame= is [fin, rsv1, rsv2, rsv3, opcode, payload], not {fields!r:.60}") from None
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise TypeError(f"the payload of a frame is bytes, not {type(payload).__name__}")
    frame = Frame(bool(fin), bool(rsv1), bool(rsv2), bool(rsv3), opcode, bytes(payload))
    _ = frame.head  # Raises ValueError for an opcode that there cannot be.
    return frame
