"""Escaping: no text of a peer's breaks a line, drives a terminal or turns the direction of writing around."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_pyjo_ws.escaping import escape

BIDI_CONTROLS = {"LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = {"\u061c", "\u200e", "\u200f"}  # of the bidirectional classes of letters, and invisible


def is_unsafe(character: str) -> bool:
    """Whether the Unicode Character Database says so."""
    return (
        unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in BIDI_CONTROLS
        or character in MARKS
    )


def test_every_character_of_unicode_is_either_safe_or_escaped() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        shown = escape(character)
        if is_unsafe(character):
            assert shown.isascii()
            assert shown.isprintable()
            assert shown.encode().decode("unicode_escape") == character
        else:
            assert shown == character


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain, Grüße, 👋", "plain, Grüße, 👋"),
        ("👩\u200d🚀 \u0645\u06cc\u200c", "👩\u200d🚀 \u0645\u06cc\u200c"),  # joiners, of emoji and of Persian
        ("a\\b", "a\\b"),
        ("x)\r\nCRITICAL:root: the end", r"x)\r\nCRITICAL:root: the end"),
        ("\x1b]0;title\x07\x1b[31m", r"\x1b]0;title\x07\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\tb\x85\u2028\u2029", r"a\tb\x85\u2028\u2029"),
        ("abc\u202ecba\u2066", r"abc\u202ecba\u2066"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_is_escaped_is_an_escape_sequence_of_python(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text())
def test_what_is_escaped_once_is_safe_for_good(text: str) -> None:
    once = escape(text)
    assert escape(once) == once
    assert len(once.splitlines()) <= 1
    once.encode()
