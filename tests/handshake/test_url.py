"""URLs of WebSockets, taken apart."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from trio_pyjo_ws.handshake.http1 import ClientHandshake
from trio_pyjo_ws.handshake.url import MAX_HOST, Url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://example.org", (False, "example.org", 80, "/", "example.org")),
        ("wss://example.org/", (True, "example.org", 443, "/", "example.org")),
        ("WSS://Example.ORG:8443/Chat?A=b", (True, "example.org", 8443, "/Chat?A=b", "example.org:8443")),
        ("ws://example.org:80/", (False, "example.org", 80, "/", "example.org")),
        ("ws://example.org:443/", (False, "example.org", 443, "/", "example.org:443")),
        ("wss://example.org:0443/", (True, "example.org", 443, "/", "example.org")),
        ("ws://example.org:/", (False, "example.org", 80, "/", "example.org")),
        ("ws://example.org?a=b", (False, "example.org", 80, "/?a=b", "example.org")),
        ("ws://127.0.0.1:8080", (False, "127.0.0.1", 8080, "/", "127.0.0.1:8080")),
        ("ws://[::1]:8080/", (False, "::1", 8080, "/", "[::1]:8080")),
        ("ws://[2001:DB8::1]/", (False, "2001:db8::1", 80, "/", "[2001:db8::1]")),
        ("ws://bücher.example/", (False, "xn--bcher-kva.example", 80, "/", "xn--bcher-kva.example")),
        ("ws://x/ä?ö=%20", (False, "x", 80, "/%C3%A4?%C3%B6=%20", "x")),
        ("ws://x/a//b@c:d?e=/?", (False, "x", 80, "/a//b@c:d?e=/?", "x")),
        ("ws://under_score.example/", (False, "under_score.example", 80, "/", "under_score.example")),
    ],
)
def test_url_is_taken_apart(url: str, expected: tuple[bool, str, int, str, str]) -> None:
    assert Url.parse(url) == (*expected, None)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("wsss://x/", "unsupported URL scheme 'wsss' \\(expected 'ws' or 'wss'\\)"),
        ("http://x/", "unsupported URL scheme 'http' \\(expected 'ws' or 'wss'\\)"),
        ("://x/", "scheme ''"),
        ("x/", "malformed"),
        ("", "malformed"),
        ("ws:/x", "malformed"),
        ("ws://a:b:c/", "port 'b:c'"),
        ("ws://[::1]x/", "malformed"),
        ("ws://[::1/", "malformed"),
        ("ws:///x", "host ''"),
        ("ws://:80/", "host ''"),
        ("ws://user@/", "host ''"),
        ("ws://a%41/", "host 'a%41'"),
        ("ws://a\\b/", "host"),
        ("ws://[::1::]/", "host '\\[::1::\\]'"),
        (f"ws://{'ä' * 99}/", "host"),
        ("ws://x/#", "fragment"),
        ("ws://x/#a", "fragment"),
        ("ws://x:0/", "invalid port '0' in URL \\(expected 1 to 65535\\)"),
        ("ws://x:65536/", "port '65536'"),
        ("ws://x:http/", "port 'http'"),
        ("ws://x:-1/", "port '-1'"),
        ("ws://x:1_0/", "port '1_0'"),
        ("ws://x:\u0661/", "port"),
        ("ws://x:9999999999/", "port '9999999999'"),
        *(
            (f"ws://x/a{character}b", "expected no spaces or control characters")
            for character in "\r\n\x00 \t\x1f\x7f\x85\xa0"
        ),
        ("ws://x\r\n/", "at position 6"),
        ("ws://x/\ud800", "surrogates"),
    ],
)
def test_url_that_cannot_be_opened_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Url.parse(url)
    with pytest.raises(ValueError, match=message):
        ClientHandshake(url)


def test_password_in_a_url_is_never_shown() -> None:
    url = Url.parse("ws://me:secret@example.org/")
    assert url.user_information == "me:secret"
    assert repr(url) == (
        "Url(secure=False, host='example.org', port=80, target='/', authority='example.org', user_information='...')"
    )
    assert repr(Url.parse("ws://x/")).endswith("user_information=None)")
    for wrong in ("ws://me:secret@x:0/", "ws://me:secret@/", "ws://me:secret@x/\n", "ws://me:secret@a:b:c/"):
        with pytest.raises(ValueError, match="URL") as caught:
            Url.parse(wrong)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (b"ws://x/", "bytes (write url.decode())"),
        (PurePosixPath("/run/chat"), "PurePosixPath (the path of a Unix socket goes as unix=)"),
        (None, "NoneType"),
        (1, "int"),
    ],
)
def test_a_url_is_a_str(url: Any, found: str) -> None:
    with pytest.raises(TypeError) as caught:
        Url.parse(url)
    assert str(caught.value) == f"URL must be a str, not {found}"
    with pytest.raises(TypeError, match="URL must be a str"):
        ClientHandshake(url)


def test_a_token_in_the_query_is_not_shown() -> None:
    url = Url.parse("ws://x/chat?token=secret")
    assert url.target == "/chat?token=secret"
    assert "target='/chat?...'" in repr(url)


# Host names


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        # IDNA 2008 by the mapping of UTS 46, as browsers have it: ß is not ss.
        ("faß.test", "xn--fa-hia.test"),
        ("FASS.test", "fass.test"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("\uff41\u3002é.test", "a.xn--9ca.test"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("xn--fa-hia.test", "xn--fa-hia.test"),
        # What DNS has room for.
        ("a" * 63, "a" * 63),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}", f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"),
        ("_dmarc.example", "_dmarc.example"),
        # The root's dot is the resolver's.
        ("example.test.", "example.test."),
        ("bücher.example.", "xn--bcher-kva.example."),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}.", f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}."),
    ],
)
def test_a_host_name_is_looked_up_in_ascii(host: str, expected: str) -> None:
    url = Url.parse(f"ws://{host}/")
    assert (url.host, url.authority) == (expected, expected)


@pytest.mark.parametrize(
    "host",
    [
        *(".", "..", ".test", "a..test", "test..", ".é", "a..é", "é.."),
        "a" * 64,
        f"{'a' * 64}.test",
        f"{'é' * 60}.test",
        "a." * (MAX_HOST // 2) + "aa",
        "é" * (MAX_HOST + 1),
        *("a\u200cb.é", "\u0301a.test", "☕.test", "a b", "\u202ea.test", "é_.test", "\ud800"),
    ],
)
def test_a_host_that_cannot_be_looked_up_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid (host|URL)"):
        Url.parse(f"ws://{host}/")


# Addresses with a zone


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://[fe80::1%25eth0]/", "fe80::1%eth0"),  # RFC 6874
        ("ws://[fe80::1%eth0]/", "fe80::1%eth0"),  # as curl takes it, and people write it
        ("ws://[FE80::1%25Eth0.1]/", "fe80::1%Eth0.1"),
        ("ws://[fe80::1%2]/", "fe80::1%2"),
        ("ws://[fe80::1%25]/", "fe80::1%25"),
        ("ws://[fe80::1%2525]/", "fe80::1%25"),
        ("ws://[fe80::1%252]/", "fe80::1%2"),
    ],
)
def test_a_zone_is_for_this_machine_only(url: str, host: str) -> None:
    parsed = Url.parse(url)
    assert (parsed.host, parsed.authority) == (host, "[fe80::1]")
    assert Url.parse(f"{parsed.origin}/") == parsed


@pytest.mark.parametrize(
    "host", ["[fe80::1%]", "[fe80::1%a/b]", "[%eth0]", "[fe80::1%a%b]", "[fe80::1%é]", "[fe80::1%a:]"]
)
def test_a_zone_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"invalid host|malformed URL"):
        Url.parse(f"ws://{host}/")


def test_urls_of_one_origin() -> None:
    same = ["ws://a", "ws://A:80/b?c", "ws://u:p@a:080/"]
    others = ["wss://a", "ws://a:81", "ws://a.", "ws://[::1]", "ws://[::1%eth0]", "ws://[::1%eth1]", "wss://a:80"]
    assert {Url.parse(url).origin for url in same} == {"ws://a"}
    assert len({Url.parse(url).origin for url in [*others, same[0]]}) == len(others) + 1
