"""What happens in one seed: over which transport, with which options, which actors take part, and how it ends.

A plan is drawn from the seed alone. Each actor draws what it does from a generator of its own, named after it, so that
leaving one actor out changes nothing about the others: that is how a failing seed is made smaller.

Times are in units: seconds of the mock clock, or milliseconds if there is a real socket. They are small whole numbers,
so that many things happen in the same turn of the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from trio_pyjo_ws import Deflate

TRANSPORTS = ("memory", "served", "tls", "sockets", "served-sockets", "tls-sockets", "tcp", "wss")
"""Memory streams without a server and with one, TLS over memory; socket pairs without a server, with one, and with TLS;
TCP without TLS and with it. A server with neighbours reads from several sockets together."""

REAL = frozenset({"tcp", "wss"})
"""The transports on the real clock."""

SERVED = frozenset({"served", "tls", "served-sockets", "tls-sockets", "tcp", "wss"})
"""The transports with a server, its handler, and an opening handshake."""

IN_MEMORY = frozenset({"memory", "served", "tls"})
"""The transports whose streams fault on purpose."""

RECORDED = frozenset({"memory", "served"})
"""The transports of which every byte is known."""

SIDES = ("client", "server")
MESSAGE_EVENTS = ("message", "text", "binary", "json")

COMPRESSIONS: tuple[Any, ...] = (
    False,
    False,
    True,
    Deflate(threshold=0),
    Deflate(threshold=0, server_no_context_takeover=True, client_no_context_takeover=True),
    Deflate(threshold=0, client_no_context_takeover=True, server_max_window_bits=9, memory_level=1),
)


@dataclass(frozen=True)
class Actor:
    """One task. ``start``: after how many units it begins; ``traits``: what is peculiar to its kind."""

    name: str
    side: str
    kind: str
    start: int
    traits: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        traits = " ".join(f"{name}={value!r}" for name, value in self.traits.items())
        return f"{self.name}: at {self.start} {traits}".rstrip()


@dataclass(frozen=True)
class Ending:
    """How the connection ends.

    ``kind``: ``settled`` (everything was received before), ``now`` (as soon as the closing side has sent all it has to
    send), ``early`` (in the middle), ``both`` (both sides at once), ``kill`` (without a closing handshake), ``big`` (by
    a message over the limit), ``broken`` (by a message in pieces that cannot be completed), ``crash`` (by a callback).
    ``how``: the call. ``side``: whose.
    """

    kind: str
    how: str
    side: str
    code: int | None = None
    reason: str | None = None
    after: int = 0

    def __str__(self) -> str:
        close = "" if self.code is None else f" {self.code} {self.reason or ''}".rstrip()
        return f"{self.kind}: {self.side} {self.how}{close} after {self.after}"


@dataclass(frozen=True)
class Plan:
    seed: int
    transport: str
    options: dict[str, dict[str, Any]]
    faults: dict[str, dict[str, Any]]
    """Of the streams in memory, by side: what :class:`trio_pyjo_ws.testing.Faults` takes, for both directions."""
    sizes: int
    """Characters of the longest messages."""
    turns: str
    """Whether turns of the scheduler are ``short``, ``long`` or ``random``, as the library measures them."""
    neighbours: int
    """Other connections to the same server, that come and go."""
    actors: tuple[Actor, ...]
    ending: Ending

    def __str__(self) -> str:
        about = f"sizes {self.sizes}, turns {self.turns}, {self.neighbours} neighbours"
        lines = [f"seed {self.seed} over {self.transport}: {about}"]
        lines += [f"  {side}: {self.options[side]} {self.faults[side] or ''}".rstrip() for side in SIDES]
        lines += [f"  {actor}" for actor in self.actors]
        return "\n".join([*lines, f"  ends {self.ending}"])

    def without(self, names: set[str]) -> Plan:
        """The plan without some of its actors."""
        return replace(self, actors=tuple(actor for actor in self.actors if actor.name not in names))

    @property
    def is_impatient(self) -> bool:
        """Whether a side waits for less time for the end of a close than a reader may take."""
        return any("close_timeout" in self.options[side] for side in SIDES)

    @property
    def limit(self) -> int:
        """Bytes of the largest message that both sides accept."""
        return min(int(self.options[side].get("max_websocket_size", 262_144)) for side in SIDES)


def draw(seed: int, transport: str | None = None) -> Plan:
    """The plan of a seed. Raises ValueError for an unknown transport."""
    if transport is None:
        transport = TRANSPORTS[seed % len(TRANSPORTS)]
    if transport not in TRANSPORTS:
        raise ValueError(f"unknown transport {transport!r} (expected one of {', '.join(TRANSPORTS)})")
    random = Random(f"{seed} {transport}")
    ending = _ending(random, transport)
    sizes = random.choice((10, 10, 40, 40, 400))
    if transport not in IN_MEMORY and random.random() < 0.3:
        sizes = 20_000  # more than the buffer of a socket holds
    options = _options(random, transport, small=ending.kind == "big", sizes=sizes)
    actors = [actor for side in SIDES for actor in _actors(random, side, ending)]
    if transport in IN_MEMORY:
        is_impatient = any("close_timeout" in one for one in options.values())
        faults = {side: _faults(random, sizes, stalls=not is_impatient) for side in SIDES}
        if ending.how in ("reset", "eof"):
            faults[ending.side][f"{ending.how}_at"] = random.randrange(20, 1500)
    else:
        faults = {side: {} for side in SIDES}
    turns = random.choice(("short", "long", "random", "random"))
    neighbours = random.choice((0, 0, 1, 3)) if transport in SERVED else 0
    return Plan(seed, transport, options, faults, sizes, turns, neighbours, tuple(actors), ending)


def _ending(random: Random, transport: str) -> Ending:
    kinds = {"settled": 30, "now": 26, "early": 9, "both": 9, "kill": 10, "big": 5, "broken": 6, "crash": 5}
    kind = random.choices(list(kinds), list(kinds.values()))[0]
    side = random.choice(SIDES)
    code: int | None = None
    reason: str | None = None
    if kind == "kill":
        hows = ["nursery", "aclose cancelled"] + (["reset", "eof"] * 2 if transport in IN_MEMORY else [])
    elif kind == "big":
        hows = ["send"]
    elif kind == "broken":
        hows = ["raise", "raise first", "cancel"]
    elif kind == "crash":
        hows = ["callback", "async callback"]
    else:
        hows = ["finish", "finish", "aclose", "leave", "finish cancelled", "frame"]
        if transport in SERVED and side == "server" and kind != "both":
            hows += ["handler returns", "handler raises", "server closes"]
    how = random.choice(hows)
    if how in ("finish", "finish cancelled", "frame"):
        code = random.choice((None, 1000, 1001, 1011, 3000, 4999))
        if code is not None and random.random() < 0.5:
            reason = random.choice(("enough", "genug für heute"))
    return Ending(kind, how, side, code, reason, random.randrange(12))


def _options(random: Random, transport: str, small: bool, sizes: int) -> dict[str, dict[str, Any]]:
    compression = random.choice(COMPRESSIONS)

    def one() -> dict[str, Any]:
        options: dict[str, Any] = {
            "compression": compression,
            "write_limit": random.choice((1, 1, 30, 65_536)),
            "max_queue": random.choice((1, 1, 2, 5, 1024)),
            "max_queue_bytes": random.choice((1, 100, 1000, 1_048_576)),
            "ping_interval": random.choice((None, None, 7)),
            "ping_timeout": None,
        }
        if small or random.random() < 0.2:
            options["max_websocket_size"] = max(300, sizes * 8)
        if transport in RECORDED and random.random() < 0.3:
            options["close_timeout"] = 3
        return options

    options = {"client": one(), "server": one()}
    if transport not in SERVED:  # open_memory_pair() has the same for both
        options["server"] = options["client"]
    return options


def _faults(random: Random, sizes: int, stalls: bool) -> dict[str, Any]:
    chunks = (None, None, 1, 2, 7, 20) if sizes <= 40 else (None, 20, 100)
    faults: dict[str, Any] = {}
    chunk = random.choice(chunks)
    if chunk is not None:
        faults["chunk_size"] = chunk
    if stalls and random.random() < 0.2:
        faults["stall_at"] = random.randrange(600)
    return faults


def _actors(random: Random, side: str, ending: Ending) -> list[Actor]:
    kinds: list[tuple[str, dict[str, Any]]] = [("receiver", {"slow": random.choice((0, 0, 1, 4))})]
    if random.random() < 0.2:
        kinds.append(("receiver", {"slow": random.choice((0, 1)), "count": random.randrange(1, 6)}))
    kinds += _senders(random)
    kinds += [_subscriber(random) for _ in range(random.choice((0, 0, 1, 1, 2, 3)))]
    if random.random() < 0.35:
        kinds.append(("unsubscriber", {"event": random.choice((*MESSAGE_EVENTS, "frame", "drain"))}))
    if random.random() < 0.35:
        event = random.choice(("drain", "finish", "finish", "resume", "connection"))
        kinds.append(("observer", {"event": event, "channel": random.random() < 0.5}))
    if random.random() < 0.3:
        kinds.append(("pinger", {"count": random.randrange(1, 6)}))
    if ending.kind == "crash" and side == ending.side:
        traits = {"event": "message", "awaited": ending.how == "async callback", "crashes": random.randrange(3)}
        kinds.append(("callback", traits))
    counts: dict[str, int] = {}
    actors = []
    for kind, traits in kinds:
        counts[kind] = counts.get(kind, 0) + 1
        start = 0 if kind == "receiver" and "count" not in traits else random.choice((0, 0, 1, 2, 3, 5, 8))
        actors.append(Actor(f"{side}.{kind}{counts[kind]}", side, kind, start, traits))
    return actors


def _senders(random: Random) -> list[tuple[str, dict[str, Any]]]:
    number = random.choice((0, 1, 1, 2, 3, 3))
    loud = random.random() < 0.06
    senders = []
    for _ in range(number):
        traits: dict[str, Any] = {
            "count": random.choice((1, 3, 6, 10, 20, 30)) // max(1, number) + 1,
            "pieces": random.choice((0.0, 0.2, 0.4)),
            "cancels": random.choice((0.0, 0.0, 0.3)),
            "slow": random.choice((0, 0, 1)),
            "seldom": "subclass" if loud else "fragments" if number == 1 else "positional",
        }
        senders.append(("sender", traits))
    return senders


def _subscriber(random: Random) -> tuple[str, dict[str, Any]]:
    traits: dict[str, Any] = {"event": random.choice((*MESSAGE_EVENTS, "message", "frame"))}
    slow, leaves = random.choice((0, 0, 1, 3)), random.choice((None, None, 1, 2, 5))
    if random.random() < 0.6:
        traits |= {"size": random.choice((1, 1, 2, 16)), "clones": random.choice((0, 0, 0, 1, 2))}
        return "channel", traits | {"slow": slow, "leaves": leaves}
    traits |= {"awaited": random.random() < 0.5, "once": random.random() < 0.3}
    return "callback", traits | {"slow": slow, "leaves": leaves, "replies": random.choice((0, 0, 0, 0, 3))}
