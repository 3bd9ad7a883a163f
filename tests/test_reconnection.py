"""Reconnecting: one connection after the other, and nothing left behind however the loop is left."""

from __future__ import annotations

import contextvars
import gc
import logging
import socket
import ssl
from collections import deque
from contextlib import aclosing
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import (
    Close,
    ConnectionClosed,
    HandshakeError,
    Response,
    Transaction,
    client,
    is_transient,
    reconnecting,
    reconnection,
    serve,
)

from .test_client import Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

    Script = Callable[[Peer], Awaitable[object]]


def answering(response: bytes) -> Script:
    return lambda peer: peer.answer(response)


REFUSED = OSError("connection refused")
UNAVAILABLE = answering(b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n")
FORBIDDEN = answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


class Network:
    """What dialing finds, one after the other: a script of a peer's, or an exception. In the end a peer that serves."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.plan: deque[Script | Exception] = deque()
        self.dialed: list[float] = []
        self.peers: list[Peer] = []

    async def dial(self, *_: Any) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialed.append(trio.current_time())
        script = self.plan.popleft() if self.plan else Peer.accept
        if isinstance(script, Exception):
            raise type(script)(*script.args)  # One that is kept would keep what it went through.
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        peer = Peer(theirs)
        self.peers.append(peer)
        self.nursery.start_soon(script, peer)
        return ours

    @property
    def waits(self) -> list[float]:
        """The seconds from one attempt to the next."""
        return [later - earlier for earlier, later in pairwise(self.dialed)]


@pytest.fixture
async def network(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    network = Network(nursery)
    monkeypatch.setattr(client, "dial", network.dial)
    yield network
    for peer in network.peers:
        await peer.stream.aclose()


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jitter always draws the longest wait."""
    monkeypatch.setattr(reconnection._jitter, "uniform", lambda _, longest: longest)


def tasks_of_connections() -> list[str]:
    """The tasks that connections have, wherever in the run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: list[str] = []
    tasks = [root]
    while tasks:
        task = tasks.pop()
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        if "Transaction" in task.name or "ws://test" in task.name:
            found.append(task.name)
    return found


@pytest.fixture
async def tasks() -> AsyncIterator[None]:
    """Afterwards no task of a connection's is left, without a collection."""
    gc.disable()
    try:
        yield
        await trio.testing.wait_all_tasks_blocked()
        assert tasks_of_connections() == []
    finally:
        gc.enable()


async def use(body: Callable[[Transaction], Awaitable[object]], **options: Any) -> None:
    """The plain loop, in a function of its own."""
    async for ws in reconnecting("ws://test/", **options):
        await body(ws)


async def use_in_block(body: Callable[[Transaction], Awaitable[object]], **options: Any) -> None:
    async with reconnecting("ws://test/", **options) as connections:
        async for ws in connections:
            await body(ws)


async def never(_: Transaction) -> None:
    raise AssertionError("it must not be open")


async def closed_by(peer: Peer) -> bytes:
    """Everything that this peer still gets, unmasked; it answers nothing."""
    frame = await peer.wait_end()
    return bytes(byte ^ frame[2 + i % 4] for i, byte in enumerate(frame[6:])) if frame else b""


# One connection after the other


async def test_each_turn_of_the_loop_gives_another_connection(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [Peer.serve, Peer.serve]
    seen: list[Transaction] = []
    async for ws in reconnecting("ws://test/"):
        assert ws.established
        assert all(last.is_finished for last in seen)
        assert all(last.close == Close(1000, "") for last in seen)  # gracefully: the peer has answered
        seen.append(ws)
        if len(seen) == 3:
            break
    assert len({id(ws) for ws in seen}) == 3


async def test_over_tcp_a_server_that_comes_back_is_found_again(nursery: trio.Nursery) -> None:
    async def greet(ws: Transaction) -> None:
        await ws.send("Hello!")

    start = partial(serve, greet, host="127.0.0.1")
    server = await nursery.start(start, 0)
    greetings = 0
    async for ws in reconnecting(server.url, initial_delay=0.001):
        async for message in ws:
            assert message == "Hello!"
            greetings += 1
        if greetings == 3:
            break
        await server.aclose()
        server = await nursery.start(start, server.port)
    await server.aclose()


async def test_the_request_is_that_of_connect(network: Network) -> None:
    async for ws in reconnecting("ws://test/chat", additional_headers={"X-A": "1"}, subprotocols=iter(["v1"])):
        assert ws.req is not None
        assert ws.req.target == "/chat"
        assert ws.req.headers["X-A"] == "1"
        assert ws.req.headers["Sec-WebSocket-Protocol"] == "v1"
        break


async def test_each_request_has_a_key_of_its_own(network: Network, autojump_clock: MockClock) -> None:
    keys: set[str] = set()
    async for ws in reconnecting("ws://test/"):
        assert ws.req is not None
        keys.add(ws.req.headers["Sec-WebSocket-Key"])
        await network.peers[-1].stream.aclose()
        if len(network.peers) == 3:
            break
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://test"}, "URL has the scheme 'http'"),
        ({"additional_headers": {"a b": "c"}}, "header name is 'a b'"),
        ({"initial_delay": -1}, "initial_delay is a number of seconds, not -1"),
        ({"max_delay": float("nan")}, "max_delay is a number of seconds, not nan"),
        ({"healthy_after": -0.5}, "healthy_after is a number of seconds, not -0.5"),
        ({"max_attempts": 0}, "max_attempts is at least 1, or None for no limit; not 0"),
    ],
)
def test_what_does_not_fit_raises_at_the_call(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reconnecting(**{"url": "ws://test", **arguments})


# Leaving the loop


async def leave_by_break() -> None:
    async for ws in reconnecting("ws://test/"):
        assert ws.established
        break


async def leave_by_return() -> None:
    async for _ws in reconnecting("ws://test/"):
        return


async def leave_by_exception() -> None:
    async def body(_: Transaction) -> None:
        raise KeyError("the body's")

    with pytest.raises(KeyError, match="the body's") as raised:
        await use(body)
    assert raised.value.__context__ is None


async def leave_by_cancellation() -> None:
    with trio.move_on_after(1) as scope:
        async for _ws in reconnecting("ws://test/"):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def leave_by_cancellation_in_receive() -> None:
    with trio.move_on_after(1) as scope:
        async for ws in reconnecting("ws://test/"):
            await ws.receive()
    assert scope.cancelled_caught


async def leave_an_inner_generator() -> None:
    async def messages() -> AsyncIterator[str | bytes]:
        async for ws in reconnecting("ws://test/"):
            yield str(ws.req)

    async with aclosing(messages()) as received:
        async for _message in received:
            break


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_return,
        leave_by_exception,
        leave_by_cancellation,
        leave_by_cancellation_in_receive,
        leave_an_inner_generator,
    ],
)
async def test_leaving_the_loop_closes_the_connection_at_once(
    leave: Callable[[], Awaitable[None]], network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    await leave()
    left = trio.current_time()
    with trio.fail_after(1):
        assert await closed_by(network.peers[0]) == b"\x03\xe8"
    assert trio.current_time() == left
    assert len(network.peers) == 1


async def test_left_by_an_exception_that_is_kept_the_loop_is_over_all_the_same(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    async def body(_: Transaction) -> None:
        raise KeyError("the body's")

    with pytest.raises(KeyError) as raised:
        await use(body)
    with trio.fail_after(1):
        await network.peers[0].wait_end()
    assert raised.value.__traceback__ is not None  # and with it the frame of the loop


async def test_break_does_not_wait_for_a_peer_that_takes_nothing(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    async for ws in reconnecting("ws://test/"):
        with trio.move_on_after(1) as scope:
            await ws.send(bytes(10_000_000))
        assert scope.cancelled_caught
        break
    await trio.testing.wait_all_tasks_blocked()
    assert ws.is_finished
    assert trio.current_time() == 1


async def test_break_after_the_connection_has_ended_leaves_nothing(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan.append(lambda peer: peer.accept(behind=b"\x88\x02\x03\xe8"))
    async for ws in reconnecting("ws://test/"):
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()
        break


async def test_cancelled_while_it_connects_nothing_is_left(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan.append(Peer.read_request)
    with trio.move_on_after(1) as scope:
        await use(never)
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    await network.peers[0].wait_end()


async def test_cancelled_before_it_began_nothing_is_opened(network: Network, tasks: None) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await use(never)
    assert scope.cancelled_caught
    assert network.dialed == []


@pytest.mark.usefixtures("longest")
async def test_cancelled_while_it_waits_to_try_again_it_ends_at_once(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan += [REFUSED] * 10
    with trio.move_on_after(5) as scope:
        await use(never)
    assert scope.cancelled_caught
    assert trio.current_time() == 5


async def test_cancelled_in_the_closing_of_the_last_connection_the_socket_is_closed_at_once(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    with trio.move_on_after(1) as scope:
        async for _ws in reconnecting("ws://test/"):
            pass  # The peer answers no Close.
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    assert await closed_by(network.peers[0]) == b"\x03\xe8"


async def test_the_end_of_the_run_ends_a_loop_that_was_left_open() -> None:
    async def rest(_: Transaction) -> None:
        await trio.sleep_forever()

    async def main() -> Any:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, rest, 0, host="127.0.0.1"))
            connections = reconnecting(server.url)
            ws = await connections.__anext__()
            nursery.cancel_scope.cancel()
        return connections, ws

    connections, ws = await trio.to_thread.run_sync(trio.run, main)
    assert ws.is_finished
    del connections  # After its run: it has nobody to tell.


async def test_collected_in_another_thread_it_closes_in_its_own(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    holder = [reconnecting("ws://test/")]
    ws = await holder[0].__anext__()
    await trio.to_thread.run_sync(holder.clear)
    with trio.fail_after(1):
        await network.peers[0].wait_end()
    assert ws.is_finished


# async with


async def test_in_a_block_of_its_own_it_closes_when_the_block_is_left(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan.append(Peer.serve)
    async with reconnecting("ws://test/") as connections:
        async for ws in connections:
            assert ws.established
            break
        assert not ws.is_finished  # The loop may go on here.
    assert ws.close == Close(1000, "")
    async for _ws in connections:
        raise AssertionError("it has been closed")
    await connections.aclose()


async def test_a_block_that_is_left_by_an_exception_closes_gracefully(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan.append(Peer.serve)
    seen: list[Transaction] = []

    async def body(ws: Transaction) -> None:
        seen.append(ws)
        raise KeyError("the body's")

    with pytest.raises(KeyError, match="the body's"):
        await use_in_block(body)
    assert seen[0].close == Close(1000, "")


async def test_a_block_that_is_cancelled_closes_at_once(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    with trio.move_on_after(1):
        await use_in_block(Transaction.receive)
    assert trio.current_time() == 1
    await network.peers[0].wait_end()


async def test_closed_by_another_task_the_loop_ends_with_its_turn(
    network: Network, nursery: trio.Nursery, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan.append(Peer.serve)
    connections = reconnecting("ws://test/")
    async for ws in connections:
        nursery.start_soon(connections.aclose)
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()
    assert len(network.dialed) == 1


@pytest.mark.parametrize("plan", [[REFUSED] * 10, [Peer.read_request]], ids=["waiting", "connecting"])
@pytest.mark.usefixtures("longest", "tasks")
async def test_closed_by_another_task_while_it_has_no_connection_it_ends_at_once(
    plan: list[Script | Exception], network: Network, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    network.plan += plan
    connections = reconnecting("ws://test/")

    async def close_later() -> None:
        await trio.sleep(2)
        await connections.aclose()

    nursery.start_soon(close_later)
    async for _ws in connections:
        raise AssertionError("it must not be open")
    assert trio.current_time() == 2


# Waiting


@pytest.mark.usefixtures("longest")
async def test_the_wait_doubles_up_to_its_cap(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED] * 8
    async for _ws in reconnecting("ws://test/"):
        break
    assert network.waits == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.usefixtures("longest")
async def test_its_bounds_are_options(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED] * 4
    async for _ws in reconnecting("ws://test/", initial_delay=0.5, max_delay=3):
        break
    assert network.waits == [0.5, 1, 2, 3]


@pytest.mark.usefixtures("longest")
async def test_after_thousands_of_failures_it_still_waits_for_the_cap(
    network: Network, autojump_clock: MockClock
) -> None:
    network.plan += [REFUSED] * 1100
    async for _ws in reconnecting("ws://test/"):
        break
    assert network.waits[-1] == 60


async def test_the_wait_is_random_below_its_bound(
    network: Network, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(least: float, longest: float) -> float:
        drawn.append((least, longest))
        return longest / 4

    monkeypatch.setattr(reconnection._jitter, "uniform", draw)
    network.plan += [REFUSED] * 3
    async for _ws in reconnecting("ws://test/"):
        break
    assert drawn == [(0, 1), (0, 2), (0, 4)]
    assert network.waits == [0.25, 0.5, 1]


async def test_the_jitter_is_the_operating_systems(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED] * 20
    async for _ws in reconnecting("ws://test/", max_delay=1):
        break
    assert all(0 <= wait <= 1 for wait in network.waits)
    assert len(set(network.waits)) > 10


@pytest.mark.usefixtures("longest")
async def test_a_connection_that_did_not_hold_counts_as_a_failure(network: Network, autojump_clock: MockClock) -> None:
    async for ws in reconnecting("ws://test/"):
        await trio.sleep(59)
        await network.peers[-1].stream.aclose()
        with pytest.raises(ConnectionClosed):
            await ws.receive()
        if len(network.peers) == 4:
            break
    assert network.waits == [60, 61, 63]


@pytest.mark.usefixtures("longest")
async def test_a_connection_that_held_begins_anew(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED, REFUSED, REFUSED, Peer.accept, REFUSED, REFUSED]
    async for _ws in reconnecting("ws://test/", healthy_after=30):
        if len(network.peers) == 2:
            break
        await trio.sleep(30)
        await network.peers[-1].stream.aclose()
    assert network.waits == [1, 2, 4, 31, 2, 4]


@pytest.mark.usefixtures("longest")
@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (b"Retry-After: 7", 8),
        (b"Retry-After: 3600", 60),
        (b"Retry-After: 99999999999999999999", 1),
        (b"Retry-After: Fri, 31 Dec 2027 23:59:59 GMT", 1),
        (b"Retry-After: -7", 1),
        (b"X: y", 1),
    ],
)
async def test_retry_after_is_waited_for_besides(
    header: bytes, wait: float, network: Network, autojump_clock: MockClock
) -> None:
    network.plan.append(answering(b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\n" + header + b"\r\n\r\n"))
    async for _ws in reconnecting("ws://test/"):
        break
    assert network.waits == [wait]


async def test_the_log_tells_why_and_for_how_long_and_no_password(
    network: Network, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnection._jitter, "uniform", lambda _, longest: longest)
    network.plan += [REFUSED, UNAVAILABLE]
    with caplog.at_level(logging.INFO, "trio_pyjo_ws"):
        async for _ws in reconnecting("ws://ada:secret@t/?token=secret"):
            if len(network.peers) == 3:
                break
            await network.peers[-1].stream.aclose()
    assert caplog.messages == [
        "connecting to ws://t has failed: OSError('connection refused'); connecting in 1.0 seconds",
        "connecting to ws://t has failed: HandshakeError('expected status 101, found 503'); connecting in 2.0 seconds",
        "the connection to ws://t has ended; connecting in 4.0 seconds",
    ]


# What passes, and what does not


async def test_what_does_not_pass_comes_out_at_once(network: Network, autojump_clock: MockClock, tasks: None) -> None:
    network.plan += [REFUSED, FORBIDDEN]
    with pytest.raises(HandshakeError, match="found 403"):
        await use(never)
    assert len(network.dialed) == 2


async def test_the_hook_decides(network: Network, autojump_clock: MockClock) -> None:
    asked: list[Exception] = []

    def hook(exc: Exception) -> bool:
        asked.append(exc)
        return not isinstance(exc, OSError)

    network.plan += [FORBIDDEN, REFUSED]
    with pytest.raises(OSError, match="connection refused"):
        await use(never, is_transient=hook)
    assert [type(exc) for exc in asked] == [HandshakeError, OSError]


async def test_attempts_in_a_row_may_be_bounded(network: Network, autojump_clock: MockClock) -> None:
    network.plan += [REFUSED, REFUSED, Peer.accept, REFUSED, REFUSED, UNAVAILABLE]
    with pytest.raises(HandshakeError, match="found 503"):
        await use(lambda _: network.peers[-1].stream.aclose(), max_attempts=3)
    assert len(network.dialed) == 6


@pytest.mark.parametrize(
    ("kind", "argument"),
    [(HandshakeError, "another's"), (ConnectionClosed, Close(1006)), (OSError, "another's"), (trio.TooSlowError, "")],
)
async def test_an_exception_of_the_body_is_never_taken_for_one_of_the_connection(
    kind: type[Exception], argument: object, network: Network, tasks: None
) -> None:
    exception = kind(argument)

    async def body(_: Transaction) -> None:
        raise exception

    with pytest.raises(type(exception)) as raised:
        await use(body)
    assert raised.value is exception
    assert len(network.dialed) == 1


def handshake_error(status: int) -> HandshakeError:
    return HandshakeError("", Response(status))


def caused(exc: Exception, *causes: Exception) -> Exception:
    above = exc
    for cause in causes:
        above.__cause__ = above = cause
    return exc


def tls_error(kind: type[ssl.SSLError], reason: str) -> ssl.SSLError:
    exc = kind(1, reason)
    exc.reason = reason
    return exc


@pytest.mark.parametrize(
    "exc",
    [
        *map(handshake_error, [429, 500, 502, 503, 504]),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        FileNotFoundError("a Unix socket that is not there yet"),
        trio.TooSlowError(),
        HandshakeError("the server closed the connection before the handshake was complete"),
        caused(HandshakeError("lost"), trio.BrokenResourceError(), ConnectionResetError()),
        caused(HandshakeError("lost in TLS"), trio.BrokenResourceError(), tls_error(ssl.SSLEOFError, "EOF")),
    ],
    ids=repr,
)
def test_these_may_pass(exc: Exception) -> None:
    assert is_transient(exc)


@pytest.mark.parametrize(
    "exc",
    [
        *map(handshake_error, [101, 200, 302, 400, 401, 403, 404, 426]),
        ValueError("a URL"),
        TypeError("an option"),
        ImportError("an extra"),
        RuntimeError("a bug"),
        tls_error(ssl.SSLCertVerificationError, "BAD"),
        caused(HandshakeError("TLS"), trio.BrokenResourceError(), tls_error(ssl.SSLCertVerificationError, "BAD")),
        caused(HandshakeError("TLS"), trio.BrokenResourceError(), tls_error(ssl.SSLError, "NO_VERSION")),
        caused(HandshakeError("malformed response"), ValueError()),
    ],
    ids=repr,
)
def test_these_do_not_pass(exc: Exception) -> None:
    assert not is_transient(exc)


# Callbacks


async def test_a_callback_that_fails_closes_its_connection_and_comes_out_of_the_loop(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan.append(partial(Peer.accept, behind=b"\x81\x01a"))

    async def fail(ws: Transaction, text: bytes) -> None:
        raise KeyError("the callback's")

    async def body(ws: Transaction) -> None:
        ws.on("text", fail)
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()

    with pytest.raises(KeyError, match="the callback's"):
        await use(body, close_timeout=1)
    assert (await closed_by(network.peers[0]))[:2] == b"\x03\xf3"  # 1011
    assert len(network.dialed) == 1


async def test_a_callback_that_fails_comes_out_of_the_block(
    network: Network, autojump_clock: MockClock, tasks: None
) -> None:
    network.plan.append(partial(Peer.accept, behind=b"\x81\x01a"))

    async def fail(ws: Transaction, text: bytes) -> None:
        raise KeyError("the callback's")

    connections = reconnecting("ws://test/", close_timeout=1)
    async for ws in connections:
        ws.on("text", fail)
        await trio.sleep(1)
        break
    with pytest.raises(KeyError, match="the callback's"):
        await connections.aclose()


async def test_callbacks_that_fail_when_nobody_can_be_told_are_logged(
    network: Network, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, tasks: None
) -> None:
    network.plan.append(partial(Peer.accept, behind=b"\x81\x01a"))

    async def fail(ws: Transaction, text: bytes) -> None:
        raise KeyError("the callback's")

    async for ws in reconnecting("ws://test/", close_timeout=1):
        ws.on("text", fail)
        ws.on("message", fail)
        await trio.sleep(1)
        break
    await trio.testing.wait_all_tasks_blocked()
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ['"the callback\'s"'] * 2


async def test_callbacks_see_the_context_of_the_loop(network: Network, autojump_clock: MockClock) -> None:
    network.plan.append(partial(Peer.accept, behind=b"\x81\x01a"))
    variable = contextvars.ContextVar("variable", default="another's")
    variable.set("the loop's")
    seen: list[str] = []

    async def look(ws: Transaction, text: bytes) -> None:
        seen.append(variable.get())

    async for ws in reconnecting("ws://test/"):
        ws.on("text", look)
        await trio.sleep(1)
        break
    assert seen == ["the loop's"]
