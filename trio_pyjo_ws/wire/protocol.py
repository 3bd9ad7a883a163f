# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
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

What has come of a message that is not whole is in ``arriving``. Whoever wants it in pieces *claims* it: then they take
what has come from there, at any size, and it is not among the events.
"""

from __future__ import annotations

import typing
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

from ..errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from . import masking
from .codec import MAX_EMPTY_FRAGMENTS, Decoder
from .deflate import Agreement, check_can_compress
from .fragments import Fragmenter
from .frames import MAX_REASON, NORMAL_CODES, Close, Frame, Opcode, check_close, long_head, masking_key, parse_close
from .inflating import AT_ONCE, Inflating
from .states import TRANSITIONS, Signal, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arriving import Arriving
    from .deflate import Deflate, PerMessageDeflate

__all__ = [
    "MAX_WEBSOCKET_SIZE",
    "Agreement",
    "Event",
    "Pong",
    "Protocol",
    "State",
]

MAX_WEBSOCKET_SIZE = 262_144
"""The default bound on a message in bytes, before and after inflation: the seed's and Mojolicious'."""

MAX_EARLY = 65_536
"""Bytes that a server keeps of what a client sends before its request is answered. A client should send none."""

LARGE = 32_768
"""Bytes of a payload that is not copied to stand behind its head: 3 us of copying, against 1 us of a second piece."""

_UNLIMITED = 1 << 62

_CONNECTING = State.CONNECTING
_OPEN = State.OPEN
_CLOSING = State.CLOSING


class Pong(NamedTuple):
    """A pong has come (RFC 6455, section 5.5.3)."""

    payload: bytes


if TYPE_CHECKING:

    class Requested(typing.Protocol):
        """The request of an opening handshake, of which nothing matters here."""

        @property
        def method(self) -> str: ...
        @property
        def target(self) -> str: ...

    class Handshake(typing.Protocol):
        """What the state machine needs of either half of an opening handshake."""

        rest: bytes

        @property
        def request(self) -> Any: ...
        @property
        def response(self) -> Any: ...
        def read(self, data: bytes) -> Agreement | Requested | None: ...
        def read_eof(self) -> None: ...
        def write(self) -> bytes: ...


# Evaluated at run time: there, `X | Y` works only for classes on Python 3.10.
Event = Union[str, bytes, Frame, Pong, Close, RemoteProtocolError, Agreement, "Requested"]
"""What :meth:`Protocol.client_read` and :meth:`Protocol.server_read` give. ``RemoteProtocolError`` stands for the
breach that ended the connection; the Close frame that answers it is waiting to be written."""


def _to_bytes(message: object) -> bytes:
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"a message must be str or bytes, not {type(message).__name__}")
    return memoryview(message).tobytes()


class Protocol:
    """One side of a WebSocket connection, from the opening handshake to the end of the stream.

    ``role`` is ``"client"`` or ``"server"``. Without a ``handshake`` the connection is established from the start,
    with ``agreement``. What is to be sent collects in ``outgoing``, a list of byte strings of ``outgoing_size`` bytes
    in all; ``client_write()``/``server_write()`` take it.
    """

    __slots__ = (
        "_breach",
        "_decoder",
        "_inflating",
        "_kept",
        "_open_message",
        "_other",
        "_sent_close",
        "_taken",
        "agreement",
        "close",
        "compressed",
        "cut",
        "handshake",
        "in_pieces",
        "masked",
        "on_taken",
        "outgoing",
        "outgoing_size",
        "pending",
        "pings_owed",
        "plain",
        "role",
        "state",
    )

    def __init__(
        self,
        role: Literal["client", "server"],
        *,
        handshake: Handshake | None = None,
        agreement: Agreement | None = None,
        max_websocket_size: int = MAX_WEBSOCKET_SIZE,
        max_empty_fragments: int = MAX_EMPTY_FRAGMENTS,
    ) -> None:
        if role not in ("client", "server"):
            raise ValueError(f"the role must be 'client' or 'server', not {role!r}")
        self.role: Literal["client", "server"] = role
        self.handshake = handshake
        self.agreement: Agreement | None = None
        self.state = _CONNECTING
        self.masked = role == "client"
        self.compressed = False
        self.close: Close | None = None
        """How the connection ended, once it has: what was agreed on, or why this side failed it."""
        self.cut = False
        """Whether the peer's Close came in the middle of a message of its own."""
        self.plain = True
        """Whether the last read gave messages only."""
        self.pending = False
        """Whether the last read ended before its data did: there may be more events without more data."""
        self.pings_owed = 0
        """Pongs that are waiting in ``outgoing``."""
        self.outgoing: list[bytes] = []
        self.in_pieces = False
        """Whether ``outgoing`` has a payload that is worth sending without joining it to the rest."""
        self.outgoing_size = 0
        self.on_taken: Callable[[bytes], None] | None = None
        """Called with the bytes that are taken to be sent: whole frames."""
        # What stood in ``outgoing`` and was taken, and how much of what was ever there was not the end of a message.
        self._taken = 0
        self._other = 0
        self._open_message = False  # a message has been sent in part
        self._sent_close: Close | None = None
        # Before the handshake has ended the decoder only holds the options that may be set on it.
        self._decoder = Decoder(role == "server", min(max_websocket_size, _UNLIMITED), False, max_empty_fragments)
        self._inflating: Inflating | None = None  # if compression was agreed on
        self._kept = b""  # what came before the request was answered
        self._breach: RemoteProtocolError | None = None
        if handshake is None:
            self._establish(agreement or Agreement(), b"")
        else:
            self._queue_other(handshake.write())

    @property
    def max_websocket_size(self) -> int:
        """The largest message that is accepted, in bytes, before and after inflation.

        Settable, at any time: None removes the bound (2**62); ValueError unless it is that or a non-negative int.
        """
        return self._decoder.max_size

    @max_websocket_size.setter
    def max_websocket_size(self, size: int | None) -> None:
        given: object = _UNLIMITED if size is None else size
        if not isinstance(given, int) or isinstance(given, bool) or given < 0:
            raise ValueError(f"max_websocket_size must be a number of bytes or None, not {size!r}")
        self._decoder.max_size = min(given, _UNLIMITED)

    @property
    def deflate(self) -> PerMessageDeflate | None:
        """The codec of permessage-deflate, if the opening handshake has agreed on it."""
        return None if self.agreement is None else self.agreement.deflate

    @property
    def watch_frames(self) -> bool:
        """Whether every frame is given as an event of its own, before what it means."""
        return self._decoder.watch

    @watch_frames.setter
    def watch_frames(self, watch: bool) -> None:
        self._decoder.watch = watch

    @property
    def arriving(self) -> Arriving:
        """The message of which a part has come, or else the next."""
        return self._decoder.arriving

    def unclaim(self) -> bool:
        """Nobody has taken a piece of the message that is arriving: have it given whole. False if it is too large."""
        return self._decoder.unclaim()

    @property
    def holding(self) -> bool:
        """Whether reading stops at a message over ``max_websocket_size``, which may yet be claimed."""
        return self._decoder.holding

    @holding.setter
    def holding(self, holding: bool) -> None:
        self._decoder.holding = holding

    @property
    def held(self) -> bool:
        """Whether the last read has stopped because of :attr:`holding`."""
        return self._decoder.held or (self._inflating is not None and self._inflating.held)

    def __repr__(self) -> str:
        return f"<Protocol {self.role} {self.state.value}>"

    # Reading

    def client_read(
        self, data: bytes = b"", *, max_messages: int = _UNLIMITED, max_bytes: int = _UNLIMITED
    ) -> list[Event]:
        """Take bytes that the peer sent, in whatever pieces, and return the events that they complete.

        Stops after ``max_messages`` messages and control frames, or 1,024 frames in all, of which a control frame
        counts as eight; after compressed messages were inflated to ``max_bytes`` of memory, or 512 KiB, at 4 KiB at
        least for each step; and before a breach, so that what came before it may be answered. ``pending`` tells that
        there is more, to be had by ``client_read()``, and so it does of frames that came right behind the handshake.
        Raises :class:`HandshakeError` if that fails, and nothing else: a breach after it is the last of the events.
        """
        return self.read(data, max_messages, max_bytes)

    server_read = client_read

    def read(self, data: bytes, max_messages: int, max_bytes: int) -> list[Event]:
        """As :meth:`client_read`, for whoever does it often."""
        state = self.state
        if state is _OPEN or state is _CLOSING:
            if self._breach is not None:
                return self._fail(self._breach, [])
            if self._inflating is not None:
                return self._read_compressed(data, max_messages, max_bytes)
            decoder = self._decoder
            items = decoder.decode(data, max_messages)
            self.pending = decoder.pending
            self.plain = decoder.plain
            return items if decoder.plain else self._interpret(items, [])  # type: ignore[return-value]
        if state is _CONNECTING:
            return self._read_handshake(data)
        return []  # What follows a Close, or a breach, is ignored (section 1.4 and section 7.1.7).

    def _read_compressed(self, data: bytes, max_messages: int, max_bytes: int) -> list[Event]:
        """Read from a peer that may compress."""
        events: list[Event] = []
        decoder = self._decoder
        inflating = self._inflating
        assert inflating is not None
        inflating.budget = min(max_bytes, AT_ONCE)
        self.plain = True
        if inflating.active and data:
            decoder.decode(data, 0)
            data = b""
        while True:
            if not inflating.active:
                items = decoder.decode(data, max_messages - len(events))
                data = b""
                if decoder.plain:
                    events += items  # type: ignore[arg-type]
                else:
                    self._interpret(items, events)
                if not inflating.active:
                    break
            stop = self._inflate(inflating, events)
            if stop or inflating.budget <= 0 or len(events) >= max_messages or self._is_over():
                break
        if not self._is_over():
            self.pending = inflating.active or decoder.pending
        return events

    def _is_over(self) -> bool:
        return self._breach is not None or (self.state is not _OPEN and self.state is not _CLOSING)

    def _interpret(self, items: list[Any], events: list[Event]) -> list[Event]:
        """Add what the items mean that are not whole messages already."""
        self.plain = False
        for item in items:
            if item.__class__ is not tuple:
                if item.__class__ is RemoteProtocolError:
                    return self._fail(item, events)
                events.append(item)
                continue
            head, payload = item
            if not head & 0x08:
                assert self._inflating is not None
                self._inflating.feed(payload, head != 0)
                break  # The decoder has stopped here, too.
            try:
                self._control_frame(head & 0x0F, payload, events)
            except RemoteProtocolError as exc:
                return self._fail(exc, events)
        return events

    def _inflate(self, inflating: Inflating, events: list[Event]) -> bool:
        """Go on with what is being inflated; return whether to stop: there is more of it, or it was claimed."""
        arriving = self._decoder.arriving
        try:
            message = inflating.advance()
        except RemoteProtocolError as exc:
            self._fail(exc, events)
        else:
            if message is not None:
                events.append(message)
        return inflating.active or arriving.ended

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

    def accept(self, *, subprotocol: str | None = None, deflate: Deflate | None = None, headers: Any = ()) -> Agreement:
        """On the server: agree to the opening handshake that a request began.

        Compresses if ``deflate`` is given and the client offers it. Raises :class:`HandshakeError` if the request is no
        valid opening handshake; the response that says so is waiting to be written. Raises :class:`LocalProtocolError`
        if there is no request to accept, and ValueError for what cannot be agreed to; nothing is changed then.
        """
        handshake = self._server_side()
        try:
            agreement: Agreement = handshake.accept(subprotocol=subprotocol, deflate=deflate, headers=headers)
        except HandshakeError:
            self._move(Signal.REFUSED)
            raise
        finally:
            self._queue_other(handshake.write())
        early, self._kept = self._kept, b""
        self._establish(agreement, handshake.rest + early)
        return agreement

    def refuse(self, response: Any) -> None:
        """On the server: answer the opening handshake with ``response`` instead; the connection is over with that.

        May be called before there is a request. Raises :class:`LocalProtocolError` if it was answered already.
        """
        handshake = self._server_side()
        handshake.refuse(response)
        self._queue_other(handshake.write())
        self._move(Signal.REFUSED)

    def _server_side(self) -> Any:
        if self.role != "server" or self.state is not _CONNECTING:
            raise LocalProtocolError(f"there is no request to answer: this is a {self.role} that is {self.state.value}")
        return self.handshake

    def read_eof(self) -> None:
        """The peer's stream has ended. Without a Close before, the code is 1006 (section 7.1.5).

        Raises :class:`HandshakeError` if the opening handshake was not over.
        """
        connecting = self.state is _CONNECTING
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
        deflate = agreement.deflate
        if deflate is not None:
            self._inflating = Inflating(self._decoder, deflate)
            self._decoder.compression = True
            self.compressed = deflate.can_compress
        if rest:
            # Frames may come right behind the handshake. They are kept, not read: on a server, the handler that
            # wants them does not run yet.
            self._decoder.decode(rest, 0)
            self.pending = self._decoder.pending

    def _control_frame(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == 0x9:  # PING
            # Section 5.5.2: until a Close was received, also behind one that was sent.
            self.pings_owed += 1
            self._send_frame(0x8A, payload)
        elif opcode == 0xA:  # PONG
            events.append(Pong(payload))
        else:
            self.close = close = parse_close(payload)
            self.cut = self._decoder.arriving.begun
            if self.state is _OPEN:
                # Section 5.5.1: an endpoint that receives Close answers with one, typically with the same code.
                self._send_frame(0x88, payload)
            elif self._sent_close is not None and close.code == self._sent_close.code and not close.reason:
                self.close = close = self._sent_close  # Some answer with the code alone.
            events.append(close)
            self._move(Signal.CLOSE_RECEIVED)

    def _fail(self, exc: RemoteProtocolError, events: list[Event]) -> list[Event]:
        """Section 7.1.7: tell the peer what it did, and listen no more; first, what came before may be answered."""
        self.plain = False
        if events and self.state is _OPEN:
            self._breach = exc
            self.pending = True
        else:
            events.append(exc)
            self.fail(exc.code, str(exc))
        return events

    def fail(self, code: int, reason: str, close: Close | None = None) -> None:
        """Fail the connection: send Close with ``code`` if none was sent, and ignore what still comes.

        ``close`` is how it ends then, if not by that. A ``reason`` of more than 123 bytes is cut. Raises ValueError for
        a code that may not be sent, and :class:`LocalProtocolError` if there is no connection to fail: before the
        handshake has ended, after Close has gone both ways, and after a failure. Nothing is changed then.
        """
        reason = reason.encode()[:MAX_REASON].decode("utf-8", "ignore")
        payload = check_close(code, reason)
        was_open = self.state is _OPEN
        self._move(Signal.BREACH)
        self.close = close or Close(code, reason)
        if was_open:
            self._send_frame(0x88, payload)

    # Writing

    def take(self) -> bytes:
        """Take all that is to be sent."""
        outgoing = self.outgoing
        self._taken += len(outgoing)
        data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
        outgoing.clear()
        self.outgoing_size = self.pings_owed = 0
        self.in_pieces = False
        if self.on_taken is not None:
            self.on_taken(data)
        return data

    def take_pieces(self) -> list[bytes]:
        """Take all that is to be sent, as it is."""
        if self.on_taken is not None:
            return [self.take()]
        pieces = self.outgoing
        self._taken += len(pieces)
        self.outgoing = []
        self.outgoing_size = self.pings_owed = 0
        self.in_pieces = False
        return pieces

    def put_back(self, pieces: list[bytes]) -> None:
        """Put back what was taken, before all that is to be sent."""
        self.outgoing[:0] = pieces
        self._taken -= len(pieces)
        self.outgoing_size += sum(map(len, pieces))

    def forget(self) -> None:
        """Forget all that is to be sent: it cannot be."""
        self.on_taken = None
        self.take()

    def client_write(self) -> bytes:
        """Take all that is to be sent."""
        return self.take()

    server_write = client_write

    def send_message(self, message: str | bytes, compress: bool | None = None) -> None:
        """Send a whole message: ``str`` as text, ``bytes`` as binary.

        Without ``compress`` it goes compressed if ``compressed`` is true and it is no shorter than the threshold.
        Raises :class:`LocalProtocolError` unless the connection is open, UnicodeEncodeError for a lone surrogate, and
        ValueError if it cannot be compressed but is to be; nothing is changed then.
        """
        if self.state is not _OPEN:
            raise LocalProtocolError(f"a message cannot be sent: the connection is {self.state.value}")
        if self.masked or self.compressed or compress:
            data = self.encode_message(message, compress)
        else:
            if isinstance(message, str):
                text = message if message.__class__ is str else str.__str__(message)  # of a subclass its value
                head = 0x81
                data = text.encode("utf-8")
            else:
                head = 0x82
                data = message if message.__class__ is bytes else _to_bytes(message)
            if len(data) < LARGE:
                data = masking.encode(head, data)
            else:
                self._queue_other(long_head(head, len(data)))
                self.in_pieces = True
        self.outgoing.append(data)
        self.outgoing_size += len(data)

    def send_encoded(self, frame: bytes) -> None:
        """Send a frame that :meth:`encode_message` has made, of this connection or of one of the same kind.

        Raises :class:`LocalProtocolError` unless the connection is open.
        """
        if self.state is not _OPEN:
            raise LocalProtocolError(f"a message cannot be sent: the connection is {self.state.value}")
        self._queue(frame)

    def encode_message(self, message: str | bytes, compress: bool | None = None) -> bytes:
        """The bytes of the frame that :meth:`send_message` sends, whatever the state."""
        if isinstance(message, str):
            head = 0x81
            payload = str.encode(message)
        else:
            head = 0x82
            payload = message if message.__class__ is bytes else _to_bytes(message)
        if self.compressed if compress is None else compress:
            deflate = self.check_can_compress()
            if compress or len(payload) >= deflate.threshold:
                payload = deflate.compress(payload)
                head |= 0x40
        return masking.encode(head, payload, masking_key() if self.masked else None)

    def fragmenter(self, opcode: int, compress: bool | None = None) -> Fragmenter:
        """What cuts a message of which the pieces come one by one; its frames are for :meth:`send_frame`.

        Until it has ended, no other data frame may be sent (section 5.4). ``compress`` is that of
        :meth:`send_message`; there is no threshold, as nobody knows how long it will be.
        """
        compress = self.compressed if compress is None else compress
        return Fragmenter(opcode, self.check_can_compress() if compress else None)

    def check_can_compress(self) -> PerMessageDeflate:
        """The codec that compresses what is sent. Raises ValueError, which says why, if there is none."""
        return check_can_compress(self.deflate)

    @property
    def frame_kind(self) -> tuple[int, ...] | None:
        """Connections of the same kind send a message in the same bytes. None if each frame differs."""
        if self.masked:
            return None
        return self.check_can_compress().kind if self.compressed else ()

    def send_frame(self, frame: Frame) -> None:
        """Send a frame as it is: control frames, fragments, and frames that no rule allows.

        Raises :class:`LocalProtocolError` unless the connection is open, and ValueError for an opcode over 15. A Close
        begins the closing handshake, as :meth:`send_close` does.
        """
        if self.state is not _OPEN:
            raise LocalProtocolError(f"a frame cannot be sent: the connection is {self.state.value}")
        self._send_frame(frame.head, frame.payload)
        if frame.opcode == Opcode.CLOSE:
            with suppress(RemoteProtocolError):  # It may say anything.
                self._sent_close = parse_close(frame.payload)
            self._move(Signal.CLOSE_SENT)
        elif frame.opcode < Opcode.CLOSE:
            self._open_message = not frame.fin

    def send_close(self, code: int | None = None, reason: str | None = None) -> None:
        """Begin the closing handshake (section 7.1.2). ValueError if ``code`` or ``reason`` may not be sent.

        In the middle of a message a code of a normal end becomes 1011: the peer must not take its part for the whole.
        """
        payload = check_close(code, reason)
        if self.state is not _OPEN:
            raise LocalProtocolError(f"Close cannot be sent: the connection is {self.state.value}")
        if self._open_message and (code is None or code in NORMAL_CODES):
            payload = check_close(1011, "a message could not be completed")
        self._sent_close = parse_close(payload)
        self._send_frame(0x88, payload)
        self._move(Signal.CLOSE_SENT)

    def _send_frame(self, head: int, payload: bytes) -> None:
        self._queue(masking.encode(head, payload, masking_key() if self.masked else None))
        if head & 0x88 != 0x80:
            self._other += 1

    def _queue(self, frame: bytes) -> None:
        self.outgoing.append(frame)
        self.outgoing_size += len(frame)

    def _queue_other(self, data: bytes) -> None:
        """Queue bytes that are not a frame."""
        if data:
            self._other += 1
            self.outgoing.append(data)
            self.outgoing_size += len(data)

    @property
    def messages_sent(self) -> int:
        """Messages that were sent, those that wait in ``outgoing`` among them. They are not counted one by one."""
        return self._taken + len(self.outgoing) - self._other

    def _move(self, signal: Signal) -> None:
        try:
            self.state = TRANSITIONS[self.state][signal]
        except KeyError:
            raise LocalProtocolError(f"{signal.value}: not possible while {self.state.value}") from None
        if self.state is not _OPEN and self.state is not _CLOSING:
            self.pending = False
