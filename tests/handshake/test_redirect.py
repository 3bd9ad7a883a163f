"""Where a redirect leads."""

from __future__ import annotations

import pytest

from trio_pyjo_ws import HandshakeError, Response
from trio_pyjo_ws.handshake.redirect import redirected
from trio_pyjo_ws.handshake.url import Url


def redirect(url: str, location: str) -> Url | None:
    return redirected(Url.parse(url), Response(302, {"Location": location}))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_five_statuses_redirect(status: int) -> None:
    assert redirected(Url.parse("ws://a/"), Response(status, {"Location": "/b"})) == Url.parse("ws://a/b")


@pytest.mark.parametrize("status", [101, 200, 300, 304, 305, 306, 399, 403])
def test_others_do_not(status: int) -> None:
    assert redirected(Url.parse("ws://a/"), Response(status, {"Location": "/b"})) is None


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("ws://a/b/c?d", "e", "ws://a/b/e"),
        ("ws://a/b/c?d", "../e?f", "ws://a/e?f"),
        ("ws://a/b/c?d", "?e", "ws://a/b/c?e"),
        ("ws://a:8080/b", "/c", "ws://a:8080/c"),
        ("ws://[::1]:81/b", "/c", "ws://[::1]:81/c"),
        ("wss://a/b", "//c/d", "wss://c/d"),
        ("ws://a/b", "ws://c:81/d", "ws://c:81/d"),
        ("ws://a/b", "wss://a/b", "wss://a/b"),
        ("ws://a/b", "http://c/d", "ws://c/d"),
        ("ws://a/b", "https://c/d", "wss://c/d"),
        ("wss://a/b", "HTTPS://c/d", "wss://c/d"),
        ("ws://a/b", "/c#fragment", "ws://a/c"),
        ("ws://a/b", "/c d", "ws://a/c%20d"),
        ("ws://a/b", "/c%20d", "ws://a/c%20d"),
        ("ws://a/b", "/gr\xc3\xbc\xc3\x9fe", "ws://a/gr%C3%BC%C3%9Fe"),
        ("ws://a/b", "", "ws://a/b"),
        ("ws://a./b", "/c", "ws://a./c"),
        ("ws://[fe80::1%eth0]:81/b", "/c", "ws://[fe80::1%25eth0]:81/c"),
        ("ws://a/b", "//[fe80::1%25eth0]/c", "ws://[fe80::1%eth0]/c"),
    ],
)
def test_a_location_is_resolved(url: str, location: str, target: str) -> None:
    assert redirect(url, location) == Url.parse(target)


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("/b", "ada:secret"),
        ("ws://a:80/b", "ada:secret"),
        ("http://A/b", "ada:secret"),
        ("ws://grace:other@a/", "grace:other"),
        ("ws://b/", None),
        ("ws://a:81/", None),
        ("wss://a/", None),
        ("ws://a.b/", None),
        ("ws://a./", None),
    ],
)
def test_the_user_information_stays_with_its_origin(location: str, kept: str | None) -> None:
    target = redirect("ws://ada:secret@a/", location)
    assert target is not None
    assert target.user_information == kept


@pytest.mark.parametrize("location", ["ws://a/", "http://a/", "ws://a:443/", "HTTP://b/"])
def test_wss_never_becomes_ws(location: str) -> None:
    with pytest.raises(HandshakeError, match=r"expected wss:// in Location, .*, found ws://") as raised:
        redirect("wss://a/", location)
    assert raised.value.response is not None


@pytest.mark.parametrize(
    "location",
    [
        *["ftp://a/", "mailto:a@b", "ws://a b/", "ws://a:0/", "//[/", "javascript:1"],
        # Hosts that no resolver takes.
        *["http://.example/", "//a..b/", f"wss://{'a' * 64}.example/", "ws://./", f"ws://{'a.' * 127}a/", "ws://\xe9/"],
    ],
)
def test_a_location_that_is_none_is_named(location: str) -> None:
    with pytest.raises(HandshakeError, match="expected a WebSocket's URL in Location, found '") as raised:
        redirect("ws://a/", location)
    assert raised.value.response is not None


@pytest.mark.parametrize("headers", [[], [("Location", "/b"), ("Location", "/c")]])
def test_there_is_one_location(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(HandshakeError, match=f"expected one Location in a redirect, found {len(headers)}"):
        redirected(Url.parse("ws://a/"), Response(302, headers))
