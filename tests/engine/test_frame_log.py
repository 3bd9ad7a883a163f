"""PYJO_WEBSOCKET_DEBUG: frames in the log, shortened, and what must not be there."""

from __future__ import annotations

import logging
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws._engine.frame_log import SHOWN, _show, is_wanted
from trio_pyjo_ws.testing import open_memory_pair
from trio_pyjo_ws.wire.frames import Opcode

from ..peer import connected, control, limit_writes
from ..test_examples import ENVIRONMENT, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

logger = logging.getLogger("trio_pyjo_ws")


@pytest.fixture
def debug(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    level, handlers = logger.level, logger.handlers[:]
    monkeypatch.setenv("PYJO_WEBSOCKET_DEBUG", "1")
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "Transaction" not in record.getMessage()]


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("yes", True), ("0", False), ("", False), (None, False)])
def test_the_environment_says_whether(value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYJO_WEBSOCKET_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("PYJO_WEBSOCKET_DEBUG", value)
    assert is_wanted() is wanted


async def test_frames_are_logged_with_their_connection(
    debug: None, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        await ws.send("Hello World!")
        await ws.send(b"\x00\xff")
        peer.send("back", control(Opcode.PING, b"?"), "")
        assert await ws.receive() == "back"
        assert await ws.receive() == ""
        await ws.send(frame=[0, 0, 1, 1, Opcode.TEXT, b"one"])
        await ws.send(frame=[1, 0, 0, 0, Opcode.CONTINUATION, b"two"])
        await ws.send(frame=[1, 0, 0, 0, 11, b"odd"])
        await ws.send(b"large" * 20_000)
        await trio.sleep(1)
        peer.send(control(Opcode.CLOSE, b"\x03\xe8bye"))
        await trio.sleep(1)
        name = ws.connection
        assert lines(caplog) == [
            f"{name} -> TEXT FIN, 12 bytes: 'Hello World!'",
            f"{name} <- TEXT FIN, 4 bytes: 'back'",
            f"{name} <- PING FIN, 1 bytes: '?'",
            f"{name} <- TEXT FIN, 0 bytes",
            f"{name} -> BINARY FIN, 2 bytes: '\\x00\\\\xff'",
            f"{name} -> PONG FIN, 1 bytes: '?'",
            f"{name} -> TEXT RSV2 RSV3, 3 bytes: 'one'",
            f"{name} -> CONTINUATION FIN, 3 bytes",
            f"{name} -> opcode 11 FIN, 3 bytes: 'odd'",
            f"{name} -> BINARY FIN, 100000 bytes: {chr(39)}{('large' * 20)[: SHOWN - 4]}...",
            f"{name} <- CLOSE FIN, 5 bytes: 1000 'bye'",
            f"{name} -> CLOSE FIN, 5 bytes: 1000 'bye'",
        ]
        assert {record.levelname for record in caplog.records} == {"DEBUG"}


async def test_subscribing_to_frames_changes_nothing(
    debug: None, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        async with ws.open_channel("frame") as channel:
            peer.send("seen")
            assert (await channel.receive()).payload == b"seen"
        peer.send("unseen")
        assert await ws.receive() == "seen"
        assert await ws.receive() == "unseen"
        assert [line.rpartition(" ")[2] for line in lines(caplog)] == ["'seen'", "'unseen'"]


async def test_a_compressed_payload_is_not_shown(
    debug: None, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery, compression=True)
        await client.send("password=hunter2", compress=True)
        assert await server.receive() == "password=hunter2"
        assert {line.partition(" ")[2].partition(",")[0] for line in lines(caplog)} == {
            "-> TEXT FIN RSV1",
            "<- TEXT FIN RSV1",
        }
        assert not any(":" in line for line in lines(caplog))
        nursery.cancel_scope.cancel()


async def test_what_was_never_written_is_not_logged(
    debug: None, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, _, nursery):
        limit_writes(ws, 0)

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await ws.send("held up")

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        ws.send_nowait("behind")
        ws.__connection__.end()
    assert [line.rpartition(": ")[2] for line in lines(caplog)] == ["'held up'"]


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"user": "ada", "password": "hunter2", "x": 1}', """'{"user": "ada", "password": ***, "x": 1}'"""),
        (b'{"Access_Token":"ab\\"c","y":2}', """'{"Access_Token":***,"y":2}'"""),
        (b'{"api-key": "cut off in the mid', """'{"api-key": ***'"""),
        (b"{'secret': 'abc'}", """"{'secret': ***}\""""),
        (b"Authorization: Bearer abc.def\r\nHost: x", "'Authorization: ***\\r\\nHost: x'"),
        (b"say Bearer abc.def", "'say Bearer ***'"),
        (b"/?token=abc&room=1", "'/?token=***&room=1'"),
        (b"Cookie: session=abc; theme=dark", "'Cookie: ***; theme=dark'"),
        (b"sessionid=5", "'sessionid=***'"),
        (b"nothing to hide", "'nothing to hide'"),
        (b"\xff\x00", "'\\\\xff\\x00'"),
    ],
)
def test_secrets_are_left_out(payload: bytes, shown: str) -> None:
    assert _show(payload) == shown


def test_a_secret_is_left_out_before_the_payload_is_shortened() -> None:
    shown = _show(b'{"a": "' + b"x" * (SHOWN - 30) + b'", "password": "' + b"hunter2" * 1_000)
    assert "hunter2" not in shown
    assert len(shown) <= SHOWN


@pytest.mark.parametrize("value", ["1", "0"])
def test_a_program_without_logging_shows_it_on_standard_error(value: str) -> None:
    environment: dict[str, Any] = {**ENVIRONMENT, "PYJO_WEBSOCKET_DEBUG": value}
    done = subprocess.run(  # noqa: S603 - ours
        command("typed"), capture_output=True, encoding="utf-8", env=environment, timeout=60, check=True
    )
    assert ('client-2 -> TEXT FIN, 28 bytes: \'{"article":"lamp"' in done.stderr) is (value == "1")
    assert bool(done.stderr) is (value == "1")


async def show_nothing() -> None:
    async with trio.open_nursery() as nursery:
        open_memory_pair(nursery)
        nursery.cancel_scope.cancel()


def test_logging_that_is_set_up_is_left_as_it_is(debug: None) -> None:
    logger.setLevel(logging.WARNING)
    before = logger.handlers[:]  # and pytest's, above
    trio.run(show_nothing)
    assert logger.level == logging.WARNING
    assert logger.handlers == before


def test_logging_that_is_not_set_up_goes_to_standard_error(debug: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "propagate", False)
    trio.run(show_nothing)
    assert logger.level == logging.DEBUG
    assert [type(handler) for handler in logger.handlers] == [logging.StreamHandler]
