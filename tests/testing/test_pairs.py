"""Connections in memory, under trio's mock clock: two transactions, or one and a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws.testing import open_memory_pair, open_scripted_pair

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_pair_is_open_and_talks_both_ways(nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(nursery)
    assert client.established
    assert server.established
    await client.send("from the client")
    await server.send(b"from the server")
    assert await server.receive() == "from the client"
    assert await client.receive() == b"from the server"


async def test_the_handshake_is_that_of_a_connection(nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(
        nursery,
        url="ws://example.org/chat?a=b",
        additional_headers={"X-Test": "yes"},
        subprotocols=["v2", "v1"],
        compression=True,
    )
    assert server.req.target == "/chat?a=b"
    assert server.req.headers["Host"] == "example.org"
    assert server.req.headers["X-Test"] == "yes"
    assert client.res.status == 101
    assert client.protocol == server.protocol == "v2"
    assert client.compressed
    assert server.compressed


async def test_nothing_is_agreed_that_was_not_asked_for(nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(nursery)
    assert client.protocol is server.protocol is None
    assert not client.compressed
    assert not server.compressed


async def test_the_options_are_for_both_sides(nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(nursery, max_websocket_size=5)
    assert client.max_websocket_size == server.max_websocket_size == 5


async def test_an_end_of_one_is_seen_by_the_other(nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(nursery)
    nursery.start_soon(client.aclose)
    with pytest.raises(trio.EndOfChannel):
        await server.receive()
    assert server.closed is not None
    assert server.closed.code == 1000


async def test_streams_of_ones_own_may_be_given(nursery: trio.Nursery) -> None:
    streams = trio.testing.lockstep_stream_pair()
    client, server = open_memory_pair(nursery, streams=streams)
    nursery.start_soon(client.send, "through a lockstep stream")
    assert await server.receive() == "through a lockstep stream"
    nursery.start_soon(server.aclose)
    await client.finish()
    await trio.testing.wait_all_tasks_blocked()
    for stream in streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"it belongs to the transaction")


async def test_time_is_the_mock_clocks(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, server = open_memory_pair(nursery, ping_interval=3600, ping_timeout=60)
    with trio.move_on_after(10_000):
        await trio.sleep_forever()
    # Both have kept the connection alive for hours, which took no time.
    assert trio.current_time() == 10_000
    assert client.statistics().latency == server.statistics().latency == 0


async def test_an_option_that_does_not_fit_raises_at_once(nursery: trio.Nursery) -> None:
    with pytest.raises(TypeError, match="unknown option 'size'"):
        open_memory_pair(nursery, size=1)  # type: ignore[call-arg]
    assert not nursery.child_tasks


def test_what_is_no_nursery_is_named() -> None:
    given: Any = "ws://memory.test/"
    message = r"^the first argument must be a nursery, as in open_memory_pair\(nursery\), not 'ws://memory\.test/'$"
    with pytest.raises(TypeError, match=message):
        open_memory_pair(given)
    with pytest.raises(TypeError, match=r'must be a nursery, as in open_scripted_pair\(nursery, "client"\), not'):
        open_scripted_pair(given, "client")


async def test_a_pair_dies_with_its_nursery() -> None:
    streams = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, streams=streams)
        nursery.cancel_scope.cancel()
    assert client.is_finished
    assert server.is_finished
    for stream in streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_script_stands_in_for_the_peer(nursery: trio.Nursery, role: Any) -> None:
    ws, peer = open_scripted_pair(nursery, role, ping_interval=None)
    assert ws.established
    assert ws.masked is (role == "client")
    assert peer.role != role
    await ws.send("question")
    await peer.expect("question")
    await peer.reply(b"answer")
    assert await ws.receive() == b"answer"


async def test_the_opening_handshake_before_a_script_is_that_of_a_pair(nursery: trio.Nursery) -> None:
    streams = trio.testing.memory_stream_pair()
    ws, peer = open_scripted_pair(
        nursery,
        "server",
        url="ws://example.org/chat",
        additional_headers={"X-Test": "yes"},
        subprotocols=["v1"],
        streams=streams,
        compression=True,
    )
    assert ws.req.target == "/chat"
    assert ws.req.headers["X-Test"] == "yes"
    assert ws.protocol == "v1"
    assert ws.compressed
    assert peer.stream is streams[1]


async def test_a_role_that_is_none(nursery: trio.Nursery) -> None:
    with pytest.raises(ValueError, match="the role must be 'client' or 'server', not 'peer'"):
        open_scripted_pair(nursery, "peer")  # type: ignore[arg-type]
    assert not nursery.child_tasks
