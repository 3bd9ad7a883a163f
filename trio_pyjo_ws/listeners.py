"""Listeners that trio does not open: on a port that is shared, on a Unix socket, on sockets that were there before."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

import trio

__all__ = ["UnixListener", "inherited_listeners", "open_tcp_listeners", "open_unix_listener"]

BACKLOG = 0xFFFF
"""Connections that wait in the kernel to be accepted: more than any system's own bound, as trio has it."""

FIRST_INHERITED = 3
"""The first descriptor that is passed on (sd_listen_fds(3)); 0 to 2 are the standard streams."""


async def open_tcp_listeners(
    port: int, *, host: str | bytes | None = None, backlog: int | None = None, reuse_port: bool = False
) -> list[trio.SocketListener]:
    """:func:`trio.open_tcp_listeners`, where ``reuse_port`` lets other processes listen on the same port, too.

    Raises OSError where it cannot listen. A checkpoint.
    """
    if not reuse_port:
        return await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[trio.SocketListener] = []
    sockets: list[trio.socket.SocketType] = []
    unsupported: OSError | None = None
    try:
        for family, kind, protocol, _, address in found:
            try:
                sock = trio.socket.socket(family, kind, protocol)
            except OSError as exc:
                if exc.errno != errno.EAFNOSUPPORT:
                    raise
                unsupported = exc  # A system without IPv6 may still name its addresses.
                continue
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(address)
            sock.listen(BACKLOG if backlog is None else backlog)
            listeners.append(trio.SocketListener(sock))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if unsupported is not None and not listeners:
        raise unsupported
    return listeners


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a Unix socket, and removes its file in the end. Made by :func:`open_unix_listener`."""

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        self._listener = listener
        self.path = path
        """The file of the socket."""
        self._identity = _identity(path)

    async def accept(self) -> trio.SocketStream:
        """Accept a connection, as :meth:`trio.SocketListener.accept` does."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Close the socket and remove its file, unless that is another one's by now. A checkpoint."""
        with suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()
        await self._listener.aclose()


def open_unix_listener(
    path: str | os.PathLike[str], *, mode: int | None = None, backlog: int | None = None
) -> UnixListener:
    """Listen on a Unix socket at ``path``, for :func:`serve_listeners`.

    ``mode`` are the permissions of the file, such as 0o660; by default the umask decides. A socket that nobody listens
    on any more is replaced, anything else at ``path`` is an OSError.
    """
    place = Path(path)
    if place.is_socket() and not _is_served(place):
        place.unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(place))
        if mode is not None:
            place.chmod(mode)  # Nobody can connect yet: it does not listen.
        sock.listen(BACKLOG if backlog is None else backlog)
        return UnixListener(trio.SocketListener(trio.socket.from_stdlib_socket(sock)), place)
    except BaseException:
        sock.close()
        raise


def inherited_listeners() -> list[trio.SocketListener]:
    """The listeners that the program was started with, by systemd's socket activation or what works like it.

    There are none where it was not started so. A second call finds none either: the variables LISTEN_PID, LISTEN_FDS
    and LISTEN_FDNAMES are removed from the environment, so that no child takes them for its own. Raises ValueError for
    what is no listening stream socket.
    """
    process, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal():
        return []
    listeners = []
    for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
    return listeners


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass  # As many wait there as can.
    return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
