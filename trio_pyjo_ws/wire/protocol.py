"""One role-blind state machine: bytes in; messages, events and bytes out. No input or output happens here.

Who began a connection matters in three places only: who masks, who compresses with which window (both settled when
the connection is established), and who sends which half of the opening handshake (the handshake object given). All
the rest is the table of :mod:`.states`.

A session, without a network::

    client = Protocol("client", handshake=ClientHandshake("ws://example.org/chat"))
    server = Protocol("server", handshake=ServerHandshake())
    server.server_read(client.client_write())       # [Request]
    server.accept()
    client.client_read(server.server_write())       # [Agreement]
    client.send_message("Hello")
    server.server_read(client.client_write())       # ["Hello"]
"""

from __future__ import annotations

import os
import sys
import typing
from typing import TYPE_CHECKING, Literal, NamedTuple, Union

from ..errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from .deflate import check_can_compress
from .fragments import MAX_EMPTY_FRAGMENTS, Assembly, Fragmenter, Piece
from .frames import (
    MAX_REASON,
    Close,
    Decoder,
    Frame,
    Opcode,
    check_close,
    encode,
    long_head,
    masking_key,
    parse_close,
)
from .states import TRANSITIONS, Signal, State

if TYPE_CHECKING:
    from .deflate import Deflate, PerMessageDeflate
    from .negotiate import Request, Response

__all__ = [
    "MAX_WEBSOCKET_SIZE",
    "Agreement",
    "Event",
    "Piece",
    "Pong",
    "Protocol",
    "State",
    "default_max_websocket_size",
    "size_of",
]

MAX_WEBSOCKET_SIZE = 262_144
"""The default bound on a message in bytes, before and after inflation: the seed's and Mojolicious'."""

MAX_EARLY = 65_536
"""Bytes that a server keeps of what a client sends before its request is answered. A client should send none."""

LARGE = 32_768
"""Bytes of a payload that is not copied to stand behind its head: 3 us of copying, against 1 us of a second piece."""

_UNLIMITED = sys.maxsize


_READS = frozenset({State.OPEN, State.CLOSING})


class Agreement(NamedTuple):
    """What the opening handshake settled: the subprotocol and, where compression was agreed, its codec."""

    subprotocol: str | None = None
    deflate: PerMessageDeflate | None = None


class Pong(NamedTuple):
    """A pong has come (RFC 6455, section 5.5.3)."""

    payload: bytes


# Evaluated at run time, where `X | Y` of these needs Python 3.10's types only for classes.
Event = Union[str, bytes, Piece, Frame, Pong, Close, RemoteProtocolError, Agreement, "Request"]
"""What :meth:`Protocol.client_read` and :meth:`Protocol.server_read` give. ``RemoteProtocolError`` stands for the
breach that ended the connection; the Close frame that answers it is waiting to be written."""


if TYPE_CHECKING:

    class Handshake(typing.Protocol):
        """What the state machine needs of either half of an opening handshake; see :mod:`.http1`."""

        rest: bytes

        @property
        def request(self) -> Request | None: ...
        @property
        def response(self) -> Response | None: ...
        def read(self, data: bytes) -> Agreement | Request | None: ...
        def read_eof(self) -> None: ...
        def write(self) -> bytes: ...

    class ServerSide(Handshake, typing.Protocol):
        def accept(
            self,
            *,
            subprotocol: str | None = ...,
            deflate: Deflate | None = ...,
            headers: typing.Any = ...,
        ) -> Agreement: ...
        def refuse(self, response: Response) -> None: ...


def default_max_websocket_size() -> int:
    """The value of the environment variable ``PYJO_MAX_WEBSOCKET_SIZE``, or 262,144 bytes."""
    text = os.environ.get("PYJO_MAX_WEBSOCKET_SIZE", "")
    if not text:
        return MAX_WEBSOCKET_SIZE
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"PYJO_MAX_WEBSOCKET_SIZE is a number of bytes, not {text[:60]!r}")
    return int(text) or MAX_WEBSOCKET_SIZE  # 0 as in Mojolicious: the default


def _to_bytes(message: object) -> bytes:
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
    return bytes(message)


def size_of(event: object) -> int:
    """Bytes of memory that the message, or the piece of one, takes that ``event`` is; 0 for any other.

    Of text that is up to four for each byte that came.
    """
    if isinstance(event, Piece):
        event = event.data
    return sys.getsizeof(event) if isinstance(event, (str, bytes)) else 0


class Protocol:
    """One side of a WebSocket connection, from the opening handshake to the end of the stream.

    ``role`` is ``"client"`` or ``"server"``. Without a ``handshake`` the connection is established from the start,
    with ``agreement``. What is to be sent collects in ``outgoing``, a list of byte strings of ``outgoing_size`` bytes
    in all; ``client_write()``/``server_write()`` take it.
    """

    def __init__(
        self,
        role: Literal["client", "server"],
        *,
        handshake: Handshake | None = None,
        agreement: Agreement | None = None,
        max_websocket_size: int | None = None,
        max_empty_fragments: int = MAX_EMPTY_FRAGMENTS,
    ) -> None:
        if role not in ("client", "server"):
            raise ValueError(f"the role is 'client' or 'server', not {role!r}")
        self.role = role
        self.handshake = handshake
        self.agreement: Agreement | None = None
        self.state = State.CONNECTING
        self.masked = role == "client"
        self.compressed = False
        self.close: Close | None = None
        """How the connection ended, once it has: the peer's code and reason, or why this side failed it."""
        self.plain = True
        """Whether the last read gave whole messages only."""
        self.pending = False
        """Whether the last read ended before its data did: there may be more events without more data."""
        self.pings_owed = 0
        """Pongs that are waiting in ``outgoing``."""
        self.outgoing: list[bytes] = []
        self.in_pieces = False
        """Whether ``outgoing`` has a payload that is worth sending without joining it to the rest."""
        self.outgoing_size = 0
        # What stood in ``outgoing`` and was taken, and how much of what was ever there was not the end of a message.
        self._taken = 0
        self._other = 0
        size = default_max_websocket_size() if max_websocket_size is None else max_websocket_size
        # Before the handshake has ended the decoder only holds the options that may be set on it.
        self._decoder = Decoder(role == "server", size)
        self._assembly = Assembly(max_empty_fragments)
        self._kept = bytearray()  # what came before it could be read: behind the request, or behind a piece
        self._breach: RemoteProtocolError | None = None
        if handshake is None:
            self._establish(agreement or Agreement(), b"")
        else:
            self._queue_other(handshake.write())

    @property
    def max_websocket_size(self) -> int:
        """The largest message that is accepted, in bytes, before and after inflation."""
        return self._decoder.max_size

    @max_websocket_size.setter
    def max_websocket_size(self, size: int) -> None:
        self._decoder.max_size = size

    @property
    def watch_frames(self) -> bool:
        """Whether every frame is given as an event of its own, before what it means."""
        return not self._decoder.straight

    @watch_frames.setter
    def watch_frames(self, watch: bool) -> None:
        self._decoder.straight = not watch

    def __repr__(self) -> str:
        return f"<Protocol {self.role} {self.state.value}>"

    # Reading

    def client_read(
        self, data: bytes = b"", *, max_messages: int = _UNLIMITED, max_bytes: int = _UNLIMITED
    ) -> list[Event]:
        """Take bytes that the peer sent, in whatever pieces, and return the events that they complete.

        Stops after ``max_messages`` messages and control frames, when those of a connection with compression take
        ``max_bytes`` of memory, and before a breach, so that what came before it may be answered; ``pending`` tells
        that there is more, to be had by ``client_read()``, and so it does of frames that came right behind the
        handshake. Raises :class:`HandshakeError` where that fails, and nothing else: a breach after it is the last of
        the events.
        """
        if self.state in _READS:
            if self._breach is not None:
                return self._fail(self._breach, [])
            if self.agreement.deflate is None:  # type: ignore[union-attr]  # there is one in these states
                decoder = self._decoder
                items = decoder.decode(data, max_messages)
                self.pending = decoder.pending
                self.plain = plain = decoder.plain
                return items if plain else self._interpret(items, [])  # type: ignore[return-value]
            return self._read_stepwise(data, max_messages, max_bytes)
        if self.state is State.CONNECTING:
            return self._read_handshake(data)
        return []  # What follows a Close, or a breach, is ignored (section 1.4 and section 7.1.7).

    server_read = client_read

    def _read_stepwise(self, data: bytes, max_messages: int, max_bytes: int) -> list[Event]:
        # A few bytes can inflate to a whole message, so that a chunk full of them would be large beyond any bound.
        events: list[Event] = []
        size = 0
        self.plain = True
        decoder = self._decoder
        if self._kept or self._assembly.has_more:
            self._kept += data
            data = b""
        while True:
            before = len(events)
            if self._assembly.has_more:
                self._inflate_more(events)
            else:
                if self._kept:
                    data = bytes(self._kept)
                    self._kept.clear()
                items = decoder.decode(data, 1)
                data = b""
                self.plain = self.plain and decoder.plain
                self._interpret(items, events)
            size += sum(map(size_of, events[before:]))
            if self._breach or self.state not in _READS:
                return events
            self.pending = decoder.pending or self._assembly.has_more or bool(self._kept)
            if not self.pending or decoder.held or len(events) >= max_messages or size >= max_bytes:
                return events

    def _inflate_more(self, events: list[Event]) -> None:
        self.plain = False
        try:
            piece = self._assembly.go_on()
        except RemoteProtocolError as exc:
            self._fail(exc, events)
        else:
            if piece is not None:
                events.append(piece)

    # Reading a message as it arrives

    @property
    def holding(self) -> bool:
        """Whether reading stops before a message that may be over ``max_websocket_size``, in place of failing at it.

        That is for somebody who may yet want it in pieces; ``held`` tells that it has stopped. As what a compressed
        message inflates to is not known, it stops before each of those.
        """
        return self._decoder.holding

    @holding.setter
    def holding(self, holding: bool) -> None:
        self._decoder.holding = holding

    @property
    def held(self) -> bool:
        """Whether the last read ended before a message that is not read while :attr:`holding`."""
        return self._decoder.held

    @property
    def giving_pieces(self) -> bool:
        """Whether a message is being given in pieces, and its last has not come."""
        return self._assembly.begun

    @property
    def midway(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._decoder.midway

    def give_pieces(self) -> None:
        """Give the message that is being received, or else the next, as :class:`Piece` after piece, of any size.

        ``pending`` tells that there is a first piece already. The messages behind it come whole again.
        """
        self._decoder.parts = self._assembly.streaming = True
        self.pending = self.pending or self.midway

    def give_whole(self) -> None:
        """Take :meth:`give_pieces` back, while no piece has been given."""
        self._decoder.parts = self._assembly.streaming = False

    def _read_handshake(self, data: bytes) -> list[Event]:
        handshake = self.handshake
        assert handshake is not None
        try:
            if self.role == "server" and handshake.request is not None:
                self._keep_early(data)
                return []
            found = handshake.read(data)
        except HandshakeError:
            self._move(Signal.REFUSED)
            raise
        finally:
            self._queue_other(handshake.write())
        if found is None:
            return []
        self.plain = False
        if isinstance(found, Agreement):
            self._establish(found, handshake.rest)
        return [found]

    def _keep_early(self, data: bytes) -> None:
        """The request is there and not answered yet; what follows it must not depend on how the bytes are cut."""
        self._kept += data
        if len(self._kept) > MAX_EARLY:
            raise HandshakeError(f"more than {MAX_EARLY} bytes came before the request was answered")

    def accept(
        self, *, subprotocol: str | None = None, deflate: Deflate | None = None, headers: typing.Any = ()
    ) -> Agreement:
        """On the server: agree to the opening handshake that a :class:`Request` began.

        Compresses where ``deflate`` is given and the client offers it. Raises :class:`HandshakeError` where the
        request is no valid opening handshake; the response that says so is waiting to be written. Raises
        :class:`LocalProtocolError` where there is no request to accept, and ValueError for what cannot be agreed to;
        nothing is changed then.
        """
        handshake = self._server_side()
        try:
            agreement = handshake.accept(subprotocol=subprotocol, deflate=deflate, headers=headers)
        except HandshakeError:
            self._move(Signal.REFUSED)
            raise
        finally:
            self._queue_other(handshake.write())
        early = bytes(self._kept)
        self._kept.clear()
        self._establish(agreement, handshake.rest + early)
        return agreement

    def refuse(self, response: Response) -> None:
        """On the server: answer the opening handshake with ``response`` instead; the connection is over with that.

        May be called before there is a request. Raises :class:`LocalProtocolError` where it was answered already.
        """
        handshake = self._server_side()
        handshake.refuse(response)
        self._queue_other(handshake.write())
        self._move(Signal.REFUSED)

    def _server_side(self) -> ServerSide:
        if self.role != "server" or self.state is not State.CONNECTING:
            raise LocalProtocolError(f"there is no request to answer: this is a {self.role} that is {self.state.value}")
        return typing.cast("ServerSide", self.handshake)

    def read_eof(self) -> None:
        """The peer's stream has ended. Without a Close before, the code is 1006 (section 7.1.5).

        Raises :class:`HandshakeError` where the opening handshake was not over.
        """
        connecting = self.state is State.CONNECTING
        self.end()
        if connecting and self.handshake is not None:
            self.handshake.read_eof()

    def end(self) -> None:
        """The stream is over, whichever side ended it. Without a Close received, the code is 1006 (section 7.1.5)."""
        self._move(Signal.END)
        if self.close is None:
            self.close = Close(1006, "the connection was lost without a closing handshake")

    client_close = server_close = read_eof

    def _establish(self, agreement: Agreement, rest: bytes) -> None:
        self._move(Signal.ESTABLISHED)
        self.agreement = agreement
        if agreement.deflate is not None:
            self._decoder.compression = True
            self._assembly.deflate = agreement.deflate
            self.compressed = agreement.deflate.can_compress
        if rest:
            # Frames may come right behind the handshake. They are kept, not read: on a server, the handler that
            # wants them does not run yet.
            self._decoder.decode(rest, 0)
            self.pending = self._decoder.pending

    def _interpret(self, items: list[typing.Any], events: list[Event]) -> list[Event]:
        """Add what the frames mean that are not whole messages already."""
        watch = self.watch_frames
        for item in items:
            if item.__class__ is not tuple:
                if isinstance(item, RemoteProtocolError):
                    return self._fail(item, events)
                events.append(item)
                continue
            head, payload = item
            if watch:
                events.append(Frame.from_head(head, payload))
            try:
                if head & 0x08:
                    self._control_frame(head & 0x0F, payload, events)
                elif (found := self._assembly.add(head, payload, self.max_websocket_size)) is not None:
                    events.append(found)
            except RemoteProtocolError as exc:
                return self._fail(exc, events)
            if self.state not in _READS:
                break  # Section 5.5.1: nothing that comes behind a Close is looked at.
        if self._assembly.streaming and (piece := self._assembly.begin()) is not None:
            events.append(piece)
        return events

    def _control_frame(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == Opcode.PING:
            if self.state is State.OPEN:
                self.pings_owed += 1
                self._send_frame(0x80 | Opcode.PONG, payload)
        elif opcode == Opcode.PONG:
            events.append(Pong(payload))
        else:
            self.close = close = parse_close(payload)
            events.append(close)
            if self.state is State.OPEN:
                # Section 5.5.1: an endpoint that receives Close answers with one, typically with the same code.
                self._send_frame(0x80 | Opcode.CLOSE, payload[:2])
            self._move(Signal.CLOSE_RECEIVED)

    def _fail(self, exc: RemoteProtocolError, events: list[Event]) -> list[Event]:
        """Section 7.1.7: tell the peer what it did, and listen no more; first, what came before may be answered."""
        if events and self.state is State.OPEN:
            self._breach, self.pending = exc, True
        else:
            events.append(exc)
            self.fail(exc.code, str(exc))
        return events

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection: send Close with ``code`` where none was sent, and ignore what still comes.

        A ``reason`` of more than 123 bytes is cut. Raises ValueError for a code that may not be sent, and
        :class:`LocalProtocolError` where there is no connection to fail: before the handshake has ended, after Close
        has gone both ways, and after a failure. Nothing is changed then.
        """
        reason = reason.encode()[:MAX_REASON].decode("utf-8", "ignore")
        payload = check_close(code, reason)
        was_open = self.state is State.OPEN
        self._move(Signal.BREACH)
        self.close = Close(code, reason)
        if was_open:
            self._send_frame(0x80 | Opcode.CLOSE, payload)

    # Writing

    def take(self) -> bytes:
        """Take all that is to be sent."""
        outgoing = self.outgoing
        self._taken += len(outgoing)
        data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
        outgoing.clear()
        self.outgoing_size = self.pings_owed = 0
        self.in_pieces = False
        return data

    def take_pieces(self) -> list[bytes]:
        """Take all that is to be sent, as it is."""
        pieces = self.outgoing[:]
        self._taken += len(pieces)
        self.outgoing.clear()
        self.outgoing_size = self.pings_owed = 0
        self.in_pieces = False
        return pieces

    def put_back(self, pieces: list[bytes]) -> None:
        """Put back what was taken, before all that is to be sent."""
        self.outgoing[:0] = pieces
        self._taken -= len(pieces)
        self.outgoing_size += sum(map(len, pieces))

    client_write = server_write = take

    def send_message(self, message: str | bytes, compress: bool | None = None) -> None:
        """Send a whole message: ``str`` as text, ``bytes`` as binary.

        Without ``compress`` it goes compressed where ``compressed`` is true and it is no shorter than the threshold.
        Raises :class:`LocalProtocolError` unless the connection is open, UnicodeEncodeError for a lone surrogate, and
        ValueError where it cannot be compressed but is to be; nothing is changed then.
        """
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"a message cannot be sent: the connection is {self.state.value}")
        if self.masked or self.compressed or compress:
            data = self.encode_message(message, compress)
        else:
            if isinstance(message, str):
                head = 0x81
                data = message.encode()
            else:
                head = 0x82
                data = message if message.__class__ is bytes else _to_bytes(message)
            if len(data) < LARGE:
                data = encode(head, data)
            else:
                self._queue_other(long_head(head, len(data)))
                self.in_pieces = True
        self.outgoing.append(data)
        self.outgoing_size += len(data)

    def send_encoded(self, frame: bytes) -> None:
        """Send a frame that :meth:`encode_message` has made, of this connection or of one of the same kind.

        Raises :class:`LocalProtocolError` unless the connection is open.
        """
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"a message cannot be sent: the connection is {self.state.value}")
        self._queue(frame)

    def encode_message(self, message: str | bytes, compress: bool | None = None) -> bytes:
        """The bytes of the frame that :meth:`send_message` sends, whatever the state."""
        if isinstance(message, str):
            head = 0x81
            payload = message.encode()
        else:
            head = 0x82
            payload = message if message.__class__ is bytes else _to_bytes(message)
        if self.compressed if compress is None else compress:
            deflate = self.check_can_compress()
            if compress or len(payload) >= deflate.threshold:
                payload = deflate.compress(payload)
                head |= 0x40
        return encode(head, payload, masking_key() if self.masked else None)

    def fragmenter(self, opcode: int, compress: bool | None = None) -> Fragmenter:
        """What cuts a message of which the pieces come one by one; its frames are for :meth:`send_frame`.

        Until it has ended, no other data frame may be sent (section 5.4). ``compress`` is that of
        :meth:`send_message`; there is no threshold, as nobody knows how long it will be.
        """
        compress = self.compressed if compress is None else compress
        return Fragmenter(opcode, self.check_can_compress() if compress else None)

    def check_can_compress(self) -> PerMessageDeflate:
        """The codec that compresses what is sent. ValueError that tells why where there is none."""
        return check_can_compress(None if self.agreement is None else self.agreement.deflate)

    @property
    def frame_kind(self) -> tuple[int, ...] | None:
        """What settles how a message is written: of the same kind, two connections send it in the same bytes.

        None where each message has a frame of its own: by a new masking key, or by a context of the messages before.
        """
        if self.masked:
            return None
        return self.check_can_compress().kind if self.compressed else ()

    def send_frame(self, frame: Frame) -> None:
        """Send a frame as it is: control frames, fragments, and frames that no rule allows.

        Raises :class:`LocalProtocolError` unless the connection is open, and ValueError for an opcode over 15. A Close
        begins the closing handshake, as :meth:`send_close` does.

        So fragmented messages and the frames of extensions are sent, and other implementations tested, as in the seed.
        """
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"a frame cannot be sent: the connection is {self.state.value}")
        self._send_frame(frame.head, frame.payload)
        if frame.opcode == Opcode.CLOSE:
            self._move(Signal.CLOSE_SENT)

    def send_close(self, code: int | None = None, reason: str | None = None) -> None:
        """Begin the closing handshake (section 7.1.2). ValueError where ``code`` or ``reason`` may not be sent."""
        payload = check_close(code, reason)
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"Close cannot be sent: the connection is {self.state.value}")
        self._send_frame(0x80 | Opcode.CLOSE, payload)
        self._move(Signal.CLOSE_SENT)

    def _send_frame(self, head: int, payload: bytes) -> None:
        queue = self._queue if head & 0x88 == 0x80 else self._queue_other
        queue(encode(head, payload, masking_key() if self.masked else None))

    def _queue(self, data: bytes) -> None:
        self.outgoing.append(data)
        self.outgoing_size += len(data)

    def _queue_other(self, data: bytes) -> None:
        """Queue what is not the end of a message."""
        if data:
            self._other += 1
            self._queue(data)

    @property
    def messages_sent(self) -> int:
        """Messages that were sent, those that wait in ``outgoing`` among them. They are not counted one by one."""
        return self._taken + len(self.outgoing) - self._other

    def _move(self, signal: Signal) -> None:
        try:
            self.state = TRANSITIONS[self.state][signal]
        except KeyError:
            raise LocalProtocolError(f"{signal.value}: not possible while {self.state.value}") from None
        if self.state not in _READS:
            self.pending = False
