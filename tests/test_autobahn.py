"""How wstest's verdicts are judged and shown, from given ones: no suite is run, and no Python 2.7 needed."""

from __future__ import annotations

from typing import Any

import pytest

from .autobahn.results import (
    AT_ONCE,
    EXPLAINED,
    INFORMATIONAL,
    VERDICTS,
    Case,
    cases_of,
    complaints,
    markdown,
    summary,
)


def verdict(behavior: str, close: str = "OK", code: int | None = 1000) -> dict[str, Any]:
    return {"behavior": behavior, "behaviorClose": close, "remoteCloseCode": code}


def test_cases_come_in_the_order_of_their_numbers() -> None:
    found = cases_of({number: verdict("OK") for number in ("10.1.1", "9.2", "9.10", "1.1.1")})
    assert [case.number for case in found] == ["1.1.1", "9.2", "9.10", "10.1.1"]


@pytest.mark.parametrize(
    ("behavior", "close", "worse"),
    [
        ("OK", "OK", "OK"),
        ("OK", "UNCLEAN", "UNCLEAN"),
        ("NON-STRICT", "WRONG CODE", "WRONG CODE"),
        ("NON-STRICT", "OK", "NON-STRICT"),
        ("FAILED", "INFORMATIONAL", "FAILED"),
    ],
)
def test_the_worse_verdict_counts(behavior: str, close: str, worse: str) -> None:
    assert cases_of({"1.1.1": verdict(behavior, close)}) == [Case("1.1.1", worse, 1000)]


def test_what_is_ok_or_explained_is_no_complaint() -> None:
    explained = [Case(number, verdict, 1000) for number, verdict in EXPLAINED]
    good = [Case(number, "OK", 1000) for number in ("1.1.1", *AT_ONCE)]
    assert complaints([*good, *explained], len(good) + len(explained)) == []


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (number, verdict)
        for number in ("1.1.1", *INFORMATIONAL, *AT_ONCE)
        for verdict in VERDICTS
        if (number, verdict) not in EXPLAINED and (verdict != "OK" or number in INFORMATIONAL)
    ],
)
def test_anything_else_is(number: str, verdict: str) -> None:
    assert complaints([Case(number, verdict, None)], 1) == [f"case {number}: {verdict}, close code None"]


def test_a_case_that_has_not_run_is_one_too() -> None:
    assert complaints([Case("1.1.1", "OK", 1000)], 2) == ["1 cases have run, not 2"]


def test_the_tables_count_and_explain() -> None:
    cases = cases_of({"1.1.1": verdict("OK"), "1.1.2": verdict("OK"), "7.1.6": verdict("INFORMATIONAL")})
    about = {
        "date": "2026-01-02",
        "commit": "abc (Why)",
        "codec": "compiled",
        "zlib": "zlib",
        "versions": {"trio": "1"},
    }
    found = summary(cases)
    assert found == {
        "groups": {"1": {"OK": 2}, "7": {"INFORMATIONAL": 1}},
        "not OK": {"7.1.6": "INFORMATIONAL"},
    }
    text = markdown({"server": {**about, **found}})
    assert "2026-01-02, at commit abc (Why): 2 of 3 cases are OK." in text
    assert "| Group | OK | INFORMATIONAL | UNCLEAN | FAILED |" in text
    assert "| 7 close | 0 | 1 | 0 | 0 |" in text
    assert "| all | 2 | 1 | 0 | 0 |" in text
    assert f"- 7.1.6, INFORMATIONAL: {INFORMATIONAL['7.1.6']}" in text
