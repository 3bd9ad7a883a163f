"""The peers, started when a test first wants one."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from .chromium import ChromiumPeer
from .peers import DEFLATE, PEERS, Peer, ProcessPeer, Tls, TrioWebsocketPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def missing(what: str) -> None:
    """End a test that needs what is not there: as an error where all has to be there, else as a skip."""
    text = f"{what}: `nox -s interop` brings all but packages of the system: see .ci/run"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.configure_cert(server)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "certificate.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    client = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    return Tls(server, client, str(folder / "certificate.pem"), str(folder / "authority.pem"))


@contextmanager
def process(name: str, command: list[str], tls: Tls, *more: str) -> Iterator[ProcessPeer]:
    deflate = {one: DEFLATE[one] for one in PEERS[name].deflate}
    setup = json.dumps({"deflate": deflate, "certificate": tls.certificate, "authority": tls.authority})
    environment = {one: value for one, value in os.environ.items() if not one.lower().endswith("_proxy")}
    with subprocess.Popen(  # noqa: S603 - ours
        [*command, setup, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=HERE.parent,
    ) as running:
        try:
            yield ProcessPeer(name, running, tls)
        finally:
            running.kill()


def python(module: str) -> list[str]:
    return [sys.executable, "-m", f"{HERE.name}.{module}"]


@pytest.fixture(scope="session")
def websockets_peer(tls: Tls) -> Iterator[ProcessPeer]:
    with process("websockets", python("websockets_peer"), tls, "websockets") as peer:
        yield peer


@pytest.fixture(scope="session")
def picows_peer(tls: Tls) -> Iterator[ProcessPeer]:
    try:
        import picows.websockets  # noqa: F401, PLC0415 - only to see whether it is there
    except ImportError:
        missing("no picows")
    with process("picows", python("websockets_peer"), tls, "picows") as peer:
        yield peer


@pytest.fixture(scope="session")
def aiohttp_peer(tls: Tls) -> Iterator[ProcessPeer]:
    with process("aiohttp", python("aiohttp_peer"), tls) as peer:
        yield peer


@pytest.fixture(scope="session")
def ws_peer(tls: Tls) -> Iterator[ProcessPeer]:
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('ws')"], capture_output=True, check=False).returncode:  # noqa: S603
        missing("no Node.js with `ws` in its NODE_PATH")
    with process("ws", [str(node), str(HERE / "ws_peer.js")], tls) as peer:
        yield peer


@contextmanager
def chromium(tls: Tls) -> Iterator[ChromiumPeer]:
    program = shutil.which("chromium")
    if program is None:
        missing("no chromium")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(  # noqa: S603 - ours
            [
                str(program),
                "--headless",
                "--no-sandbox",  # which root cannot have, nor who is in most containers
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--disable-breakpad",
                "--no-first-run",
                "--no-proxy-server",
                "--ignore-certificate-errors",  # The authorities that it trusts are the system's, not those of a test.
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        peer = ChromiumPeer(process, Path(profile), tls)
        try:
            peer.wait_ready()
            yield peer
        finally:
            peer.kill()


@pytest.fixture(scope="session")
def chromium_peer(tls: Tls) -> Iterator[ChromiumPeer]:
    with chromium(tls) as peer:
        yield peer


@pytest.fixture
def own_chromium(tls: Tls) -> Iterator[ChromiumPeer]:
    """One that a test may kill."""
    with chromium(tls) as peer:
        yield peer


@pytest.fixture
def peer(request: pytest.FixtureRequest, tls: Tls) -> Peer:
    """The peer of this name; see `peers`."""
    if request.param == "trio-websocket":
        return TrioWebsocketPeer(tls)
    found: Peer = request.getfixturevalue(f"{request.param}_peer")
    return found
