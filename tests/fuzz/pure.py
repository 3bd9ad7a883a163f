"""The compiled modules of the wire a second time, from their sources: to test both in one run, and to compare them.

The sources are imported under the name of another package, so that they refer to each other. All that is not compiled,
the exceptions among it, is the same object in both.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import trio_pyjo_ws

__all__ = ["IMPLEMENTATIONS", "Wire"]

INSTALLED = "trio_pyjo_ws"
SOURCES = "pure_trio_pyjo_ws"
SHARED = ["errors", "wire.frames", "wire.deflate", "wire.fragments", "wire.states"]


class Wire(NamedTuple):
    """The modules of the wire that are compiled if there is a compiler."""

    masking: Any
    arriving: Any
    codec: Any
    inflating: Any
    protocol: Any

    @classmethod
    def of(cls, package: str) -> Wire:
        return cls(*(import_module(f"{package}.wire.{name}") for name in cls._fields))


def _from_sources() -> Wire:
    # Another spelling of the folder, for which Python is to look for sources only.
    folder = f"{Path(trio_pyjo_ws.__file__).parent / 'wire'}/."
    sys.path_importer_cache[folder] = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
    for name, path in ((SOURCES, []), (f"{SOURCES}.wire", [folder])):
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = path
    for name in SHARED:
        sys.modules[f"{SOURCES}.{name}"] = import_module(f"{INSTALLED}.{name}")
    return Wire.of(SOURCES)


IMPLEMENTATIONS = {trio_pyjo_ws.codec.partition(" (")[0]: Wire.of(INSTALLED)}
"""What serves, by its name; and if that is compiled, what would serve if it were not."""

if trio_pyjo_ws.codec == "compiled":
    IMPLEMENTATIONS["pure Python"] = _from_sources()
