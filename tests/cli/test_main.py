"""What all programs have in common."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from trio_pyjo_ws.cli import demo, main
from trio_pyjo_ws.cli.main import PROGRAMS

from .program import ENVIRONMENT


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trio_pyjo_ws", *arguments]
    return subprocess.run(  # noqa: S603 - ours
        command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False
    )


def test_help_names_the_programs() -> None:
    done = run_module("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: trio-pyjo-ws ")
    for name in PROGRAMS:
        assert re.search(rf"^ +{name} +\S", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("columns", ["40", "120"])
def test_every_program_explains_itself(
    name: str, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: trio-pyjo-ws {name}")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--nonsense"]])
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    done = run_module(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: trio-pyjo-ws ")
    assert "Traceback" not in done.stderr


class GroupError(BaseException):
    """As an exception group is, which Python 3.10 does not have."""

    exceptions = (KeyboardInterrupt(),)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), GroupError()], ids=repr)
def test_an_interruption_is_no_error(
    interruption: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(_: object) -> int:
        raise interruption

    monkeypatch.setattr(demo, "run", run)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == ""


def test_what_is_no_error_of_the_program_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: object) -> int:
        raise GeneratorExit

    monkeypatch.setattr(demo, "run", run)
    with pytest.raises(GeneratorExit):
        main(["demo"])
