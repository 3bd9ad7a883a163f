"""The pages about coming from another library: their programs talk with each other, and all calls exist."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import trio_pyjo_ws
from trio_pyjo_ws import ClientOptions, ConnectionClosed, HandshakeError, Server, ServerOptions, Transaction, testing

from .conftest import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

PAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "coming-from"
PROGRAMS = PAGES.parent / "examples" / "coming_from"
PRINTED = """\
this is scores.v1
lions 1
lions 2
lions 3
closed with 4000 (stopped)
refused with 401
"""

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(trio_pyjo_ws.__file__).parent.parent)}
INTEROP = pytest.mark.interop
PAIRS = [
    ("before_websockets.py", "after.py"),
    ("before_trio_websocket.py", "after.py"),
    pytest.param("before_aiohttp.py", "after.py", marks=INTEROP),
    pytest.param("before_mojolicious.pl", "after_mojolicious.py", marks=INTEROP),
]

# What the names in the tables stand for: a name in one of these modules, and of variables such as "ws" the types.
OURS: dict[str, list[Any]] = {
    "ws": [Transaction],
    "server": [Server],
    "exc": [ConnectionClosed, HandshakeError],
    "testing": [testing],
}
THEIRS: dict[str, tuple[list[str], dict[str, list[str]], list[str]]] = {
    "websockets": (
        ["websockets.asyncio.client", "websockets.asyncio.server", "websockets.exceptions"],
        {
            "ws": ["ClientConnection", "ServerConnection"],
            "server": ["Server"],
            "exc": ["ConnectionClosed", "InvalidStatus"],
        },
        ["connect"],
    ),
    "trio-websocket": (
        ["trio_websocket"],
        {
            "ws": ["WebSocketConnection"],
            "request": ["WebSocketRequest"],
            "server": ["WebSocketServer"],
            "exc": ["ConnectionClosed", "ConnectionRejected"],
        },
        ["open_websocket_url", "serve_websocket"],
    ),
    "aiohttp": (
        ["aiohttp", "aiohttp.web"],
        {
            "web": ["web"],
            "ws": ["ClientWebSocketResponse", "WebSocketResponse"],
            "session": ["ClientSession"],
            "request": ["Request"],
            "app": ["Application"],
            "runner": ["AppRunner"],
            "exc": ["WSServerHandshakeError"],
        },
        ["ClientSession.ws_connect", "WebSocketResponse"],
    ),
}
# What our ``**options``, the ``**forms`` of send(), and the ``**kwargs`` of websockets take.
OTHERS = {
    "options": {*ClientOptions.__annotations__, *ServerOptions.__annotations__},
    "kwargs": {"sock"},  # websockets passes it on to the event loop
    "forms": {"binary", "compress", "frame", "json", "text"},
}
# Values in the calls, and what is neither side's.
FREE = re.compile(
    "PYJO_MAX_WEBSOCKET_SIZE|PYJO_WEBSOCKET_DEBUG|_|callback|check|code|connections|context|credentials|data|fin|"
    "fragments|handler|headers|host|json|listeners|message|names?|nursery|opcode|origins?|partial|path|payload|port|query|"
    "reason|resource|rsv[123]|seconds|select|socket|ssl_context|status|stream|task|text|transactions|trio|url|users|utf8|value"
)


def command(program: str) -> list[str]:
    if program.endswith(".pl"):
        perl = shutil.which("perl")
        if not perl or subprocess.run([perl, "-e", "use Mojolicious 9"], capture_output=True, check=False).returncode:  # noqa: S603
            missing("no Perl with Mojolicious 9")
        return [str(perl), str(PROGRAMS / program)]
    return [sys.executable, str(PROGRAMS / program)]


@contextmanager
def serving(program: str) -> Iterator[str]:
    """Its URL, while it serves."""
    with subprocess.Popen(command(program), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            yield server.stdout.readline().removeprefix("listening on ").strip()
        finally:
            server.kill()


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_programs_before_and_after_talk_with_each_other(before: str, after: str) -> None:
    for serves, connects in ((before, after), (after, before)):
        with serving(serves) as url:
            client = subprocess.run(  # noqa: S603 - ours
                [*command(connects), url], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
            )
        assert client.stderr == ""
        assert client.stdout == PRINTED


def rows(page: str) -> list[list[str]]:
    """The cells of all tables of a page, but for the heads."""
    lines = (PAGES / f"{page}.md").read_text("utf-8").splitlines()
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines if line.startswith("| ")]
    return [row for row in cells if "`" in "".join(row)]


def parse(span: str) -> ast.AST:
    """The code of a span: an expression, an assignment, or the head of a block."""
    block = ": pass" if re.match(r"async (with|for) ", span) else ""
    return ast.parse("" if span == "async for" else f"async def _():\n  {span}{block}")


def has(kind: Any, name: str) -> bool:
    """Whether it has the attribute, be it one that only instances have."""
    if hasattr(kind, name):
        return True
    makers = [vars(base)["__init__"] for base in getattr(kind, "__mro__", ()) if "__init__" in vars(base)]
    sources = [inspect.getsource(maker) for maker in makers if inspect.isfunction(maker)]
    return any(re.search(rf"\bself\.{name}\b", source) for source in sources)


def takes(function: Any, name: str) -> bool:
    """Whether it has the parameter, be it one of ours that has no place in the signature."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(name in names for rest, names in OTHERS.items() if rest in parameters)


class Side:
    """One side of the tables: looks up what code names."""

    def __init__(self, modules: list[Any], variables: dict[str, list[Any]], functions: list[Any]) -> None:
        self.modules = modules
        self.variables = variables
        self.functions = functions
        """Those whose options have a table of their own."""

    def missed(self, span: str) -> str:
        """What of the span does not exist."""
        try:
            self.check(span)
        except LookupError as exc:
            return str(exc)
        return ""

    def check(self, span: str) -> None:
        for node in ast.walk(parse(span)):
            if isinstance(node, ast.Call):
                partial = ast.unparse(node.func) == "partial"
                functions = self.find(node.args[0] if partial else node.func)
                self.check_keywords(functions, [str(keyword.arg) for keyword in node.keywords])
            elif isinstance(node, ast.Assign) and not isinstance(node.value, (ast.Await, ast.Call)):
                self.check_keywords(self.functions, [ast.unparse(node.targets[0])])
            elif isinstance(node, (ast.Attribute, ast.Name)) and not isinstance(node.ctx, ast.Store):
                self.find(node)

    def check_keywords(self, functions: list[Any], names: list[str]) -> None:
        for name in names:
            if functions and not any(takes(function, name) for function in functions):
                raise LookupError(f"no argument {name}")

    def find(self, node: ast.AST) -> list[Any]:
        """What an expression may stand for; nothing where that is not for this side to say."""
        if isinstance(node, ast.Attribute):
            owners = self.find(node.value)
            if owners and not any(has(owner, node.attr) for owner in owners):
                raise LookupError(f"no attribute {node.attr}")
            found = [getattr(owner, node.attr, None) for owner in owners]
            return [one for one in found if inspect.isroutine(one) or inspect.isclass(one)]
        if (
            not isinstance(node, ast.Name)
            or FREE.fullmatch(node.id)
            or any(takes(one, node.id) for one in self.functions)
        ):
            return []
        found = self.variables.get(node.id) or [vars(one)[node.id] for one in self.modules if node.id in vars(one)]
        if not found:
            raise LookupError(f"no {node.id}")
        return found


def sides(page: str) -> list[Side]:
    ours = Side([trio_pyjo_ws, builtins], OURS, [trio_pyjo_ws.connect, trio_pyjo_ws.serve])
    if page not in THEIRS:
        return [ours]  # The other one is no Python.
    names, kinds, functions = THEIRS[page]
    modules = [importlib.import_module(name) for name in names]
    theirs = Side([*modules, builtins], {}, [])
    theirs.variables = {
        name: [one for kind in found for one in theirs.find(ast.parse(kind, mode="eval").body)]
        for name, found in kinds.items()
    }
    theirs.functions = [one for function in functions for one in theirs.find(ast.parse(function, mode="eval").body)]
    return [theirs, ours]


@pytest.mark.parametrize(
    "page", ["websockets", "trio-websocket", pytest.param("aiohttp", marks=INTEROP), "mojolicious"]
)
def test_the_calls_in_the_tables_exist_on_both_sides(page: str) -> None:
    compared = sides(page)
    unknown = [
        f"{span}: {missed}"
        for row in rows(page)
        for side, cell in zip(reversed(compared), reversed(row), strict=False)
        for span in re.findall("`([^`]+)`", cell)
        if (missed := side.missed(span))
    ]
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize(
    "span", ["ws.recieve()", "conect(nursery, url)", "serve(handler, port, orgins=origins)", "max_que=1"]
)
def test_what_does_not_exist_is_found(span: str) -> None:
    assert sides("mojolicious")[0].missed(span)
