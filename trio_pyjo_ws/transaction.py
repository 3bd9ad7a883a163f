"""The transaction: one WebSocket connection, for one task or many, inside a nursery.

This is the surface of the seed, ``Pyjo.Transaction.WebSocket``, and of what it inherits, in the shape of trio: a
:class:`trio.abc.Channel` of messages, with memory channels and callbacks for its events. It checks arguments and raises
errors; the connection that it holds does the rest.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled

from ._engine import frame_log
from ._engine.connection import Connection
from ._engine.receiving import JsonMessages, MessageStream, finish, receive
from ._engine.sending import ping, send, send_pieces, wait_sent
from ._engine.writing import drain
from .arguments import Compressing, Forms, FrameForm, Pieces, Sending, WholeForms, compose, compose_whole
from .escaping import escape
from .handshake.negotiate import Terms, choose_subprotocol
from .json_codec import UndecodedJson, decoder_of
from .signatures import shows
from .statistics import TransactionStatistics
from .wire import frames
from .wire.deflate import Deflate
from .wire.frames import Close, Frame, Opcode, check_close, check_control_payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from typing_extensions import TypeForm, Unpack

    from ._engine.channels import EventChannel
    from ._engine.housekeeper import Housekeeper
    from ._engine.tls_info import TlsInfo
    from ._engine.transport import Transport
    from .arguments import Binary, Bit, Calling, Data, FrameFields, SentCallback, Text
    from .handshake.messages import Request, Response
    from .options import Settings
    from .wire.protocol import Handshake, Protocol

__all__ = ["Transaction"]

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

_numbers = itertools.count(1)

_MESSAGE_TYPES: frozenset[Any] = frozenset({str, bytes})


class Transaction(trio.abc.Channel["str | bytes"]):
    """A WebSocket connection.

    Made by :func:`~trio_pyjo_ws.connect`, :func:`~trio_pyjo_ws.open_websocket`, :func:`~trio_pyjo_ws.serve` and
    :func:`~trio_pyjo_ws.testing.open_memory_pair`. It lives in their nursery: cancelling that closes the socket at
    once. Use it as ``async with`` to have it closed with :meth:`aclose`, and as ``async for`` to take messages until
    the peer closes normally.

    One task at a time may receive; any number may send.
    """

    __slots__ = ("__connection__", "__dict__", "__weakref__", "_terms", "connection", "reverse_proxy")

    is_websocket: Literal[True] = True
    """True."""

    kept_alive: Literal[False] = False
    """Whether the connection has served another request before: never."""

    user: Any = None
    """Who the client is, as found out by ``on_request``; the library only keeps it."""

    def __init__(
        self,
        protocol: Protocol,
        transport: Transport,
        housekeeper: Housekeeper,
        settings: Settings,
        crash: Callable[[BaseException], None] | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.connection: str = f"{protocol.role}-{next(_numbers)}"
        """An identifier of the connection, of this side and process."""
        self.reverse_proxy: bool = False
        """Whether the request came through a reverse proxy that is trusted to name the client, see
        :attr:`remote_address`. Settable, on a server; its option ``trusted_proxies`` sets it."""
        self.__connection__ = Connection(self.connection, protocol, transport, housekeeper, settings, self, crash)
        self._terms = terms or Terms(settings.compression)
        if frame_log.is_wanted():
            frame_log.FrameLog(self.__connection__)

    def __repr__(self) -> str:
        host, port = self.__connection__.transport.remote
        # A client may bind its Unix socket to a path of any characters.
        peer = f" {escape(host)}" + (f":{port}" if port is not None else "") if host else ""
        return f"<Transaction {self.connection} {self.__connection__.protocol.state.value}{peer}>"

    def _here(self) -> Connection:
        """The connection. Raises RuntimeError in another thread than its own."""
        connection = self.__connection__
        if not connection.housekeeper.is_here():
            raise RuntimeError(f"{self!r} belongs to another thread: call this by trio.from_thread.run_sync()")
        return connection

    # Receiving

    async def receive(self) -> str | bytes:
        """Return the next message: ``str`` for text, ``bytes`` for binary.

        Raises :class:`trio.EndOfChannel` after the peer has closed normally (1000, 1001 or no code),
        :class:`ConnectionClosed` after any other end, and if its Close came in the middle of a message,
        :class:`trio.ClosedResourceError` when this side has closed, and :class:`trio.BusyResourceError` while another
        task receives. Messages that came before the end are returned first.

        A checkpoint: it yields if it waits, or if the task has not for a millisecond. Cancelled, it loses nothing.
        """
        await checkpoint_if_cancelled()
        message = self.__connection__.take_message()
        return await receive(self.__connection__) if message is None else message

    async def __anext__(self) -> str | bytes:
        # As trio's, with a call less for each message.
        await checkpoint_if_cancelled()
        message = self.__connection__.take_message()
        if message is None:
            try:
                message = await receive(self.__connection__)
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        return message

    def receive_nowait(self) -> str | bytes:
        """Return a message that has arrived already.

        Raises :class:`trio.WouldBlock` if there is none, and what :meth:`receive` raises once no more can come.
        """
        return self._here().take_nowait()

    @overload
    async def receive_json(self) -> Any: ...
    @overload
    async def receive_json(self, *, type: type[T]) -> T: ...
    @overload
    async def receive_json(self, *, type: TypeForm[T]) -> T: ...

    async def receive_json(self, *, type: Any = None) -> Any:  # noqa: A002 - as msgspec calls it
        """Receive the next message, text or binary, and return the object that its JSON encodes.

        ``type`` validates it, by msgspec (the extra ``typed``): a :class:`msgspec.Struct`, a dataclass, a
        :class:`~typing.TypedDict`, ``list[Order]``, a union ``Order | Cancel``, or anything else that msgspec knows.

        Raises ValueError if it does not decode (:class:`json.JSONDecodeError`, :class:`msgspec.ValidationError`, or
        what the codec of the option ``json`` raises): that message is lost, and the connection goes on. Before
        anything is received it raises ImportError if msgspec is not installed, and TypeError for an unknown type.
        Otherwise like :meth:`receive`.
        """
        decode = None if type is None else decoder_of(type)
        message = await self.receive()
        return UndecodedJson(message, self.__connection__.json).decode(decode)

    @overload
    def iter_json(self) -> AsyncIterator[Any]: ...
    @overload
    def iter_json(self, *, type: type[T]) -> AsyncIterator[T]: ...
    @overload
    def iter_json(self, *, type: TypeForm[T]) -> AsyncIterator[T]: ...

    def iter_json(self, *, type: Any = None) -> AsyncIterator[Any]:  # noqa: A002
        """Iterate over what :meth:`receive_json` returns: ``async for order in ws.iter_json(type=Order)``.

        The loop ends when the peer closes normally. A ValueError ends it, too; another loop goes on after it.
        """
        return JsonMessages(self.__connection__, None if type is None else decoder_of(type))

    def receive_stream(self) -> MessageStream:
        """Receive the next message as it arrives: ``async with ws.receive_stream() as message``.

        Entering the block waits until a message begins, and raises as :meth:`receive` does; then ``async for piece in
        message`` yields its pieces; see :class:`~trio_pyjo_ws.MessageStream`. At most ``max_queue_bytes`` of it are
        kept, and :attr:`max_websocket_size` does not bound it. Leaving the block skips the rest as it comes. While
        the block is open no other task may receive.

        The message goes here, whatever subscribes to messages; one that ``receive()`` would return at once comes in
        one piece. After the first call, an oversized or compressed message waits, while nobody subscribes to messages,
        until it is received here or by :meth:`receive` (which then fails with 1009 if it is oversized). Before the
        first call an oversized message fails at once.

        Entering is a checkpoint, like :meth:`receive`. Cancelled, it loses nothing while no message has begun.
        """
        return MessageStream(self.__connection__)

    # Sending

    @overload
    async def send(self, message: str | Data, /, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, callback: SentCallback, message: str | Data, /, **more: Unpack[Compressing]) -> None: ...
    @overload
    async def send(self, callback: SentCallback = ..., /, *, text: Text, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, callback: SentCallback = ..., /, *, binary: Binary, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, callback: SentCallback = ..., /, *, json: Any, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, callback: SentCallback = ..., /, *, frame: FrameFields, **more: Unpack[Calling]) -> None: ...

    @shows(Forms, FrameForm, Sending, defaults={"cb": None})
    async def send(self, *message: Any, **forms: Any) -> None:
        """Send a message, or a frame.

        Returns once it is written, or is in a batch that is written before this task can next block.

        ``str`` goes as text, ``bytes`` as binary; ``text=``, ``binary=`` and ``json=`` (any object that JSON can hold,
        or a :class:`msgspec.Struct`, sent as text) say which; ``frame=[fin, rsv1, rsv2, rsv3, opcode, payload]`` sends
        any frame as it is. A callable, first or as ``cb=``, is called with the transaction once everything queued so
        far has been handed to the kernel; asynchronous ones run in a task of the nursery, one after the other.
        ``compress=`` decides whether this message is compressed, whatever :attr:`compressed` and the threshold of
        :class:`Deflate` say; True raises ValueError if the opening handshake did not let this side compress.

        ``text=`` and ``binary=`` also take an asynchronous iterable, a generator or a list of the message's pieces,
        each sent as it comes; str for a text, or bytes that are UTF-8 as a whole. Until the message has ended, others
        wait, and control frames go between its pieces. If the iterable raises, or a piece has the wrong type, the
        exception comes out and the connection is closed with 1011; so it is if the call is cancelled after the first
        piece. A generator is always closed.

        Raises TypeError or ValueError for wrong arguments, before anything is written,
        :class:`ConnectionClosed` when the connection has ended, and :class:`trio.ClosedResourceError` when this side
        has closed it. A checkpoint, like :meth:`receive`. Cancelled, it has queued the whole frame or nothing of it.
        """
        await checkpoint_if_cancelled()
        connection = self.__connection__
        done = connection.send_at_once(message[0]) if len(message) == 1 and not forms else None
        if done:
            return
        if done is None:
            payload, callback, compress = compose(connection.json, *message, **forms)
            sent = connection.emitter.caller_of(callback)
            if isinstance(payload, Pieces):
                await send_pieces(connection, payload.source, payload.opcode, compress, sent)
            else:
                await send(connection, payload, compress, sent)
        else:
            await wait_sent(connection)
        if connection.turn.is_over():
            await connection.housekeeper.yield_turn()

    @overload
    def send_nowait(self, message: str | Data, /, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, callback: SentCallback, message: str | Data, /, **more: Unpack[Compressing]) -> None: ...
    @overload
    def send_nowait(self, callback: SentCallback = ..., /, *, text: str, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, callback: SentCallback = ..., /, *, binary: Data, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, callback: SentCallback = ..., /, *, json: Any, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, callback: SentCallback = ..., /, *, frame: FrameFields, **more: Unpack[Calling]) -> None: ...

    @shows(WholeForms, FrameForm, Sending, defaults={"cb": None})
    def send_nowait(self, *message: Any, **forms: Any) -> None:
        """Queue what :meth:`send` would send, and return at once. It is written in the next turn of the scheduler.

        Raises :class:`trio.WouldBlock`, and queues nothing, while ``write_limit`` bytes wait that the kernel does not
        take, or a message is being sent in pieces. Otherwise raises what :meth:`send` raises, and RuntimeError in any
        thread but the transaction's, before anything is queued.
        """
        connection = self._here()
        if len(message) == 1 and message[0].__class__ in _MESSAGE_TYPES and not forms:
            connection.send_nowait(message[0], None, None)
        else:
            payload, callback, compress = compose_whole(connection.json, *message, **forms)
            connection.send_nowait(payload, compress, connection.emitter.caller_of(callback))

    async def drain(self) -> None:
        """Wait until everything queued so far has been handed to the kernel. A checkpoint.

        Raises what :meth:`send` raises if the connection ends first. Cancelled, everything is still written.
        """
        await drain(self.__connection__.outbox)

    async def ping(self, payload: bytes | None = None) -> float:
        """Send a ping, wait for its pong, and return the seconds that this took.

        ``payload``: at most 125 bytes, other than those of a ping that still waits; by default four random bytes.
        Raises TypeError or ValueError for any other payload, and what :meth:`send` raises when the connection ends
        first. A checkpoint; cancelled, the ping may have been sent, and its pong is ignored.
        """
        if payload is not None:
            check_control_payload("ping", payload)
        return await ping(self.__connection__, payload)

    async def pong(self, payload: bytes = b"") -> None:
        """Send an unsolicited pong: a sign of life that needs no answer (RFC 6455, section 5.5.3).

        ``payload``: at most 125 bytes. Such pongs of the peer's are ignored. Otherwise like :meth:`send`.
        """
        await self.send(frame=Frame(True, False, False, False, Opcode.PONG, check_control_payload("pong", payload)))

    # Closing

    async def finish(self, code: int | None = None, reason: str | None = None) -> Close:
        """Close gracefully: send Close, wait for the peer's Close and the end of the stream, return how it ended.

        The result is the peer's code and reason, usually an echo of this side's, or 1006 if it has not answered within
        ``close_timeout``. What the peer sends before its Close can still be received, as far as there is room for it.
        If the connection is closing already, this waits for its end. If a message is being sent in pieces, a normal
        code becomes 1011, so that the peer does not take a part of the message for the whole.

        Raises ValueError before anything is written: for a code that must not be sent, for a reason of more than 123
        bytes of UTF-8, and for a reason without a code. A checkpoint; cancelled, the connection goes on closing in the
        background, within ``close_timeout``.
        """
        check_close(code, reason)
        await trio.lowlevel.checkpoint()
        await finish(self.__connection__, code, reason)
        assert self.closed is not None
        return self.closed

    async def aclose(self) -> None:
        """Close as :meth:`finish` does with 1000. Cancelled, the socket is closed at once. A checkpoint."""
        try:
            await self.finish(1000)
        finally:
            self.__connection__.abandon()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close as :meth:`aclose` does. An exception of the block comes out as it is, also if closing is cancelled."""
        try:
            await self.aclose()
        except trio.Cancelled:
            if exc is None:  # Else the exception in flight wins: the scope would catch it with this.
                raise

    @property
    def closed(self) -> Close | None:
        """How the connection ended: code and reason, 1005 for no code, 1006 for a lost connection; None before."""
        return self.__connection__.protocol.close

    # Events

    @overload
    def open_channel(self, event: Literal["text", "binary"], max_buffer_size: int = ...) -> EventChannel[bytes]: ...
    @overload
    def open_channel(self, event: Literal["message"], max_buffer_size: int = ...) -> EventChannel[str | bytes]: ...
    @overload
    def open_channel(self, event: Literal["json"], max_buffer_size: int = ...) -> EventChannel[Any]: ...
    @overload
    def open_channel(self, event: Literal["json"], max_buffer_size: int = ..., *, type: type[T]) -> EventChannel[T]: ...
    @overload
    def open_channel(
        self, event: Literal["json"], max_buffer_size: int = ..., *, type: TypeForm[T]
    ) -> EventChannel[T]: ...
    @overload
    def open_channel(self, event: Literal["frame"], max_buffer_size: int = ...) -> EventChannel[Frame]: ...
    @overload
    def open_channel(self, event: Literal["finish"], max_buffer_size: int = ...) -> EventChannel[Close]: ...
    @overload
    def open_channel(self, event: Literal["error"], max_buffer_size: int = ...) -> EventChannel[Exception]: ...
    @overload
    def open_channel(
        self, event: Literal["connection", "drain", "resume"], max_buffer_size: int = ...
    ) -> EventChannel[Transaction]: ...
    @overload
    def open_channel(self, event: str, max_buffer_size: int = ...) -> EventChannel[Any]: ...

    def open_channel(self, event: str, max_buffer_size: int = 16, *, type: Any = None) -> EventChannel[Any]:  # noqa: A002
        """A memory channel that carries an event from now on.

        ``binary``: bytes; ``text``: the undecoded UTF-8 bytes; ``message``: str or bytes; ``json``: the decoded object;
        ``frame``: :class:`Frame`; ``finish``: :class:`Close`; ``error``: the exception; others: the transaction.

        A message that goes to a channel does not go to :meth:`receive`; messages that have arrived and were not yet
        received go to the channel, too. While the channel is full, nothing is read from the network. Closing the
        channel unsubscribes; it ends when the connection does, after everything that was received. JSON that does not
        decode raises ValueError in the channel's reader, and the connection goes on. ``type``: that of
        :meth:`receive_json`.

        ``max_buffer_size``: the number of items that it holds, at least 1. Raises ValueError for fewer and for an
        unknown event, and for ``type`` what :meth:`receive_json` raises. See :class:`EventChannel`.
        """
        return self._here().emitter.open_channel(event, max_buffer_size, type)

    @overload
    def on(self, event: F, /) -> F: ...
    @overload
    def on(self, event: str, callback: F, /) -> F: ...

    def on(self, event: str | F, callback: F | None = None, /) -> F:
        """Subscribe a callback, and return it. ``@ws.on`` takes the event's name from the function's.

        It is called as ``callback(ws, value)``; for ``finish`` as ``callback(ws, code, reason)``, and for ``drain``,
        ``connection`` and ``resume`` as ``callback(ws)``. A synchronous one runs where the event happens; an
        asynchronous one in a task of the nursery, one call after the other. An exception in it is never swallowed: it
        comes out where the event happens, or else in the nursery (on a server: it ends this connection with 1011).

        Raises ValueError for an unknown event, as all methods about events do.
        """
        return cast("F", self._here().emitter.on(event, callback))

    @overload
    def once(self, event: F, /) -> F: ...
    @overload
    def once(self, event: str, callback: F, /) -> F: ...

    def once(self, event: str | F, callback: F | None = None, /) -> F:
        """Subscribe a callback to the next event only; otherwise like :meth:`on`."""
        return cast("F", self._here().emitter.on(event, callback, once=True))

    def catch(self, callback: F, /) -> F:
        """Subscribe a callback to ``error``."""
        return self.on("error", callback)

    def unsubscribe(self, event: str, callback: Callable[..., Any] | None = None, /) -> None:
        """Forget a callback, or all the callbacks and channels of an event."""
        self._here().emitter.unsubscribe(event, callback)

    def unsubscribe_all(self, event: str, /) -> None:
        """Forget all the callbacks and channels of an event."""
        self._here().emitter.unsubscribe(event)

    def subscribers(self, event: str, /) -> list[Callable[..., Any]]:
        """The callbacks of an event, in the order in which they are called."""
        return self.__connection__.emitter.callbacks(event)

    def has_subscribers(self, event: str, /) -> bool:
        """Whether there is a callback or a channel for an event."""
        return bool(self.__connection__.emitter.subscriptions(event))

    def emit(self, event: str, /, *arguments: Any) -> Transaction:
        """Call the callbacks and feed the channels of an event, and return the transaction.

        An ``error`` that nobody subscribes to is raised.
        """
        self._here().emitter.emit_given(event, arguments)
        return self

    def resume(self) -> Transaction:
        """Hand over what is queued, now, as far as the kernel takes it, emit ``resume``, and return the transaction."""
        connection = self._here()
        connection.outbox.flush_or_write()
        connection.emitter.emit("resume")
        return self

    # Frames

    def build_frame(self, fin: Bit, rsv1: Bit, rsv2: Bit, rsv3: Bit, op: int, payload: Data) -> bytes:
        """Return the bytes of a frame, masked if this side masks. Raises TypeError or ValueError for invalid fields."""
        return frames.build_frame(fin, rsv1, rsv2, rsv3, op, payload, masked=self.masked)

    @overload
    def build_message(self, message: str | Data, /, **more: Unpack[Compressing]) -> bytes: ...
    @overload
    def build_message(self, *, text: str, **more: Unpack[Compressing]) -> bytes: ...
    @overload
    def build_message(self, *, binary: Data, **more: Unpack[Compressing]) -> bytes: ...
    @overload
    def build_message(self, *, json: Any, **more: Unpack[Compressing]) -> bytes: ...
    @overload
    def build_message(self, *, frame: FrameFields) -> bytes: ...

    @shows(WholeForms, FrameForm, Compressing, defaults={})
    def build_message(self, *message: Any, **forms: Any) -> bytes:
        """Return the bytes of the frame that :meth:`send` would send.

        Compressing a message changes the state of the compressor: build it only to send it, and in order. Raises
        TypeError or ValueError for wrong arguments.
        """
        payload, callback, compress = compose_whole(self._here().json, *message, **forms)
        if callback is not None:
            raise TypeError("build_message() takes no callback: nothing is sent")
        if isinstance(payload, Frame):
            return self.build_frame(*payload)
        return self.__connection__.protocol.encode_message(payload, compress)

    def parse_frame(self, chunk: bytearray) -> Frame | None:
        """Remove the first frame from ``chunk`` and return it; None while it is incomplete.

        Raises :class:`RemoteProtocolError` with code 1009 for a frame over :attr:`max_websocket_size`.
        """
        return frames.parse_frame(chunk, self.max_websocket_size)

    # Attributes

    @property
    def compressed(self) -> bool:
        """Whether messages are sent compressed, except those under the threshold of :class:`Deflate`.

        Settable; to True only if the opening handshake has agreed on compression.
        """
        return self.__connection__.protocol.compressed

    @compressed.setter
    def compressed(self, compressed: bool) -> None:
        if compressed:
            self.__connection__.protocol.check_can_compress()
        self.__connection__.protocol.compressed = bool(compressed)

    @property
    def masked(self) -> bool:
        """Whether frames are sent masked: on a client. Settable, for tests: RFC 6455, section 5.1, leaves no choice."""
        return self.__connection__.protocol.masked

    @masked.setter
    def masked(self, masked: bool) -> None:
        self.__connection__.transport.check_frames("masking")
        self.__connection__.protocol.masked = bool(masked)

    @property
    def max_websocket_size(self) -> int:
        """Bytes of the largest message that is accepted, before and after inflation.

        Settable, at any time: None removes the bound (2**62); ValueError unless it is that or a non-negative int.
        """
        return self.__connection__.protocol.max_websocket_size

    @max_websocket_size.setter
    def max_websocket_size(self, size: int | None) -> None:
        self.__connection__.protocol.max_websocket_size = size

    @property
    def handshake(self) -> Handshake | None:
        """The opening handshake, with its ``request`` and ``response``; None without one."""
        return self.__connection__.protocol.handshake

    @property
    def req(self) -> Request:
        """The request of the opening handshake. Raises RuntimeError before it has come: never in a hook or handler."""
        request: Request | None = getattr(self.handshake, "request", None)
        return _known(request)

    @property
    def res(self) -> Response:
        """The response of the opening handshake. Raises RuntimeError before there is one, as in ``on_request``."""
        response: Response | None = getattr(self.handshake, "response", None)
        return _known(response)

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the opening handshake has agreed on, or None."""
        agreement = self.__connection__.protocol.agreement
        return self._terms.subprotocol if agreement is None else agreement.subprotocol

    @property
    def established(self) -> bool:
        """Whether the opening handshake has succeeded."""
        return self.__connection__.protocol.agreement is not None

    @property
    def is_finished(self) -> bool:
        """Whether the connection has ended."""
        return self.__connection__.ended

    @property
    def is_writing(self) -> bool:
        """Whether something waits to be written."""
        return self.__connection__.outbox.queued > 0

    @property
    def error(self) -> Exception | None:
        """Why the connection ended; None while it is open and after a normal close."""
        return self.__connection__.error()

    @property
    def success(self) -> Response | None:
        """The response of the opening handshake, unless there was an :attr:`error`."""
        return self.handshake.response if self.handshake and self.error is None else None

    @property
    def local_address(self) -> str | None:
        """This side's IP address, or the path of a Unix socket; None over a stream that has none."""
        return self.__connection__.transport.local[0]

    @property
    def local_port(self) -> int | None:
        """This side's port; None over a stream that has none."""
        return self.__connection__.transport.local[1]

    @property
    def remote_address(self) -> str | None:
        """The peer's IP address; if :attr:`reverse_proxy` is set, the client's as the proxy names it.

        That is the last address that is not a trusted proxy, in X-Forwarded-For or what ``proxy_header`` names.
        """
        client = self._terms.client(getattr(self.handshake, "request", None)) if self.reverse_proxy else None
        return client or self.original_remote_address

    @property
    def original_remote_address(self) -> str | None:
        """The IP address that the connection comes from: the peer's, or its proxy's."""
        return self.__connection__.transport.remote[0]

    @property
    def remote_port(self) -> int | None:
        """The peer's port; None over a stream that has none."""
        return self.__connection__.transport.remote[1]

    @property
    def tls(self) -> TlsInfo | None:
        """What TLS has agreed on, and the peer's certificate; None over ``ws://``. A reverse proxy is the peer, too."""
        return self.__connection__.transport.tls_info

    def statistics(self) -> TransactionStatistics:
        """Return the state of the connection, what waits, and how much has gone through it."""
        return TransactionStatistics.of(self.__connection__)

    # The opening handshake, in a server's on_request

    def with_compression(self, deflate: Deflate | None = None) -> None:
        """Compress messages if the client offers permessage-deflate, whatever the server's own option says.

        Raises RuntimeError outside of ``on_request``, and TypeError unless ``deflate`` is a :class:`Deflate`.
        """
        self._check_connecting()
        self.__connection__.transport.check_frames("compression")
        if not isinstance(deflate, (Deflate, type(None))):
            raise TypeError(f"with_compression() takes a Deflate, not {type(deflate).__name__}")
        self._terms.deflate = deflate or Deflate()

    def with_protocols(self, *names: str) -> str | None:
        """Choose the first of the subprotocols ``names`` that the client offers, and return it, or None.

        Raises RuntimeError outside of ``on_request``.
        """
        self._terms.subprotocol = choose_subprotocol(self._check_connecting(), names)
        return self._terms.subprotocol

    def _check_connecting(self) -> Request:
        handshake = self.handshake
        if self.established or handshake is None or handshake.request is None:
            raise RuntimeError("with_compression() and with_protocols() can be called only in a server's on_request")
        return self.req


def _known(part: T | None) -> T:
    if part is None:
        raise RuntimeError("the opening handshake has not come that far")
    return part
