"""The build backend: setuptools, configured in pyproject.toml, with the commands below.

A file beside pyproject.toml could say the same; this one keeps the root of the project for those who use it.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from threading import Lock  # noqa: TID251 - the threads are of the build, and none of the package
from typing import TYPE_CHECKING

from setuptools.build_meta import *  # noqa: F403 - the hooks of a build backend (PEP 517)
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

if TYPE_CHECKING:
    from setuptools import Extension

PACKAGE = Path(__file__).resolve().parent.parent / "trio_pyjo_ws"

# Debugging information is five sixths of a module. Only the compilers of Unix are asked for it in the first place.
COMPILE_ARGS = [] if sys.platform == "win32" else ["-g0"]
LINK_ARGS = ["-Wl,--strip-all"] if sys.platform == "linux" else []  # the names of static functions

# What Cython makes by default and nobody needs: methods for pickle, and in private modules functions that can be
# inspected.
DIRECTIVES: dict[str, dict[str, bool]] = {
    "trio_pyjo_ws.wire": {"auto_pickle": False},
    "trio_pyjo_ws._engine": {"auto_pickle": False, "binding": False},
}

HINT = "trio_pyjo_ws works without its compiled modules, several times slower; `pip install --verbose` shows more"


class BuildExt(build_ext):
    """Builds what is compiled, and records why it was not, for `trio_pyjo_ws.codec` to tell."""

    failure: Exception | None = None
    reason = ""
    translating = Lock()
    """Cython translates one module at a time; the C compilers, which take five sixths of the time, run side by side."""

    def finalize_options(self) -> None:
        """Use all processors."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, ext: Extension) -> None:
        """Build one. Each is optional, so setuptools goes on after a failure; but they serve all together, or none."""
        if self.failure is not None:
            raise self.failure
        ext.extra_compile_args, ext.extra_link_args = COMPILE_ARGS, LINK_ARGS
        ext.cython_directives = DIRECTIVES[ext.name.rpartition(".")[0]]
        try:
            with ExitStack() as ext.before_compiling:
                ext.before_compiling.enter_context(self.translating)
                super().build_extension(ext)
        except Exception as exc:
            self.failure, self.reason = exc, " ".join(str(exc).split())
            command = getattr(self.compiler, "compiler_so", None)  # of the compilers of Unix
            if command and shutil.which(command[0]) is None:
                self.reason = f"there is no C compiler ({command[0]})"
                raise
            if command:
                self.reason = f"{command[0]} failed to build {ext.name}"
            warnings.warn(f"{self.reason}. {HINT}", stacklevel=1)
            raise

    def swig_sources(self, sources: list[str], extension: Extension) -> list[str]:
        """Called between translating and compiling: let the next module be translated."""
        extension.before_compiling.close()
        return super().swig_sources(sources, extension)

    def run(self) -> None:
        """Build all, and leave the reason beside `_compiled.py`."""
        super().run()
        record = (PACKAGE if self.inplace else Path(self.build_lib) / PACKAGE.name) / "not_compiled.txt"
        record.unlink(missing_ok=True)
        if self.reason:
            record.write_text(f"{self.reason}\n", "utf-8")


class Sdist(sdist):
    """A source distribution that can be tested: with the tests, the pages and all that builds them."""

    def make_distribution(self) -> None:
        """Pack it."""
        files = self.filelist
        for folder in ("tests", "docs", ".packaging"):
            files.graft(folder)
        files.extend(["noxfile.py", "CHANGELOG.md", ".gitignore", ".ci/run"])
        files.prune("docs/_build")
        for built in ("*.c", "*.so", "*.py[cod]"):
            files.global_exclude(built)
        super().make_distribution()
