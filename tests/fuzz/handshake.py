"""The opening handshake: whatever comes is agreed to or refused, however it is cut, by HandshakeError alone."""

from __future__ import annotations

from contextlib import suppress

from trio_pyjo_ws.errors import HandshakeError
from trio_pyjo_ws.handshake import negotiate
from trio_pyjo_ws.handshake.http1 import ClientHandshake, ServerHandshake
from trio_pyjo_ws.handshake.messages import Request, Response
from trio_pyjo_ws.handshake.url import Url
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.protocol import Agreement, Protocol, State

from .cutting import pieces

SERVER, CLIENT, URL, EXTENSIONS = range(4)
COMPRESSION, SUBPROTOCOLS = 4, 8
ACCEPT = b"{accept}"
"""What stands in an input for the Sec-WebSocket-Accept that is right."""


def wishes(flags: int) -> Deflate | None:
    """permessage-deflate, with parameters from the upper bits."""
    if not flags & COMPRESSION:
        return None
    return Deflate(
        server_no_context_takeover=bool(flags & 16),
        client_no_context_takeover=bool(flags & 32),
        server_max_window_bits=10 if flags & 64 else 15,
        client_max_window_bits=10 if flags & 128 else 15,
    )


def serve(flags: int, data: bytes, size: int) -> bool:
    """Whether the server agrees."""
    handshake = ServerHandshake(max_header_bytes=2000, max_headers=10, max_request_line=200)
    protocol = Protocol("server", handshake=handshake)
    try:
        for piece in pieces(data, size):
            for event in protocol.server_read(piece):
                if isinstance(event, Request):
                    answer(protocol, event, flags)
        if protocol.state is State.CONNECTING:
            protocol.server_close()
    except HandshakeError as error:
        assert protocol.agreement is None
        if error.response is not None:
            assert error.response.status >= 400
            assert protocol.server_write().startswith(b"HTTP/1.1 %d " % error.response.status)
            assert protocol.state is State.FAILED
        return False
    return True


def answer(protocol: Protocol, request: Request, flags: int) -> None:
    assert repr(request)
    assert request.path + ("?" + request.query if "?" in request.target else "") == request.target
    try:
        subprotocol = negotiate.choose_subprotocol(request, ["chat", "v2"]) if flags & SUBPROTOCOLS else None
        negotiate.check_origin(request, ["http://example.org", None])
    except HandshakeError as error:
        assert error.response is not None
        protocol.refuse(error.response)
        raise
    agreement = protocol.accept(subprotocol=subprotocol, deflate=wishes(flags))
    # The client that sent this request would take the answer.
    (head, _, rest) = protocol.server_write().partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first == "HTTP/1.1 101 Switching Protocols"
    assert rest == b""
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    bare = negotiate.check_response(
        request,
        Response(101, [header for header in headers if header[0].lower() != "sec-websocket-extensions"]),
        subprotocols=[] if subprotocol is None else [subprotocol],
    )
    assert bare.subprotocol == agreement.subprotocol == subprotocol


def connect(flags: int, data: bytes, size: int) -> bool:
    """Whether the client agrees."""
    protocol = Protocol("client", handshake=client_of(flags))
    accept = accept_of(protocol).encode()
    try:
        for piece in pieces(data.replace(ACCEPT, accept), size):
            for event in protocol.client_read(piece):
                if isinstance(event, Agreement):
                    assert event.deflate is None or flags & COMPRESSION
                    assert event.subprotocol in (["chat", "v2", None] if flags & SUBPROTOCOLS else [None])
        if protocol.state is State.CONNECTING:
            protocol.client_close()
    except HandshakeError as error:
        assert protocol.agreement is None
        assert len(error.response.body if error.response else b"") <= 100
        return False
    return True


def client_of(flags: int) -> ClientHandshake:
    return ClientHandshake(
        "ws://example.org/chat",
        subprotocols=["chat", "v2"] if flags & SUBPROTOCOLS else [],
        deflate=wishes(flags),
        max_header_bytes=2000,
        max_headers=10,
        max_response_body=100,
    )


def accept_of(protocol: Protocol) -> str:
    assert protocol.handshake is not None
    assert protocol.handshake.request is not None
    return negotiate.accept_value(protocol.handshake.request.headers["Sec-WebSocket-Key"])


def check_url(text: str) -> None:
    try:
        url = Url.parse(text)
    except ValueError:
        return
    request = ClientHandshake(url).request
    assert request.target == url.target
    assert 1 <= url.port <= 65535
    again = Url.parse(f"{'wss' if url.secure else 'ws'}://{url.authority}{url.target}")
    assert again == url._replace(user_information=None)


def check_extensions(flags: int, value: str) -> None:
    own = wishes(flags | COMPRESSION)
    assert own is not None
    with suppress(HandshakeError):
        negotiate.check_agreed([value], own)
    try:
        found = negotiate.accept_offer([value], own)
    except HandshakeError as error:
        assert error.response is not None
        return
    if found is not None:
        ((name, _),) = negotiate.parse_extensions([found[0]])
        assert name == "permessage-deflate"


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, size = data[:2]
    kind = flags & 3
    sent = data[2:]
    if kind == URL:
        check_url(sent.decode("utf-8", "replace"))
    elif kind == EXTENSIONS:
        check_extensions(flags, sent.decode("latin-1"))
    elif kind == SERVER:
        assert serve(flags, sent, size) is serve(flags, sent, 0)
    else:
        assert connect(flags, sent, size) is connect(flags, sent, 0)
