"""Limits on a server's clients, and what becomes of a client that goes beyond one."""

from __future__ import annotations

import itertools
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_pyjo_ws import (
    Close,
    ConnectionClosed,
    HandshakeError,
    Response,
    connect,
    open_websocket,
    serve,
    serve_listeners,
)
from trio_pyjo_ws._engine.housekeeper import Housekeeper
from trio_pyjo_ws.options import UNBOUNDED, ServerSettings
from trio_pyjo_ws.server.limits import TURN_OF_HANDSHAKES, Admission, Handshakes

from ..service import REQUEST, MemoryListener, echo, never, read_head, read_to_end, request, start, status

if TYPE_CHECKING:
    from trio_pyjo_ws import Transaction

    from ..service import Service


async def drain(ws: Transaction) -> None:
    async for _ in ws:
        pass


async def refused(service: Service, **headers: str) -> int:
    with pytest.raises(HandshakeError) as raised:
        await service.connect(additional_headers=headers)
    assert raised.value.response is not None
    return raised.value.response.status


# Connections in all


async def test_one_connection_too_many_gets_503(nursery: trio.Nursery) -> None:
    service = await start(nursery, echo, max_connections=2)
    first, _ = [await service.connect() for _ in range(2)]
    assert await refused(service) == 503
    assert len(service.server.connections) == 2
    await first.finish()
    await trio.testing.wait_all_tasks_blocked()
    ws = await service.connect()  # There is room again.
    await ws.send("in")
    assert await ws.receive() == "in"
    assert await refused(service) == 503


async def test_handshakes_at_once_do_not_get_past_the_bound(nursery: trio.Nursery) -> None:
    judged = trio.Event()
    service = await start(nursery, echo, max_connections=2, on_request=lambda _: judged.wait())
    streams = [service.dial() for _ in range(5)]
    for stream in streams:
        await stream.send_all(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    judged.set()
    statuses = [status(await read_head(stream)) for stream in streams]
    assert sorted(statuses) == [101, 101, 503, 503, 503]


async def test_what_is_refused_or_answered_plainly_takes_no_place(nursery: trio.Nursery) -> None:
    def on_request(ws: Transaction) -> Response | None:
        return Response(200) if ws.req.path == "/health" else None

    service = await start(nursery, {"/": echo}, max_connections=1, on_request=on_request)
    for line, expected in [("POST / HTTP/1.1", 405), ("GET /nowhere HTTP/1.1", 404), ("GET /health HTTP/1.1", 200)]:
        assert status(await service.ask(request(line))) == expected
    await service.connect()
    assert status(await service.ask(request("GET /health HTTP/1.1"))) == 200  # It is well, though full.
    assert status(await service.ask()) == 503


# Connections of one address


async def test_one_connection_too_many_of_an_address_gets_429_at_once(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", max_connections_per_address=2))
    ws = await connect(nursery, server.url)
    silent = await trio.open_tcp_stream("127.0.0.1", server.port)  # One in the handshake counts as well.
    while server._service.sessions < 2:
        await trio.testing.wait_all_tasks_blocked(0.001)
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        assert status(await read_to_end(stream)) == 429
    other = await trio.open_tcp_stream("127.0.0.1", server.port, local_address="127.0.0.2")
    async with open_websocket("ws://test/", stream=other) as from_elsewhere:
        await from_elsewhere.send("in")
        assert await from_elsewhere.receive() == "in"
    await silent.aclose()
    await ws.finish()
    while server._service.sessions:
        await trio.testing.wait_all_tasks_blocked(0.001)
    assert server._service.admission._counts == {}
    async with open_websocket(server.url):
        pass


async def test_who_is_refused_for_the_address_is_not_waited_for(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1", max_connections_per_address=1))
    silent = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(5)]
    for stream in silent[1:]:
        assert status(await read_to_end(stream)) == 429
    assert server._service.sessions == 1
    for stream in silent:
        await stream.aclose()


async def test_behind_a_proxy_it_is_the_clients_address_that_counts(nursery: trio.Nursery) -> None:
    service = await start(nursery, echo, max_connections_per_address=1, trusted_proxies=["unix:"])
    first = await service.connect(additional_headers={"X-Forwarded-For": "203.0.113.7"})
    assert await refused(service, **{"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}) == 429
    await service.connect(additional_headers={"X-Forwarded-For": "203.0.113.8"})
    await first.finish()
    await trio.testing.wait_all_tasks_blocked()
    await service.connect(additional_headers={"X-Forwarded-For": "203.0.113.7"})


async def test_who_has_no_address_is_not_counted_by_it(nursery: trio.Nursery) -> None:
    service = await start(nursery, echo, max_connections_per_address=1)
    for _ in range(3):
        await service.connect()
    assert len(service.server.connections) == 3


# An IPv6 address stands for its network


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:0DB8::1:0:0:0:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:203.0.113.7", "203.0.113.7", True),  # as a socket of both families names it
        ("::ffff:203.0.113.7", "::ffff:203.0.113.8", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),  # All hosts on a link have addresses of one network.
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("/run/a:b", "/run/a:b", True),
    ],
)
def test_an_ipv6_client_is_known_by_its_network(first: str, second: str, are_one: bool) -> None:
    admission = Admission(ServerSettings.of({"max_connections_per_address": 1}))
    client = admission.count(first)
    assert client is not None
    assert (admission.count(second) is None) is are_one
    admission.forget(client)
    assert admission.count(first) == client


async def test_behind_a_proxy_an_ipv6_network_counts(nursery: trio.Nursery) -> None:
    service = await start(nursery, echo, max_connections_per_address=2, trusted_proxies=["unix:"])
    for host in (1, 2):
        await service.connect(additional_headers={"X-Forwarded-For": f"2001:db8::{host}"})
    assert await refused(service, **{"X-Forwarded-For": "2001:db8::3"}) == 429
    await service.connect(additional_headers={"X-Forwarded-For": "2001:db8:0:1::3"})


async def test_one_that_is_refused_for_its_address_takes_no_place_of_others(nursery: trio.Nursery) -> None:
    options: Any = {"max_connections": 2, "max_connections_per_address": 1, "trusted_proxies": ["unix:"]}
    service = await start(nursery, echo, **options)
    await service.connect(additional_headers={"X-Forwarded-For": "203.0.113.7"})
    stream = service.dial()
    await stream.send_all(request("GET / HTTP/1.1", "X-Forwarded-For: 203.0.113.7"))
    assert status(await read_head(stream)) == 429  # and it stays there
    await service.connect(additional_headers={"X-Forwarded-For": "203.0.113.8"})


# Handshakes in flight


async def test_a_new_handshake_takes_the_place_of_the_oldest_silent_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service = await start(nursery, echo, max_handshakes=3)
    first, second, third = [service.dial() for _ in range(3)]
    await first.send_all(REQUEST[:10])
    await trio.sleep(1)
    ws = await service.connect()
    assert trio.current_time() == 1
    await ws.send("in")
    assert await ws.receive() == "in"
    assert await read_to_end(second) == b""
    for stream, rest in ((first, REQUEST[10:]), (third, REQUEST)):
        await stream.send_all(rest)
        assert status(await read_head(stream)) == 101


async def test_a_silent_handshake_has_half_a_second_before_it_gives_way(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service = await start(nursery, echo, max_handshakes=3)
    silent = [service.dial() for _ in range(3)]
    waiting = service.dial()
    await waiting.send_all(REQUEST)
    await trio.sleep(0.4)
    await silent[0].send_all(REQUEST[:10])
    assert service.server.statistics().connections_opening == 3
    assert status(await read_head(waiting)) == 101
    assert trio.current_time() == 0.5
    assert await read_to_end(silent[1]) == b""
    await silent[0].send_all(REQUEST[10:])
    assert status(await read_head(silent[0])) == 101


async def test_several_listeners_drop_nobody_before_that(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    listeners = [MemoryListener() for _ in range(3)]
    server = await nursery.start(partial(serve_listeners, echo, listeners, max_handshakes=2))
    streams = [listener.connect() for listener in listeners for _ in range(2)]
    await trio.testing.wait_all_tasks_blocked()
    assert 2 <= server.statistics().connections_opening <= 2 + 3  # Each had one at hand when there was room.
    for stream in streams:
        await stream.send_all(REQUEST)
    for stream in streams:
        assert status(await read_head(stream)) == 101
    assert trio.current_time() == 0


async def test_accepting_pauses_if_no_handshake_is_silent(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    service = await start(nursery, echo, max_handshakes=3, open_timeout=7)
    for _ in range(3):
        await service.dial().send_all(REQUEST[:1])
    await trio.testing.wait_all_tasks_blocked()
    ws = await service.connect(open_timeout=100)  # when the first are dropped
    assert trio.current_time() == 7
    await ws.send("at last")
    assert await ws.receive() == "at last"


async def test_accepting_goes_on_once_a_handshake_is_done(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    service = await start(nursery, echo, max_handshakes=1)
    stream = service.dial()
    waiting = service.dial()
    await waiting.send_all(REQUEST)
    await trio.testing.wait_all_tasks_blocked()
    assert service.server._service.sessions == 1
    await stream.send_all(REQUEST)
    assert status(await read_head(waiting)) == 101
    assert trio.current_time() == 0
    assert len(service.server.connections) == 2


async def test_a_handshake_over_tls_is_not_silent_once_tls_has_begun(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = await nursery.start(
        partial(serve, echo, 0, host="127.0.0.1", ssl_context=context, max_handshakes=2, open_timeout=7)
    )
    begun, silent, third = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(3)]
    await begun.send_all(b"\x16")
    assert await read_to_end(silent) == b""
    assert trio.current_time() == pytest.approx(0.5, abs=0.1)
    await third.send_all(b"\x16")
    assert await read_to_end(begun) == b""
    assert trio.current_time() == pytest.approx(7, abs=0.1)
    for stream in (begun, silent, third):
        await stream.aclose()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_handshakes_end_in_any_order_and_leave_no_deadline(order: tuple[int, ...]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            housekeeper = Housekeeper(nursery)
            handshakes = Handshakes(ServerSettings.of({}), housekeeper)
            openings = [Fake() for _ in range(4)]
            openings[0].silent = openings[2].silent = False
            for opening in openings:
                handshakes.begin(opening)
            nursery.start_soon(housekeeper.run)
            await trio.sleep(order[0])  # within the time of the first byte
            for number in order:
                assert openings[number] in list(handshakes)
                handshakes.end(openings[number])
            assert len(handshakes) == housekeeper.deadlines == 0
            assert not any(opening.given_up_at for opening in openings)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


class Fake:
    """An opening handshake."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.silent = True
        self.given_up_at: float | None = None

    def give_up(self) -> None:
        assert self.given_up_at is None
        self.given_up_at = trio.current_time()

    def stop(self) -> None:
        raise AssertionError("the server is not closing")


@pytest.mark.parametrize("open_timeout", [2, 8, 20, 100])
async def test_each_handshake_has_its_own_time(
    nursery: trio.Nursery, autojump_clock: MockClock, open_timeout: float
) -> None:
    housekeeper = Housekeeper(nursery)
    handshakes = Handshakes(ServerSettings.of({"open_timeout": open_timeout}), housekeeper)
    nursery.start_soon(housekeeper.run)
    openings = []
    for number in range(60):  # every third says something: at once, or later
        opening = Fake()
        handshakes.begin(opening)
        opening.silent = number % 3 > 0
        if number % 3 == 1 and number > 3:
            openings[-3].silent = False
        openings.append(opening)
        await trio.sleep(0.25)
    await trio.sleep(200)
    for number, opening in enumerate(openings):
        first_byte = open_timeout if number % 3 == 0 or (number % 3 == 1 and number < 57) else min(5, open_timeout)
        assert opening.given_up_at == opening.began + first_byte, number
    assert len(handshakes) == housekeeper.deadlines == 0
    nursery.cancel_scope.cancel()


async def test_many_handshakes_that_come_at_once_leave_others_their_turn(nursery: trio.Nursery) -> None:
    opened = [0]

    async def handler(ws: Transaction) -> None:
        opened[-1] += 1
        await ws.receive()

    service = await start(nursery, handler)
    requests = [trio.testing.MemoryReceiveStream() for _ in range(100)]
    for stream in requests:
        service.listener.offer(trio.StapledStream(trio.testing.MemorySendStream(), stream))
    await trio.testing.wait_all_tasks_blocked()
    for stream in requests:  # all at once
        stream.put_data(REQUEST)
    while sum(opened) < 100:
        opened.append(0)
        await trio.lowlevel.checkpoint()
    assert max(opened) <= 2 * TURN_OF_HANDSHAKES  # Between two turns of this task are parts of two of the others'.


async def test_a_server_whose_accepting_pauses_is_stopped_all_the_same(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service = await start(nursery, never, max_handshakes=1)
    stream = service.dial()
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(service.server.aclose)
    assert status(await read_to_end(stream)) == 503


# Messages in a second


async def test_more_messages_than_the_rate_close_with_1008(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    service = await start(nursery, drain, max_message_rate=2)
    ws = await service.connect()
    for _ in range(100):  # for fifty seconds
        await ws.send("a")
        await trio.sleep(0.5)
    assert ws.closed is None
    with suppress(ConnectionClosed):
        for _ in range(100):
            await ws.send("a")
            await trio.sleep(0.4)
    assert ws.closed == Close(1008, "more than 2 messages a second")


async def test_a_burst_of_ten_seconds_is_within_the_rate(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    received = []

    async def handler(ws: Transaction) -> None:
        while True:
            received.append(await ws.receive())

    service = await start(nursery, handler, max_message_rate=0.5)
    ws = await service.connect()
    for _ in range(3):
        for _ in range(5):
            ws.send_nowait("a")
        await trio.sleep(10)
    assert ws.closed is None
    for _ in range(6):
        ws.send_nowait("b")
    with pytest.raises(ConnectionClosed, match="1008"):
        await ws.receive()
    assert received == ["a"] * 15 + ["b"] * 6  # What came with the one too many is readable.


async def test_a_long_silence_earns_no_larger_burst(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    service = await start(nursery, drain, max_message_rate=1)
    ws = await service.connect()
    await trio.sleep(1000)
    for _ in range(11):
        ws.send_nowait("a")
    with pytest.raises(ConnectionClosed, match="1008"):
        await ws.receive()


async def test_messages_that_waited_for_this_side_are_no_burst(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    received: list[int] = []

    async def slow(ws: Transaction) -> None:
        await trio.sleep(1000)
        received.extend([1 async for _ in ws])

    service = await start(nursery, slow, max_message_rate=2, max_queue=4)
    ws = await service.connect(ping_interval=None)
    for _ in range(500):  # One a second, but reading stops after four.
        await ws.send("a")
        await trio.sleep(1)
    await trio.sleep(600)
    assert ws.closed is None
    await ws.finish()
    await trio.testing.wait_all_tasks_blocked()
    assert len(received) == 500


async def test_only_messages_count(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    service = await start(nursery, drain, max_message_rate=0.1)
    ws = await service.connect()
    for _ in range(20):
        await ws.ping()
    assert ws.closed is None


# Silence


async def test_a_silent_client_is_closed_with_1001(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def handler(ws: Transaction) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()
        ended.append(trio.current_time())

    service = await start(nursery, handler, idle_timeout=300)
    ws = await service.connect()  # whose keepalive goes on all the time, as the server's does
    with pytest.raises(trio.EndOfChannel):
        await ws.receive()
    await trio.testing.wait_all_tasks_blocked()
    assert ended == [300]
    assert ws.closed == Close(1001, "nothing was said for 300 seconds")


async def test_each_message_begins_the_time_anew(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    service = await start(nursery, drain, idle_timeout=60)
    ws = await service.connect()
    for _ in range(10):
        await trio.sleep(59)
        await ws.send("here")
    said = trio.current_time()
    with pytest.raises(trio.EndOfChannel):
        await ws.receive()
    assert trio.current_time() - said == pytest.approx(60)


async def test_a_client_that_waits_for_this_side_is_not_silent(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def slow(ws: Transaction) -> None:
        await trio.sleep(500)
        await drain(ws)

    service = await start(nursery, slow, idle_timeout=60)
    ws = await service.connect()
    await ws.send("here")
    with pytest.raises(trio.EndOfChannel):
        await ws.receive()
    assert 500 < trio.current_time() <= 620


# What does not cost anything


async def test_an_ended_connection_leaves_no_deadline(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    service = await start(nursery, echo, idle_timeout=60, max_message_rate=5, max_connections=10)
    await (await service.connect()).finish()
    await trio.testing.wait_all_tasks_blocked()
    assert service.server._handshakes.housekeeper.deadlines == 0
    assert service.server._service.admission._connections == 0


async def test_without_limits_nothing_is_counted(nursery: trio.Nursery) -> None:
    service = await start(nursery, echo, max_handshakes=None)
    await service.connect()
    (ws,) = service.server.connections
    assert service.server._service.admission is None
    assert not ws.__connection__.taps
    assert service.server._service.settings.max_handshakes == UNBOUNDED


@pytest.mark.parametrize(
    ("option", "value", "raised"),
    [
        ("max_connections", 0, ValueError),
        ("max_connections_per_address", "2", TypeError),
        ("max_handshakes", 0, ValueError),
        ("max_message_rate", 0, ValueError),
        ("max_message_rate", "fast", TypeError),
        ("idle_timeout", 0, ValueError),
        ("trusted_proxies", "10.0.0.1", TypeError),
        ("proxy_header", "Via", ValueError),
    ],
)
async def test_what_does_not_fit_raises_before_it_listens(option: str, value: Any, raised: type[Exception]) -> None:
    with pytest.raises(raised, match=option):
        await serve(echo, 0, **{option: value})


# Behind a proxy


@pytest.mark.parametrize(
    ("options", "trusted", "address"),
    [
        ({}, False, "127.0.0.1"),
        ({"trusted_proxies": ["10.0.0.0/8"]}, False, "127.0.0.1"),
        ({"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]}, True, "203.0.113.7"),
        ({"trusted_proxies": ["127.0.0.1"]}, True, "10.1.2.3"),
        ({"trusted_proxies": ["127.0.0.0/8"], "proxy_header": "Forwarded"}, True, "198.51.100.9"),
    ],
)
async def test_the_address_of_the_client_is_what_a_trusted_proxy_says(
    nursery: trio.Nursery, options: Any, trusted: bool, address: str
) -> None:
    seen: list[Any] = []

    def on_request(ws: Transaction) -> None:
        seen.append((ws.reverse_proxy, ws.remote_address, ws.original_remote_address))

    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", on_request=on_request, **options))
    headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7, 10.1.2.3", "Forwarded": "for=198.51.100.9"}
    async with open_websocket(server.url, additional_headers=headers):
        assert seen == [(trusted, address, "127.0.0.1")]


# No bounds


@pytest.mark.parametrize("compression", [False, True])
async def test_none_removes_the_bounds_of_messages(
    nursery: trio.Nursery, autojump_clock: MockClock, compression: bool
) -> None:
    received: list[Any] = []

    async def handler(ws: Transaction) -> None:
        await trio.sleep(100)
        received.append(ws.statistics().messages_waiting)
        received.extend([message async for message in ws])

    options: Any = {"max_websocket_size": None, "max_queue": None, "max_queue_bytes": None, "ping_interval": None}
    service = await start(nursery, handler, compression=compression, **options)
    ws = await service.connect(compression=compression, **options)
    messages = [b"x" * 3_000_000, *(f"{number} ".encode() + b"x" * 1000 for number in range(2000)), b""]
    for message in messages:
        await ws.send(message)
    await ws.finish()
    await trio.sleep(100)
    assert received == [len(messages), *messages]
