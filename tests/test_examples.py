"""Every program of docs/examples runs as it stands; pytest runs those that are tests themselves."""

from __future__ import annotations

import itertools
import os
import re
import runpy
import signal
import socket
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

import trio_pyjo_ws
from trio_pyjo_ws import Close, Transaction, open_websocket
from trio_pyjo_ws.testing import serve_memory

if TYPE_CHECKING:
    from trio.testing import MockClock

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("test_"))

PRINTED = {
    "authentication": """\
Hello, ada!
Hello, the robot!
401 Basic realm="chat", charset="UTF-8"
""",
    "behind_proxy": """\
you are 203.0.113.7
""",
    "limits": """\
ws://127.0.0.1:PORT/: expected status 101, found 429 Too Many Requests
connection closed with 1008 (more than 10 messages a second)
""",
    "rooms": """\
['anna']
['anna', 'bert']
Hello, Bert!
Hello, Bert!
Are you there?
Are you there?
""",
    "routing": """\
this is the chat
this is the feed of café
ws://127.0.0.1:PORT/nowhere: expected status 101, found 404 Not Found
/health HTTP/1.1 200 OK
/ HTTP/1.1 200 OK
/chat HTTP/1.1 426 Upgrade Required
/nowhere HTTP/1.1 404 Not Found
""",
    "events": """\
All data has been sent
FIN: True
RSV1: False
RSV2: False
RSV3: False
Opcode: 1
Payload: b'Hello World!'
Text: b'Hello World!'
Message: 'Hello World!'
Error: Expecting value: line 1 column 1 (char 0)
FIN: True
RSV1: False
RSV2: False
RSV3: False
Opcode: 1
Payload: b'{"test":[1,2,3]}'
Text: b'{"test":[1,2,3]}'
Message: '{"test":[1,2,3]}'
JSON: {'test': [1, 2, 3]}
FIN: True
RSV1: False
RSV2: False
RSV3: False
Opcode: 2
Payload: b'[1, 2, 3]'
Binary: b'[1, 2, 3]'
Message: b'[1, 2, 3]'
JSON: [1, 2, 3]
FIN: True
RSV1: False
RSV2: False
RSV3: False
Opcode: 8
Payload: b'\\x03\\xe8'
WebSocket closed with status 1000
""",
    "broadcasting": """\
Hello, everybody!
Hello, everybody!
Hello, everybody!
""",
    "channels": """\
text b'Gr\\xc3\\xbc\\xc3\\x9fe'
message Grüße
binary b'\\x00\\x01'
json {'test': [1, 2, 3]}
json Expecting value: line 1 column 1 (char 0)
frame Frame(fin=True, rsv1=False, rsv2=False, rsv3=False, opcode=<Opcode.PONG: 10>, payload=b'Test 123')
drain True
receive Hello World!
finish Close(code=1000, reason='')
""",
    "back_pressure": """\
waiting to be received: 100
the server has stopped: True
received: 20000
""",
    "cancelling": """\
cancelled
cancelled
cancelled
cancelled
cancelled
['message 0', 'message 1', 'message 2', 'message 3', 'message 4']
aclose, cancelled: ended
finish, cancelled: closing
ended
""",
    "compressing": """\
13000 bytes became less than a hundredth: True
300 {"x":1}
""",
    "json_codec": """\
{'fast': True}
""",
    "keepalive": """\
an hour of silence: still open
connection closed with 1006 (no pong came within 10 seconds)
noticed within 30 seconds: True
""",
    "leaving": """\
one
two
three
the server closed: Close(code=1000, reason='')
ConnectionClosed: connection closed with 1000
this side closed: Close(code=4000, reason='enough')
sent before, and read
sent before the server knows, and read
ClosedResourceError: this side has closed the connection
""",
    "leaving_the_loop": """\
Hello!
still open: True
closed in order: Close(code=1000, reason='')
Hello!
still open: True
closed in order: Close(code=1000, reason='')
""",
    "mistakes": """\
await ws.send(42)
    TypeError: a message must be str or bytes (objects go as json=), not int
await ws.send(json={1, 2})
    TypeError: an object of type set is not JSON serializable
await ws.finish(1006)
    ValueError: a close code must be 1000-1003, 1007-1014 or 3000-4999, not 1006
await ws.finish(reason='enough')
    ValueError: a close reason requires a close code, but 'enough' has none
receive() when this side has closed
    ClosedResourceError: this side has closed the connection
receive() when the peer has closed with 4000
    ConnectionClosed: connection closed with 4000 (as you wish)
send() when the peer has closed
    ConnectionClosed: connection closed with 4000 (as you wish)
two tasks in receive()
    BusyResourceError: another task is receiving from this connection already
open_websocket('http://...')
    ValueError: unsupported URL scheme 'http' (expected 'ws' or 'wss')
open_websocket(url, max_queue=0)
    ValueError: max_queue must be at least 1, not 0
nobody listens there
    OSError: all attempts to connect to 127.0.0.1:1 failed
""",
    "shielding": """\
Close(code=1001, reason='going home')
""",
    "slow_reader": """\
both get it: 2
the slow one does not: 1
it is closed: 1
it is gone: 1
[1000, 1, 1, 1]
1000
connection closed with 1013 (too slow)
""",
    "werkzeug_routing": """\
feed 42
""",
    "threads": """\
 to another thread: call this by trio.from_thread.run_sync()
from a thread and again
""",
    "writing": """\
full: 1816 bytes wait
cancelled, and nothing of it is queued: True
written
received 900 900
bytes that wait: 0
""",
    "pieces": """\
1 32768 and more
0 32768 and more
0 14464 and more
0 0 the last
40000 characters
""",
    "streaming": """\
11 bytes of text
True True
""",
    "typed": """\
Order(article='lamp', count=2)
{'refused': 'Expected `int`, got `str` - at `$.count`'}
Order(article='chair', count=1)
Order(article='desk', count=1)
""",
    "observing": """\
True True True
1300 True
1 open of 1
1 received, 1 sent, 0 waiting
""",
    "sending": """\
'Hello World!'
b'Hello World!'
'Hello World!'
b'Hello World!'
'{"test":[1,2,3]}'
'Hello World!'
all data has been written
all data has been written
all data has been written
'Hello World!'
'[1,2,3]'
'Hello World!'
'message 0'
'message 1'
'message 2'
compressed True
b'Hello World!'
""",
    "frames": """\
b'\\x82\\x0cHello World!'
b'\\x01\\x06Hello '
b'\\x80\\x06World!'
b'\\x88\\x00'
b'\\x89\\x08Test 123'
b'\\x8a\\x08Test 123'
b'\\x82\\x0cHello World!'
b'\\x81\\x0cHello World!'
b'\\x81\\x10{"test":[1,2,3]}'
Your turn.
masked True False
FIN: True
RSV1: False
RSV2: False
RSV3: False
Opcode: 2
Payload: b'Hello World!'
Left: b''
None Frame(fin=True, rsv1=False, rsv2=False, rsv3=False, opcode=<Opcode.TEXT: 1>, payload=b'Hello')
""",
    "handshake": """\
101 chat/2.0 chat.v2 True
127.0.0.1 True
Ada speaks chat.v2
Close(code=1000, reason='')
404 b'There is only /chat here.\\n'
""",
    "reconnecting": """\
visit 1
visit 2
connection closed with 1011 (something broke)
visit 3
""",
    "requesting": """\
/chat User-Agent: example/1.0
/chat Authorization: Basic YWRhOnNlY3JldA==
/chat Cookie: session=1234; theme=dark
/chat X-Trace: abc
""",
    "proxying": """\
CONNECT chat.example:80 HTTP/1.1
Hello World!
""",
    "closing": """\
client: Close(code=1005, reason='')
server: end, Close(code=1005, reason='')
client: Close(code=1000, reason='')
server: end, Close(code=1000, reason='')
client: Close(code=1003, reason='Cannot accept data!')
server: error, Close(code=1003, reason='Cannot accept data!')
client: error, Close(code=1009, reason='a message of more than 1024 bytes')
server: error, Close(code=1009, reason='a message of more than 1024 bytes')
""",
}

# What the seed page shows, in the words of Python 3. Each stands in an example.
SEED_CALLS = [
    'ws.send("Hello World!")',
    'ws.send(binary=b"Hello World!")',
    'ws.send(text="Hello World!")',
    'ws.send(json={"test": [1, 2, 3]})',
    'ws.send(frame=[1, 0, 0, 0, 9, b"Hello World!"])',
    'ws.send(written, "Hello World!")',
    "def binary(ws",
    "def drain(ws",
    "def finish(ws",
    "def frame(ws",
    "def json(ws",
    "def message(ws",
    "def text(ws",
    'print(f"FIN: {frame.fin}")',
    'print(f"RSV1: {frame.rsv1}")',
    'print(f"RSV2: {frame.rsv2}")',
    'print(f"RSV3: {frame.rsv3}")',
    'print(f"Opcode: {frame.opcode}")',
    'print(f"Payload: {frame.payload!r}")',
    'ws.build_frame(1, 0, 0, 0, 2, b"Hello World!")',
    'ws.build_frame(0, 0, 0, 0, 1, b"Hello ")',
    'ws.build_frame(1, 0, 0, 0, 0, b"World!")',
    'ws.build_frame(1, 0, 0, 0, 8, b"")',
    'ws.build_frame(1, 0, 0, 0, 9, b"Test 123")',
    'ws.build_frame(1, 0, 0, 0, 10, b"Test 123")',
    'ws.build_message(binary=b"Hello World!")',
    'ws.build_message(text="Hello World!")',
    'ws.build_message(json={"test": [1, 2, 3]})',
    "ws.parse_frame(",
    "ws.finish()",
    "ws.finish(1000)",
    'ws.finish(1003, "Cannot accept data!")',
    "ws.compressed = ",
    "ws.masked",
    "ws.max_websocket_size = 1024",
]

# The attributes and methods of the seed page, of what it inherits, and of its Mojolicious ancestor.
SEED_NAMES = {
    *["build_frame", "build_message", "compressed", "finish", "masked", "max_websocket_size", "parse_frame", "send"],
    *["connection", "error", "is_finished", "is_websocket", "is_writing", "kept_alive", "local_address", "local_port"],
    *["original_remote_address", "remote_address", "remote_port", "req", "res", "resume", "success"],
    *["catch", "emit", "has_subscribers", "on", "once", "subscribers", "unsubscribe", "unsubscribe_all"],
    *["established", "handshake", "protocol", "with_compression", "with_protocols"],
}


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]


# The package that the tests see, whether it is installed or on PYTHONPATH.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(trio_pyjo_ws.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"}


def test_every_program_is_run_here() -> None:
    # The page: tests/cli/test_page.py. The service behind proxies: tests/interoperability/test_deployment.py.
    # The client over TLS: tests/test_pages.py. Under ASGI hosts: tests/interoperability/test_asgi_hosts.py.
    assert set(PROGRAMS) == {
        "asgi_app",
        "asgi_rooms",
        "chat",
        "echo_client",
        "echo_events",
        "echo_server",
        "first_server",
        "page",
        "processes",
        "quart_app",
        "service",
        "tls_client",
        "tls_server",
        *PRINTED,
    }


async def test_the_first_server_echoes(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a fixed port, so what it would run is looked at, and its handler runs in memory."""
    ran: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(trio, "run", lambda *arguments: ran.extend(arguments))
        runpy.run_path(str(EXAMPLES / "first_server.py"), run_name="__main__")
    run, handler, port = ran
    assert (run, port) == (trio_pyjo_ws.serve, 8080)
    server = await nursery.start(serve_memory, handler)
    ws = await server.connect(nursery)
    await ws.send("Hello World!")
    assert await ws.receive() == "Hello World!"


@pytest.mark.parametrize("name", PRINTED)
def test_a_program_prints_what_it_shows(name: str) -> None:
    done = subprocess.run(  # noqa: S603 - ours
        command(name), capture_output=True, encoding="utf-8", env=ENVIRONMENT, timeout=60, check=False
    )
    assert done.stderr == ""
    assert re.sub(r"127\.0\.0\.1:\d{4,}", "127.0.0.1:PORT", done.stdout) == PRINTED[name]
    assert done.returncode == 0


async def start(
    name: str, *arguments: str, task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a program that does not end by itself."""
    await trio.run_process(
        command(name, *arguments), env=ENVIRONMENT, stdout=subprocess.PIPE, check=False, task_status=task_status
    )


async def printed(process: trio.Process, lines: int = 1) -> str:
    """The next lines that it prints."""
    assert process.stdout is not None
    data = b""
    with trio.fail_after(60):
        while data.count(b"\n") < lines:
            received = await process.stdout.receive_some()
            assert received, f"it has ended, after {data!r}"
            data += received
    return data.decode()


def url_in(line: str) -> str:
    found = re.fullmatch(r"listening on (wss?://127\.0\.0\.1:\d+/)\n", line)
    assert found
    return found[1]


@pytest.mark.parametrize("name", ["echo_server", "echo_events"])
@pytest.mark.parametrize("options", [(), ("--compress",)])
async def test_the_echo_programs_understand_each_other(
    name: str, options: tuple[str, ...], nursery: trio.Nursery
) -> None:
    server = await nursery.start(partial(start, name, "--port", "0", *options))
    url = url_in(await printed(server))
    with trio.fail_after(60):
        client = await trio.run_process(
            command("echo_client", url), env=ENVIRONMENT, capture_stdout=True, capture_stderr=True, check=False
        )
    assert client.stderr == b""
    assert client.stdout.split() == b'Hello World! {"test":[1,2,3]}'.split()
    assert client.returncode == 0
    server.terminate()


async def test_the_chat_shows_a_newcomer_what_was_said(nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(start, "chat", "--port", "0"))
    url = url_in(await printed(server))
    shown = []
    for name, typed in (("anna", b"Hello\n@bert secret\n"), ("cleo", b"Hi\n")):
        with trio.fail_after(60):
            client = await trio.run_process(
                command("chat", name, url), stdin=typed, env=ENVIRONMENT, capture_stdout=True, capture_stderr=True
            )
        assert client.stderr == b""
        shown.append(client.stdout.decode().splitlines())
    assert shown == [["anna: Hello", "anna (privately): secret"], ["anna: Hello", "cleo: Hi"]]
    server.terminate()


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a program without telling it")


@POSIX
@pytest.mark.parametrize("name", ["echo_server", "echo_events"])
async def test_an_echo_server_drains_at_sigterm(name: str, nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(start, name, "--port", "0"))
    async with open_websocket(url_in(await printed(server))) as ws:
        await ws.send("here")
        assert await ws.receive() == "here"
        server.terminate()
        with trio.fail_after(60):
            assert [message async for message in ws] == []
            assert await server.wait() == 0
        assert ws.closed == Close(1001, "the server is shutting down")


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")
async def test_several_processes_serve_one_port(nursery: trio.Nursery) -> None:
    with socket.socket() as reserved:  # Bound, and never listening: nobody else is given the port.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        main = await nursery.start(partial(start, "processes", "--port", str(port), "--workers", "2"))

        async def workers() -> set[int]:
            """Ask until two have answered."""
            found: set[int] = set()
            while len(found) < 2:
                async with open_websocket(f"ws://127.0.0.1:{port}/") as ws:
                    found.add(int(str(await ws.receive())))
            return found

        with trio.fail_after(60):
            assert (await printed(main, 2)).replace("\n", "") == f"{port}{port}"
            before = await workers()
            killed = min(before)
            os.kill(killed, signal.SIGKILL)  # One is started again, the other lives.
            assert await printed(main) == f"{port}\n"
            after = await workers()
            assert after & before == before - {killed}
            main.terminate()
            assert await main.wait() == 0
        for worker in after:
            with pytest.raises(ProcessLookupError):
                os.kill(worker, 0)


class Runner:
    """Stands for trio.run_process: a process that ends at once, or after a while."""

    def __init__(self, *lifetimes: float) -> None:
        self.lifetimes = list(lifetimes)
        self.started: list[float] = []

    async def __call__(self, *_: Any, **__: Any) -> Any:
        self.started.append(trio.current_time())
        if not self.lifetimes:
            await trio.sleep_forever()
        await trio.sleep(self.lifetimes.pop(0))
        return SimpleNamespace(returncode=1)


async def test_a_worker_that_keeps_ending_is_started_again_ever_later(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = Runner(*[0] * 10, 100, 0)
    monkeypatch.setattr(trio, "run_process", runner)
    program = runpy.run_path(str(EXAMPLES / "processes.py"))
    nursery.start_soon(program["keep_working"], ["a worker"])
    await trio.sleep(1000)
    delays = [later - earlier for earlier, later in itertools.pairwise(runner.started)]
    assert delays[:10] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])
    assert delays[10:] == pytest.approx([100.1, 0.2])  # It was well for a while.
    assert capsys.readouterr().err.startswith("a worker ended with 1, another starts in 0.1 s\n")


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@POSIX
async def test_the_service_may_be_restarted_on_a_socket_that_systemd_holds(nursery: trio.Nursery) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"ws://127.0.0.1:{sock.getsockname()[1]}/"
        run = partial(
            trio.run_process,
            [sys.executable, "-c", ACTIVATE, str(sock.fileno()), *command("service")],
            env=ENVIRONMENT,
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
        )
        with trio.fail_after(60):
            for _ in range(2):
                # It is not there yet, the first time and the second.
                connecting = await trio.open_tcp_stream("127.0.0.1", sock.getsockname()[1])
                process = await nursery.start(run)
                async with open_websocket(url, stream=connecting) as ws:
                    await ws.send("here")
                    assert await ws.receive() == "here"
                    process.terminate()
                    assert [message async for message in ws] == []
                    assert ws.closed == Close(1001, "the server is shutting down")
                assert await process.wait() == 0


@POSIX
async def test_the_tls_server_renews_its_certificate_at_sighup(nursery: trio.Nursery, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def issue() -> bytes:
        issued = authority.issue_cert("127.0.0.1")
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    async def served() -> bytes:
        async with open_websocket(url, ssl_context=trusting) as ws:
            found: bytes = ws.__connection__.transport._tls.getpeercert(binary_form=True)  # type: ignore[attr-defined]
            return found

    first = issue()
    server = await nursery.start(partial(start, "tls_server", "--port", "0", str(certificate), str(key)))
    url = url_in(await printed(server))
    async with open_websocket(url, ssl_context=trusting) as ws:
        assert await served() == first
        second = issue()
        server.send_signal(signal.SIGHUP)
        assert await printed(server) == "certificate renewed\n"
        assert await served() == second
        authority = trustme.CA()
        issue()
        certificate.write_bytes(certificate.read_bytes()[:100])
        server.send_signal(signal.SIGHUP)
        assert (await printed(server)).startswith("the old certificate stays: ")
        authority.configure_trust(trusting)
        assert await served() == second
        await ws.send("here")
        assert await ws.receive() == "here"
    server.terminate()


@pytest.mark.parametrize("call", SEED_CALLS)
def test_the_seed_page_is_in_the_examples(call: str) -> None:
    assert any(call in (EXAMPLES / f"{name}.py").read_text("utf-8") for name in PROGRAMS)


def test_the_page_about_the_seed_names_everything() -> None:
    page = (ROOT / "docs" / "seed.md").read_text("utf-8")
    for name in SEED_NAMES:
        assert name in {*dir(Transaction), "connection"}  # which each instance has
        assert re.search(rf"`{name}\b", page), f"{name}: not in docs/seed.md"
