"""The same conversations with other implementations, in each role that they have, over TCP and over TLS."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio

from trio_pyjo_ws import Close, ConnectionClosed, HandshakeError, Transaction

from .peers import DEFLATE, PEERS, Talk, Wire, peers
from .process import SUBPROTOCOL

if TYPE_CHECKING:
    from .peers import Conversation, Peer

pytestmark = pytest.mark.once

NUMBERS = itertools.count(1)
COUNT = 10_000
SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
TEXTS = [
    "",
    "Hello World!",
    "Zażółć gęślą jaźń",
    "你好世界 — こんにちは世界 — 안녕 세상",
    "שלום עולם \u202e مرحبا بالعالم",
    "e\u0301 n\u0303 \u0915\u094d\u0937 Z\u0351\u036b\u0343",
    "👋🏽 👩‍👩‍👧‍👦 🏳️‍🌈 \U0010ffff",
    "\0\x7f\ufeff\ufffe",
    "🐍 snake, 蛇, ثعبان " * 10_000,
]

COMPRESSED_OR_NOT = ("plain", "deflate")
BOTH_WAYS = pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])


async def talk(peer: Peer, role: str, conversation: Conversation, action: str, *given: Any, **more: Any) -> Close:
    """Have a conversation, as a Talk describes it; return how it ended, as the peer tells it."""
    with trio.fail_after(30):
        end: Close = await getattr(peer, role)(Talk(conversation, f"{action}?{next(NUMBERS)}", *given, **more))
    return end


@BOTH_WAYS
@peers()
async def test_texts_of_many_scripts_come_back_as_they_went(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        for text in TEXTS:
            await ws.send(text)
            assert await ws.receive() == text

    assert (await talk(peer, role, conversation, "echo", secure)).code == 1000


@BOTH_WAYS
@peers(theirs=COMPRESSED_OR_NOT)
async def test_messages_of_all_sizes_come_back_as_they_went(peer: Peer, role: str, secure: bool, theirs: str) -> None:
    async def conversation(ws: Transaction) -> None:
        for size in SIZES:
            data = os.urandom(size // 2) + b"a" * (size - size // 2)
            await ws.send(data)
            assert await ws.receive() == data

    assert (await talk(peer, role, conversation, "echo", secure, theirs, theirs)).code == 1000


@BOTH_WAYS
@peers(theirs=COMPRESSED_OR_NOT)
async def test_a_message_of_16_mib_comes_back_as_it_went(peer: Peer, role: str, secure: bool, theirs: str) -> None:
    async def conversation(ws: Transaction) -> None:
        data = os.urandom(2**20) * 16
        await ws.send(data)
        assert await ws.receive() == data

    assert (await talk(peer, role, conversation, "echo", secure, theirs, theirs)).code == 1000


# Where our client fails the opening handshake, or is refused: what is asked of which server, and what that asks for.
FAILED = {
    # It accepts the offer, and says nothing of what that asks of it; RFC 7692, sections 7.1.1.1 and 7.1.2.1, has it
    # accept that too or decline the offer.
    ("picows", "no takeover", "deflate"): 101,
    ("picows", "server's", "deflate"): 101,
    ("picows", "all four", "deflate"): 101,
    # It refuses the connection, where it could decline the offer, when it would have a larger window than the client.
    ("ws", "server's", "all four"): 400,
    ("ws", "client's", "all four"): 400,
}


@peers(lambda abilities: "deflate" in abilities.deflate, theirs=tuple(DEFLATE))
@pytest.mark.parametrize("deflate", DEFLATE)
async def test_compression_is_agreed_whatever_either_side_asks_for(
    peer: Peer, role: str, deflate: str, theirs: str
) -> None:
    async def conversation(ws: Transaction) -> None:
        assert ws.compressed is ("plain" not in (deflate, theirs))
        for text in [*TEXTS, *TEXTS]:  # The second time, out of the context of the first.
            await ws.send(text)
            assert await ws.receive() == text
        data = os.urandom(100_000) + bytes(100_000)
        await ws.send(data)
        assert await ws.receive() == data

    if role == "as_server" and (status := FAILED.get((peer.name, deflate, theirs))) is not None:
        with pytest.raises(HandshakeError) as caught:
            await talk(peer, role, conversation, "echo", deflate=deflate, theirs=theirs)
        assert caught.value.response is not None
        assert caught.value.response.status == status
        return
    assert (await talk(peer, role, conversation, "echo", deflate=deflate, theirs=theirs)).code == 1000


@peers(lambda abilities: "deflate" in abilities.deflate)
async def test_compressed_messages_are_small_on_the_wire_both_ways(peer: Peer, role: str) -> None:
    wire = Wire()

    async def conversation(ws: Transaction) -> None:
        for message in ("text " * 10_000, b"binary" * 10_000):
            await ws.send(message)
            assert await ws.receive() == message

    await talk(peer, role, conversation, "echo", deflate="deflate", theirs="deflate", wire=wire)
    for passed in (wire.of_client, wire.of_server):
        head, _, rest = bytes(passed).partition(b"\r\n\r\n")
        assert b"permessage-deflate" in head
        frames = [frame for frame in wire.frames(passed) if frame.opcode < 8]
        assert [frame.rsv1 for frame in frames if frame.opcode] == [True, True]
        assert 0 < len(rest) < 2_000


@BOTH_WAYS
@peers(theirs=COMPRESSED_OR_NOT)
async def test_ten_thousand_messages_each_way_at_once(peer: Peer, role: str, secure: bool, theirs: str) -> None:
    async def conversation(ws: Transaction) -> None:
        async def send() -> None:
            for number in range(COUNT):
                await ws.send(str(number))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(COUNT):
                assert await ws.receive() == str(number)

    assert (await talk(peer, role, conversation, f"flood/{COUNT}", secure, theirs, theirs)).code == 1000


FRAGMENTS = [["one"], ["two ", "parts"], ["", "empty ", "", "ones", ""], ["é", "世", "🐍"], ["x" * 70_000] * 3]


@BOTH_WAYS
@peers(lambda abilities: abilities.fragments, theirs=COMPRESSED_OR_NOT)
async def test_fragments_of_theirs_become_one_message(peer: Peer, role: str, secure: bool, theirs: str) -> None:
    fragments = [one for one in FRAGMENTS if len(one[0]) < 10]

    async def conversation(ws: Transaction) -> None:
        for one in fragments:
            assert await ws.receive() == "".join(one)
            assert await ws.receive() == "".join(one).encode()

    action = f"fragments/{quote(json.dumps(fragments), safe='')}"
    assert (await talk(peer, role, conversation, action, secure, theirs, theirs)).code == 1000


@BOTH_WAYS
@peers()
async def test_fragments_of_ours_become_one_message(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        for fragments in FRAGMENTS:
            payload = "".join(fragments).encode()
            for opcode, whole in ((1, payload.decode()), (2, payload)):
                for index, fragment in enumerate(fragments):
                    if index:
                        await ws.send(frame=[1, 0, 0, 0, 9, b"in between"])
                    fin = index == len(fragments) - 1
                    await ws.send(frame=[fin, 0, 0, 0, 0 if index else opcode, fragment.encode()])
                assert await ws.receive() == whole

    assert (await talk(peer, role, conversation, "echo", secure)).code == 1000


@BOTH_WAYS
@peers()
async def test_pings_of_ours_are_answered(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        for payload in (None, b"", b"\0\xff" * 62):
            assert 0 <= await ws.ping(payload) < 30

    assert (await talk(peer, role, conversation, "echo", secure)).code == 1000


@BOTH_WAYS
@peers(lambda abilities: abilities.pings)
async def test_pings_of_theirs_are_answered(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        assert await ws.receive() == "ponged"

    assert (await talk(peer, role, conversation, "ping/payload", secure)).code == 1000


@peers()
async def test_a_subprotocol_is_agreed(peer: Peer, role: str) -> None:
    async def conversation(ws: Transaction) -> None:
        assert ws.protocol == SUBPROTOCOL

    offered = ["first", SUBPROTOCOL, "third"]
    assert (await talk(peer, role, conversation, "echo", subprotocols=offered)).code == 1000


CLOSES = [
    Close(1000, ""),
    Close(1001, "going"),
    Close(1008, "bu işe yaramaz"),
    Close(3000, "x" * 123),
    Close(4999, "👋"),
]


@pytest.mark.parametrize("close", CLOSES, ids=[str(close.code) for close in CLOSES])
@BOTH_WAYS
@peers()
async def test_a_close_of_ours_is_told_with_its_reason(peer: Peer, role: str, secure: bool, close: Close) -> None:
    async def conversation(ws: Transaction) -> None:
        assert (await ws.finish(*close)).code == (PEERS[peer.name].answer or close.code)

    assert await talk(peer, role, conversation, "echo", secure) == close


async def a_close_of_theirs(peer: Peer, role: str, secure: bool, close: Close) -> None:
    async def conversation(ws: Transaction) -> None:
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await ws.receive()
        assert ws.closed == close

    await talk(peer, role, conversation, f"close/{close.code}/{quote(close.reason, safe='')}", secure)


@pytest.mark.parametrize("close", CLOSES[:3], ids=[str(close.code) for close in CLOSES[:3]])
@BOTH_WAYS
@peers(lambda abilities: 1001 in abilities.close_codes)
async def test_a_close_of_theirs_is_told_with_its_reason(peer: Peer, role: str, secure: bool, close: Close) -> None:
    await a_close_of_theirs(peer, role, secure, close)


@pytest.mark.parametrize("close", CLOSES[3:], ids=[str(close.code) for close in CLOSES[3:]])
@BOTH_WAYS
@peers()
async def test_a_close_of_theirs_with_a_code_for_applications(
    peer: Peer, role: str, secure: bool, close: Close
) -> None:
    await a_close_of_theirs(peer, role, secure, close)


@BOTH_WAYS
@peers()
async def test_an_end_of_ours_without_close_is_1006(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        await ws.send("and then")
        assert await ws.receive() == "and then"
        await trio.aclose_forcefully(ws)

    assert await talk(peer, role, conversation, "echo", secure) == Close(1006, "")


@BOTH_WAYS
@peers(lambda abilities: "as_server" in abilities.roles)  # A page cannot: see test_chromium.py.
async def test_an_end_of_theirs_without_close_is_1006(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        assert caught.value.close == ws.closed
        assert ws.closed is not None
        assert ws.closed.code == 1006

    await talk(peer, role, conversation, "abort", secure)
