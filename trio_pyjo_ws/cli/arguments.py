"""What the values of the programs' arguments may be: for ``type=`` of argparse."""

from __future__ import annotations

import argparse
import os
import stat

from ..handshake.url import PORTS, Url

__all__ = ["WrongUsage", "count", "port", "readable_file", "seconds", "url"]

MAX_PORT = 65_535

SCHEMES = {"http": "ws", "https": "wss"}
"""What browsers show, and what is meant by it."""


class WrongUsage(Exception):  # noqa: N818 - not a failure of the program
    """Arguments that turn out to be wrong once they are used. The program prints its usage, as argparse does."""


def url(given: str) -> str:
    """A WebSocket URL. ``http`` and ``https`` mean ``ws`` and ``wss``, and without a scheme the port decides."""
    scheme, separator, rest = given.partition("://")
    address = f"{SCHEMES.get(scheme.lower(), scheme)}://{rest}" if separator else f"ws://{given}"
    try:
        parsed = Url.parse(address)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return address if separator or parsed.port != PORTS["wss"] else f"wss://{given}"


def seconds(given: str) -> float:
    """A positive number of seconds; ``inf`` is one too."""
    try:
        number = float(given)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, not {given!r}")
    return number


def count(given: str) -> int:
    """A positive whole number, with ``k`` for a thousand and ``M`` for a million."""
    digits, factor = (given[:-1], {"k": 10**3, "M": 10**6}[given[-1]]) if given[-1:] in ("k", "M") else (given, 1)
    if not (digits.isascii() and digits.isdigit() and int(digits)):
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {given!r}")
    return int(digits) * factor


def port(given: str) -> int:
    """A port; 0 stands for any that is free."""
    if not (given.isascii() and given.isdigit() and int(given) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"must be a port, 0 to {MAX_PORT}, not {given!r}")
    return int(given)


def readable_file(given: str) -> str:
    """The path of a file that can be read. It is not opened: what a pipe holds can be read only once."""
    try:
        is_folder = stat.S_ISDIR(os.stat(given).st_mode)  # noqa: PTH116 - pathlib takes an empty name for "."
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"cannot read {given!r}: {exc.strerror}") from None
    if is_folder:
        raise argparse.ArgumentTypeError(f"cannot read {given!r}: Is a directory")
    if not os.access(given, os.R_OK):
        raise argparse.ArgumentTypeError(f"cannot read {given!r}: Permission denied")
    return given
