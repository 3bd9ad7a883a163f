"""The PROXY protocol: what names the client, what does not, and what is hostile."""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_pyjo_ws.handshake.proxy_protocol import MAX_LINE, MAX_PROXY_HEADER, SIGNATURE, ProxyHeader

LONGEST = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"


def binary(command: int, kind: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(rest) if length is None else length) + rest


def addresses(source: str, destination: str = "") -> bytes:
    """A source, a destination, and their ports, in the form of version 2."""
    packed = [ip_address(address).packed for address in (source, destination or source)]
    return b"".join(packed) + struct.pack("!HH", 56_324, 443)


TLVS = b"\x04\x00\x03abc" + b"\x20\x00\x01\x00"

WHOLE = [
    (b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n", "203.0.113.7"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP4 203.0.113.7 198.51.100.1 0 0\r\n", "203.0.113.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", "203.0.113.7"),
    (b"PROXY UNKNOWN\r\n", None),
    (LONGEST.encode(), None),
    (b"PROXY UNKNOWN " + b"a" * (MAX_LINE - 16) + b"\r\n", None),
    (binary(0x21, 0x11, addresses("203.0.113.7")), "203.0.113.7"),
    (binary(0x21, 0x21, addresses("2001:db8::7", "2001:db8::1")), "2001:db8::7"),
    (binary(0x21, 0x21, addresses("::ffff:203.0.113.7")), "203.0.113.7"),
    (binary(0x21, 0x11, addresses("203.0.113.7") + TLVS), "203.0.113.7"),
    (binary(0x21, 0x11, addresses("203.0.113.7") + b"\x04" + bytes(MAX_PROXY_HEADER - 29)), "203.0.113.7"),
    (binary(0x21, 0x31, b"/run/a".ljust(108, b"\0") * 2), None),
    (binary(0x21, 0x00, b""), None),
    (binary(0x21, 0x00, TLVS), None),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, addresses("203.0.113.7")), None),  # LOCAL: whatever it says of addresses
    (binary(0x20, 0xFF, b"abc"), None),
]
EVERY_HEADER = pytest.mark.parametrize(("header", "client"), WHOLE)
REST = b"GET / HTTP/1.1\r\n"


@EVERY_HEADER
@pytest.mark.parametrize("rest", [b"", REST, b"\r\n", SIGNATURE])
def test_a_header_names_the_client_and_leaves_what_is_behind_it(header: bytes, client: str | None, rest: bytes) -> None:
    read = ProxyHeader()
    assert read.read(header + rest)
    assert (read.complete, read.client, read.rest, read.wanted) == (True, client, rest, 0)


@EVERY_HEADER
def test_a_header_may_come_byte_by_byte(header: bytes, client: str | None) -> None:
    read = ProxyHeader()
    assert [read.read(bytes([byte])) for byte in header] == [False] * (len(header) - 1) + [True]
    assert (read.client, read.rest) == (client, b"")


@EVERY_HEADER
def test_who_reads_what_is_wanted_reads_nothing_behind_it(header: bytes, client: str | None) -> None:
    read, source = ProxyHeader(), header + REST
    while read.wanted:
        wanted, source = source[: read.wanted], source[read.wanted :]
        assert wanted
        read.read(wanted)
    assert (read.client, read.rest, source) == (client, b"", REST)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (REST, "expected a header of the PROXY protocol, found 'GET / HTTP/1'"),
        (b"\x16\x03\x01\x02\x00", r"expected a header of the PROXY protocol, found '\x16\x03\x01\x02\x00'"),
        (b"proxy TCP4", "expected a header of the PROXY protocol, found 'proxy TCP4'"),
        (b"\r\n\r\n\0\r\nQUIT\r", r"expected a header of the PROXY protocol, found '\r\n\r\n\x00\r\nQUIT\r'"),
        (b"PROXYTCP4", "expected a header of the PROXY protocol, found 'PROXYTCP4'"),
        (b"PROXY " + b"a" * (MAX_LINE - 6), "header of the PROXY protocol is over 107 bytes"),
        (b"PROXY " + b"a" * 1000 + b"\r\n", "header of the PROXY protocol is over 107 bytes"),
        *[
            (f"PROXY {line}".encode("latin-1"), "malformed header of the PROXY protocol: ")
            for line in (
                "\r\n",
                "TCP4\r\n",
                "TCP4 203.0.113.7 198.51.100.1 56324 443\n",
                "TCP4 203.0.113.7 198.51.100.1 56324\r\n",
                "TCP4 203.0.113.7 198.51.100.1 56324 443 1\r\n",
                "TCP4 203.0.113.7 198.51.100.1 56324 65536\r\n",
                "TCP4 203.0.113.7 198.51.100.1 056324 443\r\n",
                "TCP4 203.0.113.7 198.51.100.1 -1 443\r\n",
                "TCP4 203.0.113.7 198.51.100.1 1 \xb2\r\n",
                "TCP4 203.0.113.7  198.51.100.1 1 2\r\n",
                "TCP4 203.0.113.256 198.51.100.1 1 2\r\n",
                "TCP4 203.0.113.07 198.51.100.1 1 2\r\n",
                "TCP4 203.0.113.7 localhost 1 2\r\n",
                "TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
                "TCP6 203.0.113.7 198.51.100.1 1 2\r\n",
                "TCP6 fe80::1%\x1b[31m fe80::2 1 2\r\n",
                "UDP4 203.0.113.7 198.51.100.1 1 2\r\n",
                "unknown\r\n",
                "UNKNOWN\n",
            )
        ],
        (
            binary(0x11, 0x11, addresses("203.0.113.7")),
            "and a command, found 0x11",
        ),
        (
            binary(0x22, 0x11, addresses("203.0.113.7")),
            "and a command, found 0x22",
        ),
        (binary(0x21, 0x12, addresses("203.0.113.7")), "expected addresses of TCP in the PROXY protocol, found 0x12"),
        (binary(0x21, 0x41, addresses("203.0.113.7")), "expected addresses of TCP in the PROXY protocol, found 0x41"),
        (binary(0x21, 0x11, addresses("203.0.113.7")[:-1]), "expected 12 bytes of addresses, found 11"),
        (binary(0x21, 0x21, addresses("203.0.113.7")), "expected 36 bytes of addresses, found 12"),
        (binary(0x21, 0x31, b""), "expected 216 bytes of addresses, found 0"),
        (binary(0x21, 0x11, b"", MAX_PROXY_HEADER - 15), "header of the PROXY protocol is over 4096 bytes"),
        (binary(0x20, 0x00, b"", 65_535), "header of the PROXY protocol is over 4096 bytes"),
    ],
)
def test_anything_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ProxyHeader().read(data)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("data", [REST, b"proxy TCP4", b"PROXY " + b"a" * 200, binary(0x20, 0x00, b"", 65_535)])
def test_it_is_refused_as_soon_as_it_is_known(data: bytes) -> None:
    read = ProxyHeader()
    taken = 0

    def feed() -> None:
        nonlocal taken
        for taken in range(len(data)):
            read.read(data[taken : taken + 1])

    with pytest.raises(ValueError, match="PROXY protocol"):
        feed()
    assert taken < MAX_LINE
    assert not read.complete


@pytest.mark.parametrize("header", [header for header, _ in WHOLE])
def test_a_part_of_a_header_is_none_yet(header: bytes) -> None:
    for end in range(len(header)):
        read = ProxyHeader()
        assert not read.read(header[:end])
        assert 0 < read.wanted <= len(header) - end


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_whatever_comes_it_is_read_or_refused(data: bytes, begin: bytes) -> None:
    read = ProxyHeader()
    try:
        complete = read.read(begin + data)
    except ValueError:
        return
    assert complete == (read.wanted == 0)
    assert read.client is None or str(ip_address(read.client)) == read.client
