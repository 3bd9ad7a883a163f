"""The state machine: whole sessions in memory, and what a peer may do to them."""

from __future__ import annotations

import sys
import zlib
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from trio_pyjo_ws.handshake.http1 import ClientHandshake, ServerHandshake
from trio_pyjo_ws.handshake.messages import Request, Response
from trio_pyjo_ws.wire.codec import MAX_EMPTY_FRAGMENTS
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode, check_close, parse_frame
from trio_pyjo_ws.wire.protocol import (
    LARGE,
    MAX_EARLY,
    MAX_WEBSOCKET_SIZE,
    Agreement,
    Pong,
    Protocol,
)
from trio_pyjo_ws.wire.states import TRANSITIONS, Signal, State

from . import raw
from .raw import BINARY, BINARY_PART, CLOSE, LAST, PART, PING, PONG, RSV1, TEXT, TEXT_PART, peak_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytestmark = pytest.mark.usefixtures("implementation")

Role = Literal["client", "server"]
BOTH_ROLES = pytest.mark.parametrize("role", ["client", "server"])
WISHES = {
    "uncompressed": None,
    "compressed": Deflate(threshold=0),
    "no context takeover": Deflate(client_no_context_takeover=True, server_no_context_takeover=True, threshold=0),
    "small windows": Deflate(client_max_window_bits=9, server_max_window_bits=9, threshold=0),
}
EVERY_WISH = pytest.mark.parametrize("deflate", WISHES.values(), ids=WISHES)


def shaken(deflate: Deflate | None = None, **options: Any) -> tuple[Protocol, Protocol]:
    """A client and a server behind their opening handshake."""
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/chat", deflate=deflate), **options)
    server = Protocol("server", handshake=ServerHandshake(), **options)
    server.server_read(client.client_write())
    server.accept(deflate=deflate)
    client.client_read(server.server_write())
    return client, server


def alone(role: Role = "server", deflate: Deflate | None = None, **options: Any) -> Protocol:
    """One side that is open, and whose peer is the test."""
    agreement = None if deflate is None else Agreement(None, deflate.codec(client=role == "client"))
    return Protocol(role, agreement=agreement, **options)


def peer(protocol: Protocol, *frames: tuple[int, bytes]) -> bytes:
    """What the peer of ``protocol`` puts on the wire."""
    return raw.wire(frames, protocol.role == "server")


def read(protocol: Protocol, *frames: tuple[int, bytes]) -> list[Any]:
    return list(chain(*drain(protocol, peer(protocol, *frames))))


def sent(protocol: Protocol) -> list[tuple[int, bytes]]:
    """The frames that wait to be written; they are masked exactly where a client sends them."""
    buffer = bytearray(protocol.client_write())
    frames = []
    while buffer:
        assert bool(buffer[1] & 0x80) is (protocol.role == "client")
        frame = parse_frame(buffer)
        assert frame is not None
        frames.append((frame.head, frame.payload))
    return frames


def state_of(protocol: Protocol) -> State:
    return protocol.state  # through a call, or mypy would take it for the same for ever


def codes(events: Iterable[Any]) -> list[Any]:
    """The events, an error as its code."""
    return [event.code if isinstance(event, RemoteProtocolError) else event for event in events]


def drain(protocol: Protocol, data: bytes, **limits: Any) -> list[list[Any]]:
    """What is read, portion by portion."""
    portions = [protocol.client_read(data, **limits)]
    while protocol.pending:
        portions.append(protocol.client_read(**limits))
    return portions


def deflated(*parts: bytes) -> list[bytes]:
    """The fragments of one compressed message, each of which inflates to just its part."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    found = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*found[:-1], found[-1][:-4]]


def in_state(state: State, role: Role = "server") -> Protocol:
    """A connection that came to ``state`` by what it sent and received."""
    if state is State.CONNECTING:
        handshake: Any = ServerHandshake() if role == "server" else ClientHandshake("ws://example.org/")
        return Protocol(role, handshake=handshake)
    protocol = alone(role)
    if state is State.CLOSING:
        protocol.send_close(1000)
    elif state is State.CLOSED:
        read(protocol, (CLOSE, b"\x03\xe8"))
    elif state is State.FAILED:
        read(protocol, (0x83, b""))
    elif state is State.ENDED:
        protocol.read_eof()
    assert protocol.state is state
    protocol.client_write()
    return protocol


# A session from its beginning to its end


def test_session_of_the_module() -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/chat", subprotocols=["v1", "v2"]))
    server = Protocol("server", handshake=ServerHandshake())
    assert (repr(client), repr(server)) == ("<Protocol client connecting>", "<Protocol server connecting>")
    (request,) = server.server_read(client.client_write())
    assert isinstance(request, Request)
    assert request.target == "/chat"
    agreement = server.accept(subprotocol="v2", headers={"X-Hello": "World"})
    assert agreement == Agreement("v2", None)
    assert server.agreement is agreement
    assert client.client_read(server.server_write()) == [Agreement("v2", None)]
    assert (client.plain, server.plain) == (False, False)
    assert client.agreement == Agreement("v2", None)
    assert client.handshake is not None
    assert client.handshake.response is not None
    assert client.handshake.response.headers["x-hello"] == "World"
    assert state_of(client) is state_of(server) is State.OPEN
    client.send_message("Hello")
    assert server.server_read(client.client_write()) == ["Hello"]
    assert server.plain
    server.send_message(b"\xff")
    server.send_message("World!")
    assert client.client_read(server.server_write()) == [b"\xff", "World!"]
    client.send_close(1000, "done")
    assert state_of(client) is State.CLOSING
    assert server.server_read(client.client_write()) == [Close(1000, "done")]
    assert state_of(server) is State.CLOSED
    assert server.close == Close(1000, "done")
    assert client.client_read(server.server_write()) == [Close(1000, "done")]
    assert state_of(client) is State.CLOSED
    client.client_close()
    server.server_close()
    assert state_of(client) is state_of(server) is State.ENDED
    assert client.close == server.close == Close(1000, "done")
    assert client.client_write() == server.server_write() == b""
    assert repr(client) == "<Protocol client ended>"


@EVERY_WISH
def test_messages_of_a_session_arrive(deflate: Deflate | None) -> None:
    client, server = shaken(deflate)
    messages: list[str | bytes] = ["", b"", "x", "Hello " * 100, bytes(range(256)) * 20, "κόσμε", "Hello " * 100]
    for sender, receiver in ((client, server), (server, client)):
        for _ in range(2):
            for message in messages:
                sender.send_message(message)
                assert receiver.server_read(sender.client_write()) == [message]
        for message in messages:
            sender.send_message(message)
        assert receiver.server_read(sender.client_write()) == messages


@EVERY_WISH
def test_rsv1_is_set_exactly_where_a_message_is_compressed(deflate: Deflate | None) -> None:
    for protocol in shaken(deflate):
        protocol.send_message("Hello")
        protocol.send_message(b"Hello")
        protocol.send_close()
        rsv1 = 0 if deflate is None else RSV1
        assert [head for head, _ in sent(protocol)] == [TEXT | rsv1, BINARY | rsv1, CLOSE]


def test_context_is_taken_over_where_that_was_agreed() -> None:
    for deflate, shrinks in ((Deflate(threshold=0), True), (WISHES["no context takeover"], False)):
        for protocol in shaken(deflate):
            protocol.send_message("Hello World! " * 3)
            protocol.send_message("Hello World! " * 3)
            (_, first), (_, second) = sent(protocol)
            assert (len(second) < len(first)) is shrinks
            assert (first == second) is not shrinks


@EVERY_WISH
def test_successive_messages_decode_byte_by_byte(deflate: Deflate | None) -> None:
    client, server = shaken(deflate)
    for message in ("Hello " * 10, b"Hello " * 10, "Hello " * 11):
        client.send_message(message)
    data = client.client_write()
    events = [event for index in range(len(data)) for event in server.server_read(data[index : index + 1])]
    assert events == ["Hello " * 10, b"Hello " * 10, "Hello " * 11]


def test_compression_may_be_left_out_message_by_message() -> None:
    client, server = shaken(Deflate(threshold=0))
    assert client.compressed
    assert server.compressed
    client.compressed = False
    client.send_message("Hello " * 10)
    client.compressed = True
    client.send_message("Hello " * 10)
    data = client.client_write()
    assert data[0] == TEXT
    assert server.server_read(data) == ["Hello " * 10] * 2


@pytest.mark.parametrize("message", ["a" * 99, b"a" * 99, "ä" * 49 + "a"], ids=["text", "binary", "two bytes each"])
def test_message_under_the_threshold_goes_uncompressed(message: str | bytes) -> None:
    for protocol in shaken(Deflate(threshold=100)):
        protocol.send_message(message)
        protocol.send_message(message + message[:1])
        (under, payload), (at, compressed) = sent(protocol)
        assert (under & RSV1, len(payload)) == (0, 99)
        assert at & RSV1
        assert len(compressed) < 20


def test_threshold_is_this_side_s_own_and_128_bytes_by_default() -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/", deflate=Deflate(threshold=7)))
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(client.client_write())
    server.accept(deflate=Deflate())
    client.client_read(server.server_write())
    for protocol, threshold in ((client, 7), (server, 128)):
        for size in (threshold - 1, threshold):
            protocol.send_message("a" * size)
        assert [head & RSV1 for head, _ in sent(protocol)] == [0, RSV1]


@EVERY_WISH
def test_messages_under_the_threshold_leave_the_context_as_it_is(deflate: Deflate | None) -> None:
    client, server = shaken(deflate and replace(deflate, threshold=50))
    messages = ["Hello " * 10, "Hello", "Hello " * 10, "", "Hello " * 11]
    for message in messages:
        client.send_message(message)
    assert server.server_read(client.client_write()) == messages


def test_compress_decides_for_one_message() -> None:
    client, server = shaken(Deflate(threshold=50))
    for switched in (True, False):
        client.compressed = switched
        for message in ("", "Hello", b"Hello " * 100):
            for compress in (True, False):
                client.send_message(message, compress)
                data = client.client_write()
                assert bool(data[0] & RSV1) is compress
                assert server.server_read(data) == [message]
            client.masked = False
            assert bool(client.encode_message(message, False)[0] & RSV1) is False
            client.masked = True


@BOTH_ROLES
@pytest.mark.parametrize(
    ("deflate", "reason"),
    [
        (None, "the handshake has not agreed on permessage-deflate"),
        (
            Deflate(server_max_window_bits=8, client_max_window_bits=8),
            "agreed with a window of 8 bits",
        ),
    ],
)
def test_compress_needs_the_agreement_and_changes_nothing(role: Role, deflate: Deflate | None, reason: str) -> None:
    protocol = alone(role, deflate)
    with pytest.raises(ValueError, match=reason):
        protocol.check_can_compress()
    for send in (protocol.send_message, protocol.encode_message):
        with pytest.raises(ValueError, match=reason):
            send("Hello" * 100, compress=True)
    assert sent(protocol) == []
    protocol.send_message("Hello", compress=False)
    assert sent(protocol) == [(TEXT, b"Hello")]
    with pytest.raises(ValueError, match="not agreed"):
        in_state(State.CONNECTING, role).check_can_compress()


def kind_of(**wishes: Any) -> tuple[int, ...] | None:
    return alone("server", Deflate(**wishes)).frame_kind


def test_frames_of_one_kind_are_alike() -> None:
    alone_each = {"server_no_context_takeover": True}
    others = [
        {"server_max_window_bits": 9},
        {"level": 1},
        {"memory_level": 1},
        {"threshold": 40},
    ]
    kinds = [(), kind_of(**alone_each), *(kind_of(**alone_each, **other) for other in others)]
    assert None not in kinds
    assert len(set(kinds)) == len(kinds)
    assert kind_of(**alone_each) == kind_of(**alone_each, client_max_window_bits=9, client_no_context_takeover=True)
    first, second = (alone("server", Deflate(**alone_each)) for _ in range(2))
    assert first.frame_kind == second.frame_kind
    second.send_message("Something else " * 100)
    for message in ("Hello", "Hello " * 100, b"Hello " * 100):
        assert first.encode_message(message) == second.encode_message(message)


def test_frames_that_are_not_compressed_are_alike() -> None:
    switched = alone("server", Deflate())
    switched.compressed = False
    cannot = alone("server", Deflate(server_max_window_bits=8))
    assert alone("server").frame_kind == switched.frame_kind == cannot.frame_kind == ()


def test_frames_that_are_each_their_own_are_of_no_kind() -> None:
    assert kind_of() is None  # The context is taken over.
    assert alone("client").frame_kind is None  # Each has its own masking key.
    assert alone("client", Deflate(client_no_context_takeover=True)).frame_kind is None


def test_side_that_cannot_compress_does_not() -> None:
    client = alone("client", Deflate(client_max_window_bits=8))
    server = alone("server", Deflate(client_max_window_bits=8, threshold=0))
    assert not client.compressed
    client.send_message("Hello")
    assert server.server_read(client.client_write()) == ["Hello"]
    server.send_message("Hello")
    assert server.outgoing[0][0] == TEXT | RSV1
    assert client.client_read(server.server_write()) == ["Hello"]


@BOTH_ROLES
def test_connection_without_a_handshake_is_open_at_once(role: Role) -> None:
    protocol = Protocol(role)
    assert state_of(protocol) is State.OPEN
    assert protocol.agreement == Agreement(None, None)
    assert protocol.handshake is None
    assert protocol.close is None
    assert protocol.plain
    assert not protocol.pending
    assert Protocol(role, agreement=Agreement("v1")).agreement == Agreement("v1")


def test_role_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="the role must be 'client' or 'server', not 'proxy'"):
        Protocol("proxy")  # type: ignore[arg-type]


def test_only_the_client_masks() -> None:
    client, server = shaken()
    client.send_message("Hello")
    server.send_message("Hello")
    assert server.server_write() == b"\x81\x05Hello"
    masked = client.client_write()
    assert masked[:2] == b"\x81\x85"
    assert len(masked) == 11
    assert sent(client) == []


def test_what_is_to_be_sent_is_taken_once() -> None:
    client = alone("client")
    assert (client.outgoing, client.outgoing_size) == ([], 0)
    client.send_message("ab")
    client.send_message(b"cde")
    assert [len(data) for data in client.outgoing] == [8, 9]
    assert client.outgoing_size == 17
    assert len(client.client_write()) == 17
    assert (client.outgoing, client.outgoing_size) == ([], 0)
    assert client.client_write() == b""


# The opening handshake


@EVERY_WISH
def test_frames_right_behind_the_request_are_delivered(deflate: Deflate | None) -> None:
    # A client cannot know the agreement that early, so its frames are uncompressed.
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/", deflate=deflate))
    server = Protocol("server", handshake=ServerHandshake())
    early = peer(server, (TEXT, b"early"), (PING, b"p"), (BINARY, b"bird"))
    (request,) = server.server_read(client.client_write() + early)
    assert isinstance(request, Request)
    server.accept(deflate=deflate)
    assert server.pending
    assert server.server_read() == ["early", b"bird"]
    assert client.client_read(server.server_write()) == [client.agreement]
    assert client.client_read() == [Pong(b"p")]


@EVERY_WISH
def test_frames_right_behind_the_response_are_delivered(deflate: Deflate | None) -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/", deflate=deflate))
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(client.client_write())
    server.accept(deflate=deflate)
    server.send_message("early")
    server.send_message(b"bird")
    server.send_close(1001)
    (agreement,) = client.client_read(server.server_write())
    assert isinstance(agreement, Agreement)
    assert client.pending
    assert client.client_read() == ["early", b"bird", Close(1001)]
    assert not client.pending


def test_options_may_be_set_before_the_handshake_has_ended() -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/"))
    server = Protocol("server", handshake=ServerHandshake())
    server.max_websocket_size = 3
    server.watch_frames = True
    server.server_read(client.client_write() + peer(server, (TEXT, b"abc"), (TEXT, b"abcd")))
    server.accept()
    assert codes(read(server)) == [Frame(True, False, False, False, 1, b"abc"), "abc", 1009]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_frames_come_before_the_request_is_answered_in_any_pieces(size: int) -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/"))
    server = Protocol("server", handshake=ServerHandshake())
    data = client.client_write() + peer(server, (TEXT, b"early"), (TEXT, b"bird"))
    events = [event for start in range(0, len(data), size) for event in server.server_read(data[start : start + size])]
    assert len(events) == 1
    server.accept()
    assert server.server_read(peer(server, (TEXT, b"late"))) == ["early", "bird", "late"]
    assert read(server, (TEXT_PART, b"in "), (LAST, b"parts")) == ["in parts"]


def test_what_comes_before_the_request_is_answered_is_bounded() -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/"))
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(client.client_write())
    assert server.server_read(bytes(MAX_EARLY)) == []
    with pytest.raises(HandshakeError, match="more than 65536 bytes came before the request was answered"):
        server.server_read(b"x")
    assert state_of(server) is State.FAILED
    assert server.server_read(b"x") == []
    with pytest.raises(LocalProtocolError, match="this is a server that is failed"):
        server.accept()


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@EVERY_WISH
def test_handshake_and_frames_may_arrive_in_any_pieces(deflate: Deflate | None, size: int) -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/", deflate=deflate))
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(client.client_write())
    server.accept(deflate=deflate)
    server.send_message("Hello")
    data = server.server_write()
    events = []
    for start in range(0, len(data), size):
        events += client.client_read(data[start : start + size])
    events += client.client_read()
    assert events == [client.agreement, "Hello"]


def test_request_that_is_not_http_is_answered_and_raises() -> None:
    server = Protocol("server", handshake=ServerHandshake())
    with pytest.raises(HandshakeError, match="malformed request"):
        server.server_read(b"\x16\x03\x01 hello\r\n\r\n")
    assert state_of(server) is State.FAILED
    assert server.server_write().startswith(b"HTTP/1.1 400 ")
    assert server.server_read(b"more") == []
    server.read_eof()
    assert server.close == Close(1006, "the connection was lost without a closing handshake")


def test_request_that_opens_no_websocket_is_answered_and_raises() -> None:
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(HandshakeError):
        server.accept()
    assert state_of(server) is State.FAILED
    assert server.agreement is None
    assert server.server_write().startswith(b"HTTP/1.1 426 ")


def test_agreement_that_cannot_be_changes_nothing() -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/", subprotocols=["v1"]))
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(client.client_write())
    with pytest.raises(ValueError, match="subprotocol must be one that the client offered, not 'v2'"):
        server.accept(subprotocol="v2")
    assert state_of(server) is State.CONNECTING
    assert server.server_write() == b""
    assert server.accept(subprotocol="v1").subprotocol == "v1"


def test_refused_request_ends_the_connection() -> None:
    client = Protocol("client", handshake=ClientHandshake("ws://example.org/"))
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(client.client_write())
    server.refuse(Response(403, body="no entry"))
    assert state_of(server) is State.FAILED
    assert server.server_read(b"more") == []
    with pytest.raises(LocalProtocolError, match="cannot be sent: the connection is failed"):
        server.send_message("Hello")
    with pytest.raises(HandshakeError) as caught:
        client.client_read(server.server_write())
    assert caught.value.response is not None
    assert (caught.value.response.status, caught.value.response.body) == (403, b"no entry")
    assert state_of(client) is State.FAILED
    assert client.client_read(b"more") == []
    client.client_close()
    assert state_of(client) is State.ENDED


def test_server_may_refuse_before_there_is_a_request() -> None:
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(b"GET / HTTP")
    server.refuse(Response(503))
    assert server.server_write().startswith(b"HTTP/1.1 503 ")
    assert state_of(server) is State.FAILED


def test_request_is_answered_once_by_a_server() -> None:
    answers: list[Callable[[Protocol], object]] = [lambda it: it.accept(), lambda it: it.refuse(Response(403))]
    for answer in answers:
        for protocol in (
            in_state(State.CONNECTING, "client"),
            in_state(State.OPEN),
            shaken()[1],
            in_state(State.FAILED),
            in_state(State.ENDED),
        ):
            before = protocol.state
            with pytest.raises(LocalProtocolError, match="there is no request to answer: this is a"):
                answer(protocol)
            assert state_of(protocol) is before
    server = in_state(State.CONNECTING)
    with pytest.raises(LocalProtocolError, match="no request"):
        server.accept()
    assert state_of(server) is State.CONNECTING


# The table


EXPECTED = {
    ("CONNECTING", "ESTABLISHED"): "OPEN",
    ("CONNECTING", "REFUSED"): "FAILED",
    ("OPEN", "CLOSE_SENT"): "CLOSING",
    ("OPEN", "CLOSE_RECEIVED"): "CLOSED",
    ("OPEN", "BREACH"): "FAILED",
    ("CLOSING", "CLOSE_RECEIVED"): "CLOSED",
    ("CLOSING", "BREACH"): "FAILED",
    **{(state.name, "END"): "ENDED" for state in State},
}


def test_the_table_has_these_transitions_and_no_others() -> None:
    table = {
        (state.name, signal.name): target.name for state, row in TRANSITIONS.items() for signal, target in row.items()
    }
    assert table == EXPECTED


REQUEST = ClientHandshake("ws://example.org/").write()
CAUSES: dict[Signal, Callable[[Protocol], object]] = {
    Signal.ESTABLISHED: lambda protocol: protocol.accept(),
    Signal.REFUSED: lambda protocol: protocol.refuse(Response(403)),
    Signal.CLOSE_SENT: lambda protocol: protocol.send_close(1000),
    Signal.BREACH: lambda protocol: protocol.fail(1002, ""),
    Signal.END: lambda protocol: protocol.end(),
}


@pytest.mark.parametrize(("signal", "cause"), CAUSES.items())
@pytest.mark.parametrize("state", State)
def test_every_transition(state: State, signal: Signal, cause: Callable[[Protocol], object]) -> None:
    protocol = in_state(state)
    protocol.read(REQUEST if state is State.CONNECTING else b"", 1, 1)
    if signal in TRANSITIONS[state]:
        cause(protocol)
        assert protocol.state is TRANSITIONS[state][signal]
    else:
        with pytest.raises(LocalProtocolError, match=state.value):
            cause(protocol)
        assert protocol.state is state


@pytest.mark.parametrize("state", State)
def test_close_is_received_once_and_while_it_may_come(state: State) -> None:
    protocol = in_state(state)
    before = protocol.state
    if Signal.CLOSE_RECEIVED in TRANSITIONS[state]:
        assert read(protocol, (CLOSE, b"\x03\xe8")) == [Close(1000)]
        assert protocol.state is TRANSITIONS[state][Signal.CLOSE_RECEIVED]
    elif state is not State.CONNECTING:
        assert read(protocol, (CLOSE, b"\x03\xe8")) == []
        assert protocol.state is before


ACTIONS: dict[str, Callable[[Protocol], object]] = {
    "send_message": lambda protocol: protocol.send_message("Hello"),
    "send_frame": lambda protocol: protocol.send_frame(Frame(True, False, False, False, PING, b"")),
    "send_close": lambda protocol: protocol.send_close(1000),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("state", [state for state in State if state is not State.OPEN])
def test_nothing_is_sent_unless_the_connection_is_open(state: State, action: Callable[[Protocol], object]) -> None:
    protocol = in_state(state)
    with pytest.raises(LocalProtocolError, match=f"cannot be sent: the connection is {state.value}"):
        action(protocol)
    assert protocol.state is state
    assert protocol.client_write() == b""


@pytest.mark.parametrize("state", [State.CLOSED, State.FAILED, State.ENDED])
def test_nothing_is_read_any_more(state: State) -> None:
    protocol = in_state(state)
    before = protocol.close
    data = peer(protocol, (TEXT, b"Hello"), (PING, b""), (CLOSE, b"\x03\xe9"), (0x83, b""))

    def flood() -> None:
        for _ in range(100):
            assert protocol.client_read(data * 100) == []

    assert peak_of(flood) < 10_000
    assert not protocol.pending
    assert protocol.state is state
    assert protocol.close == before
    assert protocol.client_write() == b""


# The end of the stream

END_OF = {
    State.OPEN: 1006,
    State.CLOSING: 1006,
    State.CLOSED: 1000,
    State.FAILED: 1002,
    State.ENDED: 1006,
}


@BOTH_ROLES
@pytest.mark.parametrize(("state", "code"), END_OF.items(), ids=[state.value for state in END_OF])
def test_end_of_stream_keeps_the_code_that_was_received(role: Role, state: State, code: int) -> None:
    protocol = in_state(state, role)
    protocol.read_eof()
    assert state_of(protocol) is State.ENDED
    assert protocol.close is not None
    assert protocol.close.code == code
    assert protocol.client_write() == b""


@BOTH_ROLES
def test_end_of_stream_in_the_handshake_raises(role: Role) -> None:
    protocol = in_state(State.CONNECTING, role)
    with pytest.raises(HandshakeError, match="closed the connection before the handshake was complete"):
        protocol.read_eof()
    assert state_of(protocol) is State.ENDED
    assert protocol.close is not None
    assert protocol.close.code == 1006
    protocol.read_eof()
    assert protocol.client_read(b"more") == []


def test_end_of_this_side_raises_nothing() -> None:
    protocol = in_state(State.CONNECTING)
    protocol.end()
    assert state_of(protocol) is State.ENDED
    assert protocol.close == Close(1006, "the connection was lost without a closing handshake")


# Pings


@BOTH_ROLES
def test_ping_is_answered_with_its_payload(role: Role) -> None:
    protocol = alone(role)
    assert read(protocol, (PING, b"Test 123"), (TEXT, b"a"), (PING, b"\xff" * 125)) == ["a"]
    assert protocol.pings_owed == 2
    assert sent(protocol) == [(PONG, b"Test 123"), (PONG, b"\xff" * 125)]
    assert protocol.pings_owed == 0


@BOTH_ROLES
def test_pong_is_an_event(role: Role) -> None:
    protocol = alone(role)
    assert read(protocol, (PONG, b"Test 123"), (TEXT, b"a"), (PONG, b"")) == [Pong(b"Test 123"), "a", Pong(b"")]
    assert not protocol.plain
    assert protocol.client_write() == b""


def test_ping_in_the_middle_of_a_message_is_answered_at_once() -> None:
    server = alone()
    assert read(server, (TEXT_PART, b"a"), (PING, b"p")) == []
    assert sent(server) == [(PONG, b"p")]
    assert read(server, (LAST, b"b")) == ["ab"]


def test_ping_is_answered_until_a_close_was_received() -> None:
    # Section 5.5.2: also behind a Close that was sent.
    server = in_state(State.CLOSING)
    assert read(server, (PING, b"p"), (PONG, b"q"), (CLOSE, b"\x03\xe8"), (PING, b"r")) == [Pong(b"q"), Close(1000)]
    assert sent(server) == [(PONG, b"p")]
    assert server.pings_owed == 0


# Fragments


def test_fragments_are_one_message() -> None:
    for part, expected in ((TEXT_PART, "Hello"), (BINARY_PART, b"Hello")):
        server = alone()
        assert read(server, (part, b"He")) == []
        assert read(server, (PART, b""), (PART, b"l")) == []
        assert read(server, (LAST, b"lo"), (TEXT, b"next")) == [expected, "next"]
        assert read(server, (part, b""), (LAST, b"")) == [expected[:0]]
        (whole,) = read(server, (part, b""), (LAST, b"Hello"))
        assert whole == expected
        assert type(whole) is type(expected)


def test_fragments_sent_frame_by_frame_arrive_as_one_message() -> None:
    client, server = shaken(Deflate(threshold=0))
    client.send_frame(Frame(False, False, False, False, Opcode.TEXT, b"Hel"))
    client.send_frame(Frame(True, False, False, False, Opcode.PING, b"p"))
    client.send_frame(Frame(True, False, False, False, Opcode.CONTINUATION, b"lo"))
    assert server.server_read(client.client_write()) == ["Hello"]
    assert client.client_read(server.server_write()) == [Pong(b"p")]


@pytest.mark.parametrize("deflate", list(WISHES.values())[1:], ids=list(WISHES)[1:])
def test_compressed_fragments_carry_rsv1_on_the_first_only(deflate: Deflate) -> None:
    client, server = shaken(deflate)
    assert client.agreement is not None
    assert client.agreement.deflate is not None
    for _ in range(2):
        for part in (TEXT_PART, BINARY_PART):
            text = "κόσμε Hello World! " * 5
            payload = client.agreement.deflate.compress(text.encode())
            frames = [(PART, payload[index : index + 1]) for index in range(len(payload))]
            frames[0] = (part | RSV1, payload[:1])
            assert read(server, *frames, (PING, b"")) == []
            assert read(server, (LAST, b"")) == [text if part == TEXT_PART else text.encode()]
            client.send_message("whole")
            assert server.server_read(client.client_write()) == ["whole"]
            assert read(server, (TEXT_PART, b"plain"), (LAST, b" text")) == ["plain text"]


def test_continuation_with_rsv1_is_a_breach() -> None:
    server = alone(deflate=Deflate(threshold=0))
    payload = deflated(bytes(10))[0]
    assert codes(read(server, (BINARY_PART | RSV1, payload[:2]), (LAST | RSV1, payload[2:]))) == [1002]


def test_65536_one_byte_fragments_are_assembled_in_one_buffer() -> None:
    server = alone()
    data = peer(server, (TEXT_PART, b"*"), *[(PART, b"*")] * 65_534, (LAST, b"*"))
    events: list[Any] = []

    def receive() -> None:
        for start in range(0, len(data), 4096):
            events.extend(server.server_read(data[start : start + 4096]))

    # As many objects would take over 5 MB.
    assert peak_of(receive) < 500_000
    assert events == ["*" * 65_536]


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
def test_endless_empty_fragments_are_abuse(deflate: Deflate | None) -> None:
    server = alone(deflate=deflate)
    first = (BINARY_PART, b"") if deflate is None else (BINARY_PART | RSV1, b"")
    last = (LAST, b"") if deflate is None else (LAST, b"\x00")
    # As many as are allowed, and in the next message as many again.
    for _ in range(2):
        assert read(server, first, *[(PART, b"")] * (MAX_EMPTY_FRAGMENTS - 1), (PING, b""), last) == [b""]
        server.client_write()
    assert codes(read(server, first, *[(PART, b"")] * MAX_EMPTY_FRAGMENTS)) == [1008]
    assert sent(server)[0][1][:2] == (1008).to_bytes(2, "big")
    assert state_of(server) is State.FAILED


def test_fragments_that_carry_something_are_not_counted() -> None:
    server = alone(max_empty_fragments=1)
    assert read(server, (TEXT_PART, b"a"), (PART, b""), *[(PART, b"b")] * 10, (LAST, b"")) == ["a" + "b" * 10]
    assert codes(read(server, (TEXT_PART, b"a"), (PART, b""), (PART, b"b"), (PART, b""))) == [1008]


# Size


def test_size_of_a_message_is_bounded_by_default() -> None:
    server = alone()
    assert server.max_websocket_size == MAX_WEBSOCKET_SIZE == 262_144
    assert read(server, (BINARY, bytes(262_144))) == [bytes(262_144)]
    assert codes(server.server_read(b"\x82\xff" + (262_145).to_bytes(8, "big"))) == [1009]


@pytest.mark.parametrize("size", [sys.maxsize, 1 << 63, 1 << 200, None])
def test_size_of_a_message_may_be_without_bounds(size: int | None) -> None:
    server = alone(max_websocket_size=size or sys.maxsize, deflate=Deflate(threshold=0))
    assert server.max_websocket_size >= 1 << 62
    frames = [(BINARY, b"a"), (BINARY | RSV1, deflated(b"b")[0]), (BINARY_PART, b"c")]
    assert read(server, *frames) == [b"a", b"b"]
    server.max_websocket_size = 5
    server.max_websocket_size = size
    assert server.max_websocket_size >= 1 << 62
    assert codes(server.server_read(b"\x00\xff" + b"\x7f" + b"\xff" * 7)) == [1009]


@pytest.mark.parametrize("size", [-1, 1.5, "1", True])
def test_size_of_a_message_is_a_number_of_bytes(size: Any) -> None:
    server = alone(max_websocket_size=5)
    with pytest.raises(ValueError, match=f"max_websocket_size must be a number of bytes or None, not {size!r}"):
        server.max_websocket_size = size
    assert server.max_websocket_size == 5
    server.max_websocket_size = 0
    assert codes(read(server, (TEXT, b""), (TEXT, b"a"))) == ["", 1009]


@pytest.mark.parametrize("limit", [0, 1, 1000])
def test_limit_is_the_same_for_whole_and_fragmented_and_compressed(limit: int) -> None:
    for payload, fine in ((bytes(limit), True), (bytes(limit + 1), False)):
        expected = [payload] if fine else [1009]
        small = deflated(payload)[0] if payload else b"\x00"
        for frames in (
            [(BINARY, payload)],
            [(BINARY_PART, payload[:1]), (LAST, payload[1:])],
            [(BINARY | RSV1, small)],
            [(BINARY_PART | RSV1, small[:2]), (PART, small[2:]), (LAST, b"")],
        ):
            server = alone(deflate=Deflate(threshold=0), max_websocket_size=limit)
            assert codes(read(server, *frames)) == expected


def test_bomb_is_not_inflated_past_the_limit() -> None:
    bomb = deflated(bytes(50_000_000))[0]
    server = alone(deflate=Deflate(threshold=0), max_websocket_size=100_000)
    data = peer(server, (BINARY | RSV1, bomb))
    events: list[Any] = []
    assert peak_of(lambda: events.extend(server.server_read(data))) < 500_000
    assert codes(events) == [1009]
    assert server.close is not None
    assert server.close.code == 1009


def test_fragmented_bomb_is_told_before_the_message_ends() -> None:
    parts = deflated(bytes(600), bytes(600), bytes(600))
    server = alone(deflate=Deflate(threshold=0), max_websocket_size=1000)
    assert read(server, (BINARY_PART | RSV1, parts[0])) == []
    assert codes(read(server, (PART, parts[1]))) == [1009]
    assert read(server, (LAST, parts[2])) == []


def test_bomb_with_context_takeover_is_told_too() -> None:
    client, server = shaken(Deflate(threshold=0), max_websocket_size=1000)
    for _ in range(3):
        client.send_message(bytes(1000))
        assert server.server_read(client.client_write()) == [bytes(1000)]
    client.send_message(bytes(1001))
    assert codes(server.server_read(client.client_write())) == [1009]


def test_budget_that_is_used_up_is_not_unlimited() -> None:
    first, rest = deflated(bytes(1000), bytes(10_000_000))
    server = alone(deflate=Deflate(threshold=0), max_websocket_size=1000)
    assert read(server, (BINARY_PART | RSV1, first)) == []
    data = peer(server, (PART, rest[:1000]))
    events: list[Any] = []
    assert peak_of(lambda: events.extend(server.server_read(data))) < 50_000
    assert codes(events) == [1009]
    server = alone(deflate=Deflate(threshold=0), max_websocket_size=1000)
    assert read(server, (BINARY_PART | RSV1, first), (LAST, b"\x00")) == [bytes(1000)]


def test_limit_may_be_lowered_in_the_middle_of_a_message() -> None:
    first, rest = deflated(bytes(600), bytes(600))
    for frames in ([(BINARY_PART | RSV1, first), (PART, rest)], [(BINARY_PART, bytes(600)), (LAST, b"x")]):
        server = alone(deflate=Deflate(threshold=0))
        assert read(server, frames[0]) == []
        server.max_websocket_size = 500
        assert codes(read(server, frames[1])) == [1009]


@pytest.mark.parametrize(
    "frames",
    [
        [(BINARY | RSV1, b"\xff\xff\xff")],
        [(TEXT_PART | RSV1, b"\x07"), (LAST, b"\xff")],
        [(BINARY | RSV1, b"\xf2\x48\xcd")],  # torn
    ],
)
def test_data_that_does_not_inflate_is_invalid(frames: list[tuple[int, bytes]]) -> None:
    server = alone(deflate=Deflate(threshold=0))
    assert codes(read(server, *frames)) == [1007]
    assert sent(server)[0][1][:2] == (1007).to_bytes(2, "big")


# Portions


@EVERY_WISH
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_messages_come_in_portions(deflate: Deflate | None, limit: int) -> None:
    client, server = shaken(deflate)
    messages = [f"message {index}" for index in range(7)]
    for message in messages:
        client.send_message(message)
    portions = drain(server, client.client_write(), max_messages=limit)
    assert portions == [messages[start : start + limit] for start in range(0, 7, limit)]
    assert not server.pending


@EVERY_WISH
def test_portions_take_new_data_in(deflate: Deflate | None) -> None:
    client, server = shaken(deflate)
    for index in range(5):
        client.send_message(f"{index}")
    assert server.server_read(client.client_write(), max_messages=2) == ["0", "1"]
    assert server.pending
    client.send_message("5")
    assert server.server_read(client.client_write(), max_messages=2) == ["2", "3"]
    assert server.server_read() == ["4", "5"]
    assert not server.pending


def test_portion_ends_at_the_bytes_that_messages_inflate_to() -> None:
    client, server = shaken(Deflate(threshold=0))
    for _ in range(20):
        client.send_message(bytes(10_000))
    data = client.client_write()
    assert len(data) < 2000
    # It stops once 50,000 are reached: each message takes 10,033, and its step and its end have their price.
    portions = drain(server, data, max_bytes=50_000)
    assert [len(portion) for portion in portions] == [3] * 6 + [2]
    assert all(message == bytes(10_000) for portion in portions for message in portion)


def test_chunk_of_many_bombs_takes_one_portion_of_memory() -> None:
    client, server = shaken(Deflate(threshold=0))
    for _ in range(100):
        client.send_message(bytes(200_000))
    data = client.client_write()
    assert peak_of(lambda: server.server_read(data, max_bytes=100_000)) < 700_000
    assert server.pending


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
@pytest.mark.parametrize("flood", [[(PING, b"")], [(PONG, b"")], [(PART, b"a")], [(PART, b"a"), (PING, b"")]])
def test_no_flood_of_small_frames_is_read_in_one_call(deflate: Deflate | None, flood: list[tuple[int, bytes]]) -> None:
    server = alone(deflate=deflate)
    frames = [(TEXT_PART, b""), *flood * 4096, (LAST, b"")]
    portions = drain(server, peer(server, *frames), max_messages=1024)
    assert len(portions) >= len(frames) / 1024


def test_no_flood_of_small_compressed_messages_is_read_in_one_call() -> None:
    client, server = shaken(Deflate(threshold=0))
    for _ in range(3000):
        client.send_message("a")
    portions = drain(server, client.client_write(), max_messages=10_000, max_bytes=1 << 20)
    assert sum(map(len, portions)) == 3000
    assert max(map(len, portions)) <= 520


def test_no_flood_of_small_parts_of_a_compressed_message_is_read_in_one_call() -> None:
    server = alone(deflate=Deflate(threshold=0))
    (payload,) = deflated(bytes(range(256)) * 8)
    first, *parts = [payload[index : index + 1] for index in range(len(payload))]
    frames = [(BINARY_PART | RSV1, first), *((PART, part) for part in parts), *[(PART, b"")] * 700, (LAST, b"")]
    portions = drain(server, peer(server, *frames), max_messages=1024, max_bytes=1 << 20)
    assert [event for portion in portions for event in portion] == [bytes(range(256)) * 8]
    assert len(portions) >= len(frames) // 520


def test_plain_tells_of_the_whole_portion() -> None:
    client, server = shaken(Deflate(threshold=0))
    text = Frame(True, False, False, False, Opcode.TEXT, b"b")
    pong = Frame(True, False, False, False, Opcode.PONG, b"")
    cases: list[tuple[list[str | Frame], list[Any], bool]] = [
        ([text, text], ["b", "b"], True),
        (["a", text], ["a", "b"], False),  # the first came inflated
        ([text, pong], ["b", Pong(b"")], False),
        ([text], ["b"], True),
    ]
    for messages, events, plain in cases:
        for message in messages:
            if isinstance(message, Frame):
                client.send_frame(message)
            else:
                client.send_message(message)
        assert server.server_read(client.client_write()) == events
        assert server.plain is plain


# Text


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
def test_bad_text_is_told_before_the_message_ends(deflate: Deflate | None) -> None:
    server = alone(deflate=deflate)
    texts = ["κόσμε".encode(), b"\xed\xa0"]
    if deflate is None:
        frames = [(TEXT_PART, texts[0]), (PART, texts[1])]
    else:
        parts = deflated(*texts)
        frames = [(TEXT_PART | RSV1, parts[0]), (PART, parts[1])]
    assert read(server, frames[0]) == []
    (error,) = read(server, frames[1])
    assert isinstance(error, RemoteProtocolError)
    assert (error.code, str(error)) == (1007, "text that is not UTF-8")
    assert sent(server) == [(CLOSE, b"\x03\xeftext that is not UTF-8")]
    assert server.close == Close(1007, "text that is not UTF-8")


@pytest.mark.parametrize("text", [b"\xe2\x82", b"a\xff", b"\xc0\xaf", b"\xed\xbf\xbf"])
def test_bad_text_is_told_at_the_end_of_a_compressed_message(text: bytes) -> None:
    client, server = shaken(Deflate(threshold=0))
    assert client.agreement is not None
    assert client.agreement.deflate is not None
    payload = client.agreement.deflate.compress(text)
    assert codes(read(server, (TEXT | RSV1, payload))) == [1007]


def test_character_may_be_cut_by_compressed_fragments() -> None:
    parts = deflated(b"\xe2", b"\x82", b"\xac")
    server = alone(deflate=Deflate(threshold=0))
    assert read(server, (TEXT_PART | RSV1, parts[0]), (PART, parts[1]), (LAST, parts[2])) == ["€"]
    assert read(server, (BINARY | RSV1, deflated(bytes(5))[0])) == [bytes(5)]


# Breaches


@BOTH_ROLES
def test_breach_is_an_event_and_answered(role: Role) -> None:
    protocol = alone(role)
    events = read(protocol, (TEXT, b"before"), (0x83, b"x"), (TEXT, b"behind"))
    assert codes(events) == ["before", 1002]
    assert str(events[1]) == "the opcode 3 is reserved"
    assert not protocol.plain
    assert state_of(protocol) is State.FAILED
    assert protocol.close == Close(1002, "the opcode 3 is reserved")
    assert sent(protocol) == [(CLOSE, b"\x03\xeathe opcode 3 is reserved")]
    assert protocol.client_read(peer(protocol, (TEXT, b"behind"))) == []


@EVERY_WISH
@pytest.mark.parametrize("fragments", [False, True])
def test_what_came_before_a_breach_may_be_answered(deflate: Deflate | None, fragments: bool) -> None:
    # Autobahn's cases 3.2, 4.1.3, 5.15 and their like: whether it can must not depend on how the bytes were cut.
    server = alone("server", deflate)
    message = [(TEXT_PART, b"be"), (LAST, b"fore")] if fragments else [(TEXT, b"before")]
    data = peer(server, *message, (0x83, b"x"), (TEXT, b"behind"))
    assert server.server_read(data) == ["before"]
    assert (state_of(server), server.pending, server.close) == (State.OPEN, True, None)
    server.send_message("answer", compress=False)
    assert codes(server.server_read()) == [1002]
    assert (state_of(server), server.pending, server.plain) == (State.FAILED, False, False)
    assert sent(server) == [(TEXT, b"answer"), (CLOSE, b"\x03\xeathe opcode 3 is reserved")]


def test_breach_is_told_whatever_comes_behind_it() -> None:
    server = alone()
    assert server.server_read(peer(server, (TEXT, b"before"), (0x83, b"x"))) == ["before"]
    assert codes(server.server_read(peer(server, (TEXT, b"behind")))) == [1002]


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
def test_masking_is_judged_by_role(deflate: Deflate | None) -> None:
    client, server = alone("client", deflate), alone("server", deflate)
    assert codes(client.client_read(b"\x81\x85")) == [1002]
    assert codes(server.server_read(b"\x81\x05")) == [1002]


def test_breach_behind_the_own_close_is_not_answered() -> None:
    server = in_state(State.CLOSING)
    assert codes(read(server, (TEXT, b"late"), (0x83, b""))) == ["late", 1002]
    assert state_of(server) is State.FAILED
    assert server.close == Close(1002, "the opcode 3 is reserved")
    assert server.client_write() == b""


@BOTH_ROLES
def test_connection_may_be_failed(role: Role) -> None:
    protocol = alone(role)
    protocol.fail(1011, "the handler crashed")
    assert state_of(protocol) is State.FAILED
    assert protocol.close == Close(1011, "the handler crashed")
    assert sent(protocol) == [(CLOSE, b"\x03\xf3the handler crashed")]
    protocol = in_state(State.CLOSING, role)
    protocol.fail(1002, "")
    assert state_of(protocol) is State.FAILED
    assert protocol.close == Close(1002)
    assert protocol.client_write() == b""


def test_long_reason_of_a_failure_is_cut_between_characters() -> None:
    server = alone()
    server.fail(1002, "x" + "€" * 100)
    assert server.close == Close(1002, "x" + "€" * 40)
    assert sent(server) == [(CLOSE, b"\x03\xea" + ("x" + "€" * 40).encode())]


@pytest.mark.parametrize("state", [State.CONNECTING, State.CLOSED, State.FAILED, State.ENDED])
def test_there_may_be_nothing_to_fail(state: State) -> None:
    protocol = in_state(state)
    before = protocol.close
    with pytest.raises(LocalProtocolError, match=f"not possible while {state.value}"):
        protocol.fail(1011, "crash")
    assert protocol.close == before
    assert protocol.client_write() == b""


def test_failure_needs_a_code_that_may_be_sent() -> None:
    server = alone()
    with pytest.raises(ValueError, match="not 1006"):
        server.fail(1006, "lost")
    assert state_of(server) is State.OPEN
    assert server.close is None
    assert server.client_write() == b""


# Closing

VALID_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


@BOTH_ROLES
@pytest.mark.parametrize("code", VALID_CODES)
def test_close_is_answered_with_its_code_and_reason(role: Role, code: int) -> None:
    protocol = alone(role)
    data = code.to_bytes(2, "big")
    assert read(protocol, (TEXT, b"a"), (CLOSE, data + "grüß".encode())) == ["a", Close(code, "grüß")]
    assert not protocol.plain
    assert state_of(protocol) is State.CLOSED
    assert protocol.close == Close(code, "grüß")
    assert sent(protocol) == [(CLOSE, data + "grüß".encode())]


def test_close_without_a_code_is_answered_without_one() -> None:
    server = alone()
    assert read(server, (CLOSE, b"")) == [Close(1005)]
    assert sent(server) == [(CLOSE, b"")]
    assert server.close == Close(1005)


@pytest.mark.parametrize("state", [State.OPEN, State.CLOSING])
@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"\x03", 1002, "a Close frame whose code has one byte"),
        *[(code.to_bytes(2, "big"), 1002, f"the close code {code} must not be sent") for code in INVALID_CODES],
        (b"\x03\xe8\xff", 1007, "a close reason that is not UTF-8"),
        (b"\x03\xe8\xe2\x82", 1007, "a close reason that is not UTF-8"),
        (b"\x03\xe8\xed\xa0\x80", 1007, "a close reason that is not UTF-8"),
    ],
)
def test_close_that_breaks_a_rule(state: State, payload: bytes, code: int, reason: str) -> None:
    server = in_state(state)
    (error,) = read(server, (CLOSE, payload))
    assert isinstance(error, RemoteProtocolError)
    assert (error.code, str(error)) == (code, reason)
    assert state_of(server) is State.FAILED
    assert server.close == Close(code, reason)
    answer = [(CLOSE, code.to_bytes(2, "big") + reason.encode())]
    assert sent(server) == (answer if state is State.OPEN else [])


@BOTH_ROLES
def test_close_begun_here_is_answered_by_the_peer(role: Role) -> None:
    protocol = alone(role)
    protocol.send_close(4000, "kaboom")
    assert state_of(protocol) is State.CLOSING
    assert protocol.close is None
    assert sent(protocol) == [(CLOSE, b"\x0f\xa0kaboom")]
    # What the peer sent before it saw the Close is still received.
    assert read(protocol, (TEXT_PART, b"a"), (LAST, b"b"), (TEXT, b"c")) == ["ab", "c"]
    assert read(protocol, (CLOSE, b"\x0f\xa0")) == [Close(4000, "kaboom")]  # Some answer with the code alone.
    assert state_of(protocol) is State.CLOSED
    assert protocol.client_write() == b""


@pytest.mark.parametrize(
    ("sent", "answered", "close"),
    [
        ((4000, "kaboom"), (4000, "boom"), (4000, "boom")),
        ((4000, "kaboom"), (1000, ""), (1000, "")),
        ((None, None), (1000, ""), (1000, "")),
        ((1000, None), (1000, "bye"), (1000, "bye")),
    ],
)
def test_the_peer_s_own_code_and_reason_are_the_end(sent: Any, answered: tuple[int, str], close: Any) -> None:
    server = alone()
    server.send_close(*sent)
    assert read(server, (CLOSE, answered[0].to_bytes(2, "big") + answered[1].encode())) == [Close(*close)]
    assert server.close == close


def test_answer_without_a_code_to_a_close_without_one() -> None:
    server = alone()
    server.send_close()
    assert read(server, (CLOSE, b"")) == [Close(1005)]
    assert server.close == Close(1005)


def test_both_may_close_at_once() -> None:
    client, server = shaken()
    client.send_close(1000, "client")
    server.send_close(1001, "server")
    to_server, to_client = client.client_write(), server.server_write()
    assert server.server_read(to_server) == [Close(1000, "client")]
    assert client.client_read(to_client) == [Close(1001, "server")]
    assert state_of(client) is state_of(server) is State.CLOSED
    assert (client.close, server.close) == (Close(1001, "server"), Close(1000, "client"))
    assert client.client_write() == server.server_write() == b""


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
def test_what_comes_behind_a_close_is_ignored(deflate: Deflate | None) -> None:
    server = alone(deflate=deflate)
    frames = [(TEXT, b"a"), (CLOSE, b"\x03\xe8"), (TEXT, b"b"), (PING, b""), (0x83, b""), (CLOSE, b"\x03\xe9")]
    assert read(server, *frames) == ["a", Close(1000)]
    assert not server.pending
    assert sent(server) == [(CLOSE, b"\x03\xe8")]
    assert state_of(server) is State.CLOSED
    assert server.close == Close(1000)


def test_nothing_is_pending_behind_a_close() -> None:
    server = alone()
    data = peer(server, (CLOSE, b"\x03\xe8"), (TEXT, b"a"), (TEXT, b"b"))
    assert drain(server, data, max_messages=1) == [[Close(1000)]]


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
def test_close_in_the_middle_of_a_message_is_answered_with_its_code(deflate: Deflate | None) -> None:
    server = alone(deflate=deflate)
    assert read(server, (TEXT_PART, b"a"), (CLOSE, b"\x03\xe9"), (LAST, b"b")) == [Close(1001)]
    assert sent(server) == [(CLOSE, b"\x03\xe9")]


@pytest.mark.parametrize("code", VALID_CODES)
def test_codes_that_may_be_sent(code: int) -> None:
    assert check_close(code, None) == code.to_bytes(2, "big")
    assert check_close(code, "") == code.to_bytes(2, "big")
    assert check_close(code, "x" * 123) == code.to_bytes(2, "big") + b"x" * 123


@pytest.mark.parametrize("code", [*INVALID_CODES, -1, 1 << 40, True])
def test_codes_that_may_not_be_sent(code: int) -> None:
    server = alone()
    with pytest.raises(ValueError, match=f"1000-1003, 1007-1014 or 3000-4999, not {code}"):
        server.send_close(code)
    assert state_of(server) is State.OPEN
    assert server.client_write() == b""


@pytest.mark.parametrize("code", ["1000", 1000.0, b"\x03\xe8"])
def test_code_that_is_no_integer_is_a_type_error(code: object) -> None:
    with pytest.raises(TypeError, match="a close code must be an integer, not"):
        check_close(code, None)  # type: ignore[arg-type]


def test_reason_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="a close reason must be str, not bytes"):
        check_close(1000, b"bye")  # type: ignore[arg-type]


def test_no_code_needs_no_reason() -> None:
    assert check_close(None, None) == check_close(None, "") == b""
    with pytest.raises(ValueError, match="a close reason requires a close code, but 'bye' has none"):
        check_close(None, "bye")


@pytest.mark.parametrize("reason", ["x" * 124, "€" * 42])
def test_reason_of_over_123_bytes_is_a_value_error(reason: str) -> None:
    server = alone()
    with pytest.raises(ValueError, match=f"at most 123 bytes of UTF-8, not {len(reason.encode())}"):
        server.send_close(1000, reason)
    assert state_of(server) is State.OPEN
    server.send_close(1000, "€" * 41)
    assert sent(server) == [(CLOSE, b"\x03\xe8" + ("€" * 41).encode())]


def test_reason_with_a_lone_surrogate_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        check_close(1000, "\ud800")


# Sending


@EVERY_WISH
def test_lone_surrogate_cannot_be_sent_and_changes_nothing(deflate: Deflate | None) -> None:
    client, server = shaken(deflate)
    client.send_message("Hello")
    with pytest.raises(UnicodeEncodeError):
        client.send_message("Hello \ud800")
    client.send_message("Hello")
    assert server.server_read(client.client_write()) == ["Hello", "Hello"]


@EVERY_WISH
def test_subclass_of_str_is_text_and_bytes_like_is_binary(deflate: Deflate | None) -> None:
    class Markup(str):
        __slots__ = ()

    class Blob(bytes):
        __slots__ = ()

    client, server = shaken(deflate)
    for sender, receiver in ((client, server), (server, client)):
        for message in (Markup("Hello"), Blob(b"Hello"), bytearray(b"Hello"), memoryview(b"Hello")):
            sender.send_message(message)  # type: ignore[arg-type]
        found = receiver.server_read(sender.client_write())
        assert found == ["Hello", b"Hello", b"Hello", b"Hello"]
        assert [type(message) for message in found] == [str, bytes, bytes, bytes]


@EVERY_WISH
@pytest.mark.parametrize("message", [None, 3, ["a"], {"a": 1}])
def test_what_is_no_message_is_a_type_error_and_changes_nothing(deflate: Deflate | None, message: Any) -> None:
    client, server = shaken(deflate)
    with pytest.raises(TypeError):
        client.send_message(message)
    client.send_message("Hello")
    assert server.server_read(client.client_write()) == ["Hello"]


@pytest.mark.parametrize("message", ["a" * LARGE, b"a" * LARGE], ids=["text", "binary"])
def test_large_payload_is_not_joined_to_its_head(message: str | bytes) -> None:
    client, server = shaken()
    server.send_message("a")
    assert not server.in_pieces
    server.send_message(message)
    assert server.in_pieces
    size = server.outgoing_size
    pieces = server.take_pieces()
    assert [len(piece) for piece in pieces] == [3, 4, LARGE]
    assert isinstance(message, str) or pieces[2] is message
    assert (server.outgoing, server.outgoing_size, server.in_pieces) == ([], 0, False)
    server.send_message("b")
    server.put_back(pieces[1:])
    assert server.outgoing_size == size
    assert client.client_read(pieces[0] + server.server_write()) == ["a", message, "b"]
    client.send_message(message)
    assert not client.in_pieces  # Masking has copied it anyway.


def test_encoded_message_is_sent_by_any_of_its_kind() -> None:
    (first, second), (client, server) = shaken(), shaken()
    assert second.frame_kind == server.frame_kind == ()
    frame = server.encode_message("Hello")
    for sender, receiver in ((second, first), (server, client)):
        sender.send_encoded(frame)
        assert sender.outgoing_size == len(frame)
        assert receiver.client_read(sender.server_write()) == ["Hello"]
    server.send_close()
    with pytest.raises(LocalProtocolError, match="closing"):
        server.send_encoded(frame)


def test_message_may_be_encoded_whatever_the_state() -> None:
    server = in_state(State.ENDED)
    assert server.encode_message("Hello") == b"\x81\x05Hello"
    assert server.encode_message(b"Hello") == b"\x82\x05Hello"
    assert server.client_write() == b""


@pytest.mark.parametrize("head", [0x00, 0x01, 0x09, 0x83, 0x8F, 0xF1, 0xFF])
def test_any_frame_is_sent_as_it_is(head: int) -> None:
    for role in ("client", "server"):
        protocol = alone(role)
        protocol.send_frame(Frame.from_head(head, b"works"))
        assert sent(protocol) == [(head, b"works")]
        assert state_of(protocol) is State.OPEN


def test_flags_of_a_frame_are_whatever_is_true() -> None:
    server = alone()
    server.send_frame(Frame(1, 0, 2, 0, 9, b""))  # type: ignore[arg-type]
    assert server.server_write() == b"\xa9\x00"


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (Frame(True, False, False, False, 16, b""), ValueError),
        (Frame(True, False, False, False, -1, b""), ValueError),
        (Frame(True, False, False, False, 1, "text"), TypeError),  # type: ignore[arg-type]
    ],
)
def test_frame_that_cannot_be_built_changes_nothing(frame: Frame, error: type[Exception]) -> None:
    for role in ("client", "server"):
        protocol = alone(role)
        with pytest.raises(error):
            protocol.send_frame(frame)
        assert protocol.client_write() == b""


def test_close_sent_as_a_frame_begins_the_closing_handshake() -> None:
    client, server = shaken()
    client.send_frame(Frame(True, False, False, False, Opcode.CLOSE, b"\x03\xe8"))
    assert state_of(client) is State.CLOSING
    assert server.server_read(client.client_write()) == [Close(1000)]
    assert client.client_read(server.server_write()) == [Close(1000)]
    assert state_of(client) is State.CLOSED


# What waits to be sent, and what was


def test_messages_that_were_sent_are_counted() -> None:
    client, server = shaken(Deflate(threshold=0))
    for protocol in (client, server):
        assert protocol.messages_sent == 0
        for number, message in enumerate(("a", b"b", "c" * LARGE, b"d" * LARGE), 1):
            protocol.compressed = number > 2
            protocol.send_message(message)
            assert protocol.messages_sent == number
        protocol.send_encoded(protocol.encode_message("e"))
        protocol.take()
        assert protocol.messages_sent == 5
        for fin, opcode in ((False, Opcode.TEXT), (False, 0), (True, Opcode.PING), (True, 0)):
            protocol.send_frame(Frame(fin, False, False, False, opcode, b"f"))
        assert protocol.messages_sent == 6
        protocol.compressed = False
        protocol.send_message(b"g" * LARGE)
        assert protocol.messages_sent == 7
        protocol.take_pieces()
        protocol.send_close()
        protocol.take()
        assert protocol.messages_sent == 7


def test_pieces_that_are_put_back_are_sent_before_what_came_behind_them() -> None:
    client, server = shaken()
    for message in ("a", b"b" * LARGE, "c"):
        server.send_message(message)
    pieces = server.take_pieces()
    assert server.messages_sent == 3
    server.put_back(pieces[1:])
    assert server.messages_sent == 3
    server.send_message("d")
    assert server.outgoing_size == LARGE + 4 + 3 + 3
    assert client.client_read(pieces[0] + server.take()) == ["a", b"b" * LARGE, "c", "d"]
    assert server.messages_sent == 4


@pytest.mark.parametrize("pieces", [False, True])
def test_whoever_asks_is_told_of_what_is_taken_in_whole_frames(pieces: bool) -> None:
    server = alone()
    taken: list[bytes] = []
    server.on_taken = taken.append
    for message in ("a", b"b" * LARGE, "c"):
        server.send_message(message)
    data = server.take_pieces() if pieces else [server.take()]
    assert taken == data
    assert len(data) == 1
    assert (server.outgoing, server.outgoing_size, server.messages_sent) == ([], 0, 3)


def test_what_is_forgotten_is_not_sent_and_nobody_is_told_of_it() -> None:
    server = alone()
    server.on_taken = lambda _: pytest.fail("nothing is taken")
    server.send_message("a")
    server.forget()
    assert (server.outgoing, server.outgoing_size, server.client_write()) == ([], 0, b"")


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (Frame(False, False, False, False, 1, "text"), TypeError),
        (Frame(True, False, False, False, 16, b""), ValueError),
    ],
)
def test_what_cannot_be_sent_is_not_counted(frame: Frame, error: type[Exception]) -> None:
    server = alone()
    with pytest.raises(error):
        server.send_frame(frame)
    with pytest.raises(UnicodeEncodeError):
        server.send_message("\ud800")
    assert server.messages_sent == 0
    assert server.outgoing_size == 0


@pytest.mark.parametrize(("code", "sends"), [(None, 1011), (1000, 1011), (1001, 1011), (1008, 1008), (4000, 4000)])
def test_close_in_the_middle_of_a_message_is_no_normal_one(code: int | None, sends: int) -> None:
    """The peer must not take a part of it for the whole."""
    for ended in (False, True):
        server = alone()
        server.send_frame(Frame(False, False, False, False, Opcode.TEXT, b"a"))
        server.send_frame(Frame(True, False, False, False, Opcode.PING, b""))
        if ended:
            server.send_frame(Frame(True, False, False, False, Opcode.CONTINUATION, b"b"))
        server.send_close(code, "bye" if code else None)
        *_, (head, payload) = sent(server)
        assert head == CLOSE
        if ended:
            assert payload == (b"" if code is None else code.to_bytes(2, "big") + b"bye")
        else:
            assert payload[:2] == sends.to_bytes(2, "big")
            assert payload[2:] == (b"bye" if code == sends else b"a message could not be completed")


def test_close_that_was_sent_as_a_frame_may_say_anything() -> None:
    server = alone()
    server.send_frame(Frame(True, False, False, False, Opcode.CLOSE, b"\x03"))
    assert state_of(server) is State.CLOSING
    assert read(server, (CLOSE, b"\x03\xe8")) == [Close(1000)]


# Watching frames


def test_watched_frames_come_before_what_they_mean() -> None:
    server = alone(deflate=Deflate(threshold=0))
    assert not server.watch_frames
    server.watch_frames = True
    assert server.watch_frames
    payload = deflated(bytes(3))[0]
    frames = [
        (TEXT, b"a"),
        (BINARY, b"b"),
        (PING, b"p"),
        (PONG, b"q"),
        (TEXT_PART, b"c"),
        (LAST, b"d"),
        (BINARY | RSV1, payload),
        (CLOSE, b"\x03\xe8"),
    ]
    shown = [Frame.from_head(*frame) for frame in frames]
    assert read(server, *frames, (TEXT, b"ignored")) == [
        *(shown[0], "a", shown[1], b"b", shown[2], shown[3], Pong(b"q"), shown[4], shown[5], "cd"),
        *(shown[6], bytes(3), shown[7], Close(1000)),
    ]
    assert not server.plain
    assert shown[6].rsv1
    assert shown[6].payload == payload


def test_watched_frame_may_be_the_breach() -> None:
    server = alone()
    server.watch_frames = True
    assert codes(read(server, (CLOSE, b"\x03"))) == [Frame.from_head(CLOSE, b"\x03"), 1002]


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
def test_watching_may_begin_and_end_at_any_time(deflate: Deflate | None) -> None:
    server = alone(deflate=deflate)
    data = peer(server, (TEXT, b"Hello"))
    frame = Frame.from_head(TEXT, b"Hello")
    assert server.server_read(data[:8]) == []
    server.watch_frames = True
    assert server.server_read(data[8:]) == ["Hello"]  # What has come before is not kept as a frame.
    assert server.server_read(data[:8]) == []
    assert server.server_read(data[8:]) == [frame, "Hello"]
    assert server.server_read(data[:8]) == []
    server.watch_frames = False
    assert server.server_read(data[8:]) == ["Hello"]
    assert server.plain


# Whatever comes


@settings(max_examples=200)
@given(
    noise=st.lists(st.binary(max_size=40), max_size=6),
    role=st.sampled_from(["client", "server"]),
    deflate=st.sampled_from(list(WISHES.values())),
    frames=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=10)), max_size=4),
    watch=st.booleans(),
)
def test_noise_gives_events_and_never_an_exception(
    noise: list[bytes], role: Role, deflate: Deflate | None, frames: list[tuple[int, bytes]], watch: bool
) -> None:
    protocol = alone(role, deflate, max_websocket_size=50)
    protocol.watch_frames = watch
    events = read(protocol, *frames)
    for data in noise:
        events += protocol.client_read(data)
    assert not any(isinstance(event, (RemoteProtocolError, Close)) for event in events[:-1])
    assert all(len(event) <= 50 for event in events if isinstance(event, bytes))
    failed = any(isinstance(event, RemoteProtocolError) for event in events)
    assert (protocol.state is State.FAILED) is failed
    protocol.read_eof()
    assert protocol.close is not None


@given(data=st.data(), deflate=st.sampled_from(list(WISHES.values())))
def test_any_pieces_give_the_same_events(data: st.DataObject, deflate: Deflate | None) -> None:
    frames = data.draw(
        st.lists(
            st.one_of(
                st.tuples(
                    st.sampled_from([TEXT, BINARY, TEXT_PART, BINARY_PART, PART, LAST, PING, PONG]),
                    st.binary(max_size=9) | st.text(max_size=9).map(str.encode),
                ),
                st.sampled_from(
                    [
                        (BINARY | RSV1, deflated(bytes(20))[0]),
                        (TEXT | RSV1, deflated(bytes(20))[0]),
                        (CLOSE, b"\x03\xe8"),
                    ]
                ),
            ),
            max_size=6,
        )
    )
    whole, cut = alone("server", deflate), alone("server", deflate)
    wire = peer(whole, *frames)
    places = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    expected = codes(chain(*drain(whole, wire)))
    found: list[Any] = []
    for start, end in zip([0, *places], [*places, len(wire)], strict=True):
        for portion in drain(cut, wire[start:end], max_messages=data.draw(st.integers(1, 3))):
            found += codes(portion)
    assert found == expected
    assert whole.state is cut.state
    assert whole.close == cut.close
    assert sent(whole) == sent(cut)
