"""The service of docs/deployment.md behind the proxies of that page, with their configurations as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

import trio_pyjo_ws
from trio_pyjo_ws import Close, ConnectionClosed, HandshakeError, open_websocket

from .conftest import missing

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from trio_pyjo_ws import Transaction

    from .peers import Tls

pytestmark = pytest.mark.interop

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "docs" / "examples"
IDLE = 1
"""Seconds for which these proxies bear silence, in place of 60."""


class Deployment(NamedTuple):
    url: str
    tls: ssl.SSLContext
    services: list[subprocess.Popen[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def configured(name: str, folder: Path, replaced: dict[str, str]) -> Path:
    """A configuration of the page, with ports, paths and time-outs for here."""
    text = (EXAMPLES / name).read_text("utf-8")
    for shown in replaced:
        assert shown in text, f"{name}: no {shown!r}"
    # In one pass: the port of a service may begin with 443.
    text = re.sub("|".join(map(re.escape, replaced)), lambda found: replaced[found[0]], text)
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def nginx(folder: Path, replaced: dict[str, str], port: int) -> list[str]:
    # Whoever runs the tests may not be allowed to write where nginx usually does.
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    here = {
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/var/log/nginx/error.log": f"{folder}/error.log",
        "access_log /var/log/nginx/access.log;": f"access_log off; {paths}",
        "listen 443": f"listen {port}",
        "/etc/nginx/certificate.pem": f"{folder}/certificate-and-key.pem",
        "/etc/nginx/key.pem": f"{folder}/certificate-and-key.pem",
    }
    return ["nginx", "-g", "daemon off;", "-c", str(configured("nginx.conf", folder, replaced | here))]


def haproxy(folder: Path, replaced: dict[str, str], port: int) -> list[str]:
    here = {
        "user haproxy": "",  # which may not be there, and only root may become
        "group haproxy": "",
        "maxconn 16384": "maxconn 100",
        ":443": f":{port}",
        "/etc/haproxy/certificate-and-key.pem": f"{folder}/certificate-and-key.pem",
    }
    return ["haproxy", "-db", "-f", str(configured("haproxy.cfg", folder, replaced | here))]


@contextmanager
def running(command: list[str], log: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(trio_pyjo_ws.__file__).parent.parent)}
    with ExitStack() as stack:
        errors = stack.enter_context(log.open("w")) if log else None
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)  # noqa: S603
        )
        try:
            yield process
        finally:
            process.kill() if process.args[0] == sys.executable else process.terminate()  # type: ignore[index]


@contextmanager
def deployed(name: str, folder: Path, tls: Tls, ping_interval: float) -> Iterator[Deployment]:
    command = [sys.executable, str(EXAMPLES / "service.py"), "--port", "0", "--ping-interval", str(ping_interval)]
    with ExitStack() as stack:
        services = [stack.enter_context(running(command)) for _ in range(2)]
        replaced = {"60s": f"{IDLE}s"}
        for shown, service in zip(("127.0.0.1:8001", "127.0.0.1:8002"), services, strict=True):
            assert service.stdout is not None
            replaced[shown] = service.stdout.readline().split("/")[2]
        shutil.copy(tls.certificate, folder / "certificate-and-key.pem")
        port = free_port()
        program, *arguments = {"nginx": nginx, "haproxy": haproxy}[name](folder, replaced, port)
        # Debian has them where only root looks.
        found = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin"]))
        if found is None:
            missing(f"no {program}")
        log = folder / "log"
        proxy = stack.enter_context(running([str(found), *arguments], log))
        deadline = time.monotonic() + 30
        while True:
            assert proxy.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield Deployment(f"wss://127.0.0.1:{port}/", tls.client, services)


async def is_served(ws: Transaction) -> bool:
    try:
        await ws.send("here")
        assert await ws.receive() == "here"
    except (ConnectionClosed, trio.EndOfChannel):
        return False
    return True


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def deployment(proxy: str, tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> Iterator[Deployment]:
    """Its keepalive pings more often than the proxy bears silence, as on the page."""
    with deployed(proxy, tmp_path_factory.mktemp(proxy), tls, ping_interval=IDLE / 4) as found:
        yield found


async def test_messages_pass_in_their_order(deployment: Deployment) -> None:
    with trio.fail_after(30):
        async with open_websocket(deployment.url, ssl_context=deployment.tls) as ws:
            for number in range(100):
                await ws.send(f"message {number}")
            assert [await ws.receive() for _ in range(100)] == [f"message {number}" for number in range(100)]
            await ws.send(b"\x00\xff")
            assert await ws.receive() == b"\x00\xff"


async def test_a_large_message_passes(deployment: Deployment) -> None:
    large = os.urandom(8 * 2**20)
    with trio.fail_after(30):
        async with open_websocket(deployment.url, ssl_context=deployment.tls, max_websocket_size=2**24) as ws:
            await ws.send(large)
            assert await ws.receive() == large


async def test_a_ping_goes_all_the_way_to_the_service(deployment: Deployment) -> None:
    with trio.fail_after(30):
        async with open_websocket(deployment.url, ssl_context=deployment.tls) as ws:
            assert await ws.ping() > 0


async def test_keepalive_keeps_the_proxy_from_closing(deployment: Deployment) -> None:
    with trio.fail_after(30):
        async with open_websocket(deployment.url, ssl_context=deployment.tls, ping_interval=None) as ws:
            with trio.move_on_after(2.5 * IDLE):
                await ws.receive()
            await ws.send("still here")
            assert await ws.receive() == "still here"


async def test_without_pings_the_proxy_closes_an_idle_connection(proxy: str, tmp_path: Path, tls: Tls) -> None:
    with deployed(proxy, tmp_path, tls, ping_interval=3600) as deployment, trio.fail_after(30):
        async with open_websocket(deployment.url, ssl_context=deployment.tls, ping_interval=None) as ws:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            assert caught.value.close.code == 1006


async def test_the_service_sees_the_client_behind_the_proxy_and_believes_nobody_else(deployment: Deployment) -> None:
    with trio.fail_after(30):
        async with open_websocket(
            f"{deployment.url}who",
            ssl_context=deployment.tls,
            local_address="127.0.0.2",
            additional_headers={"X-Forwarded-For": "203.0.113.7"},  # a lie
        ) as ws:
            assert await ws.receive() == "you are 127.0.0.2, by way of 127.0.0.1"


def test_a_health_check_by_plain_http_is_answered(deployment: Deployment) -> None:
    url = deployment.url.replace("wss:", "https:") + "health"
    with urllib.request.urlopen(url, context=deployment.tls, timeout=30) as response:  # noqa: S310
        assert response.status == 200
        assert response.read() == b"fine\n"


async def test_a_refusal_comes_from_the_service(deployment: Deployment) -> None:
    with trio.fail_after(30), pytest.raises(HandshakeError) as caught:
        async with open_websocket(f"{deployment.url}nowhere", ssl_context=deployment.tls):
            pass
    assert caught.value.response is not None
    assert caught.value.response.status == 404


async def test_a_service_that_stops_closes_its_own_and_the_other_one_takes_over(
    proxy: str, tmp_path: Path, tls: Tls
) -> None:
    with deployed(proxy, tmp_path, tls, ping_interval=IDLE / 4) as deployment, trio.fail_after(60):
        first, second = deployment.services
        # To the one with the fewest connections: one for each.
        async with (
            open_websocket(deployment.url, ssl_context=deployment.tls) as one,
            open_websocket(deployment.url, ssl_context=deployment.tls) as other,
        ):
            assert await is_served(one)
            assert await is_served(other)
            first.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(first.wait, 30) == 0
            left = other if await is_served(one) else one
            assert left.closed == Close(1001, "the server is shutting down")
            assert await is_served(one) != await is_served(other)
            for _ in range(4):
                async with open_websocket(deployment.url, ssl_context=deployment.tls) as new:
                    assert await is_served(new)
            assert second.poll() is None
