"""The corpus of the fuzzer, without it: each input that was worth keeping is checked on every Python."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from .fuzz.__main__ import CORPUS, TARGETS
from .fuzz.cutting import pieces

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = [path for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input(path: Path) -> None:
    import_module(f".fuzz.{path.parent.name}", __package__).check(path.read_bytes())


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize(("size", "expected"), [(0, [b"abcde"]), (2, [b"ab", b"cd", b"e"]), (9, [b"abcde"])])
def test_input_is_cut_into_pieces(size: int, expected: list[bytes]) -> None:
    assert pieces(b"abcde", size) == expected
