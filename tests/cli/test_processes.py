"""`serve --exec`: lines to and from a process, and what its environment says."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from trio_pyjo_ws import open_websocket
from trio_pyjo_ws.cli import processes

from .test_serve import end_of, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio_pyjo_ws import Server, Transaction

    from .program import Pipes

    StartServer = Callable[..., Awaitable[Server]]


def python(program: str) -> str:
    return f"{sys.executable} -uc '{program}'"


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
        assert ws.closed == (1000, "")


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
    monkeypatch.setattr(processes, "EXEC_GRACE", 0.01)
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


TELL = python("import json, os; print(json.dumps(dict(os.environ)))")


async def test_the_environment_tells_about_the_request(pipes: Pipes) -> None:
    async with running(pipes, "--exec", TELL) as url:
        headers = [("X-One", "1"), ("x-one", "2"), ("User-Agent", "a \xe4\xff")]
        target = f"{url}chat/a%20%C3%A4?room=1&x=%20"
        async with open_websocket(target, additional_headers=headers, origin="http://page.test") as ws:
            told = json.loads(await ws.receive())
            port = str(ws.local_port)
    expected = {
        "AUTH_TYPE": "",
        "CONTENT_LENGTH": "",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_HOST": url.removeprefix("ws://").rstrip("/"),
        "HTTP_ORIGIN": "http://page.test",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_USER_AGENT": "a \udce4\udcff",  # as Python shows bytes that are not UTF-8
        "HTTP_X_ONE": "1, 2",
        "PATH": os.environ["PATH"],
        "PATH_INFO": "/chat/a ä",
        "QUERY_STRING": "room=1&x=%20",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_HOST": "127.0.0.1",
        "REMOTE_PORT": port,
        "REMOTE_USER": "",
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/chat/a%20%C3%A4?room=1&x=%20",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": url.rstrip("/").rpartition(":")[2],
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    assert {name: told.get(name) for name in expected} == expected
    assert told["SERVER_SOFTWARE"].startswith("trio-pyjo-ws/")
    assert "HTTPS" not in told


async def test_each_connection_has_an_identifier(pipes: Pipes) -> None:
    async with running(pipes, "--exec", TELL) as url:
        found = set()
        for _ in range(2):
            async with open_websocket(url) as ws:
                found.add(json.loads(await ws.receive())["UNIQUE_ID"])
    assert len(found) == 2


async def test_what_a_client_must_not_set_it_does_not(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://operator.test")
    monkeypatch.setenv("REMOTE_USER", "the operator")
    headers = {"Proxy": "http://evil.test", "X_Forwarded_For": "10.0.0.1", "X-Good": "1", "X!Odd": "1"}
    async with (
        running(pipes, "--exec", TELL) as url,
        open_websocket(url, additional_headers=headers, proxy=None) as ws,
    ):
        told = json.loads(await ws.receive())
    assert told["HTTP_PROXY"] == "http://operator.test"
    assert told["REMOTE_USER"] == ""
    assert told["HTTP_X_GOOD"] == "1"
    assert not {name for name in told if "FORWARDED" in name or "ODD" in name}


@pytest.mark.parametrize("path", ["%00", "%FF", "%F0%9F%98"])
async def test_a_path_that_no_variable_can_hold(path: str, pipes: Pipes) -> None:
    async with running(pipes, "--exec", TELL) as url, open_websocket(f"{url}{path}") as ws:
        told = json.loads(await ws.receive())
    assert told["PATH_INFO"] == "/\ufffd"
    assert told["REQUEST_URI"] == f"/{path}"


@pytest.mark.parametrize(
    ("host", "secure", "expected"),
    [
        ("example.org", False, ("example.org", "80")),
        ("example.org", True, ("example.org", "443")),
        ("[::1]:8443", True, ("::1", "8443")),
        ("not a host", False, ("127.0.0.1", "PORT")),
    ],
)
async def test_the_server_is_called_as_the_client_calls_it(
    host: str, secure: bool, expected: tuple[str, str], start_server: StartServer
) -> None:
    found: list[dict[str, str]] = []

    async def look(ws: Transaction) -> None:
        found.append(processes.variables(ws, secure=secure))

    server = await start_server(look)
    async with open_websocket(str(server.url), additional_headers={"Host": host}) as ws:
        await end_of(ws)
    name, port = expected
    assert (found[0]["SERVER_NAME"], found[0]["SERVER_PORT"]) == (name, port.replace("PORT", str(server.port)))
    assert found[0].get("HTTPS") == ("on" if secure else None)
