"""The processes that are measured: one library in each, a server or a client, and each as long as its group lasts."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from . import load
from .plan import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .plan import Scenario

TESTS = Path(__file__).resolve().parents[1]
"""Where they run: a folder on sys.path that does not hold the checkout's package."""

STARTING = 30.0
"""Seconds that a server may take until it listens."""

ANSWERING = 60.0
"""Seconds that a client may take, beside its measuring."""


class Failed(Exception):  # noqa: N818 - what happened to a process
    pass


def environment(pure: bool, **more: str) -> dict[str, str]:
    """This process's environment, with the codec chosen."""
    found = {name: value for name, value in os.environ.items() if name != "TRIO_PYJO_WS_PURE"}
    return {**found, **({"TRIO_PYJO_WS_PURE": "1"} if pure else {}), **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((load.HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def command(library: str, module: str, *arguments: str, against: str | None = None) -> list[str]:
    """A module of this package as a program, by the interpreter that has this version of the library."""
    python = against if LIBRARIES[library].before and against else sys.executable
    return [python, "-m", f"bench.{module}", *arguments]


def _last_line(text: IO[bytes], otherwise: str) -> str:
    text.seek(0)
    lines = text.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else otherwise


@contextmanager
def server(argv: list[str], port: int, *, pure: bool = False) -> Iterator[int]:
    """A server that listens at ``port``; gives the process's id."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - ours
            argv, cwd=TESTS, env=environment(pure), stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            end = time.monotonic() + STARTING
            while True:
                try:
                    load.connect(port).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise Failed(_last_line(errors, "it does not listen")) from None
                    time.sleep(0.02)
            yield process.pid
        finally:
            process.kill()
            process.wait()


@contextmanager
def redis_server() -> Iterator[str]:
    """A redis-server that keeps nothing on disk; gives its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise Failed("redis-server is not on the PATH")
    port = free_port()
    with server([program, "--bind", load.HOST, "--port", str(port), "--save", ""], port):
        yield f"redis://{load.HOST}:{port}"


@contextmanager
def client(argv: list[str], *, pure: bool = False) -> Iterator[Callable[[Scenario, float], float]]:
    """A client that measures itself; gives the function that has it do so."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - ours
            argv,
            bufsize=0,  # so that nothing is left to write to a process that has ended
            cwd=TESTS,
            env=environment(pure),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def measure(scenario: Scenario, seconds: float) -> float:
            with suppress(BrokenPipeError):  # then there is nothing to read, either
                stdin.write(f"{scenario.name} {seconds}\n".encode())
            if not select.select([stdout], [], [], ANSWERING + seconds)[0]:
                process.kill()
                raise Failed("it does not come to an end")
            line = stdout.readline()
            if not line:
                raise Failed(_last_line(errors, "it has ended"))
            return float(line)

        try:
            yield measure
        finally:
            process.kill()
