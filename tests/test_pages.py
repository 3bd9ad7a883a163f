"""The pages: their programs and commands run, and what they print stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from .terminal import Terminal
from .test_examples import PRINTED

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts)]
PROGRAMS = [path.read_text("utf-8") for path in (DOCS / "examples").rglob("*.py")]

RUN = {"command-line.md": "8000", "start.md": "8080", "tls.md": "8443"}
"""The pages whose commands are run, in their order, and the port that they show."""

DIRECTIVES = {"{eval-rst}", "{figure}", "{include}", "{literalinclude}", "{toctree}"}


class Block(NamedTuple):
    page: Path
    kind: str
    body: str
    before: str
    """The program whose `literalinclude` stands right before it."""


def blocks() -> Iterator[Block]:
    for page in PAGES:
        before, end = "", 0
        text = page.read_text("utf-8")
        for found in re.finditer(r"^(`{3,}|:{3,})(.*)\n((?:.*\n)*?)\1$", text, re.MULTILINE):
            kind, _, argument = found[2].partition(" ")
            if text[end : found.start()].strip():
                before = ""
            yield Block(page, kind, found[3], before)
            before, end = Path(argument).stem if kind == "{literalinclude}" else "", found.end()


BLOCKS = list(blocks())


def of_kind(kind: str) -> pytest.MarkDecorator:
    found = [block for block in BLOCKS if block.kind == kind]
    assert found
    return pytest.mark.parametrize("block", found, ids=[block.page.name for block in found])


def test_every_block_is_of_a_kind_that_is_looked_at_here() -> None:
    kinds = {block.kind for block in BLOCKS}
    assert kinds <= {"python", "sh", "text"} | DIRECTIVES


@of_kind("python")
def test_python_on_a_page_is_a_part_of_a_program_that_runs(block: Block) -> None:
    # tests/test_examples.py runs the programs, pytest the tests among them.
    indented = [textwrap.indent(block.body, " " * width) for width in range(0, 20, 4)]
    assert any(part in program for part in indented for program in PROGRAMS), block.body


@of_kind("text")
def test_what_stands_behind_a_program_is_what_it_prints(block: Block) -> None:
    if block.before:
        assert block.body == PRINTED[block.before]


@of_kind("sh")
def test_commands_are_run_or_name_what_there_is(block: Block) -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for command in block.body.splitlines():
        if extra := re.fullmatch(r"pip install 'trio-pyjo-ws\[(\w+)\]'", command):
            assert re.search(rf"^{extra[1]} = \[", project, re.MULTILINE), command
        elif session := re.match(r"nox -s (\w+)", command):
            assert f"\ndef {session[1]}(session" in (ROOT / "noxfile.py").read_text("utf-8"), command
        elif module := re.match(r"cd tests && python -m ([\w.]+)", command):
            path = ROOT / "tests" / module[1].replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), command
        elif block.page.name == "contributing.md":  # Setting up takes minutes; the files that it names are there.
            assert all((ROOT / word).exists() for word in command.split() if word.startswith("tests/")), command
        elif block.page.name == "README.md":
            assert command.startswith("python3 -m venv ")  # CI runs the last one: tests/test_project.py.
        else:
            assert block.page.name in RUN or command.startswith("pip install "), command


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell")
@pytest.mark.parametrize("name", ["start.md", "tls.md"])  # That of the command line: tests/test_command_line.py.
def test_the_commands_of_a_page_do_what_is_shown(name: str, tmp_path: Path) -> None:
    if name == "tls.md" and shutil.which("openssl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no openssl")
        pytest.skip("no openssl")
    (tmp_path / "docs").symlink_to(DOCS)
    page = re.sub(r"^```sh\npip install .*\n```\n", "", (DOCS / name).read_text("utf-8"), flags=re.MULTILINE)
    assert Terminal(tmp_path, RUN[name], (0, -signal.SIGTERM)).run_all(page) > 2
