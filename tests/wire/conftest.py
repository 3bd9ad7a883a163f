"""What the tests of more than one module of the wire need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trio_pyjo_ws.wire import _codec, _compiled

if TYPE_CHECKING:
    from types import ModuleType

CODECS: dict[str, ModuleType] = {"pure Python": _codec, "compiled": _compiled}


@pytest.fixture(scope="session", params=list(CODECS.values()), ids=list(CODECS))
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """Each codec that is available: the twins hold the same contract."""
    found: ModuleType = request.param
    return found
