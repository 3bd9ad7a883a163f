"""The plot: resident memory and connections over time, SVG text in the colours of the benchmark's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 760
PANEL = 150  # the height of a panel
LEFT = 60
RIGHT = 20
TOP = 40
GAP = 50  # between panels, for the axis and the title

STYLE = """
text { font: 11px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-size: 12px; font-weight: 600; }
.muted { fill: #59636e; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.ground { fill: #ffffff; }
.grid { stroke: #d8dee4; }
.phase { stroke: #59636e; stroke-dasharray: 3 3; }
.line { fill: none; stroke: #0969da; stroke-width: 1.2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .muted { fill: #9198a1; }
  .ground { fill: #0d1117; }
  .grid { stroke: #30363d; }
  .phase { stroke: #9198a1; }
  .line { stroke: #4493f8; }
}
""".strip()


def svg(results: dict[str, Any]) -> str:
    """The whole picture."""
    samples = results["samples"]
    seconds = [sample[0] for sample in samples]
    end = max(seconds[-1], 1.0)
    panels = [
        ("Resident memory, MiB", [sample[1] / 2**20 for sample in samples]),
        ("Connections of the servers", [float(sample[2]) for sample in samples]),
    ]
    height = TOP + len(panels) * (PANEL + GAP)
    body: list[str] = []
    for index, (title, values) in enumerate(panels):
        top = TOP + index * (PANEL + GAP)
        body += _panel(top, title, seconds, values, end)
        for number, (name, at) in enumerate(results["phases"]):
            x = _x(at, end)
            body.append(f'<line class="phase" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + PANEL}"/>')
            if not index:
                body.append(_text(x + 3, top + PANEL - 5 - number % 2 * 14, name, "muted"))
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        "<title>Memory and connections over the time of a soak</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
    ]
    return "\n".join([*head, *body, "</svg>\n"])


def step(largest: float, count: int = 5) -> float:
    """A round distance of so few lines of a grid, or fewer, that they reach ``largest``."""
    rough = max(largest, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _panel(top: int, title: str, seconds: Sequence[float], values: Sequence[float], end: float) -> list[str]:
    bottom = top + PANEL
    apart = step(max(values))
    lines = math.ceil(max(values) / apart) or 1

    def y(value: float) -> float:
        return bottom - PANEL * value / (lines * apart)

    out = [_text(LEFT, top - 10, title, "title")]
    for line in range(lines + 1):
        at = y(line * apart)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(_text(LEFT - 6, at + 4, f"{line * apart:g}", "muted end"))
    tick = step(end, 8)
    out += [
        _text(_x(index * tick, end), bottom + 16, f"{index * tick:g} s", "muted middle")
        for index in range(math.floor(end / tick) + 1)
    ]
    points = " ".join(f"{_x(at, end):.1f},{y(value):.1f}" for at, value in zip(seconds, values, strict=True))
    out.append(f'<polyline class="line" points="{points}"/>')
    return out


def _x(seconds: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
