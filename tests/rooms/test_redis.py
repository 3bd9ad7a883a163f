"""Rooms over a real redis-server that is killed, stopped, emptied, set back, or cut off."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

from trio_pyjo_ws import Missed, Position, RoomsUnavailable, connect, open_rooms, open_websocket
from trio_pyjo_ws.rooms import joining
from trio_pyjo_ws.testing import open_memory_pair

from .conftest import RedisServer, run_redis
from .reading import FOREVER, read_to_end, receive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trio_pyjo_ws import Rooms, Transaction

adapter: Any = pytest.importorskip("trio_pyjo_ws.adapters.redis", exc_type=ImportError)

pytestmark = pytest.mark.interop

LOST = "connection closed with 1013 (messages were lost)"


RATE = 4
"""How many times as fast as the server's time goes."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time goes fast, but for the time-outs: a slow machine must not look like a broker that is away."""
    for module, name in (
        *((adapter, name) for name in ("PATIENCE", "SILENCE", "CONNECTING")),
        *((joining, name) for name in ("PATIENCE", "GOODBYE")),
    ):
        monkeypatch.setattr(module, name, RATE * getattr(module, name))
    return MockClock(rate=RATE)


@pytest.fixture
def fast_clock() -> MockClock:
    """Time goes fast, for tests of the time-outs."""
    return MockClock(rate=RATE)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may kill."""
    with run_redis(tmp_path) as server:
        yield server


async def run(call: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(call)


class Publisher:
    """Publishes 1, 2, 3, ... to the room, and notes what the broker has."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.published: list[str] = []
        self.failed: list[str] = []

    async def publish(self, count: int, pause: float = 0.0) -> None:
        for _ in range(count):
            message = str(len(self.published) + len(self.failed) + 1)
            try:
                await self.rooms.publish("chat", message)
            except RoomsUnavailable:
                self.failed.append(message)
            else:
                self.published.append(message)
            await trio.sleep(pause)


@asynccontextmanager
async def publisher_and_member(
    url: str, member_url: str | None = None, **options: Any
) -> AsyncIterator[tuple[Publisher, Transaction, Rooms]]:
    """Rooms that publish; others, as in another process, with a member; and the client of that."""
    async with trio.open_nursery() as nursery:
        async with open_rooms(url, **options) as rooms, open_rooms(member_url or url, **options) as others:
            client, server = open_memory_pair(nursery)
            async with others.join("chat", server):
                yield Publisher(rooms), client, others
        nursery.cancel_scope.cancel()


async def received(client: Transaction, publisher: Publisher) -> list[str]:
    """What has come, without what may have been published although it failed."""
    got: list[Any] = []
    while publisher.published[-1] not in got:
        got += await receive(client, 1)
    assert got == sorted(got, key=int)
    assert len(set(got)) == len(got)
    return [message for message in got if message not in publisher.failed]


async def reconnected(rooms: Rooms, times: int = 1) -> None:
    with trio.fail_after(FOREVER):
        while rooms.statistics().reconnections < times or not rooms.statistics().connected:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def subscribed_again(rooms: Rooms, times: int = 1) -> None:
    """Wait for the subscription, too, as joining the room does."""
    await reconnected(rooms, times)
    async with rooms.join("chat"):
        pass


def kill_subscriber(redis: RedisServer) -> None:
    assert redis.ask("CLIENT KILL TYPE pubsub") == b":1\r\n"


async def test_two_that_join_a_room_at_once_subscribe_once(clock: MockClock, redis: RedisServer) -> None:
    assert redis.ask("CONFIG RESETSTAT") == b"+OK\r\n"
    async with open_rooms(redis.url) as rooms, trio.open_nursery() as nursery:

        async def join(*, task_status: trio.TaskStatus[None]) -> None:
            async with rooms.join("chat"):
                task_status.started()
                await trio.sleep_forever()

        async with trio.open_nursery() as starting:
            starting.start_soon(nursery.start, join)
            starting.start_soon(nursery.start, join)
        assert b"cmdstat_subscribe:calls=1," in redis.ask("INFO commandstats")
        nursery.cancel_scope.cancel()


# The connection is lost


async def test_the_connections_of_subscribers_are_killed(clock: MockClock, redis: RedisServer) -> None:
    async with publisher_and_member(redis.url, history=1000) as (publisher, client, others):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.publish, 300, 0.01)
            for times in range(1, 4):
                await trio.sleep(0.5)
                kill_subscriber(redis)
                await subscribed_again(others, times)
        assert publisher.failed == []
        assert await received(client, publisher) == publisher.published


async def test_without_a_history_a_hole_closes_the_members(clock: MockClock, redis: RedisServer) -> None:
    async with publisher_and_member(redis.url) as (publisher, client, others):
        await publisher.publish(1)
        assert await receive(client, 1) == ["1"]
        kill_subscriber(redis)
        await subscribed_again(others)
        await publisher.publish(1)
        assert await receive(client, 1) == ["2"]  # In between was nothing to be missed.
        kill_subscriber(redis)
        await publisher.publish(3)
        await subscribed_again(others, 2)
        assert await read_to_end(client) == ([], LOST)
        assert others.statistics().members_lost == 1


async def test_the_server_is_stopped_for_two_seconds(redis: RedisServer) -> None:
    async with publisher_and_member(redis.url, history=1000) as (publisher, client, others):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.publish, 100, 0.01)
            await trio.sleep(0.3)
            redis.signal(signal.SIGSTOP)
            try:
                await trio.sleep(2)
            finally:
                redis.signal(signal.SIGCONT)
        assert publisher.failed == []
        assert await received(client, publisher) == publisher.published
        assert others.statistics().reconnections == 0


class Proxy:
    """Passes on what comes, or drops it, or takes no connection."""

    def __init__(self) -> None:
        self.silent = False
        self.closed = False
        self.port = 0

    async def serve(self, target: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async def handle(near: trio.SocketStream) -> None:
            if self.closed:
                return
            async with await trio.open_tcp_stream("127.0.0.1", target) as far, trio.open_nursery() as nursery:
                nursery.start_soon(self._pass, near, far, nursery)
                nursery.start_soon(self._pass, far, near, nursery)

        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
            self.port = listener.socket.getsockname()[1]
            task_status.started()

    async def _pass(self, one: trio.SocketStream, other: trio.SocketStream, nursery: trio.Nursery) -> None:
        try:
            async for data in one:
                if not self.silent:
                    await other.send_all(data)
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("history", [1000, 0])
async def test_the_network_is_silent_for_14_seconds(
    history: int, fast_clock: MockClock, redis: RedisServer, nursery: trio.Nursery
) -> None:
    proxy = Proxy()
    await nursery.start(proxy.serve, redis.port)
    url = f"redis://127.0.0.1:{proxy.port}"
    async with publisher_and_member(redis.url, url, history=history) as (publisher, client, others):
        await publisher.publish(10)
        assert await received(client, publisher) == publisher.published
        proxy.silent = True
        began = trio.current_time()
        await publisher.publish(140, 0.1)
        assert trio.current_time() - began > 14
        assert not others.statistics().connected
        with pytest.raises(RoomsUnavailable, match=r"^no connection to the broker, nothing sent within 5 seconds$"):
            await others.publish("chat", "x")
        with pytest.raises(RoomsUnavailable):
            async with others.join("chat"):
                raise AssertionError
        assert client.closed is None
        proxy.silent = False
        if history:
            publisher.published = publisher.published[10:]
            assert await received(client, publisher) == publisher.published
        else:
            assert await read_to_end(client) == ([], LOST)
    nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    clock: MockClock, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_rooms(redis.url) as rooms:
        redis.signal(signal.SIGSTOP)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(adapter, "PATIENCE", 1)  # Long before the connection is given up.
                with pytest.raises(RoomsUnavailable, match=r"^the broker has not answered within 1 seconds$"):
                    await rooms.publish("chat", "x")
                reason = f"^cannot open rooms at 127.0.0.1:{redis.port}: no answer within 1 seconds$"
                with pytest.raises(RoomsUnavailable, match=reason):
                    async with open_rooms(redis.url):
                        raise AssertionError
        finally:
            redis.signal(signal.SIGCONT)
        await rooms.publish("chat", "y")


# The server is killed


async def test_killed_with_persistence_nothing_that_was_published_is_lost(clock: MockClock, tmp_path: Path) -> None:
    with run_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec") as server:
        async with publisher_and_member(server.url, history=1000) as (publisher, client, others):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publisher.publish, 400, 0.01)
                await trio.sleep(1)
                await run(server.kill)
                await trio.sleep(1)
                await run(server.start)
                await reconnected(others)
                await reconnected(publisher.rooms)
            await publisher.publish(10)
            assert len(publisher.failed) <= 1  # the one that was on its way; the others have waited
            assert await received(client, publisher) == publisher.published


@pytest.mark.parametrize("history", [1000, 0])
async def test_killed_without_persistence_the_members_are_closed(
    history: int, clock: MockClock, own_redis: RedisServer
) -> None:
    async with publisher_and_member(own_redis.url, history=history) as (publisher, client, others):
        await publisher.publish(20)
        last = await publisher.rooms.publish("chat", "last")
        await run(own_redis.kill)
        await run(own_redis.start)
        await reconnected(publisher.rooms)
        await publisher.publish(50)  # More than before: the numbers alone would not tell.
        assert (await read_to_end(client))[1] == LOST
        with pytest.raises(Missed):
            async with others.join("chat", after=last):
                raise AssertionError


async def test_a_server_that_comes_back_with_less_than_it_had_is_found_out(
    clock: MockClock, own_redis: RedisServer, nursery: trio.Nursery
) -> None:
    proxy = Proxy()
    await nursery.start(proxy.serve, own_redis.port)
    late = f"redis://127.0.0.1:{proxy.port}"
    async with publisher_and_member(own_redis.url, late, history=1000) as (publisher, client, others):
        await publisher.publish(10)
        kept = await publisher.rooms.publish("chat", "kept")
        assert own_redis.ask("SAVE") == b"+OK\r\n"
        forgotten = await publisher.rooms.publish("chat", "forgotten")
        assert len(await receive(client, 12)) == 12
        proxy.closed = True
        await run(own_redis.kill)
        await run(own_redis.start)
        await reconnected(publisher.rooms)
        early, early_peer = open_memory_pair(nursery)
        async with publisher.rooms.join("chat", early_peer):
            await publisher.publish(50)
            assert len(await receive(early, 50)) == 50
            proxy.closed = False
            assert await read_to_end(client) == ([], LOST)
            # This process could not know. Now it does: somebody has seen what nobody else will see.
            await publisher.publish(1)
            assert await read_to_end(early) == ([], LOST)
        for after in (kept, forgotten):
            with pytest.raises(Missed):
                async with others.join("chat", after=after):
                    raise AssertionError
    nursery.cancel_scope.cancel()


async def test_positions_hold_over_a_restart_if_nothing_was_forgotten(
    clock: MockClock, own_redis: RedisServer, nursery: trio.Nursery
) -> None:
    async with publisher_and_member(own_redis.url, history=1000) as (publisher, client, others):
        await publisher.publish(5)
        after = await publisher.rooms.publish("chat", "kept")
        await publisher.publish(5)
        assert own_redis.ask("SAVE") == b"+OK\r\n"
        await run(own_redis.kill)
        await run(own_redis.start)
        await reconnected(others)
        await reconnected(publisher.rooms)
        await publisher.publish(5)
        assert len(await receive(client, 16)) == 16
        again, server = open_memory_pair(nursery)
        async with others.join("chat", server, after=after):
            assert len(await receive(again, 10)) == 10
    nursery.cancel_scope.cancel()


# What the server has


async def test_a_room_that_is_lost_at_the_server_closes_its_members(clock: MockClock, redis: RedisServer) -> None:
    async with publisher_and_member(redis.url, history=1000) as (publisher, client, others):
        await publisher.publish(3)
        assert await receive(client, 3) == ["1", "2", "3"]
        assert redis.ask("DEL trio_pyjo_ws:0:{chat}:meta trio_pyjo_ws:0:{chat}:stream") == b":2\r\n"
        await publisher.publish(1)
        assert await read_to_end(client) == ([], LOST)
        assert others.statistics().reconnections == 0


async def test_a_stream_that_is_lost_at_the_server_is_a_loss(clock: MockClock, redis: RedisServer) -> None:
    async with publisher_and_member(redis.url, history=1000) as (publisher, client, others):
        first = await publisher.rooms.publish("chat", "0")
        await publisher.publish(3)
        assert len(await receive(client, 4)) == 4
        assert redis.ask("DEL trio_pyjo_ws:0:{chat}:stream") == b":1\r\n"
        with pytest.raises(Missed):
            async with others.join("chat", after=first):
                raise AssertionError
        await publisher.publish(1)
        with pytest.raises(Missed):
            async with others.join("chat", after=first):
                raise AssertionError
        assert await receive(client, 1) == ["4"]


async def test_scripts_that_are_lost_at_the_server_are_loaded_again(
    clock: MockClock, redis: RedisServer, nursery: trio.Nursery
) -> None:
    # One connection: of several, the first that finds out loads the scripts for all.
    async with open_rooms(redis.url, history=1000) as rooms:
        client, server = open_memory_pair(nursery)
        async with rooms.join("chat", server):
            assert redis.ask("SCRIPT FLUSH") == b"+OK\r\n"
            with pytest.raises(RoomsUnavailable, match="the broker has failed: "):
                await rooms.publish("chat", "x")
            await reconnected(rooms)
            await rooms.publish("chat", "y")
            assert await receive(client, 1) == ["y"]
    nursery.cancel_scope.cancel()


async def test_what_others_publish_is_passed_over(
    clock: MockClock, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with publisher_and_member(redis.url) as (publisher, client, _):
        for text in ("x", '"0123456789abcdef.1 t\\xff"', '"\\xff 1"'):
            assert redis.ask(f"PUBLISH trio_pyjo_ws:0:{{chat}} {text}") == b":1\r\n"
        await publisher.publish(1)
        assert await receive(client, 1) == ["1"]
        assert caplog.text.count("pass over what is published to b'trio_pyjo_ws:0:{chat}'") == 3


async def test_a_hole_in_a_live_subscription_is_filled(clock: MockClock, redis: RedisServer) -> None:
    async with publisher_and_member(redis.url, history=1000) as (publisher, client, _):
        await publisher.publish(1)
        redis.ask("HINCRBY trio_pyjo_ws:0:{chat}:meta n 1")
        redis.ask("XADD trio_pyjo_ws:0:{chat}:stream 2-0 m tsilent")
        await publisher.publish(2)
        assert await receive(client, 4) == ["1", "silent", "2", "3"]


async def test_a_room_with_members_is_kept_however_quiet_it_is(clock: MockClock, redis: RedisServer) -> None:
    async with publisher_and_member(redis.url, history=10, keep=3, lease=3) as (publisher, client, others):
        await publisher.publish(1)
        async with others.join("chat", who="anna"):
            await trio.sleep(4 * RATE)  # of the server's seconds, which count here
            assert await publisher.rooms.who("chat") == {"anna"}
        await publisher.publish(1)
        assert await receive(client, 2) == ["1", "2"]
        assert others.statistics().reconnections == 0
    async with open_rooms(redis.url, keep=1) as rooms:
        old = await rooms.publish("chat", "x")
        await trio.sleep(1.5 * RATE)
        assert (await rooms.publish("chat", "x")).epoch != old.epoch


async def test_databases_are_apart(clock: MockClock, redis: RedisServer, nursery: trio.Nursery) -> None:
    async with open_rooms(redis.url + "/0") as rooms, open_rooms(redis.url + "/1") as others:
        client, server = open_memory_pair(nursery)
        async with rooms.join("chat", server):
            await others.publish("chat", "elsewhere")
            await rooms.publish("chat", "here")
            assert await receive(client, 1) == ["here"]
    nursery.cancel_scope.cancel()


async def test_a_member_that_leaves_is_not_subscribed_any_more(clock: MockClock, redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms:
        for _ in range(3):
            async with rooms.join("chat"), rooms.join("chat"):
                assert redis.ask("PUBSUB CHANNELS") == b"*1\r\n$21\r\ntrio_pyjo_ws:0:{chat}\r\n"
            await rooms.publish("chat", "x")
            assert redis.ask("PUBSUB CHANNELS") == b"*0\r\n"


async def test_a_join_that_is_cancelled_while_it_subscribes_leaves_no_subscription(
    clock: MockClock, redis: RedisServer
) -> None:
    async with open_rooms(redis.url) as rooms:
        assert redis.ask("CLIENT PAUSE 300 ALL") == b"+OK\r\n"
        with trio.move_on_after(0.1 * RATE) as scope:
            async with rooms.join("chat"):
                raise AssertionError("it has joined")
        assert scope.cancelled_caught
        assert await rooms.who("chat") == set()  # Behind all that was asked before.
        assert redis.ask("PUBSUB CHANNELS") == b"*0\r\n"


# Presence


async def shown(rooms: Rooms, people: set[str]) -> None:
    """Until these are there, and no others."""
    with trio.fail_after(FOREVER):
        while await rooms.who("chat") != people:  # noqa: ASYNC110 - it asks the server
            await trio.sleep(0.1)


async def test_people_are_shown_again_after_the_connection_was_lost(clock: MockClock, redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms, open_rooms(redis.url) as others, AsyncExitStack() as stack:
        people = {f"{number} {'x' * 10}" for number in range(1500)}
        for who in people:
            await stack.enter_async_context(rooms.join("chat", who=who))
        assert await others.who("chat") == people
        kill_subscriber(redis)
        await reconnected(rooms)
        async with rooms.join("chat", who="another"):
            await shown(others, people | {"another"})
        redis.ask("FLUSHALL")
        await reconnected(rooms, 2)  # The lease has lapsed, and so has that of the others.
        await reconnected(others)
        await shown(others, people)
    assert redis.ask("KEYS *session*") == b"*0\r\n"


@contextmanager
def workers(count: int, url: str, lease: float = 15) -> Iterator[list[tuple[subprocess.Popen[str], str]]]:
    """Processes that serve the chat, and their URLs."""
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), url, str(lease)]
    with ExitStack() as stack:
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]  # noqa: S603
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        ports = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
        assert all(ports)
        yield [(process, f"ws://127.0.0.1:{port}/") for process, port in zip(processes, ports, strict=True)]


def longest_lease(redis: RedisServer) -> int:
    """How many milliseconds the server shows the people of a process that is killed now."""
    script = "local ms = 0 for _, key in ipairs(redis.call('KEYS', ARGV[1])) do "
    script += "ms = math.max(ms, redis.call('PTTL', key)) end return ms"
    return int(redis.ask(f'EVAL "{script}" 0 trio_pyjo_ws:0:session:*')[1:])


async def test_a_process_is_killed_and_its_people_are_gone_within_the_lease(redis: RedisServer) -> None:
    lease = 3
    with workers(2, redis.url, lease) as ((killed, killed_url), (_, other_url)):
        async with open_rooms(redis.url, lease=lease) as rooms, open_websocket(other_url + "?who=bert") as bert:
            assert await receive(bert, 1) == ["joined"]
            async with open_websocket(killed_url + "?who=anna") as anna:
                assert await receive(anna, 1) == ["joined"]
                assert await rooms.who("chat") == {"anna", "bert"}
                killed.kill()
                assert 0 < longest_lease(redis) <= lease * 1000
                await shown(rooms, {"bert"})
                await rooms.publish("chat", "x")
                assert await receive(bert, 1) == ["x"]
                assert (await read_to_end(anna))[0] == []


@pytest.mark.parametrize("processes", [1, 2, 4])
async def test_100_members_see_one_order_and_lose_nothing(processes: int, redis: RedisServer) -> None:
    with workers(processes, redis.url) as servers:
        async with trio.open_nursery() as connections, trio.open_nursery() as nursery:
            members = [await connect(connections, servers[index % processes][1]) for index in range(100)]
            for ws in members:
                assert await receive(ws, 1) == ["joined"]
            got: dict[int, list[Any]] = {}

            async def read(index: int) -> None:
                got[index] = await receive(members[index], 100)

            async def write(index: int) -> None:
                for number in range(10):
                    await members[index].send(f"{index} {number}")

            for index in range(100):
                nursery.start_soon(read, index)
            for index in range(0, 100, 10):
                nursery.start_soon(write, index)
            while len(got) < len(members):  # noqa: ASYNC110 - the readers end
                await trio.sleep(0.01)
            connections.cancel_scope.cancel()
        assert sorted(got[0]) == sorted(f"{index} {number}" for index in range(0, 100, 10) for number in range(10))
        assert all(one == got[0] for one in got.values())


# Trust


async def test_a_wrong_password_is_named_without_it(
    clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_redis(tmp_path) as server:
        server.ask("CONFIG SET requirepass secret")
        with monkeypatch.context() as patch:
            patch.setattr(adapter, "PATIENCE", 5)
            for url in (server.url, server.url.replace("//", "//:wrong@")):
                reason = f"cannot open rooms at 127.0.0.1:{server.port}: "
                with pytest.raises(RoomsUnavailable, match=reason) as caught:
                    async with open_rooms(url):
                        raise AssertionError
                assert "wrong@" not in str(caught.value)
        async with open_rooms(server.url.replace("//", "//:secret@")) as rooms:
            await rooms.publish("chat", "x")


async def test_a_user_that_may_not_subscribe_gets_nobody_elses_replies(clock: MockClock, tmp_path: Path) -> None:
    with run_redis(tmp_path) as server:
        async with open_rooms(server.url) as rooms:
            assert server.ask("ACL SETUSER default resetchannels") == b"+OK\r\n"
            with pytest.raises(RoomsUnavailable, match="the broker has failed: "):
                async with rooms.join("chat"):
                    raise AssertionError
            await reconnected(rooms)
            assert server.ask("ACL SETUSER default allchannels") == b"+OK\r\n"
            async with rooms.join("chat"):
                assert (await rooms.publish("chat", "x")).number == 1


async def test_a_connection_that_has_held_is_tried_again_at_once(
    clock: MockClock, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Longest:
        def uniform(self, _: float, longest: float) -> float:
            pauses.append(longest)
            return longest

    monkeypatch.setattr(adapter, "_jitter", Longest())
    monkeypatch.setattr(adapter, "HEALTHY", math.inf)
    async with open_rooms(redis.url) as rooms, rooms.join("chat"):
        for times in range(1, 4):
            kill_subscriber(redis)
            await subscribed_again(rooms, times)
        monkeypatch.setattr(adapter, "HEALTHY", 0)
        kill_subscriber(redis)
        await subscribed_again(rooms, 4)
    assert pauses == [0.1, 0.2, 0.4, 0.1]


async def test_nobody_listens_there(fast_clock: MockClock) -> None:
    with pytest.raises(RoomsUnavailable, match=r"^cannot open rooms at 127.0.0.1:1: it cannot be connected to$"):
        async with open_rooms("redis://127.0.0.1:1"):
            raise AssertionError


async def test_a_position_of_another_room_or_of_none_is_missed(clock: MockClock, redis: RedisServer) -> None:
    async with open_rooms(redis.url, history=10) as rooms:
        position = await rooms.publish("other", "x")
        for after in (position, Position("f" * 16, 0), Position("f" * 16, 10**14)):
            with pytest.raises(Missed):
                async with rooms.join("chat", after=after):
                    raise AssertionError


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://:secret@localhost", "URL scheme must be 'redis', 'rediss' or 'unix', not 'http'"),
        ("localhost", "URL scheme must be 'redis', 'rediss' or 'unix', not ''"),
        ("redis://", "URL must have a host, or for 'unix' a path"),
        ("unix://", "URL must have a host, or for 'unix' a path"),
    ],
)
async def test_urls_are_checked(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        async with open_rooms(url):
            raise AssertionError


@pytest.mark.parametrize(
    ("more", "checked"), [("", True), ("?ssl_check_hostname=true", True), ("?ssl_check_hostname=false", False)]
)
def test_the_name_of_the_server_is_verified_unless_that_is_refused(more: str, checked: bool) -> None:
    context = adapter._parse("rediss://localhost" + more).connection_kwargs["ssl_context"]
    assert context is not None
    assert context.check_hostname is checked


async def test_what_comes_after_the_last_member_has_left_is_passed_over(
    clock: MockClock, redis: RedisServer, nursery: trio.Nursery
) -> None:
    async with open_rooms(redis.url) as rooms:
        broker: Any = rooms._broker
        broker._take(b"trio_pyjo_ws:0:{chat}", b"x", broker._session, nursery)
        async with rooms.join("chat", who="anna"):
            await broker._enter("chat", [], broker._session)  # All have left meanwhile.
            assert await rooms.who("chat") == {"anna"}
