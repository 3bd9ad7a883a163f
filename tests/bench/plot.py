"""The plot of the medians: SVG text, bars on a logarithmic scale, one panel for each scenario.

A factor of ten has the same length in all panels of a group. The picture brings its own background, and its colours
follow the reader's preference for light or dark, which is all that a picture in a page can know.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from .figures import HEADINGS, Results, Summary, measured, number, summary_of
from .plan import LIBRARIES

if TYPE_CHECKING:
    from .plan import Scenario

WIDTH = 760
COLUMNS = 2
MARGIN = 20
LABELS = 150  # the width of the names
VALUES = 52  # the width of a value after its bar
BAR = 16  # the height of a row
HEAD = 40  # of a group
TITLE = 26  # of a panel
AXIS = 34  # below it

STYLE = """
text { font: 11px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
.heading { font-size: 14px; font-weight: 600; }
.title { font-size: 12px; font-weight: 600; }
.ours { font-weight: 600; }
.muted { fill: #59636e; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.ground { fill: #ffffff; }
.grid { stroke: #d8dee4; }
.spread { stroke: #1f2328; stroke-opacity: 0.7; }
.bar { fill: #a8b1bb; }
.bar-ours { fill: #0969da; }
.bar-variant { fill: #80b4ec; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .muted { fill: #9198a1; }
  .ground { fill: #0d1117; }
  .grid { stroke: #30363d; }
  .spread { stroke: #e6edf3; }
  .bar { fill: #656c76; }
  .bar-ours { fill: #4493f8; }
  .bar-variant { fill: #1f4f8f; }
}
""".strip()


def svg(results: Results) -> str:
    """The whole picture."""
    body: list[str] = []
    y = MARGIN
    for group, heading in HEADINGS.items():
        scenarios, libraries = measured(results, group)
        if not scenarios:
            continue
        body.append(_text(MARGIN, y + 14, heading, "heading"))
        y += HEAD
        rows = {s: [(name, summary_of(results, s, name)) for name in libraries] for s in scenarios}
        axes = {s: axis([summary for _, summary in row if summary]) for s, row in rows.items()}
        decades = max(last - first for first, last in axes.values())
        height = TITLE + BAR * len(libraries) + AXIS
        for index, scenario in enumerate(scenarios):
            left = MARGIN + index % COLUMNS * ((WIDTH - MARGIN) // COLUMNS)
            top = y + index // COLUMNS * height
            body += _panel(left, top, scenario, rows[scenario], axes[scenario][0], decades)
        y += math.ceil(len(scenarios) / COLUMNS) * height + MARGIN
    label = "CPU time and memory of WebSocket libraries, bars on a logarithmic scale"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">',
        f"<title>{label}</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="ground" width="{WIDTH}" height="{y}" rx="6"/>',
    ]
    return "\n".join([*head, *body, "</svg>\n"])


def axis(summaries: list[Summary]) -> tuple[int, float]:
    """The logarithms between which all medians and spreads lie.

    The first is that of a power of ten, so low that each bar has a length; the last is past the next one.
    """
    values = [value for summary in summaries for value in summary if value > 0] or [1.0]
    first = math.floor(math.log10(min(values) / 1.3))
    return first, max(math.log10(max(values)), first + 1)


def _panel(
    left: int, top: int, scenario: Scenario, row: list[tuple[str, Summary | None]], first: int, decades: float
) -> list[str]:
    start = left + LABELS
    width = (WIDTH - MARGIN) // COLUMNS - MARGIN - LABELS - VALUES
    bottom = top + TITLE + BAR * len(row)

    def x(value: float) -> float:
        return start + width * max(0.0, math.log10(value) - first) / decades if value > 0 else start

    out = [
        _text(left, top + 14, scenario.title, "title"),
        _text(start + width + VALUES, top + 14, f"{scenario.unit}, log scale", "muted end"),
    ]
    for decade in range(first, first + math.floor(decades) + 1):
        at = x(10.0**decade)
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top + TITLE - 4}" y2="{bottom + 4}"/>')
        out.append(_text(at, bottom + 16, f"{10.0**decade:g}", "muted middle"))
    for index, (name, summary) in enumerate(row):
        library = LIBRARIES[name]
        y = top + TITLE + BAR * index
        out.append(_text(start - 6, y + 12, library.title, "ours end" if name == "ours" else "end"))
        if summary is None:
            out.append(_text(start + 4, y + 12, "no figure", "muted"))
            continue
        low, median, high = x(summary.low), x(summary.median), x(summary.high)
        kind = "bar-ours" if name == "ours" else "bar-variant" if library.ours else "bar"
        out += [
            f'<rect class="{kind}" x="{start}" y="{y + 2}" width="{median - start:.1f}" height="{BAR - 4}"/>',
            f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{y + BAR // 2}" y2="{y + BAR // 2}"/>',
            _text(max(high, median) + 5, y + 12, number(summary.median), "ours" if name == "ours" else ""),
        ]
    return out


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"' + (f' class="{kind}"' if kind else "") + f">{escape(text)}</text>"
