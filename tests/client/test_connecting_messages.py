"""What connecting says when it goes wrong: which URL it was, what it waited for, and what to do."""

from __future__ import annotations

import asyncio  # noqa: TID251 - to be told that it does not do
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import HandshakeError, Transaction, connect, open_websocket, reconnecting
from trio_pyjo_ws.testing import MemoryServer, serve_memory

from .test_connecting import Peer, is_closed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    Script = Callable[[Peer], Awaitable[object]]


async def raised(
    url: str, script: Script, kind: type[Exception] = HandshakeError, **options: Any
) -> tuple[str, Exception]:
    """What connecting to ``url`` raises if its other side follows ``script``; the stream must be closed in the end."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, Peer(theirs))
        with pytest.raises(kind) as found:
            await connect(nursery, url, stream=ours, **options)
        assert await is_closed(ours)
        nursery.cancel_scope.cancel()
    return str(found.value), found.value


def answering(response: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.answer(response)
        await peer.stream.aclose()

    return script


def leave(peer: Peer) -> Awaitable[object]:
    return peer.stream.aclose()


async def never(_: Transaction) -> None:
    raise AssertionError("it must not be open")


FORBIDDEN = answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s"

# Which URL it was


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://test", "ws://test/"),
        ("WS://Test:80/a/b", "ws://test/a/b"),
        ("ws://test:8080/a?token=secret", "ws://test:8080/a?..."),
        ("ws://ada:secret@test/", "ws://test/"),
        ("ws://[::1]:8080/", "ws://[::1]:8080/"),
        ("ws://bücher.test/ü", "ws://xn--bcher-kva.test/%C3%BC"),
    ],
)
async def test_a_handshake_error_names_the_url_without_what_is_secret(url: str, shown: str) -> None:
    message, _ = await raised(url, FORBIDDEN)
    assert message == f"{shown}: expected status 101, found 403 Forbidden"


async def test_after_a_redirect_it_names_where_that_began(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(host: str, port: int, **_: Any) -> Any:
        ours, theirs = trio.testing.memory_stream_pair()
        found = answering(b"HTTP/1.1 302 Found\r\nLocation: ws://b.test/there?key=secret\r\n\r\n")
        nursery.start_soon(found if host == "a.test" else FORBIDDEN, Peer(theirs))
        return ours

    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    with pytest.raises(HandshakeError) as found:
        await connect(nursery, "ws://ada:secret@a.test/here", proxy=None)
    url = "ws://b.test/there?..., redirected from ws://a.test/here"
    assert str(found.value) == f"{url}: expected status 101, found 403 Forbidden"


async def test_a_target_that_is_used_again_names_the_url_of_its_own_attempt(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server: MemoryServer = await nursery.start(serve_memory, {"/chat": never})
    with pytest.raises(HandshakeError, match=r"^ws://test/nowhere: expected status 101, found 404"):
        async with reconnecting("ws://test/nowhere", open_stream=server.open_stream) as connections:
            await connections.__anext__()


# What it waited for


async def say_nothing(*_: object, **__: object) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("url", "awaited"), [("ws://test/", "the response"), ("wss://test/", "TLS")], ids=["response", "TLS"]
)
async def test_a_timeout_names_the_url_and_what_was_awaited(url: str, awaited: str, autojump_clock: MockClock) -> None:
    message, _ = await raised(
        url, say_nothing, trio.TooSlowError, open_timeout=2.5, ssl_context=ssl.create_default_context()
    )
    assert message == f"{url} was not open after 2.5 seconds (open_timeout): still waiting for {awaited}"


async def test_it_may_be_the_connection(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio, "open_tcp_stream", say_nothing)
    with pytest.raises(trio.TooSlowError, match=r"^ws://test/ was .* 10 seconds .*: still waiting for a connection$"):
        await connect(nursery, "ws://test", proxy=None)


async def test_the_callers_own_timeout_stays_the_callers(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(trio.TooSlowError) as found:
        with trio.fail_after(1):
            await connect(nursery, "ws://test", stream=ours)
    assert str(found.value) == ""


async def test_a_timeout_of_open_stream_is_not_taken_for_open_timeout(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def open_stream() -> trio.abc.Stream:
        with trio.fail_after(1):
            await trio.sleep_forever()
        raise AssertionError("not reached")

    with pytest.raises(trio.TooSlowError) as found:
        await connect(nursery, "ws://test", open_stream=open_stream)
    assert str(found.value) == ""
    assert trio.current_time() == 1


# ws or wss


@pytest.mark.parametrize(
    ("url", "script", "guess"),
    [
        # What nginx, Go and Apache say, and a server of TLS that says it in TLS.
        ("ws://test/", b"<center>The plain HTTP request was sent to HTTPS port</center>", " (is it wss://?)"),
        ("ws://test/", b"Client sent an HTTP request to an HTTPS server.\n", " (is it wss://?)"),
        ("ws://test/", b"This combination of host and port requires TLS.", " (is it wss://?)"),
        ("ws://test/", b"no Host", ""),
        ("ws://test:443/", b"no Host", " (is it wss://?)"),
        ("ws://test:443/", leave, " (is it wss://?)"),
        ("ws://test/", leave, ""),
        ("ws://test:443/", FORBIDDEN, ""),
        ("wss://test:80/", leave, " (is it ws://?)"),
        ("wss://test/", leave, ""),
    ],
)
async def test_a_mix_up_of_the_schemes_is_guessed(url: str, script: Script | bytes, guess: str) -> None:
    if isinstance(script, bytes):
        script = answering(BAD_REQUEST % (len(script), script))
    message, _ = await raised(url, script)
    assert message.endswith(guess)
    assert ("is it" in message) == bool(guess)
    assert message.count("is it") <= 1


@pytest.mark.parametrize("url", ["ws://test/", "ws://test:443/"])
async def test_it_is_not_guessed_twice(url: str) -> None:
    message, _ = await raised(url, answering(b"\x15\x03\x01\0\x02\x02\x46"))
    assert message.endswith("found TLS (is it wss://?)")


# A stream in place of TCP


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("how", [connect, open_websocket])
async def test_a_function_may_open_the_stream(how: Any, is_async: bool, nursery: trio.Nursery) -> None:
    async def greet(ws: Transaction) -> None:
        await ws.send("Hello!")

    async def open_stream() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return server.open_stream()

    server: MemoryServer = await nursery.start(serve_memory, greet)
    given = open_stream if is_async else server.open_stream
    if how is connect:
        ws = await connect(nursery, "ws://test/", open_stream=given)
        assert await ws.receive() == "Hello!"
        await ws.aclose()
    else:
        async with open_websocket("ws://test/", open_stream=given) as ws:
            assert await ws.receive() == "Hello!"


async def test_what_it_raises_comes_out(nursery: trio.Nursery) -> None:
    async def open_stream() -> trio.abc.Stream:
        raise HandshakeError("the tunnel's")

    with pytest.raises(HandshakeError) as found:
        await connect(nursery, "ws://test", open_stream=open_stream)
    assert str(found.value) == "the tunnel's"
    assert found.value.__context__ is None


async def test_over_it_no_redirect_is_followed(nursery: trio.Nursery) -> None:
    def open_stream() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(answering(b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n"), Peer(theirs))
        return ours

    with pytest.raises(HandshakeError, match="found 302 Found"):
        await connect(nursery, "ws://test", open_stream=open_stream)


# What to do


async def test_swapped_arguments_are_named(nursery: trio.Nursery) -> None:
    message = r"the first argument must be a nursery, as in connect\(nursery, url\), not 'ws://test'"
    with pytest.raises(TypeError, match=message):
        await connect("ws://test", nursery)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", [b"ws://test", Path("/chat"), None])
async def test_a_url_is_a_str(url: Any, nursery: trio.Nursery) -> None:
    for call in (lambda: connect(nursery, url), lambda: open_websocket(url).__aenter__()):
        with pytest.raises(TypeError, match=f"URL must be a str, not {type(url).__name__}"):
            await call()
    with pytest.raises(TypeError, match=f"URL must be a str, not {type(url).__name__}"):
        reconnecting(url)


async def test_a_nursery_in_the_place_of_the_url_is_named(nursery: trio.Nursery) -> None:
    url: Any
    for url, *misplaced in ([nursery], [nursery, "ws://test"], ["ws://test", nursery]):
        message = r"^open_websocket opens its own nursery: write open_websocket\(url\), or connect\(nursery, url\)$"
        with pytest.raises(TypeError, match=message):
            await open_websocket(url, *misplaced).__aenter__()
        with pytest.raises(TypeError, match=r"^reconnecting opens its own nursery: write reconnecting\(url\), or "):
            reconnecting(url, *misplaced)


async def test_a_host_and_a_port_in_place_of_the_url_are_named() -> None:
    misplaced: Any = [8000, "/chat"]
    example = r'\("ws://localhost:8000/chat", subprotocols=\["chat"\]\); not 8000$'
    with pytest.raises(TypeError, match=rf"^open_websocket takes a URL, .* as in open_websocket{example}"):
        await open_websocket("localhost", *misplaced).__aenter__()
    with pytest.raises(TypeError, match=rf"^reconnecting takes a URL, .* as in reconnecting{example}"):
        reconnecting("localhost", *misplaced)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X-Room": 5}, r"value of header 'X-Room' must be a str, not int \(write str"),
        ({"X-Room": None}, r"value of header 'X-Room' must be a str, not NoneType \(leave it out"),
        ([("X-Room", b"5")], r"value of header 'X-Room' must be a str, not bytes \(write value\.decode"),
        ({b"X-Room": "5"}, "name of header must be a str, not bytes"),
        ("X-Room: 5", "headers must be a mapping or pairs, not str"),
        (b"X-Room: 5", "headers must be a mapping or pairs, not bytes"),
    ],
)
async def test_headers_are_a_mapping_or_pairs_of_str(headers: Any, message: str, nursery: trio.Nursery) -> None:
    with pytest.raises(TypeError, match=message):
        await connect(nursery, "ws://test", additional_headers=headers)


async def test_a_stream_is_one_of_trios(nursery: trio.Nursery) -> None:
    with socket.socket() as sock, pytest.raises(TypeError, match=r"stream must be a trio\.abc\.Stream, not <socket"):
        await connect(nursery, "ws://test", stream=sock)  # type: ignore[arg-type]


async def use_connect() -> None:
    await connect(None, "ws://test")  # type: ignore[arg-type]


async def use_open_websocket() -> None:
    async with open_websocket("ws://test"):
        raise AssertionError("it must not be open")


async def use_reconnecting() -> None:
    async with reconnecting("ws://test"):
        raise AssertionError("it must not be open")


@pytest.mark.parametrize("main", [use_connect, use_open_websocket, use_reconnecting])
def test_on_asyncio_it_says_how_to_run_the_program(main: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match=r"start the program with trio\.run\(main\), not with asyncio\.run\(main"):
        asyncio.run(main())
