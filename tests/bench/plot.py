"""The pictures: bars of all figures on a logarithmic scale for the page, and one panel for the README.

Each brings its own background, and its colours follow the reader's preference for light or dark, which is all that a
picture in a page can know.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .figures import Results, figure, measured, number
from .plan import GROUPS, LIBRARIES, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

WIDTH, COLUMNS, MARGIN = 760, 2, 10
LABELS = 155  # the width of the names
BAR = 17  # the height of a row
HEADING, TITLE, AXIS = 40, 26, 30  # the heights of the head of a group, and of what is above and below a panel's bars

SUMMARY = Scenario("server", "talk", 256, 200)
SUMMARY_SIZE = 720, 420
SUMMARY_LIBRARIES = (
    *("ours-callback", "ours", "picows", "aiohttp"),
    *("websockets-asyncio", "websockets-trio", "trio-websocket"),
)

# A colour in the light, and the one in the dark that takes its place.
GROUND, TEXT, MUTED, GRID = "#ffffff", "#1f2328", "#59636e", "#d8dee4"
OURS, VARIANT, OTHER = "#0969da", "#80b4ec", "#a8b1bb"
DARK = {
    GROUND: "#0d1117",
    TEXT: "#e6edf3",
    MUTED: "#9198a1",
    GRID: "#30363d",
    OURS: "#4493f8",
    VARIANT: "#2a66b8",
    OTHER: "#656c76",
}
STYLE: dict[Any, Any] = {
    "axes.facecolor": GROUND,
    "axes.edgecolor": GRID,
    "axes.titlecolor": TEXT,
    "figure.facecolor": GROUND,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["system-ui", "DejaVu Sans", "sans-serif"],
    "grid.color": GRID,
    "svg.fonttype": "none",
    "svg.hashsalt": "trio_pyjo_ws",
    "text.color": TEXT,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GROUND,
    "ytick.labelcolor": TEXT,
}


PX = 72 / 96
"""Points of a pixel: what matplotlib measures in, and what a page does."""


def svg(results: Results) -> str:
    """All panels, group by group, one for each scenario; a factor of ten has one length in a group."""
    groups = [(GROUPS[name].heading, *measured(results, name)) for name in GROUPS]
    rows = [(math.ceil(len(scenarios) / COLUMNS), TITLE + BAR * len(names) + AXIS) for _, scenarios, names in groups]
    height = sum(HEADING + count * each for count, each in rows if count) + AXIS
    with mpl.rc_context(STYLE):
        canvas = _canvas(WIDTH, height)
        top = AXIS / 2
        for (heading, scenarios, names), (count, each) in zip(groups, rows, strict=True):
            if not scenarios:
                continue
            canvas.text(MARGIN / WIDTH, 1 - (top + 16) / height, heading, size=14 * PX, weight="bold")
            top += HEADING
            bars = [[(name, figure(results, scenario, name)) for name in names] for scenario in scenarios]
            ends = [axis([value for _, value in row if value]) for row in bars]
            decades = max(last - first for first, last in ends)
            for index, (scenario, row, (first, _)) in enumerate(zip(scenarios, bars, ends, strict=True)):
                left, above = MARGIN + index % COLUMNS * WIDTH / COLUMNS, top + index // COLUMNS * each
                title = f"{scenario.title} ({GROUPS[scenario.group].unit})"
                canvas.text(left / WIDTH, 1 - (above + 16) / height, title, size=12 * PX, weight="bold")
                size = (WIDTH / COLUMNS - LABELS - 60) / WIDTH, BAR * len(names) / height
                axes = canvas.add_axes(((left + LABELS) / WIDTH, 1 - (above + each - AXIS) / height, *size))
                axes.set(xscale="log", xlim=(10**first, 10 ** (first + decades)))
                _bars(axes, row, 11 * PX, number)
            top += count * each
        return _picture(canvas)


def summary(results: Results) -> str:
    """One panel: CPU time of a message for a server that many connections talk with."""
    width, height = SUMMARY_SIZE
    row = [(name, figure(results, SUMMARY, name)) for name in SUMMARY_LIBRARIES]
    with mpl.rc_context(STYLE):
        canvas = _canvas(width, height)
        canvas.text(0.03, 0.92, "A server that 200 clients talk with", size=24 * PX, weight="bold")
        canvas.text(
            0.03, 0.84, "CPU time for a message of 256 bytes, sent back: less is better", size=18 * PX, color=MUTED
        )
        axes = canvas.add_axes((0.36, 0.03, 0.5, 0.77))
        axes.set(xlim=(0, max(value or 0 for _, value in row) or 1), xticks=[])
        _bars(axes, row, 20 * PX, lambda value: f"{number(value)} µs")
        return _picture(canvas)


def axis(values: list[float]) -> tuple[int, float]:
    """The logarithms between which all values lie.

    The first is that of a power of ten, so low that each bar has a length; the last is past the next one.
    """
    first = math.floor(math.log10(min(values, default=1.0) / 1.3))
    return first, max(math.log10(max(values, default=1.0)), first + 1)


def _bars(axes: Axes, row: list[tuple[str, float | None]], size: float, show: Callable[[float], str]) -> None:
    start = axes.get_xlim()[0]
    for index, (name, value) in enumerate(row):
        if value:
            colour = OURS if name == "ours" else VARIANT if LIBRARIES[name].ours else OTHER
            axes.barh(index, value - start, 0.75, left=start, color=colour, zorder=2)
        text = show(value) if value else "no figure"
        axes.annotate(text, (value or start, index), (size / 2, 0), textcoords="offset points", va="center", size=size)
    axes.set_yticks(range(len(row)), [LIBRARIES[name].title for name, _ in row], size=size)
    axes.set_ylim(len(row) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(length=0, labelsize=size)
    axes.minorticks_off()
    axes.spines[:].set_visible(False)


def _canvas(width: float, height: float) -> Figure:
    return Figure(figsize=(width / 96, height / 96))


def _picture(canvas: Figure) -> str:
    """The SVG, with the colours of the dark beside those that matplotlib has written."""
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    dark = "".join(
        f'[style*="{kind}: {light}"] {{ {kind}: {colour} !important }}\n'
        for light, colour in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{\n{dark}}}</style>"
    return file.getvalue().replace("</svg>", f"{style}\n</svg>")
