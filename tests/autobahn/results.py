"""From wstest's verdicts to what is wrong with them, and to the tables that the documentation shows."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

VERDICTS = (
    "OK",
    "INFORMATIONAL",
    "NON-STRICT",
    "UNIMPLEMENTED",
    "FAILED BY CLIENT",
    "WRONG CODE",
    "UNCLEAN",
    "FAILED",
)
"""wstest's words, the best first."""

INFORMATIONAL = {
    "7.1.6": "256 KiB, a short message and Close come at once. Do the messages go back before the Close? Here they do "
    "not: a Close is answered when it is read (RFC 6455, section 5.5.1), the handler receives the messages after that.",
    "7.13.1": "A Close comes with the code 5000, which no one may send (section 7.4.2). The answer is 1002.",
    "7.13.2": "The same, with the code 65535.",
}
"""The cases that wstest never calls OK, as the RFC leaves them open, and what happens in them."""

AT_ONCE = ("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15")
"""The cases in which wstest sends a message and a breach at once. Their verdict depends on how the kernel cuts them."""

EXPLAINED = {
    **{(number, "INFORMATIONAL"): text for number, text in INFORMATIONAL.items()},
    **dict.fromkeys(
        ((number, "NON-STRICT") for number in AT_ONCE),
        "A message and a breach of the protocol come at once. If they are read at once, the breach is answered "
        "(section 7.1.7) before the handler has the message, so nothing is sent back; wstest prefers the echo.",
    ),
}
"""What happens in the cases that are not OK, by number and verdict."""

GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "close",
    "9": "limits, performance",
    "10": "auto-fragmentation",
    "12": "compression, payloads",
    "13": "compression, parameters",
}


class Case(NamedTuple):
    number: str
    verdict: str
    """The worse of the two that wstest has: of what came, and of how it was closed."""
    close_code: int | None

    @property
    def group(self) -> str:
        return self.number.partition(".")[0]


def cases_of(index: dict[str, Any]) -> list[Case]:
    """The cases of wstest's ``index.json``, of one agent, in order."""
    return [
        Case(number, max(found["behavior"], found["behaviorClose"], key=VERDICTS.index), found["remoteCloseCode"])
        for number, found in sorted(index.items(), key=lambda item: [int(part) for part in item[0].split(".")])
    ]


def complaints(cases: list[Case], expected: int) -> list[str]:
    """What keeps the run from being a good one: cases that are neither OK nor explained, or not there."""
    found = [
        f"case {case.number}: {case.verdict}, close code {case.close_code}"
        for case in cases
        if (case.verdict != "OK" or case.number in INFORMATIONAL) and (case.number, case.verdict) not in EXPLAINED
    ]
    return found if len(cases) == expected else [*found, f"{len(cases)} cases have run, not {expected}"]


def summary(cases: list[Case]) -> dict[str, Any]:
    """What is recorded of a role: how many of each verdict there are in each group, and which are not OK."""
    groups = {group: Counter(case.verdict for case in cases if case.group == group) for group in GROUPS}
    return {
        "groups": {group: dict(counts) for group, counts in groups.items() if counts},
        "not OK": {case.number: case.verdict for case in cases if case.verdict != "OK"},
    }


def markdown(record: dict[str, Any]) -> str:
    """The tables, of all the roles that were recorded; they are included in ``docs/conformance.md``."""
    lines: list[str] = []
    for role, found in sorted(record.items()):
        total: Counter[str] = sum((Counter(counts) for counts in found["groups"].values()), Counter())
        verdicts = [verdict for verdict in VERDICTS if total[verdict] or verdict in ("OK", "UNCLEAN", "FAILED")]
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        lines += [
            f"### As a {role}",
            "",
            f"{found['date']}, at commit {found['commit']}: {total['OK']} of {total.total()} cases are OK.",
            f"{versions}; {found['codec']} codec, {found['zlib']}.",
            "",
            "| Group | " + " | ".join(verdicts) + " |",
            "|---|" + "---:|" * len(verdicts),
        ]
        for group, title in GROUPS.items():
            if counts := found["groups"].get(group):
                cells = " | ".join(str(counts.get(verdict, 0)) for verdict in verdicts)
                lines.append(f"| {group} {title} | {cells} |")
        lines += ["| all | " + " | ".join(str(total[verdict]) for verdict in verdicts) + " |", ""]
        lines += [
            f"- {number}, {verdict}: {EXPLAINED.get((number, verdict), 'not explained yet.')}"
            for number, verdict in found["not OK"].items()
        ]
        lines.append("")
    return "\n".join(lines)
