"""The transaction: one WebSocket connection, for one task or many, inside a nursery.

This is the surface of the seed, ``Pyjo.Transaction.WebSocket``, and of what it inherits, in the shape of trio: a
:class:`trio.abc.Channel` of messages, with memory channels and callbacks for its events. How it runs is in
:mod:`~trio_pyjo_ws.connection`.
"""

from __future__ import annotations

import inspect
import itertools
import json as json_module
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_bytes
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled

from .connection import CORK_SIZE, TURN, Connection
from .wire import frames, negotiate
from .wire.deflate import Deflate
from .wire.frames import Close, Frame
from .wire.protocol import State, check_close

if TYPE_CHECKING:
    from .housekeeper import Housekeeper
    from .settings import Settings
    from .transport import Transport
    from .wire.negotiate import Request, Response
    from .wire.protocol import Handshake, Protocol

__all__ = ["Transaction", "TransactionStatistics"]

_MISSING: Any = object()
_MESSAGE_TYPES = frozenset({str, bytes})
_numbers = itertools.count(1)

SentCallback = Callable[["Transaction"], object]
"""Called with the transaction once everything queued so far has been handed to the kernel; may be asynchronous."""

FrameFields = Union[Frame, Sequence[Any]]
"""``[fin, rsv1, rsv2, rsv3, opcode, payload]``"""


class TransactionStatistics(NamedTuple):
    """What :meth:`Transaction.statistics` tells."""

    state: str
    """``"connecting"``, ``"open"``, ``"closing"``, ``"closed"``, ``"failed"`` or ``"ended"``."""
    messages_waiting: int
    """Messages that were received and not yet taken by ``receive()``."""
    bytes_unsent: int
    """Bytes that wait for the kernel to take them."""
    tasks_waiting_receive: int
    """Tasks that wait for a message or for the end; at most one of them is in ``receive()``."""
    tasks_waiting_send: int
    """Tasks that wait in ``send()`` or ``drain()``."""
    pings_waiting: int
    """Pings whose pong has not come."""
    latency: float | None
    """Seconds that the last pong took, None before the first."""


class Transaction(Connection, trio.abc.Channel["str | bytes"]):
    """A WebSocket connection.

    Made by :func:`~trio_pyjo_ws.connect`, :func:`~trio_pyjo_ws.open_websocket`, :func:`~trio_pyjo_ws.serve` and
    :func:`~trio_pyjo_ws.testing.open_memory_pair`. It lives in their nursery: cancelling that closes the socket at once.
    Use it as ``async with`` to have it closed with :meth:`aclose`, and as ``async for`` to take messages until the
    peer closes normally.

    One task at a time may receive; any number may send.
    """

    def __init__(
        self,
        protocol: Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        settings: Settings,
        crash: Callable[[Exception], None] | None = None,
    ) -> None:
        super().__init__(protocol, transport, housekeeper, settings, crash)
        self.connection: str = f"{protocol.role}-{next(_numbers)}"
        """An identifier of the connection, of this side and process."""
        self._subprotocol: str | None = None
        self._deflate = settings.compression

    def __repr__(self) -> str:
        host, port = self._transport.remote
        peer = f" {host}" + (f":{port}" if port is not None else "") if host else ""
        return f"<Transaction {self.connection} {self._protocol.state.value}{peer}>"

    def statistics(self) -> TransactionStatistics:
        """The state of the connection and of what waits in it and for it."""
        return TransactionStatistics(
            state=self._protocol.state.value,
            messages_waiting=len(self._inbox),
            bytes_unsent=self._queued(),
            tasks_waiting_receive=len(self._read_lot) + (self._receiving and self._reading and not self._read_lot),
            tasks_waiting_send=len(self._write_lot) + self._writing,
            pings_waiting=len(self._pings),
            latency=self._latency,
        )

    # Receiving

    async def receive(self) -> str | bytes:
        """Return the next message: ``str`` for text, ``bytes`` for binary.

        Raises :class:`trio.EndOfChannel` after the peer has closed normally (1000, 1001 or no code),
        :class:`ConnectionClosed` after any other end, :class:`trio.ClosedResourceError` when this side has closed, and
        :class:`trio.BusyResourceError` while another task receives; messages that came before the end are returned first.

        A checkpoint: checks for cancellation always, yields when it waits or when the task has not yielded for a
        millisecond. Cancelling it loses no message.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        await checkpoint_if_cancelled()
        inbox = self._inbox
        if inbox and perf_counter() - self._housekeeper.turn_started > TURN:
            await self._yield()
        if not inbox:
            self._receiving = True
            try:
                while not inbox:
                    self._prepare_to_wait()
                    if self._reading:
                        await self._read_lot.park()
                    else:
                        await self._advance()
            finally:
                self._receiving = False
                if not self._attended:
                    self._attend()
        message = inbox.popleft()
        self._active = True
        if not self._attended:
            self._attend()
        return message

    def receive_nowait(self) -> str | bytes:
        """Return a message that has been read already. Raises :class:`trio.WouldBlock` where there is none, and what
        :meth:`receive` raises once there will be none.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        if not self._inbox:
            if self._protocol.state is State.OPEN or self._events or self._emitter.blocked:
                raise trio.WouldBlock
            raise self._end_of_messages()
        message = self._inbox.popleft()
        self._active = True
        self._attend()
        return message

    # Sending

    @overload
    async def send(self, message: str | bytes | bytearray | memoryview, /, *, cb: SentCallback | None = ...) -> None: ...
    @overload
    async def send(self, cb: SentCallback, message: str | bytes | bytearray | memoryview, /) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, text: str) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, binary: bytes | bytearray | memoryview) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, json: Any) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, frame: FrameFields) -> None: ...
    @overload
    async def send(self, *, text: str, cb: SentCallback | None = ...) -> None: ...
    @overload
    async def send(self, *, binary: bytes | bytearray | memoryview, cb: SentCallback | None = ...) -> None: ...
    @overload
    async def send(self, *, json: Any, cb: SentCallback | None = ...) -> None: ...
    @overload
    async def send(self, *, frame: FrameFields, cb: SentCallback | None = ...) -> None: ...

    async def send(self, first: Any = _MISSING, second: Any = _MISSING, /, **forms: Any) -> None:
        """Send a message, or a frame, and return once it is written or is in a batch that is written before this task
        can next block.

        ``str`` goes as text, ``bytes`` as binary; ``text=``, ``binary=`` and ``json=`` (any object that JSON can hold, sent
        as text) say which; ``frame=[fin, rsv1, rsv2, rsv3, opcode, payload]`` sends any frame as it is. A callable, first
        or as ``cb=``, is called with the transaction once everything queued so far has been handed to the kernel.

        Raises TypeError or ValueError before anything is written where the arguments do not fit, :class:`ConnectionClosed`
        when the connection has ended, and :class:`trio.ClosedResourceError` when this side has closed it.

        A checkpoint, as :meth:`receive` is. Cancelled, it has queued the whole frame or nothing of it.
        """
        await checkpoint_if_cancelled()
        if first.__class__ in _MESSAGE_TYPES and second is _MISSING and not forms:
            payload, callback = first, None  # the usual form
        else:
            payload, callback = _compose(first, second, **forms)
        if self._unsent:
            while self._queued() >= self._settings.write_limit and self._protocol.state is State.OPEN:
                await self._wait_written(self._sent + 1)
        self._queue(payload, callback)
        if self._inbox and not self._unsent and self._protocol.outgoing_size < CORK_SIZE:
            if not self._corked:
                self._cork()
        elif not self._flush():
            await self._wait_written(self._sent + self._queued())
            return
        if perf_counter() - self._housekeeper.turn_started > TURN:
            await self._yield()

    @overload
    def send_nowait(self, message: str | bytes | bytearray | memoryview, /, *, cb: SentCallback | None = ...) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, message: str | bytes | bytearray | memoryview, /) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, text: str) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, binary: bytes | bytearray | memoryview) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, json: Any) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, frame: FrameFields) -> None: ...
    @overload
    def send_nowait(self, *, text: str, cb: SentCallback | None = ...) -> None: ...
    @overload
    def send_nowait(self, *, binary: bytes | bytearray | memoryview, cb: SentCallback | None = ...) -> None: ...
    @overload
    def send_nowait(self, *, json: Any, cb: SentCallback | None = ...) -> None: ...
    @overload
    def send_nowait(self, *, frame: FrameFields, cb: SentCallback | None = ...) -> None: ...

    def send_nowait(self, first: Any = _MISSING, second: Any = _MISSING, /, **forms: Any) -> None:
        """Queue what :meth:`send` would send, and return at once. It is written in the next turn of the scheduler.

        Raises :class:`trio.WouldBlock`, and queues nothing, while ``write_limit`` bytes wait to be written already.
        """
        payload, callback = _compose(first, second, **forms)
        if self._protocol.state is State.OPEN and self._queued() >= self._settings.write_limit:
            raise trio.WouldBlock
        self._queue(payload, callback)
        if self._unsent or self._writing:
            self._flush_or_write()
        else:
            self._cork()

    def _queue(self, payload: str | bytes | Frame, callback: SentCallback | None) -> None:
        protocol = self._protocol
        if protocol.state is not State.OPEN:
            raise self._closed_error()
        if payload.__class__ is not Frame:
            protocol.send_message(payload)  # type: ignore[arg-type]
        else:
            protocol.send_frame(payload)  # type: ignore[arg-type]
            if protocol.state is not State.OPEN:
                self._closed_here = True
                self._advance_closing()
        if callback is not None:
            self._drain_callbacks.append((self._sent + self._queued(), self._bind(callback)))
            self._write_watched = True

    def _bind(self, callback: SentCallback) -> Callable[[], None]:
        def call() -> None:
            result = callback(self)
            if inspect.iscoroutine(result):
                self._start_soon(lambda: result, f"callback {callback!r}")

        return call

    async def drain(self) -> None:
        """Wait until everything queued so far has been handed to the kernel. A checkpoint.

        Raises what :meth:`send` raises when the connection ends before that.
        """
        await trio.lowlevel.checkpoint()
        self._flush_or_write()
        await self._wait_written(self._sent + self._queued())

    async def ping(self, payload: bytes | None = None) -> float:
        """Send a ping, wait for its pong, and return the seconds that it took.

        ``payload``: at most 125 bytes, not that of a ping that is still waiting; four random bytes where none is given.
        Raises what :meth:`send` raises when the connection ends first. A checkpoint; cancelled, the ping may have been
        sent, and its pong is ignored.
        """
        await checkpoint_if_cancelled()
        if payload is None:
            payload = token_bytes(4)
        if not isinstance(payload, bytes):
            raise TypeError(f"the payload of a ping is bytes, not {type(payload).__name__}")
        if len(payload) > 125:
            raise ValueError(f"the payload of a ping has at most 125 bytes, not {len(payload)}")
        if payload in self._pings:
            raise ValueError(f"a ping with the payload {payload!r} is waiting for its pong already")
        if self._protocol.state is not State.OPEN:
            raise self._closed_error()
        ping = self._send_ping(payload)
        self._pongs_awaited += 1
        try:
            self._attend_now()
            await ping.answered.wait()
        finally:
            self._pongs_awaited -= 1
            self._pings.pop(payload, None)
        if ping.latency is None:
            raise self._closed_error()
        return ping.latency

    # Closing

    async def finish(self, code: int | None = None, reason: str | None = None) -> Close:
        """Close gracefully: send Close, wait for the peer's Close and the end of the stream, return how it ended.

        That is the :class:`Close` that the peer answered with, or one with 1006 where it did not within
        ``close_timeout``. Messages that were received before stay readable; those that still come are discarded. Where the
        connection is closing already, this waits for its end.

        Raises ValueError before anything is written: for a code that must not be sent, for a reason of more than 123
        bytes of UTF-8, and for a reason without a code. A checkpoint; cancelled, the connection goes on closing in the
        background, within ``close_timeout``.
        """
        check_close(code, reason)
        await trio.lowlevel.checkpoint()
        if self._protocol.state is State.OPEN:
            self._begin_close(code, reason)
        self._closed_here = True
        await self._wait_ended()
        assert self._protocol.close is not None
        return self._protocol.close

    async def aclose(self) -> None:
        """Close as :meth:`finish` does with 1000. Cancelled, the socket is closed at once. A checkpoint."""
        try:
            await self.finish(1000)
        finally:
            self._closed_here = True
            self._end()

    @property
    def close(self) -> Close | None:
        """How the connection ended: what the peer sent, 1005 for no code, 1006 for a lost connection; None before."""
        return self._protocol.close

    # Events

    def open_channel(self, event: str, max_buffer_size: int = 16) -> trio.MemoryReceiveChannel[Any]:
        """A memory channel that carries an event from now on.

        ``binary``: bytes; ``text``: the undecoded UTF-8 bytes; ``message``: str or bytes; ``json``: the decoded object
        of text and binary messages alike; ``frame``: :class:`Frame`; ``finish``: :class:`Close`; ``drain``,
        ``connection``, ``resume``: the transaction; ``error``: the exception.

        A message that goes to a channel does not go to :meth:`receive`. Where the channel is full, reading from
        the network waits for it. Closing the channel unsubscribes; it ends when the connection does. JSON that does not
        decode raises ValueError in the channel's reader, and the connection goes on.
        """
        channel = self._emitter.open_channel(event, max_buffer_size)
        self._tell_state(event)
        return channel

    @overload
    def on(self, event: Callable[..., Any], /) -> Callable[..., Any]: ...
    @overload
    def on(self, event: str, callback: Callable[..., Any], /) -> Callable[..., Any]: ...

    def on(self, event: str | Callable[..., Any], callback: Callable[..., Any] | None = None, /) -> Callable[..., Any]:
        """Subscribe a callback, and return it. ``@ws.on`` takes the event's name from the function's.

        It is called as ``callback(ws, value)``, ``finish`` as ``callback(ws, code, reason)``, and ``drain``,
        ``connection``, ``resume`` as ``callback(ws)``. A synchronous one runs where the event happens; an asynchronous one in a
        task of the nursery, one call after the other. An exception in it is never swallowed: it comes out where the
        event happens, or else in the nursery (on a server: it ends this connection with 1011).
        """
        return self._subscribe(event, callback, once=False)

    @overload
    def once(self, event: Callable[..., Any], /) -> Callable[..., Any]: ...
    @overload
    def once(self, event: str, callback: Callable[..., Any], /) -> Callable[..., Any]: ...

    def once(self, event: str | Callable[..., Any], callback: Callable[..., Any] | None = None, /) -> Callable[..., Any]:
        """Subscribe a callback for the next time only; otherwise as :meth:`on`."""
        return self._subscribe(event, callback, once=True)

    def _subscribe(
        self, event: str | Callable[..., Any], callback: Callable[..., Any] | None, once: bool
    ) -> Callable[..., Any]:
        if callback is None and callable(event):
            event, callback = event.__name__, event
        if callback is None or not isinstance(event, str):
            raise TypeError(f"on() and once() take a function, or an event and a callback; not {event!r}")
        self._emitter.on(event, callback, once)
        self._tell_state(event)
        return callback

    def _tell_state(self, event: str) -> None:
        # What has happened once and for all is told to those who come late, too.
        if event == "connection" and self.established:
            self._emitter.emit("connection")

    def catch(self, callback: Callable[..., Any], /) -> Callable[..., Any]:
        """Subscribe a callback to ``error``."""
        return self._subscribe("error", callback, once=False)

    def unsubscribe(self, event: str, callback: Callable[..., Any] | None = None, /) -> None:
        """Forget a callback, or all the callbacks and channels of an event."""
        self._emitter.unsubscribe(event, callback)

    def unsubscribe_all(self, event: str, /) -> None:
        """Forget all the callbacks and channels of an event."""
        self._emitter.unsubscribe(event)

    def subscribers(self, event: str, /) -> list[Callable[..., Any]]:
        """The callbacks of an event, in the order in which they are called."""
        return self._emitter.callbacks(event)

    def has_subscribers(self, event: str, /) -> bool:
        """Whether there is a callback or a channel for an event."""
        self._emitter.callbacks(event)
        return self._emitter.has(event)

    def emit(self, event: str, /, *arguments: Any) -> Transaction:
        """Call the callbacks and feed the channels of an event. An ``error`` that nobody subscribes to is raised."""
        self._emitter.callbacks(event)
        if not self._emitter.emit(event, *arguments) and event == "error":
            error = arguments[0] if arguments else "unknown error"
            raise error if isinstance(error, Exception) else RuntimeError(error)
        return self

    def resume(self) -> Transaction:
        """Hand over what is queued, now, as far as the kernel takes it, and emit ``resume``."""
        self._flush_or_write()
        self._emitter.emit("resume")
        return self

    # Frames

    def build_frame(
        self,
        fin: bool | int,
        rsv1: bool | int,
        rsv2: bool | int,
        rsv3: bool | int,
        op: int,
        payload: bytes | bytearray | memoryview,
    ) -> bytes:
        """The bytes of a frame, masked where this side masks."""
        return frames.build_frame(fin, rsv1, rsv2, rsv3, op, payload, masked=self.masked)

    @overload
    def build_message(self, message: str | bytes, /) -> bytes: ...
    @overload
    def build_message(self, *, text: str) -> bytes: ...
    @overload
    def build_message(self, *, binary: bytes | bytearray | memoryview) -> bytes: ...
    @overload
    def build_message(self, *, json: Any) -> bytes: ...
    @overload
    def build_message(self, *, frame: FrameFields) -> bytes: ...

    def build_message(self, message: Any = _MISSING, /, **forms: Any) -> bytes:
        """The bytes of the frame that :meth:`send` would send.

        A compressed message becomes part of what the peer decompresses: build it only to send it, and in order.
        """
        payload, callback = _compose(message, _MISSING, **forms)
        if callback is not None:
            raise TypeError("build_message() takes no callback: nothing is sent")
        if isinstance(payload, Frame):
            return self.build_frame(*payload)
        return self._protocol.encode_message(payload)

    def parse_frame(self, chunk: bytearray) -> Frame | None:
        """Remove the first frame from ``chunk`` and return it; None while it is incomplete.

        Raises :class:`RemoteProtocolError` with code 1009 for a frame over :attr:`max_websocket_size`.
        """
        return frames.parse_frame(chunk, self.max_websocket_size)

    # Attributes

    @property
    def compressed(self) -> bool:
        """Whether messages are sent compressed. Settable; to true only where the handshake has agreed on it."""
        return self._protocol.compressed

    @compressed.setter
    def compressed(self, compressed: bool) -> None:
        agreement = self._protocol.agreement
        if compressed and (agreement is None or agreement.deflate is None or not agreement.deflate.can_compress):
            raise ValueError("messages cannot be compressed: the opening handshake has not agreed on permessage-deflate")
        self._protocol.compressed = bool(compressed)

    @property
    def masked(self) -> bool:
        """Whether frames are sent masked: on a client. Settable, for tests: RFC 6455, section 5.1, leaves no choice."""
        return self._protocol.masked

    @masked.setter
    def masked(self, masked: bool) -> None:
        self._protocol.masked = bool(masked)

    @property
    def max_websocket_size(self) -> int:
        """Bytes of the largest message that is accepted, before and after inflation. Settable."""
        return self._protocol.max_websocket_size

    @max_websocket_size.setter
    def max_websocket_size(self, size: int) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"max_websocket_size is a number of bytes, not {size!r}")
        self._protocol.max_websocket_size = size

    @property
    def handshake(self) -> Handshake | None:
        """The opening handshake, with its ``request`` and ``response``; None where there was none."""
        return self._protocol.handshake

    @property
    def req(self) -> Request | None:
        """The request of the opening handshake."""
        return None if self.handshake is None else self.handshake.request

    @property
    def res(self) -> Response | None:
        """The response of the opening handshake."""
        return None if self.handshake is None else self.handshake.response

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the opening handshake has agreed on."""
        agreement = self._protocol.agreement
        return self._subprotocol if agreement is None else agreement.subprotocol

    @property
    def established(self) -> bool:
        """Whether the opening handshake has succeeded."""
        return self._protocol.agreement is not None

    is_websocket: Literal[True] = True
    """True."""

    kept_alive: Literal[False] = False
    """Whether the connection has served another request before: never."""

    @property
    def is_finished(self) -> bool:
        """Whether the connection has ended."""
        return self._ended

    @property
    def is_writing(self) -> bool:
        """Whether something waits to be written."""
        return self._queued() > 0

    @property
    def error(self) -> Exception | None:
        """Why the connection ended, where it ended otherwise than by a normal close."""
        error = self._end_of_messages() if self._protocol.close is not None else None
        return None if isinstance(error, (trio.EndOfChannel, trio.ClosedResourceError)) else error

    @property
    def success(self) -> Response | None:
        """The response of the opening handshake, unless there was an :attr:`error`."""
        return self.res if self.error is None else None

    @property
    def local_address(self) -> str | None:
        """This side's IP address, or the path of a Unix socket; None over a stream that has none."""
        return self._transport.local[0]

    @property
    def local_port(self) -> int | None:
        """This side's port."""
        return self._transport.local[1]

    @property
    def remote_address(self) -> str | None:
        """The peer's IP address."""
        return self.original_remote_address

    @property
    def original_remote_address(self) -> str | None:
        """The IP address that the connection comes from: the peer's, or its proxy's."""
        return self._transport.remote[0]

    @property
    def remote_port(self) -> int | None:
        """The peer's port."""
        return self._transport.remote[1]

    # The opening handshake, in a server's on_request

    def with_compression(self, deflate: Deflate | None = None) -> None:
        """Compress messages if the client offers permessage-deflate, whatever the server's own option says."""
        self._check_connecting()
        self._deflate = Deflate() if deflate is None else deflate

    def with_protocols(self, *names: str) -> str | None:
        """Choose the first of the subprotocols ``names`` that the client offers, and return it; None for none."""
        request = self._check_connecting()
        self._subprotocol = negotiate.choose_subprotocol(request, names)
        return self._subprotocol

    def _check_connecting(self) -> Request:
        if self.established or self.req is None:
            raise RuntimeError("this is for the server's on_request, before the opening handshake is answered")
        return self.req


def _compose(
    first: Any,
    second: Any,
    *,
    text: Any = _MISSING,
    binary: Any = _MISSING,
    json: Any = _MISSING,
    frame: Any = _MISSING,
    cb: SentCallback | None = None,
) -> tuple[str | bytes | Frame, SentCallback | None]:
    """What the arguments of ``send`` say: the message or frame, and the callback."""
    message = first
    if callable(first):
        if cb is not None:
            raise TypeError("two callbacks: one given first and one as cb=")
        cb, message = first, second
    elif second is not _MISSING:
        raise TypeError(f"send() takes one message; a callable before it is a callback, and {first!r:.60} is none")
    if cb is not None and not callable(cb):
        raise TypeError(f"cb= is a callable, not {cb!r:.60}")
    given = {"a message": message, "text=": text, "binary=": binary, "json=": json, "frame=": frame}
    names = [name for name, value in given.items() if value is not _MISSING]
    if len(names) != 1:
        what = " and ".join(names) if names else "nothing"
        raise TypeError(f"one of a message, text=, binary=, json= and frame= is sent; given was {what}")
    if json is not _MISSING:
        # As Mojolicious writes it: compact, and characters as they are. NaN is no JSON.
        return json_module.dumps(json, separators=(",", ":"), ensure_ascii=False, allow_nan=False), cb
    if frame is not _MISSING:
        return _frame(frame), cb
    if text is not _MISSING:
        if not isinstance(text, str):
            raise TypeError(f"text= is str, not {type(text).__name__}; bytes go as binary=")
        return str(text), cb
    payload = message if binary is _MISSING else binary
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload), cb
    if binary is _MISSING and isinstance(payload, str):
        return str(payload), cb
    accepted = "str or bytes; objects go as json=" if binary is _MISSING else "bytes; str goes as text="
    raise TypeError(f"{names[0]} is {accepted}: not {type(payload).__name__}")


def _frame(fields: Any) -> Frame:
    try:
        fin, rsv1, rsv2, rsv3, opcode, payload = fields
    except (TypeError, ValueError):
        raise TypeError(f"frame= is [fin, rsv1, rsv2, rsv3, opcode, payload], not {fields!r:.60}") from None
    if not isinstance(opcode, int) or not 0 <= opcode <= 15:
        raise ValueError(f"the opcode of a frame is an integer from 0 to 15, not {opcode!r}")
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise TypeError(f"the payload of a frame is bytes, not {type(payload).__name__}")
    return Frame(bool(fin), bool(rsv1), bool(rsv2), bool(rsv3), opcode, bytes(payload))
