import pytest
import trio
from trio.testing import MockClock

from trio_pyjo_ws import Close, ConnectionClosed, Frame, Opcode, Transaction
from trio_pyjo_ws.testing import open_scripted_pair


async def ask(ws: Transaction, question: str) -> str | bytes:
    async with ws:
        await ws.send(question)
        return await ws.receive()


async def test_frame_by_frame(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ws, peer = open_scripted_pair(nursery, "client")
    nursery.start_soon(ask, ws, "What is the time?")
    await peer.expect("What is the time?")
    await peer.reply(Opcode.PING, b"Test 123")
    await peer.expect(Opcode.PONG, b"Test 123")
    await peer.reply(Frame(False, False, False, False, Opcode.TEXT, b"Five "))
    await peer.reply(Frame(True, False, False, False, Opcode.CONTINUATION, b"past ten."))
    await peer.expect(Close(1000))
    await peer.reply(Close(1000))
    await peer.aclose()


async def test_an_answer_that_no_rule_allows(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ws, peer = open_scripted_pair(nursery, "client")
    await peer.reply_bytes(b"\x83\x00")  # opcode 3 is reserved
    await peer.expect(Close(1002, "the opcode 3 is reserved"))
    with pytest.raises(ConnectionClosed):
        await ws.receive()


async def test_a_failure_shows_both_frames(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ws, peer = open_scripted_pair(nursery, "client")
    await ws.send("Hello")
    with pytest.raises(AssertionError) as caught:
        await peer.expect("Hallo")
    assert str(caught.value) == "expected TEXT 'Hallo'\nreceived TEXT 'Hello'"
