"""What a server listens on besides a port of its own: one that is shared, a Unix socket, what was there before."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trio_pyjo_ws
from trio_pyjo_ws import connect, inherited_listeners, open_unix_listener, open_websocket, serve, serve_listeners
from trio_pyjo_ws.listeners import open_tcp_listeners

from .service import echo

if TYPE_CHECKING:
    from trio_pyjo_ws import Server

UNIX = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
SHARED = pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")


async def says_back(stream: trio.abc.Stream) -> None:
    async with open_websocket("ws://localhost/", stream=stream) as ws:
        await ws.send("here")
        assert await ws.receive() == "here"


# A port that is shared


@SHARED
async def test_several_servers_share_a_port(nursery: trio.Nursery) -> None:
    first: Server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", reuse_port=True))
    assert first.port is not None
    start = partial(serve, echo, first.port, host="127.0.0.1", reuse_port=True)
    servers = [first, *[await nursery.start(start) for _ in range(2)]]
    connections = [await connect(nursery, first.url or "") for _ in range(60)]
    assert sum(len(server.connections) for server in servers) == 60
    assert all(server.connections for server in servers)  # The kernel deals them out: not all to one.
    for ws in connections:
        await ws.send("here")
        assert await ws.receive() == "here"
    assert {server.url for server in servers} == {first.url}


@SHARED
async def test_a_port_is_shared_only_where_both_say_so(nursery: trio.Nursery) -> None:
    server: Server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    assert server.port is not None
    with pytest.raises(OSError, match="in use"):
        await open_tcp_listeners(server.port, host="127.0.0.1", reuse_port=True)


@SHARED
async def test_a_shared_port_listens_as_trios_does() -> None:
    for reuse_port in (False, True):
        listeners = await open_tcp_listeners(0, reuse_port=reuse_port, backlog=5)
        families = {listener.socket.family for listener in listeners}
        assert families == {family for family, *_ in socket.getaddrinfo(None, 0, flags=socket.AI_PASSIVE)}
        for listener in listeners:
            assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert bool(listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) is reuse_port
            if listener.socket.family == socket.AF_INET6:
                assert listener.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            await listener.aclose()


class NoSocket:
    """A system without sockets for some families of addresses."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *missing: socket.AddressFamily, error: int = errno.EAFNOSUPPORT
    ) -> None:
        self.opened: list[Any] = []
        make = trio.socket.socket

        def open_socket(family: socket.AddressFamily, *more: Any) -> Any:
            if family in missing:
                raise OSError(error, os.strerror(error))
            self.opened.append(make(family, *more))
            return self.opened[-1]

        async def resolve(*_: Any, **__: Any) -> list[Any]:
            kind = socket.SOCK_STREAM
            return [
                (socket.AF_INET6, kind, 0, "", ("::1", 0)),
                (socket.AF_INET, kind, 0, "", ("127.0.0.1", 0)),
            ]

        monkeypatch.setattr(trio.socket, "socket", open_socket)
        monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)


@SHARED
async def test_a_system_may_lack_a_family_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    NoSocket(monkeypatch, socket.AF_INET6)
    (listener,) = await open_tcp_listeners(0, reuse_port=True)
    assert listener.socket.family == socket.AF_INET
    await listener.aclose()


@SHARED
async def test_a_system_without_any_of_the_families_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    NoSocket(monkeypatch, socket.AF_INET6, socket.AF_INET)
    with pytest.raises(OSError, match=os.strerror(errno.EAFNOSUPPORT)):
        await open_tcp_listeners(0, reuse_port=True)


@SHARED
async def test_a_failure_closes_what_was_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    system = NoSocket(monkeypatch)
    with pytest.raises(OverflowError):
        await open_tcp_listeners(0, reuse_port=True, backlog=1 << 70)
    system_without_room = NoSocket(monkeypatch, socket.AF_INET, error=errno.EMFILE)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        await open_tcp_listeners(0, reuse_port=True)
    assert [sock.fileno() for sock in system.opened + system_without_room.opened] == [-1, -1, -1]


# Unix sockets


@UNIX
async def test_a_unix_socket_is_served_and_its_file_goes_with_it(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = open_unix_listener(path, mode=0o600)
    assert listener.path == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server: Server = await nursery.start(serve_listeners, echo, [listener])
    assert server.url is server.port is None
    await says_back(await trio.open_unix_socket(path))
    await server.aclose()
    assert not path.exists()


@UNIX
def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    trio.run(open_unix_listener(path).aclose)
    assert not path.exists()


@UNIX
@pytest.mark.parametrize("crowded", [False, True])
def test_a_socket_that_somebody_listens_on_is_not(tmp_path: Path, crowded: bool) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as other, ExitStack() as waiting:
        other.bind(path)
        other.listen(0)
        while crowded:  # until no more can wait there
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            crowded = client.connect_ex(path) == 0
        with pytest.raises(OSError, match="in use"):
            open_unix_listener(path)
        assert Path(path).is_socket()


@UNIX
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        open_unix_listener(path)
    assert path.read_text() == "precious"


@UNIX
@pytest.mark.parametrize("successor", [False, True])
async def test_the_file_of_a_successor_stays(tmp_path: Path, successor: bool) -> None:
    path = tmp_path / "socket"
    listener = open_unix_listener(path)
    path.rename(tmp_path / "moved")  # So its inode is not given away again.
    if successor:
        path.write_text("another one's")
    await listener.aclose()
    assert path.exists() is successor


# Sockets that were there before


async def test_a_socket_that_is_given_is_served(nursery: trio.Nursery) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        given = trio.SocketListener(trio.socket.fromfd(sock.fileno(), sock.family, sock.type))
    server: Server = await nursery.start(serve_listeners, echo, [given])
    assert server.port is not None
    await says_back(await trio.open_tcp_stream("127.0.0.1", server.port))


LAUNCHER = """
import os, sys
program, *descriptors = sys.argv[1:]
for place, descriptor in enumerate(descriptors, 3):
    os.dup2(int(descriptor), place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(descriptors)), LISTEN_FDNAMES="a:b")
os.execv(sys.executable, [sys.executable, "-c", program])
"""

PROGRAM = """
import os, sys, trio
from trio_pyjo_ws import inherited_listeners, serve_listeners

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    listeners = inherited_listeners()
    assert not [name for name in os.environ if name.startswith("LISTEN_")]
    assert inherited_listeners() == []
    assert [os.get_inheritable(listener.socket.fileno()) for listener in listeners] == [False, False]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, echo, listeners)

trio.run(main)
"""


def start_with(program: str, *sockets: socket.socket) -> subprocess.Popen[str]:
    """Start a program as systemd does: with the sockets as descriptors from 3 on, and its own number."""
    fcntl = pytest.importorskip("fcntl", reason="Windows passes no descriptors on")
    descriptors = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 20) for sock in sockets]
    arguments = [sys.executable, "-c", LAUNCHER, program, *map(str, descriptors)]
    environment = {**os.environ, "PYTHONPATH": str(Path(trio_pyjo_ws.__file__).parent.parent)}
    try:
        return subprocess.Popen(  # noqa: S603 - ours
            arguments, pass_fds=descriptors, env=environment, stderr=subprocess.PIPE, text=True
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def test_a_program_is_given_its_listeners_as_systemd_does_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
        start_with(PROGRAM, first, second) as process,
    ):
        try:
            with trio.fail_after(30):
                for sock in (first, second):
                    await says_back(await trio.open_tcp_stream(*sock.getsockname()))
        finally:
            process.kill()


async def test_inherited_listeners_are_not_inherited_further(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        sock.set_inheritable(True)
        monkeypatch.setattr(trio_pyjo_ws.listeners, "FIRST_INHERITED", sock.detach())
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    (listener,) = inherited_listeners()
    assert not os.get_inheritable(listener.socket.fileno())
    assert listener.socket.getsockname() == address
    await listener.aclose()


def test_a_descriptor_that_does_not_listen_is_a_valueerror() -> None:
    program = "from trio_pyjo_ws import inherited_listeners; inherited_listeners()"
    with socket.socket() as sock, start_with(program, sock) as process:
        _, said = process.communicate(timeout=30)
    assert "ValueError: SocketListener requires a listening socket" in said


@pytest.mark.parametrize(
    "environment",
    [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "x", "LISTEN_PID": "own"}],
)
def test_what_is_for_another_process_is_not_taken(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert inherited_listeners() == []
    assert not {name for name in os.environ if name.startswith("LISTEN_")}
