"""The handlers of :func:`~trio_pyjo_ws.serve` as an ASGI application, for a host that runs on trio.

ASGI carries whole messages, and the host makes and reads the frames. So frames are made and read once more at the
border, in memory: a transport takes what the engine sends apart into ASGI's messages, and makes frames of those that
come. The engine does not notice.

The host's ``send`` must not be cancelled in the middle, because nobody knows then how much of a message has left. So
one task for each connection calls it, and the transport hands a batch of messages over to that task as a socket hands
bytes over to the kernel: without waiting if the one before was taken. Senders wait for room, and may be cancelled.

``receive`` is called only by whoever waits for a message, and one message ahead at most. While there is no room for
more, the host's own queue fills, and the host stops the client.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypedDict
from urllib.parse import quote, unquote

import trio
from trio.lowlevel import ParkingLot

from .._engine.housekeeper import Housekeeper
from .._engine.transport import Transport
from ..errors import HandshakeError, LocalProtocolError
from ..handshake.forwarded import PROXY
from ..handshake.http1 import BODILESS, caller_headers
from ..handshake.messages import HeadersLike, Request, Response, build_headers
from ..handshake.negotiate import check_chosen, check_final, check_method, refusal
from ..server.limits import Handshakes
from ..server.serving import service_of
from ..server.session import OnRequest, Origins, Session
from ..wire.codec import Decoder
from ..wire.frames import MAX_REASON, NO_CODE, check_close, parse_close
from ..wire.masking import encode
from ..wire.protocol import Agreement, Protocol

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
    from typing import Literal, NoReturn

    from typing_extensions import Unpack

    from ..json_codec import JsonCodec
    from ..options import ServerSettings
    from ..server.serving import Handlers
    from ..server.session import Service
    from ..statistics import ServerStatistics
    from ..transaction import Transaction
    from ..wire.deflate import Deflate

__all__ = ["Application", "AsgiHandshake", "AsgiOptions", "asgi"]

logger = logging.getLogger("trio_pyjo_ws")

Receive = Callable[[], Awaitable[Any]]
"""ASGI's ``receive``."""

Send = Callable[[Any], Awaitable[None]]
"""ASGI's ``send``."""

OF_THE_HOST: Final = frozenset(
    # options of serve() that have no meaning here
    {"compression", "max_handshakes", "max_header_bytes", "max_request_line", "ping_interval", "ping_timeout"}
    # and its other arguments
    | {"backlog", "handler_nursery", "host", "port", "reuse_port", "ssl_context"}
)
"""What :func:`~trio_pyjo_ws.serve` takes, and an ASGI host does itself."""

ON_TRIO: Final = "asgi() needs a host that runs on trio, such as `anycorn --worker-class trio` or `hypercorn -k trio`"

NO_MASK: Final = bytes(4)
"""A client's frames have to be masked (RFC 6455, section 5.1). With this key the bytes stay as they are."""

UNLIMITED: Final = 1 << 62
"""The frames that this side sends have no bound but its own."""

TEXT: Final = 0x81
BINARY: Final = 0x82
CLOSE: Final = 0x88

NORMAL: Final = 1000


class AsgiOptions(TypedDict, total=False):
    """The options of :func:`asgi`: those of :class:`~trio_pyjo_ws.ServerOptions` that are not the host's."""

    max_websocket_size: int | None
    max_queue: int | None
    max_queue_bytes: int | None
    write_limit: int
    open_timeout: float | None
    close_timeout: float | None
    json: JsonCodec | None
    max_connections: int | None
    max_connections_per_address: int | None
    require_subprotocol: bool
    max_message_rate: float | None
    idle_timeout: float | None
    trusted_proxies: Sequence[str | IPv4Address | IPv4Network | IPv6Address | IPv6Network]
    proxy_header: Literal["X-Forwarded-For", "Forwarded", "PROXY"]


def asgi(
    handler: Handlers,
    *,
    on_request: OnRequest | None = None,
    subprotocols: Sequence[str] = (),
    origins: Origins | None = None,
    **options: Unpack[AsgiOptions],
) -> Application:
    """Return an ASGI application that calls ``handler(transaction)`` for each WebSocket.

    All arguments are those of :func:`~trio_pyjo_ws.serve`, and everything that it says about handlers, routers,
    ``on_request`` and their exceptions holds. An option that is the host's (compression, pings, handshakes) is a
    TypeError. A request of plain HTTP goes to the router and to ``on_request``, too; what they do not answer gets 426.

    Needs a host that runs on trio. Under asyncio the application fails at startup, or at the first connection if the
    host has no lifespan. Raises TypeError or ValueError for wrong arguments.
    """
    for name in options:
        if name in OF_THE_HOST:
            raise TypeError(f"asgi() does not take {name!r}: that is the ASGI host's, which has settings of its own")
    if options.get("proxy_header") == PROXY:
        raise TypeError("asgi() does not take proxy_header='PROXY': the ASGI host reads what comes before a request")
    return Application(service_of(handler, on_request, subprotocols, origins, {**options, "ping_interval": None}))


class Application:
    """An ASGI application, made by :func:`asgi`. Hosts call it; it may be mounted in others."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __repr__(self) -> str:
        return f"<Application connections={len(self._service.connections)}>"

    @property
    def connections(self) -> frozenset[Transaction]:
        """The open connections."""
        return frozenset(self._service.connections)

    def statistics(self) -> ServerStatistics:
        """Like :meth:`Server.statistics`, for what has come to this application."""
        service = self._service
        return service.statistics(service.sessions - len(service.connections))

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one connection, one request, or the host's lifespan; as ASGI says, version 3."""
        kind = scope["type"]
        if kind == "lifespan":
            await _live(receive, send)
        elif kind in ("http", "websocket"):
            if not trio.lowlevel.in_trio_task():
                raise RuntimeError(ON_TRIO)
            await self._serve(scope, receive, send)
        else:
            raise ValueError(f"the type of an ASGI scope must be http, lifespan or websocket, not {kind!r:.60}")

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        settings = self._service.settings
        async with trio.open_nursery() as nursery:
            housekeeper = Housekeeper(nursery)
            nursery.start_soon(housekeeper.run, name="housekeeper")
            exchange = _AsgiExchange(scope, receive, send, settings, housekeeper)
            try:
                await Session(self._service, Handshakes(settings, housekeeper), exchange).run()
            finally:
                housekeeper.retire()


async def _live(receive: Receive, send: Send) -> None:
    """Serve the host's lifespan, in which there is nothing to do but to see that it runs on trio."""
    await receive()
    if not trio.lowlevel.in_trio_task():
        await send({"type": "lifespan.startup.failed", "message": ON_TRIO})
        raise RuntimeError(ON_TRIO)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _asked(host: Awaitable[Any]) -> Any:
    """What the host answers. If it raises, the connection is broken: by OSError it says that the client is gone."""
    try:
        return await host
    except Exception as exc:
        if not isinstance(exc, OSError):
            logger.info("the ASGI host has failed, which ends a connection", exc_info=exc)
        raise trio.BrokenResourceError(f"the ASGI host has failed: {exc!r:.200}") from exc


# The opening handshake


class AsgiHandshake:
    """The server's side of an opening handshake that the host reads and writes: ``ws.handshake`` of a connection."""

    rest = b""

    def __init__(self, scope: Any) -> None:
        self.scope = scope
        """ASGI's scope: ``scheme``, ``http_version``, ``state``, and what the applications around have added."""
        self.request: Request | None = None
        """The request, with its path below the mount."""
        self.response: Response | None = None
        """The response, as far as it is this side's. The host adds to it."""

    def read(self, data: bytes) -> NoReturn:
        """Raise LocalProtocolError: the host has read the request."""
        raise LocalProtocolError("the ASGI host has read the request")

    def read_eof(self) -> NoReturn:
        """Raise HandshakeError: the client has left."""
        raise HandshakeError("the client closed the connection before the handshake was complete", self.response)

    def write(self) -> bytes:
        """Return nothing: the host writes."""
        return b""

    def accept(
        self, *, subprotocol: str | None = None, deflate: Deflate | None = None, headers: HeadersLike = ()
    ) -> Agreement:
        """Agree to the WebSocket, and return what was agreed: no compression, whatever ``deflate`` says.

        Raises HandshakeError if the request does not ask for one, and ValueError for a subprotocol that the client did
        not offer, and for headers that cannot be sent or are the handshake's own.
        """
        assert self.request is not None
        own = caller_headers(headers)
        if self.scope["type"] == "http":
            try:
                check_method(self.request)
                raise refusal(HTTPStatus.UPGRADE_REQUIRED, "expected a WebSocket", {"Upgrade": "websocket"})
            except HandshakeError as error:
                self.response = error.response
                raise
        check_chosen(self.request, subprotocol)
        self.response = Response(HTTPStatus.SWITCHING_PROTOCOLS, own)
        return Agreement(subprotocol, None)

    def refuse(self, response: Response) -> None:
        """Answer with ``response`` instead. Raises ValueError for a status of 1xx."""
        check_final(response)
        self.response = response


class _AsgiExchange:
    """A request and its response as the host's messages; see :class:`~trio_pyjo_ws.server.exchange.Exchange`."""

    silent = False
    client: str | None = None  # ASGI's scope tells it.
    can_respond = True

    def __init__(
        self, scope: Any, receive: Receive, send: Send, settings: ServerSettings, housekeeper: Housekeeper
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._housekeeper = housekeeper
        self.handshake = AsgiHandshake(scope)
        self._transport = _AsgiTransport(scope, receive, send, settings.close_timeout)
        self.transport: Transport = self._transport
        self.protocol = Protocol("server", handshake=self.handshake, max_websocket_size=settings.max_websocket_size)

    async def receive(self) -> Request | None:
        """Wait for the host to announce the WebSocket. A malformed request that it has let through gets 400."""
        if self._scope["type"] == "websocket":
            event = await _asked(self._receive())
            if event["type"] != "websocket.connect":
                self.protocol.end()
                return None
        try:
            request = self.handshake.request = _request_of(self._scope)
        except ValueError as exc:
            error = refusal(HTTPStatus.BAD_REQUEST, f"malformed request: {exc}")
            assert error.response is not None
            self.protocol.refuse(error.response)
            raise error from exc
        return request

    async def respond(self) -> None:
        response = self.handshake.response
        assert response is not None
        extensions = self._scope.get("extensions") or {}
        if self.protocol.agreement is not None:
            subprotocol = self.protocol.agreement.subprotocol
            accept = {"type": "websocket.accept", "subprotocol": subprotocol, "headers": _encode(response)}
            await _asked(self._send(accept))
            self._housekeeper.start_soon(self._transport.write, "writer to the ASGI host")
        elif self._scope["type"] == "http":
            await self._refuse(response, "http.response")
        elif "websocket.http.response" in extensions:
            await self._refuse(response, "websocket.http.response")
        else:  # The client gets 403, whatever it was.
            close = {"type": "websocket.close", "code": 1008, "reason": f"HTTP {response.status}"}
            await _asked(self._send(close))

    refuse_at_once = respond

    async def _refuse(self, response: Response, kind: str) -> None:
        headers = _encode(response)
        body = response.body
        if response.status in BODILESS:
            body = b""
        else:
            headers.append((b"content-length", b"%d" % len(body)))
        if "Upgrade" in response.headers and str(self._scope.get("http_version", "1.1")).startswith("1"):
            # RFC 9110, section 7.8. HTTP/2 has neither of the two (RFC 9113, section 8.2.2).
            headers += [(b"upgrade", response.headers["Upgrade"].encode("latin-1")), (b"connection", b"upgrade")]
        await _asked(self._send({"type": f"{kind}.start", "status": response.status, "headers": headers}))
        await _asked(self._send({"type": f"{kind}.body", "body": body}))


def _encode(response: Response) -> list[tuple[bytes, bytes]]:
    """The headers of a response, but for those that belong to the host's connection."""
    hop_by_hop = ("connection", "content-length", "keep-alive", "transfer-encoding", "upgrade")
    named = ((name.lower(), value) for name, value in response.headers.items())
    return [(name.encode(), value.encode("latin-1")) for name, value in named if name not in hop_by_hop]


def _request_of(scope: Any) -> Request:
    """The request that a scope describes, with its path below the mount. Raises ValueError if it is malformed."""
    query = scope.get("query_string") or b""
    target = _path_of(scope) + (f"?{query.decode('latin-1')}" if query else "")
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    if scope["type"] == "http":
        return Request(scope["method"], target, fields)
    # HTTP/2 has no Upgrade: its WebSockets (RFC 8441) are to look like any other's.
    headers = build_headers(fields)
    wanted = {"Upgrade": "websocket", "Connection": "Upgrade"}
    fields += [(name, value) for name, value in wanted.items() if name not in headers]
    return Request("GET", target, fields)


def _path_of(scope: Any) -> str:
    """The path below the mount, as the client sent it if the host says so."""
    decoded: str = scope["path"]
    path = (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    if unquote(path) != decoded:  # Some that mount others change only the one.
        path = quote(decoded, safe="/:@!$&'()*+,;=~")
    root: str = (scope.get("root_path") or "").rstrip("/")
    if root:
        segments = path.split("/", root.count("/") + 1)
        mount = "/".join(segments[: root.count("/") + 1])
        if unquote(mount) == root:
            path = path[len(mount) :]
    return path or "/"


# The border


class _AsgiTransport(Transport):
    """Frames on this side, ASGI's messages on the other."""

    resumable = True
    closes_at_once = True

    def __init__(self, scope: Any, receive: Receive, send: Send, close_timeout: float) -> None:
        self._receive = receive
        self._send = send
        self._close_timeout = close_timeout
        self.ready = False
        self.local = _address(scope.get("server"))
        self.remote = _address(scope.get("client"))
        self._decoder = Decoder(False, UNLIMITED, False, UNLIMITED)
        self._batch: list[dict[str, Any]] = []  # what the host is to be given, until it has taken all
        self._began = 0.0  # when the host was given the first of these that it has not taken
        self._writer = ParkingLot()
        self._room = ParkingLot()
        self._writing = trio.CancelScope()
        self._waiting = trio.CancelScope()
        self._arrived: bytes | None = None
        self._close: bytes | None = None  # the payload of the Close that was sent
        self._failure: trio.BrokenResourceError | None = None  # of the host's send
        self._over = False  # the host has reported that the client is gone
        self._closed = False

    def check_frames(self, what: str) -> None:
        raise RuntimeError(f"no {what} under ASGI, which carries whole messages: the host does that")

    # Out

    def try_send(self, data: bytes | memoryview) -> int:
        if self._closed:
            raise trio.ClosedResourceError("the connection is closed")
        if self._over:
            return len(data)  # Nobody would read it.
        if self._failure is not None:
            raise trio.BrokenResourceError(str(self._failure)) from self._failure
        if self._batch:
            return 0
        self._began = trio.current_time()
        self._batch += map(self._event_of, self._decoder.decode(bytes(data), UNLIMITED))
        while self._decoder.pending:
            self._batch += map(self._event_of, self._decoder.decode(b"", UNLIMITED))
        self._writer.unpark()
        return len(data)

    def _event_of(self, item: Any) -> dict[str, Any]:
        if isinstance(item, str):
            return {"type": "websocket.send", "text": item}
        if isinstance(item, bytes):
            return {"type": "websocket.send", "bytes": item}
        self._close = item[1]
        close = parse_close(item[1])
        return {
            "type": "websocket.close",
            "code": NORMAL if close.code == NO_CODE else close.code,
            "reason": close.reason,
        }

    async def send_some(self, data: bytes | memoryview) -> int:
        if self._batch:
            await self._room.park()
        else:
            await trio.lowlevel.checkpoint()
        return self.try_send(data)

    async def write(self) -> None:
        """Give the host what is sent, until the connection is closed."""
        with self._writing:
            while self._failure is None:
                if self._batch:
                    await self._write_batch()
                elif self._closed:
                    break
                else:
                    await self._writer.park()

    async def _write_batch(self) -> None:
        try:
            for event in self._batch:
                self._began = trio.current_time()
                await _asked(self._send(event))
        except trio.BrokenResourceError as exc:
            self._failure = exc
        self._batch = []
        self._room.unpark_all()

    # In

    async def wait_receive(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the connection is closed")
        with trio.CancelScope() as self._waiting:
            self._take(await _asked(self._receive()))

    def _take(self, event: Any) -> None:
        if event["type"] == "websocket.disconnect":
            self._over = True
            self._batch = []
            self._arrived = self._close_frame(event.get("code", NO_CODE), event.get("reason") or "")
            self._writing.cancel()
            self._room.unpark_all()
        elif isinstance(text := event.get("text"), str):
            # A lone surrogate is invalid in UTF-8, so the decoder refuses it with 1007.
            self._arrived = encode(TEXT, text.encode("utf-8", "surrogatepass"), NO_MASK)
        elif isinstance(data := event.get("bytes"), bytes):
            self._arrived = encode(BINARY, data, NO_MASK)
        else:
            raise trio.BrokenResourceError(f"the ASGI host gave neither text nor bytes: {event!r:.200}")
        self.ready = True

    def _close_frame(self, code: object, reason: str) -> bytes:
        """The client's Close; nothing but the end of the stream if it was lost without one."""
        if self._close is not None and code in (NORMAL, NO_CODE):
            return encode(CLOSE, self._close, NO_MASK)  # So say hosts that do not know what it has answered.
        cut = reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore")
        try:
            payload = b"" if code in (NO_CODE, None) else check_close(code, cut)  # type: ignore[arg-type]
        except (TypeError, ValueError):  # 1006 among them
            return b""
        return encode(CLOSE, payload, NO_MASK)

    def try_receive(self) -> bytes | None:
        data, self._arrived = self._arrived, (b"" if self._over else None)
        self.ready = self._over
        return data

    def interrupt(self) -> None:
        self._waiting.cancel()

    # The end

    def send_eof(self) -> None:
        pass  # The client learns it by the Close.

    def close(self) -> None:
        self._closed = True
        self._waiting.cancel()
        self._room.unpark_all()
        if self._batch:
            # It is still sent, as the kernel does with what a closed socket has taken, but not for ever.
            self._writing.deadline = self._began + self._close_timeout
        else:
            self._writing.cancel()


def _address(given: Any) -> tuple[str | None, int | None]:
    """Host and port; the path and no port of a Unix socket's."""
    host, port = given or (None, None)
    return host, port
