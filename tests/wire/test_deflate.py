"""permessage-deflate: parameters, round trips, and everything a peer may put into a compressed message."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
import zlib
from importlib import import_module
from itertools import product
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import LocalProtocolError, RemoteProtocolError
from trio_pyjo_ws.wire import deflate
from trio_pyjo_ws.wire.deflate import MEMBER_SLICE, THRESHOLD, Deflate, PerMessageDeflate, check_can_compress

if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL = b"\x00\x00\xff\xff"
HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692, section 7.2.3.1
HELLO_AGAIN = bytes.fromhex("f200110000")  # section 7.2.3.2: the same again, by reference to the window
HELLO_FINAL = bytes.fromhex("f348cdc9c90700")  # section 7.2.3.4, without the byte 00 that belongs behind it

try:
    MODULES = {"zlib": zlib, "zlib-ng": import_module("zlib_ng.zlib_ng")}
except ImportError:
    MODULES = {"zlib": zlib}


@pytest.fixture(scope="module", autouse=True, params=list(MODULES.values()), ids=list(MODULES))
def fastest(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Each zlib that is available: both hold the same contract."""
    module: ModuleType = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflate, "_fastest", module)
        yield module


DEFLATES = st.builds(
    Deflate,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.integers(9, 15),
    client_max_window_bits=st.integers(9, 15),
    level=st.integers(-1, 9),
    memory_level=st.integers(1, 9),
)


def receiver(**wishes: bool | int) -> PerMessageDeflate:
    return Deflate(**wishes).codec(client=True)  # type: ignore[arg-type]


def final_stream(payload: bytes, dictionary: bytes = b"") -> bytes:
    """Compress as one stream whose last block has BFINAL=1."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=dictionary)
    return compressor.compress(payload) + compressor.flush(zlib.Z_FINISH)


def pieces(payload: bytes, size: int) -> list[bytes]:
    return [payload[start : start + size] for start in range(0, len(payload), size)]


def decompress_pieces(codec: PerMessageDeflate, fragments: list[bytes], max_size: int = 1 << 20) -> bytes:
    """Decompress a message in fragments, each with what the ones before leave of the limit."""
    message = b""
    for index, fragment in enumerate(fragments):
        final = index == len(fragments) - 1
        message += codec.decompress(fragment, final=final, max_size=max_size - len(message))
    return message


# Parameters


def test_defaults_ask_for_nothing() -> None:
    assert Deflate() == Deflate(
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=15,
        client_max_window_bits=15,
        level=6,
        memory_level=8,
        threshold=128,
    )


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("server_max_window_bits", 7, "8 to 15"),
        ("server_max_window_bits", 16, "8 to 15"),
        ("client_max_window_bits", -9, "8 to 15"),
        ("level", -2, "-1 to 9"),
        ("level", 10, "-1 to 9"),
        ("memory_level", 0, "1 to 9"),
        ("threshold", -1, "0 or more"),
    ],
)
def test_number_out_of_range_is_named(name: str, value: int, accepted: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}, accepted is {accepted}"):
        Deflate(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server_no_context_takeover", 1),
        ("client_no_context_takeover", None),
        ("server_max_window_bits", "15"),
        ("level", True),
        ("threshold", None),
        ("threshold", 1.5),
    ],
)
def test_parameter_of_another_type_is_named(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} is {value!r}, accepted is"):
        Deflate(**{name: value})  # type: ignore[arg-type]


def test_each_role_compresses_by_its_own_parameters() -> None:
    agreed = Deflate(server_max_window_bits=9, client_max_window_bits=12, server_no_context_takeover=True)
    client, server = agreed.codec(client=True), agreed.codec(client=False)
    assert (client.compress_window_bits, client.decompress_window_bits) == (12, 9)
    assert (server.compress_window_bits, server.decompress_window_bits) == (9, 12)
    assert (client.compress_no_context_takeover, client.decompress_no_context_takeover) == (False, True)
    assert (server.compress_no_context_takeover, server.decompress_no_context_takeover) == (True, False)


def test_repr_tells_the_parameters() -> None:
    assert repr(Deflate(client_max_window_bits=9).codec(client=True)) == (
        "<PerMessageDeflate compress_no_context_takeover=False compress_window_bits=9 "
        "decompress_no_context_takeover=False decompress_window_bits=15 level=6 memory_level=8 threshold=128>"
    )


# Which zlib serves


def test_chosen_zlib_is_named() -> None:
    assert deflate.zlib_name == deflate._choose()[0]


def test_zlib_ng_is_chosen_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = ModuleType("zlib_ng.zlib_ng")
    monkeypatch.setitem(sys.modules, "zlib_ng", ModuleType("zlib_ng"))
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", installed)
    for value in ("0", ""):
        monkeypatch.setenv("TRIO_PYJO_WS_PURE", value)
        assert deflate._choose() == ("zlib-ng", installed)
    monkeypatch.setenv("TRIO_PYJO_WS_PURE", "1")
    assert deflate._choose() == ("zlib", zlib)


def test_zlib_serves_where_zlib_ng_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIO_PYJO_WS_PURE", raising=False)
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    assert deflate._choose() == ("zlib", zlib)


def test_zlib_ng_serves_where_it_takes_no_more_memory_than_was_asked_for(fastest: ModuleType) -> None:
    large, small = receiver(), receiver(client_max_window_bits=12, server_max_window_bits=12, memory_level=5)
    for codec in (large, small):
        codec.compress(b"Hello")
        codec.decompress(HELLO, final=True, max_size=5)
    modules = {type(large._compressor).__module__, type(large._decompressor).__module__}
    assert modules == {type(fastest.compressobj()).__module__}
    assert type(small._compressor) is type(zlib.compressobj())
    assert type(small._decompressor) is type(zlib.decompressobj())


def strictly_inflated(data: bytes, window_bits: int) -> bytes:
    """Inflate a few bytes at a time: all at once, zlib would not see a reference beyond the window."""
    decompressor = zlib.decompressobj(-window_bits)
    message = bytearray()
    while output := decompressor.decompress(data, 13):
        message += output
        data = decompressor.unconsumed_tail
    return bytes(message)


@pytest.mark.parametrize("level", range(-1, 10))
def test_every_level_keeps_to_the_window(fastest: ModuleType, level: int) -> None:
    # Not by way of a codec, which has zlib serve for small windows: of these 15 bits cannot be told apart.
    for window_bits, memory_level in product((9, 10, 12), (1, 9)):
        block = os.urandom(300)
        window = 1 << window_bits
        message = block.join(os.urandom(max(0, window + offset - 300)) for offset in (-263, -1, 0, 1, 200, window))
        compressor = fastest.compressobj(level, zlib.DEFLATED, -window_bits, memory_level)
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert strictly_inflated(data, window_bits) == message


# Compression


def test_bytes_are_those_of_the_rfc() -> None:
    codec = receiver()
    assert codec.compress(b"Hello") == HELLO
    assert codec.compress(b"Hello") == HELLO_AGAIN


def test_without_context_takeover_each_message_stands_alone() -> None:
    codec = receiver(client_no_context_takeover=True)
    assert [codec.compress(b"Hello") for _ in range(3)] == [HELLO] * 3


def test_empty_message_is_one_byte_and_leaves_the_window() -> None:
    codec = receiver()
    assert codec.compress(b"") == b"\x00"
    assert codec.compress(b"Hello") == HELLO
    assert codec.compress(b"") == b"\x00"
    assert codec.compress(b"Hello") == HELLO_AGAIN


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_taken(kind: type[bytes]) -> None:
    assert receiver().compress(kind(b"Hello")) == HELLO
    assert receiver().decompress(kind(HELLO), final=True, max_size=5) == b"Hello"


def test_window_of_8_bits_cannot_compress_but_can_decompress() -> None:
    codec = receiver(client_max_window_bits=8, server_max_window_bits=8)
    assert not codec.can_compress
    with pytest.raises(LocalProtocolError, match="8 bits"):
        codec.compress(b"Hello")
    assert codec.decompress(HELLO, final=True, max_size=5) == b"Hello"
    assert receiver(client_max_window_bits=9).can_compress


def test_what_cannot_compress_is_told_by_its_reason() -> None:
    codec = receiver()
    assert check_can_compress(codec) is codec
    with pytest.raises(ValueError, match="has not agreed on permessage-deflate"):
        check_can_compress(None)
    with pytest.raises(ValueError, match="agreed with a window of 8 bits"):
        check_can_compress(receiver(client_max_window_bits=8))


def test_zlib_objects_exist_only_while_they_are_needed() -> None:
    codec = receiver(client_no_context_takeover=True, server_no_context_takeover=True)
    assert (codec._compressor, codec._decompressor) == (None, None)
    codec.compress(b"Hello")
    codec.decompress(HELLO[:3], final=False, max_size=5)
    assert codec._compressor is None
    assert codec._decompressor is not None
    codec.decompress(HELLO[3:], final=True, max_size=5)
    assert codec._decompressor is None
    assert not codec._recent


def memory_of_ten(messages: list[bytes], **wishes: bool | int) -> float:
    """KiB that a pair of codecs holds which has taken each of these messages both ways."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        pairs = []
        for _ in range(10):
            pair = receiver(**wishes), Deflate(**wishes).codec(client=False)  # type: ignore[arg-type]
            for message in messages:
                for sender, recipient in (pair, pair[::-1]):
                    recipient.decompress(sender.compress(message), final=True, max_size=len(message))
            pairs.append(pair)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / len(pairs) / 2 / 1024


def test_memory_of_an_idle_codec() -> None:
    messages = [b"Hello " * 1000, os.urandom(50_000)]
    alone = {"client_no_context_takeover": True, "server_no_context_takeover": True}
    assert memory_of_ten([]) < 1
    assert memory_of_ten(messages, **alone) < 1
    assert 290 < memory_of_ten(messages) < 400
    assert memory_of_ten(messages, client_max_window_bits=9, server_max_window_bits=9, memory_level=1) < 20


def test_threshold_is_the_caller_s_to_heed() -> None:
    assert receiver().threshold == THRESHOLD
    assert receiver(threshold=1).compress(b"") == b"\x00"


def test_kind_is_what_the_bytes_depend_on() -> None:
    assert receiver(client_no_context_takeover=True, client_max_window_bits=9).kind == (9, 6, 8, 128)
    assert receiver(server_no_context_takeover=True).kind is None


# Round trips


@settings(deadline=None)
@given(
    agreed=DEFLATES,
    messages=st.lists(st.binary(max_size=300) | st.integers(0, 70_000).map(bytes), max_size=5),
    size=st.integers(1, 50),
    client=st.booleans(),
)
def test_any_message_in_any_fragments_comes_back(
    agreed: Deflate, messages: list[bytes], size: int, *, client: bool
) -> None:
    sender, recipient = agreed.codec(client=client), agreed.codec(client=not client)
    for message in messages:
        fragments = pieces(sender.compress(message), size)
        assert decompress_pieces(recipient, fragments, max_size=len(message)) == message


def test_fragment_without_data_is_nothing() -> None:
    codec = receiver()
    assert codec.decompress(b"", final=False, max_size=5) == b""
    assert codec.decompress(HELLO, final=False, max_size=5) == b"Hello"
    assert codec.decompress(b"", final=True, max_size=0) == b""
    assert codec.decompress(HELLO_AGAIN, final=True, max_size=5) == b"Hello"


# Limits


def test_message_as_large_as_the_limit_passes() -> None:
    assert receiver().decompress(HELLO, final=True, max_size=5) == b"Hello"


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("payload", [HELLO, HELLO_FINAL, HELLO_FINAL + HELLO_FINAL])
def test_one_byte_over_the_limit_is_too_big(payload: bytes, *, final: bool) -> None:
    size = 5 * payload.count(HELLO[1:-1])
    with pytest.raises(RemoteProtocolError, match=f"more than the {size - 1} bytes") as caught:
        receiver().decompress(payload, final=final, max_size=size - 1)
    assert caught.value.code == 1009


def test_limit_of_0_lets_an_empty_message_pass_and_nothing_else() -> None:
    assert receiver().decompress(b"\x00", final=True, max_size=0) == b""
    with pytest.raises(RemoteProtocolError) as caught:
        receiver().decompress(HELLO, final=True, max_size=0)
    assert caught.value.code == 1009


def test_limit_may_be_without_end() -> None:
    assert receiver().decompress(HELLO, final=True, max_size=2**63 - 1) == b"Hello"


def test_negative_limit_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="max_size is -1"):
        receiver().decompress(HELLO, final=True, max_size=-1)


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_bomb_is_not_inflated_past_the_limit(size: int, *, takeover: bool) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15).compress(bytes(1 << 26))
    assert len(bomb) > 1 << 15
    codec = receiver(server_no_context_takeover=not takeover)
    codec.decompress(HELLO, final=True, max_size=5)
    with pytest.raises(RemoteProtocolError) as caught:
        decompress_pieces(codec, pieces(bomb, size), max_size=10_000)
    assert caught.value.code == 1009
    assert codec._decompressor is not None
    # 100 bytes of the bomb give some 100,000: what zlib has not taken in shows that it stopped at the limit.
    assert len(codec._decompressor.unconsumed_tail) > min(size, len(bomb)) - 60


def test_bomb_behind_a_final_block_is_not_inflated_past_the_limit() -> None:
    bomb = HELLO_FINAL + final_stream(bytes(1 << 24))
    with pytest.raises(RemoteProtocolError) as caught:
        receiver().decompress(bomb, final=True, max_size=1000)
    assert caught.value.code == 1009


# Data that is not right


@pytest.mark.parametrize(
    "payload",
    [
        b"\x07",  # a block of the reserved type 3
        b"\x01\x05\x00\x00\x00Hello",  # a stored block whose length is not repeated right
        HELLO_FINAL + b"\x07",
    ],
)
def test_data_that_is_not_deflate_is_invalid(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="does not decode") as caught:
        receiver().decompress(payload, final=True, max_size=100)
    assert caught.value.code == 1007


def test_reference_beyond_the_window_is_invalid() -> None:
    with pytest.raises(RemoteProtocolError, match="too far back") as caught:
        receiver().decompress(HELLO_AGAIN, final=True, max_size=100)
    assert caught.value.code == 1007


@pytest.mark.parametrize(
    "payload",
    [
        b"",  # an empty message is 00
        HELLO[:3],  # torn in a block with fixed codes
        b"\x00\x05\x00\xfa\xffHel",  # torn in a stored block
        HELLO_FINAL + HELLO[:3],
        b"\x03",  # torn in an empty block with BFINAL=1, which the tail would complete
        HELLO + b"\x03",
    ],
)
def test_message_that_ends_in_a_block_is_invalid(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        receiver().decompress(payload, final=True, max_size=100)
    assert caught.value.code == 1007


@settings(deadline=None)
@given(payload=st.binary(max_size=100), final=st.booleans(), max_size=st.integers(0, 300))
def test_any_bytes_give_data_within_the_limit_or_one_kind_of_error(
    payload: bytes, max_size: int, *, final: bool
) -> None:
    size, code = 0, None
    try:
        size = len(receiver().decompress(payload, final=final, max_size=max_size))
    except RemoteProtocolError as error:
        code = error.code
    assert code in {None, 1007, 1009}
    assert size <= max_size


# BFINAL=1 (RFC 7692, section 7.2.3.4)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("behind", [b"\x00", b""], ids=["as in the RFC", "without the byte 00"])
def test_message_of_a_final_block_and_the_next_are_right(behind: bytes, size: int) -> None:
    codec = receiver()
    assert decompress_pieces(codec, pieces(HELLO_FINAL + behind, size)) == b"Hello"
    assert decompress_pieces(codec, pieces(HELLO, size)) == b"Hello"
    assert decompress_pieces(codec, pieces(HELLO_AGAIN, size)) == b"Hello"


def test_last_fragment_without_data_may_follow_a_final_block() -> None:
    codec = receiver()
    assert decompress_pieces(codec, [HELLO_FINAL, b""]) == b"Hello"
    assert decompress_pieces(codec, [HELLO]) == b"Hello"


def test_without_context_takeover_nothing_of_a_final_block_stays() -> None:
    codec = receiver(server_no_context_takeover=True)
    assert decompress_pieces(codec, [HELLO_FINAL]) == b"Hello"
    with pytest.raises(RemoteProtocolError):
        codec.decompress(HELLO_AGAIN, final=True, max_size=100)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_window_outlives_a_final_block(size: int) -> None:
    first, second = os.urandom(100_000), os.urandom(40_000)
    # The second stream refers back to what the first one gave, as far as a window reaches.
    message = final_stream(first) + final_stream(first[-30_000:] + second, first[-32_768:])
    assert len(message) < len(first) + len(second) + 10_000
    codec = receiver()
    expected = first + first[-30_000:] + second
    assert decompress_pieces(codec, pieces(message, size), max_size=len(expected)) == expected
    after = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=second[-32_768:])
    reference = after.compress(second[-20_000:]) + after.flush(zlib.Z_SYNC_FLUSH)
    assert len(reference) < 1000
    assert codec.decompress(reference.removesuffix(TAIL), final=True, max_size=20_000) == second[-20_000:]


@settings(deadline=None)
@given(
    messages=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), min_size=1, max_size=3),
    size=st.integers(1, 60),
)
def test_streams_one_behind_the_other_are_one_message(messages: list[list[bytes]], size: int) -> None:
    codec = receiver()
    for parts in messages:
        payload = b"".join(map(final_stream, parts))
        assert decompress_pieces(codec, pieces(payload, size)) == b"".join(parts)


def test_stream_longer_than_a_slice_may_stand_behind_a_final_block() -> None:
    noise = os.urandom(3 * MEMBER_SLICE)
    payload = HELLO_FINAL + final_stream(noise) + HELLO_FINAL
    assert receiver().decompress(payload, final=True, max_size=1 << 20) == b"Hello" + noise + b"Hello"


def best_time(codec: PerMessageDeflate, payload: bytes) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        codec.decompress(payload, final=True, max_size=1 << 20)
        times.append(time.perf_counter() - start)
    return min(times)


def test_many_tiny_streams_take_linear_time() -> None:
    empty = final_stream(b"")
    few, many = (best_time(receiver(), empty * count) for count in (5_000, 40_000))
    # Eight times as many: 64 times as long, were it the square.
    assert many < 25 * few


def test_a_message_in_65536_fragments_takes_linear_time() -> None:
    payload = receiver().compress(os.urandom(65_530))
    start = time.perf_counter()
    decompress = receiver().decompress
    for fragment in pieces(payload, 1):
        decompress(fragment, final=False, max_size=100_000)
    assert time.perf_counter() - start < 5
