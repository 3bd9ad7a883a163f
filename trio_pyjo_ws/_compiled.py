"""Whether the compiled modules serve, or their sources as they stand: chosen once, before one of them is imported.

A module that is compiled lies beside its source, and Python prefers it. So the sources serve by having Python look for
nothing else in these folders. It is all or nothing, as the compiled modules call each other without Python between.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path

__all__ = ["COMPILED", "codec"]

COMPILED = (
    "wire/masking",
    "wire/arriving",
    "wire/codec",
    "wire/inflating",
    "wire/protocol",
    "_engine/turn",
    "_engine/sockets",
    "_engine/transport",
    "_engine/outbox",
    "_engine/inbox",
    "_engine/connection",
    "_engine/hub",
)
"""What is compiled if there is a compiler. pyproject.toml has the same list."""

_HERE = Path(__file__).parent


def _is_there(module: str) -> bool:
    return any((_HERE / f"{module}{suffix}").is_file() for suffix in EXTENSION_SUFFIXES)


def _why_not() -> str:
    """Why the compiled modules cannot serve; empty if they can."""
    pure = os.environ.get("TRIO_PYJO_WS_PURE", "0")
    if pure not in ("", "0"):
        return f"TRIO_PYJO_WS_PURE={pure} in the environment"
    missing = [module for module in COMPILED if not _is_there(module)]
    if not missing:
        return ""
    record = _HERE / "not_compiled.txt"
    if record.is_file():  # written by .packaging/backend.py
        return f"not compiled when it was installed: {record.read_text('utf-8').strip()}"
    if (_HERE.parent / "pyproject.toml").is_file():
        return f"this is the source tree {_HERE.parent}, not an installed package"
    return f"compiled for another Python: there is no {missing[0]}{EXTENSION_SUFFIXES[0]}"


def _choose() -> str:
    reason = _why_not()
    if not reason:
        return "compiled"
    for folder in {str((_HERE / module).parent) for module in COMPILED}:
        sys.path_importer_cache[folder] = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
    return f"pure Python ({reason})"


codec: str = _choose()
"""Which codec is in use: ``"compiled"``, or ``"pure Python (...)"`` with the reason: the environment variable
``TRIO_PYJO_WS_PURE`` is set to 1, the package was installed without a C compiler, its modules could not be compiled, or
what is imported is a source tree."""
