"""The scripted peer: exact frames both ways, and failures that a reader understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import Close, Frame, HandshakeError, Opcode, Response, Transaction, connect
from trio_pyjo_ws.handshake.http1 import ClientHandshake
from trio_pyjo_ws.testing import Faults, FaultyStream, ScriptedPeer, open_scripted_pair, serve_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

FRAGMENT = Frame(False, False, True, False, Opcode.TEXT, b"a")


@pytest.fixture
def peers() -> tuple[ScriptedPeer, ScriptedPeer]:
    """Two scripts, one for each side, to test one with the other."""
    ours, theirs = trio.testing.memory_stream_pair()
    return ScriptedPeer("client", ours), ScriptedPeer("server", theirs)


async def failure(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """The lines of the message with which this fails."""
    with pytest.raises(AssertionError) as caught:
        await function(*arguments)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("what", "frame"),
    [
        (("Grüße",), Frame(True, False, False, False, Opcode.TEXT, "Grüße".encode())),
        ((b"\x00",), Frame(True, False, False, False, Opcode.BINARY, b"\x00")),
        ((FRAGMENT,), FRAGMENT),
        ((Frame(True, True, False, True, 3, b"x"),), Frame(True, True, False, True, 3, b"x")),
        ((Close(1000, "bye"),), Frame(True, False, False, False, Opcode.CLOSE, b"\x03\xe8bye")),
        ((Close(1005),), Frame(True, False, False, False, Opcode.CLOSE, b"")),
        ((Opcode.PING,), Frame(True, False, False, False, Opcode.PING, b"")),
        ((Opcode.PONG, b"x"), Frame(True, False, False, False, Opcode.PONG, b"x")),
    ],
)
async def test_what_is_replied_is_what_is_expected(
    peers: tuple[ScriptedPeer, ScriptedPeer], what: tuple[Any, ...], frame: Frame
) -> None:
    for sender, receiver in (peers, peers[::-1]):
        await sender.reply(*what)
        await sender.reply(*what)
        assert await receiver.expect(*what) == frame
        assert await receiver.expect(frame) == frame
        assert receiver.received == [frame, frame]


async def test_a_client_masks_and_a_server_does_not(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    await client.reply("Hello")
    masked = await server.stream.receive_some()
    assert (masked[0], masked[1], len(masked)) == (0x81, 0x85, 11)
    await server.reply("Hello")
    assert await client.stream.receive_some() == b"\x81\x05Hello"


async def test_the_opening_handshake_may_come_in_any_pieces(nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    slow = FaultyStream(ours, send=Faults(chunk_size=1), receive=Faults(chunk_size=1))
    client, server = ScriptedPeer("client", slow), ScriptedPeer("server", theirs)
    nursery.start_soon(server.accept)
    assert (await client.request()).status == 101
    await client.reply("Hello")
    await server.expect("Hello")


async def test_a_frame_may_come_with_the_opening_handshake(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    await client.reply_bytes(ClientHandshake("ws://memory.test/").write() + b"\x81\x05He")
    await server.accept()
    await client.reply_bytes(b"llo")
    await server.expect("Hello")


async def test_the_end_of_the_stream_in_the_opening_handshake(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    await client.reply_bytes(b"GET / HTTP/1.1\r\n")
    await client.aclose()
    assert await failure(server.accept) == [
        "expected the request of the opening handshake",
        "received the end of the stream",
    ]


async def test_bytes_go_as_they_are(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    for byte in b"\x81\x05Hello\x82\x00":
        await server.reply_bytes(bytes([byte]))
    await client.expect("Hello")
    await client.expect(b"")


async def test_an_opcode_alone_stands_for_any_payload(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    await server.reply(Opcode.PING, b"1234")
    assert (await client.expect(Opcode.PING)).payload == b"1234"
    await server.reply(FRAGMENT)
    assert await failure(client.expect, Opcode.TEXT) == [
        "expected TEXT of any payload",
        "received TEXT (without FIN, rsv2) 'a'",
        "after    PING b'1234'",
    ]


@pytest.mark.parametrize(
    ("sent", "expected", "lines"),
    [
        ("Hallo", "Hello", ["expected TEXT 'Hello'", "received TEXT 'Hallo'"]),
        (b"a", "a", ["expected TEXT 'a'", "received BINARY b'a'"]),
        (FRAGMENT, "a", ["expected TEXT 'a'", "received TEXT (without FIN, rsv2) 'a'"]),
        (
            Frame(True, False, False, False, 3, b""),
            Opcode.PONG,
            ["expected PONG of any payload", "received opcode 3 b''"],
        ),
        (
            Close(1001, "away"),
            Close(1000),
            ["expected CLOSE (1000, '')", "received CLOSE (1001, 'away')"],
        ),
        (
            "a" * 1000 + "c",
            "a" * 1000 + "b",
            [
                f"expected TEXT '{'a' * 80}'... of 1001 bytes",
                f"received TEXT '{'a' * 80}'... of 1001 bytes",
                "from byte 1000 on: expected b'b', received b'c'",
            ],
        ),
        (
            "a" * 100,
            "a" * 90,
            [
                f"expected TEXT '{'a' * 80}'... of 90 bytes",
                f"received TEXT '{'a' * 80}'... of 100 bytes",
                "from byte 90 on: expected b'', received b'aaaaaaaaaa'",
            ],
        ),
    ],
)
async def test_another_frame_than_the_expected_is_shown_beside_it(
    peers: tuple[ScriptedPeer, ScriptedPeer], sent: Any, expected: Any, lines: list[str]
) -> None:
    await peers[0].reply(sent)
    assert await failure(peers[1].expect, expected) == lines


async def test_nothing_is_awaited_for_ever(peers: tuple[ScriptedPeer, ScriptedPeer], autojump_clock: MockClock) -> None:
    client, server = peers
    await server.reply("a")
    await client.expect("a")
    assert await failure(client.expect, "b") == [
        "expected TEXT 'b'",
        "received nothing more for 5 seconds",
        "after    TEXT 'a'",
    ]
    assert trio.current_time() == 5
    impatient = ScriptedPeer("client", client.stream, timeout=0.5)
    assert await failure(impatient.expect_eof) == [
        "expected the end of the stream",
        "received nothing more for 0.5 seconds",
    ]
    assert trio.current_time() == 5.5


async def test_the_end_of_the_stream(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    await server.aclose()
    await client.expect_eof()
    assert await failure(client.expect, "a") == ["expected TEXT 'a'", "received the end of the stream"]


async def test_a_frame_before_the_end_of_the_stream(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    async with server:
        await server.reply(Close(1000))
    assert await failure(client.expect_eof) == ["expected the end of the stream", "received CLOSE (1000, '')"]


async def test_a_torn_frame_at_the_end_of_the_stream(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    await server.reply_bytes(b"\x81\x05Hel")
    await server.aclose()
    assert await failure(client.expect_eof) == [
        "expected the end of the stream",
        r"received it in the middle of a frame: b'\x81\x05Hel'",
    ]


async def test_what_is_no_frame_is_refused(peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    with pytest.raises(TypeError, match="a payload goes with an Opcode, not with 'text'"):
        await peers[0].reply("text", b"payload")
    with pytest.raises(ValueError, match="the role must be 'client' or 'server', not 'peer'"):
        ScriptedPeer("peer", peers[0].stream)  # type: ignore[arg-type]


async def test_it_plays_the_server_from_the_first_byte(nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = ScriptedPeer("server", theirs)
    requests = []

    async def script() -> None:
        requests.append(await peer.accept(subprotocol="v1", headers={"X-Server": "script"}))
        await peer.expect("question")
        await peer.reply("answer")
        await peer.expect(Close(1000))
        await peer.reply(Close(1000))
        await peer.aclose()

    nursery.start_soon(script)
    ws = await connect(nursery, "ws://test/chat", stream=ours, subprotocols=["v1"])
    assert requests[0].target == "/chat"
    assert ws.protocol == "v1"
    assert ws.res.headers["X-Server"] == "script"
    await ws.send("question")
    assert await ws.receive() == "answer"
    assert await ws.finish(1000) == Close(1000)


async def test_it_refuses_as_a_server(nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = ScriptedPeer("server", theirs)
    nursery.start_soon(peer.refuse, Response(403))
    with pytest.raises(HandshakeError) as caught:
        await connect(nursery, "ws://test/", stream=ours)
    assert caught.value.response is not None
    assert caught.value.response.status == 403


async def test_it_plays_the_client_from_the_first_byte(nursery: trio.Nursery) -> None:
    async def handler(ws: Transaction) -> None:
        await ws.send(f"{ws.protocol} {ws.req and ws.req.headers['Origin']}")
        assert await ws.receive() == "answer"

    server = await nursery.start(serve_memory, handler)
    peer = ScriptedPeer("client", server.open_stream())
    response = await peer.request(subprotocols=["v1"], origin="https://example.org")
    assert response.status == 101
    await peer.expect("None https://example.org")
    await peer.reply("answer")
    await peer.expect(Close(1000))
    await peer.reply(Close(1000))
    await peer.expect_eof()


async def test_a_client_that_is_refused(nursery: trio.Nursery, peers: tuple[ScriptedPeer, ScriptedPeer]) -> None:
    client, server = peers
    nursery.start_soon(server.refuse, Response(404))
    with pytest.raises(HandshakeError, match="404"):
        await client.request()


async def test_a_peer_without_words(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ws, peer = open_scripted_pair(nursery, "client", ping_interval=20, ping_timeout=5)
    await trio.sleep(21)
    await peer.expect(Opcode.PING)
    await trio.sleep(6)
    assert ws.is_finished  # It sends no pong by itself.
