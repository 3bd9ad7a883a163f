"""From the figures of all rounds to their medians, and to the Markdown that the documentation shows."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from .plan import GROUPS, LIBRARIES, SCENARIOS, Scenario

Results = dict[str, Any]
"""What ``results.json`` holds."""

HEADINGS = {
    "server": "Server: CPU time for a message, sent back",
    "client": "Client: CPU time for a message, sent and received back",
    "broadcast": "Broadcast: CPU time for a delivery",
}


class Summary(NamedTuple):
    median: float
    low: float
    high: float


def summarise(values: list[float]) -> Summary:
    """The median of the rounds, and their lowest and highest."""
    return Summary(statistics.median(values), min(values), max(values))


def summary_of(results: Results, scenario: Scenario, library: str) -> Summary | None:
    """None where there is no figure."""
    values = results["figures"].get(scenario.group, {}).get(scenario.name, {}).get(library)
    return summarise(values) if values else None


def ratio(results: Results, scenario: Scenario, library: str) -> float | None:
    """How many times ours a library's figure is: above 1, ours is ahead."""
    ours, theirs = summary_of(results, scenario, "ours"), summary_of(results, scenario, library)
    return theirs.median / ours.median if ours and theirs and ours.median > 0 else None


def measured(results: Results, group: str) -> tuple[list[Scenario], list[str]]:
    """The scenarios and the libraries of a group that there are figures of."""
    scenarios = [s for s in SCENARIOS if s.group == group and results["figures"].get(group, {}).get(s.name)]
    figures = [results["figures"][group][s.name] for s in scenarios]
    return scenarios, [name for name in GROUPS[group] if any(figure.get(name) for figure in figures)]


def number(value: float) -> str:
    """Three digits, or all before the point."""
    magnitude = abs(value)
    return f"{value:.{0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2}f}"


def markdown(results: Results) -> str:
    """The page of figures; it is included in ``docs/performance.md``."""
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"- Date: {results['date']}",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; server and load on one core",
        f"- {machine['python']}; " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        "- Codec: " + ", ".join(f"{LIBRARIES[name].title}: {codec}" for name, codec in results["codec"].items()),
        f"- Command: `{results['command']}`; rounds: {results['rounds']}, of {results['seconds']:g} s for each figure",
        "",
        "![The medians as bars, on a logarithmic scale](results.svg)",
    ]
    for group, heading in HEADINGS.items():
        scenarios, libraries = measured(results, group)
        if not scenarios:
            continue
        lines += ["", f"## {heading}", "", "Median of the rounds (lowest to highest); less is better.", ""]
        lines += _table(scenarios, libraries, lambda s, name: _figure(summary_of(results, s, name)))
        others = [name for name in libraries if name != "ours"]
        if others and "ours" in libraries:
            lines += ["", "How many times trio_pyjo_ws's that is; above 1, trio_pyjo_ws is ahead.", ""]
            lines += _table(scenarios, others, lambda s, name: _ratio(ratio(results, s, name)))
    if results["missing"]:
        lines += [
            "",
            "Not measured, in one round or in all:",
            "",
            *(f"- {what}: {why}" for what, why in results["missing"].items()),
        ]
    return "\n".join(lines) + "\n"


def _table(scenarios: list[Scenario], libraries: list[str], cell: Any) -> list[str]:
    rows = [["", *(LIBRARIES[name].title for name in libraries)], ["---", *("---:" for _ in libraries)]]
    rows += [[f"{s.title} ({s.unit})", *(cell(s, name) for name in libraries)] for s in scenarios]
    return [f"| {' | '.join(row)} |" for row in rows]


def _figure(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    spread = f" ({number(summary.low)} to {number(summary.high)})" if summary.low < summary.high else ""
    return number(summary.median) + spread


def _ratio(value: float | None) -> str:
    return "-" if value is None else number(value)
