"""The text of a position: what comes from a peer is checked."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from trio_pyjo_ws import Position

EPOCH = "0123456789abcdef"


@pytest.mark.parametrize("number", [0, 1, 10**14])
def test_a_position_comes_back_from_its_text(number: int) -> None:
    position = Position(EPOCH, number)
    assert str(position) == f"{EPOCH}.{number}"
    assert Position.parse(str(position)) == position
    assert copy.copy(position) == pickle.loads(pickle.dumps(position)) == position  # noqa: S301 - ours
    assert len({position, Position.parse(str(position))}) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", EPOCH, f"{EPOCH}.", f"{EPOCH}.-1", f"{EPOCH}.01", f"{EPOCH}.1 ", f"{EPOCH}.1\n", f"{EPOCH}.\u0661"),
        *(f"{EPOCH[1:]}.1", f"{EPOCH}0.1", f"{EPOCH.upper()}.1", f"{EPOCH}.{'1' * 16}", f" {EPOCH}.1", f"{EPOCH}.1.1"),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid position"):
        Position.parse(text)


def test_the_error_quotes_no_more_than_is_readable() -> None:
    with pytest.raises(ValueError, match=r"^invalid position '(x{60})' \(expected .*\)$"):
        Position.parse("x" * 1000)


@pytest.mark.parametrize("text", [None, b"a", 1])
def test_what_is_not_a_text_is_refused(text: Any) -> None:
    with pytest.raises(TypeError, match="a position must be a str"):
        Position.parse(text)
