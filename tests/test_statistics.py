"""What statistics() counts: messages and bytes, whichever way they come and go; compression, latencies, servers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import Server, Transaction, broadcast, open_websocket, serve_listeners
from trio_pyjo_ws._engine.heartbeat import LATENCIES
from trio_pyjo_ws.testing import open_memory_pair
from trio_pyjo_ws.wire.frames import Opcode, encode

from .engine.test_receiving import begin, end, fragment, pieces_of, send_pieces
from .peer import connected, control, limit_writes
from .service import MemoryListener

URL = "ws://memory.test/"

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_what_was_received_is_counted(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        sent = peer.bytes_of("one", b"two", control(Opcode.PING), begin(b"th"), fragment(b"r"), end(b"ee"))
        peer.sock.sendall(sent)
        for _ in range(3):
            await ws.receive()
        statistics = ws.statistics()
        assert statistics.messages_received == 3
        assert statistics.bytes_received == len(sent)
        peer.send("four")
        await pieces_of(ws)
        peer.send(begin(b"fi"), end(b"ve"))
        await pieces_of(ws)
        ws.on("text", lambda *_: None)
        peer.send("six", "seven")
        await trio.sleep(1)
        assert ws.statistics().messages_received == 7


async def test_what_a_lost_peer_had_sent_is_counted(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("one", "two")
        peer.sock.close()
        with pytest.raises(trio.BrokenResourceError):
            await ws.send("x")
        assert ws.statistics().messages_received == 2
        assert ws.statistics().bytes_received == 2 * (2 + 4 + 3)


@pytest.mark.parametrize("role", ["client", "server"])
async def test_what_was_sent_is_counted(role: str, autojump_clock: MockClock) -> None:
    async with connected(role) as (ws, peer, _):
        await ws.send("one")
        await ws.send(b"two" * 20_000)  # A large one, in two pieces.
        await ws.send(json=3)
        await ws.send(frame=[0, 0, 0, 0, 1, b"fo"])
        await ws.send(frame=[1, 0, 0, 0, 0, b"ur"])
        await ws.send(frame=[1, 0, 0, 0, 9, b"?"])
        await ws.pong()
        await ws.send(text=send_pieces("fi", "ve"))
        assert await broadcast([ws], "six") == 1
        await ws.drain()
        statistics = ws.statistics()
        assert statistics.messages_sent == 6
        assert statistics.bytes_unsent == 0
        peer.read()
        mask = 4 if role == "client" else 0
        frames = 11
        assert statistics.bytes_sent == 3 + 60_000 + 1 + 4 + 1 + 4 + 3 + 2 * frames + 2 + mask * frames


async def test_what_waits_to_be_written_is_counted_once(autojump_clock: MockClock) -> None:
    async with connected(write_limit=1_000_000) as (ws, peer, _):
        ws.send_nowait(b"x" * 100_000)
        ws.send_nowait(b"x" * 100_000)
        limit_writes(ws, 10)  # of the first payload, so that the rest is put back
        await wait_all_tasks_blocked()
        ws.send_nowait("waits")
        assert ws.statistics().messages_sent == 3
        limit_writes(ws, None)
        ws.send_nowait("too")
        while ws.statistics().bytes_unsent:
            peer.read()
            await trio.sleep(1)
        assert ws.statistics().messages_sent == 4


async def test_compression_is_measured(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, compression=True)
        assert client.statistics().compression_sent == client.statistics().compression_received == (0, 0)
        await client.send("short")
        await client.send("long " * 1_000)
        await client.send(text=send_pieces("pieces " * 1_000, "pieces " * 1_000))
        for _ in range(2):
            await server.receive()
        await pieces_of(server)
        plain, compressed = client.statistics().compression_sent
        assert plain == 5_000 + 14_000
        assert 0 < compressed < 300
        assert server.statistics().compression_received == (compressed + 1, plain)  # and the byte that ends the pieces
        assert server.statistics().compression_sent == (0, 0)
        nursery.cancel_scope.cancel()


async def test_the_last_latencies_are_kept(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        assert ws.statistics().latency is None
        assert ws.statistics().latencies == ()

        async def answer_later() -> None:
            for index in range(LATENCIES + 4):
                await trio.sleep(index / 100)
                peer.read()
                peer.answer()

        nursery.start_soon(answer_later)
        measured = [await ws.ping(b"%d" % index) for index in range(LATENCIES + 4)]
        assert ws.statistics().latencies == tuple(measured[4:])
        assert ws.statistics().latency == measured[-1] == pytest.approx((LATENCIES + 3) / 100)


async def test_pongs_that_nobody_asked_for(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        await ws.pong()
        await ws.pong(b"alive")
        await ws.drain()
        assert peer.read() == [control(Opcode.PONG), control(Opcode.PONG, b"alive")]
        before = ws.statistics()
        peer.send(*[control(Opcode.PONG, b"%d" % index) for index in range(1_000)], "behind")
        assert await ws.receive() == "behind"
        after = ws.statistics()
        assert (after.latencies, after.pings_waiting) == (before.latencies, 0)
        with pytest.raises(TypeError, match="the payload of a pong must be bytes, not str"):
            await ws.pong("a")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must have at most 125 bytes, not 126"):
            await ws.pong(b"a" * 126)
        with pytest.raises(ValueError, match="the payload of a ping must have at most 125 bytes, not 126"):
            await ws.ping(b"a" * 126)


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def test_a_server_counts_over_all_its_connections(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        listener = MemoryListener()
        server: Server = await nursery.start(partial(serve_listeners, echo, [listener], compression=True))
        assert set(server.statistics()) == {0, None, (0, 0)}

        async with open_websocket(URL, stream=listener.connect(), compression=True) as first:
            async with open_websocket(URL, stream=listener.connect()) as second:
                for ws, message in [(first, "x" * 1_000), (second, "y"), (second, "z")]:
                    await ws.send(message)
                    assert await ws.receive() == message
                async with trio.open_nursery() as pinging:
                    for ws in server.connections:
                        pinging.start_soon(ws.ping)
                both = server.statistics()
                assert (both.connections_open, both.connections_opening) == (2, 0)
                assert (both.connections_accepted, both.connections_opened) == (2, 2)
                assert (both.messages_received, both.messages_sent) == (3, 3)
                assert both.compression_sent[0] == both.compression_received[1] == 1_000
                assert both.latency is not None
                assert (both.messages_waiting, both.bytes_unsent) == (0, 0)
            await trio.sleep(1)
            one = server.statistics()
            assert one.connections_open == 1
            assert (one.connections_accepted, one.connections_opened) == (2, 2)
            assert (one.messages_received, one.messages_sent) == (3, 3)
            assert one.bytes_received == both.bytes_received + len(encode(0x88, b"\x03\xe8", b"mask"))
        stream = listener.connect()
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        await trio.sleep(1)
        assert server.statistics().connections_opening == 1
        await stream.aclose()
        await trio.sleep(1)
        assert server.statistics()[:4] == (0, 0, 3, 2)
        nursery.cancel_scope.cancel()
