"""The actors that send: messages in every form, control frames, and callbacks for what has been written."""

from __future__ import annotations

import json
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_pyjo_ws import ConnectionClosed, Opcode, broadcast, broadcast_nowait

from .record import Message
from .world import describe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from random import Random

    from .plan import Actor
    from .record import Side
    from .world import World

ENDS = (ConnectionClosed, trio.ClosedResourceError)
"""What sending raises once the connection has ended."""

LETTERS = "abcdefghij ñé蛇🐍"

WHOLE = (
    *("positional", "positional", "text=", "binary=", "json=", "frame=", "buffer"),
    *("nowait", "nowait", "broadcast", "broadcast_nowait"),
)


class Loud(str):
    """Text that is not what it looks like."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


def compose(world: World, chance: Random, side: Side, form: str, size: int) -> Message:
    """A new message, that has not been sent."""
    number = world.next_number()
    is_json = form == "json=" or _may_not_be_json(world, side, chance)
    repeated = chance.random() < 0.5
    pad = "".join(chance.choices(LETTERS[:1] if repeated else LETTERS, k=chance.randrange(size)))
    text = json.dumps([number, pad], ensure_ascii=chance.random() < 0.5)
    if not is_json:
        text = f"[{number}, not JSON: {pad}"
    is_text = form in ("text=", "json=", "subclass") or (form not in ("binary=", "buffer") and chance.random() < 0.5)
    payload = text if is_text else text.encode()
    return Message(number, payload, form, world.tick(), exact=form != "json=", is_json=is_json)


def _may_not_be_json(world: World, side: Side, chance: Random) -> bool:
    """Whether the next message is JSON. All are if a callback decodes them, for it is not told of what is not."""
    peer = world.peer(side).name
    decoded = any(
        actor.side == peer and actor.kind == "callback" and actor.traits["event"] == "json"
        for actor in world.plan.actors
    )
    return decoded or chance.random() < 0.95


async def send_messages(world: World, side: Side, actor: Actor) -> None:
    """Send messages, one after the other, until all are sent or the connection has ended."""
    chance, traits = world.chance(actor.name), actor.traits
    try:
        for _ in range(traits["count"]):
            await world.sleep(chance.choice((0, 0, 0, 1, traits["slow"])))
            form = chance.choice(WHOLE)
            if chance.random() < traits["pieces"]:
                form = chance.choice(("pieces", "pieces of bytes"))
            elif chance.random() < 0.1:
                form = traits["seldom"] if _is_alone(world, side) else "positional"
            message = compose(world, chance, side, form, world.plan.sizes)
            if not await send(world, side, actor.name, message, chance, traits["cancels"]):
                return
    finally:
        side.senders -= 1


def _is_alone(world: World, side: Side) -> bool:
    """Whether nobody else sends on this side, who could come between frames that are made by hand."""
    return not any(actor.side == side.name and actor.traits.get("replies") for actor in world.plan.actors)


async def send(world: World, side: Side, who: str, message: Message, chance: Random, cancels: float = 0.0) -> bool:
    """Send ``message`` in its form, perhaps cancelled; return whether the connection goes on."""
    side.sent[message.number] = message
    form = message.form
    if form.startswith(("pieces", "fragments")):
        cancels = 0.0  # Half a message cannot be taken back: that is an ending of its own.
    message.called = world.tick()
    try:
        with world.perhaps_cancelled(chance, cancels) as scope:
            taken = await _send(world, side, message, chance)
            message.fate = "sent" if taken else "refused"
        if scope.cancelled_caught:
            message.fate = "unsure"
    except ENDS as exc:
        message.fate = "refused" if "nowait" in form else "unsure"
        world.end(side, who, describe(message), exc, sends=True)
        return False
    except BaseException:
        message.fate = "unsure"
        raise
    finally:
        message.returned = world.tick()
    world.note(who, f"{describe(message)}: {message.fate}")
    return True


async def _send(world: World, side: Side, message: Message, chance: Random) -> bool:
    """Send ``message``; return whether it was taken."""
    ws: Any = side.ws
    form, payload = message.form, message.payload
    options: dict[str, Any] = {}
    if chance.random() < 0.2 and not form.startswith(("broadcast", "frame", "fragments")):
        message.calls = 0
        options["cb"] = _callback(world, message, awaited=chance.random() < 0.3)
    if chance.random() < 0.2 and not form.startswith(("broadcast", "frame", "fragments")):
        options["compress"] = bool(ws.compressed and chance.random() < 0.5)
    name = "text" if message.is_text else "binary"
    if form == "nowait":
        try:
            ws.send_nowait(payload, **options)
        except trio.WouldBlock:
            await world.sleep(1)
            return False
    elif form == "broadcast":
        return await broadcast([ws], payload, slow=chance.choice(("wait", "drop-message"))) == 1
    elif form == "broadcast_nowait":
        return broadcast_nowait([ws], payload) == 1
    elif form == "json=":
        await ws.send(json=message.decoded, **options)
    elif form == "subclass":
        await ws.send(Loud(payload), **options)
    elif form == "buffer":
        await ws.send(chance.choice((bytearray, memoryview))(_bytes(message)), **options)
    elif form in ("frame=", "fragments"):
        await _send_frames(side, message, chance)
    elif form.startswith("pieces"):
        await ws.send(**{name: _pieces(world, message, chance)}, **options)
    elif form == "positional":
        await ws.send(payload, **options)
    else:
        await ws.send(**{name: payload}, **options)
    return True


def _bytes(message: Message) -> bytes:
    return message.payload.encode() if isinstance(message.payload, str) else message.payload


def _callback(world: World, message: Message, awaited: bool) -> Callable[..., object]:
    def called(_: object) -> None:
        assert message.calls is not None
        message.calls += 1
        world.note("drain callback", f"of {message.number}")

    async def called_async(ws: object) -> None:
        await trio.lowlevel.checkpoint()
        called(ws)

    return called_async if awaited else called


async def _send_frames(side: Side, message: Message, chance: Random) -> None:
    """The message as frames that are made by hand. Nobody else sends on this side if there is more than one."""
    payload = _bytes(message)
    opcode = Opcode.TEXT if message.is_text else Opcode.BINARY
    cut = chance.randrange(len(payload)) if message.form == "fragments" else len(payload)
    parts = [payload[:cut], payload[cut:]] if message.form == "fragments" else [payload]
    for index, part in enumerate(parts):
        code = Opcode.CONTINUATION if index else opcode
        await side.ws.send(frame=[index == len(parts) - 1, 0, 0, 0, code, part])


async def _pieces(world: World, message: Message, chance: Random) -> AsyncGenerator[Any]:
    """The message, cut anywhere. A text is cut between its bytes, or between its characters."""
    payload = _bytes(message) if message.form == "pieces of bytes" else message.payload
    count = chance.choice((1, 2, 3, 5))
    cuts = sorted(chance.choices(range(len(payload) + 1), k=count - 1))
    for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True):
        yield payload[start:end]
        await world.sleep(chance.choice((0, 0, 1)))


async def break_message(world: World, side: Side, how: str) -> None:
    """Begin a message in pieces that cannot be completed."""
    chance = world.chance("broken")
    message = compose(world, chance, side, "pieces", world.plan.sizes)
    side.sent[message.number] = message
    message.fate = "refused"
    ws: Any = side.ws
    payload = message.payload
    scope = trio.CancelScope()

    async def pieces() -> AsyncGenerator[Any]:
        if how != "raise first":
            yield payload[:4]
            await world.sleep(1)
        if how != "cancel":
            raise world.crash("the iterable")
        yield payload[4:-1]
        scope.cancel()
        yield payload[-1:]

    name = "text" if message.is_text else "binary"
    try:
        with scope:
            async with aclosing(pieces()) as source:
                await ws.send(**{name: source})
        if scope.cancelled_caught:
            world.closing(side, f"{how} in pieces", 1011)
        else:
            world.wrong("exception", f"a message in pieces, {how}, was sent")
    except ENDS as exc:
        world.end(side, "director", "pieces", exc, sends=True)
    except Exception as exc:
        world.closing(side, f"{how} in pieces", 1011)
        world.failed("director", exc)


async def ping(world: World, side: Side, actor: Actor) -> None:
    """Send pings and wait for their pongs, send pongs, and wait until all is written."""
    chance = world.chance(actor.name)
    for _ in range(actor.traits["count"]):
        await world.sleep(chance.choice((0, 1, 2)))
        what, call = chance.choice(
            (
                ("ping", side.ws.ping),
                ("ping", partial(side.ws.ping, chance.randbytes(chance.randrange(126)))),
                ("pong", partial(side.ws.pong, b"alive")),
                ("drain", side.ws.drain),
            )
        )
        try:
            with world.perhaps_cancelled(chance, 0.3) as scope:
                await call()
            world.note(actor.name, f"{what}{' cancelled' if scope.cancelled_caught else ''}")
            if chance.random() < 0.2:
                side.ws.resume()
        except ENDS as exc:
            world.end(side, actor.name, what, exc, sends=True)
            return
        except ValueError as exc:
            if "waiting" not in str(exc):
                raise
