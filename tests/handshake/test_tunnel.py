"""A proxy's URL, and HTTP CONNECT in bytes."""

from __future__ import annotations

import pytest

from trio_pyjo_ws import HandshakeError
from trio_pyjo_ws.handshake.tunnel import Proxy, Tunnel
from trio_pyjo_ws.handshake.url import Url


def tunnel(proxy: str = "http://proxy.test", url: str = "ws://test") -> Tunnel:
    return Tunnel(Proxy.parse(proxy), Url.parse(url), max_header_bytes=1000)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://p", Proxy("http", "p", 80)),
        ("HTTPS://P.Test/", Proxy("https", "p.test", 443)),
        ("socks4://p", Proxy("socks4", "p", 1080)),
        ("socks4a://p:1", Proxy("socks4a", "p", 1)),
        ("socks5://user:pass@[::1]", Proxy("socks5", "::1", 1080, "user:pass")),
        ("socks5h://p", Proxy("socks5h", "p", 1080)),
        # As curl takes them, and as GNOME writes them.
        ("p", Proxy("http", "p", 80)),
        ("p:8080", Proxy("http", "p", 8080)),
        ("u:pass@[::1]:8080/", Proxy("http", "::1", 8080, "u:pass")),
        ("socks://p:1/", Proxy("socks5h", "p", 1)),
        ("SOCKS://p", Proxy("socks5h", "p", 1080)),
    ],
)
def test_a_url_of_a_proxy_is_taken_apart(url: str, proxy: Proxy) -> None:
    assert Proxy.parse(url) == proxy


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ws://p", "proxy: unsupported URL scheme 'ws' .expected 'http', 'https', 'socks4', 'socks4a', 'socks5' or 's"),
        ("http://p:x:y/@", "proxy: invalid port ..."),
        ("http://[::1", "proxy: malformed URL .expected http://host:port/path or https://"),
        ("http://", "proxy: invalid host '' in URL"),
        ("http://p:0", "proxy: invalid port '0' in URL"),
        ("http://p/path", "proxy: URL must not have a path, found '/path'"),
        ("http://p?query", r"proxy: URL must not have a path, found '\?\.\.\.'"),
        ("http://p\r\n", "proxy: invalid URL: "),
    ],
)
def test_what_is_none_is_named(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Proxy.parse(url)


def test_its_representation_hides_the_password() -> None:
    assert repr(Proxy.parse("http://u:secret@p")) == "Proxy('http', 'p', 80, user_information='...')"
    assert repr(Proxy.parse("http://p")) == "Proxy('http', 'p', 80, user_information=None)"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://a", b"a:80"),
        ("wss://a", b"a:443"),
        ("wss://a:8/b?c", b"a:8"),
        ("ws://u:secret@[::1]/", b"[::1]:80"),
        ("ws://[fe80::1%eth0]/", b"[fe80::1]:80"),
        ("wss://a.", b"a.:443"),
    ],
)
def test_the_request_names_host_and_port_and_nothing_else(url: str, target: bytes) -> None:
    exchange = tunnel(url=url)
    assert exchange.write() == (
        b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\nUser-Agent: trio_pyjo_ws\r\n\r\n"
    )
    assert exchange.write() == b""


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"299 Fine"])
@pytest.mark.parametrize("headers", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_any_2xx_opens_it_and_has_no_body(status: bytes, headers: bytes) -> None:
    exchange = tunnel()
    response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 " + status + b"\r\n" + headers + b"\r\n"
    assert [exchange.read(bytes([byte])) for byte in response] == [False] * (len(response) - 1) + [True]


def test_a_proxy_that_speaks_no_http_is_told_at_once_by_its_first_line() -> None:
    with pytest.raises(HandshakeError) as raised:
        tunnel().read(b"SSH-2.0-OpenSSH_9.6\r\n")
    expected = "malformed response of the proxy: expected an HTTP status line, found 'SSH-2.0-OpenSSH_9.6'"
    assert str(raised.value) == expected


def test_an_endless_response_is_capped() -> None:
    exchange = tunnel()
    with pytest.raises(HandshakeError, match="over 1000 bytes"):
        exchange.read(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200)
