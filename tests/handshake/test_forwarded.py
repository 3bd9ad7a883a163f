"""The address of the client behind a reverse proxy: what is believed, and what is not looked at."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_pyjo_ws.handshake.forwarded import Forwarding
from trio_pyjo_ws.handshake.messages import build_headers

PROXIES = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]


def client(*values: str, header: str = "X-Forwarded-For", proxies: Any = PROXIES) -> str | None:
    return Forwarding.of(proxies, header).client(build_headers([(header, value) for value in values]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([""], None),
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),  # The first is what the client says.
        (["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        (["203.0.113.7,\t192.0.2.1 , 2001:db8::5"], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:DB8:1::7]:4711, 10.0.0.1"], "2001:db8:1::7"),
        (["2001:dead::7"], "2001:dead::7"),
        (["::ffff:203.0.113.7, ::ffff:10.0.0.1"], "203.0.113.7"),
        (["unknown, 10.1.2.3"], "10.1.2.3"),
        (["203.0.113.7, nonsense"], None),
        (["203.0.113.7, "], None),
        (["203.0.113.7, [::1"], None),
        (["fe80::1%\x1b[31m, 10.1.2.3"], "10.1.2.3"),  # A zone means something on another machine only.
    ],
)
def test_x_forwarded_for(values: list[str], expected: str | None) -> None:
    assert client(*values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (["for=203.0.113.7"], "203.0.113.7"),
        (["For=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
        (["proto=https; FOR=203.0.113.7"], "203.0.113.7"),
        (['for="[2001:dead::7]:4711"'], "2001:dead::7"),
        (['for="203.0.113.7:_port", for=10.0.0.1'], "203.0.113.7"),
        (["for=198.51.100.1, for=203.0.113.7", "for=10.0.0.1;by=10.0.0.2"], "203.0.113.7"),
        (['by="a,for=198.51.100.1";for=203.0.113.7'], "203.0.113.7"),
        (["for=_hidden, for=10.0.0.1"], "10.0.0.1"),
        (["for=unknown"], None),
        (["by=10.0.0.1"], None),
        (["for=203.0.113.7, proto=http"], None),
        (['for="203.0.113.7'], None),
        (['for=198.51.100.1;x=", for=203.0.113.7'], None),  # A quote of the client's that hides what is behind it.
        (['for=198.51.100.1, x=", for="[2001:dead::7]"'], None),
        (["for=203.0.113.7;", "for=10.0.0.1,for=10.0.0.2"], "203.0.113.7"),
        (["xfor=203.0.113.7"], None),
    ],
)
def test_forwarded(values: list[str], expected: str | None) -> None:
    assert client(*values, header="Forwarded") == expected


def test_only_the_header_that_the_proxy_writes_is_read() -> None:
    headers = build_headers({"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=198.51.100.1"})
    assert Forwarding.of(PROXIES).client(headers) == "203.0.113.7"
    assert Forwarding.of(PROXIES, "Forwarded").client(headers) == "198.51.100.1"


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("2001:db8::5", True),
        ("::ffff:10.1.2.3", True),
        ("/run/socket", False),
        (None, False),
    ],
)
def test_who_is_trusted(address: str | None, trusted: bool) -> None:
    assert Forwarding.of(PROXIES).trusts(address) is trusted


def test_who_comes_through_a_unix_socket_is_trusted_where_that_is_said() -> None:
    forwarding = Forwarding.of(["unix:"])
    assert forwarding.trusts("/run/socket")
    assert forwarding.trusts(None)
    assert not forwarding.trusts("10.1.2.3")
    assert forwarding.client(build_headers({"X-Forwarded-For": "198.51.100.1, 10.1.2.3"})) == "10.1.2.3"


def test_addresses_and_networks_may_be_objects() -> None:
    forwarding = Forwarding.of([ip_address("192.0.2.1"), ip_network("10.0.0.0/8")])
    assert forwarding.trusts("192.0.2.1")
    assert forwarding.trusts("10.1.2.3")


@pytest.mark.parametrize(
    ("proxies", "header", "raised", "message"),
    [
        (
            "10.0.0.1",
            "Forwarded",
            TypeError,
            "trusted_proxies must be a sequence of addresses and networks, not '10.0.0.1'",
        ),
        (None, "Forwarded", TypeError, "must be a sequence of addresses and networks, not None"),
        (
            ["proxy.test"],
            "Forwarded",
            ValueError,
            "must be an IP address, a network or 'unix:', not 'proxy.test'",
        ),
        (["10.0.0.1/8"], "Forwarded", ValueError, "not '10.0.0.1/8'"),  # An address with host bits is no network.
        ([], "X-Real-IP", ValueError, "proxy_header must be one of X-Forwarded-For, Forwarded, PROXY, not 'X-Real-IP'"),
    ],
)
def test_what_does_not_fit(proxies: Any, header: str, raised: type[Exception], message: str) -> None:
    with pytest.raises(raised) as caught:
        Forwarding.of(proxies, header)
    assert message in str(caught.value)


VALUES = st.text(
    st.sampled_from('10.:,;="\\[]fFor _unkw\t') | st.characters(max_codepoint=255, exclude_characters="\0\n\r\v\f")
)


@given(st.lists(VALUES, max_size=3), st.sampled_from(["X-Forwarded-For", "Forwarded"]))
def test_any_value_gives_an_address_or_none(values: list[str], header: str) -> None:
    found = client(*values, header=header)
    assert found is None or str(ip_address(found)) == found
