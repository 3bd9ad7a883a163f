"""The message that is arriving: collected for whoever wants it whole, and given in pieces to whoever claims it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_pyjo_ws.wire.arriving import Arriving, Utf8Decoder

from .raw import BAD_TEXTS, GOOD_TEXT, KEY, cuts, one_by_one, peak_of, xor

pytestmark = pytest.mark.usefixtures("implementation")

BAD = pytest.mark.parametrize(("text", "bad"), BAD_TEXTS.values(), ids=BAD_TEXTS)
TEXT, BINARY = 1, 2


def begun(opcode: int) -> Arriving:
    arriving = Arriving()
    arriving.begin(opcode, False)
    return arriving


# Text in pieces (RFC 6455, section 8.1)


@BAD
def test_bad_byte_is_found_when_it_comes(text: bytes, bad: int) -> None:
    decoder = Utf8Decoder()
    for byte in one_by_one(text[:bad]):
        decoder.decode(byte, False)
    with pytest.raises(UnicodeDecodeError):
        decoder.decode(text[bad : bad + 1], False)


@BAD
def test_bad_byte_is_found_at_every_split(text: bytes, bad: int) -> None:
    for split in range(len(text) + 1):
        decoder = Utf8Decoder()
        if split <= bad:
            decoder.decode(text[:split], False)
            with pytest.raises(UnicodeDecodeError):
                decoder.decode(text[split:], False)
        else:
            with pytest.raises(UnicodeDecodeError):
                decoder.decode(text[:split], False)


@given(data=st.data(), text=st.text(max_size=40) | st.just(GOOD_TEXT))
def test_good_text_comes_out_however_it_is_cut(data: st.DataObject, text: str) -> None:
    decoder = Utf8Decoder()
    parts = data.draw(cuts(text.encode()))
    found = [decoder.decode(part, False) for part in parts]
    assert "".join(found) == text
    assert decoder.decode(b"", True) == ""


def test_a_character_is_given_when_its_last_byte_has_come() -> None:
    decoder = Utf8Decoder()
    assert [decoder.decode(byte, False) for byte in one_by_one("aé€😀".encode())] == [
        *("a", "", "é", "", "", "€", "", "", "", "😀")
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_text_must_not_end_within_a_character(size: int) -> None:
    decoder = Utf8Decoder()
    assert decoder.decode("€😀".encode()[: 3 + size], False) == "€"
    with pytest.raises(UnicodeDecodeError):
        decoder.decode(b"", True)


# One message


def test_it_begins_with_its_first_frame() -> None:
    arriving = Arriving()
    assert not any([arriving.begun, arriving.compressed, arriving.is_text, arriving.claimed, arriving.ended])
    arriving.begin(TEXT, True)
    assert (arriving.begun, arriving.compressed, arriving.is_text) == (True, True, True)
    arriving = begun(BINARY)
    assert (arriving.begun, arriving.compressed, arriving.is_text) == (True, False, False)


def test_text_is_collected() -> None:
    arriving = begun(TEXT)
    for byte in one_by_one("Grüße".encode()):
        arriving.add(byte, False)
    arriving.add(b"!", True)
    assert arriving.held == 8
    assert arriving.take() == "Grüße!"
    assert (arriving.held, arriving.take()) == (0, "")


@pytest.mark.parametrize("count", [255, 256, 257, 100_000])
def test_many_parts_of_a_text_stay_in_order(count: int) -> None:
    arriving = begun(TEXT)
    parts = [f"{number} " for number in range(count)]
    for part in parts:
        arriving.add(part.encode(), False)
    assert arriving.take() == "".join(parts)
    arriving.add(b"next", True)
    assert arriving.take() == "next"


def test_bytes_are_collected_unmasked_or_not() -> None:
    arriving = begun(BINARY)
    arriving.add(b"\xff", False)
    arriving.add_part(b"??" + xor(b"\xfe\xfd", KEY) + b"??", 2, 4, KEY, 0)
    arriving.add_part(b"", 0, 0, KEY, 0)
    arriving.add_part(b"??\xfc??", 2, 3, b"", 0)
    arriving.add(b"", True)
    assert arriving.held == 4
    assert arriving.take() == b"\xff\xfe\xfd\xfc"
    assert (arriving.held, arriving.take()) == (0, b"")


def test_what_is_held_of_a_text_is_counted_in_bytes_of_utf_8() -> None:
    arriving = begun(TEXT)
    text = "aé€😀".encode()
    held = []
    for byte in one_by_one(text):
        arriving.add(byte, False)
        held.append(arriving.held)
    assert held == list(range(1, len(text) + 1))


def test_a_piece_of_text_ends_behind_a_character() -> None:
    arriving = begun(TEXT)
    arriving.add("€".encode() + "€".encode()[:2], False)
    assert arriving.take() == "€"
    arriving.add("€".encode()[2:], True)
    assert arriving.take() == "€"


@BAD
@pytest.mark.parametrize("discarded", [False, True])
def test_bad_text_is_told_even_if_it_is_thrown_away(text: bytes, bad: int, discarded: bool) -> None:
    arriving = begun(TEXT)
    if discarded:
        arriving.discard()
    arriving.add(text[:bad], False)
    with pytest.raises(UnicodeDecodeError):
        arriving.add(text[bad:], False)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_what_is_discarded_and_what_comes_behind_it_is_not_held(opcode: int) -> None:
    arriving = begun(opcode)
    arriving.add(b"before", False)
    arriving.discard()
    assert (arriving.discarded, arriving.held) == (True, 0)
    arriving.add(b"behind", False)
    if opcode == BINARY:
        arriving.add_part(b"behind", 0, 6, KEY, 0)
    assert arriving.held == 0
    assert not arriving.take()


def test_given_whole_it_is_the_next_one() -> None:
    arriving = begun(TEXT)
    arriving.note(3)
    arriving.add(b"abc", True)
    assert arriving.take() == "abc"
    arriving.restart()
    assert (arriving.begun, arriving.compressed, arriving.is_text) == (False, False, False)
    assert (arriving.size, arriving.held) == (0, 0)
    arriving.begin(BINARY, False)
    arriving.add(b"\xff", True)
    assert arriving.take() == b"\xff"


@pytest.mark.parametrize("character", ["a", "€", "😀"])
def test_text_that_comes_character_by_character_takes_no_more_than_twice_its_size(character: str) -> None:
    # As many objects would take 50 bytes and more for each.
    count = 100_000
    parts = [character.encode()] * count
    arriving = begun(TEXT)

    def collect() -> None:
        for part in parts:
            arriving.add(part, False)
        assert len(arriving.take()) == count

    assert peak_of(collect) < 2 * len((character * count).encode("utf-32")) + 100_000
