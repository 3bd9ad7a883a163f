"""Messages piece by piece: given as they arrive, cut as they are sent, and the same bytes however they are chunked."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import LocalProtocolError, RemoteProtocolError
from trio_pyjo_ws.wire import protocol as protocol_module
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.fragments import PIECE_SIZE, Fragmenter, Piece
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode, encode
from trio_pyjo_ws.wire.protocol import Agreement, Pong, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

KEY = b"\x37\xfa\x21\x3d"
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
TEXT_PART, BINARY_PART, PART, LAST = 0x01, 0x02, 0x00, 0x80
RSV1 = 0x40
SMALL = 1_000
"""max_websocket_size here."""

WISHES = {
    "uncompressed": None,
    "compressed": Deflate(threshold=0),
    "no context takeover": Deflate(client_no_context_takeover=True, server_no_context_takeover=True, threshold=0),
}
EVERY_WISH = pytest.mark.parametrize("deflate", WISHES.values(), ids=WISHES)


@pytest.fixture(autouse=True)
def decoder(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs over both codecs."""
    monkeypatch.setattr(protocol_module, "Decoder", codec.Decoder)


def alone(
    deflate: Deflate | None = None, role: Literal["client", "server"] = "server", size: int = SMALL, **options: Any
) -> Protocol:
    agreement = Agreement(None, None if deflate is None else deflate.codec(client=role == "client"))
    return Protocol(role, agreement=agreement, max_websocket_size=size, **options)


def wire(*frames: tuple[int, bytes]) -> bytes:
    """What a client puts on the wire."""
    return b"".join(encode(head, payload, KEY) for head, payload in frames)


def in_steps(protocol: Protocol, chunks: Iterable[bytes]) -> Iterator[Any]:
    """The events, and of pieces that come together only one."""
    for chunk in chunks:
        yield from protocol.server_read(chunk)
        while protocol.pending and not protocol.held:
            yield from protocol.server_read()


def pieces(protocol: Protocol, *chunks: bytes) -> list[Any]:
    """The events, each piece as a tuple of its data and whether it is the last, and errors as their codes."""
    return [
        tuple(event) if isinstance(event, Piece) else event.code if isinstance(event, RemoteProtocolError) else event
        for event in in_steps(protocol, chunks)
    ]


def joined(found: Iterable[Any]) -> Any:
    parts = [data for data, _ in found]
    return "".join(parts) if isinstance(parts[0], str) else b"".join(parts)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


# Receiving


def test_the_next_message_comes_in_pieces_and_those_behind_it_whole() -> None:
    protocol = alone()
    protocol.give_pieces()
    data = wire((TEXT_PART, b"a"), (PART, b"b"), (PING, b"?"), (LAST, b"c"), (TEXT, b"whole"), (BINARY, b"too"))
    assert pieces(protocol, data) == [("a", False), ("b", False), ("c", True), "whole", b"too"]
    assert protocol.take() == encode(0x8A, b"?")


def test_a_message_in_one_frame_is_one_piece() -> None:
    for head, data in [(TEXT, "all"), (BINARY, b"all"), (TEXT, "")]:
        protocol = alone()
        protocol.give_pieces()
        payload = data.encode() if isinstance(data, str) else data
        assert pieces(protocol, wire((head, payload))) == [(data, True)]
        assert not protocol.giving_pieces


def test_a_large_frame_is_given_as_it_arrives_although_it_is_over_the_limit() -> None:
    protocol = alone()
    protocol.give_pieces()
    whole = bytes(range(256)) * 100
    data = wire((BINARY, whole), (TEXT, b"next"))
    assert pieces(protocol, data[:8]) == [(b"", False)]  # The head tells that it is binary.
    assert protocol.giving_pieces
    assert pieces(protocol, data[8:9]) == [(whole[:1], False)]
    assert pieces(protocol, data[9:20_000]) == [(whole[1:19_992], False)]
    assert pieces(protocol, data[20_000:]) == [(whole[19_992:], True), "next"]
    assert not protocol.giving_pieces


def test_behind_it_the_limit_holds_again() -> None:
    protocol = alone()
    protocol.give_pieces()
    found = pieces(protocol, wire((BINARY, bytes(SMALL + 1)), (BINARY, bytes(SMALL)), (BINARY, bytes(SMALL + 1))))
    assert found == [(bytes(SMALL + 1), True), bytes(SMALL), 1009]


def test_many_fragments_may_sum_up_over_the_limit() -> None:
    protocol = alone()
    protocol.give_pieces()
    frames = [(BINARY_PART, bytes(600)), *[(PART, bytes(600))] * 50, (LAST, b"")]
    assert joined(pieces(protocol, wire(*frames))) == bytes(600 * 51)


def test_text_is_cut_between_characters() -> None:
    protocol = alone()
    protocol.give_pieces()
    text = "ßÆ€😀" * 2
    found = pieces(protocol, *one_by_one(wire((TEXT_PART, text.encode()[:11]), (LAST, text.encode()[11:]))))
    assert joined(found) == text
    assert found[0] == ("", False)
    assert [data for data, _ in found[1:]] == list(text)


@EVERY_WISH
@pytest.mark.parametrize("broken", [b"a\xff", b"\xed\xa0\x80", b"\xc3"])
def test_text_that_is_not_utf_8_ends_it_with_1007(broken: bytes, deflate: Deflate | None) -> None:
    protocol = alone(deflate)
    protocol.give_pieces()
    head, payload = TEXT, broken
    if deflate is not None:
        head, payload = TEXT | RSV1, deflate.codec(client=True).compress(broken)
    assert pieces(protocol, wire((head, payload)))[-1] == 1007
    assert not protocol.pending


def test_a_message_that_has_begun_is_given_from_its_beginning() -> None:
    protocol = alone()
    assert pieces(protocol, wire((TEXT_PART, b"begun "), (PART, b"before "))) == []
    protocol.give_pieces()
    assert protocol.pending
    assert pieces(protocol, b"") == [("begun before ", False)]
    assert pieces(protocol, wire((LAST, b"end"))) == [("end", True)]


def test_a_frame_that_has_begun_is_given_from_its_beginning() -> None:
    data = wire((BINARY, b"0123456789"))
    protocol = alone()
    assert pieces(protocol, data[:-4]) == []
    protocol.give_pieces()
    assert protocol.pending
    assert pieces(protocol, b"") == [(b"012345", False)]
    assert pieces(protocol, data[-4:]) == [(b"6789", True)]


def test_nothing_that_begun_is_nothing_to_wait_for() -> None:
    protocol = alone()
    assert pieces(protocol, wire((PING, b"0123456789"))[:-4]) == []
    protocol.give_pieces()
    assert not protocol.pending
    assert pieces(protocol, b"") == []


def test_it_can_be_taken_back_while_nothing_has_come() -> None:
    protocol = alone()
    protocol.give_pieces()
    assert pieces(protocol, wire((PONG, b"!"))) == [Pong(b"!")]
    protocol.give_whole()
    assert pieces(protocol, wire((TEXT_PART, b"a"), (LAST, b"b"))) == ["ab"]


def test_frames_are_shown_in_the_parts_that_they_arrive_in() -> None:
    protocol = alone()
    protocol.watch_frames = True
    protocol.give_pieces()
    data = wire((TEXT, b"abc"), (TEXT, b"d"))
    found = pieces(protocol, data[:-8], data[-8:])
    assert found == [
        Frame(False, False, False, False, Opcode.TEXT, b"ab"),
        ("ab", False),
        Frame(True, False, False, False, Opcode.CONTINUATION, b"c"),
        ("c", True),
        Frame(True, False, False, False, Opcode.TEXT, b"d"),
        "d",
    ]


def test_empty_fragments_are_counted_and_not_the_beginning_of_a_large_frame() -> None:
    protocol = alone(max_empty_fragments=1)
    protocol.give_pieces()
    head, rest = wire((BINARY, b"0123456789"))[:6], wire((BINARY, b"0123456789"))[6:]
    assert pieces(protocol, head, rest) == [(b"", False), (b"0123456789", True)]
    protocol.give_pieces()
    assert pieces(protocol, wire((TEXT_PART, b"a"), (PART, b""))) == [("a", False)]
    assert pieces(protocol, wire((PART, b""))) == [1008]


def test_a_close_in_the_middle_is_told() -> None:
    protocol = alone()
    protocol.give_pieces()
    assert pieces(protocol, wire((TEXT_PART, b"a"), (CLOSE, b"\x03\xe8"))) == [("a", False), Close(1000)]


def test_a_bomb_inflates_as_it_is_asked_for() -> None:
    deflate = Deflate()
    bomb = deflate.codec(client=True).compress(bytes(50_000_000))
    protocol = alone(deflate)
    protocol.give_pieces()
    size = count = 0
    events = protocol.server_read(wire((BINARY | RSV1, bomb), (TEXT, b"next")), max_bytes=1)
    while protocol.pending:
        for event in events:
            assert isinstance(event, Piece)
            assert len(event.data) <= PIECE_SIZE
            size += len(event.data)
            count += 1
            final = event.final
        events = protocol.server_read(max_bytes=1)
    assert final
    assert events == ["next"]
    assert size == 50_000_000
    assert count >= 50_000_000 // PIECE_SIZE


def test_what_comes_behind_a_piece_that_is_not_taken_is_kept() -> None:
    deflate = Deflate()
    codec = deflate.codec(client=True)
    large = codec.compress(bytes(3 * PIECE_SIZE))
    protocol = alone(deflate)
    protocol.give_pieces()
    data = wire((BINARY | RSV1, large), (TEXT | RSV1, codec.compress(b"next")))
    first = protocol.server_read(data[:-5], max_bytes=1)
    second = protocol.server_read(data[-5:], max_bytes=1)
    rest = pieces(protocol, b"")
    assert [joined([*first, *second, *rest[:-1]]), rest[-1]] == [bytes(3 * PIECE_SIZE), "next"]


def test_corrupt_data_in_the_middle_is_1007_and_the_end() -> None:
    protocol = alone(Deflate())
    protocol.give_pieces()
    good = zlib.compressobj(wbits=-15)
    data = good.compress(b"good") + good.flush(zlib.Z_SYNC_FLUSH)
    assert pieces(protocol, wire((BINARY_PART | RSV1, data), (PART, b"\xff\xff"))) == [(b"good", False), 1007]
    assert not protocol.pending
    assert protocol.close is not None
    assert protocol.close.code == 1007


@settings(deadline=None)
@given(data=st.data())
def test_many_blocks_with_bfinal_are_one_message(data: st.DataObject) -> None:
    """RFC 7692, section 7.2.3.4, and a window that goes on behind them."""
    parts = data.draw(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
    stream, window = b"", b""
    for part in parts:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=window)
        stream += compressor.compress(part) + compressor.flush()
        window = (window + part)[-32768:]
    codec = Deflate().codec(client=False)
    found: list[bytes] = []
    for chunk in _cut(data, stream):
        found += codec.decompress_in_pieces(chunk, final=False, size=data.draw(st.integers(1, 50)))
    found += codec.decompress_in_pieces(b"\x00", final=True, size=1)
    assert b"".join(found) == b"".join(parts)
    again = Deflate().codec(client=True).compress(b"next")
    assert codec.decompress(again, final=True, max_size=100) == b"next"


def _cut(data: st.DataObject, stream: bytes) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@EVERY_WISH
@settings(deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_bytes(data: st.DataObject, deflate: Deflate | None) -> None:
    messages = data.draw(st.lists(st.text(max_size=2_000) | st.binary(max_size=2_000), min_size=1, max_size=4))
    sender = alone(deflate, "client", size=1 << 20)
    for message in messages:
        encoded = message.encode() if isinstance(message, str) else message
        fragmenter = sender.fragmenter(Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
        for piece in _cut(data, encoded):
            if (fragment := fragmenter.cut(piece)) is not None:
                sender.send_frame(Frame.from_head(*fragment))
        sender.send_frame(Frame.from_head(*fragmenter.end()))
    receiver = alone(deflate, size=10_000)
    found: list[Any] = [[]]
    receiver.give_pieces()
    for event in in_steps(receiver, _cut(data, sender.take())):
        if isinstance(event, Piece):
            found[-1].append(event)
        else:  # behind the first message whose end came with it
            found[-1] = [Piece(event, True)]
        if found[-1][-1].final:
            found.append([])
            receiver.give_pieces()
    assert [joined(parts) for parts in found[:-1]] == messages
    assert found[-1] == []


# Holding, for somebody who may yet want pieces


def test_a_message_over_the_limit_waits_while_holding() -> None:
    protocol = alone()
    assert not protocol.holding
    protocol.holding = True
    large = bytes(SMALL + 1)
    assert pieces(protocol, wire((TEXT, b"small"), (BINARY, large), (TEXT, b"next"))) == ["small"]
    assert protocol.held
    assert protocol.pending
    protocol.give_pieces()
    assert pieces(protocol, b"") == [(large, True), "next"]
    assert not protocol.held


def test_who_wants_it_whole_fails_it() -> None:
    protocol = alone()
    protocol.holding = True
    assert pieces(protocol, wire((BINARY, bytes(SMALL + 1)))) == []
    protocol.holding = False
    assert pieces(protocol, b"") == [1009]


def test_the_fragment_that_passes_the_limit_waits() -> None:
    protocol = alone()
    protocol.holding = True
    assert pieces(protocol, wire((BINARY_PART, bytes(SMALL)), (PING, b""), (LAST, b"!"))) == []
    assert protocol.held
    assert protocol.take() == encode(0x8A, b"")
    protocol.give_pieces()
    assert pieces(protocol, b"") == [(bytes(SMALL) + b"!", True)]


def test_a_compressed_message_waits_whatever_its_size() -> None:
    deflate = Deflate()
    codec = deflate.codec(client=True)
    protocol = alone(deflate)
    protocol.holding = True
    bomb = wire((BINARY | RSV1, codec.compress(bytes(100_000))))
    assert pieces(protocol, wire((TEXT, b"small")), bomb) == ["small"]
    assert protocol.held
    protocol.give_pieces()
    assert joined(pieces(protocol, b"")) == bytes(100_000)
    # An uncompressed one behind it does not, in fragments or not.
    assert pieces(protocol, wire((TEXT_PART, b"a"), (LAST, b"b"), (TEXT, b"c"))) == ["ab", "c"]


def test_the_rest_of_a_compressed_message_waits() -> None:
    deflate = Deflate()
    fragmenter = Fragmenter(Opcode.BINARY, deflate.codec(client=True))
    frames = [fragmenter.cut(b"one"), fragmenter.cut(b"two"), fragmenter.end()]
    protocol = alone(deflate)
    assert pieces(protocol, wire(frames[0])) == []
    protocol.holding = True
    assert pieces(protocol, wire(*frames[1:])) == []
    assert protocol.held
    protocol.holding = False
    assert pieces(protocol, b"") == [b"onetwo"]


# Sending


def test_pieces_become_fragments_and_an_end() -> None:
    protocol = alone()
    fragmenter = protocol.fragmenter(Opcode.TEXT)
    assert not fragmenter.begun
    assert fragmenter.cut("") is None
    assert not fragmenter.begun
    assert fragmenter.cut("Grü") == (TEXT_PART, "Grü".encode())
    assert fragmenter.cut(bytearray(b"\xc3")) == (PART, b"\xc3")
    assert fragmenter.cut(memoryview(b"\x9fe")) == (PART, b"\x9fe")
    assert fragmenter.end() == (LAST, b"")


def test_a_message_without_pieces_is_one_empty_frame() -> None:
    assert alone().fragmenter(Opcode.BINARY).end() == (BINARY, b"")
    client, server = alone(Deflate(), "client"), alone(Deflate())
    client.send_frame(Frame.from_head(*client.fragmenter(Opcode.TEXT).end()))
    client.send_message("next", compress=True)
    assert pieces(server, client.take()) == ["", "next"]


@pytest.mark.parametrize("deflate", [wish for wish in WISHES.values() if wish])
def test_compressed_it_has_rsv1_on_the_first_and_each_piece_decodes_as_it_comes(deflate: Deflate) -> None:
    client, server = alone(deflate, "client"), alone(deflate)
    for _ in range(2):
        fragmenter = client.fragmenter(Opcode.TEXT)
        server.give_pieces()
        heads = []
        for piece in ["again and ", "again and ", "again"]:
            fragment = fragmenter.cut(piece)
            assert fragment is not None
            heads.append(fragment[0])
            assert pieces(server, wire(fragment)) == [(piece, False)]
        head, payload = fragmenter.end()
        assert heads == [TEXT_PART | RSV1, PART, PART]
        assert head == LAST
        assert pieces(server, wire((head, payload))) == [("", True)]
        client.send_message("whole", compress=True)
        assert pieces(server, client.take()) == ["whole"]


def test_compress_says_whether_it_is_compressed() -> None:
    protocol = alone(Deflate())
    plain = protocol.fragmenter(Opcode.BINARY, compress=False).cut(b"a" * 100)
    assert plain == (BINARY_PART, b"a" * 100)
    with pytest.raises(ValueError, match="not agreed on permessage-deflate"):
        alone().fragmenter(Opcode.BINARY, compress=True)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("piece", [1, None, ["a"]])
def test_a_piece_is_str_or_bytes(opcode: Opcode, piece: object) -> None:
    with pytest.raises(TypeError, match=r"not (int|NoneType|list)"):
        Fragmenter(opcode, None).cut(piece)


def test_a_piece_of_a_binary_message_is_no_str() -> None:
    with pytest.raises(TypeError, match="the pieces of this message are bytes, not str"):
        Fragmenter(Opcode.BINARY, None).cut("a")


@pytest.mark.parametrize("piece", [b"\xff", b"\xc3a", b"\xed\xa0", "\ud800"])
def test_a_piece_of_text_is_utf_8(piece: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"UTF-8|surrogates"):
        Fragmenter(Opcode.TEXT, None).cut(piece)


def test_a_text_ends_behind_a_whole_character() -> None:
    fragmenter = Fragmenter(Opcode.TEXT, None)
    fragmenter.cut(b"\xe2\x82")
    with pytest.raises(ValueError, match="in the middle of a character"):
        fragmenter.end()


def test_pieces_are_for_an_open_connection() -> None:
    protocol = alone()
    fragment = protocol.fragmenter(Opcode.TEXT).cut("a")
    assert fragment is not None
    protocol.send_close()
    with pytest.raises(LocalProtocolError, match="closing"):
        protocol.send_frame(Frame.from_head(*fragment))
