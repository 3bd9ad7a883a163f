from __future__ import annotations

from typing import TYPE_CHECKING

from trio_pyjo_ws.adapters.progress import open_progress

if TYPE_CHECKING:
    import pytest


def test_a_bar_grows_on_standard_error_and_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with open_progress(10.0) as show:
        show(5.0)
        half, _ = capsys.readouterr().err, show(10.0)
        full = capsys.readouterr().err
    assert half.count("━") > 0
    assert "\x1b[2K" in capsys.readouterr().err  # the line is erased
    assert "0:00:00" in full
