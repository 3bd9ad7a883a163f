from __future__ import annotations

import importlib
import sys

import pytest
import trio

from trio_pyjo_ws.adapters import terminal as module
from trio_pyjo_ws.adapters.terminal import Terminal, open_terminal

from ..cli.typist import open_typist


async def test_lines_are_typed_until_control_d() -> None:
    with open_typist() as typist:
        async with open_terminal() as terminal:
            typist.type("Hello\rGrüße\r\r\x04")
            assert [await terminal.read_line() for _ in range(5)] == ["Hello", "Grüße", "", None, None]
            assert not terminal.interrupted


async def test_control_c_is_told_apart() -> None:
    with open_typist() as typist:
        async with open_terminal() as terminal:
            typist.type("half a line\x03")
            assert await terminal.read_line() is None
            assert terminal.interrupted


async def test_a_line_is_edited_and_remembered() -> None:
    with open_typist() as typist:
        async with open_terminal() as terminal:
            typist.type("helo\x1b[Dl\r")
            assert await terminal.read_line() == "hello"
            await terminal.show_note("12:00:00", "a note")  # by then the line is empty again
            with trio.fail_after(10):
                while terminal._session.default_buffer.text != "hello":  # it reads its history in the background
                    typist.type("\x1b[A")  # up
                    await terminal.show_note("12:00:00", "a note")
            typist.type("\r")
            assert await terminal.read_line() == "hello"


async def test_what_is_shown_stands_there_when_the_call_returns() -> None:
    with open_typist() as typist:
        async with open_terminal() as terminal:
            await terminal.show_message("12:00:00", "→", "text 5", "Hello", is_json=False)
            assert "12:00:00 → text 5 Hello\n" in typist.seen
            await terminal.show_note("12:00:01", "a note")
            assert "12:00:01 · a note\n" in typist.seen


async def test_only_json_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with open_typist() as typist:
        async with open_terminal() as terminal:
            await terminal.show_message("12:00:00", "←", "text 9", '{"a": 12}', is_json=False)
            assert '{"a": 12}' in typist.coloured
            await terminal.show_message("12:00:00", "←", "json 9", '{"b": 12}', is_json=True)
            assert '{"b": 12}' in typist.seen
            assert '{"b": 12}' not in typist.coloured


async def test_showing_goes_on_when_the_typing_has_ended() -> None:
    with open_typist() as typist:
        async with open_terminal() as terminal:
            typist.type("\x04")
            assert await terminal.read_line() is None
            await terminal.show_note("12:00:00", "the end")
            assert "the end" in typist.seen


async def test_what_is_shown_at_the_very_end_is_not_lost() -> None:
    with open_typist() as typist:
        async with open_terminal() as terminal, trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(terminal.show_note, "12:00:00", f"note {number}.")
            terminal.exit()
        assert [number for number in range(50) if f"note {number}." not in typist.seen] == []


async def test_cancelling_gives_the_terminal_back() -> None:
    with open_typist() as typist:
        with trio.CancelScope() as scope:
            async with open_terminal():
                scope.cancel()
                await trio.sleep_forever()
        assert typist.coloured.rpartition("\x1b[?2004")[2].startswith("l")  # bracketed paste: not any more


async def test_an_application_that_has_ended_takes_no_calls() -> None:
    with open_typist():
        async with open_terminal() as terminal:
            loop = terminal._session.app.loop
            terminal.exit()
            terminal.exit()
            assert await terminal.read_line() is None
        assert loop is not None
        assert loop.is_closed()
        terminal._session.app.loop = loop  # as one finds it that looks in the last moment
        terminal._in_loop(lambda: pytest.fail("called"))


@pytest.mark.parametrize("missing", ["rich.console", "prompt_toolkit"])
def test_without_the_extra_an_error_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(ImportError, match=r"pip install 'trio-pyjo-ws\[cli\]'"):
        importlib.import_module(module.__name__)
    assert Terminal is module.Terminal
