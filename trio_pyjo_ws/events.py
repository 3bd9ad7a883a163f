"""Subscriptions to a transaction's events: callbacks, and memory channels.

An event reaches a synchronous callback where it happens, before :meth:`Emitter.emit` returns. A channel gets it by
``send_nowait``; where the channel is full, the item goes to ``blocked``, and whoever reads from the network delivers it
before reading on, so that a slow consumer slows the peer down. An asynchronous callback is a channel with a task of the
nursery behind it, which keeps its calls in order and gives it back pressure, too.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from .objects import UndecodedJson
from .wire.frames import Close

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["CARRYING", "EVENTS", "Callback", "Emitter"]

logger = logging.getLogger("trio_pyjo_ws")

EVENTS = ("binary", "connection", "drain", "error", "finish", "frame", "json", "message", "resume", "text")
"""All the events of a transaction."""

CARRYING = frozenset({"binary", "frame", "json", "message", "text"})
"""The events that come out of what the peer sends, so that somebody has to read while they are subscribed to."""

CALLBACK_BUFFER = 16
"""Events that wait for an asynchronous callback before reading from the network stops."""

Callback = Callable[..., Any]


class Subscription:
    """One callback, or one channel."""

    __slots__ = ("callback", "channel", "once")

    def __init__(
        self, callback: Callback | None, channel: trio.MemorySendChannel[Any] | None, once: bool = False
    ) -> None:
        self.callback = callback
        self.channel = channel
        self.once = once


class Emitter:
    """The subscriptions of ``source``, and what is still on its way to them.

    ``changed`` is called after each change of the subscriptions, ``delivered`` after a channel got what it had no room
    for at first; ``start_soon(function, name)`` starts a task of the nursery.
    """

    def __init__(
        self,
        source: object,
        start_soon: Callable[[Callable[[], Awaitable[None]], str], None],
        changed: Callable[[], None],
        delivered: Callable[[], None],
    ) -> None:
        self.blocked: list[tuple[trio.MemorySendChannel[Any], object]] = []
        self.carrying = 0
        """How many subscriptions there are to events that come out of what the peer sends."""
        self.calling = 0
        """How many of these are callbacks, which do not read themselves as a channel's ``receive()`` does."""
        self._source = source
        self._start_soon = start_soon
        self._changed = changed
        self._delivered = delivered
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._remembered: list[str] = []
        self._closed = False
        self.delivering = False
        """Whether somebody waits for a full channel to take what is on its way to it."""

    def has(self, event: str) -> bool:
        """Whether anybody subscribes to ``event``; a channel does until it is found closed."""
        return event in self._subscriptions

    def callbacks(self, event: str) -> list[Callback]:
        """The callbacks subscribed to ``event``, in their order."""
        return [one.callback for one in self.subscriptions(event) if one.callback is not None]

    def subscriptions(self, event: str) -> list[Subscription]:
        """What subscribes to ``event``, in its order; channels that their readers have closed are forgotten first."""
        _check_event(event)
        for subscription in tuple(self._subscriptions.get(event, ())):
            channel = subscription.channel
            if channel is not None and not channel.statistics().open_receive_channels:
                self._remove(event, subscription)
        return list(self._subscriptions.get(event, ()))

    def on(self, event: str, callback: Callback, once: bool = False) -> None:
        """Subscribe ``callback``."""
        _check_event(event)
        if not callable(callback):
            raise TypeError(f"a callback for {event!r} is callable; {callback!r:.60} is not")
        channel = None
        if _is_async(callback) and not self._closed:
            channel, receive_channel = trio.open_memory_channel[Any](CALLBACK_BUFFER)
            source = self._source

            async def consume() -> None:
                async with receive_channel:
                    async for arguments in receive_channel:
                        await callback(source, *arguments)

            self._start_soon(consume, f"{event} callback {callback!r}")
        self._add(event, Subscription(callback, channel, once))

    def open_channel(self, event: str, max_buffer_size: object) -> trio.MemoryReceiveChannel[Any]:
        """Subscribe a new memory channel. That of ``json`` carries :class:`UndecodedJson`."""
        _check_event(event)
        if not isinstance(max_buffer_size, int) or max_buffer_size < 1:
            raise ValueError(f"max_buffer_size is the number of items to keep, at least 1, not {max_buffer_size!r}")
        channel, receive_channel = trio.open_memory_channel[Any](max_buffer_size)
        self._add(event, Subscription(None, channel))
        return receive_channel

    def unsubscribe(self, event: str, callback: Callback | None = None) -> None:
        """Forget ``callback``, or everything that subscribes to ``event``; channels end."""
        _check_event(event)
        for subscription in tuple(self._subscriptions.get(event, ())):
            if callback is None or subscription.callback == callback:
                self._remove(event, subscription)

    def emit(self, event: str, *arguments: object) -> bool:
        """Tell all subscribers of ``event``; return whether there was any."""
        subscriptions = self._subscriptions.get(event)
        if not subscriptions:
            return False
        found = False
        for subscription in tuple(subscriptions):
            found = self._tell(event, subscription, arguments) or found
        return found

    def feed(self, messages: list[Any]) -> list[Any]:
        """Tell the only subscription, where that is a channel of messages; return what is left to tell otherwise."""
        if self.carrying == 1 and "message" in self._subscriptions and not self.blocked:
            [subscription] = self._subscriptions["message"]
            if subscription.callback is None:
                assert subscription.channel is not None
                sent = 0
                with suppress(trio.WouldBlock, trio.BrokenResourceError):
                    for message in messages:
                        subscription.channel.send_nowait(message)
                        sent += 1
                return messages[sent:]
        return messages

    def remember(self, event: str) -> None:
        """Emit what happens once and for all; who subscribes later is told then."""
        self._remembered.append(event)
        self.emit(event)

    def _tell(self, event: str, subscription: Subscription, arguments: tuple[object, ...]) -> bool:
        """Tell one subscriber; return whether it still was one."""
        if subscription not in self._subscriptions.get(event, ()):
            return False  # A callback that ran before has unsubscribed it.
        channel = subscription.channel
        if subscription.once:
            self._remove(event, subscription, keep_open=True)
        if subscription.callback is None:
            assert channel is not None
            return self._send(event, subscription, channel, self._item(event, arguments))
        if arguments and isinstance(item := arguments[0], UndecodedJson):
            try:
                arguments = (item.decode(),)
            except ValueError as exc:
                self._report(item, exc)
                return True
        if channel is None:
            result = subscription.callback(self._source, *arguments)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError(
                    f"a callback that is to be awaited is an async function; {subscription.callback!r} is not"
                )
            return True
        found = self._send(event, subscription, channel, arguments)
        if subscription.once:
            self._close(channel)
        return found

    def _report(self, item: UndecodedJson, exc: ValueError) -> None:
        """What does not decode for callbacks is told as an error, once: it is the peer's mistake, not ours."""
        if not item.reported:
            item.reported = True
            if not self.emit("error", exc):
                logger.warning("no JSON for the callbacks of %r: %s", self._source, exc)

    def _send(self, event: str, subscription: Subscription, channel: trio.MemorySendChannel[Any], item: object) -> bool:
        # An item that is blocked already goes first.
        if not self.blocked or not any(waiting is channel for waiting, _ in self.blocked):
            try:
                channel.send_nowait(item)
            except trio.WouldBlock:
                pass
            except trio.BrokenResourceError:
                # Its reader has closed the channel, and that is all the notice that trio gives.
                self._remove(event, subscription)
                return False
            else:
                return True
        # A channel full of what this side does (written, resumed) tells as much as one more item could.
        if event in CARRYING or event == "error":
            self.blocked.append((channel, item))
        return True

    def deliver_nowait(self) -> bool:
        """Give the full channels what they have room for again; return False where that is nothing."""
        before = len(self.blocked)
        while self.blocked and not self.delivering:
            channel, item = self.blocked[0]
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                try:
                    channel.send_nowait(item)
                except trio.WouldBlock:
                    break
            self.blocked.pop(0)
        return not self.blocked or len(self.blocked) < before

    async def deliver_first(self) -> None:
        """Wait until a full channel has taken the first item that is on its way. Cancelling it loses nothing.

        Not until all have: the caller may be the reader of the next one. Not to be called while ``delivering``.
        """
        self.delivering = True
        try:
            await self._deliver_one()
        finally:
            self.delivering = False

    def deliver_soon(self) -> None:
        """Have the full channels get what is on its way to them although nobody may be about to read."""
        if self.blocked and not self.delivering:
            self.delivering = True
            self._start_soon(self._deliver_blocked, "deliveries")

    async def _deliver_blocked(self) -> None:
        try:
            while self.blocked:
                await self._deliver_one()
        finally:
            self.delivering = False

    async def _deliver_one(self) -> None:
        channel, item = first = self.blocked[0]
        # Its reader may close it, and so may unsubscribe(), which takes its items off the list as well.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await channel.send(item)
        if self.blocked and self.blocked[0] is first:
            self.blocked.pop(0)
        self._delivered()

    def close(self) -> None:
        """No event will come any more: the channels end, behind what they hold."""
        self._closed = True
        self.blocked.clear()
        for event in tuple(self._subscriptions):
            self.unsubscribe(event)

    def _item(self, event: str, arguments: tuple[object, ...]) -> object:
        if event == "finish":
            return Close._make(arguments)
        return arguments[0] if arguments else self._source

    def _add(self, event: str, subscription: Subscription) -> None:
        if self._closed:
            if subscription.channel is not None:
                subscription.channel.close()
            return
        self._subscriptions.setdefault(event, []).append(subscription)
        if event in CARRYING:
            self.carrying += 1
            self.calling += subscription.callback is not None
        self._changed()
        if event in self._remembered:
            self._tell(event, subscription, ())

    def _remove(self, event: str, subscription: Subscription, keep_open: bool = False) -> None:
        subscriptions = self._subscriptions.get(event, [])
        if subscription not in subscriptions:
            return  # It was for once, and its channel turns out to be closed.
        subscriptions.remove(subscription)
        if not subscriptions:
            del self._subscriptions[event]
        if event in CARRYING:
            self.carrying -= 1
            self.calling -= subscription.callback is not None
        if subscription.channel is not None and not keep_open:
            self._close(subscription.channel)
        self._changed()

    def _close(self, channel: trio.MemorySendChannel[Any]) -> None:
        self.blocked = [(waiting, item) for waiting, item in self.blocked if waiting is not channel]
        channel.close()


def _check_event(event: str) -> None:
    if event not in EVENTS:
        raise ValueError(f"there is no event {event!r}; there are {', '.join(EVENTS)}")


def _is_async(callback: Callback) -> bool:
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)
