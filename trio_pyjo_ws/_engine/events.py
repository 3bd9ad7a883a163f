"""Subscriptions to a transaction's events: callbacks, and memory channels.

An event reaches a synchronous callback where it happens, before :meth:`Emitter.emit` returns. A channel gets it by
``put``, which never waits: what the peer sends is not parsed before every channel has room for it. An asynchronous
callback is a channel with a task of the nursery behind it, which keeps its calls in order and gives it back pressure,
too.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from sys import maxsize
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ..escaping import escape
from ..json_codec import JsonCodec, UndecodedJson, decoder_of
from ..wire.frames import Close
from .channels import EventChannel, Queue, Source

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["CARRYING", "EVENTS", "MESSAGES", "Callback", "Emitter", "Subscription", "check_result"]

logger = logging.getLogger("trio_pyjo_ws")

EVENTS = ("binary", "connection", "drain", "error", "finish", "frame", "json", "message", "resume", "text")
"""All the events of a transaction."""

MESSAGES = frozenset({"binary", "json", "message", "text"})
"""The events that carry messages."""

CARRYING = MESSAGES | {"frame"}
"""The events that come out of what the peer sends, so that somebody has to read while they are subscribed to."""

BOUNDED = CARRYING | {"error"}
"""The events whose channels hold reading up when they are full. Of any other event, one more item says nothing new."""

CALLBACK_BUFFER = 16
"""Events that wait for an asynchronous callback before reading from the network stops."""

Callback = Callable[..., Any]


class _Owner(Source, Protocol):
    """What an emitter asks of the connection whose events it tells."""

    json: JsonCodec | None

    def start_callback(self, function: Callable[[], Awaitable[None]], name: str) -> None: ...
    def crash(self, exc: BaseException) -> None: ...
    def subscribed(self, subscription: Subscription) -> None: ...
    def unsubscribed(self) -> None: ...


class Subscription:
    """One callback, or one channel, or both: an asynchronous callback takes its arguments from a queue."""

    __slots__ = ("callback", "event", "once", "queue")

    def __init__(self, event: str, callback: Callback | None, queue: Queue | None, once: bool = False) -> None:
        self.event = event
        self.callback = callback
        self.queue = queue
        self.once = once


class Emitter:
    """The subscriptions to a connection's events."""

    __slots__ = (
        "_awaiting",
        "_closed",
        "_connection",
        "_remembered",
        "_subscriptions",
        "calling",
        "carrying",
        "source",
    )

    def __init__(self, connection: _Owner, source: object) -> None:
        self.source = source
        """What a callback is given first: the transaction."""
        self.carrying = 0
        """How many subscriptions there are to events that come out of what the peer sends."""
        self.calling = 0
        """How many of these are synchronous callbacks: those of a channel read themselves."""
        self._connection = connection
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._remembered: list[str] = []
        self._awaiting: Queue | None = None
        self._closed = False

    # Subscriptions

    def has(self, event: str) -> bool:
        """Whether anybody subscribes to ``event``."""
        return event in self._subscriptions

    def callbacks(self, event: str) -> list[Callback]:
        """The callbacks subscribed to ``event``, in their order."""
        return [one.callback for one in self.subscriptions(event) if one.callback is not None]

    def subscriptions(self, event: str) -> list[Subscription]:
        """What subscribes to ``event``, in its order."""
        _check_event(event)
        return list(self._subscriptions.get(event, ()))

    def room(self) -> int:
        """Items that every channel has room for of those that hold reading up."""
        room = maxsize
        for event, subscriptions in self._subscriptions.items():
            if event in BOUNDED:
                for subscription in subscriptions:
                    if subscription.queue is not None:
                        room = min(room, subscription.queue.room)
        return room

    def only_of_messages(self) -> Subscription | None:
        """The only subscription to what the peer sends, if it is a callback or a channel of ``message`` that stays."""
        if self.carrying == 1 and (subscriptions := self._subscriptions.get("message")):
            [only] = subscriptions
            if not only.once and (only.queue is None or only.callback is None):
                return only
        return None

    def on(self, event: str | Callback, callback: Callback | None = None, once: bool = False) -> Callback:
        """Subscribe ``callback``, or a function to the event of its name; return it."""
        named: object = event
        if callback is None and not isinstance(event, str):
            named, callback = getattr(event, "__name__", None), event
        if callback is None or not isinstance(named, str):
            raise TypeError(f"on() and once() take a function, or an event and a callback; not {event!r:.60}")
        self._subscribe(named, callback, once)
        return callback

    def _subscribe(self, event: str, callback: Callback, once: bool) -> None:
        self._check_can_come(event)
        if not callable(callback):
            raise TypeError(f"a callback for {event!r} must be callable, not {callback!r:.60}")
        if self._closed:
            return
        queue = None
        if _is_async(callback):
            queue = Queue(self._connection, CALLBACK_BUFFER)
            self._connection.start_callback(partial(self._call_each, callback, queue), f"{event} callback {callback!r}")
        self._add(Subscription(event, callback, queue, once))

    async def _call_each(self, callback: Callback, queue: Queue) -> None:
        queue.channels.add(queue)
        while True:
            try:
                arguments = queue.take() if queue.items else await queue.wait(queue)
            except trio.EndOfChannel:
                break
            await callback(self.source, *arguments)

    def call_sent(self, callback: Callback) -> None:
        """Call a callback of ``send()``. What is to be awaited is, in a task, one after the other."""
        try:
            result = callback(self.source)
        except BaseException as exc:
            self._connection.crash(exc)
            return
        if inspect.iscoroutine(result):
            if self._awaiting is None:
                self._awaiting = Queue(self._connection, maxsize)
                self._connection.start_callback(partial(self._await_each, self._awaiting), "callbacks of send()")
            self._awaiting.put(result)

    def caller_of(self, callback: Callback | None) -> Callable[[], None] | None:
        """What calls a callback of ``send()``."""
        return None if callback is None else partial(self.call_sent, callback)

    async def _await_each(self, queue: Queue) -> None:
        queue.channels.add(queue)
        try:
            while True:
                try:
                    awaitable = queue.take() if queue.items else await queue.wait(queue)
                except trio.EndOfChannel:
                    break
                await awaitable
        finally:
            self._awaiting = None
            while queue.items:
                queue.items.popleft().close()

    def open_channel(self, event: str, max_buffer_size: object, type_: Any = None) -> EventChannel[Any]:
        """A new channel of ``event``. The queue of ``json`` holds :class:`UndecodedJson`."""
        self._check_can_come(event)
        if type_ is not None and event != "json":
            raise ValueError(f"type= is for the event 'json', not {event!r}")
        decode = None if type_ is None else decoder_of(type_)
        if not isinstance(max_buffer_size, int) or max_buffer_size < 1:
            raise ValueError(f"max_buffer_size must be a number of items, at least 1, not {max_buffer_size!r}")
        queue = Queue(self._connection, max_buffer_size, reports_end=event in CARRYING)
        subscription = Subscription(event, None, queue)
        queue.on_close(partial(self._remove, subscription))
        self._add(subscription)
        if self._closed:  # It has taken over what was kept, and there will be no more.
            self._remove(subscription)
        return EventChannel(self._connection, queue, decode)

    def unsubscribe(self, event: str, callback: Callback | None = None) -> None:
        """Forget ``callback``, or everything that subscribes to ``event``; channels end behind what they hold."""
        for subscription in self.subscriptions(event):
            if callback is None or subscription.callback == callback:
                self._remove(subscription)

    def _check_can_come(self, event: str) -> None:
        _check_event(event)
        if event == "frame":
            self._connection.transport.check_frames("frame events")

    def _add(self, subscription: Subscription) -> None:
        event = subscription.event
        self._subscriptions.setdefault(event, []).append(subscription)
        if event in CARRYING:
            self.carrying += 1
            self.calling += subscription.queue is None
        self._connection.subscribed(subscription)
        if event in self._remembered and not self._closed:
            self._tell(subscription, (), guarded=True)

    def _remove(self, subscription: Subscription) -> None:
        event = subscription.event
        subscriptions = self._subscriptions.get(event, [])
        if subscription not in subscriptions:
            return
        subscriptions.remove(subscription)
        if not subscriptions:
            del self._subscriptions[event]
        if event in CARRYING:
            self.carrying -= 1
            self.calling -= subscription.queue is None
        if subscription.queue is not None and not subscription.queue.ended:
            subscription.queue.end()
        self._connection.unsubscribed()

    def close(self) -> None:
        """No event will come any more: the channels end, behind what they hold."""
        self._closed = True
        if self._awaiting is not None:
            self._awaiting.end()
        for event in tuple(self._subscriptions):
            self.unsubscribe(event)

    # Events

    def emit_given(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Emit an event on behalf of the caller; an ``error`` that nobody subscribes to is raised."""
        _check_event(event)
        if not self.emit(event, *arguments) and event == "error":
            error = arguments[0] if arguments else "unknown error"
            raise error if isinstance(error, Exception) else RuntimeError(error)

    def emit(self, event: str, *arguments: object, guarded: bool = False) -> bool:
        """Tell all subscribers of ``event``; return whether there was any.

        An exception of a callback comes out here, or if ``guarded`` goes to :meth:`Connection.crash`.
        """
        subscriptions = self._subscriptions.get(event)
        if not subscriptions:
            return False
        found = False
        for subscription in tuple(subscriptions):
            # A callback that ran before may have unsubscribed it.
            if subscription in self._subscriptions.get(event, ()):
                self._tell(subscription, arguments, guarded=guarded)
                found = True
        return found

    def remember(self, event: str) -> None:
        """Emit what happens once and for all; who subscribes later is told then."""
        self._remembered.append(event)
        self.emit(event, guarded=True)

    def tell_message(self, message: str | bytes) -> bool:
        """Tell those who subscribe to a message of this kind; return whether there was any."""
        found = False
        if isinstance(message, bytes):
            found = self.emit("binary", message, guarded=True)
        elif self.has("text"):
            found = self.emit("text", message.encode(), guarded=True)
        found = self.emit("message", message, guarded=True) or found
        if self.has("json"):
            found = self.emit("json", UndecodedJson(message, self._connection.json), guarded=True) or found
        return found

    def tell_one(self, subscription: Subscription, message: str | bytes) -> None:
        """Tell one subscription of a message that was kept, and that it matches."""
        item: object = message
        if subscription.event == "text":
            assert isinstance(message, str)
            item = message.encode()
        elif subscription.event == "json":
            item = UndecodedJson(message, self._connection.json)
        self._tell(subscription, (item,), guarded=True)

    def _tell(self, subscription: Subscription, arguments: tuple[object, ...], *, guarded: bool) -> None:
        queue = subscription.queue
        if subscription.callback is None:
            assert queue is not None
            if queue.room > 0 or subscription.event in BOUNDED:
                queue.put(self._item(subscription.event, arguments))
            return
        if arguments and isinstance(item := arguments[0], UndecodedJson):
            try:
                arguments = (item.decode(),)
            except ValueError as exc:
                self._report(item, exc)
                return
            except BaseException as exc:
                self._connection.crash(exc)
                return
        if queue is not None and (queue.room > 0 or subscription.event in BOUNDED):
            queue.put(arguments)
        if subscription.once:
            self._remove(subscription)
        if queue is None:
            try:
                check_result(subscription.callback, subscription.callback(self.source, *arguments))
            except BaseException as exc:
                if not guarded:
                    raise
                self._connection.crash(exc)

    def _report(self, item: UndecodedJson, exc: ValueError) -> None:
        """What does not decode for callbacks is told as an error, once: it is the peer's mistake, not ours."""
        if not item.reported:
            item.reported = True
            if not self.emit("error", exc, guarded=True):
                logger.warning("invalid JSON for the callbacks of %r: %s", self.source, escape(str(exc)))

    def _item(self, event: str, arguments: tuple[object, ...]) -> object:
        if event == "finish":
            return Close._make(arguments)
        return arguments[0] if arguments else self.source


def check_result(callback: Callback, result: object) -> None:
    """Raise TypeError if a callback that is no async function has returned a coroutine all the same."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"a callback that is to be awaited must be an async function, not {callback!r:.60}")


def _check_event(event: str) -> None:
    if event not in EVENTS:
        raise ValueError(f"unknown event {event!r:.60} (expected one of {', '.join(EVENTS)})")


def _is_async(callback: Callback) -> bool:
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)
