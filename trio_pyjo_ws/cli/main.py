"""The programs, and what becomes of their errors."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import trio

from . import bench, connect, demo, inspect, serve
from .ending import SIGINT_STATUS, describe, first_of, status_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

PROGRAMS = {
    "connect": (connect, "talk with a server, typing or through pipes"),
    "serve": (serve, "echo, broadcast, or run a command for each connection"),
    "inspect": (inspect, "see frames bit by bit, of a connection or a file"),
    "bench": (bench, "put a load on a server of your own, and measure"),
    "demo": (demo, "see a client and a server talk, frame by frame"),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="trio-pyjo-ws", description="WebSocket for trio.")
    programs = parser.add_subparsers(title="programs", metavar="PROGRAM", required=True)
    for name, (module, summary) in PROGRAMS.items():
        program = programs.add_parser(name, help=summary)
        module.add_arguments(program)
        program.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that ``argv`` (else the command line) asks for, and return its exit status."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        return int(trio.run(arguments.run, arguments))
    except BaseException as exc:
        if isinstance(first_of(exc), KeyboardInterrupt):
            return SIGINT_STATUS
        if not isinstance(exc, Exception):
            raise
        print(f"{parser.prog}: {describe(exc)}", file=sys.stderr)
        return status_of(exc)
