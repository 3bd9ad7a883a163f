"""Every command of docs/command-line.md runs as shown, and prints what is shown; ``...`` stands for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trio_pyjo_ws.cli.main import make_parser

from .terminal import Terminal

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "command-line.md").read_text("utf-8")


@pytest.mark.once
def test_commands_do_what_is_shown(tmp_path: Path) -> None:
    assert Terminal(tmp_path, "8000").run_all(PAGE.partition("comes after this line.")[2]) > 10


def test_every_program_and_option_is_on_the_page() -> None:
    programs = make_parser()._subparsers
    assert programs is not None
    (action,) = (action for action in programs._actions if action.choices)
    for name, parser in action.choices.items():  # type: ignore[union-attr]
        section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        assert section, name
        text = section[1] + (PAGE if name in ("inspect", "demo") else "")
        for option in parser._option_string_actions:
            if option not in ("-h", "--help"):
                assert option in text, f"{name}: {option}"
