"""What the hostile tests run over: both roles, streams in memory and sockets."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from .attack import attacked as open_attacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["client", "server"])
def role(request: pytest.FixtureRequest) -> Any:
    """The role of the library; the peer has the other."""
    return request.param


@pytest.fixture(params=["memory", "socket"])
def over(request: pytest.FixtureRequest) -> Any:
    """What the connection is over."""
    return request.param


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a peer does is no error of ours: nothing is logged as one."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def attacked(role: str, quiet: None) -> Callable[..., Any]:
    """Opens a connection whose peer is hostile: ``async with attacked(**options) as peer``.

    In memory, or over a socket where the test says so. Where memory is measured it does: what is on its way is in the
    kernel then, and not counted.
    """
    return partial(open_attacked, role)
