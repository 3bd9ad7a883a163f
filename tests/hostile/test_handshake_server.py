"""What a client may do to a server in the opening handshake: lines 1 to 17.

Each attack has a neighbour, a connection that is open on the same server. In the end the neighbour must not have
noticed, and nothing of the attack may be left.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import socket
import sys
import tracemalloc
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import pytest
import trio
import trio.testing

from trio_pyjo_ws import Deflate, HandshakeError, Response, Transaction, connect, serve_listeners
from trio_pyjo_ws.handshake.http1 import MAX_HEADER_BYTES, MAX_REQUEST_LINE, ServerHandshake

from ..handshake.steps import growth
from ..service import KEY, REQUEST, Service, echo, read_head, read_to_end, request, start, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock

CHUNK = 4096


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a peer does wrong is no news: nothing is logged above debugging."""
    yield
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@asynccontextmanager
async def attacked(nursery: trio.Nursery, **options: Any) -> AsyncIterator[Service]:
    """A server over streams in memory, with a neighbour."""
    options.setdefault("ping_interval", None)
    service = await start(nursery, echo, **options)
    neighbour = await service.connect(ping_interval=None)
    await trio.testing.wait_all_tasks_blocked()
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield service
    await trio.testing.wait_all_tasks_blocked()
    await neighbour.send("still here")
    assert await neighbour.receive() == "still here"
    assert len(service.server.connections) == service.server._service.sessions == 1
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living <= tasks


async def answer(nursery: trio.Nursery, data: bytes, **options: Any) -> bytes:
    """What the server answers, all of it, in whatever pieces the request comes."""
    answers = []
    async with attacked(nursery, **options) as service:
        for size in (len(data), 1000, 1) if len(data) < 2000 else (len(data), 1000):
            stream = service.dial()
            for index in range(0, len(data), size):
                try:
                    await stream.send_all(data[index : index + size])
                except trio.BrokenResourceError:  # It was refused before its end.
                    break
                if size > 1:
                    await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(10):
                answers.append(re.sub(rb"\r\nDate: [^\r]+", b"", await read_to_end(stream)))
    assert len(set(answers)) == 1
    return answers[0]


async def endless(service: Service, beginning: bytes, filling: bytes) -> tuple[bytes, int]:
    """The answer to a request that goes on until there is one, and how many bytes it took."""
    stream = service.dial()
    await stream.send_all(beginning)
    sent = len(beginning)
    filling = filling * (CHUNK // len(filling))
    while sent < 100 * MAX_HEADER_BYTES:
        await trio.testing.wait_all_tasks_blocked()
        try:
            await stream.send_all(filling)
        except trio.BrokenResourceError:
            break
        sent += len(filling)
    return await read_to_end(stream), sent


async def test_01_one_byte_a_second_is_dropped_when_the_open_timeout_ends(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with attacked(nursery, open_timeout=10) as service:
        stream = service.dial()
        await trio.sleep(0.5)
        sent = 0
        with suppress(trio.BrokenResourceError):
            for byte in REQUEST:
                await stream.send_all(bytes([byte]))
                sent += 1
                await trio.sleep(1)
        assert sent == 10
        assert await read_to_end(stream) == b""


async def test_01_one_that_reads_no_answer_is_dropped_when_the_open_timeout_ends(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with attacked(nursery, open_timeout=10) as service:
        stream, theirs = trio.testing.lockstep_stream_pair()
        service.listener.offer(theirs)
        await stream.send_all(REQUEST)
        await trio.sleep(10.5)
        assert service.server._service.sessions == 1


@pytest.mark.parametrize(
    "filling",
    [b"a", b"A: b\r\n", b"A: " + b"b" * 1000 + b"\r\n", b": ", b"\r\n"],
    ids=lambda filling: repr(filling)[:12],
)
async def test_02_endless_header_bytes_are_431_within_64_kib(nursery: trio.Nursery, filling: bytes) -> None:
    async with attacked(nursery) as service:
        tracemalloc.start()
        try:
            response, sent = await endless(service, b"GET / HTTP/1.1\r\nA: ", filling)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The empty line, after which nothing is missing but Host, is not endless.
    assert status(response) == (400 if filling == b"\r\n" else 431)
    assert sent <= MAX_HEADER_BYTES + 2 * CHUNK
    assert peak < 8 * MAX_HEADER_BYTES


async def test_03_more_than_128_headers_are_431(nursery: trio.Nursery) -> None:
    assert status(await answer(nursery, request("GET / HTTP/1.1", *["A: b"] * 124))) == 431


async def test_03_128_headers_are_not(nursery: trio.Nursery) -> None:
    async with attacked(nursery) as service:
        stream = service.dial()
        await stream.send_all(request("GET / HTTP/1.1", *["A: b"] * 123))
        assert status(await read_head(stream)) == 101
        await stream.aclose()


@pytest.mark.parametrize("line", ["GET /{} HTTP/1.1\r\n", "{}", "GET /{}"])
async def test_04_a_long_request_line_is_414(nursery: trio.Nursery, line: str) -> None:
    assert status(await answer(nursery, line.format("a" * (MAX_REQUEST_LINE + 2)).encode())) == 414


async def test_04_how_long_it_may_be_is_an_option(nursery: trio.Nursery) -> None:
    line = f"GET /?token={'a' * 2 * MAX_REQUEST_LINE} HTTP/1.1"
    async with attacked(nursery, max_request_line=len(line)) as service:
        stream = service.dial()
        await stream.send_all(request(line))
        assert status(await read_head(stream)) == 101
        await stream.aclose()
        assert status(await service.ask(request(line.replace("a ", "aa ")))) == 414


async def test_04_an_endless_request_line_is_414_at_its_limit(nursery: trio.Nursery) -> None:
    async with attacked(nursery) as service:
        response, sent = await endless(service, b"GET /", b"a")
    assert status(response) == 414
    assert sent <= MAX_REQUEST_LINE + 2 * CHUNK


class Counted(bytearray):
    """Counts the bytes that are looked at."""

    looked_at = 0

    def find(self, sub: Any, start: int = 0, end: int = sys.maxsize) -> int:  # type: ignore[override]
        self.looked_at += max(min(end, len(self)) - start, 0)
        return super().find(sub, start, end)

    def count(self, sub: Any, start: int = 0, end: int = sys.maxsize) -> int:  # type: ignore[override]
        self.looked_at += max(min(end, len(self)) - start, 0)
        return super().count(sub, start, end)

    def __bytes__(self) -> bytes:
        self.looked_at += len(self)
        return bytes(memoryview(self))


@pytest.mark.parametrize("of", ["request line", "headers", "one header"])
def test_05_byte_wise_delivery_takes_linear_work(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    receive = h11.Connection.receive_data
    monkeypatch.setattr(
        h11.Connection, "receive_data", lambda self, data: [fed.append(len(data)), receive(self, data)][1]
    )
    data = {
        "request line": request(f"GET /{'a' * (MAX_REQUEST_LINE - 20)} HTTP/1.1"),
        "headers": request("GET / HTTP/1.1", *[f"A{number}: {'b' * 400}" for number in range(120)]),
        "one header": request("GET / HTTP/1.1", f"A: {'b' * 50_000}"),
    }[of]
    handshake = ServerHandshake()
    buffer = handshake._head.buffer = Counted()
    for index in range(len(data)):
        handshake.read(data[index : index + 1])
    assert handshake.request is not None
    assert buffer.looked_at < 20 * len(data)
    assert 0 < sum(fed) <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        REQUEST.replace(b"\r\nHost", b"\nHost"),
        REQUEST.replace(b"\r\n", b"\n"),
        REQUEST[:-2] + b"\n",
        REQUEST[:-4] + b"\n\r\n",
        REQUEST.replace(b"Host: ", b"Host:\r\n "),
        REQUEST.replace(b"Host: ", b"Host:\r\n\t"),
        REQUEST.replace(b"\r\nHost", b"\r\n Folded: yes\r\nHost"),
        request(host="a\0b"),
        request(x_any="\0"),
        request("GET / HTTP/1.1", "A\0: b"),
        request("GET /\0 HTTP/1.1"),
    ],
)
async def test_06_bare_lf_obs_fold_and_nul_are_400(nursery: trio.Nursery, data: bytes) -> None:
    assert status(await answer(nursery, data)) == 400


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85"])
@pytest.mark.parametrize("name", ["X-Any", "Origin"])
async def test_07_no_other_character_is_a_line_break(nursery: trio.Nursery, character: str, name: str) -> None:
    value = f"a{character}X-Injected: yes{character}"
    seen: list[Any] = []

    def look(ws: Transaction) -> None:
        seen.append([item for item in ws.req.headers.items() if item[0] in (name, "X-Injected")])

    async with attacked(nursery, on_request=look) as service:
        stream = service.dial()
        await stream.send_all(request("GET / HTTP/1.1", f"{name}: {value}"))
        answered = status(await read_head(stream))
        await stream.aclose()
    # h11 refuses the first two, which some parsers take for the end of a line; the others are nothing special.
    assert answered == (400 if character in "\x0b\x0c" else 101)
    assert seen[1:] == ([] if answered == 400 else [[(name, value)]])


@pytest.mark.parametrize(
    "data",
    [
        request(content_length="5") + b"hello",
        request(content_length="5"),
        request(transfer_encoding="chunked") + b"0\r\n\r\n",
        request(transfer_encoding="chunked"),
        request(transfer_encoding="identity"),
        request(transfer_encoding="gzip, chunked"),
        request(content_length="0", transfer_encoding="chunked") + b"0\r\n\r\n" + REQUEST,  # the smuggler's way
        request("GET / HTTP/1.1", "Content-Length: 0", "Content-Length: 5") + b"hello",
        request(content_length="+5") + b"hello",
        request("POST / HTTP/1.1", content_length="5") + b"hello",
    ],
)
async def test_08_a_body_is_400_and_the_connection_closed(nursery: trio.Nursery, data: bytes) -> None:
    response = await answer(nursery, data)
    assert status(response) == 400
    assert response.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in response


@pytest.mark.parametrize(
    "data",
    [
        request(host=None),
        request("GET / HTTP/1.1", "Host: other"),
        request("GET / HTTP/1.1", "host: test"),
        request(sec_websocket_key=None),
        request("GET / HTTP/1.1", f"Sec-WebSocket-Key: {KEY}"),
        request("GET / HTTP/1.1", f"sec-websocket-key: {KEY[::-1]}"),
    ],
)
async def test_09_host_and_key_stand_there_once_or_it_is_400(nursery: trio.Nursery, data: bytes) -> None:
    assert status(await answer(nursery, data)) == 400


@pytest.mark.parametrize(
    "key",
    [
        "",
        "c2hvcnQ=",
        KEY[:-1],
        KEY + "=",
        KEY[:-2],
        "A" * 24,
        "!" * 24,
        "A" * 21 + "===",
        f"{KEY}, {KEY}",
        "A" * 12 + " " + "A" * 9 + "==",
        "\xff" * 22 + "==",
        "A" * 5000,
    ],
)
async def test_10_a_key_that_is_not_16_bytes_is_400(nursery: trio.Nursery, key: str) -> None:
    assert status(await answer(nursery, request(sec_websocket_key=key))) == 400


@pytest.mark.parametrize("version", ["0", "8", "14", "013", "13.0", "12, 13", "xiii", "\xb9\xb3", "9" * 5000])
async def test_11_another_version_is_426_and_told_the_right_one(nursery: trio.Nursery, version: str) -> None:
    response = await answer(nursery, request(sec_websocket_version=version))
    assert status(response) == 426
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in response


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "get", "OPTIONS", "CONNECT", "X" * 100])
async def test_12_another_method_is_405(nursery: trio.Nursery, method: str) -> None:
    response = await answer(nursery, request(f"{method} / HTTP/1.1"))
    assert status(response) == 405
    assert b"\r\nAllow: GET\r\n" in response


async def test_12_connect_reaches_no_hook_that_could_answer_it_with_200(nursery: trio.Nursery) -> None:
    """h11 sends no 2xx to CONNECT, and raises."""
    asked: list[Transaction] = []

    def is_healthy(ws: Transaction) -> Response:
        asked.append(ws)
        return Response(200, body="healthy\n")

    service = await start(nursery, echo, on_request=is_healthy)
    for target in ("a:1", "/", "http://a/"):
        response = await service.ask(f"CONNECT {target} HTTP/1.1\r\nHost: a:1\r\n\r\n".encode())
        assert status(response) == 405
        assert b"\r\nAllow: GET\r\n" in response
    assert asked == []
    assert status(await service.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")) == 200


async def test_12_a_target_may_be_a_whole_url(nursery: trio.Nursery) -> None:
    """RFC 9112, section 3.2.2: whatever the path means, it means the same."""
    service = await start(nursery, {"/chat": echo})
    for target, expected in (
        ("/chat?a=b", 101),
        ("http://test/chat?a=b", 101),
        ("ws://a/chat", 101),
        ("ws://a/b", 404),
    ):
        stream = service.dial()
        await stream.send_all(request(f"GET {target} HTTP/1.1"))
        assert status(await read_head(stream)) == expected
        await stream.aclose()


LISTS = {
    "spaces": " " * 8192,
    "commas": "," * 8192,
    "both": " ," * 4096,
    "semicolons": "a" + ";" * 8192,
    "parameters": "a" + "; b" * 2730,
    "an open quote": 'a; b="' + "\\\\" * 4096,
}


@pytest.mark.parametrize(
    "name", ["Connection", "Upgrade", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Origin"]
)
@pytest.mark.parametrize("kind", LISTS)
def test_13_a_list_of_nothing_takes_linear_time(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(size: int) -> None:
        data = request("GET / HTTP/1.1", f"{name}: x{LISTS[kind][:size]}x")
        handshake = ServerHandshake()
        with suppress(HandshakeError):
            handshake.read(data)
            handshake.accept(deflate=Deflate())

    assert growth(monkeypatch, answer, 4_096) <= 2.3


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"])
async def test_13_a_list_with_8_kib_of_nothing_is_still_read(nursery: trio.Nursery, name: str) -> None:
    async with attacked(nursery, compression=True, subprotocols=["chat"]) as service:
        stream = service.dial()
        wanted = {"Connection": "upgrade", "Sec-WebSocket-Protocol": "chat"}.get(name, "permessage-deflate")
        await stream.send_all(
            request(
                "GET / HTTP/1.1",
                f"{name}: {' ,' * 4096}{wanted}{', ' * 4096}",
                connection=None if name == "Connection" else "upgrade",
            )
        )
        response = await read_head(stream)
        await stream.aclose()
    assert status(response) == 101
    assert name == "Connection" or f"{name}: {wanted}\r\n".encode() in response


@pytest.mark.parametrize(
    "parameters",
    [
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=abc",
        "server_max_window_bits",
        "server_max_window_bits=010",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=abc",
        "client_max_window_bits; client_max_window_bits",
        "server_no_context_takeover=1",
        "unheard_of",
    ],
)
@pytest.mark.parametrize("next_offer", [False, True])
async def test_14_an_offer_of_impossible_windows_is_declined(
    nursery: trio.Nursery, parameters: str, next_offer: bool
) -> None:
    offers = f"permessage-deflate; {parameters}"
    if next_offer:
        offers += ", permessage-deflate; server_max_window_bits=9"
    async with attacked(nursery, compression=True) as service:
        stream = service.dial()
        await stream.send_all(request(sec_websocket_extensions=offers))
        response = await read_head(stream)
        await stream.aclose()
    assert status(response) == 101
    if next_offer:
        assert b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n" in response
    else:
        assert b"Sec-WebSocket-Extensions" not in response


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://example.org",
        "https://example.org.evil.test",
        "https://example.org, https://evil.test",
        "https://EXAMPLE.org",
        "https://a.example.net.evil.test",
        "https://evil.test/https://a.example.net",
    ],
)
async def test_15_a_foreign_origin_is_403(nursery: trio.Nursery, origin: str | None) -> None:
    origins = ["https://example.org", re.compile(r"https://\w+\.example\.net")]
    service = await start(nursery, echo, origins=origins)
    for own in ("https://example.org", "https://a.example.net"):
        assert (await service.connect(origin=own)).established
    assert status(await service.ask(request(origin=origin))) == 403
    assert len(service.server.connections) == 2


async def test_15_two_origins_are_403_though_one_is_right(nursery: trio.Nursery) -> None:
    service = await start(nursery, echo, origins=["https://example.org"])
    both = ["Origin: https://example.org", "Origin: https://evil.test"]
    for order in (both, both[::-1]):
        assert status(await service.ask(request("GET / HTTP/1.1", *order))) == 403


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_16_frames_that_arrive_with_the_request_are_delivered(
    nursery: trio.Nursery, size: int, compression: bool
) -> None:
    frames = b"\x81\x82\0\0\0\0hi" + b"\x89\x81\0\0\0\0!" + b"\x82\xfe\x10\x00\0\0\0\0" + b"x" * 4096
    data = request(sec_websocket_extensions="permessage-deflate") + frames
    answered = b"\x8a\x01!" + b"\x82\x7e\x10\x00" + b"x" * 4096
    judged = trio.Event()

    async def judge(ws: Transaction) -> None:
        if "Origin" in ws.req.headers:
            await judged.wait()

    async with attacked(nursery, on_request=judge) as service:
        # At once, in pieces, and while the request is being judged.
        for late in (False, True):
            stream = service.dial()
            sent = data.replace(b"\r\n\r\n", b"\r\nOrigin: a\r\n\r\n", 1) if late else data
            for index in range(0, len(sent), size):
                await stream.send_all(sent[index : index + size])
            await trio.testing.wait_all_tasks_blocked()
            judged.set()
            received = await read_head(stream)
            while not received.endswith(answered[-4096:]):
                received += await stream.receive_some()
            assert b"\x81\x02hi" in received
            assert b"\x8a\x01!" in received
            await stream.aclose()


async def test_17_a_flood_of_silent_connections_is_capped(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async with attacked(nursery, max_handshakes=20, open_timeout=5) as service:
        flood = [service.dial() for _ in range(200)]
        await trio.testing.wait_all_tasks_blocked()
        assert service.server._service.sessions == 1 + 20
        honest = await connect(nursery, "ws://test/", stream=service.dial(), open_timeout=None, ping_interval=None)
        assert trio.current_time() == 5  # After the 200, 20 of whom give way each half second.
        await honest.finish()
        for stream in flood:
            assert await read_to_end(stream) == b""


async def test_17_a_flood_of_open_connections_is_capped(nursery: trio.Nursery) -> None:
    async with attacked(nursery, max_connections=20) as service:
        flood = [service.dial() for _ in range(200)]
        for stream in flood:
            await stream.send_all(REQUEST)
        answers = [status(await read_head(stream)) for stream in flood]
        assert answers.count(101) == 19
        assert answers.count(503) == 181
        for stream in flood:
            await stream.aclose()


DESCRIPTORS = Path("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd")


@pytest.fixture
def few_descriptors() -> Iterator[Any]:
    """A function that leaves this process so many descriptors and no more, until the test ends."""
    resource = pytest.importorskip("resource", reason="this system has no bound on descriptors")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(count: int) -> None:
        highest = max(int(path.name) for path in DESCRIPTORS.iterdir())
        # The bound is on the number: what is free below the highest would not be bounded.
        gaps.extend(iter(partial(os.dup, 0), highest + 1))
        os.close(highest + 1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, hard))

    gaps: list[int] = []
    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for gap in gaps:
        os.close(gap)


async def test_17_silent_sockets_do_not_keep_the_last_descriptors(
    nursery: trio.Nursery, few_descriptors: Any, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=50)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    silent = [await trio.open_tcp_stream(*listening.getsockname()) for _ in range(4)]
    honest = await trio.open_tcp_stream(*listening.getsockname())
    few_descriptors(4)
    server = await nursery.start(serve_listeners, echo, [listener])
    await honest.send_all(REQUEST)
    assert status(await read_head(honest)) == 101
    assert trio.current_time() < 1
    assert len(server.connections) == 1
    for stream in silent:
        assert await read_to_end(stream) == b""
        await stream.aclose()
    await honest.aclose()
    assert {record.message[:14] for record in caplog.records} == {"accept failed "}
    caplog.clear()  # This one is news.
    gc.collect()


async def test_17_accepting_goes_on_when_descriptors_return(
    nursery: trio.Nursery, few_descriptors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=50)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    clients = [await trio.open_tcp_stream(*listening.getsockname()) for _ in range(12)]
    for client in clients:
        await client.send_all(REQUEST + b"\x81\x82\0\0\0\0hi")
    few_descriptors(4)
    server = await nursery.start(serve_listeners, echo, [listener])
    with trio.fail_after(10):
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert "accept failed" in caplog.records[0].message
        assert len(server.connections) == 4
        for client in clients:  # One after the other is served, while those before it leave.
            received = await read_head(client)
            while not received.endswith(b"\x81\x02hi"):
                received += await client.receive_some()
            await client.aclose()
    caplog.clear()  # This one is news.
    gc.collect()
