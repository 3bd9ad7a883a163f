from __future__ import annotations

import re
import signal
import sys
from base64 import b64decode
from collections.abc import Awaitable, Callable

import pytest
import trio

from trio_pyjo_ws import HandshakeError, Request, Response, Server, Transaction
from trio_pyjo_ws.cli import main

from ..proxies import ProxyServer
from .program import ENVIRONMENT, Pipes, echo
from .typist import open_typist

StartServer = Callable[..., Awaitable[Server]]


async def test_a_line_is_a_message_and_a_message_a_line(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo)
    pipes.type("Hello\nWorld\n")
    pipes.end_input()
    assert server.url
    assert await pipes.run("connect", "--wait", "0.1", server.url) == 0
    assert pipes.read_rest() == "Hello\nWorld\n"
    assert pipes.told == f"connected to {server.url}\nclosed with 1000\n"


async def test_it_is_a_conversation(pipes: Pipes, start_server: StartServer, nursery: trio.Nursery) -> None:
    server = await start_server(echo)
    nursery.start_soon(pipes.run, "connect", "--wait", "0.01", str(server.url))
    for line in ("one", "two"):
        pipes.type(f"{line}\n")
        assert await pipes.read_line() == line
    pipes.end_input()


async def test_what_comes_late_is_waited_for(
    pipes: Pipes, start_server: StartServer, autojump_clock: trio.testing.MockClock
) -> None:
    async def talk(ws: Transaction) -> None:
        for number in range(4):
            await trio.sleep(10)  # each within the silence that is allowed, together beyond it
            await ws.send(str(number))
        await trio.sleep_forever()

    server = await start_server(talk)
    pipes.end_input()
    assert await pipes.run("connect", "--wait", "30", str(server.url)) == 0
    assert pipes.read_rest() == "0\n1\n2\n3\n"


async def test_what_a_message_holds_stays_one_line(pipes: Pipes, start_server: StartServer) -> None:
    async def talk(ws: Transaction) -> None:
        await ws.send("two\r\nlines")
        await ws.send(b"\x00\xff")

    server = await start_server(talk)
    assert await pipes.run("connect", str(server.url)) == 0
    assert pipes.read_rest() == "two\\r\\nlines\n00ff\n"


@pytest.mark.parametrize(
    ("kind", "line"),
    [("--text", r"a\r\n\x1b[31m\x9b\u202e"), ("--json", r'"a\r\n\u001b[31m\x9b\u202e"')],
)
async def test_a_message_drives_no_terminal(kind: str, line: str, pipes: Pipes, start_server: StartServer) -> None:
    """Standard input is a pipe, and standard output a terminal: `echo Hello | trio-pyjo-ws connect URL`."""

    async def talk(ws: Transaction) -> None:
        await ws.send("a\r\n\x1b[31m\x9b\u202e")

    server = await start_server(talk)
    with pipes.print_to_terminal() as read:
        assert await pipes.run("connect", kind, str(server.url)) == 0
        assert read() == f"{line}\r\n"


async def test_binary_is_hexadecimal(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo)
    pipes.type("00 ff\n0102\n")
    pipes.end_input()
    assert await pipes.run("connect", "--binary", "--wait", "0.1", str(server.url)) == 0
    assert pipes.read_rest() == "00ff\n0102\n"


async def test_json_is_json_in_every_line(pipes: Pipes, start_server: StartServer) -> None:
    got: list[object] = []

    async def talk(ws: Transaction) -> None:
        got.append(await ws.receive())
        await ws.send('{\n  "a": "ü"\n}')
        await ws.send("no JSON\n")
        await ws.send(b"[1, 2]")
        await ws.send(b"\x80")

    server = await start_server(talk)
    pipes.type('{"x": [1, "ü"]}\n')
    assert await pipes.run("connect", "--json", str(server.url)) == 0
    assert got == ['{"x":[1,"ü"]}']
    assert pipes.read_rest() == '{"a":"ü"}\n"no JSON\\n"\n[1,2]\n"80"\n'


@pytest.mark.parametrize(
    ("kind", "line", "reason"),
    [
        ("--json", b"{]", "invalid JSON: '{]'"),
        ("--binary", b"\x1bz", r"invalid hexadecimal: '\x1bz'"),
        ("--text", b"a\xff", r"invalid UTF-8: 'a\udcff'"),
        ("--json", b'"\xff"', r"""invalid UTF-8: '"\udcff"'"""),
    ],
)
async def test_a_line_that_does_not_parse_is_named(
    kind: str, line: bytes, reason: str, pipes: Pipes, start_server: StartServer
) -> None:
    server = await start_server(echo)
    pipes.type(line + b"\n")
    assert await pipes.run("connect", kind, "--wait", "0.01", str(server.url)) == 1
    assert reason in pipes.told


async def test_the_request_is_as_asked_for(pipes: Pipes, start_server: StartServer) -> None:
    seen: list[Request] = []

    async def look(ws: Transaction) -> None:
        seen.append(ws.req)

    server = await start_server(look, subprotocols=["chat.v1"], compression=True)
    arguments = ["-s", "chat.v2", "-s", "chat.v1", "-H", "X-One: 1", "--header", "X-Two:2", "--origin", "http://a.test"]
    arguments += ["--auth", "Ada:b:c", "--compress"]
    assert await pipes.run("connect", *arguments, str(server.url)) == 0
    headers = seen[0].headers
    assert headers["Sec-WebSocket-Protocol"] == "chat.v2, chat.v1"
    assert (headers["X-One"], headers["X-Two"], headers["Origin"]) == ("1", "2", "http://a.test")
    assert b64decode(headers["Authorization"].removeprefix("Basic ")) == b"Ada:b:c"
    told = pipes.told.splitlines()
    assert told[0].startswith(f"connected to {server.url}, subprotocol chat.v1, permessage-deflate")


async def test_through_a_proxy(
    pipes: Pipes, start_server: StartServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_server(echo)
    proxy = ProxyServer(server.port or 0)
    port = await proxy.start(nursery, "http")
    pipes.end_input()
    url = "ws://behind.test:1234/"
    assert await pipes.run("connect", "--wait", "0.01", "--proxy", f"http://127.0.0.1:{port}", url) == 0
    assert proxy.asked == ["behind.test:1234"]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    assert await pipes.run("connect", "--wait", "0.01", "--proxy", "none", str(server.url)) == 0
    assert len(proxy.asked) == 1


async def test_a_password_is_not_told(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo)
    pipes.end_input()
    url = str(server.url).replace("//", "//Ada:secret@")
    assert await pipes.run("connect", "--wait", "0.01", url) == 0
    assert "secret" not in pipes.told


@pytest.mark.parametrize(
    ("code", "reason", "status", "told"),
    [
        (1000, "", 0, "closed by the server with 1000"),
        (1001, "bye", 0, "closed by the server with 1001 (bye)"),
        (4000, "\x1b[2J\n", 5, r"closed by the server with 4000 (\x1b[2J\n)"),
    ],
)
async def test_the_servers_close_is_told(
    code: int, reason: str, status: int, told: str, pipes: Pipes, start_server: StartServer
) -> None:
    async def close(ws: Transaction) -> None:
        await ws.finish(code, reason)

    server = await start_server(close)
    assert await pipes.run("connect", str(server.url)) == status
    assert pipes.told.splitlines()[1:] == [told]


async def test_pings(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo)
    pipes.end_input()
    assert await pipes.run("connect", "--ping", "0.1", "--wait", "0.25", str(server.url)) == 0
    pongs = re.findall(r"^pong after \d+\.\d{3} ms$", pipes.told, re.MULTILINE)
    assert len(pongs) >= 2


async def test_a_reader_that_is_gone_ends_it(pipes: Pipes, start_server: StartServer) -> None:
    async def talk(ws: Transaction) -> None:
        await ws.send("Hello")
        await ws.receive()

    server = await start_server(talk)
    pipes.stop_reading()
    assert await pipes.run("connect", str(server.url)) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_closes(number: signal.Signals, pipes: Pipes, start_server: StartServer) -> None:
    ends: list[object] = []

    async def talk(ws: Transaction) -> None:
        await ws.send("Hello")
        async for _ in ws:
            pass
        ends.append(ws.closed)

    async def interrupt() -> None:
        await pipes.read_line()
        signal.raise_signal(number)

    server = await start_server(talk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt)
        assert await pipes.run("connect", str(server.url)) == 128 + number
    await server.aclose()
    assert ends == [(1000, "")]
    assert pipes.told.endswith("\nclosed with 1000\n")


async def test_a_refusal(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo, on_request=lambda _: Response(403))
    with pytest.RaisesGroup(pytest.RaisesExc(HandshakeError, match="403"), flatten_subgroups=True):
        await pipes.run("connect", str(server.url))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ftp://127.0.0.1/"], "unsupported URL scheme 'ftp'"),
        (["-H", "nonsense", "ws://127.0.0.1/"], "must be 'NAME: VALUE', not 'nonsense'"),
        (["--proxy", "ftp://127.0.0.1/", "ws://127.0.0.1/"], "proxy: "),
        (["--ping", "0", "ws://127.0.0.1/"], "must be a positive number of seconds"),
        (["--text", "--json", "ws://127.0.0.1/"], "not allowed with"),
        (["--auth", "secret", "ws://127.0.0.1/"], "argument --auth: must be USER:PASSWORD\n"),
        (["-H", "Ba d: x", "ws://127.0.0.1/"], "connect: error: header name must be a token"),
        (["-s", "a b", "ws://127.0.0.1/"], "connect: error: subprotocol"),
        (["--proxy", "http://127.0.0.1:1", "--unix", "x", "ws://127.0.0.1/"], "cannot both lead to the server"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["connect", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_no_connection_is_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "ws://127.0.0.1:1/"]) == 3
    assert capsys.readouterr().err == "trio-pyjo-ws: all attempts to connect to 127.0.0.1:1 failed\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["connect", "ws://Ada:secret@[fe80::1%25no]/"], "cannot connect to ws://[fe80::1]/: "),
        (["bench", "ws://Ada:secret@[fe80::1%25no]/"], "cannot connect to ws://...@[fe80::1%25no]/: "),
        (["connect", "--unix", "/no/such", "localhost"], "cannot connect to /no/such: No such file or directory\n"),
    ],
)
def test_what_cannot_be_connected_to_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 3
    assert capsys.readouterr().err.startswith(f"trio-pyjo-ws: {message}")


async def test_the_connection_is_lost_while_lines_come(pipes: Pipes, start_server: StartServer) -> None:
    async def leave(ws: Transaction) -> None:
        await ws.receive()
        raise RuntimeError("1011")

    server = await start_server(leave)
    pipes.type("a line\n" * 5_000)
    assert await pipes.run("connect", str(server.url)) == 5


async def test_typing(start_server: StartServer) -> None:
    server = await start_server(echo)
    with open_typist() as typist:
        async with trio.open_nursery() as nursery:
            statuses: list[int] = []

            async def run() -> None:
                statuses.append(await typist.run("connect", str(server.url)))

            nursery.start_soon(run)
            await typist.wait_for(r"\d\d:\d\d:\d\d\.\d{3} · connected to ws://127\.0\.0\.1:\d+/\n")
            typist.type("Hello\r")
            await typist.wait_for(r"\d\d:\d\d:\d\d\.\d{3} → text 5 Hello\n(.*\n)?.*:\d\d\.\d{3} ← text 5 Hello\n")
            typist.type('{"a":[1,2]}\r')
            await typist.wait_for(r'← json 11 \{"a": \[1, 2\]\}\n')
            typist.type("\x1b[200~two\nlines\x1b[201~\r")
            await typist.wait_for("← text 9 two\nlines\n")
            typist.type("\x04")
            await typist.wait_for(r"· closed with 1000\n")
    assert statuses == [0]


async def test_control_c_while_typing(start_server: StartServer) -> None:
    server = await start_server(echo)
    statuses: list[int] = []

    async def run() -> None:
        statuses.append(await typist.run("connect", str(server.url)))

    with open_typist() as typist:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await typist.wait_for("connected")
            typist.type("\x03")
        assert "· closed with 1000\n" in typist.seen
    assert statuses == [130]


async def test_typing_what_does_not_parse(start_server: StartServer) -> None:
    server = await start_server(echo)
    with open_typist() as typist, trio.CancelScope():
        typist.type("xyz\rff 00\r")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(typist.run, "connect", "--binary", str(server.url))
            await typist.wait_for("not sent: invalid hexadecimal: 'xyz'")
            await typist.wait_for("→ binary 2 ff 00\n")
            await typist.wait_for("← binary 2 ff 00\n")
            typist.type("\x04")


async def test_the_server_closes_while_somebody_types(start_server: StartServer) -> None:
    async def close(ws: Transaction) -> None:
        await ws.receive()
        await ws.finish(4000, "enough")

    server = await start_server(close)
    with open_typist() as typist:
        typist.type("Hello\rhalf a l")
        assert await typist.run("connect", str(server.url)) == 5
        assert " · closed by the server with 4000 (enough)\n" in typist.seen


async def test_as_a_program_in_a_pipe(start_server: StartServer) -> None:
    server = await start_server(echo)
    done = await trio.run_process(
        [sys.executable, "-m", "trio_pyjo_ws", "connect", "--wait", "0.2", str(server.url)],
        stdin=b"Hello\n",
        capture_stdout=True,
        capture_stderr=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.stdout == b"Hello\n"
    assert done.stderr.decode() == f"connected to {server.url}\nclosed with 1000\n"
    assert done.returncode == 0
