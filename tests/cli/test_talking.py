"""What `connect` does with a connection, and with the next: options, commands that are typed, reconnecting."""

from __future__ import annotations

import re
import signal
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_pyjo_ws import Close, ConnectionClosed, HandshakeError, Response, open_unix_listener, serve_listeners
from trio_pyjo_ws.cli.connect import client_options, talk
from trio_pyjo_ws.cli.main import make_parser
from trio_pyjo_ws.cli.screens import Pipes

from .program import echo
from .typist import Typist, open_typist

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trio_pyjo_ws import Server, Transaction

    from . import program

    StartServer = Callable[..., Awaitable[Server]]


# Options


async def test_messages_of_the_command_line_are_sent_in_place_of_standard_input(
    pipes: program.Pipes, start_server: StartServer
) -> None:
    server = await start_server(echo)
    pipes.type("nobody reads this\n")
    arguments = ["-x", "one", "--execute", "/ping", "--wait", "0.1"]  # a command only if it is typed
    assert await pipes.run("connect", *arguments, str(server.url)) == 0
    assert pipes.read_rest() == "one\n/ping\n"


async def test_one_message_is_waited_for(
    pipes: program.Pipes, start_server: StartServer, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer(ws: Transaction) -> None:
        message = await ws.receive()
        await trio.sleep(60)  # more than the silence that ends a conversation otherwise
        for _ in range(3):
            await ws.send(message)
        await trio.sleep_forever()

    server = await start_server(answer)
    assert await pipes.run("connect", "-x", "Hello", "-1", str(server.url)) == 0
    assert pipes.read_rest() == "Hello\n"


async def test_no_message_where_one_is_asked_for_is_a_failure(pipes: program.Pipes, start_server: StartServer) -> None:
    async def leave(ws: Transaction) -> None:
        await ws.receive()

    server = await start_server(leave)
    assert await pipes.run("connect", "-x", "Hello", "--one-message", str(server.url)) == 1
    assert pipes.told.endswith("closed by the server with 1000\nno message has come\n")


async def test_no_message_in_time_is_a_failure_too(
    pipes: program.Pipes, start_server: StartServer, autojump_clock: trio.testing.MockClock
) -> None:
    async def keep_silent(_: Transaction) -> None:
        await trio.sleep_forever()

    server = await start_server(keep_silent)
    assert await pipes.run("connect", "-x", "Hello", "-1", "--wait", "30", str(server.url)) == 1


async def test_a_message_may_be_as_large_as_is_said(pipes: program.Pipes, start_server: StartServer) -> None:
    server = await start_server(echo, max_websocket_size=10_000)
    arguments = ["connect", "-x", "x" * 2_000, "-1", "--max-size"]
    assert await pipes.run(*arguments, "2k", str(server.url)) == 0
    assert await pipes.run(*arguments, "1999", str(server.url)) == 1
    assert "\nclosed with 1009 (a message of more than 1999 bytes)\n" in pipes.told  # by this side


async def test_a_unix_socket(
    pipes: program.Pipes, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # has no way there, and is not asked
    listener = open_unix_listener(tmp_path / "socket")
    server: Server = await nursery.start(partial(serve_listeners, echo, [listener]))
    assert await pipes.run("connect", "-x", "Hello", "-1", "--unix", str(listener.path), "service") == 0
    assert pipes.read_rest() == "Hello\n"
    await server.aclose()


async def test_the_headers_of_the_handshake(pipes: program.Pipes, start_server: StartServer) -> None:
    server = await start_server(echo, subprotocols=["chat"])
    pipes.end_input()
    arguments = ["-v", "-s", "chat", "-H", "X-One: 1", "--wait", "0.01"]
    assert await pipes.run("connect", *arguments, f"{server.url}path?a=b") == 0
    sent, _, got = pipes.told.partition("\n<")
    lines = sent.splitlines()
    assert lines[0] == "> GET /path?a=b HTTP/1.1"
    assert "> X-One: 1" in lines
    assert "> Sec-WebSocket-Protocol: chat" in lines
    assert got.startswith(" HTTP/1.1 101 Switching Protocols\n< ")
    assert "\n< Sec-WebSocket-Protocol: chat\n" in got


async def test_those_of_a_refusal_too_with_its_body(pipes: program.Pipes, start_server: StartServer) -> None:
    body = "\x1b[2J" + "no\n" * 1_000
    server = await start_server(echo, on_request=lambda _: Response(403, {"X-Why": "closed"}, body))
    with pytest.RaisesGroup(pytest.RaisesExc(HandshakeError, match="403"), flatten_subgroups=True):
        await pipes.run("connect", "--verbose", str(server.url))
    assert pipes.told.startswith("< HTTP/1.1 403 Forbidden\n< ")
    assert "\n< X-Why: closed\n" in pipes.told
    assert "\n\n\\x1b[2Jno\nno\n" in pipes.told
    assert re.search(r"… \d+ more\n$", pipes.told.replace(",", ""))


async def test_a_number_that_json_does_not_have_is_not_sent(pipes: program.Pipes, start_server: StartServer) -> None:
    server = await start_server(echo)
    pipes.type("[NaN]\n")
    assert await pipes.run("connect", "--json", "--wait", "0.01", str(server.url)) == 1
    assert pipes.told.splitlines()[1].startswith("not sent: invalid JSON: '[NaN]'")


# Commands


@asynccontextmanager
async def typing(status: int, *argv: str) -> AsyncIterator[Typist]:
    """Somebody who types, until the program exits with this status."""
    statuses: list[int] = []

    async def run() -> None:
        statuses.append(await typist.run("connect", *argv))

    with open_typist() as typist, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await typist.wait_for("connected")
            yield typist
    assert statuses == [status]


async def test_a_ping_is_typed(start_server: StartServer) -> None:
    server = await start_server(echo)
    async with typing(0, str(server.url)) as typist:
        typist.type("/ping\r")
        await typist.wait_for(r"· pong after \d+\.\d{3} ms\n")
        typist.type("//ping\r")
        await typist.wait_for("← text 5 /ping\n")
        typist.type("/pings\r")  # no command: many servers have some of their own
        await typist.wait_for("← text 6 /pings\n")
        typist.type("\x04")


@pytest.mark.parametrize(
    ("typed", "close"),
    [
        ("/close", Close(1000, "")),
        ("/close 4000", Close(4000, "")),
        ("/close 1001 see you  later", (1001, "see you  later")),
    ],
)
async def test_a_close_is_typed(typed: str, close: Close, start_server: StartServer) -> None:
    closes: list[Close | None] = []

    async def listen(ws: Transaction) -> None:
        with suppress(ConnectionClosed):
            async for _ in ws:
                pass
        closes.append(ws.closed)

    server = await start_server(listen)
    async with typing(0, str(server.url)) as typist:
        typist.type(f"{typed}\r")
        await typist.wait_for(f"· closed with {close[0]}")
    await server.aclose()
    assert closes == [close]


@pytest.mark.parametrize("wrong", ["x", "1006", "99999999999999999999", "1000 " + "x" * 124])
async def test_a_close_that_cannot_be_sent_is_not(wrong: str, start_server: StartServer) -> None:
    server = await start_server(echo)
    async with typing(0, str(server.url)) as typist:
        typist.type(f"/close {wrong}\r")
        await typist.wait_for(r"not closed: .*\(expected /close CODE REASON\)")
        typist.type("Hello\r")
        await typist.wait_for("← text 5 Hello")
        typist.type("\x04")


async def test_a_ping_that_is_not_answered_ends_with_the_connection(start_server: StartServer) -> None:
    async def leave(ws: Transaction) -> None:
        await ws.receive()

    server = await start_server(leave)
    async with typing(0, str(server.url)) as typist:
        typist.type("/ping\rHello\r/ping\r")
        await typist.wait_for("closed by the server with 1000")


# One connection after the other


async def test_what_was_read_goes_over_the_next_connection(
    pipes: program.Pipes, start_server: StartServer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    tell, got = trio.open_memory_channel[str | bytes](0)

    async def listen(ws: Transaction) -> None:
        message = await ws.receive()
        await tell.send(message)
        if message == "2":
            await ws.send("enough")
            await trio.sleep_forever()

    server = await start_server(listen)
    statuses: list[int] = []

    async def run() -> None:
        statuses.append(await pipes.run("connect", "--reconnect", "--wait", "100", str(server.url)))

    async with trio.open_nursery() as own:
        own.start_soon(run)
        for number in range(3):
            pipes.type(f"{number}\n")
            assert await got.receive() == str(number)
        assert await pipes.read_line() == "enough"
        pipes.end_input()
    assert statuses == [0]
    assert pipes.told.count("connected to ") == 3
    assert pipes.told.endswith("\nclosed with 1000\n")


class Unlucky(Pipes):
    """A screen whose first message comes just when the connection is lost."""

    def __init__(self) -> None:
        super().__init__("text")
        self.attempts = 0
        self.got: list[str | bytes] = []

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        self.attempts += 1
        if self.attempts == 1:
            raise ConnectionClosed(Close(1006, "lost"))
        await super().send(ws, message)

    async def received(self, message: str | bytes) -> None:
        self.got.append(message)


async def test_a_message_that_could_not_be_sent_goes_over_the_next_connection(
    start_server: StartServer, autojump_clock: trio.testing.MockClock
) -> None:
    server = await start_server(echo)
    screen = Unlucky()
    arguments = make_parser().parse_args(["connect", "-x", "one", "-x", "two", "--reconnect", str(server.url)])
    assert await talk(screen, arguments, client_options(arguments)) == 0
    assert screen.got == ["one", "two"]


class Interrupted(Unlucky):
    """A screen at which a signal comes just when the connection is open."""

    async def note(self, text: str) -> None:
        if text.startswith("connected"):
            signal.raise_signal(signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        await ws.send(message)


async def test_a_signal_between_connecting_and_talking_counts(start_server: StartServer) -> None:
    server = await start_server(echo)
    arguments = make_parser().parse_args(["connect", "-x", "one", "--wait", "inf", str(server.url)])
    with trio.fail_after(10):
        assert await talk(Interrupted(), arguments, client_options(arguments)) == 128 + signal.SIGTERM


async def test_a_server_that_is_not_there_is_tried_again(
    pipes: program.Pipes, nursery: trio.Nursery, start_server: StartServer, autojump_clock: trio.testing.MockClock
) -> None:
    attempts = 0

    def answer(_: Transaction) -> Response | None:
        nonlocal attempts
        attempts += 1
        return Response(503 if attempts < 3 else 200)

    server = await start_server(echo, on_request=answer)
    with pytest.RaisesGroup(pytest.RaisesExc(HandshakeError, match="200"), flatten_subgroups=True):
        await pipes.run("connect", "--reconnect", str(server.url))
    lines = pipes.told.splitlines()
    assert len(lines) == 2
    assert all("503" in line and line.endswith("; trying again") for line in lines)


async def test_a_signal_ends_the_waiting(pipes: program.Pipes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raise_when_told, pipes, "trying again")
        assert await pipes.run("connect", "--reconnect", "ws://127.0.0.1:1/") == 128 + signal.SIGTERM


async def raise_when_told(pipes: program.Pipes, what: str) -> None:
    with trio.fail_after(10):
        while what not in pipes.told:
            await trio.lowlevel.checkpoint()
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x04", 0)])
async def test_so_does_the_end_of_typing(key: str, status: int) -> None:
    with open_typist() as typist:
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await typist.wait_for("trying again")
                typist.type(key)

            nursery.start_soon(leave)
            assert await typist.run("connect", "--reconnect", "ws://127.0.0.1:1/") == status
