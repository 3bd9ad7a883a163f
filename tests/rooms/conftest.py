"""The brokers that the rooms are tested over."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from trio.testing import MockClock

from ..interoperability.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RedisServer:
    """A redis-server of the tests' own."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        base = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        self._command = ["redis-server", *base, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
        for _ in range(500):
            if self.ask("PING") == b"+PONG\r\n":
                assert self._process.poll() is None  # Otherwise another server has the port.
                return
            time.sleep(0.01)
        raise AssertionError("redis-server does not answer")

    def ask(self, command: str) -> bytes:
        """The first bytes of the reply to a command, b"" if there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                sock.sendall(command.encode() + b"\r\n")
                return sock.recv(65536)
        except OSError:
            return b""

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As kill -9 does."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def run_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    if shutil.which("redis-server", path=path) is None:
        missing("no redis-server")
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """An empty one."""
    assert shared_redis.ask("FLUSHALL") == b"+OK\r\n"
    return shared_redis


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.interop)])
def broker(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(broker: str, request: pytest.FixtureRequest) -> str | None:
    """What `open_rooms` is given."""
    if broker == "memory":
        return None
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


@pytest.fixture
def clock(broker: str) -> MockClock:
    """The mock clock, which jumps; beside a server, one that goes as the others do."""
    return MockClock(autojump_threshold=0) if broker == "memory" else MockClock(rate=1)
