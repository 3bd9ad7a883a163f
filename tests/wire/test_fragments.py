"""Messages in fragments, as they are cut to be sent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.wire.deflate import Deflate, PerMessageDeflate
from trio_pyjo_ws.wire.fragments import Fragmenter
from trio_pyjo_ws.wire.frames import Opcode

from .raw import BAD_TEXTS, BINARY, BINARY_PART, FIN, GOOD_TEXT, LAST, PART, RSV1, TEXT, TEXT_PART, cuts, one_by_one

WISHES = {
    "compressed": Deflate(),
    "no context takeover": Deflate(client_no_context_takeover=True, server_no_context_takeover=True),
    "small windows": Deflate(client_max_window_bits=9, server_max_window_bits=9),
}


def inflated(codec: PerMessageDeflate, payload: bytes) -> bytes:
    found = b""
    codec.feed(payload)
    while codec.more:
        found += codec.inflate(10_000)
    return found


def test_pieces_become_fragments_and_an_end() -> None:
    fragmenter = Fragmenter(Opcode.TEXT, None)
    assert not fragmenter.begun
    assert fragmenter.cut("") is None
    assert fragmenter.cut(b"") is None
    assert not fragmenter.begun
    assert fragmenter.cut("Grü") == (TEXT_PART, "Grü".encode())
    assert fragmenter.begun
    assert fragmenter.cut(bytearray(b"\xc3")) == (PART, b"\xc3")
    assert fragmenter.cut(memoryview(b"\x9fe")) == (PART, b"\x9fe")
    assert fragmenter.end() == (LAST, b"")


def test_what_is_cut_does_not_change_with_what_it_was_cut_from() -> None:
    piece = bytearray(b"a")
    fragment = Fragmenter(Opcode.BINARY, None).cut(piece)
    piece[:] = b"b"
    assert fragment == (BINARY_PART, b"a")


def test_a_message_without_pieces_is_one_empty_frame() -> None:
    assert Fragmenter(Opcode.TEXT, None).end() == (TEXT, b"")
    assert Fragmenter(Opcode.BINARY, None).end() == (BINARY, b"")
    assert Fragmenter(Opcode.BINARY, Deflate().codec(client=True)).end() == (BINARY | RSV1, b"\x00")


@pytest.mark.parametrize("deflate", WISHES.values(), ids=WISHES)
def test_compressed_it_has_rsv1_on_the_first_and_each_piece_inflates_as_it_comes(deflate: Deflate) -> None:
    sender, receiver = deflate.codec(client=True), deflate.codec(client=False)
    for _ in range(2):
        fragmenter = Fragmenter(Opcode.TEXT, sender)
        heads = []
        for piece in ["again and ", "again and ", "again"]:
            fragment = fragmenter.cut(piece)
            assert fragment is not None
            heads.append(fragment[0])
            assert inflated(receiver, fragment[1]) == piece.encode()
        head, payload = fragmenter.end()
        assert heads == [TEXT_PART | RSV1, PART, PART]
        assert head == LAST
        assert inflated(receiver, payload) == b""
        receiver.end()
        assert inflated(receiver, sender.compress(b"whole")) == b"whole"
        receiver.end()


@settings(deadline=None)
@given(data=st.data(), message=st.text(max_size=200) | st.binary(max_size=200))
def test_all_pieces_of_a_message_are_in_its_fragments(data: st.DataObject, message: str | bytes) -> None:
    text = isinstance(message, str)
    payload = message.encode() if isinstance(message, str) else message
    fragmenter = Fragmenter(Opcode.TEXT if text else Opcode.BINARY, None)
    fragments = [fragment for piece in data.draw(cuts(payload)) if (fragment := fragmenter.cut(piece)) is not None]
    fragments.append(fragmenter.end())
    heads, parts = zip(*fragments, strict=True)
    assert b"".join(parts) == payload
    first = TEXT_PART if text else BINARY_PART
    assert list(heads) == ([first, *[PART] * (len(heads) - 2), LAST] if len(heads) > 1 else [first | FIN])


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("piece", [1, None, ["a"]])
def test_a_piece_is_str_or_bytes(opcode: Opcode, piece: object) -> None:
    with pytest.raises(TypeError, match=r"not (int|NoneType|list)"):
        Fragmenter(opcode, None).cut(piece)


def test_a_piece_of_a_binary_message_is_no_str() -> None:
    with pytest.raises(TypeError, match="the pieces of this message must be bytes, not str"):
        Fragmenter(Opcode.BINARY, None).cut("a")


@pytest.mark.parametrize("piece", [b"\xff", b"\xc3a", b"\xed\xa0", "\ud800"])
def test_a_piece_of_text_is_utf_8(piece: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"UTF-8|surrogates"):
        Fragmenter(Opcode.TEXT, None).cut(piece)


@pytest.mark.parametrize(("text", "bad"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_the_pieces_of_a_text_are_utf_8_as_a_whole(text: bytes, bad: int) -> None:
    fragmenter = Fragmenter(Opcode.TEXT, None)
    for byte in one_by_one(text[:bad]):
        fragmenter.cut(byte)
    with pytest.raises(ValueError, match="a piece of text is not UTF-8"):
        fragmenter.cut(text[bad : bad + 1])


def test_characters_may_be_cut() -> None:
    fragmenter = Fragmenter(Opcode.TEXT, None)
    fragments = [fragmenter.cut(byte) for byte in one_by_one(GOOD_TEXT.encode())]
    assert b"".join(fragment[1] for fragment in fragments if fragment) == GOOD_TEXT.encode()
    assert fragmenter.end() == (LAST, b"")


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("deflate", [None, Deflate()])
def test_a_text_ends_behind_a_whole_character(size: int, deflate: Deflate | None) -> None:
    fragmenter = Fragmenter(Opcode.TEXT, deflate and deflate.codec(client=True))
    fragmenter.cut("😀".encode()[:size])
    with pytest.raises(ValueError, match="in the middle of a character"):
        fragmenter.end()
