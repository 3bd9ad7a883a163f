"""The build backend: what it has built, and what it leaves behind if that fails. Its setuptools are the test's."""

from __future__ import annotations

import re
import runpy
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from trio_pyjo_ws._compiled import COMPILED

ROOT = Path(__file__).resolve().parent.parent
BACKEND = ROOT / ".packaging" / "backend.py"


class BuildExt:
    """What the backend's command does more than: it builds one after the other, and passes over what fails."""

    def __init__(self, folder: Path, failures: list[Exception], *compiler: str) -> None:
        self.inplace = False
        self.build_lib = str(folder)
        self.compiler = SimpleNamespace(compiler_so=[*compiler, "-O3"]) if compiler else object()
        self.extensions = [SimpleNamespace(name=f"trio_pyjo_ws.wire.module{number}") for number in range(3)]
        self.failures = failures

    def build_extension(self, _: object) -> None:
        if self.failures:
            raise self.failures.pop()

    def run(self) -> None:
        for extension in self.extensions:
            with suppress(OSError):
                self.build_extension(extension)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the backend."""
    modules = {
        "setuptools": {},
        "setuptools.build_meta": {},
        "setuptools.command": {},
        "setuptools.command.build_ext": {"build_ext": BuildExt},
        "setuptools.command.sdist": {"sdist": object},
    }
    for name, names in modules.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(BACKEND))


def test_what_is_compiled_is_what_is_built() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    built = re.findall(r'^name = "(trio_pyjo_ws\..+)"\nsources = \["(.+)"\]\noptional = true$', project, re.MULTILINE)
    assert len(built) == project.count("[[tool.setuptools.ext-modules]]")
    assert [name for name, _ in built] == [f"trio_pyjo_ws.{name.replace('/', '.')}" for name in COMPILED]
    for (_, source), module in zip(built, COMPILED, strict=True):
        assert (ROOT / source).is_file()
        assert Path(source).with_suffix("") == Path("trio_pyjo_ws", module)
        twin = (ROOT / "trio_pyjo_ws" / module).with_suffix(".pyx").is_file()
        assert source.endswith(".pyx" if twin else ".py")


@pytest.mark.parametrize(
    ("system", "compiling", "linking"),
    [("linux", ["-g0"], ["-Wl,--strip-all"]), ("darwin", ["-g0"], []), ("win32", [], [])],
)
def test_debugging_information_and_symbols_are_left_out(
    system: str,
    compiling: list[str],
    linking: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    backend = request.getfixturevalue("backend")
    command = backend["BuildExt"](tmp_path, [])
    command.run()
    assert [extension.extra_compile_args for extension in command.extensions] == [compiling] * 3
    assert [extension.extra_link_args for extension in command.extensions] == [linking] * 3


def test_every_module_that_is_compiled_has_directives(backend: dict[str, Any]) -> None:
    assert {f"trio_pyjo_ws.{Path(module).parent}" for module in COMPILED} == set(backend["DIRECTIVES"])


def record(backend: dict[str, Any], folder: Path, failures: list[Exception], *compiler: str) -> str | None:
    """What is left beside _compiled.py; None for nothing."""
    file = folder / "trio_pyjo_ws" / "not_compiled.txt"
    file.parent.mkdir(exist_ok=True)
    backend["BuildExt"](folder, failures, *compiler).run()
    return file.read_text() if file.exists() else None


def test_a_build_without_a_compiler_is_recorded_without_a_warning(backend: dict[str, Any], tmp_path: Path) -> None:
    failure = OSError("command 'no-such-cc' failed: No such file or directory")
    assert record(backend, tmp_path, [failure], "no-such-cc") == "there is no C compiler (no-such-cc)\n"


def test_a_build_that_fails_with_a_compiler_warns_once(backend: dict[str, Any], tmp_path: Path) -> None:
    failures = [OSError("more"), OSError("exit code 1")]
    with pytest.warns(
        UserWarning, match=r"failed to build trio_pyjo_ws.wire.module0\. trio_pyjo_ws works without"
    ) as warned:
        assert (
            record(backend, tmp_path, failures, sys.executable)
            == f"{sys.executable} failed to build trio_pyjo_ws.wire.module0\n"
        )
    assert len(warned) == 1
    assert len(failures) == 1  # of the others none was tried


def test_another_system_s_compiler_says_itself_what_is_wrong(backend: dict[str, Any], tmp_path: Path) -> None:
    failure = OSError("Microsoft Visual C++ 14.0\nis required")
    with pytest.warns(UserWarning, match=r"is required\. trio_pyjo_ws works without"):
        assert record(backend, tmp_path, [failure]) == "Microsoft Visual C++ 14.0 is required\n"


def test_a_build_that_succeeds_forgets_the_one_before(backend: dict[str, Any], tmp_path: Path) -> None:
    record(backend, tmp_path, [OSError()], "no-such-cc")
    assert record(backend, tmp_path, [], "no-such-cc") is None
