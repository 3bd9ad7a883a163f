"""What is measured: groups of scenarios, the libraries that take part, and the choice of ``--only``."""

from __future__ import annotations

from typing import NamedTuple


class Scenario(NamedTuple):
    group: str
    kind: str
    size: int = 0
    """Bytes of a message."""
    amount: int = 1
    """Messages in flight, connections, fragments, readers, or members."""

    @property
    def name(self) -> str:
        size = f":{self.size}" if self.size else ""
        amount = f"{'x' if size else ':'}{self.amount}" if self.amount > 1 else ""
        return f"{self.kind}{size}{amount}"

    @property
    def title(self) -> str:
        size = _bytes(self.size)
        return {
            "rtt": f"{size}, one in flight",
            "text": f"{size} of text, one in flight",
            "json": f"{size} of JSON, one in flight",
            "cut": f"{size} in {self.amount} fragments, one in flight",
            "pipe": f"{size}, {self.amount} in flight",
            "talk": f"{size}, {self.amount:,} connections talking",
            "conn": "open, echo once, close",
            "idle": f"one of {self.amount} idle connections",
            "room": f"{size} to {self.amount:,} readers",
            "members": f"{size} to {self.amount:,} members of a room",
            "turn": f"turn, sending to {self.amount:,} by send_nowait()",
            "crowd": f"echo, while {self.amount:,} others connect",
        }[self.kind]


def _bytes(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB" if size >= 1 << 10 else f"{size} B"


class Library(NamedTuple):
    title: str
    ours: bool = False
    pure: bool = False
    """Without the compiled codec."""
    before: bool = False
    """The version of the package that ``--against`` names."""
    redis: bool = False
    """With a redis-server beside it."""


LIBRARIES = {
    "ours": Library("trio_pyjo_ws", ours=True),
    "ours-callback": Library("trio_pyjo_ws (callback)", ours=True),
    "ours-channel": Library("trio_pyjo_ws (channel)", ours=True),
    "ours-pure": Library("trio_pyjo_ws (pure)", ours=True, pure=True),
    "ours-redis": Library("trio_pyjo_ws (Redis)", ours=True, redis=True),
    "before": Library("trio_pyjo_ws (before)", ours=True, before=True),
    "before-callback": Library("trio_pyjo_ws (callback, before)", ours=True, before=True),
    "picows": Library("picows"),
    "picows-uvloop": Library("picows (uvloop)"),
    "aiohttp": Library("aiohttp"),
    "websockets-asyncio": Library("websockets (asyncio)"),
    "websockets-trio": Library("websockets (trio)"),
    "trio-websocket": Library("trio-websocket"),
}
BASES = ("ours", "ours-callback", "ours-channel")
"""Those of ours that the other libraries are compared with."""


class Group(NamedTuple):
    """What is measured together: the processes of its libraries run all at once, and take turns."""

    heading: str
    unit: str
    libraries: tuple[str, ...]
    server: str | None
    """What ``servers.py`` runs; None where a client is measured."""
    quantile: float = 0.2
    """Which of the rounds is the figure: of CPU time a low one, which the machine has disturbed least."""
    most_rounds: int = 1000
    fresh: bool = False
    """Whether each round needs new processes, one after the other."""


_ECHO = tuple(name for name, library in LIBRARIES.items() if not library.redis)
_PLAIN = tuple(name for name in _ECHO if not name.endswith(("-callback", "-channel", "-uvloop")))
_DEFLATE = ("ours", "before", "aiohttp", "websockets-asyncio", "websockets-trio")

GROUPS = {
    "memory": Group("Memory of an idle connection", "KiB", _ECHO, "echo", most_rounds=3, fresh=True),
    "server": Group("Server: CPU time for a message, sent back", "µs", _ECHO, "echo"),
    "tls": Group("Server over TLS: CPU time for a message, sent back", "µs", _PLAIN, "tls"),
    "deflate": Group(
        "Server with permessage-deflate as each library has it: CPU time for a message, sent back",
        "µs",
        _DEFLATE,
        "deflate",
    ),
    "level": Group(
        "Server with permessage-deflate at level 1: CPU time for a message, sent back", "µs", _DEFLATE, "level"
    ),
    "client": Group("Client: CPU time for a message, sent and received back", "µs", _PLAIN, None),
    "broadcast": Group(
        "Broadcast: CPU time for a delivery",
        "µs",
        ("ours", "ours-pure", "before", "websockets-asyncio", "websockets-trio"),
        "broadcast",
    ),
    "rooms": Group("Rooms: CPU time for a delivery", "µs", ("ours", "ours-redis", "before"), "rooms"),
    "delay": Group(
        "Server: the longest delay, in its CPU time",
        "ms",
        ("ours", "before", "websockets-trio", "trio-websocket"),
        "echo",
        quantile=0.5,
        most_rounds=5,
    ),
    "fairness": Group(
        "Server: the longest turn, in CPU time", "ms", ("ours", "before"), "turn", quantile=0.5, most_rounds=5
    ),
}

_MESSAGES = (
    *(("rtt", size, 1) for size in (32, 256, 8192, 65536, 1 << 20)),
    *(("pipe", size, count) for size, count in ((32, 64), (256, 64), (8192, 16))),
)

SCENARIOS = (
    Scenario("memory", "idle", 0, 500),
    *(Scenario("server", *message) for message in _MESSAGES),
    Scenario("server", "text", 256),
    Scenario("server", "cut", 1024, 16),
    *(Scenario("server", "talk", 256, count) for count in (20, 200, 1000)),
    Scenario("server", "conn"),
    Scenario("tls", "rtt", 256),
    Scenario("tls", "talk", 256, 200),
    Scenario("deflate", "json", 1024),
    Scenario("level", "json", 1024),
    *(Scenario("client", *message) for message in _MESSAGES),
    Scenario("broadcast", "room", 256, 500),
    *(Scenario("rooms", "members", 256, count) for count in (20, 500)),
    Scenario("delay", "crowd", 0, 2000),
    Scenario("fairness", "turn", 256, 4000),
)

CANNOT = {"cut": {"picows", "picows-uvloop"}}
"""By the kind of a scenario, the libraries whose server cannot: these do not put fragments together."""


def choose(words: list[str], against: bool = False) -> tuple[list[str], list[Scenario]]:
    """The libraries and scenarios that ``words`` name: groups, kinds, names of scenarios, libraries; all for none.

    Words of one sort add up, words of different sorts narrow down: ``server rtt picows`` is what picows' server takes
    for one message in flight, beside ours, which is always among the libraries. So is, with ``against``, the version
    before.
    """
    kinds = {word for scenario in SCENARIOS for word in (scenario.kind, scenario.name)}
    for word in words:
        if word not in {*GROUPS, *kinds, *LIBRARIES}:
            expected = ", ".join([*GROUPS, *sorted(kinds), *LIBRARIES])
            raise ValueError(f"expected some of {expected}, not {word!r}")
    groups = set(words) & set(GROUPS) or set(GROUPS)
    which = set(words) & kinds or kinds
    libraries = set(words) & set(LIBRARIES)
    always = {"ours", *(["before"] if against else [])}
    return (
        [
            name
            for name, library in LIBRARIES.items()
            if (against or not library.before) and (not libraries or name in libraries | always)
        ],
        [s for s in SCENARIOS if s.group in groups and which & {s.kind, s.name}],
    )


def takes_part(library: str, scenario: Scenario) -> bool:
    return library in GROUPS[scenario.group].libraries and library not in CANNOT.get(scenario.kind, ())
