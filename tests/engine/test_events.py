"""Subscriptions to the events of a transaction: memory channels and callbacks."""

from __future__ import annotations

import json as json_module
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import Close, ConnectionClosed, Frame, Opcode, Transaction
from trio_pyjo_ws._engine.events import CALLBACK_BUFFER, EVENTS
from trio_pyjo_ws.testing import open_memory_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

Pair = tuple[Transaction, Transaction]
EVERY_EVENT = pytest.mark.parametrize("event", EVENTS)


@pytest.fixture
def pair(nursery: trio.Nursery) -> Pair:
    return open_memory_pair(nursery)


@pytest.fixture
def told() -> list[Any]:
    return []


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> Frame:
    return Frame(fin, False, False, False, opcode, payload)


async def until_quiet() -> None:
    await wait_all_tasks_blocked()


# Channels: what each carries


@pytest.mark.parametrize(
    ("event", "sent", "items"),
    [
        ("text", ["a", b"b", "Grüße", ""], [b"a", "Grüße".encode(), b""]),
        ("binary", ["a", b"b", b""], [b"b", b""]),
        ("message", ["a", b"b", ""], ["a", b"b", ""]),
        ("json", ['{"a": [1]}', b"[1, 2]", "null", '"x"'], [{"a": [1]}, [1, 2], None, "x"]),
        ("frame", ["a", b"b"], [frame(Opcode.TEXT, b"a"), frame(Opcode.BINARY, b"b")]),
    ],
)
async def test_a_channel_carries_what_the_peer_sends(
    pair: Pair, autojump_clock: MockClock, event: str, sent: list[str | bytes], items: list[object]
) -> None:
    client, server = pair
    async with server.open_channel(event) as channel:
        assert isinstance(channel, trio.abc.ReceiveChannel)
        for message in sent:
            await client.send(message)
        received = [await channel.receive() for _ in items]
        assert received == items
        assert [type(item) for item in received] == [type(item) for item in items]
        with pytest.raises(trio.WouldBlock):
            channel.receive_nowait()


async def test_a_frame_channel_sees_fragments_and_control_frames(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    async with server.open_channel("frame") as frames, client.open_channel("frame") as answers:
        sent = [frame(1, b"Hel", fin=False), frame(9, b"ping"), frame(10, b"pong"), frame(0, b"lo"), frame(8, b"")]
        for one in sent:
            await client.send(frame=one)
        assert [await frames.receive() for _ in sent] == sent
        assert [await answers.receive() for _ in range(2)] == [frame(10, b"ping"), frame(8, b"")]
        assert await server.receive() == "Hello"


async def test_the_channels_of_what_this_side_does(pair: Pair, autojump_clock: MockClock) -> None:
    client, _ = pair
    drained, resumed, errors = (client.open_channel(event) for event in ("drain", "resume", "error"))
    await client.send("a")
    assert await drained.receive() is client
    assert client.resume() is client
    assert await resumed.receive() is client
    client.emit("error", mistake := ValueError("a"))
    assert await errors.receive() is mistake


async def test_the_finish_channel_tells_code_and_reason(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    finished = [ws.open_channel("finish") for ws in pair]
    assert await client.finish(4000, "kaboom") == Close(4000, "kaboom")
    for channel in finished:
        item = await channel.receive()
        assert item == Close(4000, "kaboom")
        assert type(item) is Close
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
    assert server.closed == Close(4000, "kaboom")


async def test_the_connection_channel_tells_it_to_those_who_come_late(pair: Pair, autojump_clock: MockClock) -> None:
    client, _ = pair
    first, second = client.open_channel("connection"), client.open_channel("connection")
    assert await first.receive() is client
    assert await second.receive() is client
    with pytest.raises(trio.WouldBlock):  # that another one came late is no news to the first
        first.receive_nowait()


# Channels: who gets a message, and what waits for whom


async def test_a_message_goes_to_every_subscription_that_matches_it(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    channels = {event: server.open_channel(event) for event in ("frame", "text", "binary", "message", "json")}
    again = server.open_channel("text")
    await client.send("[1]")
    await client.send(b"[2]")
    await until_quiet()
    received: dict[str, list[object]] = {event: [] for event in channels}
    for event, channel in channels.items():
        while channel.statistics().current_buffer_used:
            received[event].append(channel.receive_nowait())
    assert received == {
        "frame": [frame(1, b"[1]"), frame(2, b"[2]")],
        "text": [b"[1]"],
        "binary": [b"[2]"],
        "message": ["[1]", b"[2]"],
        "json": [[1], [2]],
    }
    assert again.receive_nowait() == b"[1]"
    with pytest.raises(trio.WouldBlock):
        server.receive_nowait()


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([], ["a", b"b"]),
        (["frame"], ["a", b"b"]),
        (["text"], [b"b"]),
        (["binary"], ["a"]),
        (["text", "binary"], []),
        (["message"], []),
        (["json"], []),
        (["drain", "finish", "error", "resume", "connection"], ["a", b"b"]),
    ],
)
async def test_what_matches_no_subscription_is_kept_for_receive(
    pair: Pair, autojump_clock: MockClock, events: list[str], kept: list[object]
) -> None:
    client, server = pair
    channels = [server.open_channel(event) for event in events]
    await client.send("a")
    await client.send(b"b")
    await client.send(b"b")
    await client.finish()
    await until_quiet()
    received = [message async for message in server]
    assert received == kept + [one for one in kept if one == b"b"]
    assert all(channel.statistics().open_send_channels == 0 for channel in channels)


async def test_frames_come_before_what_they_mean(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    client, server = pair
    for event in ("message", "json", "text", "frame"):
        server.on(event, lambda ws, item, event=event: told.append(event))
    await client.send("1")
    await until_quiet()
    assert told == ["frame", "text", "message", "json"]


async def test_a_full_channel_slows_the_peer_down_and_loses_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    sends = 500
    written = 0
    streams = trio.testing.lockstep_stream_pair()
    client, server = open_memory_pair(nursery, streams=streams, ping_interval=None)
    channel = server.open_channel("message", max_buffer_size=2)

    async def send() -> None:
        nonlocal written
        for number in range(sends):
            await client.send(f"{number:01000}")
            written += 1
        await client.finish()

    nursery.start_soon(send)
    await trio.sleep(3600)
    assert written < sends
    assert channel.statistics().current_buffer_used == 2
    assert [int(message) async for message in channel] == list(range(sends))
    assert written == sends


async def test_a_full_channel_holds_the_others_up_in_their_order(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    narrow, wide = server.open_channel("text", 1), server.open_channel("text", 100)
    for number in range(10):
        await client.send(str(number))
    await trio.sleep(1)
    assert narrow.statistics().current_buffer_used == 1
    assert wide.statistics().current_buffer_used == 1
    assert [int(await narrow.receive()) for _ in range(10)] == list(range(10))
    assert [int(await wide.receive()) for _ in range(10)] == list(range(10))


async def test_one_event_may_find_several_channels_full(
    pair: Pair, autojump_clock: MockClock, nursery: trio.Nursery, told: list[Any]
) -> None:
    client, server = pair
    channels = [server.open_channel("text", 1) for _ in range(3)]
    for number in range(3):
        await client.send(str(number))
    await trio.sleep(1)

    async def read(channel: trio.MemoryReceiveChannel[bytes]) -> None:
        told.append([await channel.receive() for _ in range(3)])

    for channel in reversed(channels):
        nursery.start_soon(read, channel)
    await until_quiet()
    assert told == [[b"0", b"1", b"2"]] * 3


# Channels: closing them, and their end


@pytest.mark.parametrize("event", ["text", "binary", "message", "json", "frame"])
async def test_closing_a_channel_unsubscribes(pair: Pair, autojump_clock: MockClock, event: str) -> None:
    client, server = pair
    async with server.open_channel(event):
        assert server.has_subscribers(event)
    assert not server.has_subscribers(event)
    server.open_channel(event).close()
    for message in ("1", b"2"):  # and without having been asked, too
        await client.send(message)
        assert await server.receive() == message


async def test_it_is_unsubscribed_when_its_last_clone_is_closed(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    channel = server.open_channel("text")
    clone = channel.clone()
    channel.close()
    await client.send("a")
    assert await clone.receive() == b"a"
    clone.close()
    await client.send("b")
    assert await server.receive() == "b"


async def test_the_reader_may_close_a_full_channel_while_items_wait(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    channel = server.open_channel("text", 1)
    for number in range(5):
        await client.send(str(number))
    await trio.sleep(1)
    assert channel.receive_nowait() == b"0"
    channel.close()
    # What has not been delivered belongs to nobody any more.
    assert [await server.receive() for _ in range(4)] == ["1", "2", "3", "4"]
    assert not server.has_subscribers("text")


async def test_unsubscribing_ends_a_full_channel_behind_what_it_holds(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    channel, other = server.open_channel("text", 1), server.open_channel("text", 3)
    for number in range(3):
        await client.send(str(number))
    await trio.sleep(1)
    server.unsubscribe("text")
    assert [item async for item in channel] == [b"0"]
    assert [item async for item in other] == [b"0"]
    assert [await server.receive(), await server.receive()] == ["1", "2"]


@EVERY_EVENT
async def test_a_channel_ends_when_the_connection_does(pair: Pair, autojump_clock: MockClock, event: str) -> None:
    client, server = pair
    channel = server.open_channel(event)
    await client.aclose()
    with trio.fail_after(1):
        items = [item async for item in channel]
    assert len(items) == (event in {"connection", "drain", "finish", "frame"})  # frame and drain: Close and its answer
    assert not server.has_subscribers(event)


async def test_what_came_before_the_end_is_delivered_before_it(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    channel, finished = server.open_channel("message", 1), server.open_channel("finish")
    for number in range(10):
        await client.send(str(number))
    await client.finish(4000)
    items = [int(await channel.receive()) for _ in range(10)]
    with pytest.raises(ConnectionClosed, match="4000"):
        await channel.receive()
    assert items == list(range(10))
    assert [item async for item in finished] == [Close(4000)]


async def test_one_opened_after_the_end_ends_at_once(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    client, server = pair
    await client.aclose()
    await server.aclose()
    assert [item async for item in server.open_channel("message")] == []
    server.on("message", told.append)

    async def message(ws: Transaction, item: object) -> None:
        told.append(item)

    server.on(message)
    assert not server.has_subscribers("message")


async def test_one_opened_after_the_end_takes_over_what_is_kept(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    await client.send("one")
    await client.send(b"two")
    await client.send("three")
    await client.finish(4000)
    await trio.sleep(1)
    assert server.is_finished
    channel = server.open_channel("binary", 1)
    assert await channel.receive() == b"two"
    with pytest.raises(ConnectionClosed, match="4000"):
        await channel.receive()
    assert [item async for item in server.open_channel("connection")] == []
    assert [item async for item in server.open_channel("drain")] == []
    assert await server.receive() == "one"
    assert await server.receive() == "three"


@pytest.mark.parametrize("size", [0, -1, 1.5, "16", None, float("inf")])
async def test_a_size_that_no_channel_has_is_refused(pair: Pair, autojump_clock: MockClock, size: Any) -> None:
    with pytest.raises(ValueError, match=r"max_buffer_size must be .* at least 1, not") as caught:
        pair[0].open_channel("text", size)
    assert repr(size) in str(caught.value)


@pytest.mark.parametrize("event", ["", "texts", "TEXT", None, 5, []])
async def test_an_unknown_event_is_refused(pair: Pair, autojump_clock: MockClock, event: Any) -> None:
    ws = pair[0]
    calls: list[Callable[[], object]] = [
        partial(ws.open_channel, event),
        partial(ws.unsubscribe, event),
        partial(ws.unsubscribe_all, event),
        partial(ws.subscribers, event),
        partial(ws.has_subscribers, event),
        partial(ws.emit, event),
    ]
    if isinstance(event, str):
        calls += [partial(ws.on, event, print), partial(ws.once, event, print)]
    for call in calls:
        with pytest.raises(ValueError, match="unknown event") as caught:
            call()
        assert repr(event) in str(caught.value)
        assert all(name in str(caught.value) for name in EVENTS)


# JSON


@pytest.mark.parametrize(
    ("message", "position"),
    [
        ("", "char 0"),
        ("no JSON", "char 0"),
        ('{"a": ]', "char 6"),
        ("[1, 2", "char 5"),
        ("1\n2", "line 2 column 1"),
        (b'["\xff"]', "position 2"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 20_000, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
async def test_json_that_does_not_decode_raises_in_its_reader(
    pair: Pair, autojump_clock: MockClock, message: str | bytes, position: str
) -> None:
    client, server = pair
    channel = server.open_channel("json")
    for item in ("1", message, "2", message, "3", message):
        await client.send(item)
    assert await channel.receive() == 1
    with pytest.raises(ValueError, match=position) as caught:
        await channel.receive()
    assert len(str(caught.value)) < 200
    assert await channel.receive() == 2
    await trio.sleep(1)  # Nobody receives for a moment, and the next message is read in the background.
    with pytest.raises(ValueError, match=position):
        channel.receive_nowait()
    async for value in channel:
        assert value == 3
        break
    with pytest.raises(ValueError, match=position):
        await channel.__anext__()
    await server.send("and the connection goes on")
    assert await client.receive() == "and the connection goes on"


async def test_each_reader_of_json_has_an_object_of_its_own(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    first, second = server.open_channel("json"), server.open_channel("json")
    await client.send("[1]")
    (await first.receive()).append(2)
    assert await second.receive() == [1]


async def test_a_clone_of_a_json_channel_decodes_too(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    channel = server.open_channel("json")
    clone = channel.clone()
    again = clone.clone()
    for number in range(3):
        await client.send(json=[number])
    assert [await one.receive() for one in (again, channel, clone)] == [[0], [1], [2]]
    await client.send("no JSON")
    with pytest.raises(json_module.JSONDecodeError):
        await again.receive()


async def test_what_is_emitted_as_json_is_passed_on_as_it_is(pair: Pair, autojump_clock: MockClock) -> None:
    server = pair[1]
    channel = server.open_channel("json")
    server.emit("json", {"a": 1})
    server.emit("json")
    assert channel.receive_nowait() == {"a": 1}
    assert channel.receive_nowait() is server


# Callbacks: what they are called with


async def test_callbacks_are_called_with_the_transaction_and_the_value(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair
    for event in EVENTS:
        assert server.on(event, made := lambda *arguments, event=event: told.append((event, *arguments))) is made
        assert server.subscribers(event) == [made]
    assert told == [("connection", server)]
    told.clear()
    await client.send("[1]")
    await client.send(b"[2]")
    await until_quiet()
    assert told == [
        ("frame", server, frame(1, b"[1]")),
        ("text", server, b"[1]"),
        ("message", server, "[1]"),
        ("json", server, [1]),
        ("frame", server, frame(2, b"[2]")),
        ("binary", server, b"[2]"),
        ("message", server, b"[2]"),
        ("json", server, [2]),
    ]
    told.clear()
    await server.send("a")
    server.resume()
    server.emit("error", mistake := ValueError("a"))
    await client.finish(1001, "bye")
    await until_quiet()
    assert told[0] == ("drain", server)
    assert told[1] == ("resume", server)
    assert told[2] == ("error", server, mistake)
    assert told[3] == ("frame", server, frame(8, b"\x03\xe9bye"))
    assert told[-1] == ("finish", server, 1001, "bye")
    assert sum(one[0] == "finish" for one in told) == 1
    assert not any(map(server.has_subscribers, EVENTS))  # nothing will come any more


async def test_the_name_of_a_function_is_its_event(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    client, server = pair

    @server.on
    def text(ws: Transaction, payload: bytes) -> None:
        told.append(("every", payload))

    @server.once
    async def message(ws: Transaction, payload: str) -> None:
        told.append(("once", payload))

    @server.catch
    def whatever(ws: Transaction, error: Exception) -> None:
        told.append(error)

    assert server.subscribers("text") == [text]
    assert server.subscribers("message") == [message]
    assert server.subscribers("error") == [whatever]
    await client.send("a")
    await client.send("b")
    await until_quiet()
    assert sorted(told) == [("every", b"a"), ("every", b"b"), ("once", "a")]


@pytest.mark.parametrize(
    "given",
    [("text",), ("text", None), (None,), (5, print), (print, print), (partial(print), None), ("text", "print")],
)
async def test_what_is_no_callback_is_refused(pair: Pair, autojump_clock: MockClock, given: Any) -> None:
    for subscribe in (pair[0].on, pair[0].once):
        with pytest.raises((TypeError, ValueError)) as caught:
            subscribe(*given)
        assert "print" in str(caught.value) or repr(given[0]) in str(caught.value)
    assert not pair[0].has_subscribers("text")


# Callbacks: Pyjo.EventEmitter's behaviour


async def test_callbacks_are_called_in_order_and_as_often_as_it_happens(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = pair[0]
    for number in range(5):
        ws.on("text", lambda ws, *arguments, number=number: told.append((number, *arguments)))
    for _ in range(2):
        assert ws.emit("text", 1, 2) is ws
    assert told == [(number, 1, 2) for number in range(5)] * 2


async def test_emit_without_subscribers_does_nothing(pair: Pair, autojump_clock: MockClock) -> None:
    for event in EVENTS:
        if event != "error":
            assert pair[0].emit(event) is pair[0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((ValueError("a"),), ValueError),
        (("a",), RuntimeError),
        ((), RuntimeError),
        ((KeyboardInterrupt(),), RuntimeError),
    ],
)
async def test_an_error_that_nobody_handles_is_raised(
    pair: Pair, autojump_clock: MockClock, told: list[Any], arguments: Any, error: type[Exception]
) -> None:
    ws = pair[0]
    with pytest.raises(error):
        ws.emit("error", *arguments)
    ws.catch(lambda ws, *arguments: told.append(arguments))
    ws.emit("error", *arguments)
    assert told == [arguments]


async def test_an_exception_of_a_callback_comes_out_of_emit(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = pair[0]

    def fail(ws: Transaction) -> None:
        raise LookupError

    ws.on("resume", told.append)
    ws.once("resume", fail)
    with pytest.raises(LookupError):
        ws.emit("resume")
    ws.on("resume", fail)
    with pytest.raises(LookupError):
        ws.resume()
    assert told == [ws, ws]


async def test_once_is_once(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    ws = pair[0]
    ws.once("resume", told.append)
    assert ws.has_subscribers("resume")
    for _ in range(3):
        ws.resume()
    assert told == [ws]
    assert not ws.has_subscribers("resume")
    ws.once("resume", told.append)
    ws.resume()
    assert told == [ws, ws]


async def test_once_is_once_though_the_event_happens_within_it(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = pair[0]

    def first(ws: Transaction) -> None:
        told.append("first")
        ws.emit("resume")

    ws.once("resume", first)
    ws.once("resume", lambda ws: told.append("second"))
    ws.emit("resume")
    assert told == ["first", "second"]


async def test_once_may_subscribe_itself_again(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    ws = pair[0]

    def again(ws: Transaction) -> None:
        told.append(len(told))
        ws.once("resume", again)

    ws.once("resume", again)
    for _ in range(3):
        ws.emit("resume")
    assert told == [0, 1, 2]
    assert ws.subscribers("resume") == [again]


async def test_unsubscribe_forgets_one_or_all(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    ws = pair[0]
    first, second, third = (lambda ws, number=number: told.append(number) for number in range(3))
    ws.on("resume", first)
    ws.on("resume", second)
    ws.once("resume", third)
    ws.on("drain", first)
    ws.unsubscribe("resume", print)  # an unknown one
    ws.unsubscribe("finish", first)
    assert ws.subscribers("resume") == [first, second, third]
    ws.unsubscribe("resume", first)
    ws.unsubscribe("resume", third)  # one for once
    ws.emit("resume")
    assert told == [1]
    ws.on("resume", first)
    ws.open_channel("resume")
    ws.unsubscribe("resume")
    assert ws.subscribers("resume") == []
    assert not ws.has_subscribers("resume")
    ws.on("resume", first)
    ws.unsubscribe_all("resume")
    assert not ws.has_subscribers("resume")
    assert ws.subscribers("drain") == [first]


async def test_a_method_is_the_same_callback_each_time_it_is_named(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = pair[0]
    ws.on("resume", told.append)
    ws.unsubscribe("resume", told.append)
    ws.resume()
    assert told == []


async def test_a_callback_may_unsubscribe_those_behind_it(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = pair[0]
    ws.on("resume", lambda ws: ws.unsubscribe_all("resume"))
    ws.on("resume", told.append)
    ws.once("resume", told.append)
    channel = ws.open_channel("resume")
    ws.resume()
    assert told == [] == [item async for item in channel]


async def test_a_list_of_subscribers_is_a_copy(pair: Pair, autojump_clock: MockClock) -> None:
    pair[0].subscribers("text").append(print)
    assert pair[0].subscribers("text") == []


async def test_connection_is_told_to_each_who_comes_late(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = pair[0]
    ws.on("connection", lambda ws: told.append(("first", ws)))
    ws.once("connection", lambda ws: told.append(("second", ws)))
    assert told == [("first", ws), ("second", ws)]
    assert len(ws.subscribers("connection")) == 1


# Asynchronous callbacks


async def test_asynchronous_callbacks_run_in_order_one_at_a_time(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair

    @server.on
    async def text(ws: Transaction, payload: bytes) -> None:
        told.append(payload)
        await trio.sleep(1)
        told.append(b"end of " + payload)

    for number in range(3):
        await client.send(str(number))
    await trio.sleep(0.5)
    assert told == [b"0"]
    await trio.sleep(3)
    assert told == [b"0", b"end of 0", b"1", b"end of 1", b"2", b"end of 2"]


class Asynchronous:
    def __init__(self, told: list[Any]) -> None:
        self._told = told

    async def __call__(self, ws: Transaction, *arguments: object) -> None:
        await trio.lowlevel.checkpoint()
        self._told.append(arguments)

    async def method(self, ws: Transaction, *arguments: object) -> None:
        await self(ws, *arguments)


async def test_whatever_is_asynchronous_is_seen_to_be(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    ws = pair[0]
    one = Asynchronous(told)
    for callback in (one, one.method, partial(one.method, ws)):
        ws.on("text", callback)
    ws.emit("text", b"a")
    assert told == []
    await until_quiet()
    assert sorted(told, key=len) == [(b"a",), (b"a",), (ws, b"a")]


async def test_what_turns_out_to_be_awaitable_is_refused(pair: Pair, autojump_clock: MockClock) -> None:
    # It would never be awaited, which is the mistake that is easiest to make, and hardest to see.
    ws = pair[0]
    ws.on("text", lambda ws, payload: ws.send(payload))
    with pytest.raises(TypeError, match="async function"):
        ws.emit("text", b"a")


async def test_a_slow_callback_slows_the_peer_down_and_misses_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = open_memory_pair(nursery, streams=trio.testing.lockstep_stream_pair(), ping_interval=None)
    sent = 0

    @server.on
    async def message(ws: Transaction, payload: str) -> None:
        await trio.sleep(1)
        told.append(int(payload))

    async def send() -> None:
        nonlocal sent
        for number in range(300):
            await client.send(f"{number:01000}")
            sent += 1

    nursery.start_soon(send)
    await trio.sleep(20.5)
    assert told == list(range(20))
    assert 20 + CALLBACK_BUFFER < sent < 250
    await trio.sleep(300)
    assert told == list(range(300))


async def test_an_asynchronous_once_is_called_once_and_leaves_no_task(
    nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws, _ = open_memory_pair(nursery)
    await until_quiet()
    tasks = set(nursery.child_tasks)

    async def resume(ws: Transaction) -> None:
        told.append(ws)

    ws.once(resume)
    for _ in range(3):
        ws.resume()
    await until_quiet()
    assert told == [ws]
    assert not ws.has_subscribers("resume")
    ws.on(resume)
    ws.unsubscribe("resume", resume)
    await until_quiet()
    assert nursery.child_tasks == tasks


async def test_asynchronous_callbacks_hear_of_the_end(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    client, server = pair

    @server.on
    async def finish(ws: Transaction, code: int, reason: str) -> None:
        told.append((code, reason))

    await client.finish(1000, "bye")
    await until_quiet()
    assert told == [(1000, "bye")]


# Exceptions of callbacks are never swallowed


@pytest.mark.parametrize("receiving", [True, False], ids=["receiving", "nobody receives"])
@pytest.mark.parametrize("asynchronous", [True, False], ids=["asynchronous", "synchronous"])
@pytest.mark.parametrize("event", ["text", "frame", "finish", "drain", "connection"])
async def test_an_exception_comes_out_somewhere(
    autojump_clock: MockClock, event: str, asynchronous: bool, receiving: bool
) -> None:
    def fail(ws: Transaction, *arguments: object) -> None:
        raise LookupError(event)

    async def fail_later(ws: Transaction, *arguments: object) -> None:
        await trio.sleep(1)
        fail(ws)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            client, server = open_memory_pair(nursery)
            server.on(event, fail_later if asynchronous else fail)
            await client.send("a")
            await server.send("b")
            if receiving:
                nursery.start_soon(server.receive)
            await trio.sleep(1)
            await client.finish()
            await trio.sleep(10)
            raise AssertionError("it was swallowed")

    expected = pytest.RaisesExc(LookupError, check=lambda exc: exc.args == (event,))
    with pytest.RaisesGroup(expected, flatten_subgroups=True):
        await run()


async def test_an_exception_in_the_callback_of_one_message_leaves_the_others_untouched(
    autojump_clock: MockClock, told: list[Any]
) -> None:
    def text(ws: Transaction, payload: bytes) -> None:
        told.append(payload)
        if payload == b"a":
            raise LookupError

    with pytest.RaisesGroup(LookupError):
        async with trio.open_nursery() as nursery:
            client, server = open_memory_pair(nursery)
            server.on("text", text)
            server.on("message", lambda ws, message: told.append(message))
            client.send_nowait("a")
            client.send_nowait("b")
    assert told == [b"a", "a", b"b", "b"]


# JSON and callbacks


async def test_undecodable_json_is_an_error_event_once(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    client, server = pair
    values: list[object] = []
    server.on("json", lambda ws, value: values.append(("first", value)))

    @server.on
    async def json(ws: Transaction, value: object) -> None:
        values.append(("second", value))

    server.catch(lambda ws, error: told.append(error))
    for message in ("1", "no JSON", b"\xff", "2"):
        await client.send(message)
    await until_quiet()
    assert sorted(values) == [("first", 1), ("first", 2), ("second", 1), ("second", 2)]
    assert [type(error) for error in told] == [json_module.JSONDecodeError, UnicodeDecodeError]
    await server.send("and the connection goes on")
    assert await client.receive() == "and the connection goes on"


async def test_undecodable_json_is_logged_where_nobody_handles_errors(
    pair: Pair, autojump_clock: MockClock, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    client, server = pair
    server.on("json", lambda ws, value: told.append(value))
    with caplog.at_level(logging.WARNING, "trio_pyjo_ws"):
        await client.send("no JSON")
        await client.send("2")
        await until_quiet()
    assert told == [2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "line 1 column 1" in caplog.text
    assert repr(server) in caplog.text


async def test_each_callback_of_json_has_an_object_of_its_own(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair
    server.on("json", lambda ws, value: value.append(2))
    server.on("json", lambda ws, value: told.append(value))
    await client.send("[1]")
    await until_quiet()
    assert told == [[1]]


# Full channels of what this side does


async def test_a_full_drain_channel_holds_nothing_up(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    drained = client.open_channel("drain", 2)
    for number in range(10):
        await client.send(str(number))
        await client.drain()
    assert [await server.receive() for _ in range(10)] == list(map(str, range(10)))
    assert drained.statistics().current_buffer_used == 2
    await drained.receive()
    await client.send("again")
    await client.drain()
    assert drained.statistics().current_buffer_used == 2


async def test_errors_wait_for_room_in_their_channel(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    errors = server.open_channel("error", 1)
    server.on("json", lambda ws, value: None)
    for _ in range(3):
        await client.send("no JSON")
    await trio.sleep(1)
    assert errors.statistics().current_buffer_used == 1
    for _ in range(3):
        assert isinstance(await errors.receive(), ValueError)


async def test_what_is_emitted_into_a_full_channel_gets_there_in_order(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    channel = server.open_channel("text", 1)
    for number in range(5):
        server.emit("text", str(number).encode())
    await until_quiet()
    server.emit("text", b"5")
    await client.send("6")
    assert [int(await channel.receive()) for _ in range(7)] == list(range(7))


async def test_what_is_emitted_when_nobody_reads_gets_there_as_well(pair: Pair, autojump_clock: MockClock) -> None:
    server = pair[1]
    errors = server.open_channel("error", 1)
    mistakes = [ValueError(number) for number in range(5)]
    for mistake in mistakes:
        server.emit("error", mistake)
    assert [await errors.receive() for _ in mistakes] == mistakes


# The emitter alone


@pytest.mark.parametrize(("event", "item"), [("text", b'"a"'), ("json", "a"), ("message", '"a"')])
async def test_a_callback_takes_over_what_is_kept_as_its_event_carries_it(
    pair: Pair, autojump_clock: MockClock, told: list[Any], event: str, item: object
) -> None:
    client, server = pair
    await server.send('"a"')
    await trio.sleep(1)
    client.on(event, lambda _, value: told.append(value))
    assert told == []  # Its caller may not be ready yet.
    await until_quiet()
    assert told == [item]


@pytest.mark.parametrize(
    ("event", "items", "left"),
    [
        ("message", ['"a"', b"1", '"b"'], []),
        ("json", ["a", 1, "b"], []),
        ("text", [b'"a"', b'"b"'], [b"1"]),
        ("binary", [b"1"], ['"a"', '"b"']),
        ("finish", [], ['"a"', b"1", '"b"']),
    ],
)
async def test_a_channel_takes_over_what_is_kept_and_matches(
    pair: Pair, autojump_clock: MockClock, event: str, items: list[object], left: list[object]
) -> None:
    client, server = pair
    for message in ('"a"', b"1", '"b"'):
        await server.send(message)
    await trio.sleep(1)
    channel = client.open_channel(event)
    assert [channel.receive_nowait() for _ in items] == items
    with pytest.raises(trio.WouldBlock):
        channel.receive_nowait()
    assert [client.receive_nowait() for _ in left] == left
    with pytest.raises(trio.WouldBlock):
        client.receive_nowait()


async def test_what_was_kept_for_a_callback_that_is_gone_again_is_kept_still(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair
    await server.send("one")
    await trio.sleep(1)
    client.on("message", lambda _, value: told.append(value))
    client.unsubscribe("message")
    await server.send("two")
    assert [await client.receive(), await client.receive()] == ["one", "two"]
    assert told == []


async def test_what_a_callback_that_is_gone_has_left_goes_to_who_has_subscribed_since(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair
    await server.send("one")
    await trio.sleep(1)
    client.on("message", lambda _, value: told.append(value))
    client.unsubscribe("message")
    channel = client.open_channel("message")
    await trio.sleep(1)
    assert channel.receive_nowait() == "one"
    assert told == []


@pytest.mark.parametrize("received", [0, 1, 2])
async def test_what_was_kept_for_a_callback_that_is_gone_comes_where_it_was(
    pair: Pair, autojump_clock: MockClock, told: list[Any], received: int
) -> None:
    client, server = pair
    for message in ("one", b"two", "three", b"four", "five"):
        await server.send(message)
    await trio.sleep(1)

    @client.on
    def binary(ws: Transaction, message: bytes) -> None:
        told.append(message)
        ws.unsubscribe("binary")

    texts = [client.receive_nowait() for _ in range(received)]  # before the callback is called
    assert texts == ["one", "three"][:received]
    await trio.sleep(1)
    assert told == [b"two"]
    left = ["one", "three", b"four", "five"]
    assert [client.receive_nowait() for _ in left[received:]] == left[received:]


async def test_a_callback_may_change_who_is_told_of_what_came_with_its_message(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair

    @client.on
    def message(ws: Transaction, text: str) -> None:
        told.append(text)
        ws.unsubscribe("message")

    for each in "abc":
        server.send_nowait(each)
    await trio.sleep(1)
    assert told == ["a"]
    assert [await client.receive(), await client.receive()] == ["b", "c"]


async def test_what_turns_out_to_be_awaitable_is_refused_for_messages_as_well(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def later() -> None: ...

    with pytest.RaisesGroup(pytest.RaisesExc(TypeError, match="awaitable")):
        async with trio.open_nursery() as inner:
            client, server = open_memory_pair(inner)
            client.on("message", lambda *_: later())
            await server.send("one")
            await trio.sleep(1)
