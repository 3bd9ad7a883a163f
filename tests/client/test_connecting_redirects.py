"""The client follows redirects, and what may not come along stays behind."""

from __future__ import annotations

import ssl
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_pyjo_ws import HandshakeError, Response, Transaction, connect, open_websocket, serve
from trio_pyjo_ws.client import connecting as client

from .test_connecting import Peer, is_closed

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_pyjo_ws.handshake.url import Url
    from trio_pyjo_ws.options import ClientSettings

STATUSES = [301, 302, 303, 307, 308]


class Servers:
    """Answers each connection of a client's with a redirect to the next of ``locations``, and accepts the last."""

    def __init__(self, nursery: trio.Nursery, status: int = 302) -> None:
        self.nursery = nursery
        self.status = status
        self.locations: deque[str] = deque()
        self.urls: list[Url] = []
        self.settings: list[ClientSettings] = []
        self.streams: list[trio.abc.Stream] = []
        self.peers: list[Peer] = []

    async def dial(self, url: Url, settings: ClientSettings) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.urls.append(url)
        self.settings.append(settings)
        ours, theirs = trio.testing.memory_stream_pair()
        self.streams.append(ours)
        peer = Peer(theirs)
        self.peers.append(peer)
        if self.locations:
            response = f"HTTP/1.1 {self.status} Elsewhere\r\nLocation: {self.locations.popleft()}\r\n"
            self.nursery.start_soon(peer.answer, response.encode() + b"Content-Length: 5\r\n\r\nthere")
        else:
            self.nursery.start_soon(peer.accept)
        return ours

    async def headers(self) -> list[dict[str, str]]:
        return [await peer.read_request() for peer in self.peers]


@pytest.fixture
def servers(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers(nursery)
    monkeypatch.setattr(client, "dial", servers.dial)
    # The memory streams have no TLS; what it verifies is in test_dialing.
    monkeypatch.setattr(client, "wrap_tls", lambda stream, *_: stream)
    return servers


@pytest.mark.parametrize("status", STATUSES)
async def test_a_redirect_is_followed(status: int, servers: Servers, nursery: trio.Nursery) -> None:
    servers.status = status
    servers.locations += ["ws://b/c?d"]
    ws = await connect(nursery, "ws://a/")
    assert ws.req.target == "/c?d"
    assert ws.req.headers["Host"] == "b"
    assert [url.origin for url in servers.urls] == ["ws://a", "ws://b"]
    assert await is_closed(servers.streams[0])
    assert servers.peers[1].request.startswith(b"GET /c?d HTTP/1.1\r\nHost: b\r\n")


async def test_each_request_has_a_key_of_its_own_and_offers_the_same(servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["ws://b/", "ws://c/"]
    await connect(nursery, "ws://a/", subprotocols=["v1"], origin="https://o.test", user_agent="me")
    headers = await servers.headers()
    assert len({header["sec-websocket-key"] for header in headers}) == 3
    offered = ("sec-websocket-protocol", "origin", "user-agent")
    assert [tuple(header[name] for name in offered) for header in headers] == [("v1", "https://o.test", "me")] * 3


async def test_a_relative_location_leads_on_from_the_last_url(servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["ws://b/c/d", "e", "../f"]
    ws = await connect(nursery, "ws://a/")
    assert ws.req.target == "/f"
    assert servers.urls[-1].host == "b"


SECRETS = {"Authorization": "Bearer secret", "Cookie": "a=secret", "X-Api-Key": "secret"}


@pytest.mark.parametrize("location", ["/b", "ws://a/b", "http://a:80/b"])
async def test_credentials_come_along_to_the_same_origin(
    location: str, servers: Servers, nursery: trio.Nursery
) -> None:
    servers.locations += [location]
    await connect(nursery, "ws://a/", additional_headers=SECRETS)
    headers = await servers.headers()
    assert len(headers) == 2
    for header in headers:
        assert header["authorization"] == "Bearer secret"
        assert header["cookie"] == "a=secret"
        assert header["x-api-key"] == "secret"


@pytest.mark.parametrize("location", ["ws://b/", "ws://a:81/", "wss://a/", "//a.b/"])
@pytest.mark.parametrize("url", ["ws://a/", "ws://ada:secret@a/"])
async def test_no_credentials_come_along_to_another_origin(
    location: str, url: str, servers: Servers, nursery: trio.Nursery
) -> None:
    servers.locations += [location]
    headers = dict(SECRETS)
    if "@" in url:
        del headers["Authorization"]
    ws = await connect(nursery, url, additional_headers=headers)
    assert ws.established
    assert b"secret" in servers.peers[0].request
    assert b"secret" not in servers.peers[1].request
    assert b"YWRh" not in servers.peers[1].request  # ada, in base64


async def test_credentials_that_stayed_behind_do_not_come_back(servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["ws://b/", "ws://a/"]
    await connect(nursery, "ws://a/", additional_headers=SECRETS)
    assert b"secret" not in servers.peers[2].request


async def test_the_name_to_verify_is_that_of_the_first_origin_alone(servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["/b", "wss://c/"]
    await connect(nursery, "wss://a/", server_hostname="d")
    assert [settings.server_hostname for settings in servers.settings] == ["d", "d", None]


async def test_tls_may_be_meant_for_where_a_redirect_leads(
    servers: Servers, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped: list[object] = []

    def wrap_tls(stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> trio.abc.Stream:
        wrapped.append((context, host))
        return stream

    monkeypatch.setattr(client, "wrap_tls", wrap_tls)
    servers.locations += ["wss://a/", "wss://b/"]
    context = ssl.create_default_context()
    await connect(nursery, "ws://a/", ssl_context=context, server_hostname="d")
    assert wrapped == [(context, "d"), (context, "b")]  # The other name is for the host that was given.


@pytest.mark.parametrize("location", ["ws://a/", "http://a/", "ws://b/"])
async def test_wss_to_ws_is_refused(location: str, servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["wss://b/", location]
    with pytest.raises(HandshakeError, match=r"expected wss:// in Location, .*, found ws://") as raised:
        await connect(nursery, "wss://a/")
    assert len(servers.urls) == 2
    assert raised.value.response is not None
    assert raised.value.response.status == 302
    assert await is_closed(servers.streams[1])


async def test_ten_are_followed_and_no_more(servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["/b"] * 10
    await connect(nursery, "ws://a/")
    assert len(servers.urls) == 11
    servers.locations += ["/b"] * 11
    with pytest.raises(HandshakeError, match="expected status 101, found 302 after 10 redirects") as raised:
        await connect(nursery, "ws://a/")
    assert len(servers.urls) == 22
    assert raised.value.response is not None
    assert raised.value.response.body == b"there"


@pytest.mark.parametrize("most", [0, 2])
async def test_how_many_is_an_option(most: int, servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["/b"] * 20
    with pytest.raises(HandshakeError, match=f"found 302 after {most} redirects"):
        await connect(nursery, "ws://a/", max_redirects=most)
    assert len(servers.urls) == most + 1


async def test_all_of_them_have_the_time_of_one(
    servers: Servers, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*arguments: Any) -> trio.abc.Stream:
        await trio.sleep(3)
        return await servers.dial(*arguments)

    monkeypatch.setattr(client, "dial", slow)
    servers.locations += ["/b"] * 10
    with pytest.raises(trio.TooSlowError):
        await connect(nursery, "ws://a/")
    assert trio.current_time() == 10


async def test_a_redirect_that_leads_nowhere_is_named(servers: Servers, nursery: trio.Nursery) -> None:
    servers.locations += ["ftp://b/"]
    with pytest.raises(HandshakeError, match="expected a WebSocket's URL in Location, found 'ftp://b/'"):
        await connect(nursery, "ws://a/")


@pytest.mark.parametrize("given", ["stream", "unix"])
async def test_what_is_not_connected_to_by_its_url_is_not_left(
    given: str, servers: Servers, nursery: trio.Nursery
) -> None:
    servers.locations += ["/b"]
    options: dict[str, Any] = {"unix": "/there"}
    if given == "stream":
        options = {"stream": await servers.dial(*[None] * 2)}  # type: ignore[arg-type]
    with pytest.raises(HandshakeError, match="expected status 101, found 302 Elsewhere"):
        await connect(nursery, "ws://a/", **options)
    assert len(servers.urls) == 1


async def test_from_server_to_server_over_tcp(nursery: trio.Nursery) -> None:
    async def greet(ws: Transaction) -> None:
        await ws.send("Here.")

    there = await nursery.start(partial(serve, greet, 0, host="127.0.0.1"))
    here = await nursery.start(
        partial(serve, greet, 0, host="127.0.0.1", on_request=lambda _: Response(307, {"Location": there.url}))
    )
    async with open_websocket(here.url) as ws:
        assert await ws.receive() == "Here."
        assert ws.remote_port == there.port
