"""What each side was promised, and whether it was kept.

The oracle knows what was asked of the library and what came out of it, and when each began and ended. It knows nothing
of the library's inside. It goes by these promises (docs/messages.md, docs/life.md):

- A message is received as it was sent, whole, once: by one of those who call ``receive()``, or by every subscription
  that matches it. ``receive()`` is given what no subscription matches.
- Each of them is given its messages in the order in which they were sent, and without a hole: a subscription from its
  beginning to its end, and one that opens takes over what is kept.
- A message whose ``send()`` has returned is received, if its sender is the one who closes, in whatever way but the
  forcible ones, and the peer does not close as well. If the bytes of a message were read from the stream it is
  received in any case, unless this side has closed.
- A cancelled ``send()`` has sent all or nothing, one that raised ``WouldBlock`` nothing.
- Both sides see the same code, and everybody who waits is told the same end.
- Nothing is left, and no exception is lost.

What is given up is none of these: a channel that its reader closes takes along what it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_pyjo_ws import ConnectionClosed

from . import wire
from .plan import RECORDED, SERVED
from .record import NEVER, Message, Side, Sink, Take, Wrong, close_of, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_pyjo_ws import Close

    from .record import End
    from .world import World

NORMAL = (1000, 1001, 1005)


def judge(world: World) -> list[Wrong]:
    """All that is wrong with what has happened."""
    wrongs = list(_wire(world))
    torn = bool(wrongs)
    for side in world.sides.values():
        if side.was_opened:
            direction = Direction(world, world.peer(side), side, torn)
            wrongs += direction.judge()
            wrongs += _ends(world, side)
    if all(side.was_opened for side in world.sides.values()):
        wrongs += _codes(world)
    wrongs += _callbacks(world)
    for crash in world.raised:
        if not any(crash is one for one in world.came_out):
            wrongs.append(Wrong("exception", f"{crash!r} was raised and never came out"))
    return wrongs


def missing(world: World) -> bool:
    """Whether a message that was sent has not been received by anybody."""
    for side in world.sides.values():
        taken = {take.number for sink in side.sinks for take in sink.takes if take.ended < NEVER}
        sent = {message.number for message in world.peer(side).sent.values() if message.fate == "sent"}
        if sent - taken:
            return True
    return False


def is_forced(world: World) -> bool:
    """Whether the connection ends without a closing handshake of both sides' own will."""
    return world.plan.ending.kind in ("kill", "crash")


class Direction:
    """The messages from one side to the other."""

    def __init__(self, world: World, sender: Side, receiver: Side, torn: bool = False) -> None:
        self._world = world
        self._sender = sender
        self._receiver = receiver
        self._messages = sender.sent
        self._taken = receiver.taken()
        self._arrived_at = {} if torn else _arrivals(world, receiver)
        """Where in the bytes that were read each message ended, and when that was, if that is recorded."""
        self._given_up: dict[str, int] = {}

    def judge(self) -> Iterator[Wrong]:
        """All that is wrong with this direction."""
        yield from self._once()
        yield from self._in_order()
        yield from self._entitled()
        yield from self._without_a_hole()
        yield from self._all()

    def _before(self, one: Message, other: Message) -> bool:
        """Whether one message went before another on the wire, for certain."""
        places = [self._arrived_at.get(message.number) for message in (one, other)]
        if places[0] is not None and places[1] is not None:
            return places[0] < places[1]
        return one.returned is not None and one.returned < other.called

    def _once(self) -> Iterator[Wrong]:
        for number, takes in self._taken.items():
            message = self._messages.get(number)
            if message is None:
                continue  # The world has found that.
            if message.fate == "refused" and any(take.whole for _, take in takes):
                yield Wrong("refused", f"{message} was received by {_names(takes)}, though its sending was refused")
            names = [sink.name for sink, _ in takes]
            if len(set(names)) < len(names):
                yield Wrong("twice", f"{message} was received by {_names(takes)}")
            elif self._receiver.receive.name in names and len(names) > 1:
                yield Wrong("twice", f"{message} went to receive() and to a subscription: {_names(takes)}")

    def _in_order(self) -> Iterator[Wrong]:
        for sink in self._receiver.sinks:
            by_reader: dict[str, list[Take]] = {}
            for take in sink.takes:
                by_reader.setdefault(take.reader if sink.is_channel else "", []).append(take)
            for takes in by_reader.values():
                for earlier, later in self._pairs(takes):
                    if self._before(later, earlier):
                        yield Wrong("order", f"{sink.name} was given {earlier} before {later}")
        for sink in self._subscriptions():
            for take in self._receiver.receive.takes:
                late = self._messages.get(take.number or 0)
                for number in sink.numbers() if late is not None and take.ended < sink.opening else ():
                    early = self._messages.get(number)
                    if early is not None and late is not None and self._before(early, late):
                        yield Wrong("order", f"{take.reader} was given {late}, and then {sink.name} {early}")

    def _pairs(self, takes: list[Take]) -> Iterator[tuple[Message, Message]]:
        known = [self._messages[take.number] for take in takes if take.number in self._messages]
        for index, earlier in enumerate(known):
            for later in known[index + 1 :]:
                yield earlier, later

    def _subscriptions(self) -> list[Sink]:
        return [sink for sink in self._receiver.sinks if sink.event not in ("receive", "frame")]

    def _entitled(self) -> Iterator[Wrong]:
        """``receive()`` is given what no subscription matches; nobody is given what was sent after its end."""
        for sink in self._subscriptions():
            for number in sink.numbers():
                message = self._messages.get(number)
                if message is not None and sink.over is not None and message.called > sink.over:
                    yield Wrong("not entitled", f"{sink.name} was given {message}, sent after it had been unsubscribed")
            for take in self._receiver.receive.takes:
                message = self._messages.get(take.number or 0)
                if message is None or take.in_pieces or sink.is_late or not message.matches(sink.event):
                    continue
                if (
                    take.began > sink.opened
                    and take.ended < (sink.over or NEVER)
                    and not self._had_enough(sink, message)
                ):
                    text = f"{take.reader} was given {message}, to which {sink.name} subscribes"
                    yield Wrong("not entitled", text)

    def _had_enough(self, sink: Sink, message: Message) -> bool:
        """Whether a subscription for once was over before this message."""
        if not sink.once:
            return False
        first = self._messages.get(next(iter(sink.numbers()), 0))
        if first is None and sink.awaited and is_forced(self._world):
            return True  # It was to be called, and its task was cancelled.
        return first is not None and not self._before(message, first)

    def _has_arrived(self, message: Message) -> bool:
        """Whether it was received, or must have been since one behind it was."""
        if message.number in self._taken:
            return True
        return message.fate == "sent" and any(
            self._before(message, self._messages[number]) for number in self._taken if number in self._messages
        )

    def _without_a_hole(self) -> Iterator[Wrong]:
        """A subscription is given all that match it from its beginning to its end."""
        for sink in self._subscriptions():
            got = [self._messages[number] for number in sink.numbers() if number in self._messages]
            for message in self._messages.values():
                if message in got or not message.matches(sink.event) or not self._has_arrived(message):
                    continue
                takes = self._taken.get(message.number, [])
                if sink.is_late or any(take.in_pieces for _, take in takes):
                    continue
                if message.called < sink.opened and any(other.event != "receive" for other, _ in takes):
                    continue  # Another subscription may have been given it before this one opened.
                begun = message.called > sink.opened or any(self._before(one, message) for one in got)
                if begun and (any(self._before(message, one) for one in got) or self._is_due(sink, takes, got)):
                    others = f", though {_names(takes)} was" if takes else ""
                    yield Wrong("hole", f"{sink.name} was not given {message}{others}")

    def _is_due(self, sink: Sink, takes: list[tuple[Sink, Take]], got: list[Message]) -> bool:
        """Whether a subscription must have been given a message that came behind all that it was given."""
        if sink.once:
            return not got and sink.over is None
        if sink.closed is not None or is_forced(self._world):
            return False
        if sink.unsubscribed is None:
            return True
        # It held what had come until then.
        return not sink.awaited and any(take.ended < sink.unsubscribed for other, take in takes if other is not sink)

    def _all(self) -> Iterator[Wrong]:
        """What was promised was received by somebody."""
        for message in self._messages.values():
            if message.number in self._taken or not (why := self._why_promised(message)):
                continue
            if not self._was_given_up(message):
                yield Wrong("lost", f"{message}: {why}")

    def _why_promised(self, message: Message) -> str:
        """Why a message must have been received; nothing if that is not certain."""
        world, sender, receiver = self._world, self._sender, self._receiver
        closings, ours = sender.closings, receiver.closings
        if message.is_big or message.fate == "refused":
            return ""
        if message.fate == "sent":
            if self._has_arrived(message):
                return "what came behind it was received"
            if world.settled is not None and message.returned is not None and message.returned < world.settled:
                return "everything had time to arrive"
            if not is_forced(world) and not ours and not world.plan.is_impatient:
                if any(big.is_big and self._before(message, big) for big in self._messages.values()):
                    return "it was sent before the message that was too big"
                big = any(one.is_big for one in self._messages.values())
                if closings and not big and message.returned is not None and message.returned < closings[0].began:
                    return "its sender has closed, and nobody else"
        fails = any(big.is_big and not self._before(message, big) for big in self._messages.values())
        if not (ours or fails) and world.plan.ending.kind != "crash" and message.number in self._arrived_at:
            return "its bytes were read"
        return ""

    def _was_given_up(self, message: Message) -> bool:
        """Whether a channel may have held it when its reader closed it.

        It holds no more than it has room for, and what was kept when it opened.

        So may the queue of an asynchronous callback that is called no more.
        """
        for sink in self._subscriptions():
            over = sink.closed if sink.is_channel else sink.unsubscribed if sink.awaited else None
            if sink.awaited and is_forced(self._world):
                over = NEVER  # Its task was cancelled.
            if over is None or message.called > over or not message.matches(sink.event):
                continue
            got = [self._messages[number] for number in sink.numbers() if number in self._messages]
            if any(self._before(message, one) for one in got):
                continue
            if message.called < sink.opened:
                return True
            count = self._given_up.get(sink.name, 0)
            if count < sink.capacity:
                self._given_up[sink.name] = count + 1
                return True
        return False


def _names(takes: list[tuple[Sink, Take]]) -> str:
    return ", ".join(take.reader for _, take in takes)


# The wire


def _received(world: World, side: Side) -> bytes:
    return b"".join(data for _, data in side.chunks)


def _arrivals(world: World, side: Side) -> dict[int, int]:
    """Of each message of which all bytes were read from the stream, where it ended."""
    if world.plan.transport not in RECORDED:
        return {}
    arrivals: dict[int, int] = {}
    for item in _items(world, side):
        number = number_of(item.payload)
        if number is not None and item.kind in ("text", "binary"):
            arrivals[number] = item.end
    return arrivals


def _items(world: World, side: Side) -> list[wire.Item]:
    data = _received(world, side)
    if world.plan.transport in SERVED:
        _, data = wire.split_head(data)
    return list(wire.items_of(data, masked=side.name == "server"))


def _wire(world: World) -> Iterator[Wrong]:
    """What went over the wire are whole frames, in an order that is allowed, and messages that somebody sent."""
    if world.plan.transport not in RECORDED:
        return
    for side in world.sides.values():
        try:
            items = _items(world, side)
        except wire.Torn as exc:
            yield Wrong("torn", f"to the {side.name}: {exc}")
            continue
        for item in items:
            if item.kind == "close":
                yield from _close_that_was_read(world, side, item.payload)
            if item.kind not in ("text", "binary"):
                continue
            message = world.peer(side).sent.get(number_of(item.payload) or 0)
            if message is None or not message.is_received_as(
                item.payload.decode() if message.is_text else item.payload, "wire"
            ):
                yield Wrong("torn", f"to the {side.name} went {item.payload!r:.80}, which is not a message")
            elif message.fate == "refused":
                yield Wrong("refused", f"{message} went to the {side.name}, though its sending was refused")


def _close_that_was_read(world: World, side: Side, payload: bytes) -> Iterator[Wrong]:
    close = close_of(side.ws)
    code = int.from_bytes(payload[:2], "big") if payload else 1005
    gave_up = any(closing.how in ("killed", "aclose cancelled") for closing in side.closings)
    if close is None or gave_up or world.plan.ending.kind == "crash" or _failed_by(world, side):
        return
    if (close.code, close.reason) != (code, payload[2:].decode()) and not (world.plan.is_impatient and side.closings):
        yield Wrong(
            "close code", f"the {side.name} ended with {close}, and had read a Close with {code} {payload[2:]!r}"
        )


# The end


def _ends(world: World, side: Side) -> Iterator[Wrong]:
    """Everybody is told the end that there was."""
    close = close_of(side.ws)
    if close is None:
        yield Wrong("end", f"the {side.name} has not ended: {side.ws!r}")
        return
    for end in side.ends:
        allowed = _allowed_ends(world, side, end)
        if not isinstance(end.exc, allowed):
            names = " or ".join(one.__name__ for one in allowed)
            yield Wrong(
                f"end of {end.what.partition(' ')[0]}", f"{end.who}, {end.what}: {end.exc!r} after {close}, not {names}"
            )
        elif isinstance(end.exc, ConnectionClosed) and end.exc.close.code not in _codes_told(end, close):
            yield Wrong("end", f"{end.who}, {end.what}: {end.exc.close}, where the connection ended with {close}")
    yield from _finality(side)
    for who, told in side.finishes:
        if told.code != close.code:
            yield Wrong("finish event", f"{who} was told {told}, where the connection ended with {close}")
    observers = [who for who, _ in side.finishes]
    if len(set(observers)) < len(observers) or not set(side.finish_observers) <= set(observers):
        yield Wrong("finish event", f"{side.finish_observers} were told {side.finishes}")


def _codes_told(end: End, close: Close) -> tuple[int, ...]:
    """The codes that an exception may have. Who cannot send does not know yet what the peer has said before."""
    return (close.code, 1006) if end.sends else (close.code,)


def _finality(side: Side) -> Iterator[Wrong]:
    """There is no message behind the end, and none that was kept is lost by it."""
    ends = [end for end in side.ends if end.final and not end.sends]
    told = [end.tick for end in ends if not end.what.startswith(("channel", "a message"))]
    first = min(told, default=NEVER)
    for take in side.receive.takes:
        if take.began > first and take.whole:  # A part of a message that was cut may be read in pieces.
            yield Wrong("end", f"{take.reader} was given message {take.number} after the end had been told")
    if side.closings and side.closings[0].how != "killed":
        taken = {
            number
            for number, takes in side.taken().items()
            if min(take.ended for _, take in takes) > side.closings[0].began
        }
        if len(taken) < side.waiting_at_close:
            yield Wrong(
                "lost", f"the {side.name} kept {side.waiting_at_close} messages when it closed, and gave {len(taken)}"
            )


def _allowed_ends(world: World, side: Side, end: End) -> tuple[type[BaseException], ...]:
    """The exceptions that may tell this end."""
    close, peer = close_of(side.ws), world.peer(side)
    assert close is not None
    is_channel = end.what.startswith("channel")
    allowed: list[type[BaseException]] = []
    fails = _failed_by(world, side) or (_has_crashed(world, side) and world.plan.transport in SERVED)
    closes = any(closing.began < end.tick for closing in side.closings)
    if closes or fails:
        allowed.append(trio.ClosedResourceError)
        if is_channel:
            allowed.append(trio.EndOfChannel)
    if not closes or peer.closings or is_forced(world) or fails:
        is_normal = close.code in NORMAL and not end.sends and end.what != "a message in pieces"
        allowed.append(trio.EndOfChannel if is_normal else ConnectionClosed)
        if _cuts(peer):  # The peer's closing may have cut a message of its own.
            allowed.append(ConnectionClosed)
    if is_channel and _sink_of(side, end).over is not None:
        allowed.append(trio.EndOfChannel)
    return tuple(dict.fromkeys(allowed))


def _sink_of(side: Side, end: End) -> Sink:
    return next(sink for sink in side.sinks if sink.name == end.who.partition("/")[0])


def _has_crashed(world: World, side: Side) -> bool:
    return world.plan.ending.kind == "crash" and world.plan.ending.side == side.name


def _failed_by(world: World, side: Side) -> bool:
    """Whether this side may have failed the connection, because of a message that is too big."""
    return any(message.is_big for message in world.peer(side).sent.values())


def _codes(world: World) -> Iterator[Wrong]:
    """Both sides see the same code and reason."""
    client, server = world.sides.values()
    closes = {side.name: close_of(side.ws) for side in (client, server)}
    seen = {name: close.code for name, close in closes.items() if close is not None}
    if len(seen) < 2:
        return
    text = ", ".join(f"the {name} saw {close}" for name, close in closes.items())
    if is_forced(world):
        allowed = {1006, 1011} if world.plan.ending.kind == "crash" else {1006}
        allowed |= {code for side in (client, server) for closing in side.closings for code in closing.codes}
        if not set(seen.values()) <= allowed:
            yield Wrong("close code", f"{text}, expected {allowed}")
        return
    big = any(message.is_big for side in (client, server) for message in side.sent.values())
    own = {side.name: set(_codes_of(world, side)) for side in (client, server)}
    if big and not (client.closings or server.closings):
        allowed = {1009, 1006} if _may_miss_the_close(world) else {1009}
        if 1009 not in seen.values() or not set(seen.values()) <= allowed:
            yield Wrong("close code", f"{text}, expected 1009")
        return
    if 1006 in seen.values() and (world.plan.is_impatient or _may_miss_the_close(world)):
        return  # What was read, if that is recorded, says what is right: see _wire().
    same = seen["client"] == seen["server"]
    both = own["client"] | own["server"]
    crossed = seen["client"] in own["server"] and seen["server"] in own["client"]
    if not (same and seen["client"] in both) and not crossed:
        yield Wrong("close code", f"{text}; the client closed with {own['client']}, the server with {own['server']}")
    elif same and len([*client.closings, *server.closings]) == 1:
        [closing] = [*client.closings, *server.closings]
        reasons = {name: close.reason for name, close in closes.items() if close is not None}
        known = closing.how in ("finish", "finish cancelled", "frame", "aclose", "leave", "server closes")
        if known and closing.codes[0] == seen["client"] and set(reasons.values()) != {closing.reason or ""}:
            yield Wrong("close reason", f"{text}, of {closing.reason!r}")


def _may_miss_the_close(world: World) -> bool:
    """Whether a side may not get the Close that the peer sends last: an SSLStream that cannot send does not receive."""
    return world.plan.transport == "tls"


def _codes_of(world: World, side: Side) -> Iterator[int]:
    for closing in side.closings:
        yield from closing.codes
    if _cuts(side):
        yield 1011


def _cuts(side: Side) -> bool:
    """Whether a side that closes may have cut a message of its own."""
    in_parts = [message for message in side.sent.values() if message.form.startswith(("pieces", "fragments"))]
    return bool(side.closings) and any(message.fate != "sent" for message in in_parts)


def _callbacks(world: World) -> Iterator[Wrong]:
    """A drain callback is called once, and only for what was sent."""
    for side in world.sides.values():
        for message in side.sent.values():
            if message.calls is None:
                continue
            if message.calls > 1 or (message.calls and message.fate == "refused"):
                yield Wrong("drain callback", f"of {message}: called {message.calls} times")
            due = message.returned is not None and message.returned < _written_by(world, side)
            if not message.calls and due and message.fate == "sent":
                yield Wrong("drain callback", f"of {message}: not called")


def _written_by(world: World, side: Side) -> int:
    """Before which moment a message must have been sent that was certainly written."""
    if is_forced(world) or world.peer(side).closings:
        return world.settled or 0
    return max([world.settled or 0, *(closing.began for closing in side.closings[:1])])


def look_at_the_rest(world: World) -> None:
    """Nothing waits any more when all is over."""
    for side in world.sides.values():
        statistics = side.ws.statistics()
        waiting = {
            name: getattr(statistics, name)
            for name in (
                "messages_waiting",
                "bytes_unsent",
                "tasks_waiting_receive",
                "tasks_waiting_send",
                "pings_waiting",
            )
        }
        if any(waiting.values()):
            world.wrong("left", f"of the {side.name}: {waiting}")
        if not side.ws.is_finished or side.ws.is_writing:
            world.wrong("left", f"the {side.name} goes on: {side.ws!r}")
