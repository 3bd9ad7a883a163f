"""The transaction: one WebSocket connection, for one task or many, inside a nursery.

This is the surface of the seed, ``Pyjo.Transaction.WebSocket``, and of what it inherits, in the shape of trio: a
:class:`trio.abc.Channel` of messages, with memory channels and callbacks for its events. How it runs is in
:mod:`~trio_pyjo_ws.connection`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable
from secrets import token_bytes
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled

from .attributes import Attributes
from .channels import receive_through
from .connection import TURN
from .events import CARRYING
from .forms import Pieces, compose, compose_whole
from .objects import UndecodedJson, decoder_of
from .streaming import MessageStream
from .wire import frames
from .wire.frames import Close, Frame, Opcode, check_close
from .wire.protocol import State
from .writer import CORK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from .forms import Binary, Compressing, Data, FrameFields, Sending, SentCallback, Text
    from .wire.fragments import Fragmenter

__all__ = ["Transaction"]

MAX_CONTROL = 125
"""Bytes of the payload of a ping, a pong or a Close (RFC 6455, section 5.5)."""

T = TypeVar("T")

_MESSAGE_TYPES: frozenset[Any] = frozenset({str, bytes})


def _control_payload(name: str, payload: bytes) -> bytes:
    if not isinstance(payload, bytes):
        raise TypeError(f"the payload of a {name} is bytes, not {type(payload).__name__}")
    if len(payload) > MAX_CONTROL:
        raise ValueError(f"the payload of a {name} has at most {MAX_CONTROL} bytes, not {len(payload)}")
    return payload


def _is_control(payload: object) -> bool:
    """Whether it may go between the fragments of a message (RFC 6455, section 5.4)."""
    return isinstance(payload, Frame) and payload.opcode >= Opcode.CLOSE


class Transaction(Attributes, trio.abc.Channel["str | bytes"]):
    """A WebSocket connection.

    Made by :func:`~trio_pyjo_ws.connect`, :func:`~trio_pyjo_ws.open_websocket`, :func:`~trio_pyjo_ws.serve` and
    :func:`~trio_pyjo_ws.testing.open_memory_pair`. It lives in their nursery: cancelling that closes the socket at
    once. Use it as ``async with`` to have it closed with :meth:`aclose`, and as ``async for`` to take messages until
    the peer closes normally.

    One task at a time may receive; any number may send.
    """

    __slots__ = ()

    # Receiving

    async def receive(self) -> str | bytes:
        """Return the next message: ``str`` for text, ``bytes`` for binary.

        Raises :class:`trio.EndOfChannel` after the peer has closed normally (1000, 1001 or no code),
        :class:`ConnectionClosed` after any other end, :class:`trio.ClosedResourceError` when this side has closed, and
        :class:`trio.BusyResourceError` while another task receives. Messages that came before the end are returned
        first.

        A checkpoint: checks for cancellation always, yields when it waits or when the task has not yielded for a
        millisecond. Cancelling it loses no message.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        await checkpoint_if_cancelled()
        inbox = self._inbox
        if not inbox or perf_counter() - self._housekeeper.turn_started > TURN:
            self._receiving = True
            try:
                if inbox:
                    await self._yield()
                while not inbox:
                    self._prepare_to_wait()
                    if self._reading:
                        await self._wait_reader()
                    else:
                        await self._advance()
            finally:
                self._receiving = False
                if not self._attended:
                    self._attend()
        message = inbox.pop(0)
        if not self._attended:
            self._attend()
        return message

    def receive_nowait(self) -> str | bytes:
        """Return a message that has been read already.

        Raises :class:`trio.WouldBlock` where there is none, and what :meth:`receive` raises once there will be none.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        if not self._inbox:
            if self._protocol.state is State.OPEN or self._events or self._emitter.blocked:
                raise trio.WouldBlock
            raise self._end_of_messages()
        message = self._inbox.pop(0)
        self._attend()
        return message

    @overload
    async def receive_json(self) -> Any: ...
    @overload
    async def receive_json(self, *, type: type[T]) -> T: ...
    @overload
    async def receive_json(self, *, type: object) -> Any: ...

    async def receive_json(self, *, type: Any = None) -> Any:  # noqa: A002 - as msgspec calls it
        """Receive the next message and return the object that its JSON stands for, be it a text or a binary message.

        ``type`` validates it, by msgspec (the extra ``typed``): a :class:`msgspec.Struct`, a dataclass, a
        :class:`~typing.TypedDict`, ``list[Order]``, or whatever else msgspec knows.

        Raises ValueError where it does not decode: :class:`json.JSONDecodeError`, or what the codec of the option
        ``json`` raises; of a type :class:`msgspec.ValidationError`, which names the path to what does not fit, or
        :class:`msgspec.DecodeError`. The message is gone then, and the connection goes on. Before anything is received
        it raises ImportError where msgspec is not installed, and TypeError for a type that it does not know.
        Otherwise as :meth:`receive`.
        """
        decode = None if type is None else decoder_of(type)
        message = await self.receive()
        return UndecodedJson(message, self._settings.json).decode(decode)

    def receive_stream(self) -> MessageStream:
        """Receive the next message as it arrives: ``async with ws.receive_stream() as message``.

        Entering the block waits until a message begins, and raises as :meth:`receive` does; then ``async for piece in
        message`` gives its pieces; see :class:`~trio_pyjo_ws.streaming.MessageStream`. No more is kept of it than
        ``max_queue_bytes``, and :attr:`max_websocket_size` does not bound it. Leaving the block discards the rest,
        which is read past as it comes. While the block is open no other task may receive.

        The message goes here, whatever subscribes to messages; one that ``receive()`` would return at once is given in
        one piece. From the first call on, a message that is over the limit, and any compressed one, waits (and so does
        all behind it) while nobody receives and nothing subscribes: for :meth:`receive`, which fails at it with 1009,
        or for this. Before, it fails at once.

        Entering is a checkpoint as :meth:`receive` is. Cancelled, it loses no message that has not begun.
        """
        return MessageStream(self)

    # Sending

    @overload
    async def send(self, message: str | Data, /, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, cb: SentCallback, message: str | Data, /, **more: Unpack[Compressing]) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, text: Text, **more: Unpack[Compressing]) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, binary: Binary, **more: Unpack[Compressing]) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, json: Any, **more: Unpack[Compressing]) -> None: ...
    @overload
    async def send(self, cb: SentCallback, /, *, frame: FrameFields) -> None: ...
    @overload
    async def send(self, *, text: Text, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, *, binary: Binary, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, *, json: Any, **more: Unpack[Sending]) -> None: ...
    @overload
    async def send(self, *, frame: FrameFields, cb: SentCallback | None = ...) -> None: ...

    async def send(self, *given: Any, **forms: Any) -> None:
        """Send a message, or a frame.

        Returns once it is written, or is in a batch that is written before this task can next block.

        ``str`` goes as text, ``bytes`` as binary; ``text=``, ``binary=`` and ``json=`` (any object that JSON can hold,
        or a :class:`msgspec.Struct`, sent as text) say which; ``frame=[fin, rsv1, rsv2, rsv3, opcode, payload]`` sends
        any frame as it is. A callable, first or as ``cb=``, is called with the transaction once everything queued so
        far has been handed to the kernel; asynchronous ones run in a task of the nursery, one after the other.
        ``compress=`` has this message compressed, or not, whatever :attr:`compressed` and the threshold of
        :class:`Deflate` say; True is a ValueError where the opening handshake lets this side compress nothing.

        ``text=`` and ``binary=`` also take an asynchronous iterable of the message's pieces, each of which is sent as
        it comes; str for a text, or bytes that are UTF-8 as a whole. Until the message has ended, others wait, and
        control frames go between its pieces. Where the iterable raises, or a piece does not fit, the exception comes
        out and the connection is closed with 1011; cancelled behind its first piece, too. An asynchronous generator is
        closed in any case.

        Raises TypeError or ValueError before anything is written where the arguments do not fit,
        :class:`ConnectionClosed` when the connection has ended, and :class:`trio.ClosedResourceError` when this side
        has closed it.

        A checkpoint, as :meth:`receive` is. Cancelled, it has queued the whole frame or nothing of it.
        """
        await checkpoint_if_cancelled()
        if len(given) == 1 and given[0].__class__ in _MESSAGE_TYPES and not forms:
            payload, callback, compress = given[0], None, None  # the usual form
        else:
            payload, callback, compress = compose(self._settings.json, *given, **forms)
            if isinstance(payload, Pieces):
                await self._send_stream(payload, callback, compress)
                return
        if self._fragmenting and not _is_control(payload):
            await self._wait_turn()
        if self._unsent:
            await self._wait_room()
        self._queue(payload, callback, compress)
        if (self._inbox or self._wrote) and not self._unsent and self._protocol.outgoing_size < CORK_SIZE:
            if not self._corked:
                self._cork()
        elif not self._flush():
            if self._ended:
                raise self._closed_error()
            await self._wait_written(self._sent + self._queued())
            return
        if perf_counter() - self._housekeeper.turn_started > TURN:
            await self._yield()

    @overload
    def send_nowait(self, message: str | Data, /, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, message: str | Data, /, **more: Unpack[Compressing]) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, text: str, **more: Unpack[Compressing]) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, binary: Data, **more: Unpack[Compressing]) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, json: Any, **more: Unpack[Compressing]) -> None: ...
    @overload
    def send_nowait(self, cb: SentCallback, /, *, frame: FrameFields) -> None: ...
    @overload
    def send_nowait(self, *, text: str, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, *, binary: Data, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, *, json: Any, **more: Unpack[Sending]) -> None: ...
    @overload
    def send_nowait(self, *, frame: FrameFields, cb: SentCallback | None = ...) -> None: ...

    def send_nowait(self, *given: Any, **forms: Any) -> None:
        """Queue what :meth:`send` would send, and return at once. It is written in the next turn of the scheduler.

        Raises :class:`trio.WouldBlock`, and queues nothing, while ``write_limit`` bytes wait to be written already, or
        a message is being sent in pieces. Otherwise raises what :meth:`send` raises.
        """
        payload, callback, compress = compose_whole(self._settings.json, *given, **forms)
        if self._protocol.state is State.OPEN and (
            self._queued() >= self._write_limit or (self._fragmenting and not _is_control(payload))
        ):
            raise trio.WouldBlock
        self._queue(payload, callback, compress)
        if self._unsent or self._writing:
            self._flush_or_write()
        else:
            self._cork()

    def _queue(self, payload: str | bytes | Frame, callback: SentCallback | None, compress: bool | None) -> None:
        protocol = self._protocol
        if protocol.state is not State.OPEN:
            raise self._closed_error()
        if isinstance(payload, Frame):
            protocol.send_frame(payload)
        else:
            protocol.send_message(payload, compress)
        if callback is not None:
            self._drain_callbacks.append((self._sent + self._queued(), self._bind(callback)))
            self._write_watched = True
        if self._protocol.state is not State.OPEN:  # That was a Close frame.
            self._closing_began()

    async def _send_stream(self, pieces: Pieces, callback: SentCallback | None, compress: bool | None) -> None:
        try:
            await self._wait_turn()
            if self._protocol.state is not State.OPEN:
                raise self._closed_error()
            await self._send_fragments(pieces.source, self._protocol.fragmenter(pieces.opcode, compress), callback)
        finally:
            if isinstance(pieces.source, AsyncGenerator):
                await pieces.source.aclose()
        if self._unsent:
            await self._wait_written(self._sent + self._queued())

    async def _send_fragments(
        self, source: AsyncIterable[object], fragmenter: Fragmenter, callback: SentCallback | None
    ) -> None:
        self._fragmenting = True
        try:
            async for piece in source:
                fragment = fragmenter.cut(piece)
                if fragment is not None:
                    await self._send_fragment(Frame.from_head(*fragment))
            self._queue(Frame.from_head(*fragmenter.end()), callback, None)
            self._write_soon()
        except BaseException as exc:
            # Half of the message must not be taken for all of it, and nothing else can follow.
            if fragmenter.begun or isinstance(exc, Exception):
                self._close_soon(1011, "a message could not be completed")
            raise
        finally:
            self._fragmenting = False
            self._wake_writers()

    async def _send_fragment(self, frame: Frame) -> None:
        await checkpoint_if_cancelled()
        self._queue(frame, None, None)
        self._write_soon()
        await self._wait_room()
        if perf_counter() - self._housekeeper.turn_started > TURN:
            await self._yield()

    def _bind(self, callback: SentCallback) -> Callable[[], None]:
        def call() -> None:
            result = callback(self)
            if inspect.iscoroutine(result):
                self._callbacks_running.append(result)
                if len(self._callbacks_running) == 1:
                    self._start_soon(self._run_callbacks, "callbacks of send()")

        return call

    async def _run_callbacks(self) -> None:
        """Run the asynchronous callbacks of send(), one after the other."""
        running = self._callbacks_running
        try:
            while running:
                await running[0]
                del running[0]
        finally:
            while running:
                running.pop(0).close()

    async def drain(self) -> None:
        """Wait until everything queued so far has been handed to the kernel. A checkpoint.

        Raises what :meth:`send` raises when the connection ends before that. Cancelled, all is still written.
        """
        await trio.lowlevel.checkpoint()
        position = self._sent + self._queued()
        self._flush_or_write()
        await self._wait_written(position)

    async def ping(self, payload: bytes | None = None) -> float:
        """Send a ping, wait for its pong, and return the seconds that it took.

        ``payload``: at most 125 bytes, not that of a ping that is still waiting; four random bytes where none is given.
        Raises TypeError or ValueError for any other payload, and what :meth:`send` raises when the connection ends
        first. A checkpoint; cancelled, the ping may have been sent, and its pong is ignored.
        """
        await checkpoint_if_cancelled()
        if payload is None:
            payload = token_bytes(4)
        if _control_payload("ping", payload) in self._pings:
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
            if self._pings.get(payload) is ping:  # and not one that was sent since this one was answered
                del self._pings[payload]
        if ping.latency is None:
            raise self._closed_error()
        return ping.latency

    async def pong(self, payload: bytes = b"") -> None:
        """Send a pong that nobody has asked for: a sign of life that wants no answer (RFC 6455, section 5.5.3).

        ``payload``: at most 125 bytes. Those that come are ignored. Otherwise as :meth:`send`.
        """
        await self.send(frame=Frame(True, False, False, False, Opcode.PONG, _control_payload("pong", payload)))

    # Closing

    async def finish(self, code: int | None = None, reason: str | None = None) -> Close:
        """Close gracefully: send Close, wait for the peer's Close and the end of the stream, return how it ended.

        That is the :class:`Close` that the peer answered with, or one with 1006 where it did not within
        ``close_timeout``. Messages that were received before stay readable; those that still come are discarded. Where
        the connection is closing already, this waits for its end.

        Raises ValueError before anything is written: for a code that must not be sent, for a reason of more than 123
        bytes of UTF-8, and for a reason without a code. A checkpoint; cancelled, the connection goes on closing in the
        background, within ``close_timeout``.
        """
        check_close(code, reason)
        await trio.lowlevel.checkpoint()
        self._closed_here = True
        await self._close(code, reason)
        assert self._protocol.close is not None
        return self._protocol.close

    async def aclose(self) -> None:
        """Close as :meth:`finish` does with 1000. Cancelled, the socket is closed at once. A checkpoint."""
        try:
            await self.finish(1000)
        finally:
            self._closed_here = True
            self._abandon()

    @property
    def close(self) -> Close | None:
        """How the connection ended: what the peer sent, 1005 for no code, 1006 for a lost connection; None before."""
        return self._protocol.close

    # Events

    @overload
    def open_channel(
        self,
        event: Literal["json"],
        max_buffer_size: int = ...,
        *,
        type: type[T],
    ) -> trio.MemoryReceiveChannel[T]: ...
    @overload
    def open_channel(self, event: str, max_buffer_size: int = ...) -> trio.MemoryReceiveChannel[Any]: ...
    @overload
    def open_channel(
        self, event: Literal["json"], max_buffer_size: int = ..., *, type: object
    ) -> trio.MemoryReceiveChannel[Any]: ...

    def open_channel(
        self,
        event: str,
        max_buffer_size: int = 16,
        *,
        type: Any = None,  # noqa: A002 - as msgspec calls it
    ) -> trio.MemoryReceiveChannel[Any]:
        """A memory channel that carries an event from now on.

        ``binary``: bytes; ``text``: the undecoded UTF-8 bytes; ``message``: str or bytes; ``json``: the decoded object
        of text and binary messages alike; ``frame``: :class:`Frame`; ``finish``: :class:`Close`; ``drain``,
        ``connection``, ``resume``: the transaction; ``error``: the exception.

        A message that goes to a channel does not go to :meth:`receive`. Where the channel is full, reading from
        the network waits for it. Closing the channel unsubscribes; it ends when the connection does. JSON that does not
        decode raises ValueError in the channel's reader, and the connection goes on. ``type``: that of
        :meth:`receive_json`.

        ``max_buffer_size``: items that it holds, at least 1. Raises ValueError where that is less and for an event that
        does not exist, and for ``type`` what :meth:`receive_json` raises. The channel's ``receive()`` is a checkpoint
        as :meth:`receive` is, and any number of tasks may wait in it. Cancelling it loses no item.
        """
        if type is not None and event != "json":
            raise ValueError(f"type= is for the event 'json', not {event!r}")
        decode = None if type is None else decoder_of(type)
        channel = self._emitter.open_channel(event, max_buffer_size)
        return receive_through(self, channel, decode) if event in CARRYING else channel

    @overload
    def on(self, event: Callable[..., Any], /) -> Callable[..., Any]: ...
    @overload
    def on(self, event: str, callback: Callable[..., Any], /) -> Callable[..., Any]: ...

    def on(self, event: str | Callable[..., Any], callback: Callable[..., Any] | None = None, /) -> Callable[..., Any]:
        """Subscribe a callback, and return it. ``@ws.on`` takes the event's name from the function's.

        It is called as ``callback(ws, value)``, ``finish`` as ``callback(ws, code, reason)``, and ``drain``,
        ``connection``, ``resume`` as ``callback(ws)``. A synchronous one runs where the event happens; an asynchronous
        one in a task of the nursery, one call after the other. An exception in it is never swallowed: it comes out
        where the event happens, or else in the nursery (on a server: it ends this connection with 1011).

        Raises ValueError for an event that does not exist, as all of the methods about events do.
        """
        return self._subscribe(event, callback, once=False)

    @overload
    def once(self, event: Callable[..., Any], /) -> Callable[..., Any]: ...
    @overload
    def once(self, event: str, callback: Callable[..., Any], /) -> Callable[..., Any]: ...

    def once(
        self, event: str | Callable[..., Any], callback: Callable[..., Any] | None = None, /
    ) -> Callable[..., Any]:
        """Subscribe a callback for the next time only; otherwise as :meth:`on`."""
        return self._subscribe(event, callback, once=True)

    def _subscribe(
        self, event: str | Callable[..., Any], callback: Callable[..., Any] | None, once: bool
    ) -> Callable[..., Any]:
        name: object = event
        if callback is None and callable(event):
            name, callback = getattr(event, "__name__", None), event
        if callback is None or not isinstance(name, str):
            raise TypeError(f"on() and once() take a function, or an event and a callback; not {event!r:.60}")
        self._emitter.on(name, callback, once)
        return callback

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
        return bool(self._emitter.subscriptions(event))

    def emit(self, event: str, /, *arguments: Any) -> Transaction:
        """Call the callbacks and feed the channels of an event, and return the transaction.

        An ``error`` that nobody subscribes to is raised.
        """
        self._emitter.subscriptions(event)
        found = self._emitter.emit(event, *arguments)
        self._emitter.deliver_soon()
        self._look_again()
        if not found and event == "error":
            error = arguments[0] if arguments else "unknown error"
            raise error if isinstance(error, Exception) else RuntimeError(error)
        return self

    def resume(self) -> Transaction:
        """Hand over what is queued, now, as far as the kernel takes it, emit ``resume``, and return the transaction."""
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
        payload: Data,
    ) -> bytes:
        """The bytes of a frame, masked where this side masks.

        Raises TypeError or ValueError for a payload that is not bytes and an opcode that is not 0 to 15.
        """
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

    def build_message(self, *given: Any, **forms: Any) -> bytes:
        """The bytes of the frame that :meth:`send` would send.

        A compressed message becomes part of what the peer decompresses: build it only to send it, and in order. Raises
        TypeError or ValueError where the arguments do not fit.
        """
        payload, callback, compress = compose_whole(self._settings.json, *given, **forms)
        if callback is not None:
            raise TypeError("build_message() takes no callback: nothing is sent")
        if isinstance(payload, Frame):
            return self.build_frame(*payload)
        return self._protocol.encode_message(payload, compress)

    def parse_frame(self, chunk: bytearray) -> Frame | None:
        """Remove the first frame from ``chunk`` and return it; None while it is incomplete.

        Raises :class:`RemoteProtocolError` with code 1009 for a frame over :attr:`max_websocket_size`.
        """
        return frames.parse_frame(chunk, self.max_websocket_size)
