from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trio_pyjo_ws import Transaction, cli, codec, zlib_name

PACKAGE_PARENT = Path(cli.__file__).parent.parent


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", "trio_pyjo_ws", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=PACKAGE_PARENT,  # the package that the tests see, whether it is installed or on PYTHONPATH
        check=False,
    )


def check_transcript(output: str) -> None:
    frames = re.findall(
        r"^   (\w+) +frame +FIN=(\d) RSV1=(\d) (\w+) +([\d,]+) bytes  (b['\"].*)$", output, re.MULTILINE
    )
    assert [frame[:4] for frame in frames] == [
        *[("server", "1", "0", "TEXT"), ("client", "1", "0", "TEXT")],
        *[("server", "1", "0", "BINARY"), ("client", "1", "0", "BINARY")],
        *[("server", "1", "0", "TEXT"), ("client", "1", "0", "TEXT")],
        *[("server", "0", "0", "TEXT"), ("server", "1", "0", "CONTINUATION"), ("client", "1", "0", "TEXT")],
        *[("server", "1", "1", "TEXT"), ("client", "1", "1", "TEXT")],
        *[("server", "1", "0", "PING"), ("client", "1", "0", "PONG")],
        *[("server", "1", "0", "CLOSE"), ("client", "1", "0", "CLOSE")],
    ]
    payloads = [frame[5] for frame in frames]
    assert "b'Hello '" in payloads
    assert "b'World!'" in payloads
    assert max(map(len, payloads)) == cli.MAX_SHOWN
    # The 1 MiB travelled compressed.
    sizes = [int(frame[4].replace(",", "")) for frame in frames]
    assert 10_000 < max(sizes) < 150_000
    assert output.count("(1,048,576 characters)") == 2
    for expected in [
        r"   server  listens    ws://127\.0\.0\.1:\d+/\n",
        r"   client  connected  101 Switching Protocols\n",
        r"   client  agreed on  permessage-deflate",
        rf"   both    use        the {codec} codec, {zlib_name}\n",
        r"   client  received   \{'test': \[1, 2, 3\]\}\n",
        r"   client  drained    all is handed to the kernel\n",
        r"   client  latency    \d+\.\d+ ms\n",
        r"   server  finished   code 1000, reason 'That was all'\n",
        r"   client  finished   code 1000, reason ''\n",
        r"   server  stopped\n\Z",
    ]:
        assert re.search(expected, output), expected
    assert max(map(len, output.splitlines())) <= 120


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo"]) == 0
    output, errors = capsys.readouterr()
    check_transcript(output)
    assert errors == ""


def test_demo_as_a_program() -> None:
    done = run_module("demo")
    assert done.stderr == ""
    assert done.returncode == 0
    check_transcript(done.stdout)


def test_arguments_are_those_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trio_pyjo_ws", "demo"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("trio_pyjo_ws", run_name="__main__")
    assert caught.value.code == 0
    check_transcript(capsys.readouterr().out)


def test_help_names_the_programs() -> None:
    done = run_module("--help")
    assert done.returncode == 0
    assert re.search(r"^ +demo +\S", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--nonsense"]])
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    done = run_module(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m trio_pyjo_ws ")
    assert "Traceback" not in done.stderr


async def liar(ws: Transaction) -> None:
    await ws.receive()
    await ws.send("Goodbye!")


def test_a_wrong_answer_ends_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "echo", liar)
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == (
        "python -m trio_pyjo_ws: RuntimeError: the server sent back 'Goodbye!' (8 characters), "
        "not 'Hello World!' (12 characters)\n"
    )


def test_an_error_without_a_text_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def sulk(_: Transaction) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(cli, "echo", sulk)
    monkeypatch.setattr(cli, "DEMO_TIMEOUT", 0.1)
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "python -m trio_pyjo_ws: TooSlowError\n"
