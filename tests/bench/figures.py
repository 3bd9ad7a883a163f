"""From the figures of all rounds to one of each, to ratios, and to the Markdown that the documentation shows."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .plan import BASES, GROUPS, LIBRARIES, SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

Results = dict[str, Any]
"""What ``results.json`` holds."""


class Ratio(NamedTuple):
    """How many times another library's figure a library's is, round by round."""

    median: float
    low: float
    high: float
    """The bounds of the middle half of the rounds."""


def values(results: Results, scenario: Scenario, library: str) -> list[float | None]:
    """One for each round, None where it has failed; empty if the library has not taken part."""
    found: list[float | None] = results["figures"].get(scenario.group, {}).get(scenario.name, {}).get(library, [])
    return found


def figure(results: Results, scenario: Scenario, library: str) -> float | None:
    """The quantile of the rounds that the group takes; None without a round that has not failed."""
    found = sorted(value for value in values(results, scenario, library) if value is not None)
    return found[int(len(found) * GROUPS[scenario.group].quantile)] if found else None


def ratio(results: Results, scenario: Scenario, base: str, library: str) -> Ratio | None:
    """How many times the base's a library's figure is: above 1, the base is ahead.

    Each ratio is of one round, in which both were measured within a second. So what slows the machine down for a while
    slows both down.
    """
    pairs = zip(values(results, scenario, base), values(results, scenario, library), strict=False)
    found = [theirs / ours for ours, theirs in pairs if ours and theirs is not None]
    if not found:
        return None
    if len(found) == 1:
        return Ratio(found[0], found[0], found[0])
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return Ratio(median, low, high)


def measured(results: Results, group: str) -> tuple[list[Scenario], list[str]]:
    """The scenarios and the libraries of a group that there are figures of."""
    scenarios = [s for s in SCENARIOS if s.group == group and results["figures"].get(group, {}).get(s.name)]
    return scenarios, [
        name for name in LIBRARIES if any(figure(results, scenario, name) is not None for scenario in scenarios)
    ]


def number(value: float) -> str:
    """Three digits, or all before the point."""
    magnitude = abs(value)
    return f"{value:.{0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2}f}"


def markdown(results: Results) -> str:
    """The page of figures; it is included in ``docs/performance.md``."""
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"- Date: {results['date']}",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; everything on one core",
        f"- {machine['python']}; " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        "- Codec: " + ", ".join(f"{LIBRARIES[name].title}: {codec}" for name, codec in results["codec"].items()),
        f"- Command: `{results['command']}`; rounds: {results['rounds']}, slices of {results['slice']:g} s",
        "",
        "![The figures as bars, on a logarithmic scale](results.svg)",
    ]
    for name, group in GROUPS.items():
        scenarios, libraries = measured(results, name)
        if not scenarios:
            continue
        which = "median" if group.quantile == 0.5 else f"{group.quantile:.0%} quantile"
        lines += ["", f"## {group.heading}", "", f"In {group.unit}, the {which} of the rounds; less is better.", ""]
        lines += _table(scenarios, libraries, partial(_figure_of, results))
        for base in BASES:
            title = LIBRARIES[base].title
            others = [name for name in libraries if name != base and (base == "ours" or not LIBRARIES[name].ours)]
            if base in libraries and others:
                what = "the median of the rounds, and their middle half"
                lines += ["", f"Ratio to {title}, {what}; above 1, {title} is ahead.", ""]
                lines += _table(scenarios, others, partial(_ratio_of, results, base))
    if results["missing"]:
        lines += ["", "Not measured:", "", *(f"- {what}: {why}" for what, why in results["missing"].items())]
    return "\n".join(lines) + "\n"


def _table(scenarios: list[Scenario], libraries: list[str], cell: Callable[[Scenario, str], str]) -> list[str]:
    rows = [["", *(LIBRARIES[name].title for name in libraries)], ["---", *("---:" for _ in libraries)]]
    rows += [[s.title, *(cell(s, name) for name in libraries)] for s in scenarios]
    return [f"| {' | '.join(row)} |" for row in rows]


def _figure_of(results: Results, scenario: Scenario, library: str) -> str:
    value = figure(results, scenario, library)
    return "-" if value is None else number(value)


def _ratio_of(results: Results, base: str, scenario: Scenario, library: str) -> str:
    found = ratio(results, scenario, base, library)
    if found is None:
        return "-"
    low, median, high = number(found.low), number(found.median), number(found.high)
    return f"{median} ({low} to {high})" if low != high else median
