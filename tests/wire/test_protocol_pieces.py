"""Messages piece by piece, through the state machine: as they arrive, and the same however the bytes are cut."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import LocalProtocolError, RemoteProtocolError
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode
from trio_pyjo_ws.wire.inflating import STEP
from trio_pyjo_ws.wire.protocol import Agreement, Pong, Protocol

from . import raw
from .raw import BINARY, BINARY_PART, CLOSE, LAST, PART, PING, PONG, RSV1, TEXT, TEXT_PART, cuts, one_by_one

pytestmark = pytest.mark.usefixtures("implementation")

SMALL = 1_000
"""max_websocket_size here."""

WISHES = {
    "uncompressed": None,
    "compressed": Deflate(threshold=0),
    "no context takeover": Deflate(client_no_context_takeover=True, server_no_context_takeover=True, threshold=0),
}
EVERY_WISH = pytest.mark.parametrize("deflate", WISHES.values(), ids=WISHES)


def alone(
    deflate: Deflate | None = None, role: Literal["client", "server"] = "server", size: int = SMALL, **options: Any
) -> Protocol:
    agreement = Agreement(None, None if deflate is None else deflate.codec(client=role == "client"))
    return Protocol(role, agreement=agreement, max_websocket_size=size, **options)


def wire(*frames: tuple[int, bytes]) -> bytes:
    """What a client puts on the wire."""
    return raw.wire(frames, True)


def events(protocol: Protocol, *chunks: bytes, max_bytes: int = 1 << 30) -> list[Any]:
    """The events, errors as their codes."""
    found: list[Any] = []
    for chunk in chunks:
        found += protocol.server_read(chunk, max_bytes=max_bytes)
        while protocol.pending and not protocol.held:
            found += protocol.server_read(max_bytes=max_bytes)
    return [event.code if isinstance(event, RemoteProtocolError) else event for event in found]


class Taker:
    """Somebody who takes the next message in pieces, or the one that has begun."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.arriving = protocol.arriving
        self.arriving.claim()
        self.pieces: list[Any] = []
        self.take()

    def take(self) -> None:
        if self.arriving.held:
            self.pieces.append(self.arriving.take())

    def read(self, *chunks: bytes, max_bytes: int = 1 << 30) -> list[Any]:
        """The events, while what comes of the message is taken."""
        found: list[Any] = []
        for chunk in chunks:
            found += self.protocol.server_read(chunk, max_bytes=max_bytes)
            self.take()
            while self.protocol.pending:
                found += self.protocol.server_read(max_bytes=max_bytes)
                self.take()
        return [event.code if isinstance(event, RemoteProtocolError) else event for event in found]

    @property
    def message(self) -> str | bytes:
        assert self.arriving.ended
        empty: Any = "" if self.arriving.is_text else b""
        return empty.join(self.pieces)


# Receiving


def test_the_next_message_comes_in_pieces_and_those_behind_it_whole() -> None:
    protocol = alone()
    taker = Taker(protocol)
    first = wire((TEXT_PART, b"a"), (PART, b"b"), (PING, b"?"))
    assert taker.read(first, wire((LAST, b"c"), (TEXT, b"whole"), (BINARY, b"too"))) == ["whole", b"too"]
    assert taker.pieces == ["ab", "c"]
    assert taker.message == "abc"
    assert protocol.take() == raw.frame(PONG, b"?", False)


@EVERY_WISH
def test_a_read_ends_with_it(deflate: Deflate | None) -> None:
    """What is behind it is for later: whoever has claimed it may give it up, and then it has to come first."""
    protocol = alone(deflate)
    taker = Taker(protocol)
    codec = None if deflate is None else deflate.codec(client=True)
    parts = [(TEXT, b"it"), (TEXT, b"behind")]
    data = wire(*parts if codec is None else [(head | RSV1, codec.compress(payload)) for head, payload in parts])
    assert protocol.server_read(data) == []
    assert protocol.pending
    assert taker.arriving.ended
    assert protocol.server_read() == ["behind"]
    assert not protocol.pending


@pytest.mark.parametrize(("head", "data"), [(TEXT, "all"), (BINARY, b"all"), (TEXT, ""), (BINARY, b"")])
def test_a_message_in_one_frame_has_come_at_once(head: int, data: str | bytes) -> None:
    taker = Taker(alone())
    assert taker.read(wire((head, data.encode() if isinstance(data, str) else data))) == []
    assert taker.message == data
    assert not taker.protocol.arriving.claimed


def test_a_large_frame_is_given_as_it_arrives_although_it_is_over_the_limit() -> None:
    protocol = alone()
    taker = Taker(protocol)
    whole = bytes(range(256)) * 100
    data = wire((BINARY, whole), (TEXT, b"next"))
    assert taker.read(data[:8]) == []
    assert (taker.arriving.begun, taker.arriving.is_text) == (True, False)  # The head tells that it is binary.
    assert taker.read(data[8:9], data[9:20_000], data[20_000:]) == ["next"]
    assert taker.pieces == [whole[:1], whole[1:19_992], whole[19_992:]]
    assert taker.message == whole


def test_behind_it_the_limit_holds_again() -> None:
    taker = Taker(alone())
    found = taker.read(wire((BINARY, bytes(SMALL + 1)), (BINARY, bytes(SMALL)), (BINARY, bytes(SMALL + 1))))
    assert found == [bytes(SMALL), 1009]
    assert taker.message == bytes(SMALL + 1)


def test_many_fragments_may_sum_up_over_the_limit() -> None:
    taker = Taker(alone())
    assert taker.read(wire((BINARY_PART, bytes(600)), *[(PART, bytes(600))] * 50, (LAST, b""))) == []
    assert taker.message == bytes(600 * 51)


def test_text_is_cut_between_characters() -> None:
    taker = Taker(alone())
    text = "ßÆ€😀" * 2
    taker.read(*one_by_one(wire((TEXT_PART, text.encode()[:11]), (LAST, text.encode()[11:]))))
    assert taker.message == text
    assert [piece for piece in taker.pieces if piece] == list(text)


@EVERY_WISH
@pytest.mark.parametrize("broken", [b"a\xff", b"\xed\xa0\x80", b"\xc3"])
def test_text_that_is_not_utf_8_ends_it_with_1007(broken: bytes, deflate: Deflate | None) -> None:
    taker = Taker(alone(deflate))
    head, payload = TEXT, broken
    if deflate is not None:
        head, payload = TEXT | RSV1, deflate.codec(client=True).compress(broken)
    assert taker.read(wire((head, payload))) == [1007]
    assert not taker.protocol.pending
    assert not taker.arriving.ended


def test_a_message_that_has_begun_is_given_from_its_beginning() -> None:
    protocol = alone()
    assert events(protocol, wire((TEXT_PART, b"begun "), (PART, b"before "))) == []
    taker = Taker(protocol)
    assert taker.pieces == ["begun before "]
    assert taker.read(wire((LAST, b"end"))) == []
    assert taker.message == "begun before end"


def test_a_frame_that_has_begun_is_given_from_its_beginning() -> None:
    data = wire((BINARY, b"0123456789"))
    protocol = alone()
    assert events(protocol, data[:-4]) == []
    taker = Taker(protocol)
    assert taker.read(data[-4:]) == []
    assert taker.pieces == [b"012345", b"6789"]


def test_it_can_be_taken_back_while_no_piece_was_taken() -> None:
    protocol = alone()
    protocol.arriving.claim()
    assert events(protocol, wire((PONG, b"!"), (TEXT_PART, b"a"))) == [Pong(b"!")]
    assert protocol.unclaim()
    assert events(protocol, wire((LAST, b"b"))) == ["ab"]
    protocol.arriving.claim()
    assert events(protocol, wire((BINARY_PART, bytes(SMALL + 1)))) == []
    assert not protocol.unclaim()
    assert protocol.arriving.claimed


def test_what_is_thrown_away_is_read_past() -> None:
    protocol = alone()
    taker = Taker(protocol)
    taker.arriving.discard()
    assert taker.read(wire((BINARY_PART, bytes(600)), (PING, b""), (LAST, bytes(600)), (TEXT, b"next"))) == ["next"]
    assert taker.message == b""


@EVERY_WISH
def test_frames_are_shown_in_the_parts_that_they_arrive_in(deflate: Deflate | None) -> None:
    protocol = alone(deflate)
    protocol.watch_frames = True
    taker = Taker(protocol)
    data = wire((TEXT, b"abc"), (TEXT, b"d"))
    assert taker.read(data[:-8], b"", data[-8:]) == [
        Frame(False, False, False, False, Opcode.TEXT, b"ab"),
        Frame(True, False, False, False, Opcode.CONTINUATION, b"c"),
        Frame(True, False, False, False, Opcode.TEXT, b"d"),
        "d",
    ]
    assert taker.pieces == ["ab", "c"]


def test_compressed_frames_are_shown_in_the_parts_that_they_arrive_in() -> None:
    deflate = Deflate()
    payload = deflate.codec(client=True).compress(b"0123456789" * 100)
    protocol = alone(deflate)
    protocol.watch_frames = True
    taker = Taker(protocol)
    data = wire((BINARY | RSV1, payload))
    assert taker.read(data[:10], data[10:-1], data[-1:], max_bytes=1) == [
        Frame(False, True, False, False, Opcode.BINARY, payload[:4]),
        Frame(False, False, False, False, Opcode.CONTINUATION, payload[4:-1]),
        Frame(True, False, False, False, Opcode.CONTINUATION, payload[-1:]),
    ]
    assert taker.message == b"0123456789" * 100


def test_empty_fragments_are_counted_and_not_the_beginning_of_a_large_frame() -> None:
    protocol = alone(max_empty_fragments=1)
    data = wire((BINARY, b"0123456789"))
    taker = Taker(protocol)
    assert taker.read(data[:6], data[6:]) == []
    assert taker.message == b"0123456789"
    taker = Taker(protocol)
    assert taker.read(wire((TEXT_PART, b"a"), (PART, b""))) == []
    assert taker.read(wire((PART, b""))) == [1008]
    assert taker.pieces == ["a"]


@pytest.mark.parametrize("claimed", [False, True])
def test_a_close_in_the_middle_is_told(claimed: bool) -> None:
    protocol = alone()
    if claimed:
        protocol.arriving.claim()
    assert not protocol.cut
    assert events(protocol, wire((TEXT_PART, b"a"), (CLOSE, b"\x03\xe8"))) == [Close(1000)]
    assert protocol.cut
    whole = alone()
    assert events(whole, wire((TEXT_PART, b"a"), (LAST, b""), (CLOSE, b"\x03\xe8"))) == ["a", Close(1000)]
    assert not whole.cut


def test_a_bomb_inflates_as_it_is_asked_for() -> None:
    deflate = Deflate()
    bomb = deflate.codec(client=True).compress(bytes(50_000_000))
    taker = Taker(alone(deflate))
    assert taker.read(wire((BINARY | RSV1, bomb), (TEXT, b"next")), max_bytes=1) == ["next"]
    assert all(len(piece) <= STEP for piece in taker.pieces)
    assert len(taker.pieces) >= 50_000_000 // STEP
    assert len(taker.message) == 50_000_000


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_what_comes_behind_a_piece_that_is_not_taken_is_kept(cut: int) -> None:
    deflate = Deflate()
    codec = deflate.codec(client=True)
    large = codec.compress(bytes(3 * STEP))
    protocol = alone(deflate)
    taker = Taker(protocol)
    for data in (wire((BINARY | RSV1, large), (TEXT | RSV1, codec.compress(b"next"))), wire((BINARY | RSV1, large))):
        protocol = alone(deflate)
        taker = Taker(protocol)
        assert protocol.server_read(data[:-cut], max_bytes=1) == []
        assert protocol.pending
        assert protocol.server_read(data[-cut:], max_bytes=1) == []
        assert taker.read(b"") in ([], ["next"])
        assert taker.message == bytes(3 * STEP)


def test_corrupt_data_in_the_middle_is_1007_and_the_end() -> None:
    protocol = alone(Deflate())
    taker = Taker(protocol)
    good = zlib.compressobj(wbits=-15)
    data = good.compress(b"good") + good.flush(zlib.Z_SYNC_FLUSH)
    assert taker.read(wire((BINARY_PART | RSV1, data), (PART, b"\xff\xff"))) == [1007]
    assert taker.pieces == [b"good"]
    assert not protocol.pending
    assert protocol.close is not None
    assert protocol.close.code == 1007


@EVERY_WISH
@settings(deadline=None)
@given(data=st.data(), max_bytes=st.sampled_from([1, 500, 1 << 30]))
def test_any_chunking_gives_the_same_bytes(data: st.DataObject, deflate: Deflate | None, max_bytes: int) -> None:
    messages = data.draw(st.lists(st.text(max_size=500) | st.binary(max_size=2_000), min_size=1, max_size=4))
    sender = alone(deflate, "client", size=1 << 20)
    for message in messages:
        encoded = message.encode() if isinstance(message, str) else message
        fragmenter = sender.fragmenter(Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
        for piece in data.draw(cuts(encoded)):
            if (fragment := fragmenter.cut(piece)) is not None:
                sender.send_frame(Frame.from_head(*fragment))
        sender.send_frame(Frame.from_head(*fragmenter.end()))
    receiver = alone(deflate, size=10_000)
    found: list[str | bytes] = []
    taker: Taker | None = Taker(receiver)
    for chunk in data.draw(cuts(sender.take())):
        events_of = taker.read if taker is not None else lambda *chunks, **limits: events(receiver, *chunks, **limits)
        whole = events_of(chunk, max_bytes=max_bytes)
        if taker is not None and taker.arriving.ended:
            found.append(taker.message)
            taker = None
        found += whole
        if taker is None and data.draw(st.booleans()):
            taker = Taker(receiver)
    assert found == messages


# Holding, for somebody who may yet want pieces


def test_a_message_over_the_limit_waits_while_holding() -> None:
    protocol = alone()
    assert not protocol.holding
    protocol.holding = True
    assert protocol.holding
    large = bytes(SMALL + 1)
    assert events(protocol, wire((TEXT, b"small"), (BINARY, large), (TEXT, b"next"))) == ["small"]
    assert protocol.held
    assert protocol.pending
    taker = Taker(protocol)
    assert taker.read(b"") == ["next"]
    assert taker.message == large
    assert not protocol.held


@EVERY_WISH
def test_whoever_wants_it_whole_fails_it(deflate: Deflate | None) -> None:
    protocol = alone(deflate)
    protocol.holding = True
    message = wire((BINARY, bytes(SMALL + 1)))
    if deflate is not None:
        message = wire((BINARY | RSV1, deflate.codec(client=True).compress(bytes(SMALL + 1))))
    assert events(protocol, message) == []
    assert protocol.held
    protocol.holding = False
    assert events(protocol, b"") == [1009]


def test_the_fragment_that_passes_the_limit_waits() -> None:
    protocol = alone()
    protocol.holding = True
    assert events(protocol, wire((BINARY_PART, bytes(SMALL)), (PING, b""), (LAST, b"!"))) == []
    assert protocol.held
    assert protocol.take() == raw.frame(PONG, b"", False)
    taker = Taker(protocol)
    assert taker.read(b"") == []
    assert taker.message == bytes(SMALL) + b"!"


def test_a_compressed_message_waits_at_the_limit_of_what_it_inflates_to() -> None:
    deflate = Deflate()
    codec = deflate.codec(client=True)
    protocol = alone(deflate)
    protocol.holding = True
    small = wire((BINARY | RSV1, codec.compress(bytes(SMALL))))
    bomb = wire((BINARY | RSV1, codec.compress(bytes(100_000))))
    assert events(protocol, small, bomb) == [bytes(SMALL)]
    assert protocol.held
    assert protocol.pending
    taker = Taker(protocol)
    assert taker.read(b"") == []
    assert taker.message == bytes(100_000)
    # What comes behind it is whole again.
    frames = [(TEXT_PART, b"a"), (LAST, b"b"), (TEXT, b"c"), (TEXT | RSV1, codec.compress(b"d"))]
    assert events(protocol, wire(*frames)) == ["ab", "c", "d"]


# Sending


@EVERY_WISH
def test_pieces_are_sent_and_arrive_as_one_message(deflate: Deflate | None) -> None:
    client, server = alone(deflate, "client"), alone(deflate)
    for _ in range(2):
        fragmenter = client.fragmenter(Opcode.TEXT)
        for piece in ("Hel", b"lo ", "Grüße"):
            fragment = fragmenter.cut(piece)
            assert fragment is not None
            client.send_frame(Frame.from_head(*fragment))
            assert events(server, client.take()) == []
        client.send_frame(Frame.from_head(*fragmenter.end()))
        assert events(server, client.take()) == ["Hello Grüße"]
        client.send_frame(Frame.from_head(*client.fragmenter(Opcode.BINARY).end()))
        client.send_message("next")
        assert events(server, client.take()) == [b"", "next"]


def test_compress_says_whether_it_is_compressed() -> None:
    protocol = alone(Deflate())
    assert protocol.fragmenter(Opcode.BINARY, compress=False).cut(b"a" * 100) == (BINARY_PART, b"a" * 100)
    for compress in (True, None):
        fragment = protocol.fragmenter(Opcode.BINARY, compress=compress).cut(b"a" * 100)
        assert fragment is not None
        assert fragment[0] == BINARY_PART | RSV1
    assert alone().fragmenter(Opcode.BINARY).cut(b"a") == (BINARY_PART, b"a")
    with pytest.raises(ValueError, match="not agreed on permessage-deflate"):
        alone().fragmenter(Opcode.BINARY, compress=True)


def test_pieces_are_for_an_open_connection() -> None:
    protocol = alone()
    fragment = protocol.fragmenter(Opcode.TEXT).cut("a")
    assert fragment is not None
    protocol.send_close()
    with pytest.raises(LocalProtocolError, match="closing"):
        protocol.send_frame(Frame.from_head(*fragment))
