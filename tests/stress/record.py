"""What happened in one seed: every message with what became of its sending, every reader with what it was given.

Moments are ticks: the world counts one up at the beginning and at the end of each operation, so that of two operations
it is known whether one was over before the other began.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from trio_pyjo_ws import Close, Transaction

NEVER = 1 << 60
NUMBER = re.compile(r"\[(\d+),")
NUMBER_BYTES = re.compile(rb"\[(\d+),")


def number_of(value: object) -> int | None:
    """The number of the message that ``value`` is, or is the beginning of; None if it does not say."""
    found: Any = None
    if isinstance(value, list):
        return value[0] if value and isinstance(value[0], int) else None
    if isinstance(value, str):
        found = NUMBER.match(value)
    elif isinstance(value, bytes):
        found = NUMBER_BYTES.match(value)
    return int(found[1]) if found else None


@dataclass
class Message:
    """A message, from the moment in which its sending was asked for."""

    number: int
    payload: str | bytes
    """What the peer receives, or its equal as JSON."""
    form: str
    """How it was sent."""
    called: int
    returned: int | None = None
    """When its sending had ended, in whatever way."""
    fate: Literal["sending", "sent", "unsure", "refused"] = "sending"
    """``sent``: the call has returned. ``refused``: nothing has left. ``unsure``: all of it has left, or nothing."""
    exact: bool = True
    """Whether the bytes are known; otherwise only the object that the JSON stands for."""
    is_json: bool = True
    is_big: bool = False
    calls: int | None = None
    """How often its drain callback was called, if it has one."""

    @property
    def is_text(self) -> bool:
        return isinstance(self.payload, str)

    @property
    def decoded(self) -> Any:
        """The object that its JSON stands for."""
        return json.loads(self.payload)

    def __str__(self) -> str:
        return f"message {self.number} ({'text' if self.is_text else 'binary'}, {self.form}, {self.fate})"

    def is_received_as(self, value: Any, event: str) -> bool:
        """Whether ``value`` is what a reader of ``event`` is given of this message."""
        if not self.exact:
            return bool((value if event == "json" else json.loads(value)) == self.decoded)
        if event == "json":
            return self.is_json and bool(value == self.decoded)
        if event == "undecoded":  # The error of the standard library shows it as text.
            text = self.payload if isinstance(self.payload, str) else self.payload.decode()
            return not self.is_json and value in (text, self.payload)
        if event == "text":
            return isinstance(self.payload, str) and value == self.payload.encode()
        return type(value) is type(self.payload) and value == self.payload

    def matches(self, event: str) -> bool:
        """Whether a subscription to ``event`` is given this message."""
        return event in ("message", "json", "undecoded") or event == ("text" if self.is_text else "binary")


@dataclass
class Take:
    """A message in the hands of a reader."""

    number: int | None
    """None of one in pieces while its beginning is not known."""
    began: int
    ended: int
    """NEVER while it is being received in pieces."""
    reader: str
    in_pieces: bool = False
    whole: bool = True
    """Whether it was received to its end; if it was not, its rest was discarded."""


@dataclass
class Sink:
    """A subscription, or ``receive()`` in all its forms, which is of the event ``receive``."""

    name: str
    event: str
    capacity: int = 0
    once: bool = False
    awaited: bool = False
    """Whether it is an asynchronous callback, whose queue is out of sight."""
    is_channel: bool = False
    is_late: bool = False
    """Whether it is a callback that was subscribed after the connection had ended, and is never called."""
    opening: int = 0
    opened: int = 0
    unsubscribed: int | None = None
    """When ``unsubscribe()`` was called."""
    closed: int | None = None
    """When its own reader closed the last of its channels."""
    takes: list[Take] = field(default_factory=list)
    ended: bool = False
    """Whether its reader came to its end."""

    def numbers(self) -> list[int]:
        return [take.number for take in self.takes if take.number is not None]

    @property
    def over(self) -> int | None:
        """From when on it need not be given anything."""
        moments = [moment for moment in (self.unsubscribed, self.closed) if moment is not None]
        return min(moments, default=None)


@dataclass
class Closing:
    """A side has begun to close, or has been made to."""

    began: int
    how: str
    codes: tuple[int, ...] = ()
    """The codes that it may send; none if it ends without a closing handshake."""
    reason: str | None = None


@dataclass
class End:
    """What told a task that the connection has ended."""

    who: str
    what: str
    exc: BaseException
    tick: int
    sends: bool
    final: bool
    """Whether the stream was over by then: otherwise something could still come."""


@dataclass
class Side:
    """One side of the connection."""

    name: str
    ws: Transaction = field(init=False)
    """It is there before any actor begins."""
    sent: dict[int, Message] = field(default_factory=dict)
    sinks: list[Sink] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    finishes: list[tuple[str, Close]] = field(default_factory=list)
    """What those who subscribe to ``finish`` were told."""
    finish_observers: list[str] = field(default_factory=list)
    """Those who subscribed to it while the connection was open."""
    senders: int = 0
    """How many have not sent all that they have to send."""
    waiting_at_close: int = 0
    """Messages that were kept for ``receive()`` when it began to close."""
    parts_seen: int = 0
    """Frames that are parts of messages, by those who subscribe to ``frame``."""
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    """What was read from its stream, and when, if that is recorded."""

    def __post_init__(self) -> None:
        self.receive = Sink(f"{self.name}.receive", "receive")
        self.sinks.append(self.receive)

    @property
    def was_opened(self) -> bool:
        return hasattr(self, "ws")

    def taken(self) -> dict[int, list[tuple[Sink, Take]]]:
        """Of each message that was received, by whom."""
        taken: dict[int, list[tuple[Sink, Take]]] = {}
        for sink in self.sinks:
            for take in sink.takes:
                if take.number is not None:
                    taken.setdefault(take.number, []).append((sink, take))
        return taken


@dataclass(frozen=True)
class Wrong:
    """A promise that was not kept."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def close_of(ws: Transaction) -> Close | None:
    """How the connection ended."""
    close: Close | None = getattr(ws, "closed" if hasattr(ws, "closed") else "close")
    return close
