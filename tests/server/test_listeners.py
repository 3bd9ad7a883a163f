"""Listeners: how connections are accepted; ports that are shared, Unix sockets, sockets that were there before."""

from __future__ import annotations

import errno
import logging
import os
import signal
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
from trio_pyjo_ws.server.listeners import accept, open_tcp_listeners

from ..service import MemoryListener, echo

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_pyjo_ws import Server

UNIX = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
SHARED = pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")


async def says_back(stream: trio.abc.Stream) -> None:
    async with open_websocket("ws://localhost/", stream=stream) as ws:
        await ws.send("here")
        assert await ws.receive() == "here"


# Accepting


@pytest.fixture
async def tcp() -> Any:
    """A listener, and what connects to it."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with ExitStack() as clients:

        def dial() -> socket.socket:
            return clients.enter_context(socket.create_connection(listener.socket.getsockname()))

        yield listener, dial
    await listener.aclose()


def close(accepted: list[Any]) -> int:
    for sock in accepted:
        sock.close()
    return len(accepted)


async def test_what_is_there_is_accepted_up_to_the_limit(tcp: Any, autojump_clock: MockClock) -> None:
    listener, dial = tcp
    for _ in range(5):
        dial()
    assert close(await accept(listener, 3)) == 3
    assert close(await accept(listener, 3)) == 2
    with trio.move_on_after(0.01) as scope:
        await accept(listener, 3)
    assert scope.cancelled_caught
    dial()
    assert close(await accept(listener, 3)) == 1  # The one that was cancelled has taken none.


@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_an_accepted_socket_is_as_trio_makes_it(tcp: Any, seconds: float | None) -> None:
    listener, dial = tcp
    dial()
    stream = await listener.accept()
    options = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT),
    ]
    expected = [stream.getsockopt(*option) for option in options]
    await stream.aclose()
    dial()
    socket.setdefaulttimeout(seconds)  # as another part of the program may have done
    try:
        (sock,) = await accept(listener, 10)  # And it has not waited for a second one.
    finally:
        socket.setdefaulttimeout(None)
    assert isinstance(sock, socket.socket)
    assert [sock.getsockopt(*option) for option in options] == expected
    assert sock.gettimeout() == 0
    assert not sock.get_inheritable()
    sock.close()


async def test_a_peer_that_is_gone_already_is_accepted(tcp: Any) -> None:
    listener, dial = tcp
    client = dial()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()  # with a reset
    dial()
    assert close(await accept(listener, 10)) == 2


async def test_a_listener_that_is_closed_is_told(tcp: Any, nursery: trio.Nursery) -> None:
    listener, _ = tcp

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await accept(listener, 10)

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    await listener.aclose()
    await wait()


async def test_a_listener_that_is_closed_as_somebody_comes_is_told(tcp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, dial = tcp
    dial()

    async def wait(_: object) -> None:  # Another task of the same turn closes it.
        await listener.aclose()

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "wait_readable", wait)
        with pytest.raises(trio.ClosedResourceError, match="the listener is closed"):
            await accept(listener, 10)


async def test_somebody_else_may_have_accepted_it(tcp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, _ = tcp

    async def wait(_: object) -> None:
        await trio.lowlevel.checkpoint()

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "wait_readable", wait)
        assert await accept(listener, 10) == []


OF_ONE_CONNECTION = [
    *("ECONNABORTED", "ENETDOWN", "EPROTO", "ENOPROTOOPT", "EHOSTDOWN", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH"),
    *("EPERM", "ECONNRESET"),
]
CAPACITY = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]


class Failing(MemoryListener):
    """A listener that fails a few times, before or after it has waited."""

    def __init__(self, number: int, times: int, at_once: bool = False) -> None:
        super().__init__()
        self.times = times
        self._error = OSError(number, os.strerror(number))
        self._at_once = at_once

    async def accept(self) -> trio.abc.Stream:
        if self.times and self._at_once:
            self.times -= 1
            raise self._error
        stream = await super().accept()
        if self.times:
            self.times -= 1
            raise self._error
        return stream


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("name", [*OF_ONE_CONNECTION, *CAPACITY])
async def test_an_error_of_one_connection_or_of_the_moment_does_not_end_the_server(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, name: str, at_once: bool
) -> None:
    listener = Failing(getattr(errno, name), 3, at_once)
    await nursery.start(serve_listeners, echo, [listener])
    for _ in range(4):
        stream = listener.connect()
        await trio.testing.wait_all_tasks_blocked()
    await says_back(stream)
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if name in CAPACITY:
        assert [message[:14] for message in messages] == ["accept failed "] * 3
        assert trio.current_time() == pytest.approx(0.3)
    else:
        assert messages == []


@pytest.mark.parametrize("name", [*OF_ONE_CONNECTION, *CAPACITY])
async def test_an_error_of_a_sockets_accept_does_not_end_the_server(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    accept_well = socket.socket.accept
    error = OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
    results = iter([None, error, error, None, BlockingIOError()])

    def accept_badly(self: socket.socket) -> Any:
        result: Any = next(results, None)
        if result is not None:
            raise result
        return accept_well(self)

    server: Server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    monkeypatch.setattr(socket.socket, "accept", accept_badly)
    for _ in range(4):
        async with open_websocket(server.url or "") as ws:
            await ws.send("here")
            assert await ws.receive() == "here"
    assert next(results, None) is None


@pytest.mark.parametrize("at_once", [False, True])
async def test_any_other_error_ends_the_server_and_closes_all_its_listeners(
    autojump_clock: MockClock, at_once: bool
) -> None:
    failing, other = Failing(errno.EINVAL, 1, at_once), MemoryListener()
    failing.connect()
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await serve_listeners(echo, [failing, other])
    for listener in (failing, other):
        with pytest.raises(trio.BrokenResourceError):
            listener.connect()


async def test_a_listener_whose_socket_is_closed_by_somebody_ends_the_server() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.RaisesGroup(trio.ClosedResourceError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listeners, echo, listeners)
            await trio.testing.wait_all_tasks_blocked()
            listeners[0].socket.close()


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
async def test_a_unix_listener_is_one_of_trios(nursery: trio.Nursery, tmp_path: Path) -> None:
    async def shout(stream: trio.SocketStream) -> None:
        await stream.send_all((await stream.receive_some()).upper())

    path = str(tmp_path / "socket")
    await nursery.start(trio.serve_listeners, shout, [open_unix_listener(path)])
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"here")
        assert await stream.receive_some() == b"HERE"


@UNIX
def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    trio.run(open_unix_listener(path).aclose)
    assert not path.exists()


@UNIX
def test_a_socket_of_a_process_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    program = f"""
import os, signal
from trio_pyjo_ws import open_unix_listener
open_unix_listener({str(path)!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL  # noqa: S603 - ours
    assert path.is_socket()
    trio.run(open_unix_listener(path).aclose)
    assert not path.exists()


@UNIX
def test_a_socket_that_goes_while_it_is_looked_at_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "socket"
    monkeypatch.setattr(Path, "is_socket", lambda _: True)  # as it was, a moment ago
    trio.run(open_unix_listener(path).aclose)
    assert not path.exists()


@UNIX
@pytest.mark.parametrize("arguments", [{"mode": 1 << 70}, {"backlog": 1 << 70}])
def test_a_listener_that_fails_in_the_making_leaves_no_file(tmp_path: Path, arguments: Any) -> None:
    path = tmp_path / "socket"
    with pytest.raises(OverflowError):
        open_unix_listener(path, **arguments)
    assert not path.exists()


@UNIX
def test_a_path_that_is_too_long_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        open_unix_listener(tmp_path / ("a" * 200))


@UNIX
async def test_a_file_that_cannot_be_removed_is_logged_and_the_server_ends_well(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = tmp_path / "socket"
    listener = open_unix_listener(path)
    server: Server = await nursery.start(serve_listeners, echo, [listener])
    monkeypatch.setattr(Path, "unlink", refuse)
    await server.aclose()
    assert caplog.messages == [f"cannot remove the socket {path}: [Errno 13] Permission denied"]
    with pytest.raises(OSError, match="refused"):
        await trio.open_unix_socket(str(path))


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
        monkeypatch.setattr(trio_pyjo_ws.server.listeners, "FIRST_INHERITED", sock.detach())
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
