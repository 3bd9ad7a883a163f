"""The programs, and what becomes of their errors."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from difflib import get_close_matches
from importlib.metadata import version
from typing import TYPE_CHECKING, NoReturn

import trio

from .. import codec, zlib_name
from .._engine.failures import first_of
from . import bench, connect, demo, inspect, serve
from .arguments import WrongUsage
from .ending import SIGINT_STATUS, describe, status_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

PROGRAMS = {
    "connect": (connect, "talk with a server, typing or through pipes"),
    "serve": (serve, "echo, broadcast, or run a command for each connection"),
    "inspect": (inspect, "see frames bit by bit, of a connection or a file"),
    "bench": (bench, "load-test a server of your own"),
    "demo": (demo, "see a client and a server talk, frame by frame"),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    # No abbreviations: in a script they would break with the next option that begins alike.
    parser = argparse.ArgumentParser(prog="trio-pyjo-ws", description="WebSocket for trio.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=_version())
    programs = parser.add_subparsers(title="programs", metavar="PROGRAM", required=True)
    for name, (module, summary) in PROGRAMS.items():
        program = programs.add_parser(name, help=summary, allow_abbrev=False)
        module.add_arguments(program)
        program.set_defaults(run=module.run, program=program)
    return parser


def _version() -> str:
    """What a report of a fault has to name."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"trio-pyjo-ws {version('trio-pyjo-ws')}; codec: {codec}; {zlib_name}; trio {trio.__version__}; {python}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that ``argv`` (else the command line) asks for, and return its exit status."""
    _open_missing()
    arguments, unknown = make_parser().parse_known_args(argv)
    if unknown:
        _refuse(arguments.program, unknown)
    try:
        return int(trio.run(arguments.run, arguments))
    except BaseException as exc:
        first = first_of(exc)
        if isinstance(first, KeyboardInterrupt):
            return SIGINT_STATUS
        if isinstance(first, WrongUsage):
            arguments.program.error(str(first))
        if not isinstance(exc, Exception):
            raise
        print(f"trio-pyjo-ws: {describe(exc)}", file=sys.stderr)
        return status_of(exc)


def _refuse(program: argparse.ArgumentParser, unknown: list[str]) -> NoReturn:
    """Print the program's own usage; argparse prints that of all programs. A misspelt option gets what may be meant."""
    wrong = [argument for argument in unknown if argument.startswith("-")] or unknown
    meant = get_close_matches(wrong[0].partition("=")[0], re.findall(r"--[a-z-]+", program.format_help()), n=1)
    hint = f" (did you mean {meant[0]}?)" if meant else ""
    program.error(f"unrecognized arguments: {' '.join(wrong)}{hint}")


def _open_missing() -> None:
    """Open /dev/null in place of a standard stream that the caller has closed (``<&-``).

    The lowest free descriptor is taken: what the program opens later cannot get the place of a standard stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for as long as it runs
