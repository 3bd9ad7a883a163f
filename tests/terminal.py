"""The shell of a page: its commands run as they stand, in order, and print what is shown; ``...`` is anything."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from .cli.program import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS = {"trio-pyjo-ws": "-m trio_pyjo_ws ", "python": ""}
SERVERS = re.compile(r"trio-pyjo-ws (serve|demo --web) |python \S+_server\.py")
"""What goes on until it is stopped."""


def shown(page: str) -> Iterator[tuple[str, str | None]]:
    """Each command, and what it prints; None for one that is shown without its output."""
    for command, _, output in re.findall(r"^```sh\n(.*?)^```\n(\n```text\n(.*?)^```)?", page, re.MULTILINE | re.DOTALL):
        yield command, output or None


def pattern(output: str) -> str:
    # The last line may come more than once: the rows of a histogram.
    *lines, last = (re.escape(line).replace(r"\.\.\.", ".+") for line in output.splitlines())
    return "\n".join([*lines, f"({last}\n)+"])


class Terminal:
    """One terminal for the server, and one for all else, in ``folder``."""

    def __init__(self, folder: Path, port: str, ended: tuple[int, ...] = (0,)) -> None:
        self._folder = folder
        self._shown_port = self._port = port
        self._ended = ended
        self._server: subprocess.Popen[str] | None = None
        binaries = folder / "bin"
        binaries.mkdir()
        # The package may not be installed, and the interpreter may have any name.
        for name, module in COMMANDS.items():
            command = binaries / name
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
            command.chmod(0o755)
        path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**ENVIRONMENT, "PATH": path, "PYTHONUNBUFFERED": "1"}

    def run_all(self, page: str) -> int:
        """Run all commands of ``page``, and return how many there are."""
        commands = list(shown(page))
        try:
            for command, output in commands:
                (self._serve if SERVERS.match(command) else self._run)(command, output)
        finally:
            self._stop()
        return len(commands)

    def _serve(self, command: str, output: str | None) -> None:
        self._stop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = str(listener.getsockname()[1])
        asked = "" if self._shown_port in command else f" --port {self._port}"
        self._server = subprocess.Popen(  # noqa: S602 - ours
            f"exec {self._here(command.strip())}{asked}",
            shell=True,
            env=self._environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._server.stdout is not None
        expected = self._here(output or f"listening on ws://127.0.0.1:{self._shown_port}/\n")
        announced = "".join(self._server.stdout.readline() for _ in expected.splitlines())
        assert announced == expected

    def _run(self, command: str, output: str | None) -> None:
        done = subprocess.run(  # noqa: S603 - ours
            ["/bin/bash", "-c", self._here(command)],
            env=self._environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        if output is None:
            assert done.stdout == "", f"{command!r} shows no output"
            assert done.returncode == 0
        else:
            assert re.fullmatch(pattern(self._here(output)), done.stdout.rstrip("\n") + "\n"), f"{command}{done.stdout}"

    def _stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            assert self._server.wait(30) in self._ended
            assert self._server.stdout is not None
            self._server.stdout.close()
            self._server = None

    def _here(self, text: str) -> str:
        """The port of the page may be taken here."""
        return text.replace(self._shown_port, self._port)
