from __future__ import annotations

import json

import pytest

from trio_pyjo_ws.cli.show import MAX_DEPTH, MAX_ITEMS, fold, one_line, parse_json, preview, shorten, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Grüße, 👋", "plain, Grüße, 👋"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\r\n\u202e\t", "\\r\n\\u202e\t"),
    ],
)
def test_what_controls_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_message_of_lines_is_one_line() -> None:
    assert one_line("a\r\nb") == r"a\r\nb"


def test_long_text_is_cut_and_says_so() -> None:
    assert shorten("a" * 5, 5) == "aaaaa"
    assert shorten("a" * 1234, 4) == "aaaa… 1,230 more"
    assert preview("\x1b" * 3, 8) == r"\x1b\x1b… 4 more"


def test_a_binary_message_is_hexadecimal() -> None:
    assert preview(b"\x00\xff") == "00 ff"
    assert preview(bytes(10), 9) == "00 00 00 … 7 more"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a": 1}', {"a": 1}),
        ("[1]", [1]),
        ("1", None),
        ('"text"', None),
        ("", None),
        ("[1", None),
        ("[" * 100_000 + "]" * 100_000, None),
        (f"[{'9' * 5000}]", None),
    ],
)
def test_only_arrays_and_objects_are_taken_for_json(text: str, value: object) -> None:
    if len(text) == 5002 and not hasattr(__import__("sys"), "get_int_max_str_digits"):
        value = json.loads(text)
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("value", "folded"),
    [
        ({}, "{}"),
        ([], "[]"),
        ({"a": [1, 2, {"b": None}]}, '{"a": [1, 2, {"b": null}]}'),
        ([True, "ü\x1b"], r'[true, "ü\u001b"]'),
        ([["x" * 50], ["y" * 50]], '[\n  ["' + "x" * 50 + '"],\n  ["' + "y" * 50 + '"]\n]'),
        ({"a": "x" * 70, "b": {"c": "y" * 50}}, '{\n  "a": "' + "x" * 70 + '",\n  "b": {"c": "' + "y" * 50 + '"}\n}'),
        ("x" * 301, '"' + "x" * 300 + '… 1 more"'),
    ],
)
def test_json_stays_on_one_line_where_it_fits(value: object, folded: str) -> None:
    assert fold(value) == folded


def test_long_json_is_folded() -> None:
    lines = fold(list(range(1000))).splitlines()
    assert lines[:2] == ["[", "  0,"]
    assert lines[-3:] == ["  19,", "  … 980 more", "]"]
    assert len(lines) == MAX_ITEMS + 3
    assert fold({str(key): key for key in range(21)}).splitlines()[-3:] == ['  "19": 19,', "  … 1 more", "}"]


def test_deep_json_is_folded() -> None:
    value: object = ["x" * 80]
    for _ in range(MAX_DEPTH + 3):
        value = {"in": value}
    assert "{… 1 inside}" in fold(value)
    assert fold(value).count("\n") <= 2 * MAX_DEPTH


def test_what_stays_whole_is_json() -> None:
    value = {"list": [{"name": "x" * 40, "values": [1.5, None, False]}] * 4, "text": "ü" * 60}
    assert json.loads(fold(value)) == value
