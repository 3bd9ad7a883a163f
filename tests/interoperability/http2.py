"""A client of WebSockets over HTTP/2 (RFC 8441) in cleartext, of which there is hardly another."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import trio

from trio_pyjo_ws.wire.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Http2:
    """A connection, for one WebSocket after the other."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.received: list[Any] = []

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def next(self, kind: type[Any]) -> Any:
        """The next event of this kind. Raises EOFError if the server closes the connection."""
        while True:
            while self.received:
                event = self.received.pop(0)
                if isinstance(event, kind):
                    return event
            data = await self.stream.receive_some()
            if not data:
                raise EOFError
            self.received += self.h2.receive_data(bytes(data))
            await self.flush()

    async def begin(self) -> None:
        self.h2.initiate_connection()
        await self.flush()
        while not self.h2.remote_settings.enable_connect_protocol:
            await self.next(h2.events.RemoteSettingsChanged)

    async def open(self, path: str, *headers: tuple[str, str]) -> WebSocket:
        stream = self.h2.get_next_available_stream_id()
        pseudo = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
        }
        self.h2.send_headers(stream, [*pseudo.items(), ("sec-websocket-version", "13"), *headers])
        await self.flush()
        response = await self.next(h2.events.ResponseReceived)
        return WebSocket(self, stream, dict(response.headers))


class WebSocket:
    def __init__(self, connection: Http2, stream: int, headers: dict[str, str]) -> None:
        self.connection = connection
        self.stream = stream
        self.headers = headers
        self.protocol = Protocol("client")
        self.events: list[Any] = []

    async def send(self, message: str | bytes) -> None:
        self.protocol.send_message(message)
        await self.flush()

    async def close(self, code: int) -> None:
        self.protocol.send_close(code)
        await self.flush()

    async def flush(self) -> None:
        """Send what there is to send, as far as the window of a test goes."""
        data = self.protocol.client_write()
        if data:
            self.connection.h2.send_data(self.stream, data)
        await self.connection.flush()

    async def receive(self) -> Any:
        """The next event of the protocol."""
        while not self.events:
            event = await self.connection.next(h2.events.DataReceived)
            self.connection.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id == self.stream:  # and not the body of another's refusal
                self.events += self.protocol.client_read(event.data)
            await self.flush()
        return self.events.pop(0)


@asynccontextmanager
async def open_http2(port: int) -> AsyncIterator[Http2]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        connection = Http2(stream)
        await connection.begin()
        yield connection
