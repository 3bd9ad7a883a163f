from __future__ import annotations

import re
import signal
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from trio_pyjo_ws import ConnectionClosed, HandshakeError, Transaction, connect, open_websocket
from trio_pyjo_ws.cli import main

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


async def end_of(ws: Transaction) -> object:
    try:
        async for _ in ws:
            pass
    except ConnectionClosed:
        pass
    return ws.closed


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --echo --broadcast --exec is required"),
        (["--echo", "--broadcast"], "not allowed with"),
        (["--exec", "no-such-command-here"], "no such command: 'no-such-command-here'"),
        (["--exec", ""], "no such command: ''"),
        (["--exec", "'open"], "No closing quotation"),
        (["--echo", "--page", "/no/such/file"], "cannot read '/no/such/file': No such file"),
        (["--echo", "--port", "x"], "must be a port, 0 to 65535, not 'x'"),
        (["--echo", "--max-connections", "0"], "must be a positive whole number"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_address_that_is_taken_or_is_not_ours_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--echo", "--port", str(port)]) == 3
    assert capsys.readouterr().err == f"trio-pyjo-ws: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert main(["demo", "--web", "--host", "192.0.2.1"]) == 3
    assert capsys.readouterr().err.startswith("trio-pyjo-ws: cannot listen on 192.0.2.1:8000: ")
