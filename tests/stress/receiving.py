"""The actors that receive: by every form of ``receive()``, by channels and their clones, and by callbacks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_pyjo_ws import Close, ConnectionClosed, Frame, Opcode

from .record import NEVER, Message, Sink, Take, number_of
from .sending import compose
from .world import Crash

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from trio_pyjo_ws import MessageStream

    from .plan import Actor
    from .record import Side
    from .world import World

ENDS = (trio.EndOfChannel, ConnectionClosed, trio.ClosedResourceError)
"""What receiving raises once there is nothing more to receive."""

ENOUGH = 16
"""Characters of a message of which the number is known."""

WAYS = ("receive", "receive", "iterate", "nowait", "json", "stream", "part of a stream")


# receive() and what is like it


async def receive_messages(world: World, side: Side, actor: Actor) -> None:
    """Receive, each time in another way, until the connection has ended or ``count`` have been received."""
    chance, traits = world.chance(actor.name), actor.traits
    left = traits.get("count", -1)
    while left:
        way = chance.choice(WAYS)
        try:
            got = await _receive(world, side, actor.name, way, chance)
        except ENDS as exc:
            world.end(side, actor.name, way, exc)
            if side.ws.is_finished:
                return
            await world.sleep(1)  # What the peer sends until its Close can still be received.
            continue
        except Crash as exc:  # A callback has run in this task, which reads for all.
            world.failed(actor.name, exc)
            continue
        left -= got
        await world.sleep(chance.choice((0, 0, 0, traits["slow"])))


async def _receive(world: World, side: Side, who: str, way: str, chance: Random) -> bool:
    """Receive one message, perhaps; return whether there was one."""
    ws, sink, got = side.ws, side.receive, False
    began = world.tick()
    try:
        if way == "nowait":
            world.take(side, sink, ws.receive_nowait(), "message", began, who)
            return True
        if way.endswith("stream"):
            return await _receive_stream(world, side, who, way, chance)
        with world.perhaps_cancelled(chance, 0.25):
            if way == "json":
                value, event = await _receive_json(side)
                world.take(side, sink, value, event, began, who)
            elif way == "iterate":
                world.take(side, sink, await ws.__anext__(), "message", began, who)
            else:
                world.take(side, sink, await ws.receive(), "message", began, who)
            got = True
    except trio.WouldBlock:
        if way != "nowait":
            raise
        await world.sleep(chance.choice((0, 1)))
    except trio.BusyResourceError:
        if sum(actor.kind == "receiver" and actor.side == side.name for actor in world.plan.actors) < 2:
            raise
        await world.sleep(1)
    except StopAsyncIteration:
        raise trio.EndOfChannel from None
    return got


async def _receive_json(side: Side) -> tuple[object, str]:
    """The object that a message stands for; or the message itself, if it stands for none, and is given by the error."""
    try:
        return await side.ws.receive_json(), "json"
    except ValueError as exc:
        return _not_json(exc), "undecoded"


def _not_json(exc: ValueError) -> object:
    """What does not decode. Of bytes the error has the text, too."""
    found: object = getattr(exc, "doc", None) or getattr(exc, "object", None)
    if found is None:
        raise exc
    return found


async def _receive_stream(world: World, side: Side, who: str, way: str, chance: Random) -> bool:
    """Receive a message in pieces, if waiting for it is not cancelled; return whether there was one."""
    stream = side.ws.receive_stream()
    began = world.tick()
    with world.perhaps_cancelled(chance, 0.25) as scope:
        await stream.__aenter__()
    if scope.cancelled_caught:
        return False
    take = Take(None, began, NEVER, who, in_pieces=True)
    side.receive.takes.append(take)
    await _receive_pieces(world, side, stream, take, chance, way)
    return True


async def _receive_pieces(
    world: World, side: Side, stream: MessageStream, take: Take, chance: Random, way: str
) -> None:
    """Read a message in pieces, to its end or not; leave its block."""
    who, pieces = take.reader, []
    whole = False
    try:
        while True:
            with world.perhaps_cancelled(chance, 0.2):
                try:
                    pieces.append(await stream.__anext__())
                except StopAsyncIteration:
                    whole = True
                    break
                if take.number is None:
                    take.number = number_of(_joined(pieces))
                if way == "part of a stream" and len(_joined(pieces)) >= ENOUGH:
                    break
            if chance.random() < 0.2:
                await world.sleep(1)
    except ENDS as exc:
        side.receive.takes.remove(take)  # It never became a message.
        world.end(side, who, "a message in pieces", exc)
    finally:
        await stream.__aexit__(None, None, None)
    if take in side.receive.takes:
        _check_pieces(world, side, take, _joined(pieces), stream.kind, whole)


def _joined(pieces: list[Any]) -> Any:
    return pieces[0][:0].join(pieces) if pieces else b""


def _check_pieces(world: World, side: Side, take: Take, data: str | bytes, kind: str, whole: bool) -> None:
    message = None if take.number is None else world.peer(side).sent.get(take.number)
    take.ended, take.whole = world.tick(), whole
    world.note(take.reader, f"got {take.number} in pieces{'' if whole else ', not all of them'}")
    if message is None:
        world.wrong("changed", f"{take.reader} was given {data!r:.80} in pieces, which nobody has sent")
    elif (kind == "text") is not message.is_text or isinstance(data, str) is not message.is_text:
        world.wrong("changed", f"{take.reader} was given {message} as {kind}, {data!r:.80}")
    elif message.exact and (data != message.payload if whole else not _begins(message, data)):
        world.wrong("changed", f"{take.reader} was given {data!r:.80} of {message}: {message.payload!r:.80}")


def _begins(message: Message, data: Any) -> bool:
    payload: Any = message.payload
    return bool(payload.startswith(data))


# Channels


async def read_channel(world: World, side: Side, actor: Actor) -> None:
    """Open a channel, read it and its clones, each in a task, and close it after ``leaves`` items, if that is said."""
    traits = actor.traits
    sink = Sink(actor.name, traits["event"], traits["size"], is_channel=True, opening=world.tick())
    channel = side.ws.open_channel(traits["event"], traits["size"])
    sink.opened = world.tick()
    world.note(actor.name, f"opens {sink.event}")
    side.sinks.append(sink)
    channels = [channel, *(channel.clone() for _ in range(traits["clones"]))]
    still_open = len(channels)

    def closing() -> None:
        nonlocal still_open
        still_open -= 1
        if not still_open:
            sink.closed = world.tick()

    async with trio.open_nursery() as nursery:
        for index, one in enumerate(channels):
            nursery.start_soon(partial(_read, world, side, sink, one, actor, f"{actor.name}/{index}", closing))


async def _read(
    world: World, side: Side, sink: Sink, channel: Any, actor: Actor, who: str, closing: Callable[[], None]
) -> None:
    chance, traits = world.chance(who), actor.traits
    left = traits["leaves"] or -1
    while left:
        try:
            left -= await _read_one(world, side, sink, channel, who, chance)
        except ENDS as exc:
            world.end(side, who, f"channel of {sink.event}", exc)
            sink.ended = True
            return
        except Crash as exc:
            world.failed(who, exc)
            continue
        await world.sleep(chance.choice((0, 0, traits["slow"])))
    closing()
    world.note(who, "closes its channel")
    if chance.random() < 0.5:
        channel.close()
    else:
        await channel.aclose()


async def _read_one(world: World, side: Side, sink: Sink, channel: Any, who: str, chance: Random) -> bool:
    began = world.tick()
    event = sink.event
    try:
        if chance.random() < 0.2:
            value = channel.receive_nowait()
        else:
            with world.perhaps_cancelled(chance, 0.25) as scope:
                value = await channel.receive()
            if scope.cancelled_caught:
                return False
    except trio.WouldBlock:
        await world.sleep(chance.choice((0, 1)))
        return False
    except ValueError as exc:
        if event != "json":
            raise
        value, event = _not_json(exc), "undecoded"
    _give(world, side, sink, value, event, began, who)
    return True


def _give(world: World, side: Side, sink: Sink, value: Any, event: str, began: int, who: str) -> None:
    if event != "frame":
        world.take(side, sink, value, event, began, who)
    elif isinstance(value, Frame):
        side.parts_seen += value.opcode < Opcode.CLOSE
        world.note(who, f"saw {value.opcode!r:.20} of {len(value.payload)}")
    else:
        world.wrong("changed", f"{who} was given {value!r:.80} for a frame")


# Callbacks


async def call_back(world: World, side: Side, actor: Actor) -> None:
    """Subscribe a callback, which takes messages, and perhaps unsubscribes, replies or crashes."""
    chance, traits = world.chance(actor.name), actor.traits
    once = traits.get("once", False)
    sink = Sink(actor.name, traits["event"], 64, once, traits["awaited"], opening=world.tick())
    sink.is_late = side.ws.is_finished
    calls = 0

    def take(value: Any) -> None:
        nonlocal calls
        calls += 1
        _give(world, side, sink, value, sink.event, sink.opening, actor.name)
        if once and calls == 2:
            world.wrong("twice", f"{actor.name}, for once, was called again")
        if calls - 1 == traits.get("crashes", -1):
            raise world.crash(actor.name)
        if calls == traits.get("leaves"):
            sink.unsubscribed = sink.unsubscribed or world.tick()
            side.ws.unsubscribe(sink.event, callback)
            world.note(actor.name, "unsubscribes itself")
        if calls <= traits.get("replies", 0):
            _reply(world, side, actor.name, chance)

    def called(_: object, value: Any) -> None:
        take(value)

    async def called_async(_: object, value: Any) -> None:
        take(value)
        await world.sleep(chance.choice((0, traits.get("slow", 0))))

    callback: Callable[..., object] = called_async if sink.awaited else called
    side.sinks.append(sink)  # It may be called before on() returns.
    try:
        (side.ws.once if once else side.ws.on)(sink.event, callback)
    finally:
        sink.opened = world.tick()
        world.note(actor.name, f"subscribes to {sink.event}")


def _reply(world: World, side: Side, who: str, chance: Random) -> None:
    """Send from within a callback, which cannot wait."""
    message = compose(world, chance, side, "nowait", world.plan.sizes)
    side.sent[message.number] = message
    message.fate = "refused"
    try:
        side.ws.send_nowait(message.payload)
    except (trio.WouldBlock, ConnectionClosed, trio.ClosedResourceError):
        pass
    else:
        message.fate = "sent"
        world.note(who, f"replies {message.number}")
    message.returned = world.tick()


# Others


async def unsubscribe(world: World, side: Side, actor: Actor) -> None:
    """End all subscriptions to an event."""
    event = actor.traits["event"]
    moment = world.tick()
    for sink in side.sinks:
        if sink.event == event and sink.unsubscribed is None:
            sink.unsubscribed = moment
    world.note(actor.name, f"unsubscribes all of {event}")
    side.ws.unsubscribe(event)


async def observe(world: World, side: Side, actor: Actor) -> None:
    """Subscribe to an event that is not of what the peer sends."""
    event, is_finish = actor.traits["event"], actor.traits["event"] == "finish"
    if is_finish and side.ws.statistics().state == "open":
        side.finish_observers.append(actor.name)
    if not actor.traits["channel"]:

        def told(_: object, *value: Any) -> None:
            if is_finish:
                side.finishes.append((actor.name, Close(*value)))

        side.ws.on(event, told)
        return
    async with side.ws.open_channel(event, 1) as channel:
        async for value in channel:
            if is_finish:
                side.finishes.append((actor.name, value))
            elif value is not side.ws:
                world.wrong("changed", f"{actor.name} was given {value!r:.80} of {event}")


ACTORS: dict[str, Callable[[World, Side, Actor], Awaitable[None]]] = {
    "receiver": receive_messages,
    "channel": read_channel,
    "callback": call_back,
    "unsubscriber": unsubscribe,
    "observer": observe,
}
