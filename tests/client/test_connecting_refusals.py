"""A server refuses, redirects or speaks no HTTP: how soon the client knows, and what it is told."""

from __future__ import annotations

import math
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import HandshakeError, connect, is_transient, serve
from trio_pyjo_ws.client.connecting import BODY_TIMEOUT

from .test_connecting import Peer, is_closed, refused_by

if TYPE_CHECKING:
    from trio.testing import MockClock

REFUSED = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n"

# Bodies that have not ended.
UNENDED = {
    "without a length": b"\r\nno",
    "shorter than its length": b"Content-Length: 99\r\n\r\nno",
    "without its last chunk": b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n",
    "in the middle of a chunk": b"Transfer-Encoding: chunked\r\n\r\n63\r\nno",
}
BODIES = pytest.mark.parametrize("body", UNENDED.values(), ids=UNENDED)


def check_unauthorized(error: HandshakeError, body: bytes = b"no") -> None:
    assert str(error).endswith("/: expected status 101, found 401 Unauthorized")
    assert error.response is not None
    assert (error.response.status, error.response.body) == (401, body)
    assert not is_transient(error)  # It would be, were it TooSlowError: and asked for again and again.


# A body that does not end


@BODIES
@pytest.mark.parametrize("open_timeout", [10, None])
async def test_a_refusal_whose_body_does_not_end_gives_its_status_soon(
    body: bytes, open_timeout: float | None, autojump_clock: MockClock
) -> None:
    error = await refused_by(lambda peer: peer.answer(REFUSED + body), open_timeout=open_timeout)
    check_unauthorized(error)
    assert trio.current_time() == BODY_TIMEOUT


@pytest.mark.parametrize("left", [0.01, 0.5, 1.9])
@pytest.mark.parametrize("whose", ["open_timeout", "the caller's"])
async def test_it_comes_before_the_time_is_up(left: float, whose: str, autojump_clock: MockClock) -> None:
    """The status is known: TooSlowError would hide it."""

    async def script(peer: Peer) -> None:
        await trio.sleep(3)
        await peer.answer(REFUSED + b"\r\nno")

    with trio.fail_after(3 + left if whose == "the caller's" else math.inf):
        check_unauthorized(await refused_by(script, open_timeout=3 + left if whose == "open_timeout" else None))
    assert trio.current_time() == pytest.approx(3 + left / 2)


async def test_a_body_that_trickles_is_waited_for_no_longer(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(REFUSED + b"\r\n")
        with suppress(trio.BrokenResourceError):
            while True:
                await peer.stream.send_all(b"a")
                await trio.sleep(BODY_TIMEOUT / 4)

    error = await refused_by(script)
    assert trio.current_time() == BODY_TIMEOUT
    assert error.response is not None
    assert 3 <= len(error.response.body) <= 5


async def test_a_body_that_comes_in_time_is_whole(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(REFUSED + b"Content-Length: 4\r\n\r\nno")
        await trio.sleep(BODY_TIMEOUT / 2)
        await peer.stream.send_all(b"no")

    check_unauthorized(await refused_by(script), b"nono")
    assert trio.current_time() == BODY_TIMEOUT / 2


async def test_the_time_for_the_body_does_not_begin_before_the_head_is_complete(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(REFUSED)
        await trio.sleep(5 * BODY_TIMEOUT)
        await peer.stream.send_all(b"\r\nno")

    check_unauthorized(await refused_by(script))
    assert trio.current_time() == 6 * BODY_TIMEOUT


@BODIES
async def test_a_refusal_whose_connection_ends_gives_its_status(body: bytes, autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(REFUSED + body)
        await peer.stream.aclose()

    check_unauthorized(await refused_by(script))
    assert trio.current_time() == 0


async def test_a_refusal_whose_connection_is_reset_gives_its_status(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    read = trio.Event()

    async def reset() -> None:
        stream = await listeners[0].accept()
        await Peer(stream).answer(REFUSED + b"\r\nno")
        await trio.testing.wait_all_tasks_blocked(0.01)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await stream.aclose()
        read.set()

    async with listeners[0]:
        nursery.start_soon(reset)
        with pytest.raises(HandshakeError) as raised:
            await connect(nursery, f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/")
        await read.wait()
    check_unauthorized(raised.value)


async def test_cancelled_while_the_body_comes_it_is_cancelled(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await Peer(theirs).answer(REFUSED + b"\r\nno")
                await trio.sleep(BODY_TIMEOUT / 2)
                scope.cancel()

            nursery.start_soon(cancel)
            await connect(nursery, "ws://test", stream=ours)
    assert scope.cancelled_caught
    assert trio.current_time() == BODY_TIMEOUT / 2
    assert await is_closed(ours)


# A redirect


@BODIES
async def test_a_redirect_is_not_kept_up_by_its_body(
    body: bytes, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers: list[Peer] = []

    async def dial(host: str, *_: Any, **__: Any) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        peers.append(Peer(theirs))
        answer = b"HTTP/1.1 302 Found\r\nLocation: ws://b/\r\n" + body
        nursery.start_soon(partial(peers[-1].answer, answer) if host == "a" else peers[-1].accept)
        return ours

    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    ws = await connect(nursery, "ws://a/")
    assert ws.established
    assert len(peers) == 2
    assert trio.current_time() == 0


# What speaks no HTTP


async def test_a_server_that_speaks_no_http_is_told_at_once_by_its_first_line(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")
        await trio.sleep_forever()

    error = await refused_by(script)
    assert str(error) == "ws://test/: malformed response: expected an HTTP status line, found 'SSH-2.0-OpenSSH_9.6'"
    assert trio.current_time() == 0


async def test_wss_to_a_server_without_tls_is_told_so(nursery: trio.Nursery) -> None:
    async def never(_: object) -> None:
        raise AssertionError("it must not be open")

    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1"))
    with pytest.raises(
        HandshakeError, match=r"^wss://127\.0\.0\.1:\d+/: TLS with 127\.0\.0\.1 failed: .* \(is it ws://\?\)$"
    ):
        await connect(nursery, f"wss://127.0.0.1:{server.port}/")


async def test_ws_to_a_server_with_tls_is_told_so() -> None:
    error = await refused_by(lambda peer: peer.answer(b"\x15\x03\x01\0\x02\x02\x46"))  # protocol_version, fatal
    assert str(error).endswith("expected an HTTP status line, found TLS (is it wss://?)")
