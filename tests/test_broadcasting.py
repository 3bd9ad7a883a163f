"""One message to many: encoded once, and nobody waits for the slow."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed, Deflate, Transaction, broadcast, broadcast_nowait, broadcasting
from trio_pyjo_ws.testing import open_memory_pair

from .peer import connected, hurry, limit_writes, writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from trio_pyjo_ws.wire.protocol import Protocol

ALONE = Deflate(server_no_context_takeover=True, threshold=0)
TOGETHER = Deflate(threshold=0)


class Order(msgspec.Struct):
    article: str


@pytest.mark.parametrize("message", ["text", b"bytes", bytearray(b"array"), memoryview(b"view")])
async def test_all_that_are_open_get_the_message(
    message: Any, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pairs = [open_memory_pair(nursery, compression=compression) for compression in (False, False, ALONE, TOGETHER)]
    await pairs[0][0].aclose()
    assert await broadcast((server for _, server in pairs), message) == 3
    for client, _ in pairs[1:]:
        assert await client.receive() == (message if isinstance(message, str) else bytes(message))
    with pytest.raises(trio.ClosedResourceError):
        await pairs[0][0].receive()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("form", "received"),
    [
        ({"text": "a"}, "a"),
        ({"binary": memoryview(b"a")}, b"a"),
        ({"json": {"a": [1, None]}}, '{"a":[1,null]}'),
        ({"json": Order("lamp")}, '{"article":"lamp"}'),
    ],
)
async def test_the_form_of_the_message_may_be_said(
    form: dict[str, Any], received: str | bytes, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = open_memory_pair(nursery)
    assert await broadcast([server], **form) == broadcast_nowait([server], **form) == 1
    assert await client.receive() == await client.receive() == received
    nursery.cancel_scope.cancel()


async def test_json_is_encoded_by_the_codec_of_the_first(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, server = open_memory_pair(nursery, json=orjson)
    assert await broadcast([server], json={"when": date(2030, 1, 2)}) == 1
    assert await client.receive() == '{"when":"2030-01-02"}'
    assert await broadcast([], json={"a": 1}) == 0
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("compress", "compressed"), [(None, [False, False, True]), (False, [False] * 3), (True, [False, True, True])]
)
async def test_compress_decides_for_those_that_have_agreed_on_it(
    compress: bool | None, compressed: list[bool], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    # The threshold of the second keeps what is short uncompressed, unless the caller says otherwise.
    kinds = [False, Deflate(server_no_context_takeover=True), ALONE]
    pairs = [open_memory_pair(nursery, compression=kind) for kind in kinds]
    frames = [client.open_channel("frame") for client, _ in pairs]
    more = {} if compress is None else {"compress": compress}
    assert await broadcast([server for _, server in pairs], "a" * 20, **more) == 3
    assert [(await channel.receive()).rsv1 for channel in frames] == compressed
    assert [await client.receive() for client, _ in pairs] == ["a" * 20] * 3
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("compress", "kinds", "frames"),
    [(False, [False, ALONE, TOGETHER], 1), (True, [False, ALONE, ALONE], 2), (True, [TOGETHER, TOGETHER], 2)],
)
async def test_what_is_alike_is_encoded_once_whatever_compress_says(
    compress: bool,
    kinds: list[Any],
    frames: int,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [open_memory_pair(nursery, compression=kind) for kind in kinds]
    encoded: list[bytes] = []

    def encode_and_count(self: Any, protocol: Protocol) -> bytes:
        encoded.append(encode(self, protocol))
        return encoded[-1]

    encode = broadcasting._Broadcast._encode
    monkeypatch.setattr(broadcasting._Broadcast, "_encode", encode_and_count)
    assert await broadcast([server for _, server in pairs], "again", compress=compress) == len(pairs)
    assert len(encoded) == frames
    assert [await client.receive() for client, _ in pairs] == ["again"] * len(pairs)
    nursery.cancel_scope.cancel()


async def test_each_client_masks_for_itself_whatever_compress_says(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pairs = [open_memory_pair(nursery, compression=ALONE) for _ in range(2)]
    assert await broadcast([client for client, _ in pairs], "a", compress=True) == 2
    assert [await server.receive() for _, server in pairs] == ["a"] * 2
    nursery.cancel_scope.cancel()


async def test_clients_too_may_be_the_recipients(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    pairs = [open_memory_pair(nursery) for _ in range(3)]
    assert await broadcast([client for client, _ in pairs], "masked, each with a key of its own") == 3
    assert [await server.receive() for _, server in pairs] == ["masked, each with a key of its own"] * 3
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("compression", "frames"),
    [([None] * 3, 1), ([ALONE] * 3, 1), ([None, ALONE, None, ALONE], 2), ([TOGETHER] * 3, 3)],
)
async def test_what_is_alike_is_encoded_once(
    compression: list[Deflate | None],
    frames: int,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [open_memory_pair(nursery, compression=one or False) for one in compression]
    encoded: list[bytes] = []

    def encode_and_count(self: Any, protocol: Protocol) -> bytes:
        encoded.append(encode(self, protocol))
        return encoded[-1]

    encode = broadcasting._Broadcast._encode
    monkeypatch.setattr(broadcasting._Broadcast, "_encode", encode_and_count)
    assert await broadcast([server for _, server in pairs], "again and again") == len(pairs)
    assert len(encoded) == frames
    assert [await client.receive() for client, _ in pairs] == ["again and again"] * len(pairs)
    # A context that was taken over is right for the next message, too.
    monkeypatch.undo()
    await pairs[-1][1].send("the next")
    assert await pairs[-1][0].receive() == "the next"
    nursery.cancel_scope.cancel()


async def test_each_recipient_costs_one_write(autojump_clock: MockClock) -> None:
    async with connected() as (one, _, _), connected() as (two, _, _):
        assert await broadcast([one, two], "Hello") == 2
        await wait_all_tasks_blocked()
        assert writes(one) == writes(two) == [7]


async def test_broadcasts_of_one_turn_go_together(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        for _ in range(5):
            assert broadcast_nowait([ws], "Hello") == 1
        await wait_all_tasks_blocked()
        assert writes(ws) == [35]
        assert peer.read_messages() == [b"Hello"] * 5


# The slow


async def slow_down(ws: Transaction) -> None:
    limit_writes(ws, 0)
    ws.send_nowait(bytes(100))
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("waiting", [True, False])
async def test_the_message_is_dropped_for_the_slow_and_the_others_get_it(
    waiting: bool, autojump_clock: MockClock
) -> None:
    async with connected(write_limit=100) as (slow, slow_peer, _), connected() as (quick, quick_peer, _):
        await slow_down(slow)
        recipients = [slow, quick]
        assert (await broadcast(recipients, "Hello") if waiting else broadcast_nowait(recipients, "Hello")) == 1
        limit_writes(slow, None)
        assert await broadcast(recipients, "not slow any more") == 1
        await slow.drain()
        assert await broadcast(recipients, "again") == 2
        await wait_all_tasks_blocked()
        assert slow_peer.read_messages() == [bytes(100), b"again"]
        assert quick_peer.read_messages() == [b"Hello", b"not slow any more", b"again"]


@pytest.mark.parametrize("code", [1008, 1013])
async def test_the_slow_are_closed(code: int, autojump_clock: MockClock) -> None:
    async with connected(write_limit=100) as (slow, peer, _), connected() as (quick, _, _):
        await slow_down(slow)
        assert broadcast_nowait([slow, quick], "Hello", slow="close", code=code) == 1
        with pytest.raises(trio.ClosedResourceError):
            await slow.send("more")
        limit_writes(slow, None)
        await wait_all_tasks_blocked()
        assert peer.read_messages() == [bytes(100)]
        assert peer.close_code == code
        assert await broadcast([slow, quick], "Hello") == 1


async def test_the_slow_are_waited_for_when_the_others_have_it(autojump_clock: MockClock) -> None:
    async with connected(write_limit=100) as (slow, slow_peer, nursery), connected() as (quick, quick_peer, _):
        await slow_down(slow)
        counts: list[int] = []

        async def send() -> None:
            counts.append(await broadcast([slow, quick], "Hello", slow="wait"))

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert quick_peer.read_messages() == [b"Hello"]
        assert counts == []
        limit_writes(slow, None)
        await wait_all_tasks_blocked()
        assert counts == [2]
        assert slow_peer.read_messages() == [bytes(100), b"Hello"]


@pytest.mark.parametrize("ending", ["aclose", "reset"])
async def test_the_slow_that_end_while_they_are_waited_for_do_not_count(ending: str, autojump_clock: MockClock) -> None:
    async with connected(write_limit=100) as (slow, peer, nursery), connected() as (quick, _, _):
        await slow_down(slow)
        counts: list[int] = []

        async def send() -> None:
            counts.append(await broadcast([slow, quick], "Hello", slow="wait"))

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        if ending == "aclose":
            with trio.move_on_after(1):
                await slow.aclose()
        else:
            peer.sock.close()
            with pytest.raises(ConnectionClosed):
                await slow.receive()
        await wait_all_tasks_blocked()
        assert counts == [1]


async def test_the_slow_that_begin_to_close_are_not_written_to(autojump_clock: MockClock) -> None:
    async with connected(write_limit=100) as (slow, peer, nursery):
        await slow_down(slow)
        counts: list[int] = []

        async def send() -> None:
            counts.append(await broadcast([slow], "Hello", slow="wait"))

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        slow.__connection__.close_soon(1001)
        limit_writes(slow, None)
        await wait_all_tasks_blocked()
        assert counts == [0]
        assert peer.read_messages() == [bytes(100)]


# The caller


@pytest.mark.parametrize(
    ("message", "options", "error", "match"),
    [
        (1, {}, TypeError, "str or bytes"),
        (None, {}, TypeError, "str or bytes"),
        ("a", {"slow": "drop"}, ValueError, "'drop-message', 'close', 'wait', not 'drop'"),
        ("a", {"slow": "close", "code": 1000}, ValueError, "1008 or 1013, not 1000"),
    ],
)
async def test_mistakes_of_the_caller_raise_before_anything_is_written(
    message: Any, options: dict[str, Any], error: type[Exception], match: str, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, _, _):
        with pytest.raises(error, match=match):
            await broadcast([ws], message, **options)
        with pytest.raises(error, match=match.replace(", 'wait'", "")):
            broadcast_nowait([ws], message, **options)
        assert writes(ws) == []


async def test_without_waiting_the_slow_cannot_be_waited_for() -> None:
    with pytest.raises(ValueError, match="'drop-message', 'close', not 'wait'"):
        broadcast_nowait([], "a", slow="wait")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "got nothing"),
        ({"text": b"a"}, "text= must be str, not bytes"),
        ({"binary": "a"}, "binary= must be bytes"),
        ({"text": "a", "json": 1}, "got text= and json="),
        ({"json": object()}, "not JSON serializable"),
        ({"text": "a", "compress": 1}, "compress= must be True or False, not 1"),
        ({"frame": [1, 0, 0, 0, 9, b"a"]}, r"broadcast\(\) takes a message, text=, .* and code=, not frame="),
        ({"text": "a", "cb": print}, r"broadcast\(\) takes .*, not cb="),
        ({"message": print, "text": "a"}, r"broadcast\(\) takes .*, not a callback"),
    ],
)
async def test_what_is_not_one_message_raises_before_anything_is_written(
    arguments: dict[str, Any], match: str, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, _, _):
        with pytest.raises(TypeError, match=match):
            await broadcast([ws], **arguments)
        with pytest.raises(TypeError, match=match):
            broadcast_nowait([ws], **arguments)
        assert writes(ws) == []


async def test_a_message_in_pieces_is_not_for_many(autojump_clock: MockClock) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "a"

    async with connected() as (ws, _, _):
        with pytest.raises(TypeError, match="takes a message in pieces"):
            await broadcast([ws], text=pieces())  # type: ignore[call-overload]


async def test_one_transaction_is_not_many(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, _):
        for given in (ws, "Hello"):
            with pytest.raises(
                TypeError, match=r"must be an iterable of them, as in broadcast\(\[ws\], message\), not "
            ):
                await broadcast(given, "Hello")  # type: ignore[call-overload]


async def test_a_broadcast_checks_for_cancellation_and_lets_others_run(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected() as (ws, peer, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await broadcast([ws], "never")
        assert scope.cancelled_caught
        hurry(monkeypatch)
        with trio.CancelScope() as scope:
            ws.once("drain", lambda _: scope.cancel())
            await broadcast([ws] * 10, "Hello")
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        got = peer.read_messages()
        assert got == [b"Hello"] * len(got)
        assert 1 <= len(got) < 10
