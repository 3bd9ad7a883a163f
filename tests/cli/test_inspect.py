from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio

from trio_pyjo_ws.cli import main
from trio_pyjo_ws.cli.inspect import describe_frame
from trio_pyjo_ws.wire.frames import build_frame

from .program import Pipes, echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio_pyjo_ws import Server, Transaction

    StartServer = Callable[..., Awaitable[Server]]

HELLO = """\
1... ....  FIN: True
.0.. ....  RSV1: False
..0. ....  RSV2: False
...0 ....  RSV3: False
.... 0001  Opcode: 1 (text)
{mask}
.000 0101  Length: 5
           Payload: b'Hello'
"""
SENT = HELLO.format(mask="1... ....  Mask: True")
RECEIVED = HELLO.format(mask="0... ....  Mask: False")


def describe(*pieces: bytes) -> list[str]:
    return list(describe_frame(bytearray(b"".join(pieces))))


def test_a_frame_bit_by_bit() -> None:
    assert describe(b"\x81\x05Hello") == RECEIVED.splitlines()


def test_a_masked_frame_of_the_rfc() -> None:
    # RFC 6455, section 5.7
    lines = describe(bytes.fromhex("8185 37fa213d 7f9f4d5158"))
    assert lines[5:] == [
        "1... ....  Mask: True",
        ".000 0101  Length: 5",
        "           Masking key: 37 fa 21 3d",
        "           Payload: b'Hello'",
    ]


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (125, ".111 1101  Length: 125"),
        (126, ".111 1110  Length: 126 (in 2 more bytes)"),
        (65_536, ".111 1111  Length: 65536 (in 8 more bytes)"),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_lengths(size: int, line: str, masked: bool) -> None:
    lines = describe(build_frame(0, 1, 1, 1, 11, b"x" * size, masked=masked))
    assert [lines[number].split()[-1] for number in range(4)] == ["False", "True", "True", "True"]
    assert lines[4] == ".... 1011  Opcode: 11 (reserved)"
    assert lines[6] == line
    assert lines[-1].startswith("           Payload: b'xxx")
    assert len(lines[-1]) < 1100


def test_a_frame_is_removed_and_a_part_of_one_is_not() -> None:
    buffer = bytearray(b"\x81\x05Hello\x89\x02?")
    assert len(list(describe_frame(buffer))) == 8
    assert list(describe_frame(buffer)) == []
    assert buffer == b"\x89\x02?"
    assert describe(b"") == describe(b"\x81") == []


async def test_a_live_connection(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo)
    pipes.type("Hello\n")
    pipes.end_input()
    assert await pipes.run("inspect", "--wait", "0.1", str(server.url)) == 0
    shown = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", pipes.read_rest())
    sent, received, close = shown.removesuffix("\n\n").split("\n\n")
    assert f"{sent}\n" == f"→ TIME 11 bytes\n{SENT}"
    assert f"{received}\n" == f"← TIME 7 bytes\n{RECEIVED}"
    assert ".... 1000  Opcode: 8 (close)\n" in close
    assert pipes.told == f"connected to {server.url}\nclosed with 1000\n"


async def test_compressed_messages_are_shown_as_they_travel(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo, compression=True)
    pipes.type("x" * 1000 + "\n")
    pipes.end_input()
    assert await pipes.run("inspect", "--compress", "--wait", "0.1", str(server.url)) == 0
    shown = pipes.read_rest()
    assert shown.count(".1.. ....  RSV1: True") == 2
    assert shown.count(r"Payload: b'\xaa") == 2


async def test_it_ends_as_connect_does(pipes: Pipes, start_server: StartServer) -> None:
    async def leave(ws: Transaction) -> None:
        await ws.finish(4000, "enough")

    server = await start_server(leave)
    assert await pipes.run("inspect", str(server.url)) == 5
    assert pipes.told.endswith("closed by the server with 4000 (enough)\n")
    assert r"Payload: b'\x0f\xa0enough'" in pipes.read_rest()


async def test_captured_bytes(pipes: Pipes, tmp_path: Path) -> None:
    path = tmp_path / "captured"
    path.write_bytes(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n" + b"\x81\x05Hello" * 2)
    assert await pipes.run("inspect", str(path)) == 0
    assert pipes.read_rest() == (
        f"the HTTP of the opening handshake: 42 bytes\n\nat 42: 7 bytes\n{RECEIVED}\nat 49: 7 bytes\n{RECEIVED}\n"
    )


async def test_captured_bytes_that_end_within_a_frame(pipes: Pipes, tmp_path: Path) -> None:
    path = tmp_path / "captured"
    path.write_bytes(b"\x81\x05Hello\x81\x05He")
    assert await pipes.run("inspect", str(path)) == 1
    assert pipes.read_rest() == f"at 0: 7 bytes\n{RECEIVED}\n"
    assert pipes.told == "4 bytes left: not a whole frame\n"


def test_another_target_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for target, reason in [
        ("/no/such/file", "cannot read '/no/such/file': No such file or directory"),
        ("ftp://localhost/", "unsupported URL scheme 'ftp'"),
    ]:
        with pytest.raises(SystemExit) as caught:
            main(["inspect", target])
        assert caught.value.code == 2
        assert reason in capsys.readouterr().err


async def test_a_host_and_port_is_a_server_unless_there_is_a_file(
    pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await pipes.run("inspect", "127.0.0.1:1")
    await trio.Path("127.0.0.1:1").write_bytes(b"\x81")
    assert await pipes.run("inspect", "127.0.0.1:1") == 1
    assert pipes.told == "1 bytes left: not a whole frame\n"


async def test_no_frame_comes_that_was_not_asked_for(
    pipes: Pipes, start_server: StartServer, autojump_clock: trio.testing.MockClock
) -> None:
    async def keep_silent(_: Transaction) -> None:
        await trio.sleep(3600)

    server = await start_server(keep_silent, ping_interval=None)
    assert await pipes.run("inspect", "--wait", "inf", str(server.url)) == 0
    assert re.findall(r"Opcode: \d+ \((\w+)\)", pipes.read_rest()) == ["close"]
