# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""What a connection has received, and whose it is.

A message goes to every subscription that matches it; if none does, it is kept for ``receive()``. A subscription that
opens takes over, in order, what is kept and matches it. A message that somebody receives in pieces goes to them alone.

There is one back pressure: at most as many messages are parsed as the fullest reader has room for, and what is not
parsed stays in the decoder, then in the kernel, then with the peer. So a message never waits on its way: it is not
parsed yet, or it is kept here, or in a channel.
"""

from __future__ import annotations

import typing
from collections import deque
from sys import getsizeof
from typing import TYPE_CHECKING

from .events import MESSAGES, check_result

if TYPE_CHECKING:
    import trio

    from ..wire import protocol as wire
    from ..wire.arriving import Arriving
    from .channels import Queue
    from .events import Callback, Emitter, Subscription
    from .housekeeper import Housekeeper

__all__ = ["Inbox"]


class _Owner(typing.Protocol):
    """What an inbox asks of the connection that it is of."""

    housekeeper: Housekeeper

    def wake(self, task: trio.lowlevel.Task) -> None: ...
    def crash(self, exc: BaseException) -> None: ...
    def room_was_made(self) -> None: ...


class Inbox:
    """The receiving half of a connection."""

    __slots__ = (
        "_callback",
        "_emitter",
        "_entering",
        "_max_queue",
        "_max_queue_bytes",
        "_owed",
        "_owner",
        "_protocol",
        "_queue",
        "dropped",
        "messages",
        "receiving",
        "streamed",
        "streaming",
        "task",
    )

    def __init__(
        self, owner: _Owner, protocol: wire.Protocol, emitter: Emitter, max_queue: int, max_queue_bytes: int
    ) -> None:
        self._owner = owner
        self._protocol = protocol
        self._emitter = emitter
        self._max_queue = max_queue
        self._max_queue_bytes = max_queue_bytes
        self.messages: list[str | bytes] = []  # An empty deque takes 600 bytes more, and is no faster at this length.
        """The messages that are kept for ``receive()``."""
        self.receiving = False
        """Whether a task receives: no other may."""
        self.task: trio.lowlevel.Task | None = None
        """That task, while it waits for news."""
        self.streaming = False
        """Whether it receives a message in pieces."""
        self.streamed = False
        """Whether somebody ever has."""
        self.dropped = 0
        """Messages that came while this side was closing, and found no room."""
        # The only callback, or the only channel, that gets all that comes: the usual cases, without a detour.
        self._callback: Callback | None = None
        self._queue: Queue | None = None
        self._entering: Arriving | None = None  # that a task has claimed, and does not know yet to have begun
        # Messages taken over by callbacks that have not been called yet: the subscription, the message, and how many
        # of the messages kept came after it.
        self._owed: deque[tuple[Subscription, str | bytes, int]] = deque()

    # Room

    def room(self) -> int:
        """Messages that there is room for, with every reader."""
        messages = self.messages
        room = self._max_queue
        if messages:
            room -= len(messages)
            if room > 0 and self.size() >= self._max_queue_bytes:
                return 0
        if self._queue is not None:
            room = min(room, self._queue.room)
        elif self._emitter.carrying and self._callback is None:
            room = min(room, self._emitter.room())
        if self._owed or (self.streaming and self._protocol.arriving.held >= self._max_queue_bytes):
            return 0
        if self._entering is not None and self._entering.begun:
            return 0  # If the task is cancelled now, this message is for others, and comes before the next.
        return room

    def room_bytes(self) -> int:
        """Bytes of memory that there is room for."""
        return max(1, self._max_queue_bytes - self.size()) if self.messages else self._max_queue_bytes

    def size(self) -> int:
        """Bytes of memory that the messages kept take: of text, up to four for each byte that came."""
        size = 0
        for message in self.messages:
            size += getsizeof(message)
        return size

    def wants_whole(self) -> bool:
        """Whether somebody wants the next message whole, and not in pieces."""
        return self._emitter.carrying > 0 or (self.receiving and not self.streaming)

    # Messages in

    def add(self, messages: list[str | bytes], keep: bool) -> None:
        """Deliver messages; or drop them, for lack of room, unless ``keep`` is set."""
        callback = self._callback
        if not keep:
            self.dropped += len(messages)
        elif callback is not None:
            source = self._emitter.source
            for count, message in enumerate(messages, 1):
                try:
                    result = callback(source, message)
                    if result is not None:
                        check_result(callback, result)
                except BaseException as exc:
                    self._owner.crash(exc)
                if self._callback is not callback:  # It has changed who is told.
                    self.add(messages[count:], True)
                    return
        elif self._queue is not None:
            self._queue.put_all(messages)
        elif self._emitter.carrying:
            for message in messages:
                self.add_one(message, True)
        else:
            self.messages += messages
            self.notify()

    def add_one(self, message: str | bytes, keep: bool) -> None:
        """Deliver a message; or drop it, for lack of room, unless ``keep`` is set."""
        if not keep:
            self.dropped += 1
        elif not self._emitter.tell_message(message):
            self.messages.append(message)
            self.notify()

    def drop(self) -> None:
        """A message is given up, as there is no room for it."""
        self.dropped += 1

    # The task that receives

    def open(self, task: trio.lowlevel.Task | None, in_pieces: bool) -> None:
        """A task receives from now on, and no other may; ``task`` waits."""
        self.receiving = True
        self.task = task
        if in_pieces:
            self.streaming = self.streamed = True

    def expect(self, task: trio.lowlevel.Task | None) -> None:
        """``task`` waits for news of the message that it receives, or does not any more."""
        self.task = task

    def enter(self, arriving: Arriving | None) -> None:
        """A task waits for this message to begin, and receives it in pieces; with None, it knows that it has begun."""
        self._entering = arriving
        if arriving is None:
            self._owner.room_was_made()

    def close(self) -> None:
        """Nobody receives any more."""
        self.receiving = self.streaming = False
        self.task = self._entering = None

    def notify(self) -> None:
        """Have the task that receives look again."""
        if self.task is not None:
            self._owner.wake(self.task)

    # Messages out

    def hand_back(self, message: str | bytes) -> None:
        """A message that was taken is not received after all."""
        if not self._emitter.tell_message(message):
            self.messages.insert(0, message)

    # Subscriptions

    def subscribed(self, subscription: Subscription) -> None:
        """A subscription opens: it takes over what is kept and matches it."""
        self._choose()
        event = subscription.event
        if event not in MESSAGES or not self.messages:
            return
        kept: list[str | bytes] = []
        taken: list[str | bytes] = []
        before: list[int] = []  # of each that is taken, how many are kept that came before it
        for message in self.messages:
            matches = event in ("message", "json") or (event == "text") is isinstance(message, str)
            if matches and not (subscription.once and taken):
                taken.append(message)
                before.append(len(kept))
            else:
                kept.append(message)
        self.messages = kept
        if not taken:
            return
        if subscription.queue is None:
            # Its caller may not be ready yet for what it does.
            behind = [len(kept) - count for count in before]
            self._owed.extend([(subscription, *owed) for owed in zip(taken, behind, strict=True)])
            self._owner.housekeeper.soon(self.call_owed)
        else:
            for message in taken:
                self._emitter.tell_one(subscription, message)
        self._owner.room_was_made()

    def unsubscribed(self) -> None:
        """A subscription has ended."""
        self._choose()
        self._owner.room_was_made()

    def _choose(self) -> None:
        only = self._emitter.only_of_messages()
        self._callback = None if only is None else only.callback
        self._queue = None if only is None else only.queue

    def call_owed(self) -> None:
        """Call the callbacks that have taken over what was kept. What they have left meanwhile goes back."""
        while self._owed:
            subscription, message, behind = self._owed.popleft()
            if subscription in self._emitter.subscriptions(subscription.event):
                self._emitter.tell_one(subscription, message)
            elif not self._emitter.tell_message(message):
                self.messages.insert(max(0, len(self.messages) - behind), message)  # where it was
                self.notify()
        self._owner.room_was_made()
