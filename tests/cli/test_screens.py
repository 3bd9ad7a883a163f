"""Where somebody types: a pseudo-terminal with and without the extra, and tmux."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import termios
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from .program import ENVIRONMENT, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trio_pyjo_ws import Server, Transaction

    StartServer = Callable[..., Awaitable[Server]]

PLAIN = """
import sys
for name in ("prompt_toolkit", "rich"):
    sys.modules[name] = None  # as if it were not installed
from trio_pyjo_ws.cli import main
sys.exit(main())
"""
LEAD = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes a process the leader of its terminal, as terminal emulators do: Ctrl-C becomes a signal."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WAYS = {"with the extra": ["-m", "trio_pyjo_ws"], "plain": ["-c", PLAIN]}


class PseudoTerminal:
    """A program in a terminal of its own, whose keyboard and screen these are."""

    def __init__(self, controller: int) -> None:
        self._controller = controller
        self._coloured = self.seen = ""
        self.status: int | None = None

    def type(self, keys: str) -> None:
        os.write(self._controller, keys.encode())

    async def wait_for(self, pattern: str) -> None:
        while not re.search(pattern, self.seen):
            await trio.lowlevel.wait_readable(self._controller)
            self._coloured += os.read(self._controller, 4096).decode(errors="replace")
            self.seen = ESCAPES.sub("", self._coloured)


@asynccontextmanager
async def open_pseudo_terminal(way: str, *argv: str) -> AsyncIterator[PseudoTerminal]:
    """The program in a pseudo-terminal, its leader, so that Ctrl-C is a signal; the mode is restored in the end."""
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    command = [sys.executable, "-c", LEAD, *WAYS[way], *argv]
    environment = {**ENVIRONMENT, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    screen = PseudoTerminal(controller)
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                run = partial(trio.run_process, command, **streams, env=environment, check=False)
                process: trio.Process = await nursery.start(run)
                yield screen
                screen.status = await process.wait()
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.parametrize("way", WAYS)
async def test_somebody_types(way: str, start_server: StartServer) -> None:
    server = await start_server(echo)
    async with open_pseudo_terminal(way, "connect", str(server.url)) as screen:
        await screen.wait_for("connected to ws://")
        screen.type("Hello\r")
        await screen.wait_for("←.* text 5.* Hello")
        screen.type('{"a": [1,2]}\r')
        await screen.wait_for("←.* json 12.* ")
        screen.type("/ping\r")
        await screen.wait_for(r"pong after \d+\.\d{3} ms")
        screen.type("/close 4000 enough\r")
        await screen.wait_for(r"closed with 4000 \(enough\)")
    assert screen.status == 0
    assert ("the extra `cli` adds" in screen.seen) == (way == "plain")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x04", 0)])
async def test_a_key_ends_it(way: str, key: str, status: int, start_server: StartServer) -> None:
    server = await start_server(echo)
    async with open_pseudo_terminal(way, "connect", str(server.url)) as screen:
        await screen.wait_for("connected to ws://")
        screen.type(key)
        await screen.wait_for("closed with 1000")
    assert screen.status == status


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_ends_the_waiting_for_a_server(way: str) -> None:
    async with open_pseudo_terminal(way, "connect", "--reconnect", "ws://127.0.0.1:1/") as screen:
        await screen.wait_for("failed; trying again")
        screen.type("\x03")
    assert screen.status == 130


@pytest.mark.parametrize("way", WAYS)
async def test_there_is_no_server(way: str) -> None:
    async with open_pseudo_terminal(way, "connect", "127.0.0.1:1") as screen:
        await screen.wait_for("trio-pyjo-ws: all attempts to connect to 127.0.0.1:1 failed")
    assert screen.status == 3


async def test_there_is_no_standard_input(start_server: StartServer) -> None:
    """`connect URL <&-`: nothing is sent, and what comes is shown."""

    async def greet(ws: Transaction) -> None:
        await ws.send("Hello")
        await ws.receive()

    server = await start_server(greet)
    command = f"exec {shlex.quote(sys.executable)} -m trio_pyjo_ws connect --wait 0.2 {server.url} <&-"
    run = partial(
        trio.run_process, ["/bin/sh", "-c", command], env=ENVIRONMENT, capture_stdout=True, capture_stderr=True
    )
    done = await run(stdin=None)
    assert done.stdout == b"Hello\n"
    assert done.stderr.decode() == f"connected to {server.url}\nclosed with 1000\n"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
async def test_in_tmux(start_server: StartServer, tmp_path: Path) -> None:
    """A terminal emulator with a screen: what somebody sees, after the window was made narrower too."""
    server = await start_server(echo)

    def tmux(*arguments: str) -> str:
        command = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null", *arguments]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout  # noqa: S603

    async def wait_for(pattern: str) -> str:
        while not re.search(pattern, shown := tmux("capture-pane", "-p"), re.MULTILINE):
            await trio.lowlevel.checkpoint()
        return shown

    program = f"{shlex.quote(sys.executable)} -m trio_pyjo_ws connect {server.url}; echo status $?; exec cat"
    tmux("new-session", "-d", "-x", "80", "-y", "24", program)
    try:
        with trio.fail_after(20):
            await wait_for(r"· connected to ws://")
            await wait_for(r"^> ?$")
            tmux("send-keys", "Hello", "Enter")
            await wait_for(r"→ text 5 Hello\n.*← text 5 Hello\n> ?$")
            tmux("resize-window", "-x", "40", "-y", "10")
            tmux("send-keys", "x" * 60)
            await wait_for(r"^> x{38}\nx{22}$")
            tmux("send-keys", "C-u", "/close 4000 bye", "Enter")
            shown = await wait_for(r"^status 0$")
        assert "closed with 4000 (bye)" in shown
        assert ">" not in shown.partition("closed with")[2]  # the line to edit is gone
    finally:
        tmux("kill-server")
