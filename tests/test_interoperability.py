"""The same conversations with other implementations, in both roles, over TCP and over TLS."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

import pytest
import trio
import trio.testing
import trio_websocket
import trustme

from trio_pyjo_ws import Close, Deflate, Transaction, open_websocket, serve
from trio_pyjo_ws.wire.http1 import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Conversation = Callable[[Transaction], Awaitable[object]]

LARGEST = 16 * 2**20
COUNT = 10_000
SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
TEXTS = [
    "",
    "Hello World!",
    "Zażółć gęślą jaźń",
    "你好世界 — こんにちは世界 — 안녕 세상",
    "שלום עולם \u202e مرحبا بالعالم",
    "e\u0301 n\u0303 \u0915\u094d\u0937 Z\u0351\u036b\u0343",
    "👋🏽 👩‍👩‍👧‍👦 🏳️‍🌈 \U0010ffff",
    "\0\x7f\ufeff\ufffe",
    "🐍 snake, 蛇, ثعبان " * 10_000,
]

# The four parameters of permessage-deflate (RFC 7692, section 7.1), as either side may ask for them.
DEFLATE: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "deflate": {},
    "no takeover": {"server_no_context_takeover": True, "client_no_context_takeover": True},
    "server's": {"server_no_context_takeover": True, "server_max_window_bits": 9},
    "client's": {"client_no_context_takeover": True, "client_max_window_bits": 9},
    "all four": {
        "server_no_context_takeover": True,
        "client_no_context_takeover": True,
        "server_max_window_bits": 10,
        "client_max_window_bits": 12,
    },
}


def ours(name: str) -> dict[str, Any]:
    """Our options for compression of this name."""
    parameters = DEFLATE[name]
    return {
        "compression": False if parameters is None else Deflate(**parameters),
        "max_websocket_size": LARGEST,
        "ping_interval": None,
    }


class Tls(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext
    certificate: str
    authority: str


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.configure_cert(server)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "certificate.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    client = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    return Tls(server, client, str(folder / "certificate.pem"), str(folder / "authority.pem"))


# The peers. Each can be talked to as a client and as a server; `talk` does that, and gives its account of the end.


class Talk(NamedTuple):
    """A conversation: what we do, and what the peer does."""

    conversation: Conversation
    action: str


class WebsocketsPeer:
    """`websockets` in its own process."""

    def __init__(self, process: subprocess.Popen[str], tls: Tls) -> None:
        self._process = process
        self._tls = tls
        self._ports = json.loads(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    async def _end(self) -> Close:
        told = json.loads(await trio.to_thread.run_sync(self._read))
        assert told["error"] is None
        return Close(*told["close"])

    async def as_server(self, talk: Talk, secure: bool, deflate: str, theirs: str) -> Close:
        port = self._ports[theirs][secure]
        scheme, context = ("wss", self._tls.client) if secure else ("ws", None)
        url = f"{scheme}://127.0.0.1:{port}/{talk.action}"
        async with open_websocket(url, ssl_context=context, **ours(deflate)) as ws:
            await talk.conversation(ws)
        return await self._end()

    async def as_client(self, talk: Talk, secure: bool, deflate: str, theirs: str) -> Close:
        async with serving(talk.conversation, self._tls.server if secure else None, deflate) as url:
            self._write(json.dumps({"url": url, "deflate": theirs, "action": talk.action}))
            return await self._end()


class TrioWebsocketPeer:
    """`trio-websocket` in this process. It knows no compression, and cannot send fragments."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls

    async def as_server(self, talk: Talk, secure: bool, deflate: str, theirs: str) -> Close:
        ended: list[Close] = []

        async def handle(request: trio_websocket.WebSocketRequest) -> None:
            ended.append(await self._act(await request.accept(), request.path))

        async with trio.open_nursery() as nursery:
            context = self._tls.server if secure else None
            run = partial(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, context, max_message_size=LARGEST)
            server = await nursery.start(run)
            url = f"{'wss' if secure else 'ws'}://127.0.0.1:{server.port}/{talk.action}"
            trusted = self._tls.client if secure else None
            async with open_websocket(url, ssl_context=trusted, **ours(deflate)) as ws:
                await talk.conversation(ws)
            while not ended:
                await trio.testing.wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()
        return ended[0]

    async def as_client(self, talk: Talk, secure: bool, deflate: str, theirs: str) -> Close:
        async with serving(talk.conversation, self._tls.server if secure else None, deflate) as url:
            # A stream of our own: the library's is not closed where the server has closed the connection.
            target = Url.parse(url)
            stream: Any = await trio.open_tcp_stream(target.host, target.port)
            if secure:
                stream = trio.SSLStream(stream, self._tls.client, server_hostname=target.host, https_compatible=True)
            async with stream, trio.open_nursery() as nursery:
                ws = await trio_websocket.wrap_client_stream(
                    nursery, stream, target.authority, f"/{talk.action}", max_message_size=LARGEST
                )
                end = await self._act(ws, talk.action)
                nursery.cancel_scope.cancel()
        return end

    async def _act(self, ws: trio_websocket.WebSocketConnection, action: str) -> Close:
        name, *arguments = map(unquote, action.lstrip("/").split("/"))
        try:
            if name == "echo":
                while True:
                    await ws.send_message(await ws.get_message())
            elif name == "flood":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_many, ws, int(arguments[0]))
                    for number in range(int(arguments[0])):
                        assert await ws.get_message() == str(number)
            elif name == "ping":
                await ws.ping(arguments[0].encode())
                await ws.send_message("ponged")
            else:
                await ws.aclose(int(arguments[0]), arguments[1])
            await ws.get_message()
        except trio_websocket.ConnectionClosed:
            assert ws.closed is not None
            return Close(ws.closed.code, ws.closed.reason or "")
        raise AssertionError("the connection goes on")

    async def _send_many(self, ws: trio_websocket.WebSocketConnection, count: int) -> None:
        for number in range(count):
            await ws.send_message(str(number))


Peer = WebsocketsPeer | TrioWebsocketPeer


@asynccontextmanager
async def serving(conversation: Conversation, context: ssl.SSLContext | None, deflate: str) -> AsyncIterator[str]:
    """Our server, which has this conversation with whoever comes; fails where the conversation does."""
    failures: list[Exception] = []

    async def handler(ws: Transaction) -> None:
        try:
            await conversation(ws)
        except Exception as exc:
            failures.append(exc)
            raise

    async with trio.open_nursery() as nursery:
        run = partial(serve, handler, 0, host="127.0.0.1", ssl_context=context, **ours(deflate))
        server = await nursery.start(run)
        yield server.url
        await server.aclose()
    assert failures == []


@pytest.fixture(scope="module")
def websockets_peer(tls: Tls) -> Iterator[WebsocketsPeer]:
    setup = {"deflate": DEFLATE, "certificate": tls.certificate, "authority": tls.authority}
    script = Path(__file__).with_name("interoperability_peer.py")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, str(script), json.dumps(setup)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield WebsocketsPeer(process, tls)
        process.kill()


@pytest.fixture(params=["websockets", "trio-websocket"])
def peer(request: pytest.FixtureRequest, tls: Tls) -> Peer:
    if request.param == "websockets":
        found: WebsocketsPeer = request.getfixturevalue("websockets_peer")
        return found
    return TrioWebsocketPeer(tls)


BOTH_ROLES = pytest.mark.parametrize("role", ["as_server", "as_client"])
BOTH_WAYS = pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])


async def talk(
    peer: Peer,
    role: str,
    conversation: Conversation,
    action: str,
    secure: bool = False,
    deflate: str = "plain",
    theirs: str = "plain",
) -> Close:
    """Have a conversation; return how it ended, as the peer tells it."""
    with trio.fail_after(30):
        end: Close = await getattr(peer, role)(Talk(conversation, action), secure, deflate, theirs)
    return end


# The conversations


@BOTH_WAYS
@BOTH_ROLES
async def test_texts_of_many_scripts_come_back_as_they_went(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        for text in TEXTS:
            await ws.send(text)
            assert await ws.receive() == text

    assert (await talk(peer, role, conversation, "echo", secure)).code == 1000


@BOTH_WAYS
@BOTH_ROLES
@pytest.mark.parametrize("deflate", ["plain", "deflate"])
async def test_messages_of_all_sizes_come_back_as_they_went(peer: Peer, role: str, secure: bool, deflate: str) -> None:
    async def conversation(ws: Transaction) -> None:
        for size in SIZES:
            data = os.urandom(size // 2) + b"a" * (size - size // 2)
            await ws.send(data)
            assert await ws.receive() == data

    assert (await talk(peer, role, conversation, "echo", secure, deflate, deflate)).code == 1000


@BOTH_WAYS
@BOTH_ROLES
@pytest.mark.parametrize("deflate", ["plain", "deflate"])
async def test_a_message_of_16_mib_comes_back_as_it_went(
    websockets_peer: WebsocketsPeer, role: str, secure: bool, deflate: str
) -> None:
    async def conversation(ws: Transaction) -> None:
        data = os.urandom(2**20) * 16
        await ws.send(data)
        assert await ws.receive() == data

    assert (await talk(websockets_peer, role, conversation, "echo", secure, deflate, deflate)).code == 1000


@BOTH_ROLES
async def test_a_message_of_16_mib_comes_back_from_trio_websocket(tls: Tls, role: str) -> None:
    async def conversation(ws: Transaction) -> None:
        data = os.urandom(2**20) * 16
        await ws.send(data)
        assert await ws.receive() == data

    assert (await talk(TrioWebsocketPeer(tls), role, conversation, "echo")).code == 1000


@BOTH_ROLES
@pytest.mark.parametrize("theirs", DEFLATE)
@pytest.mark.parametrize("deflate", DEFLATE)
async def test_compression_is_agreed_whatever_either_side_asks_for(
    websockets_peer: WebsocketsPeer, role: str, deflate: str, theirs: str
) -> None:
    async def conversation(ws: Transaction) -> None:
        assert ws.compressed is ("plain" not in (deflate, theirs))
        for text in [*TEXTS, *TEXTS]:  # The second time, out of the context of the first.
            await ws.send(text)
            assert await ws.receive() == text
        data = os.urandom(100_000) + bytes(100_000)
        await ws.send(data)
        assert await ws.receive() == data

    assert (await talk(websockets_peer, role, conversation, "echo", deflate=deflate, theirs=theirs)).code == 1000


@BOTH_WAYS
@BOTH_ROLES
@pytest.mark.parametrize("deflate", ["plain", "deflate"])
async def test_ten_thousand_messages_each_way_at_once(peer: Peer, role: str, secure: bool, deflate: str) -> None:
    async def conversation(ws: Transaction) -> None:
        async def send() -> None:
            for number in range(COUNT):
                await ws.send(str(number))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(COUNT):
                assert await ws.receive() == str(number)

    assert (await talk(peer, role, conversation, f"flood/{COUNT}", secure, deflate, deflate)).code == 1000


FRAGMENTS = [["one"], ["two ", "parts"], ["", "empty ", "", "ones", ""], ["é", "世", "🐍"], ["x" * 70_000] * 3]


@BOTH_WAYS
@BOTH_ROLES
@pytest.mark.parametrize("deflate", ["plain", "deflate"])
async def test_fragments_of_theirs_become_one_message(
    websockets_peer: WebsocketsPeer, role: str, secure: bool, deflate: str
) -> None:
    fragments = [one for one in FRAGMENTS if len(one[0]) < 10]

    async def conversation(ws: Transaction) -> None:
        for one in fragments:
            assert await ws.receive() == "".join(one)
            assert await ws.receive() == "".join(one).encode()

    action = f"fragments/{quote(json.dumps(fragments), safe='')}"
    assert (await talk(websockets_peer, role, conversation, action, secure, deflate, deflate)).code == 1000


@BOTH_WAYS
@BOTH_ROLES
async def test_fragments_of_ours_become_one_message(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        for fragments in FRAGMENTS:
            payload = "".join(fragments).encode()
            for opcode, whole in ((1, payload.decode()), (2, payload)):
                for index, fragment in enumerate(fragments):
                    if index:
                        await ws.send(frame=[1, 0, 0, 0, 9, b"in between"])
                    fin = index == len(fragments) - 1
                    await ws.send(frame=[fin, 0, 0, 0, 0 if index else opcode, fragment.encode()])
                assert await ws.receive() == whole

    assert (await talk(peer, role, conversation, "echo", secure)).code == 1000


@BOTH_WAYS
@BOTH_ROLES
async def test_pings_of_ours_are_answered(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        for payload in (None, b"", b"\0\xff" * 62):
            assert 0 <= await ws.ping(payload) < 30

    assert (await talk(peer, role, conversation, "echo", secure)).code == 1000


@BOTH_WAYS
@BOTH_ROLES
async def test_pings_of_theirs_are_answered(peer: Peer, role: str, secure: bool) -> None:
    async def conversation(ws: Transaction) -> None:
        assert await ws.receive() == "ponged"

    assert (await talk(peer, role, conversation, "ping/payload", secure)).code == 1000


CLOSES = [
    Close(1000, ""),
    Close(1001, "going"),
    Close(1008, "bu işe yaramaz"),
    Close(3000, "x" * 123),
    Close(4999, "👋"),
]
EVERY_CLOSE = pytest.mark.parametrize("close", CLOSES, ids=[str(close.code) for close in CLOSES])


@EVERY_CLOSE
@BOTH_WAYS
@BOTH_ROLES
async def test_a_close_of_ours_is_told_with_its_reason(peer: Peer, role: str, secure: bool, close: Close) -> None:
    async def conversation(ws: Transaction) -> None:
        assert (await ws.finish(*close)).code == close.code  # As both echo it.

    assert await talk(peer, role, conversation, "echo", secure) == close


@EVERY_CLOSE
@BOTH_WAYS
@BOTH_ROLES
async def test_a_close_of_theirs_is_told_with_its_reason(peer: Peer, role: str, secure: bool, close: Close) -> None:
    async def conversation(ws: Transaction) -> None:
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await ws.receive()
        assert ws.close == close

    action = f"close/{close.code}/{quote(close.reason, safe='')}"
    await talk(peer, role, conversation, action, secure)
