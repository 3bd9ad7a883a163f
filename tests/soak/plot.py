"""The picture: resident memory and connections over time, in the colours of the benchmark's, for light and dark."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

WIDTH, HEIGHT = 760, 440  # pixels
PX = 72 / 96
"""Points of a pixel: what matplotlib measures in, and what a page does."""

# A colour in the light, and the one in the dark that takes its place.
GROUND, TEXT, MUTED, GRID, LINE = "#ffffff", "#1f2328", "#59636e", "#d8dee4", "#0969da"
DARK = {GROUND: "#0d1117", TEXT: "#e6edf3", MUTED: "#9198a1", GRID: "#30363d", LINE: "#4493f8"}
STYLE: dict[Any, Any] = {
    "axes.facecolor": GROUND,
    "axes.grid": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "axes.titlecolor": TEXT,
    "axes.titlelocation": "left",
    "axes.titlesize": 12 * PX,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": GROUND,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["system-ui", "DejaVu Sans", "sans-serif"],
    "font.size": 11 * PX,
    "grid.color": GRID,
    "svg.fonttype": "none",
    "svg.hashsalt": "trio_pyjo_ws",
    "text.color": MUTED,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
}


def svg(results: dict[str, Any]) -> str:
    """The whole picture."""
    seconds, resident, connections = zip(*results["samples"], strict=True)
    panels = {
        "Resident memory, MiB": [size / 2**20 for size in resident],
        "Connections of the servers": connections,
    }
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(WIDTH / 96, HEIGHT / 96))
        rows = canvas.subplots(len(panels), 1, sharex=True)
        for axes, (title, values) in zip(rows, panels.items(), strict=True):
            axes.set_title(title)
            axes.plot(seconds, values, color=LINE, linewidth=1.2 * PX)
            axes.set_ylim(0, None)
            axes.set_xlim(0, max(seconds[-1], 1.0))
            for _, at in results["phases"]:
                axes.axvline(at, color=MUTED, linewidth=PX, linestyle=":")
        for number, (name, at) in enumerate(results["phases"]):
            rows[0].annotate(name, (at, 0), (3, 4 + number % 2 * 11), textcoords="offset points")
        rows[-1].xaxis.set_major_formatter("{x:g} s")
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    dark = "".join(
        f'[style*="{kind}: {light}"] {{ {kind}: {colour} !important }}\n'
        for light, colour in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{\n{dark}}}</style>"
    return file.getvalue().replace("</svg>", f"{style}\n</svg>")
