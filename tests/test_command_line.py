"""Every command of docs/command-line.md runs as shown, and prints what is shown; ``...`` stands for anything."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trio_pyjo_ws.cli.main import make_parser

from .cli.program import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "command-line.md").read_text("utf-8")
RUN = PAGE.partition("comes after this line.")[2]
SERVERS = ("trio-pyjo-ws serve ", "trio-pyjo-ws demo --web ")
PORT = "8000"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where `trio-pyjo-ws` is a command, though the package may not be installed."""
    command = tmp_path / "trio-pyjo-ws"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trio_pyjo_ws "$@"\n')
    command.chmod(0o755)
    return {**ENVIRONMENT, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def shown() -> Iterator[tuple[str, str | None]]:
    """Each command, and what it prints; None for one that is shown without its output."""
    for command, _, output in re.findall(r"^```sh\n(.*?)^```\n(\n```text\n(.*?)^```)?", RUN, re.MULTILINE | re.DOTALL):
        yield command, output or None


def pattern(output: str) -> str:
    # The last line may come more than once: the rows of a histogram.
    *lines, last = (re.escape(line).replace(r"\.\.\.", ".+") for line in output.splitlines())
    return "\n".join([*lines, f"({last}\n)+"])


class Terminal:
    """One terminal for the server, and one for all else."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._server: subprocess.Popen[str] | None = None
        self._port = PORT

    def serve(self, command: str, output: str | None) -> None:
        self.stop()
        self._port = free_port()
        self._server = subprocess.Popen(  # noqa: S602 - ours
            f"exec {self._here(command)}",
            shell=True,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._server.stdout is not None
        announced = self._server.stdout.readline()
        assert announced == self._here(output or f"listening on ws://127.0.0.1:{PORT}/\n")

    def run(self, command: str, output: str | None) -> None:
        assert output is not None, f"{command!r} shows no output"
        done = subprocess.run(  # noqa: S603 - ours
            ["/bin/bash", "-c", self._here(command)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        assert re.fullmatch(pattern(self._here(output)), done.stdout.rstrip("\n") + "\n"), f"{command}{done.stdout}"

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            assert self._server.wait(30) == 0
            assert self._server.stdout is not None
            self._server.stdout.close()
            self._server = None

    def _here(self, text: str) -> str:
        """The port of the page may be taken here."""
        return text.replace(PORT, self._port)


def test_commands_do_what_is_shown(environment: dict[str, str]) -> None:
    commands = list(shown())
    assert len(commands) > 10
    terminal = Terminal(environment)
    try:
        for command, output in commands:
            (terminal.serve if command.startswith(SERVERS) else terminal.run)(command, output)
    finally:
        terminal.stop()


def test_every_program_and_option_is_on_the_page() -> None:
    programs = make_parser()._subparsers
    assert programs is not None
    (action,) = (action for action in programs._actions if action.choices)
    for name, parser in action.choices.items():  # type: ignore[union-attr]
        section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        assert section, name
        text = section[1] + (PAGE if name in ("inspect", "demo") else "")
        for option in parser._option_string_actions:
            if option not in ("-h", "--help"):
                assert option in text, f"{name}: {option}"
