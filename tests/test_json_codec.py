"""JSON: the standard library's, strict; a codec of the caller's; and what is validated as a type."""

from __future__ import annotations

import json
import math
import struct
import sys
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import orjson
import pytest
import trio

from trio_pyjo_ws import ConnectionClosed
from trio_pyjo_ws.json_codec import UndecodedJson, decoder_of, to_json
from trio_pyjo_ws.testing import open_memory_pair
from trio_pyjo_ws.wire.frames import Opcode

from .peer import connected, control

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


class Order(msgspec.Struct):
    article: str
    count: int = 1
    due: date | None = None


@dataclass
class Point:
    x: int
    y: int


# The standard library's


@pytest.mark.parametrize(
    ("value", "text"),
    [({"a": [1, None, True]}, '{"a":[1,null,true]}'), ("Gr\u00fc\u00dfe", '"Gr\u00fc\u00dfe"'), (1.5, "1.5")],
)
def test_json_is_compact_and_characters_are_as_they_are(value: object, text: str) -> None:
    assert to_json(value, None) == text
    assert UndecodedJson(text, None).decode() == value
    assert UndecodedJson(text.encode(), None).decode() == value


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_is_no_number_is_not_sent(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(value, None)


def test_what_has_no_json_is_not_sent() -> None:
    with pytest.raises(TypeError, match="an object of type Point is not JSON serializable"):
        to_json({"a": Point(1, 2)}, None)


@pytest.mark.parametrize(
    ("text", "constant", "position"),
    [
        ("NaN", "NaN", 0),
        ('{"NaN": "Infinity", "\\"": NaN}', "NaN", 26),
        ("[1, Infinity]", "Infinity", 4),
        (b"[-Infinity]", "-Infinity", 1),
    ],
)
def test_what_is_no_number_is_refused_with_its_position(text: Any, constant: str, position: int) -> None:
    """RFC 8259, section 6."""
    with pytest.raises(json.JSONDecodeError, match=f"{constant} is not JSON") as caught:
        UndecodedJson(text, None).decode()
    assert caught.value.pos == position


@pytest.mark.parametrize("codec", [None, json])
def test_what_is_nested_too_deeply_is_no_json(codec: Any) -> None:
    with pytest.raises(json.JSONDecodeError, match="nested too deeply"):
        UndecodedJson("[" * 1_000_000, codec).decode()


def test_bytes_that_are_not_utf_8_are_no_json() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        UndecodedJson(b'"\xff"', None).decode()


HALF_AN_EMOJI = '{"name":"\\ud83d","whole":"\U0001f600"}'


@pytest.mark.parametrize("codec", [None, json])
def test_half_of_a_surrogate_pair_that_was_received_can_be_sent_on(codec: Any) -> None:
    """RFC 8259, section 8.2: JSON can say it, and UTF-8 cannot."""
    value = UndecodedJson(HALF_AN_EMOJI, codec).decode()
    assert value == {"name": "\ud83d", "whole": "\U0001f600"}
    text = to_json(value, codec)
    assert UndecodedJson(text.encode(), codec).decode() == value


@pytest.mark.parametrize("loads", [orjson.loads, decoder_of(dict[str, str])], ids=["orjson", "msgspec"])
def test_half_of_a_surrogate_pair_is_not_received_by_codecs_that_cannot_send_it(loads: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has a message of its own
        loads(HALF_AN_EMOJI)


# Another codec


@pytest.mark.parametrize(
    ("codec", "codec_text"), [(orjson, '{"a":[1,"\u00fc"]}'), (json, r'{"a": [1, "\u00fc"]}')], ids=["orjson", "json"]
)
async def test_another_codec_serves_for_both_directions(codec: Any, codec_text: str, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, json=codec)
        await client.send(json={"a": [1, "\u00fc"]})
        assert await server.receive() == codec_text
        await client.send(json=[1, 2])
        assert await server.receive_json() == [1, 2]
        channel = server.open_channel("json")
        await client.send(b"[3]")
        await client.send(b"[")
        assert await channel.receive() == [3]
        with pytest.raises(ValueError, match=r"char|column"):
            await channel.receive()
        nursery.cancel_scope.cancel()


# Types


async def test_a_struct_is_sent_and_received(autojump_clock: MockClock) -> None:
    order = Order("lamp", 2, date(2030, 1, 2))
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery)
        await client.send(json=order)
        assert await server.receive_json(type=Order) == order
        await client.send(json={"orders": [order]})
        assert await server.receive_json(type=dict[str, list[Order]]) == {"orders": [order]}
        await client.send(json={"x": 1, "y": 2})
        assert await server.receive_json(type=Point) == Point(1, 2)
        await client.send(b'"text or binary"')
        assert await server.receive_json(type=str) == "text or binary"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("message", "error", "told"),
    [
        (
            '{"article": "lamp", "count": "two"}',
            msgspec.ValidationError,
            r"Expected `int.*`, got `str` - at `\$.count`",
        ),
        ('{"count": 1}', msgspec.ValidationError, "missing required field `article`"),
        ('{"article": NaN}', msgspec.DecodeError, r"byte 12"),
        (b"\xff", msgspec.DecodeError, r"byte 0"),
    ],
)
async def test_what_does_not_fit_names_the_place_and_the_connection_goes_on(
    message: str | bytes, error: type[ValueError], told: str, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        peer.send(message, '{"article": "desk"}')
        with pytest.raises(error, match=told) as caught:
            await ws.receive_json(type=Order)
        assert isinstance(caught.value, ValueError)
        assert await ws.receive_json(type=Order) == Order("desk")
        channel = ws.open_channel("json", type=Order)
        peer.send(message, '{"article": "desk"}')
        with pytest.raises(error, match=told):
            await channel.receive()
        assert await channel.receive() == Order("desk")
        clone = channel.clone()
        peer.send('{"article": "chair"}')
        await trio.sleep(1)
        assert clone.receive_nowait() == Order("chair")


async def test_without_a_type_json_is_what_it_is(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("[1]", b"{}", "[", control(Opcode.CLOSE, struct.pack("!H", 1011)))
        assert await ws.receive_json() == [1]
        assert await ws.receive_json() == {}
        with pytest.raises(json.JSONDecodeError):
            await ws.receive_json()
        with pytest.raises(ConnectionClosed):
            await ws.receive_json()


async def test_a_loop_takes_the_objects_until_the_peer_closes(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send('{"article": "lamp"}', b'{"article": "desk"}', control(Opcode.CLOSE, struct.pack("!H", 1000)))
        assert [order async for order in ws.iter_json(type=Order)] == [Order("lamp"), Order("desk")]
        assert [order async for order in ws.iter_json()] == []


async def test_another_loop_goes_on_behind_what_does_not_decode(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("[1]", "[", "[2]", control(Opcode.CLOSE, struct.pack("!H", 1011)))
        taken: list[object] = []
        orders = ws.iter_json()

        async def take() -> None:
            async for order in orders:
                taken.append(order)  # noqa: PERF401 - those before the error count

        with pytest.raises(json.JSONDecodeError):
            await take()
        with pytest.raises(ConnectionClosed):
            await take()
        assert taken == [[1], [2]]


async def test_a_cancelled_loop_loses_no_message(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        with trio.move_on_after(1) as scope:
            async for _ in ws.iter_json():
                raise AssertionError("there is no message yet")
        assert scope.cancelled_caught
        peer.send("[1]")
        assert await anext(ws.iter_json()) == [1]


async def test_a_loop_names_what_is_wrong_with_its_type_at_once(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, _nursery):
        with pytest.raises(TypeError, match="5"):
            ws.iter_json(type=5)  # type: ignore[call-overload]


def test_what_is_nested_too_deeply_does_not_decode() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        decoder_of(list[Any])("[" * 1_000_000)


async def test_a_type_is_one_that_msgspec_knows_and_for_json_only(autojump_clock: MockClock) -> None:
    async with connected() as (ws, _, _nursery):
        with pytest.raises(TypeError, match="5"):
            await ws.receive_json(type=5)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="5"):
            ws.open_channel("json", type=5)  # type: ignore[call-overload]
        assert not ws.has_subscribers("json")
        with pytest.raises(ValueError, match="type= is for the event 'json', not 'text'"):
            ws.open_channel("text", type=Order)  # type: ignore[call-overload]


def test_decoders_are_kept_where_their_type_has_a_hash() -> None:
    assert decoder_of(Order) is decoder_of(Order)
    without_hash = Annotated[int, msgspec.Meta(extra={"a": 1})]
    assert decoder_of(without_hash)("5") == decoder_of(without_hash)("5") == 5


async def test_without_msgspec_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setitem(sys.modules, "trio_pyjo_ws.adapters.typed", None)
    async with connected() as (ws, _, _nursery):
        with pytest.raises(ImportError, match=r"pip install 'trio-pyjo-ws\[typed\]'"):
            await ws.receive_json(type=Order)
        await ws.send(json={"a": 1})  # which needs none
