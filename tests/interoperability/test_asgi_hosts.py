"""ASGI hosts in processes of their own, with `hosted` as their application and clients over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

import trio_pyjo_ws
from trio_pyjo_ws import Close, ConnectionClosed, HandshakeError, open_websocket

from .conftest import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.interop

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "docs" / "examples"
ON_TRIO = {"anycorn": ["--worker-class", "trio"], "hypercorn": ["--worker-class", "trio"]}


class Host(NamedTuple):
    name: str
    port: int
    process: subprocess.Popen[str]

    def heard(self) -> Any:
        """What the application tells next."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()


def command(name: str, app: str, *options: str) -> list[str]:
    return [sys.executable, "-m", name, app, "--bind", "127.0.0.1:0", *options]


@contextmanager
def start(name: str, app: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    package = Path(trio_pyjo_ws.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(HERE), str(EXAMPLES)])}
    log = folder / f"{name}-{app}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(  # noqa: S603 - ours
            command(name, app, *options), stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def hosting(name: str, app: str, folder: Path) -> Iterator[Host]:
    try:
        __import__(name)
    except ImportError:
        missing(f"no {name}")
    with start(name, app, folder, *ON_TRIO[name]) as process:
        log = folder / f"{name}-{app}.log"
        deadline = time.monotonic() + 30
        while not (found := re.search(r"Running on http://127\.0\.0\.1:([0-9]+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Host(name, int(found[1]), process)


@pytest.fixture(scope="module", params=sorted(ON_TRIO))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def host(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosting(name, "hosted:app", tmp_path_factory.mktemp(name)) as found:
        yield found


def opened(host: Host, path: str, **options: Any) -> Any:
    return open_websocket(f"ws://127.0.0.1:{host.port}{path}", max_websocket_size=2**24, **options)


CLOSED_BY_CLIENT = {"anycorn": 3000, "hypercorn": 1006}
"""What a handler sees of a client that has closed with 3000. hypercorn does not hand the code on."""


async def test_messages_pass_in_their_order(host: Host) -> None:
    with trio.fail_after(30):
        async with opened(host, "/echo") as ws:
            messages: list[str | bytes] = ["", b"", "\u20ac", b"\0\xff", "x" * 900_000, os.urandom(900_000)]
            messages += map(str, range(500))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_each, ws, messages)
                assert [await ws.receive() for _ in messages] == messages
            assert await ws.finish(3000, "bye") == Close(3000, "bye")
    kind, code, _ = host.heard()
    assert (kind, code) == ("closed", CLOSED_BY_CLIENT[host.name])


async def send_each(ws: Any, messages: list[str | bytes]) -> None:
    for message in messages:
        await ws.send(message)


async def test_the_request_and_a_close_by_the_handler(host: Host) -> None:
    with trio.fail_after(30):
        async with opened(host, "/who/anna?a=b", subprotocols=["v2", "v1"]) as ws:
            assert ws.protocol == "v1"
            told = await ws.receive_json()
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            assert caught.value.close == Close(4001, "enough")
    expected = {"name": "anna", "query": {"a": "b"}, "subprotocol": "v1", "address": "127.0.0.1", "http": "1.1"}
    assert told == expected
    assert host.heard() == ["finished", 4001, "enough"]


async def test_a_handler_that_raises(host: Host) -> None:
    with trio.fail_after(30):
        async with opened(host, "/fail") as ws:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            assert caught.value.close == Close(1011)


async def test_a_message_that_is_too_large(host: Host) -> None:
    with trio.fail_after(30):
        async with opened(host, "/echo") as ws:
            await ws.send(bytes(1_000_001))
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            assert caught.value.close.code == 1009
    assert host.heard()[:2] == ["closed", 1009]


async def test_a_client_that_is_lost(host: Host) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            ws = await trio_pyjo_ws.connect(nursery, f"ws://127.0.0.1:{host.port}/echo")
            await ws.send("here")
            assert await ws.receive() == "here"
            nursery.cancel_scope.cancel()
    assert host.heard()[:2] == ["closed", 1006]


@pytest.mark.parametrize(("path", "status", "body"), [("/refused", 401, b"who are you?"), ("/no", 404, b"not found\n")])
async def test_a_refusal_comes_from_the_application(host: Host, path: str, status: int, body: bytes) -> None:
    with trio.fail_after(30), pytest.raises(HandshakeError) as caught:
        async with opened(host, path):
            pass
    assert caught.value.response is not None
    assert (caught.value.response.status, caught.value.response.body) == (status, body)


def test_plain_http(host: Host) -> None:
    assert host.get("/health") == (200, "fine\n")
    assert host.get("/echo") == (426, "expected a WebSocket\n")
    assert host.get("/no") == (404, "not found\n")


async def test_over_http2(host: Host) -> None:
    from .http2 import open_http2  # noqa: PLC0415 - h2 comes with the hosts

    with trio.fail_after(30):
        async with open_http2(host.port) as connection:
            ws = await connection.open("/echo")
            await ws.send("text")
            assert await ws.receive() == "text"
            await ws.close(3000)
            assert await ws.receive() == Close(3000)
            assert host.heard()[1] == CLOSED_BY_CLIENT[host.name]
            ws = await connection.open("/who/anna", ("sec-websocket-protocol", "v1"))
            assert ws.headers["sec-websocket-protocol"] == "v1"
            assert json.loads(await ws.receive())["http"] == "2"
            assert await ws.receive() == Close(4001, "enough")
            assert host.heard() == ["finished", 4001, "enough"]
            refused = await connection.open("/refused")
            assert (refused.headers[":status"], refused.headers["x-why"]) == ("401", "because")
            ws = await connection.open("/echo")
            await ws.send("still there")
            assert await ws.receive() == "still there"


async def test_an_http2_client_that_sends_behind_the_close(name: str, tmp_path: Path) -> None:
    """It ends hypercorn's worker, and with it all connections: see docs/asgi.md."""
    with hosting(name, "hosted:app", tmp_path) as host, trio.fail_after(30):
        from .http2 import open_http2  # noqa: PLC0415 - as above

        async with open_http2(host.port) as connection:
            ws = await connection.open("/who/anna")
            await ws.receive()
            await ws.receive()
            assert host.heard()[0] == "finished"
            connection.h2.send_data(ws.stream, b"\x81\x80mask")
            with pytest.raises(EOFError) if name == "hypercorn" else trio.CancelScope():
                await connection.flush()
                ws = await connection.open("/echo")
                await ws.send("still there")
                assert await ws.receive() == "still there"


async def test_rooms_last_as_long_as_the_host(name: str, tmp_path: Path) -> None:
    with hosting(name, "asgi_rooms:app", tmp_path) as host, trio.fail_after(30):
        async with opened(host, "/chat/lounge") as one:
            await one.send("joined")
            assert await one.receive() == "joined"
            async with opened(host, "/chat/lounge") as another, opened(host, "/chat/elsewhere") as third:
                await third.send("another room")
                assert await third.receive() == "another room"
                await another.send("joined")
                assert await another.receive() == await one.receive() == "joined"
                messages = [str(number) for number in range(100)]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send_each, one, messages)
                    nursery.start_soon(send_each, another, messages)
                    got = [await one.receive() for _ in range(200)]
                    assert [await another.receive() for _ in range(200)] == got
                assert sorted(got) == sorted([*messages, *messages])
            await one.send("still there")
            assert await one.receive() == "still there"


async def test_pages_of_quart_trio_on_the_same_port(name: str, tmp_path: Path) -> None:
    with hosting(name, "quart_app:app", tmp_path) as host, trio.fail_after(30):
        async with opened(host, "/chat") as one, opened(host, "/chat") as another:
            await one.send("to all")
            assert await one.receive() == await another.receive() == "to all"
            get = await trio.to_thread.run_sync(host.get, "/")
            assert get == (200, "This is the page.\n")


async def test_pages_of_starlette_on_the_same_port(name: str, tmp_path: Path) -> None:
    with hosting(name, "asgi_app:app", tmp_path) as host, trio.fail_after(30):
        async with opened(host, "/live/chat/lounge") as ws:
            await ws.send("hello")
            assert await ws.receive() == "lounge: hello"
            get = await trio.to_thread.run_sync(host.get, "/")
            assert get == (200, "This is the page.\n")


def test_a_host_on_asyncio_does_not_start(name: str, tmp_path: Path) -> None:
    with start(name, "hosted:app", tmp_path) as process:
        process.wait(30)
    assert "asgi() needs a host that runs on trio" in (tmp_path / f"{name}-hosted:app.log").read_text()
