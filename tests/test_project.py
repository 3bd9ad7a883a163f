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
from trio_pyjo_ws._compiled import COMPILED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trio_pyjo_ws"

TOP_LEVEL = {"trio_pyjo_ws", "tests", "docs", "README.md", "LICENSE", "CHANGELOG.md"}
TOP_LEVEL |= {"pyproject.toml", "noxfile.py"}
SOURCE_DISTRIBUTION = {"PKG-INFO", "setup.cfg"}
"""What setuptools adds to it."""

MAX_LINES = 650

# A module imports only from lines above its own, under TYPE_CHECKING, too.
# "" is the package's __init__, the names that it re-exports.
LAYERS = [
    {"_compiled", "_version", "escaping", "signatures"},
    {"handshake"},
    {"handshake.messages"},
    {"handshake.url", "handshake.forwarded", "handshake.proxy_protocol"},
    {"errors"},
    {"wire", "_engine", "client", "server"},
    {"wire.masking"},
    {"wire.arriving", "wire.states"},
    {"wire.frames", "wire.deflate"},
    {"wire.codec", "wire.fragments"},
    {"wire.inflating"},
    {"wire.protocol"},
    {"handshake.negotiate"},
    {"handshake.http1"},
    {"handshake.redirect", "handshake.tunnel"},
    # An adapter stands above the layer that needs it, which imports it where it is used; or below all, for the user.
    {"adapters"},
    {"adapters.socks", "adapters.typed"},
    {"json_codec"},
    {"options"},
    {"_engine.failures", "_engine.nursery", "_engine.sockets", "_engine.tls_info", "_engine.turn"},
    {"_engine.hub"},
    {"_engine.transport"},
    {"_engine.tls", "_engine.housekeeper"},
    {"_engine.outbox"},
    {"_engine.writing", "_engine.reading", "_engine.heartbeat"},
    {"_engine.channels"},
    {"_engine.events"},
    {"_engine.inbox"},
    {"_engine.connection"},
    {"_engine.sending", "_engine.receiving", "_engine.frame_log", "statistics"},
    {"arguments"},
    {"transaction"},
    {"server.listeners", "server.limits", "server.routing"},
    # An adapter knows its third package and what stands above; the layer that needs one imports it where it is used.
    {"adapters"},
    {"server.authentication", "server.exchange", "client.dialing"},
    {"broadcasting", "client.connecting", "server.session"},
    {"server.serving"},
    {"client.reconnecting", "adapters.asgi"},
    {"rooms.positions"},
    {"rooms.audience"},
    {"rooms.memory", "adapters.redis"},
    {"rooms.joining"},
    {"rooms"},
    {""},
    {"testing.faults", "testing.peer"},
    {"testing.pairs", "testing.server"},
    {"testing.fixtures"},
    {"testing"},
    {"testing.plugin"},
    {"adapters.progress", "adapters.terminal", "adapters.werkzeug"},
    {"cli.show", "cli.arguments", "cli.pipes"},
    {"cli.certificates", "cli.processes", "cli.screens"},
    {"cli.ending"},
    {"cli.talking"},
    {"cli.connect", "cli.serve", "cli.bench"},
    {"cli.inspect", "cli.web"},
    {"cli.demo"},
    {"cli.main"},
    {"cli"},
    {"__main__"},
]
RANK = {module: rank for rank, modules in enumerate(LAYERS) for module in modules}
# Those who name a type of a layer below, which imports them: what an exception and a callback are given.
NAMED_BELOW = {("errors", "wire.frames"), ("arguments", "transaction")}

NEVER = {"asyncio", "random", "threading"}
IN_SPITE_OF_THAT = {"_engine.housekeeper": {"threading"}}  # It starts none: it tells whether a caller is in another.
NEVER_WITHOUT_IO = NEVER | {"socket", "ssl", "time", "trio"}
# exceptiongroup on Python 3.10, where trio brings it
DEPENDENCIES = {"exceptiongroup", "h11", "idna", "multidict", "outcome", "trio"}
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


def imports_of(name: str, nodes: Iterable[ast.AST], *, is_package: bool) -> Iterator[str]:
    """Yield the absolute name of each module that this one imports in ``nodes``."""
    here = ["trio_pyjo_ws", *filter(None, name.split("."))]
    package = here if is_package else here[:-1]
    for node in nodes:
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


def imports_in(name: str, *, types: bool = False) -> set[str]:
    """What a module imports; with ``types``, also what it only names."""
    path = PATHS[name]
    tree = ast.parse(path.read_text("utf-8"))
    return set(imports_of(name, ast.walk(tree) if types else executed(tree), is_package=path.stem == "__init__"))


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
    assert entries - SOURCE_DISTRIBUTION == TOP_LEVEL


def test_no_module_is_longer_than_a_reader_bears() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]
    }
    assert lengths
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


@EVERY_MODULE
def test_imports_go_one_way(name: str) -> None:
    assert name in RANK, "a new module: give it its place in LAYERS"
    rank = RANK[name]
    for imported in filter(is_local, imports_in(name, types=True)):
        module = imported.removeprefix("trio_pyjo_ws").removeprefix(".")
        assert module in RANK, f"{imported}: no such module"
        if (name, module) not in NAMED_BELOW or imported in imports_in(name):
            assert RANK[module] < rank, f"{name or '__init__'} must not import {imported}"


@EVERY_MODULE
def test_nothing_forbidden_is_imported(name: str) -> None:
    never = NEVER_WITHOUT_IO if name.partition(".")[0] in {"wire", "handshake"} else NEVER
    never = never - IN_SPITE_OF_THAT.get(name, set())
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
        ("wire.frames", "from . import masking", {"trio_pyjo_ws.wire.masking"}),
        ("client", "from .wire import frames, deflate", {"trio_pyjo_ws.wire.frames", "trio_pyjo_ws.wire.deflate"}),
        ("testing", "from . import connect", {"trio_pyjo_ws"}),
        ("testing", "def f():\n import trio_pyjo_ws.errors as c", {"trio_pyjo_ws.errors"}),
        ("events", "import trio.lowlevel, ssl", {"trio.lowlevel", "ssl"}),
        ("wire.frames", "import_module('.masking', __package__)", {"trio_pyjo_ws.wire.masking"}),
        ("wire.deflate", "importlib.import_module('zlib_ng.zlib_ng')", {"zlib_ng.zlib_ng"}),
        ("events", "if TYPE_CHECKING:\n import a\nelse:\n import b", {"b"}),
    ],
)
def test_the_walk_finds_each_kind_of_import(name: str, code: str, found: set[str]) -> None:
    assert set(imports_of(name, executed(ast.parse(code)), is_package=False)) == found


def test_the_walk_finds_what_is_only_named() -> None:
    code = "if TYPE_CHECKING:\n from .deflate import Deflate\n\ndef f():\n from . import frames"
    assert set(imports_of("wire.codec", ast.walk(ast.parse(code)), is_package=False)) == {
        "trio_pyjo_ws.wire.deflate",
        "trio_pyjo_ws.wire.frames",
    }


# What is compiled

PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
TWINS = {"wire/masking", "_engine/sockets"}
"""Modules that there are twice, as they want pointers: the .py serves if the .pyx is not compiled."""


@pytest.mark.parametrize("module", COMPILED)
def test_what_is_compiled_has_its_types_beside_it(module: str) -> None:
    assert (PACKAGE / f"{module}.py").is_file()
    assert (PACKAGE / f"{module}.{'pyx' if module in TWINS else 'pxd'}").is_file()
    source = (PACKAGE / f"{module}.{'pyx' if module in TWINS else 'py'}").read_text("utf-8")
    assert source.startswith("# cython: ")


def test_no_source_of_what_is_compiled_is_left_over() -> None:
    found = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.p[xy][dx]")}
    assert found == set(COMPILED)


def test_a_source_distribution_has_all_that_is_compiled() -> None:
    """The sources of the modules are in any; the types beside them are what the package's data names."""
    (named,) = re.findall(r"^trio_pyjo_ws = \[(.*)\]$", PYPROJECT, re.MULTILINE)
    patterns = ast.literal_eval(f"[{named}]")
    for path in PACKAGE.rglob("*.p[xy][dx]"):
        assert any(path.match(f"trio_pyjo_ws/{pattern}") for pattern in patterns), path


def test_package_is_marked_as_typed() -> None:
    assert (resources.files("trio_pyjo_ws") / "py.typed").is_file()


def test_the_pythons_are_those_that_are_tested() -> None:
    (given,) = re.findall(r"^SUPPORTED = (.*)$", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    supported = ast.literal_eval(given)
    assert re.findall(r"Programming Language :: Python :: (3\.\d+)", PYPROJECT) == supported
    assert f'requires-python = ">={supported[0]}"' in PYPROJECT
    for page in ("README.md", "docs/start.md", "docs/contributing.md"):
        named = set(re.findall(r"Python (3\.\d+) to (3\.\d+)", (ROOT / page).read_text("utf-8")))
        assert named == {(supported[0], supported[-1])}, page


def test_readme_has_two_commands_each_with_its_own_environment() -> None:
    environments = [re.match(r"python3 -m venv (\S+) && ", command) for command in commands()]
    assert len(environments) == len({match and match[1] for match in environments}) == 2
    assert all(environments)
    assert commands()[0].endswith("/bin/trio-pyjo-ws demo")
    assert commands()[1].endswith("/bin/nox")


def test_ci_runs_the_readme_test_command() -> None:
    run = ROOT / ".ci" / "run"
    assert re.findall(r"^python3 -m venv .*$", run.read_text("utf-8"), re.MULTILINE) == [commands()[1]]
    assert run.stat().st_mode & 0o100


def test_every_public_name_is_in_the_reference() -> None:
    page = "".join(path.read_text("utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    found = set(re.findall(r"^\.\. auto(?!module)[a-z]+:: (\w[\w.]*)", page, re.MULTILINE))
    assert {*trio_pyjo_ws.__all__, *testing.__all__} <= {name.rpartition(".")[2] for name in found}
    of_instances = {"connection", "reverse_proxy"}
    public = {f"Transaction.{name}" for name in {*dir(Transaction), *of_instances} if name[0] != "_"}
    assert {name for name in found if name.startswith("Transaction.")} == public
    modules = set(re.findall(r"^\.\. automodule:: trio_pyjo_ws\.(\w[\w.]*)", page, re.MULTILINE))
    without_io = [name for name in PATHS if name.startswith(("wire.", "handshake."))]
    assert {name for name in without_io if "._" not in name} <= modules


def test_the_page_about_the_inside_shows_the_layers_in_their_order() -> None:
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


def test_every_line_of_what_is_hostile_has_a_test() -> None:
    """The threats are numbered, and a test is named after its number: test_NN_what_is_owed."""
    tested = [
        int(number)
        for path in (ROOT / "tests" / "hostile").glob("test_*.py")
        for number in re.findall(r"^(?:async )?def test_(\d\d)_", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert set(tested) == set(range(1, 76))
