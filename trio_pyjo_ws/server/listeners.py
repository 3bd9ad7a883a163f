"""Listeners: how connections are accepted, and those that trio does not open.

*Accepting* from a socket goes past trio's streams, as the transports do: the socket is accepted without blocking and
given to the transport as it is, which halves the cost of an accept, and several are accepted in one visit of the task.
Any other listener is asked for its stream.

*Errors of accept()* are of three kinds. Most are the end of the one connection that was to be accepted, which Linux
reports there (accept(2)), and mean nothing. Descriptors and memory (OUT_OF_CAPACITY) may come back, so the server tries
again. Anything else is an error of the listener itself, and ends the server.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

import trio

__all__ = ["UnixListener", "accept", "inherited_listeners", "open_tcp_listeners", "open_unix_listener"]

logger = logging.getLogger("trio_pyjo_ws")

OUT_OF_CAPACITY: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The errors that report a lack of descriptors or memory."""

# Those of trio.SocketListener; not all systems have all of them.
_CONNECTION_ENDED = frozenset(
    getattr(errno, name, errno.ECONNABORTED)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENONET"),
        *("ENOPROTOOPT", "ENOSR", "EOPNOTSUPP", "EPERM", "EPROTO", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ETIMEDOUT"),
    )
)
_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})

NOTSENT_LOWAT: Final = 16_384
"""Bytes that wait in the kernel before the socket counts as full (TCP_NOTSENT_LOWAT); trio's own value."""

BACKLOG = 0xFFFF
"""Connections that wait in the kernel to be accepted: more than any system allows, so that its own bound holds."""

FIRST_INHERITED = 3
"""The first descriptor that is passed on (sd_listen_fds(3)); 0 to 2 are the standard streams."""


async def accept(listener: trio.abc.Listener[Any], limit: int) -> list[socket.socket | trio.abc.Stream]:
    """Wait, and return what has come: up to ``limit`` sockets, or one stream, or nothing if that has ended already.

    Raises OSError if descriptors or memory have run out, or the listener itself fails. A checkpoint. Cancelled, it has
    accepted nothing.
    """
    try:
        if isinstance(listener, (trio.SocketListener, UnixListener)):
            _check_open(listener.socket)
            await trio.lowlevel.wait_readable(listener.socket)
            _check_open(listener.socket)
            return _accept_sockets(listener.socket, limit)
        return [await listener.accept()]
    except ssl.SSLError:  # The TLS context is not fit for a server: that is not an error of accept().
        logger.exception("cannot serve a connection")
    except OSError as exc:
        if exc.errno not in _CONNECTION_ENDED:
            raise
        await trio.lowlevel.checkpoint()
    return []


def _accept_sockets(listening: trio.socket.SocketType, limit: int) -> list[socket.socket | trio.abc.Stream]:
    """Accept what is there without blocking. An error is raised only if there was nothing before it."""
    # The same descriptor as a socket of the standard library, which accepts into one of its own kind.
    sock = socket.socket(listening.family, listening.type, listening.proto, fileno=listening.fileno())
    accepted: list[socket.socket | trio.abc.Stream] = []
    try:
        sock.setblocking(False)
        while len(accepted) < limit:
            connection, _ = sock.accept()
            connection.setblocking(False)
            if sock.family in _INTERNET:
                _set_options(connection)
            accepted.append(connection)
    except BlockingIOError:
        pass
    except OSError:
        if not accepted:
            raise
    finally:
        sock.detach()
    return accepted


def _check_open(listening: trio.socket.SocketType) -> None:
    if listening.fileno() == -1:
        raise trio.ClosedResourceError("the listener is closed")


def _set_options(connection: socket.socket) -> None:
    """Set what trio.SocketStream sets."""
    with suppress(OSError):  # The peer may be gone.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)


async def open_tcp_listeners(
    port: int, *, host: str | bytes | None = None, backlog: int | None = None, reuse_port: bool = False
) -> list[trio.SocketListener]:
    """Do as :func:`trio.open_tcp_listeners`; with ``reuse_port`` other processes may listen on the same port.

    Raises OSError if it cannot listen. A checkpoint.
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
                unsupported = exc  # A system without IPv6 may still return its addresses.
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


@final
class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens on a Unix socket, and removes its file in the end. Made by :func:`open_unix_listener`."""

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        self._listener = listener
        self.socket: trio.socket.SocketType = listener.socket
        """The socket that listens."""
        self.path = path
        """The file of the socket."""
        self._identity = _identity(path)

    async def accept(self) -> trio.SocketStream:
        """Accept a connection, as :meth:`trio.SocketListener.accept` does."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Close the socket and remove its file, unless another socket has replaced it. A checkpoint.

        A file that cannot be removed is logged, and left to the next :func:`open_unix_listener`, which replaces it.
        """
        try:
            if _identity(self.path) == self._identity:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as exc:  # A program that has given up its privileges may not remove it.
            logger.warning("cannot remove the socket %s: %s", self.path, exc)
        await self._listener.aclose()


def open_unix_listener(
    path: str | os.PathLike[str], *, mode: int | None = None, backlog: int | None = None
) -> UnixListener:
    """Listen on a Unix socket at ``path``, for :func:`serve_listeners`.

    ``mode`` sets the permissions of the file, such as 0o660; without it the umask decides. A socket that nobody listens
    on any more is replaced. Raises OSError if anything else is at ``path``, or if it cannot listen there.
    """
    place = Path(path)
    if place.is_socket() and not _is_served(place):
        place.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    bound = False
    try:
        sock.bind(str(place))
        bound = True
        if mode is not None:
            place.chmod(mode)  # Nobody can connect yet: it does not listen.
        sock.listen(BACKLOG if backlog is None else backlog)
        return UnixListener(trio.SocketListener(trio.socket.from_stdlib_socket(sock)), place)
    except BaseException:
        sock.close()
        if bound:
            place.unlink(missing_ok=True)
        raise


def inherited_listeners() -> list[trio.SocketListener]:
    """Return the listeners that the program was started with, by systemd's socket activation or a similar one.

    Empty if there are none, and at a second call: the variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES
    are removed from the environment, so that no child takes them for its own. Raises ValueError if a descriptor is not
    a listening stream socket.
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
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            pass  # Its queue of connections to be accepted is full.
    return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
