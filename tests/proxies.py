"""Real proxies on localhost: HTTP CONNECT (RFC 9110, section 9.3.6), SOCKS4 and 4a, SOCKS5 (RFC 1928, RFC 1929)."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import ssl


class GoneError(Exception):
    """The client has left."""


@dataclass
class ProxyServer:
    """A proxy that connects to ``port`` on localhost, whatever host it is asked for, and notes what it was asked."""

    port: int
    """Where the server is that it has the way to; 0 for none."""
    credentials: tuple[str, str] | None = None
    answer: bytes = b""
    """What it answers in place of doing what it is asked."""
    asked: list[str] = field(default_factory=list)
    """The hosts and ports that it was asked for."""
    requests: list[bytes] = field(default_factory=list)
    """Every byte that came before the tunnel was open, of each connection."""
    users: list[tuple[str, str]] = field(default_factory=list)

    async def start(self, nursery: trio.Nursery, kind: str, ssl_context: ssl.SSLContext | None = None) -> int:
        """Serve ``kind``, ``"http"`` or ``"socks"``, and return the port."""
        handler = partial(self._serve, kind)
        if ssl_context is None:
            serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
        else:
            serve = partial(trio.serve_ssl_over_tcp, handler, 0, ssl_context, host="127.0.0.1", https_compatible=True)
        listeners = await nursery.start(serve)
        listener = listeners[0] if ssl_context is None else listeners[0].transport_listener
        port: int = listener.socket.getsockname()[1]
        return port

    async def _serve(self, kind: str, stream: trio.abc.Stream) -> None:
        self.requests.append(b"")
        async with stream:
            with suppress(GoneError, trio.BrokenResourceError):
                await (self._http(stream) if kind == "http" else self._socks(stream))

    async def _read(self, stream: trio.abc.Stream, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = bytes(await stream.receive_some(size - len(data)))
            if not more:
                raise GoneError
            self.requests[-1] += more
            data += more
        return data

    async def _read_until(self, stream: trio.abc.Stream, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            data += await self._read(stream, 1)
        return data

    async def _http(self, stream: trio.abc.Stream) -> None:
        head = (await self._read_until(stream, b"\r\n\r\n")).decode("latin-1")
        method, target, version = head.partition("\r\n")[0].split(" ")
        assert (method, version) == ("CONNECT", "HTTP/1.1")
        self.asked.append(target)
        if self.answer:
            await stream.send_all(self.answer)
            return
        if self.credentials is not None:
            expected = base64.b64encode(":".join(self.credentials).encode()).decode()
            if f"\r\nProxy-Authorization: Basic {expected}\r\n" not in head:
                await stream.send_all(b"HTTP/1.1 407 Who are you?\r\nProxy-Authenticate: Basic\r\n\r\n")
                return
        if not self.port:
            await stream.send_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        await self._relay(stream, b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")

    async def _socks(self, stream: trio.abc.Stream) -> None:
        if self.answer:
            await stream.receive_some(1000)
            await stream.send_all(self.answer)
            return
        version = (await self._read(stream, 1))[0]
        await (self._socks4(stream) if version == 4 else self._socks5(stream))

    async def _socks4(self, stream: trio.abc.Stream) -> None:
        command, *numbers = await self._read(stream, 7)
        assert command == 1
        port, address = int.from_bytes(bytes(numbers[:2]), "big"), bytes(numbers[2:])
        user = (await self._read_until(stream, b"\0"))[:-1].decode()
        self.users.append((user, ""))
        host = str(IPv4Address(address))
        if address[:3] == b"\0\0\0" and address[3]:  # SOCKS 4a: a name follows
            host = (await self._read_until(stream, b"\0"))[:-1].decode()
        self.asked.append(f"{host}:{port}")
        if not self.port or (self.credentials is not None and user != self.credentials[0]):
            await stream.send_all(b"\0\x5b" + bytes(6))
            return
        await self._relay(stream, b"\0\x5a" + bytes(6))

    async def _socks5(self, stream: trio.abc.Stream) -> None:
        methods = await self._read(stream, (await self._read(stream, 1))[0])
        if self.credentials is None:
            await stream.send_all(b"\x05\0")
        elif 2 not in methods:
            await stream.send_all(b"\x05\xff")
            return
        else:
            await stream.send_all(b"\x05\x02")
            assert await self._read(stream, 1) == b"\x01"
            user = (await self._read(stream, (await self._read(stream, 1))[0])).decode()
            password = (await self._read(stream, (await self._read(stream, 1))[0])).decode()
            self.users.append((user, password))
            await stream.send_all(b"\x01" + (b"\0" if (user, password) == self.credentials else b"\x01"))
            if (user, password) != self.credentials:
                return
        version, command, _, kind = await self._read(stream, 4)
        assert (version, command) == (5, 1)
        if kind == 3:
            host = (await self._read(stream, (await self._read(stream, 1))[0])).decode()
        else:
            host = str(
                IPv4Address(await self._read(stream, 4)) if kind == 1 else IPv6Address(await self._read(stream, 16))
            )
        port = int.from_bytes(await self._read(stream, 2), "big")
        self.asked.append(f"{host}:{port}")
        if not self.port:
            await stream.send_all(b"\x05\x05\0\x01" + bytes(6))
            return
        await self._relay(stream, b"\x05\0\0\x01" + bytes(6))

    async def _relay(self, near: trio.abc.Stream, answer: bytes) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as far, trio.open_nursery() as nursery:
            await near.send_all(answer)

            async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in source:
                        await sink.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(copy, near, far)
            await copy(far, near)
