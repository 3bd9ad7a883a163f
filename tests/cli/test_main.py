"""What all programs have in common."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
import trio

from trio_pyjo_ws import codec, zlib_name
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


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"]])
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    done = run_module(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: trio-pyjo-ws ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["demo", "--wbe"], "unrecognized arguments: --wbe (did you mean --web?)"),
        (
            ["bench", "--connection=3", "ws://test/"],
            "unrecognized arguments: --connection=3 (did you mean --connections?)",
        ),
        (["connect", "--max_size", "3", "ws://test/"], "unrecognized arguments: --max_size (did you mean --max-size?)"),
        (["connect", "ws://test/", "Hello"], "unrecognized arguments: Hello"),
        (["inspect", "--he", "ws://test/"], "unrecognized arguments: --he"),  # never abbreviated
    ],
)
def test_a_wrong_option_prints_the_usage_of_its_own_program(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    usage, _, error = capsys.readouterr().err.partition("\ntrio-pyjo-ws")
    assert usage.startswith(f"usage: trio-pyjo-ws {arguments[0]} ")
    assert error.startswith(f" {arguments[0]}: error: {message}")


def test_version_names_what_a_report_needs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(
        f"trio-pyjo-ws {version('trio-pyjo-ws')}; codec: {codec}; {zlib_name}; trio {trio.__version__}; "
    )


def test_a_program_may_be_started_without_standard_streams() -> None:
    """`<&- >&- 2>&-`: descriptors 0 to 2 would otherwise be those of whatever is opened next."""
    program = "import sys\nfrom trio_pyjo_ws.cli import main\nexit(main(['connect', 'ws://127.0.0.1:1/']))"
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], env=ENVIRONMENT, timeout=60, check=False)  # noqa: S603 - ours
    assert done.returncode == 3


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
