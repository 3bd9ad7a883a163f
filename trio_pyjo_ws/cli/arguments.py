"""What the values of the programs' arguments may be: for ``type=`` of argparse."""

from __future__ import annotations

import argparse

from ..wire.http1 import Url

__all__ = ["count", "port", "seconds", "url"]

MAX_PORT = 65_535


def url(given: str) -> str:
    """A WebSocket URL, as it was given."""
    try:
        Url.parse(given)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return given


def seconds(given: str) -> float:
    """A positive number of seconds; ``inf`` is one too."""
    try:
        number = float(given)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{given!r} is no positive number of seconds")
    return number


def count(given: str) -> int:
    """A positive whole number, with ``k`` for a thousand and ``M`` for a million."""
    digits, factor = (given[:-1], {"k": 10**3, "M": 10**6}[given[-1]]) if given[-1:] in ("k", "M") else (given, 1)
    if not (digits.isascii() and digits.isdigit() and int(digits)):
        raise argparse.ArgumentTypeError(f"{given!r} is no positive whole number")
    return int(digits) * factor


def port(given: str) -> int:
    """A port; 0 stands for any that is free."""
    if not (given.isascii() and given.isdigit() and int(given) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{given!r} is no port, accepted is 0 to {MAX_PORT}")
    return int(given)
