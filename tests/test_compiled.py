"""Which of the two serves, the compiled modules or their sources: chosen once, at import, and all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import trio_pyjo_ws
from trio_pyjo_ws._compiled import COMPILED

PACKAGE = Path(trio_pyjo_ws.__file__).parent
PROGRAM = """
import json, sys
from importlib import import_module
import trio_pyjo_ws
files = {name: import_module(f"trio_pyjo_ws.{name.replace('/', '.')}").__file__ for name in sys.argv[1:]}
print(json.dumps([trio_pyjo_ws.codec, trio_pyjo_ws.zlib_name, files]))
"""


def serving(pure: str | None, folder: Path = PACKAGE.parent, program: str = PROGRAM) -> tuple[str, str, dict[str, str]]:
    """The names of what serves in a process of its own, and the files that the modules come from."""
    env = {name: value for name, value in os.environ.items() if name != "TRIO_PYJO_WS_PURE"}
    if pure is not None:
        env["TRIO_PYJO_WS_PURE"] = pure
    command = [sys.executable, "-c", program, *COMPILED]
    # Where Python looks first is the working directory.
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True)  # noqa: S603 - ours
    codec, zlib, files = json.loads(done.stdout)
    return codec, zlib, files


def is_compiled(file: str) -> bool:
    return file.endswith(tuple(EXTENSION_SUFFIXES))


def test_these_tests_run_over_what_the_environment_asks_for() -> None:
    pure = os.environ.get("TRIO_PYJO_WS_PURE", "0") not in ("", "0")
    assert trio_pyjo_ws.codec.startswith("pure Python" if pure else "compiled"), "the tests need a C compiler"


@pytest.mark.parametrize("pure", [None, "", "0"])
def test_the_compiled_modules_serve_unless_the_environment_says_otherwise(pure: str | None) -> None:
    codec, _, files = serving(pure)
    assert codec == "compiled"
    assert all(map(is_compiled, files.values()))


@pytest.mark.parametrize("pure", ["1", "yes"])
def test_the_environment_chooses_the_sources_and_the_zlib_of_the_standard_library(pure: str) -> None:
    codec, zlib, files = serving(pure)
    assert (codec, zlib) == (f"pure Python (TRIO_PYJO_WS_PURE={pure} in the environment)", "zlib")
    assert files == {name: str(PACKAGE / f"{name}.py") for name in COMPILED}


def copied(folder: Path, without: str) -> Path:
    """The package as it would be if one of its modules had not been compiled."""

    def ignored(_: str, names: list[str]) -> list[str]:
        return [
            name for name in names if name == "__pycache__" or (is_compiled(name) and name.startswith(f"{without}."))
        ]

    shutil.copytree(PACKAGE, folder / "trio_pyjo_ws", ignore=ignored, copy_function=os.symlink)
    return folder


@pytest.mark.parametrize("missing", COMPILED)
def test_if_one_was_not_compiled_the_sources_of_all_serve(tmp_path: Path, missing: str) -> None:
    """They call each other without Python between, so they are of one kind."""
    folder = copied(tmp_path, missing.rpartition("/")[2])
    codec, _, files = serving(None, folder)
    assert codec == f"pure Python (compiled for another Python: there is no {missing}{EXTENSION_SUFFIXES[0]})"
    assert files == {name: str(folder / "trio_pyjo_ws" / f"{name}.py") for name in COMPILED}


@pytest.mark.parametrize(("pure", "expected"), [("0", "compiled"), ("1", "pure Python")])
def test_the_choice_is_made_before_any_module_of_the_package(pure: str, expected: str) -> None:
    codec, _, files = serving(pure, program=f"import trio_pyjo_ws.wire.masking{PROGRAM}")
    assert codec.startswith(expected)
    assert set(map(is_compiled, files.values())) == {pure == "0"}


def test_a_build_that_failed_is_the_reason(tmp_path: Path) -> None:
    folder = copied(tmp_path, "hub")
    (folder / "trio_pyjo_ws" / "not_compiled.txt").write_text("there is no C compiler (gcc)\n")
    assert serving(None, folder)[0] == (
        "pure Python (not compiled when it was installed: there is no C compiler (gcc))"
    )


def test_a_source_tree_is_the_reason(tmp_path: Path) -> None:
    """Python imports it in place of the installed package, if it is where Python was started."""
    folder = copied(tmp_path, "hub")
    (folder / "pyproject.toml").touch()
    assert serving(None, folder)[0] == f"pure Python (this is the source tree {folder}, not an installed package)"
