"""What TLS offers a server beyond its certificate: several names, protocols, certificates of the clients."""

from __future__ import annotations

import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from trio_pyjo_ws import HandshakeError, TlsInfo, Transaction, connect, open_websocket, serve, serve_listeners
from trio_pyjo_ws.testing import open_memory_pair

from ..service import MemoryListener, echo

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    return logged


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def tls_of(ws: Transaction) -> TlsInfo:
    assert ws.tls is not None
    return ws.tls


def names(ws: Transaction) -> object:
    """The names in the peer's certificate."""
    certificate = tls_of(ws).certificate
    assert certificate is not None
    return certificate["subjectAltName"]


class Tls:
    """A TLS server, over TCP or in memory, and clients of it."""

    def __init__(self, over: str, nursery: trio.Nursery) -> None:
        self.over = over
        self.nursery = nursery
        self.listener = MemoryListener()
        self.server: Any = None

    async def start(self, context: ssl.SSLContext, handler: Any = echo) -> None:
        if self.over == "memory":
            secure = trio.SSLListener(self.listener, context, https_compatible=True)
            self.server = await self.nursery.start(serve_listeners, handler, [secure])
        else:
            start = partial(serve, handler, 0, host="127.0.0.1", ssl_context=context)
            self.server = await self.nursery.start(start)

    async def connect(self, name: str, context: ssl.SSLContext) -> Transaction:
        stream: Any = self.listener.connect()
        if self.over == "tcp":
            stream = await trio.open_tcp_stream("127.0.0.1", self.server.port)
        return await connect(self.nursery, f"wss://{name}/", stream=stream, ssl_context=context)

    async def speaks(self, ws: Transaction) -> None:
        await ws.send("here")
        assert await ws.receive() == "here"


@pytest.fixture(params=["tcp", "memory"])
def tls(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Tls:
    return Tls(request.param, nursery)


# Several names (SNI, RFC 6066, section 3)


async def test_the_certificate_is_that_of_the_name(tls: Tls, authority: trustme.CA) -> None:
    contexts = {name: server_context(authority, name) for name in ("a.test", "b.test")}
    asked: list[str | None] = []

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked.append(name)
        connection.context = contexts[name or "a.test"]

    context = server_context(authority, "default.test")
    context.sni_callback = choose  # type: ignore[assignment]
    await tls.start(context)
    for name in ("a.test", "b.test"):
        ws = await tls.connect(name, client_context(authority))
        assert names(ws) == (("DNS", name),)
        await tls.speaks(ws)
    assert asked == ["a.test", "b.test"]


@pytest.mark.parametrize("alert", [ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME, ssl.ALERT_DESCRIPTION_ACCESS_DENIED])
async def test_a_name_may_be_refused_with_an_alert(
    tls: Tls, authority: trustme.CA, errors: Callable[[], list[str]], alert: int
) -> None:
    context = server_context(authority, "a.test", "b.test")
    context.sni_callback = lambda _, name, __: alert if name == "b.test" else None  # type: ignore[assignment]
    await tls.start(context)
    # trio's SSLStream, which serves in memory, sends no alert.
    why = "(?i:unrecognized.name|access.denied)" if tls.over == "tcp" else "EOF"
    with pytest.raises(HandshakeError, match=rf"TLS with b\.test failed: .*{why}"):
        await tls.connect("b.test", client_context(authority))
    await tls.speaks(await tls.connect("a.test", client_context(authority)))
    assert errors() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where the ssl module reports it
async def test_a_choice_of_the_name_that_fails_ends_that_connection_alone(tls: Tls, authority: trustme.CA) -> None:
    def choose(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        if name == "b.test":
            raise KeyError("a bug")

    context = server_context(authority, "a.test", "b.test")
    context.sni_callback = choose  # type: ignore[assignment]
    await tls.start(context)
    other = await tls.connect("a.test", client_context(authority))
    with pytest.raises(HandshakeError, match=r"TLS with b\.test failed"):
        await tls.connect("b.test", client_context(authority))
    await tls.speaks(other)


# The protocol (ALPN, RFC 7301)


@pytest.mark.parametrize(
    ("offered", "ours", "agreed"),
    [
        (["h2", "http/1.1"], ["http/1.1"], "http/1.1"),
        (["http/1.1"], ["h2", "http/1.1"], "http/1.1"),
        ([], ["http/1.1"], None),
        (["http/1.1"], [], None),
        (["h2"], ["http/1.1"], None),  # OpenSSL goes on without one, and so does the server.
    ],
)
async def test_a_protocol_is_agreed_on(
    tls: Tls, authority: trustme.CA, offered: list[str], ours: list[str], agreed: str | None
) -> None:
    server, client = server_context(authority, "a.test"), client_context(authority)
    for context, protocols in ((server, ours), (client, offered)):
        if protocols:
            context.set_alpn_protocols(protocols)
    await tls.start(server)
    ws = await tls.connect("a.test", client)
    await tls.speaks(ws)
    (connection,) = tls.server.connections
    assert tls_of(ws).alpn == tls_of(connection).alpn == agreed


async def test_h2_that_was_agreed_on_is_refused_in_the_words_of_http_1(
    authority: trustme.CA, nursery: trio.Nursery, errors: Callable[[], list[str]]
) -> None:
    server, client = server_context(authority, "127.0.0.1"), client_context(authority)
    for context in (server, client):
        context.set_alpn_protocols(["h2"])  # which is a mistake: there is no HTTP/2 here
    running = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", ssl_context=server))
    tcp = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with trio.SSLStream(tcp, client, server_hostname="127.0.0.1", https_compatible=True) as stream:
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 426 ")
    assert errors() == []


# Certificates of clients


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def version(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_a_certificate_of_the_client_is_there_in_the_handler(
    tls: Tls, authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    seen: list[Any] = []

    async def handler(ws: Transaction) -> None:
        seen.append(names(ws))
        await echo(ws)

    server, client = server_context(authority, "a.test"), client_context(authority)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = version
    authority.configure_trust(server)
    authority.issue_cert("ada@example.org").configure_cert(client)
    await tls.start(server, handler)
    await tls.speaks(await tls.connect("a.test", client))
    assert seen == [(("email", "ada@example.org"),)]


@pytest.mark.parametrize("given", ["none", "of another authority"])
async def test_without_a_certificate_that_is_trusted_nobody_gets_to_the_handler(
    tls: Tls, authority: trustme.CA, version: ssl.TLSVersion, errors: Callable[[], list[str]], given: str
) -> None:
    async def handler(ws: Transaction) -> None:
        assert names(ws) == (("email", "ada@example.org"),)
        await echo(ws)

    server = server_context(authority, "a.test")
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = version
    authority.configure_trust(server)
    known = client_context(authority)
    authority.issue_cert("ada@example.org").configure_cert(known)
    await tls.start(server, handler)
    other = await tls.connect("a.test", known)
    stranger = client_context(authority)
    if given != "none":
        trustme.CA().issue_cert("eve@example.org").configure_cert(stranger)
    for _ in range(3):
        # In TLS 1.3 the client's side is done before the server looks at the certificate.
        with pytest.raises(HandshakeError, match=r"TLS|lost|closed"):
            await tls.connect("a.test", stranger)
    await tls.speaks(other)
    assert errors() == []
    assert tls.server.statistics().connections_opening == 0


# What is known of it


async def test_both_sides_know_who_is_there_and_how_it_is_protected(
    tls: Tls, authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    server, client = server_context(authority, "a.test"), client_context(authority)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = version
    authority.configure_trust(server)
    certificate = authority.issue_cert("ada@example.org")
    certificate.configure_cert(client)
    await tls.start(server)
    ws = await tls.connect("a.test", client)
    (connection,) = tls.server.connections
    assert (
        tls_of(ws).version == tls_of(connection).version == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    )
    assert tls_of(ws).cipher == tls_of(connection).cipher in {cipher["name"] for cipher in client.get_ciphers()}
    assert names(ws) == (("DNS", "a.test"),)
    assert names(connection) == (("email", "ada@example.org"),)
    sent = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    assert tls_of(connection).certificate_der == sent
    await ws.aclose()
    assert names(ws) == (("DNS", "a.test"),)


async def test_without_a_certificate_of_the_client_there_is_none(tls: Tls, authority: trustme.CA) -> None:
    await tls.start(server_context(authority, "a.test"))
    await tls.connect("a.test", client_context(authority))
    (connection,) = tls.server.connections
    assert tls_of(connection).certificate is tls_of(connection).certificate_der is None


async def test_a_certificate_that_was_not_verified_is_not_given_as_one(tls: Tls, authority: trustme.CA) -> None:
    client = client_context(authority)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    await tls.start(server_context(authority, "a.test"))
    ws = await tls.connect("b.test", client)
    assert tls_of(ws).certificate is None
    assert tls_of(ws).certificate_der


async def test_without_tls_there_is_nothing_to_know(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
    async with open_websocket(server.url) as ws:
        assert ws.tls is None
        assert [connection.tls for connection in server.connections] == [None]
    client, _ = open_memory_pair(nursery)
    assert client.tls is None


# Versions


async def test_a_version_that_is_too_old_ends_that_connection_alone(
    authority: trustme.CA, nursery: trio.Nursery, errors: Callable[[], list[str]]
) -> None:
    server = server_context(authority, "127.0.0.1")
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    running = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", ssl_context=server))
    old = client_context(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(HandshakeError, match=r"(?i)protocol.version"):
        async with open_websocket(running.url, ssl_context=old):
            pass
    async with open_websocket(running.url, ssl_context=client_context(authority)) as ws:
        await ws.send("here")
        assert await ws.receive() == "here"
    assert errors() == []
