"""What is measured: scenarios, the libraries that take part, and the choice of ``--only``."""

from __future__ import annotations

from typing import NamedTuple


class Scenario(NamedTuple):
    group: str
    """Whose cost it is: ``"server"``, ``"client"`` or ``"broadcast"``."""
    kind: str
    """``rtt``, ``tls``, ``pipe``, ``conn``, ``idle`` or ``room``."""
    size: int = 0
    """Bytes of a message."""
    amount: int = 1
    """Messages in flight, idle connections, or readers."""

    @property
    def name(self) -> str:
        if self.kind == "conn":
            return "conn"
        if self.kind == "idle":
            return f"idle:{self.amount}"
        return f"{self.kind}:{self.size}" + (f"x{self.amount}" if self.kind in {"pipe", "room"} else "")

    @property
    def title(self) -> str:
        return {
            "rtt": f"{_bytes(self.size)}, one in flight",
            "tls": f"{_bytes(self.size)}, one in flight, TLS",
            "pipe": f"{_bytes(self.size)}, {self.amount} in flight",
            "conn": "open, echo once, close",
            "idle": f"memory of one of {self.amount} idle",
            "room": f"{_bytes(self.size)} to {self.amount} readers",
        }[self.kind]

    @property
    def unit(self) -> str:
        return "KiB" if self.kind == "idle" else "µs"


def _bytes(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB" if size >= 1 << 12 else f"{size} B"


class Library(NamedTuple):
    title: str
    ours: bool = False
    pure: bool = False
    """Without the compiled codec."""


class Job(NamedTuple):
    """What one process of one library does in each round."""

    group: str
    library: str
    scenarios: tuple[Scenario, ...]

    @property
    def title(self) -> str:
        tls = " over TLS" if self.scenarios[0].kind == "tls" else ""
        return f"{self.group}{tls}: {LIBRARIES[self.library].title}"


LIBRARIES = {
    "ours": Library("trio_pyjo_ws", ours=True),
    "ours-pure": Library("trio_pyjo_ws (pure)", ours=True, pure=True),
    "ours-channel": Library("trio_pyjo_ws (channel)", ours=True),
    "picows": Library("picows"),
    "aiohttp": Library("aiohttp"),
    "websockets-asyncio": Library("websockets (asyncio)"),
    "websockets-trio": Library("websockets (trio)"),
    "trio-websocket": Library("trio-websocket"),
}

GROUPS = {
    "server": tuple(LIBRARIES),
    "client": tuple(name for name in LIBRARIES if name != "ours-channel"),
    "broadcast": ("ours", "ours-pure", "websockets-asyncio", "websockets-trio"),
}

_MESSAGES = (
    *(("rtt", size, 1) for size in (32, 256, 8192, 65536, 1 << 20)),
    *(("pipe", size, count) for size, count in ((32, 64), (256, 64), (8192, 16))),
)

SCENARIOS = (
    Scenario("server", "idle", 0, 500),  # first: in a process that has served nothing yet
    *(Scenario("server", *message) for message in _MESSAGES),
    Scenario("server", "conn"),
    Scenario("server", "tls", 256),
    *(Scenario("client", *message) for message in _MESSAGES),
    Scenario("broadcast", "room", 256, 500),
)


def choose(words: list[str]) -> tuple[list[str], list[Scenario]]:
    """The libraries and scenarios that ``words`` name: groups, kinds, names of scenarios, libraries; all for none.

    Words of one sort add up, words of different sorts narrow down: ``server rtt picows`` is what picows' server takes
    for one message in flight, beside ours, which is always among the libraries.
    """
    kinds = {word for scenario in SCENARIOS for word in (scenario.kind, scenario.name)}
    for word in words:
        if word not in {*GROUPS, *kinds, *LIBRARIES}:
            raise ValueError(f"{word!r} is none of {', '.join([*GROUPS, *sorted(kinds), *LIBRARIES])}")
    groups = set(words) & set(GROUPS) or set(GROUPS)
    which = set(words) & kinds or kinds
    libraries = set(words) & set(LIBRARIES)
    return (
        [name for name in LIBRARIES if not libraries or name in libraries or name == "ours"],
        [s for s in SCENARIOS if s.group in groups and which & {s.kind, s.name}],
    )


def jobs(libraries: list[str], scenarios: list[Scenario]) -> list[Job]:
    """The processes of one round, in their order: library by library, so that a slow minute meets all of them."""
    found = []
    for group, members in GROUPS.items():
        for tls in (False, True):
            chosen = tuple(s for s in scenarios if s.group == group and (s.kind == "tls") == tls)
            if chosen:
                found += [Job(group, library, chosen) for library in members if library in libraries]
    return found
