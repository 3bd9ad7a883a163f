"""What the arguments of ``send()`` say: a message or a frame, perhaps a callback, and whether to compress."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from .json_codec import to_json
from .signatures import MISSING
from .wire.frames import Frame, Opcode

if TYPE_CHECKING:
    from typing import TypeAlias

    from ._engine.receiving import MessageStream
    from .json_codec import JsonCodec
    from .transaction import Transaction

__all__ = [
    "Binary",
    "Bit",
    "Calling",
    "Compressing",
    "Data",
    "Forms",
    "FrameFields",
    "FrameForm",
    "Pieces",
    "Sending",
    "SentCallback",
    "Text",
    "WholeForms",
    "by_value",
    "compose",
    "compose_whole",
]

Data = bytes | bytearray | memoryview
"""What goes as a binary message, and as the payload of a frame."""

Text: TypeAlias = "str | AsyncIterable[str | bytes] | Sequence[str | bytes] | Iterator[str | bytes]"
"""What goes as a text message: whole, its pieces as they come, or those of a sequence or a generator."""

Binary: TypeAlias = "Data | AsyncIterable[Data] | MessageStream | Sequence[Data] | Iterator[Data]"
"""What goes as a binary message: whole, its pieces as they come, or those of a sequence or a generator."""

Bit: TypeAlias = "bool | int"
"""FIN, RSV1, RSV2 or RSV3 of a frame."""

FrameFields = Frame | Sequence[Any]
"""``[fin, rsv1, rsv2, rsv3, opcode, payload]``"""

SentCallback = Callable[["Transaction"], object]
"""Called with the transaction once everything queued so far has been handed to the kernel; may be asynchronous."""


_WHOLE = (str, bytes, bytearray, memoryview)


class Pieces(NamedTuple):
    """A message that is sent as its pieces come."""

    opcode: Opcode
    source: AsyncIterable[object] | Iterable[object]


class WholeForms(TypedDict, total=False):
    """The forms of a message that is given whole, for the signature of what takes one of them."""

    text: str
    binary: Data
    json: Any


class Forms(TypedDict, total=False):
    """The forms of a message, for the signature of ``send()``."""

    text: Text
    binary: Binary
    json: Any


class FrameForm(TypedDict, total=False):
    """The form of a frame."""

    frame: FrameFields


class Compressing(TypedDict, total=False):
    """What may be said of any message. Without it, what the connection has agreed on decides."""

    compress: bool


class Calling(TypedDict, total=False):
    """What may be said of all that is sent."""

    cb: SentCallback | None


class Sending(Compressing, Calling, total=False):
    """What may be said of a message that is sent."""


def compose(
    codec: JsonCodec | None,
    /,
    *given: Any,
    text: Any = MISSING,
    binary: Any = MISSING,
    json: Any = MISSING,
    frame: Any = MISSING,
    cb: SentCallback | None = None,
    compress: Any = MISSING,
    **unknown: Any,
) -> tuple[str | bytes | Frame | Pieces, SentCallback | None, bool | None]:
    """Return the message, frame or pieces to send, the callback, and whether to compress; None if that is not said.

    ``codec`` encodes what is given as ``json=``.

    Raises TypeError and ValueError that say what was given and what is accepted.
    """
    if unknown:
        accepted = "a message, text=, binary=, json=, frame=, cb= and compress="
        raise TypeError(f"send() takes {accepted}, not {', '.join(unknown)}=")
    if given and callable(given[0]):
        if cb is not None:
            raise TypeError("send() takes one callback (got one first and one as cb=)")
        cb, *given = given  # type: ignore[assignment]
    if len(given) > 1:
        raise TypeError(f"send() takes one message (got {given[0]!r:.60} and another); a callback comes first")
    if cb is not None and not callable(cb):
        raise TypeError(f"cb= must be a callable, not {cb!r:.60}")
    if compress is MISSING:
        compress = None
    elif not isinstance(compress, bool):
        raise TypeError(f"compress= must be True or False, not {compress!r:.60}")
    message = given[0] if given else MISSING
    forms = {"a message": message, "text=": text, "binary=": binary, "json=": json, "frame=": frame}
    names = [name for name, value in forms.items() if value is not MISSING]
    if len(names) != 1:
        what = " and ".join(names) if names else "nothing"
        raise TypeError(f"expected exactly one of a message, text=, binary=, json= and frame=, got {what}")
    if json is not MISSING:
        return to_json(json, codec), cb, compress
    if frame is not MISSING:
        if compress is not None:
            raise TypeError("compress= cannot go with frame=, which is sent as it is, rsv1 included")
        return _frame(frame), cb, None
    return _message(message, text, binary), cb, compress


def compose_whole(
    codec: JsonCodec | None, /, *given: Any, **forms: Any
) -> tuple[str | bytes | Frame, SentCallback | None, bool | None]:
    """Do as :func:`compose`, for what has no time to wait for pieces."""
    payload, callback, compress = compose(codec, *given, **forms)
    if isinstance(payload, Pieces):
        raise TypeError(f"only send() takes a message in pieces; expected a whole one, got {payload.source!r:.60}")
    return payload, callback, compress


def by_value(message: object) -> str | bytes | None:
    """The message as str or bytes, of a subclass its value, whatever it makes of str(); None if it is neither."""
    if isinstance(message, str):
        return str.__str__(message)
    return memoryview(message).tobytes() if isinstance(message, (bytes, bytearray, memoryview)) else None


def _message(message: Any, text: Any, binary: Any) -> str | bytes | Pieces:
    """The one of the three that is given."""
    for opcode, source in ((Opcode.TEXT, text), (Opcode.BINARY, binary)):
        if isinstance(source, (AsyncIterable, Iterator)):
            return Pieces(opcode, source)
        if isinstance(source, Sequence) and not isinstance(source, _WHOLE):
            return Pieces(opcode, _check_pieces(opcode, source))
    if text is not MISSING:
        if not isinstance(text, str):
            raise TypeError(f"text= must be str, not {type(text).__name__} (bytes go as binary=)")
        return str.__str__(text)
    payload = message if binary is MISSING else binary
    value = by_value(payload)
    if value is not None and (binary is MISSING or isinstance(value, bytes)):
        return value
    name, accepted = ("a message", "str or bytes (objects go as json=)")
    if binary is not MISSING:
        name, accepted = ("binary=", "bytes (str goes as text=)")
    raise TypeError(f"{name} must be {accepted}, not {type(payload).__name__}")


def _check_pieces(opcode: Opcode, pieces: Sequence[object]) -> Sequence[object]:
    """Refuse a wrong piece before anything is written: in the middle of a message it would end the connection."""
    accepted: Any = (bytes, bytearray, memoryview) if opcode is Opcode.BINARY else _WHOLE
    for piece in pieces:
        if not isinstance(piece, accepted):
            what = "bytes" if opcode is Opcode.BINARY else "str or bytes"
            raise TypeError(f"the pieces of this message must be {what}, not {type(piece).__name__}")
    return tuple(pieces)


def _frame(fields: Any) -> Frame:
    try:
        fin, rsv1, rsv2, rsv3, opcode, payload = fields
    except (TypeError, ValueError):
        raise TypeError(f"frame= must be [fin, rsv1, rsv2, rsv3, opcode, payload], not {fields!r:.60}") from None
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise TypeError(f"the payload of a frame must be bytes, not {type(payload).__name__}")
    frame = Frame(bool(fin), bool(rsv1), bool(rsv2), bool(rsv3), opcode, memoryview(payload).tobytes())
    _ = frame.head  # Raises ValueError for an opcode that there cannot be.
    return frame
