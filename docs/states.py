"""Draws the states of a connection and what moves it, from the table in trio_pyjo_ws/wire/states.py, as states.svg.

    python docs/states.py

Where the boxes and arrows go is said here by hand; which there are, and their names, the table says. A transition that
has no place here, and a place that has no transition, end the program; tests/test_project.py compares the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from trio_pyjo_ws.wire.states import TRANSITIONS, Signal, State

PICTURE = Path(__file__).with_name("states.svg")
WIDTH, HEIGHT = 840, 380
BOX = (110, 36)

CENTRES = {
    State.CONNECTING: (70, 190),
    State.OPEN: (300, 190),
    State.CLOSING: (530, 95),
    State.CLOSED: (530, 190),
    State.FAILED: (530, 300),
    State.ENDED: (760, 190),
}


class Arrow(NamedTuple):
    """How it runs, and where its name stands: the middle of each line."""

    path: str
    lines: tuple[tuple[int, int, str], ...] = ()


# The end of the stream, from any state, is a grey arrow without a name.
ARROWS = {
    (State.CONNECTING, Signal.ESTABLISHED): Arrow(
        "M125 190 H245", ((185, 152, "the opening"), (185, 167, "handshake"), (185, 182, "succeeded"))
    ),
    (State.CONNECTING, Signal.REFUSED): Arrow(
        "M80 208 C80 270 200 300 475 300", ((270, 266, "the opening handshake failed"),)
    ),
    (State.CONNECTING, Signal.END): Arrow("M55 208 C55 410 775 410 775 208"),
    (State.OPEN, Signal.CLOSE_SENT): Arrow("M320 172 C340 120 390 95 475 95", ((400, 90, "Close sent"),)),
    (State.OPEN, Signal.CLOSE_RECEIVED): Arrow("M355 190 H475", ((415, 182, "Close received"),)),
    (State.OPEN, Signal.BREACH): Arrow("M340 208 C370 250 410 280 475 292", ((452, 252, "the peer broke a rule"),)),
    (State.OPEN, Signal.END): Arrow("M300 172 C300 -20 775 -20 775 172"),
    (State.CLOSING, Signal.CLOSE_RECEIVED): Arrow("M530 113 V172", ((481, 146, "Close received"),)),
    (State.CLOSING, Signal.BREACH): Arrow(
        "M585 105 C625 150 625 250 585 290", ((655, 232, "the peer"), (655, 247, "broke a rule"))
    ),
    (State.CLOSING, Signal.END): Arrow("M585 90 C700 90 755 100 755 172"),
    (State.CLOSED, Signal.END): Arrow("M585 190 H705"),
    (State.FAILED, Signal.END): Arrow("M585 305 C700 305 755 290 755 208"),
    (State.ENDED, Signal.END): Arrow("M800 172 C810 130 830 150 812 172"),
}

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; text-anchor: middle; }
.state { font-weight: 600; }
.ground { fill: #ffffff; }
.box { fill: #ddf4ff; stroke: #0969da; }
.arrow { fill: none; stroke: #1f2328; marker-end: url(#head); }
.end { fill: none; stroke: #8c959f; marker-end: url(#grey); }
.head { fill: #1f2328; }
.grey { fill: #8c959f; }
.muted { fill: #59636e; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .ground { fill: #0d1117; }
  .box { fill: #121d2f; stroke: #4493f8; }
  .arrow { stroke: #e6edf3; }
  .end { stroke: #656c76; }
  .head { fill: #e6edf3; }
  .grey { fill: #656c76; }
  .muted { fill: #9198a1; }
}
""".strip()


def check() -> None:
    """See that all of the table is drawn, and nothing else, under the names that it has there."""
    table = {(state, signal) for state, moves in TRANSITIONS.items() for signal in moves}
    if table != set(ARROWS) or set(CENTRES) != set(State):
        raise ValueError(f"not drawn as the table is: {table ^ set(ARROWS)}")
    for (state, signal), arrow in ARROWS.items():
        name = " ".join(text for _, _, text in arrow.lines)
        if name != ("" if signal is Signal.END else signal.value):
            raise ValueError(f"{state.value}: {name!r} is called {signal.value!r} in the table")


def marker(name: str) -> str:
    shape = f'<path class="{name}" d="M0 0 L8 4 L0 8 z"/>'
    return f'<marker id="{name}" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">{shape}</marker>'


def draw() -> str:
    """The picture."""
    check()
    parts = [f"<defs>{marker('head')}{marker('grey')}</defs>", '<rect class="ground" width="100%" height="100%"/>']
    for (_, signal), arrow in ARROWS.items():
        parts.append(f'<path class="{"end" if signal is Signal.END else "arrow"}" d="{arrow.path}"/>')
        parts += [f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in arrow.lines]
    width, height = BOX
    for state, (x, y) in CENTRES.items():
        place = f'x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="8"'
        parts += [f'<rect class="box" {place}/>', f'<text class="state" x="{x}" y="{y + 4}">{state.value}</text>']
    parts.append(f'<text class="muted" x="{WIDTH // 2}" y="{HEIGHT - 6}">grey: {Signal.END.value}</text>')
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>The states of a connection</title>'
    return "\n".join([head, f"<style>\n{STYLE}\n</style>", *parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
