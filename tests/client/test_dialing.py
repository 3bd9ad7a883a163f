"""The way to the server: TCP, a Unix socket, and through real proxies."""

from __future__ import annotations

import socket
import ssl
import sys
import urllib.request
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_pyjo_ws import Close, HandshakeError, Server, Transaction, connect, open_websocket, serve
from trio_pyjo_ws._engine.tls import TlsTransport
from trio_pyjo_ws._engine.transport import SocketTransport, StreamTransport
from trio_pyjo_ws.client.dialing import proxy_of_environment, wrap_tls
from trio_pyjo_ws.handshake.tunnel import Proxy
from trio_pyjo_ws.handshake.url import Url

from ..proxies import ProxyServer
from .test_connecting import Peer, certified

if TYPE_CHECKING:
    from pathlib import Path

SCHEMES = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]
KINDS = dict.fromkeys(SCHEMES, "socks") | {"http": "http", "https": "http"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    started: Server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    return started


@pytest.fixture
async def secure_server(nursery: trio.Nursery, authority: trustme.CA) -> Server:
    context = certified(authority.issue_cert("example.test"))
    started: Server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", ssl_context=context))
    return started


class Names(trio.abc.HostnameResolver):
    """A resolver that knows example.test, as some address of localhost, and no other name."""

    asked: list[str]

    def __init__(self) -> None:
        self.asked = []

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        if name.removesuffix(".") not in ("example.test", "xn--fa-hia.test"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.7", port))]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
async def names() -> Names:
    names = Names()
    trio.socket.set_custom_hostname_resolver(names)
    return names


async def says_echo(ws: Transaction) -> bool:
    await ws.send("Hello!")
    return await ws.receive() == "Hello!"


# TCP and Unix sockets


async def test_it_connects_from_the_local_address_that_is_given(server: Server) -> None:
    async with open_websocket(f"ws://127.0.0.1:{server.port}/", local_address="127.0.0.9") as ws:
        assert ws.local_address == "127.0.0.9"
        assert await says_echo(ws)


async def test_a_local_address_that_is_not_there_is_an_oserror(nursery: trio.Nursery, server: Server) -> None:
    with pytest.raises(OSError, match="connect"):
        await connect(nursery, f"ws://127.0.0.1:{server.port}/", local_address="192.0.2.1")


@pytest.mark.parametrize("as_path", [False, True])
async def test_over_a_unix_socket(as_path: bool, nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    peers: list[Peer] = []

    async def serve_one(listener: trio.SocketListener) -> None:
        async with listener:
            peers.append(Peer(await listener.accept()))
            await peers[0].serve()

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        nursery.start_soon(serve_one, trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
        async with open_websocket("ws://localhost/chat", unix=path if as_path else str(path)) as ws:
            assert isinstance(ws.__connection__.transport, SocketTransport)
            assert ws.remote_address == str(path)
        assert ws.closed == Close(1000, "")
    assert peers[0].request.startswith(b"GET /chat HTTP/1.1\r\nHost: localhost\r\n")


async def test_a_unix_socket_that_is_not_there_is_an_oserror(nursery: trio.Nursery, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect(nursery, "ws://localhost/", unix=tmp_path / "socket")


# TLS


async def test_the_name_that_is_verified_may_be_another(secure_server: Server, trusting: ssl.SSLContext) -> None:
    url = f"wss://127.0.0.1:{secure_server.port}/"
    async with open_websocket(url, ssl_context=trusting, server_hostname="example.test") as ws:
        assert await says_echo(ws)


async def test_the_name_that_is_verified_is_sent_as_sni(
    nursery: trio.Nursery, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    seen: list[str | None] = []
    context = certified(authority.issue_cert("example.test"))
    context.sni_callback = lambda _, name, __: seen.append(name)
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", ssl_context=context))
    async with open_websocket(f"wss://localhost:{server.port}/", ssl_context=trusting, server_hostname="example.test"):
        pass
    assert seen == ["example.test"]


@pytest.mark.parametrize("given", ["url", "server_hostname"])
async def test_the_last_dot_of_a_name_is_for_the_resolver_alone(
    given: str, nursery: trio.Nursery, authority: trustme.CA, trusting: ssl.SSLContext, names: Names
) -> None:
    """RFC 6066, section 3."""
    seen: list[str | None] = []
    context = certified(authority.issue_cert("example.test"))
    context.sni_callback = lambda _, name, __: seen.append(name)
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.7", ssl_context=context))
    options: dict[str, Any] = {"server_hostname": "example.test."} if given == "server_hostname" else {}
    async with open_websocket(f"wss://example.test.:{server.port}/", ssl_context=trusting, **options) as ws:
        assert await says_echo(ws)
        assert ws.req.headers["Host"] == f"example.test.:{server.port}"
    assert seen == ["example.test"]
    assert names.asked == ["example.test."]


async def test_a_name_that_is_not_ascii_is_looked_up_and_verified_as_browsers_do(
    nursery: trio.Nursery, authority: trustme.CA, trusting: ssl.SSLContext, names: Names
) -> None:
    context = certified(authority.issue_cert("xn--fa-hia.test"))
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.7", ssl_context=context))
    async with open_websocket(f"wss://faß.test:{server.port}/", ssl_context=trusting) as ws:
        assert await says_echo(ws)
    assert names.asked == ["xn--fa-hia.test"]


@pytest.mark.parametrize("host", ["[fe80::1%25lo]", "[fe80::1%lo]"])
async def test_the_zone_of_an_address_goes_to_the_system_and_no_further(
    host: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ours, theirs = trio.testing.memory_stream_pair()
    peer = Peer(theirs)

    async def dial(host: str, *_: Any, **__: Any) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        asked.append(host)
        return ours

    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    nursery.start_soon(peer.accept)
    await connect(nursery, f"ws://{host}/")
    assert asked == ["fe80::1%lo"]
    assert b"\r\nHost: [fe80::1]\r\n" in peer.request


@pytest.mark.parametrize(
    ("host", "verified"),
    [("test", "test"), ("a.test.", "a.test"), ("fe80::1%lo", "fe80::1"), ("::1", "::1"), ("127.0.0.1", "127.0.0.1")],
)
def test_what_tls_verifies(host: str, verified: str) -> None:
    ours, _ = trio.testing.memory_stream_pair()
    assert wrap_tls(ours, ssl.create_default_context(), host).server_hostname == verified


# Proxies


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_through_a_proxy(
    scheme: str,
    secure: bool,
    nursery: trio.Nursery,
    server: Server,
    secure_server: Server,
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    proxy = ProxyServer((secure_server if secure else server).port or 0)
    context = certified(authority.issue_cert("127.0.0.1")) if scheme == "https" else None
    port = await proxy.start(nursery, KINDS[scheme], context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    options: Any = {"ssl_context": trusting} if secure else {}
    url = f"{'wss' if secure else 'ws'}://example.test:8080/chat?a=b"
    async with open_websocket(url, proxy=f"{scheme}://127.0.0.1:{port}", **options) as ws:
        assert await says_echo(ws)
        # What is behind the tunnel is a plain socket again, unless TLS to the proxy is around it.
        kind = StreamTransport if scheme == "https" else TlsTransport if secure else SocketTransport
        assert type(ws.__connection__.transport) is kind
        assert ws.req.headers["Host"] == "example.test:8080"
    assert ws.closed == Close(1000, "")
    looked_up_here = scheme in ("socks4", "socks5")
    assert proxy.asked == ["127.0.0.7:8080" if looked_up_here else "example.test:8080"]
    assert ("example.test" in names.asked) == looked_up_here


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5h"])
async def test_the_credentials_of_the_proxy_are_for_the_proxy(
    scheme: str, nursery: trio.Nursery, server: Server
) -> None:
    proxy = ProxyServer(server.port or 0, credentials=("ada", "p@ss"))
    port = await proxy.start(nursery, KINDS[scheme])
    async with open_websocket(
        f"ws://grace:secret@127.0.0.1:{server.port}/",
        proxy=f"{scheme}://ada:p%40ss@127.0.0.1:{port}",
        additional_headers={"Cookie": "a=b"},
    ) as ws:
        assert ws.req.headers["Authorization"] == "Basic Z3JhY2U6c2VjcmV0"
        assert "Proxy-Authorization" not in ws.req.headers
    if scheme == "http":
        assert b"\r\nProxy-Authorization: Basic YWRhOnBAc3M=\r\n" in proxy.requests[0]
        assert b"\r\nUser-Agent: trio_pyjo_ws\r\n" in proxy.requests[0]
        assert b"\r\nAuthorization:" not in proxy.requests[0]
        assert b"Cookie" not in proxy.requests[0]
    else:
        assert proxy.users == [("ada", "" if scheme == "socks4" else "p@ss")]
    assert b"secret" not in proxy.requests[0]


@pytest.mark.parametrize("scheme", ["http", "socks4a", "socks5", "socks5h"])
async def test_a_zone_has_no_meaning_to_a_proxy(scheme: str, nursery: trio.Nursery, server: Server) -> None:
    proxy = ProxyServer(server.port or 0)
    port = await proxy.start(nursery, KINDS[scheme])
    async with open_websocket("ws://[fe80::1%25lo]:81/", proxy=f"{scheme}://127.0.0.1:{port}") as ws:
        assert await says_echo(ws)
    assert [asked.replace("[", "").replace("]", "") for asked in proxy.asked] == ["fe80::1:81"]


@pytest.mark.parametrize("address", ["127.0.0.9", None])
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_the_way_to_the_proxy_begins_at_the_local_address(
    scheme: str, address: str | None, nursery: trio.Nursery, server: Server
) -> None:
    port = await ProxyServer(server.port or 0).start(nursery, KINDS[scheme])
    proxy = f"{scheme}://127.0.0.1:{port}"
    async with open_websocket("ws://example.test/", proxy=proxy, local_address=address) as ws:
        assert ws.local_address == (address or "127.0.0.1")


async def test_no_user_agent_is_none_for_the_proxy_either(nursery: trio.Nursery, server: Server) -> None:
    proxy = ProxyServer(server.port or 0)
    port = await proxy.start(nursery, "http")
    async with open_websocket("ws://[::1]/", proxy=f"http://127.0.0.1:{port}", user_agent=None):
        pass
    assert proxy.requests == [b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"]


@pytest.mark.parametrize(
    ("scheme", "answer", "status", "message"),
    [
        ("http", b"HTTP/1.1 407 Who are you?\r\n\r\n", 407, "expected status 200 of the proxy, found 407 Who are you?"),
        ("http", b"HTTP/1.1 302 Found\r\nLocation: ws://evil.test/\r\n\r\n", 302, "found 302 Found"),
        ("http", b"HTTP/1.1 200 OK\r\n\r\nHello", 200, "expected nothing behind the response of the proxy"),
        ("http", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", None, "malformed response of the proxy"),
        ("http", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 6, None, "found 103 after 5 such responses"),
        ("http", b"HTTP/1.1 200", None, "the proxy closed the connection before the tunnel was open"),
        ("socks5h", b"\x05\xff", None, "the proxy did not connect to example.test:80"),
        ("socks5h", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", None, "the proxy did not connect to example.test:80"),
        ("socks4a", b"\0\x5d" + bytes(6), None, "the proxy did not connect to example.test:80"),
        ("socks5h", b"\x05", None, "the proxy did not connect to example.test:80"),
    ],
)
async def test_a_proxy_that_refuses_is_a_handshake_error(
    scheme: str, answer: bytes, status: int | None, message: str, nursery: trio.Nursery
) -> None:
    port = await ProxyServer(0, answer=answer).start(nursery, KINDS[scheme])
    with pytest.raises(HandshakeError) as raised:
        await connect(nursery, "ws://example.test/", proxy=f"{scheme}://127.0.0.1:{port}")
    assert message in str(raised.value)
    assert (raised.value.response and raised.value.response.status) == status


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
async def test_a_server_that_the_socks_proxy_cannot_reach_is_an_oserror(scheme: str, nursery: trio.Nursery) -> None:
    port = await ProxyServer(0).start(nursery, KINDS[scheme])
    with pytest.raises(OSError, match=r"the proxy did not connect to example\.test:80"):
        await connect(nursery, "ws://example.test/", proxy=f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_is_not_there_is_an_oserror(scheme: str, nursery: trio.Nursery) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await connect(nursery, "ws://test/", proxy=f"{scheme}://127.0.0.1:{nobody.getsockname()[1]}")


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_resets_the_connection(scheme: str, nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def reset() -> None:
        stream = await listeners[0].accept()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await stream.receive_some(1)
        await stream.aclose()

    async with listeners[0]:
        nursery.start_soon(reset)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises((HandshakeError, OSError), match="the proxy"):
            await connect(nursery, "ws://example.test/", proxy=f"{scheme}://127.0.0.1:{port}")


SOCKS5 = [b"\x05\x00", b"\x05\x00\x00\x03\x04name\x00\x50"]
"""What a SOCKS proxy says of which the way is open: it wants no credentials, and has connected from a name."""

LIES = [(said, at, lie) for said in (0, 1) for at in range(len(SOCKS5[said])) for lie in (None, 0, 3, 0x5B, 0xFF)]
"""What it does not say as it should, at which byte, and the byte that it says instead; None: it ends there."""


async def test_whatever_a_socks_proxy_says_it_is_an_error_of_the_handshake_or_of_the_way(nursery: trio.Nursery) -> None:
    answers: list[list[bytes]] = []

    async def lie(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            for answer in answers[0]:
                await stream.receive_some()
                await stream.send_all(answer)

    [listener] = await nursery.start(partial(trio.serve_tcp, lie, 0, host="127.0.0.1"))
    proxy = f"socks5h://127.0.0.1:{listener.socket.getsockname()[1]}"
    for said, at, byte in LIES:
        answer = bytearray(SOCKS5[said])
        answer[at:] = b"" if byte is None else bytes([byte]) + answer[at + 1 :]
        answers[:] = [[*SOCKS5[:said], bytes(answer), *(SOCKS5[said + 1 :] if byte is not None else ())]]
        with pytest.raises((HandshakeError, OSError)):
            await connect(nursery, "ws://example.test/", proxy=proxy)


async def test_the_certificate_of_the_proxy_is_verified(
    nursery: trio.Nursery, server: Server, authority: trustme.CA
) -> None:
    context = certified(authority.issue_cert("127.0.0.1"))
    proxy = ProxyServer(server.port or 0)
    port = await proxy.start(nursery, "http", context)
    with pytest.raises(HandshakeError, match="CERTIFICATE_VERIFY_FAILED"):
        await connect(nursery, "ws://example.test/", proxy=f"https://ada:secret@127.0.0.1:{port}")
    assert proxy.asked == []


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_silent_proxy_is_too_slow(
    scheme: str, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0]:
        url = f"{scheme}://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with pytest.raises(trio.TooSlowError):
            await connect(nursery, "ws://example.test/", proxy=url, open_timeout=7)
    assert trio.current_time() == 7


async def test_without_python_socks_the_error_names_the_extra(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.delitem(sys.modules, "trio_pyjo_ws.adapters.socks", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'trio-pyjo-ws\[proxy\]'"):
        await connect(nursery, "ws://example.test/", proxy="socks5h://127.0.0.1:1")


# The environment


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "ws://test/", None),
        ({"http_proxy": "http://p:1"}, "ws://test/", Proxy("http", "p", 1)),
        ({"HTTPS_PROXY": "http://p:1"}, "wss://test/", Proxy("http", "p", 1)),
        ({"http_proxy": "http://p:1"}, "wss://test/", None),
        ({"http_proxy": "http://p:1", "https_proxy": "http://q:1"}, "ws://test/", Proxy("http", "q", 1)),
        ({"https_proxy": "http://p:1", "socks_proxy": "socks5h://q"}, "wss://test/", Proxy("socks5h", "q", 1080)),
        ({"socks_proxy": "http://q:1"}, "wss://test/", Proxy("socks5h", "q", 1)),
        ({"socks_proxy": "http://q:1", "ws_proxy": "http://p"}, "ws://test/", Proxy("http", "p", 80)),
        ({"socks_proxy": "http://q:1", "wss_proxy": "https://p"}, "wss://test/", Proxy("https", "p", 443)),
        ({"all_proxy": "http://ada:b@p:1"}, "ws://test/", Proxy("http", "p", 1, "ada:b")),
        ({"all_proxy": "http://p:1", "no_proxy": "test"}, "ws://test/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "test:81"}, "ws://test/", Proxy("http", "p", 1)),
        ({"all_proxy": "http://p:1", "no_proxy": "test:81"}, "ws://test:81/", None),
        ({"all_proxy": "http://p:1", "no_proxy": ".example"}, "ws://a.example/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "*"}, "ws://test/", None),
        ({"http_proxy": ""}, "ws://test/", None),
        # As curl takes them.
        ({"http_proxy": "p:1"}, "ws://test/", Proxy("http", "p", 1)),
        ({"http_proxy": "ada:b@p"}, "ws://test/", Proxy("http", "p", 80, "ada:b")),
        ({"socks_proxy": "p:1"}, "ws://test/", Proxy("socks5h", "p", 1)),
        # As GNOME writes it.
        ({"all_proxy": "socks://p:1/"}, "ws://test/", Proxy("socks5h", "p", 1)),
        ({"http_proxy": "http://p", "HTTP_PROXY": "http://q"}, "ws://test/", Proxy("http", "p", 80)),
    ],
)
def test_the_environment_names_the_proxy(
    environment: dict[str, str], url: str, proxy: Proxy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of_environment(Url.parse(url)) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "bypassed"),
    [
        ("", "ws://test/", False),
        ("*", "ws://test/", True),
        ("other,*", "ws://test/", True),
        ("*:81", "ws://test:81/", True),
        ("*:81", "ws://test/", False),
        # A name stands for itself and for what is below it.
        ("test", "ws://test/", True),
        ("TEST", "ws://Test/", True),
        ("test", "ws://a.b.test/", True),
        (".test", "ws://test/", True),
        (".test", "ws://a.test/", True),
        ("test.", "ws://test/", True),
        ("test", "ws://test./", True),
        ("test", "ws://latest/", False),
        ("a.test", "ws://test/", False),
        ("a,test", "ws://test/", True),
        (" a , test ", "ws://test/", True),
        ("a test", "ws://test/", True),
        (".", "ws://test/", False),
        (",,", "ws://test/", False),
        # A port may follow.
        ("test:80", "ws://test/", True),
        ("test:80", "wss://test/", False),
        ("test:443", "wss://a.test/", True),
        ("[::1]:9", "ws://[::1]:9/", True),
        ("[::1]:9", "ws://[::1]/", False),
        ("127.0.0.1:9", "ws://127.0.0.1:9/", True),
        # Addresses and networks.
        ("[::1]", "ws://[::1]/", True),
        ("::1", "ws://[::1]/", True),
        ("0:0:0:0:0:0:0:1", "ws://[::1]/", True),
        ("fe80::1", "ws://[fe80::1%25eth0]/", True),
        ("127.0.0.1", "ws://127.0.0.1/", True),
        ("127.0.0.1", "ws://127.0.0.11/", False),
        ("0.0.1", "ws://127.0.0.1/", False),
        ("127.0.0.0/8", "ws://127.9.9.9/", True),
        ("127.0.0.1/8", "ws://127.9.9.9/", True),
        ("127.0.0.0/8", "ws://128.0.0.1/", False),
        ("127.0.0.0/33", "ws://127.0.0.1/", False),
        ("2001:db8::/32", "ws://[2001:db8::1]/", True),
        ("2001:db8::/32", "ws://[2001:db9::1]/", False),
        ("10.0.0.0/8", "ws://[::1]/", False),
        ("127.0.0.0/8", "ws://localhost/", False),
    ],
)
def test_no_proxy_is_read_as_curl_reads_it(
    no_proxy: str, url: str, bypassed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://p")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (proxy_of_environment(Url.parse(url)) is None) == bypassed


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "Http_Proxy", "all_proxy", "ws_proxy"])
def test_a_value_that_cannot_be_understood_names_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://ada:secret@p:port")
    with pytest.raises(ValueError, match=rf"^{name}: proxy: invalid port 'port' in URL \(expected 1 to 65535\)$"):
        proxy_of_environment(Url.parse("ws://test/"))


def test_of_two_variables_the_one_that_counts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://p")
    monkeypatch.setenv("http_proxy", "gopher://p")
    monkeypatch.setenv("Http_Proxy", "http://p")
    with pytest.raises(ValueError, match=r"^http_proxy: "):
        proxy_of_environment(Url.parse("ws://test/"))


@pytest.mark.parametrize("bypassed", [False, True])
def test_without_one_in_the_environment_the_system_is_asked(bypassed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and macOS have settings, and exceptions of their own form."""
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"socks": "http://p:1", "http": "nonsense://"})
    monkeypatch.setattr(urllib.request, "proxy_bypass", lambda host: bypassed and host == "test:81")
    proxy = proxy_of_environment(Url.parse("ws://test:81/"))
    assert proxy == (None if bypassed else Proxy("socks5h", "p", 1))
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"http": "nonsense://"})
    if not bypassed:
        with pytest.raises(ValueError, match=r"^system settings: proxy: unsupported URL scheme 'nonsense'"):
            proxy_of_environment(Url.parse("ws://test:81/"))


async def test_the_proxy_of_the_environment_is_used_unless_it_is_turned_off(
    nursery: trio.Nursery, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = ProxyServer(server.port or 0)
    port = await proxy.start(nursery, "http")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    async with open_websocket("ws://example.test/") as ws:
        assert ws.remote_port == port
    async with open_websocket(f"ws://127.0.0.1:{server.port}/", proxy=None) as ws:
        assert ws.remote_port == server.port
    assert proxy.asked == ["example.test:80"]


async def test_a_proxy_of_the_environment_that_is_no_url_is_a_value_error(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "gopher://p")
    with pytest.raises(ValueError, match=r"^http_proxy: proxy: unsupported URL scheme 'gopher'"):
        await connect(nursery, "ws://example.test/")
