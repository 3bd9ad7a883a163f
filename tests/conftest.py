"""What holds for all tests."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from trio_pyjo_ws import codec, zlib_name
from trio_pyjo_ws._engine import heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

# The servers of the tests are on this machine; a proxy that the environment names has no way to them.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]


def pytest_report_header() -> str:
    """What the tests run over: nox runs all of them over either."""
    return f"trio_pyjo_ws: {codec}, {zlib_name}"


@pytest.fixture(autouse=True)
def regular_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ping falls into any part of the interval's second half. Here it falls at its end, as all others do."""
    monkeypatch.setattr(heartbeat, "randbelow", lambda below: below - 1)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The messages and exceptions that were logged as errors so far."""

    def logged() -> list[str]:
        records = [record for record in caplog.records if record.levelno >= logging.WARNING]
        return [f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}" for record in records]

    return logged
