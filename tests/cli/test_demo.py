from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import trio_pyjo_ws
from trio_pyjo_ws import Transaction, codec, zlib_name
from trio_pyjo_ws.cli import demo, main

PACKAGE_PARENT = Path(trio_pyjo_ws.__file__).parent.parent


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
    assert max(map(len, payloads)) == demo.MAX_SHOWN
    # The 1 MiB travelled compressed.
    sizes = [int(frame[4].replace(",", "")) for frame in frames]
    assert 10_000 < max(sizes) < 150_000
    assert output.count("(1,048,576 characters)") == 2
    for expected in [
        r"   server  listens    ws://127\.0\.0\.1:\d+/\n",
        r"   client  connected  101 Switching Protocols\n",
        r"   client  agreed on  permessage-deflate",
        rf"   both    use        {zlib_name}; codec: {re.escape(codec)}\n",
        r"   client  received   \{'test': \[1, 2, 3\]\}\n",
        r"   client  drained    all is handed to the kernel\n",
        r"   client  latency    \d+\.\d+ ms\n",
        r"   server  finished   code 1000, reason 'That was all'\n",
        r"   client  finished   code 1000, reason 'That was all'\n",
        r"   server  stopped\n\Z",
    ]:
        assert re.search(expected, output), expected
    # The reason why the codec is not compiled may be long.
    assert max(len(line) for line in output.splitlines() if "codec: " not in line) <= 120


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    output, errors = capsys.readouterr()
    check_transcript(output)
    assert errors == ""


def test_demo_as_a_program() -> None:
    done = run_module("demo")
    assert done.stderr == ""
    assert done.returncode == 0
    check_transcript(done.stdout)


@pytest.mark.parametrize("option", [["--port", "8000"], ["--host", "127.0.0.1"]])
def test_an_address_without_a_page_is_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", *option])
    assert caught.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("usage: trio-pyjo-ws demo ")
    assert errors.endswith("error: --host and --port go with --web: otherwise nothing is served for others\n")


async def liar(ws: Transaction) -> None:
    await ws.receive()
    await ws.send("Goodbye!")


def test_a_wrong_answer_ends_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "echo", liar)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == (
        "trio-pyjo-ws: RuntimeError: the server sent back 'Goodbye!' (8 characters), "
        "not 'Hello World!' (12 characters)\n"
    )


def test_an_error_without_a_text_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def sulk(_: Transaction) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(demo, "echo", sulk)
    monkeypatch.setattr(demo, "DEMO_TIMEOUT", 0.1)
    assert main(["demo"]) == 3
    assert capsys.readouterr().err == "trio-pyjo-ws: timed out\n"
