"""What the tests of more than one module of the wire need."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from ..fuzz.pure import IMPLEMENTATIONS, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", params=list(IMPLEMENTATIONS))
def implementation(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """The test module runs over each implementation: what it imports from the compiled modules comes from that one."""
    wire = IMPLEMENTATIONS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in list(vars(request.module).items()):
            found = _counterpart(value, wire)
            if found is not None:
                patch.setattr(request.module, name, found)
        yield wire


def _counterpart(value: Any, wire: Wire) -> Any:
    """What ``value`` is in ``wire``; None if it is nothing of a compiled module."""
    if isinstance(value, ModuleType):
        return getattr(wire, _name_of(value.__name__), None)
    module = getattr(wire, _name_of(getattr(value, "__module__", "")), None)
    return getattr(module, value.__name__, None) if module is not None else None


def _name_of(module: str) -> str:
    package, _, name = module.rpartition(".")
    return name if package == "trio_pyjo_ws.wire" else ""
