"""JSON encoding and decoding: the standard library, a codec of the caller's, or msgspec for typed values."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JsonCodec", "UndecodedJson", "decoder_of", "to_json"]


class JsonCodec(Protocol):
    """What encodes and decodes JSON: :mod:`json`, orjson, or whatever else has these two functions.

    ``loads`` raises ValueError for invalid JSON.
    """

    def dumps(self, value: Any, /) -> str | bytes:
        """``value`` as JSON."""
        ...

    def loads(self, text: Any, /) -> Any:
        """The object that ``text``, str or bytes, stands for."""
        ...


class UndecodedJson:
    """A message on its way to those who want the object that it stands for, decoded where and when one wants it."""

    __slots__ = ("_codec", "message", "reported")

    def __init__(self, message: str | bytes, codec: JsonCodec | None) -> None:
        self.message = message
        self.reported = False  # that it does not decode, to somebody's callbacks
        self._codec = codec

    def decode(self, typed: Callable[[str | bytes], Any] | None = None) -> Any:
        """The object, a new one each time; by ``typed`` (:func:`decoder_of`), or else by the codec.

        Raises ValueError, which names the position in the message.
        """
        if typed is not None:
            return typed(self.message)
        try:
            return _loads(self.message) if self._codec is None else self._codec.loads(self.message)
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", str(self.message[:60]), 0) from None


def to_json(value: Any, codec: JsonCodec | None) -> str:
    """``value`` as JSON, on one line. Raises TypeError or ValueError, as the codec does, if it cannot be encoded.

    Half of a surrogate pair, which JSON can say and UTF-8 cannot, is escaped (RFC 8259, section 8.2): what ``loads``
    gives can be sent on. orjson and msgspec take it neither way.
    """
    text = _dumps(value) if codec is None or _is_struct(value) else codec.dumps(value)
    if not isinstance(text, str):
        return str(text, "utf-8")
    return text if text.isascii() else _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def decoder_of(type_: Any) -> Callable[[str | bytes], Any]:
    """What decodes a message as ``type_``, and raises ValueError if it does not fit."""
    decode: Callable[[str | bytes], Any] = _typed().decoder_of(type_)
    return decode


def _typed() -> Any:
    try:
        return import_module(".adapters.typed", __package__)
    except ImportError as exc:
        raise ImportError("type= needs msgspec: pip install 'trio-pyjo-ws[typed]'") from exc


def _is_struct(value: object) -> bool:
    """Whether it is a msgspec.Struct, told without msgspec."""
    return hasattr(type(value), "__struct_fields__")


def _dumps(value: Any) -> str | bytes:
    if _is_struct(value):
        encoded: bytes = _typed().encode(value)
        return encoded
    return _encode(value)


def _struct_inside(value: object) -> Any:
    if _is_struct(value):
        return _typed().to_builtins(value)
    raise TypeError(f"an object of type {type(value).__name__} is not JSON serializable")


# As Mojolicious writes it: compact, and characters as they are. JSON has no NaN.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_struct_inside).encode


_SURROGATE = re.compile("[\ud800-\udfff]")


class _ConstantError(ValueError):
    """The standard library has found a constant that JSON does not have, and does not tell where."""


def _refuse(constant: str) -> NoReturn:
    raise _ConstantError(constant)


# RFC 8259, section 6, has no NaN and no infinity, whatever the standard library takes by default.
_decode = json.JSONDecoder(parse_constant=_refuse).decode
_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')


def _loads(message: str | bytes) -> Any:
    text = message if isinstance(message, str) else message.decode()
    try:
        return _decode(text)
    except _ConstantError as exc:
        position = next(match.start() for match in _STRING_OR_CONSTANT.finditer(text) if match[1])
        raise json.JSONDecodeError(f"{exc} is not JSON", text, position) from None
