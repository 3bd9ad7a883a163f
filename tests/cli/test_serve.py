from __future__ import annotations

import os
import re
import signal
import ssl
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from trio_pyjo_ws import ConnectionClosed, HandshakeError, Transaction, connect, open_websocket
from trio_pyjo_ws.cli import main, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from .program import Pipes


@asynccontextmanager
async def running(
    pipes: Pipes,
    *arguments: str,
    program: Sequence[str] = ("serve",),
    announced: str = r"listening on (wss?://127\.0\.0\.1:\d+/)",
) -> AsyncIterator[str]:
    """A server as a program with these arguments, its URL, and in the end a SIGTERM, after which it exits with 0."""
    statuses: list[int] = []

    async def run() -> None:
        statuses.append(await pipes.run(*program, "--port", "0", *arguments))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            found = re.fullmatch(announced, await pipes.read_line())
            assert found
            yield found[1]
            signal.raise_signal(signal.SIGTERM)
    assert statuses == [0]


def python(program: str) -> str:
    return f"{sys.executable} -uc '{program}'"


async def end_of(ws: Transaction) -> object:
    try:
        async for _ in ws:
            pass
    except ConnectionClosed:
        pass
    return ws.close


async def test_echo(pipes: Pipes) -> None:
    async with running(pipes, "--echo") as url, open_websocket(url) as ws:
        await ws.send("Hello")
        assert await ws.receive() == "Hello"
        await ws.send(b"\x00")
        assert await ws.receive() == b"\x00"
        address = f"127.0.0.1:{ws.local_port}"
        await ws.finish(1001, "\x1b done")
    assert pipes.told == f"{address} connected\n{address} closed with 1001 (\\x1b done)\n"


async def test_a_signal_closes_what_is_open(pipes: Pipes) -> None:
    async with trio.open_nursery() as nursery:
        async with running(pipes, "--echo") as url:
            ws = await connect(nursery, url)
        assert await end_of(ws) == (1001, "the server is shutting down")


async def test_a_room_hears_what_the_others_say(pipes: Pipes) -> None:
    async with (
        running(pipes, "--broadcast") as url,
        open_websocket(url) as one,
        open_websocket(url) as two,
        open_websocket(url) as three,
    ):
        await one.send("from one")
        assert await two.receive() == "from one"
        assert await three.receive() == "from one"
        await two.send(b"from two")
        assert await one.receive() == b"from two"  # and not what it has said itself
        assert await three.receive() == b"from two"
        await two.finish()
        await three.send("from three")
        assert await one.receive() == "from three"


async def test_compression_is_accepted_where_asked_for(pipes: Pipes) -> None:
    async with running(pipes, "--echo", "--compress") as url, open_websocket(url, compression=True) as ws:
        assert ws.compressed


async def test_tls(pipes: Pipes, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with running(pipes, "--echo", "--cert", str(certificate), "--key", str(key)) as url:
        assert url.startswith("wss://")
        async with open_websocket(url, ssl_context=client) as ws:
            await ws.send("Hello")
            assert await ws.receive() == "Hello"


async def get(url: str, target: str) -> bytes:
    host, port = url.removeprefix("ws://").partition("/")[0].split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return b"".join([data async for data in stream])


async def test_a_page(pipes: Pipes, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<h1>Hello</h1>")
    async with running(pipes, "--echo", "--page", str(page)) as url:
        answer = await get(url, "/")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Type: text/html\r\n" in answer
        assert answer.endswith(b"\r\n\r\n<h1>Hello</h1>")
        assert (await get(url, "/../pyproject.toml")).startswith(b"HTTP/1.1 426 ")
        async with open_websocket(url) as ws:
            await ws.send("Hello")
            assert await ws.receive() == "Hello"


async def test_without_a_page_there_is_none(pipes: Pipes) -> None:
    async with running(pipes, "--echo") as url:
        assert (await get(url, "/")).startswith(b"HTTP/1.1 426 ")


async def test_too_many_are_refused(pipes: Pipes) -> None:
    async with running(pipes, "--echo", "--max-connections", "1") as url, open_websocket(url):
        with pytest.raises(HandshakeError, match="503"):
            async with open_websocket(url):
                pass


async def test_a_command_for_each_connection(pipes: Pipes) -> None:
    program = python("import sys\nfor n, line in enumerate(sys.stdin): print(n, line.strip().upper())")
    async with running(pipes, "--exec", program) as url, open_websocket(url) as one, open_websocket(url) as two:
        for number, text in enumerate(["one", "zwölf"]):
            for ws in (one, two):
                await ws.send(text)
                assert await ws.receive() == f"{number} {text.upper()}"
        await one.send(b"bytes")
        assert await one.receive() == "2 BYTES"


async def test_what_a_command_writes_is_messages_line_by_line(pipes: Pipes) -> None:
    program = python(r'import sys; sys.stdout.buffer.write(b"one\n\ntwo\xff\nthree")')
    async with running(pipes, "--exec", program) as url, open_websocket(url) as ws:
        assert [message async for message in ws] == ["one", "", "two\ufffd", "three"]
        assert ws.close == (1000, "")


async def test_a_command_that_fails(pipes: Pipes) -> None:
    async with running(pipes, "--exec", python("exit(3)")) as url, open_websocket(url) as ws:
        assert await end_of(ws) == (1011, "the command ended with status 3")


async def test_a_line_break_in_a_message_would_be_two_lines(pipes: Pipes) -> None:
    async with running(pipes, "--exec", "cat") as url, open_websocket(url) as ws:
        await ws.send("two\nlines")
        assert await end_of(ws) == (1003, "a line break in a message")


@pytest.mark.parametrize("end", [r"\n", ""])
async def test_a_line_may_be_no_longer_than_a_message(end: str, pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYJO_MAX_WEBSOCKET_SIZE", "1000")
    program = python(rf'import sys, time; sys.stdout.write("x" * 1001 + "{end}"); sys.stdout.flush(); time.sleep(3600)')
    async with running(pipes, "--exec", program) as url, open_websocket(url) as ws:
        assert await end_of(ws) == (1011, "a line of more than 1000 bytes")


async def test_a_command_ends_with_its_connection(pipes: Pipes, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    program = python(f'import sys; print(1); sys.stdin.read(); open("{ended}", "w").close()')
    async with running(pipes, "--exec", program) as url, open_websocket(url) as ws:
        assert await ws.receive() == "1"
    assert ended.exists()


async def test_a_command_that_does_not_want_to_end_is_ended(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "EXEC_GRACE", 0.01)
    program = python("import time; print(1); time.sleep(3600)")
    async with running(pipes, "--exec", program) as url, open_websocket(url) as ws:
        assert await ws.receive() == "1"


async def test_a_command_that_does_not_listen_may_still_talk(pipes: Pipes, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = python(f'import os; os.close(0); print("deaf"); [print(line.strip()) for line in open("{fifo}")]')
    async with running(pipes, "--exec", program) as url, open_websocket(url) as ws:
        assert await ws.receive() == "deaf"
        for _ in range(2):
            await ws.send("nobody reads this")
        async with await trio.open_file(fifo, "w") as file:
            await file.write("still there\n")
        assert await ws.receive() == "still there"


async def test_a_command_that_talks_to_somebody_who_is_gone(pipes: Pipes) -> None:
    program = python("while True: print(1)")
    async with running(pipes, "--exec", program) as url, open_websocket(url) as ws:
        assert await ws.receive() == "1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --echo --broadcast --exec is required"),
        (["--echo", "--broadcast"], "not allowed with"),
        (["--exec", "no-such-command-here"], "there is no command 'no-such-command-here'"),
        (["--exec", ""], "there is no command ''"),
        (["--exec", "'open"], "No closing quotation"),
        (["--echo", "--page", "/no/such/file"], "No such file"),
        (["--echo", "--port", "x"], "'x' is no port"),
        (["--echo", "--max-connections", "0"], "no positive whole number"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--echo", "--host", "192.0.2.1"]) == 3
    assert capsys.readouterr().err.startswith("trio-pyjo-ws: OSError: ")
