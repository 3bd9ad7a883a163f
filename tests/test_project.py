"""The project itself: what lies where, who imports whom, and what the README promises."""

from __future__ import annotations

import ast
import fnmatch
import re
import runpy
import sys
from importlib import resources
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trio_pyjo_ws
from trio_pyjo_ws import Transaction, testing

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trio_pyjo_ws"

TOP_LEVEL = {"trio_pyjo_ws", "tests", "docs", "pyproject.toml", "noxfile.py", "README.md", "LICENSE", "CHANGELOG.md"}
MAX_LINES = 650

# A module imports only from lines above its own. "" is the package's __init__, the names that it re-exports.
ROOMS = [
    {"errors", "figures"},
    {"wire._codec", "wire._compiled"},
    {"wire.frames"},
    {"wire.deflate"},
    {"wire.fragments", "wire.states"},
    {"wire.protocol"},
    {"wire.negotiate"},
    {"wire.forwarded"},
    {"wire.http1"},
    {"wire.redirect", "wire.tunnel"},
    {"wire"},
    # An adapter stands above the room that needs it, which imports it where it is used; or below all, for the user.
    {"adapters"},
    {"adapters.socks", "adapters.typed"},
    {"objects"},
    {"settings"},
    {"transport"},
    {"events"},
    {"housekeeper"},
    {"debugging", "forms"},
    {"writer"},
    {"keepalive"},
    {"connection"},
    {"attributes"},
    {"channels", "streaming"},
    {"transaction"},
    {"listeners", "limits", "routing"},
    # An adapter knows its third package and what stands above; the room that needs one imports it where it is used.
    {"adapters"},
    {"authentication", "dialing"},
    {"broadcasting", "client", "server"},
    {"reconnection"},
    {""},
    {"testing.faults", "testing.peer"},
    {"testing.pairs", "testing.server"},
    {"testing"},
    {"testing.plugin"},
    {"adapters.progress", "adapters.terminal", "adapters.werkzeug"},
    {"cli.show", "cli.arguments", "cli.pipes"},
    {"cli.ending"},
    {"cli.connect", "cli.serve", "cli.bench"},
    {"cli.inspect", "cli.web"},
    {"cli.demo"},
    {"cli.main"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}

NEVER = {"asyncio", "random", "threading"}
NEVER_IN_WIRE = NEVER | {"socket", "ssl", "time", "trio"}
DEPENDENCIES = {"h11", "multidict", "trio"}
# A third package outside of the adapters, and why.
OPTIONAL = {
    "testing.plugin": {"pytest"},  # its fixtures: pytest imports it
    "wire.deflate": {"zlib_ng"},  # the same zlib, faster: where it is not installed nothing is missing
}


def module_name(path: Path) -> str:
    """Return the dotted name inside the package: "wire.frames"; that of an __init__ is its package's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
EVERY_MODULE = pytest.mark.parametrize("name", PATHS, ids=lambda name: name or "__init__")


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, except what stands under `if TYPE_CHECKING:`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for other in child.orelse:
                yield from executed(other)
        else:
            yield from executed(child)


def imports_of(name: str, tree: ast.AST, *, is_package: bool) -> Iterator[str]:
    """Yield the absolute name of each module that this one imports, wherever in its code."""
    here = ["trio_pyjo_ws", *filter(None, name.split("."))]
    package = here if is_package else here[:-1]
    for node in executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                # `from .wire import frames` imports a module, `from .wire.frames import Frame` a name.
                inner = f"{base}.{alias.name}"
                yield inner if inner.removeprefix("trio_pyjo_ws.") in RANK else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            given = ast.literal_eval(node.args[0])
            yield resolve_name(given, ".".join(package))


def imports_in(name: str) -> set[str]:
    path = PATHS[name]
    return set(imports_of(name, ast.parse(path.read_text("utf-8")), is_package=path.stem == "__init__"))


def is_local(imported: str) -> bool:
    return imported.partition(".")[0] == "trio_pyjo_ws"


def commands() -> list[str]:
    """Return the README's commands: the lines that begin with `python3`."""
    return re.findall(r"^python3 .*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)


def test_top_level_holds_only_the_named_entries() -> None:
    # What .gitignore names at the top (environments, builds) is no part of the project. Asking git instead would
    # answer nothing in an unpacked archive.
    patterns = [
        line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines() if line and line[0] != "#"
    ]
    entries = {
        path.name
        for path in ROOT.iterdir()
        if path.name[0] != "." and not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
    }
    assert entries == TOP_LEVEL


def test_no_module_is_longer_than_a_reader_bears() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]
    }
    assert lengths
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


@EVERY_MODULE
def test_imports_go_one_way(name: str) -> None:
    assert name in RANK, "a new module: give it its place in ROOMS"
    rank = RANK[name]
    for imported in filter(is_local, imports_in(name)):
        room = imported.removeprefix("trio_pyjo_ws").removeprefix(".")
        assert room in RANK, f"{imported}: no such module"
        assert RANK[room] < rank, f"{name or '__init__'} must not import {imported}"


@EVERY_MODULE
def test_nothing_forbidden_is_imported(name: str) -> None:
    never = NEVER_IN_WIRE if name.partition(".")[0] == "wire" else NEVER
    assert not {imported.partition(".")[0] for imported in imports_in(name)} & never


@EVERY_MODULE
def test_only_adapters_need_a_third_package(name: str) -> None:
    allowed = DEPENDENCIES | OPTIONAL.get(name, set()) | set(sys.stdlib_module_names)
    if name.partition(".")[0] != "adapters":
        assert not {imported.partition(".")[0] for imported in imports_in(name) if not is_local(imported)} - allowed


@pytest.mark.parametrize("name", [name for name, path in PATHS.items() if path.stem == "__init__"])
def test_init_only_re_exports(name: str) -> None:
    tree = ast.parse(PATHS[name].read_text("utf-8"))
    imported: set[str] = set()
    exported: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name for alias in node.names if node.module != "__future__"}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            exported = set(ast.literal_eval(node.value))
        else:
            assert isinstance(node, ast.Expr), f"{ast.unparse(node)}: only imports and __all__ belong here"
            assert isinstance(node.value, ast.Constant), f"{ast.unparse(node)}: only a docstring stands alone"
    assert imported == exported


@pytest.mark.parametrize(
    ("name", "code", "found"),
    [
        ("wire.frames", "from ..errors import ProtocolError", {"trio_pyjo_ws.errors"}),
        ("wire.frames", "from . import _codec", {"trio_pyjo_ws.wire._codec"}),
        ("client", "from .wire import frames, http1", {"trio_pyjo_ws.wire.frames", "trio_pyjo_ws.wire.http1"}),
        ("testing", "from . import connect", {"trio_pyjo_ws"}),
        ("testing", "def f():\n import trio_pyjo_ws.client as c", {"trio_pyjo_ws.client"}),
        ("events", "import trio.lowlevel, ssl", {"trio.lowlevel", "ssl"}),
        ("wire.frames", "import_module('._compiled', __package__)", {"trio_pyjo_ws.wire._compiled"}),
        ("wire.deflate", "importlib.import_module('zlib_ng.zlib_ng')", {"zlib_ng.zlib_ng"}),
        ("events", "if TYPE_CHECKING:\n import a\nelse:\n import b", {"b"}),
    ],
)
def test_the_walk_finds_each_kind_of_import(name: str, code: str, found: set[str]) -> None:
    assert set(imports_of(name, ast.parse(code), is_package=False)) == found


def test_package_is_marked_as_typed() -> None:
    assert (resources.files("trio_pyjo_ws") / "py.typed").is_file()


def test_readme_has_two_commands_each_with_its_own_environment() -> None:
    environments = [re.match(r"python3 -m venv (\S+) && ", command) for command in commands()]
    assert len(environments) == len({match and match[1] for match in environments}) == 2
    assert all(environments)
    assert commands()[0].endswith("/bin/python -m trio_pyjo_ws demo")
    assert commands()[1].endswith("/bin/nox")


def test_ci_runs_the_readme_test_command() -> None:
    run = ROOT / ".ci" / "run"
    assert re.findall(r"^python3 -m venv .*$", run.read_text("utf-8"), re.MULTILINE) == [commands()[1]]
    assert run.stat().st_mode & 0o100


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    found = set(re.findall(r"^\.\. auto(?!module)[a-z]+:: (\w[\w.]*)", page, re.MULTILINE))
    assert {*trio_pyjo_ws.__all__, *testing.__all__} <= {name.rpartition(".")[2] for name in found}
    of_instances = {"connection", "reverse_proxy"}
    public = {f"Transaction.{name}" for name in {*dir(Transaction), *of_instances} if name[0] != "_"}
    assert {name for name in found if name.startswith("Transaction.")} == public
    modules = set(re.findall(r"^\.\. automodule:: trio_pyjo_ws\.(\w[\w.]*)", page, re.MULTILINE))
    assert {name for name in PATHS if name.startswith("wire.") and "._" not in name} <= modules


def test_the_page_about_the_inside_shows_the_rooms_in_their_order() -> None:
    page = (ROOT / "docs" / "inside.md").read_text("utf-8")
    shown = ["" if name == "__init__" else name for name in re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE)]
    assert sorted(shown) == sorted(RANK)
    ranks = [RANK[name] for name in shown if name != "adapters"]
    assert ranks == sorted(ranks)


def test_the_picture_of_the_states_is_current() -> None:
    drawing = runpy.run_path(str(ROOT / "docs" / "states.py"))
    assert drawing["draw"]() == drawing["PICTURE"].read_text("utf-8"), "python docs/states.py draws it again"


def test_contributing_names_every_session() -> None:
    page = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    sessions = re.findall(r"^@nox.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(sessions)


def test_readme_shows_the_examples_as_they_are() -> None:
    shown = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    examples = [path.read_text("utf-8") for path in sorted((ROOT / "docs" / "examples").glob("*.py"))]
    assert shown
    assert [block for block in shown if block not in examples] == []


def test_every_line_of_what_is_hostile_has_a_test() -> None:
    """The threats are numbered, and a test is named after its number: test_NN_what_is_owed."""
    tested = [
        int(number)
        for path in (ROOT / "tests" / "hostile").glob("test_*.py")
        for number in re.findall(r"^(?:async )?def test_(\d\d)_", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert set(tested) == set(range(1, 76))
