"""JSON of a given type, by msgspec: the extra ``typed``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["decoder_of", "encode", "to_builtins"]

encode = msgspec.json.encode
to_builtins = msgspec.to_builtins


def decoder_of(type_: Any) -> Callable[[str | bytes], Any]:
    """What decodes JSON and validates it as ``type_``. Raises TypeError for a type that msgspec cannot decode.

    The decoder raises ValueError: :class:`msgspec.ValidationError`, which names the path to what does not fit, or
    :class:`msgspec.DecodeError`, which names the byte that is not valid JSON.
    """
    try:
        return _cached_decoder_of(type_)
    except TypeError:
        return _new_decoder_of(type_)  # Unhashable, or not a type: then this raises again.


def _new_decoder_of(type_: Any) -> Callable[[str | bytes], Any]:
    decode = msgspec.json.Decoder(type_).decode

    def decode_bounded(message: str | bytes) -> Any:
        try:
            return decode(message)
        except RecursionError:
            raise msgspec.DecodeError("nested too deeply") from None

    return decode_bounded


_cached_decoder_of = lru_cache(maxsize=256)(_new_decoder_of)
