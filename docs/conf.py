"""How Sphinx builds these pages."""

from __future__ import annotations

import builtins
import inspect
import os
import re
import sys
from dataclasses import fields
from importlib import metadata
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.pycode import ModuleAnalyzer

os.environ["TRIO_PYJO_WS_PURE"] = "1"  # The docstrings of attributes and the signatures are in the sources.

import trio_pyjo_ws
from trio_pyjo_ws import testing
from trio_pyjo_ws.options import ClientSettings, ServerSettings, Settings

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "trio_pyjo_ws"
author = "The trio_pyjo_ws developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name for it
release = metadata.version("trio-pyjo-ws")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build", "autobahn", "benchmarks", "soak/*"]  # included in pages
# A public name stands in the reference twice, at the top of the package and in its own module; either is a fine target.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
pygments_dark_style = "github-dark"  # the default one underlines the names of modules


GIVEN = {
    *("ChannelStatistics", "ClientOptions", "EventChannel", "JsonCodec", "MemoryServer", "MessageStream", "Options"),
    *("Reconnecting", "Router", "Server", "ServerOptions", "ServerStatistics", "Transaction", "TransactionStatistics"),
    *("ScriptedWebSocketFixture", "TlsInfo", "UnixListener", "WebSocketPairFixture", "WebSocketServerFixture"),
}
SETTINGS = {"Options": Settings, "ClientOptions": ClientSettings, "ServerOptions": ServerSettings}


def list_options(_app: Sphinx, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Add each of the options to their docstring, with its type, its default and its meaning."""
    kind = name.rpartition(".")[2]
    if kind not in SETTINGS:
        return
    table = {field.name: field.metadata for field in fields(SETTINGS[kind])}
    for (owner, option), annotation in ModuleAnalyzer.for_module("trio_pyjo_ws.options").annotations.items():
        if owner == kind:
            default, meaning = table[option]["default"], table[option]["meaning"].replace("`", "``")
            lines += ["", f"``{option}``: ``{annotation}``, by default ``{default!r}``", f"    {meaning}"]


def shorten_signature(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Hide what a user does not write: the arguments of classes that are given, and those that take misplaced ones."""
    if what == "class" and name.rpartition(".")[2] in GIVEN:
        return "", None
    if signature and "*misplaced" in signature:
        return re.sub(r"\*misplaced: [\w.~]+", "*", signature).replace("*, **", "**"), returns
    return None


def show_as_written() -> None:
    """Show ``**options``, which link to their table, in place of the long signatures that ``help()`` has."""
    for module in (trio_pyjo_ws, testing):
        for function in filter(inspect.isfunction, map(vars(module).get, module.__all__)):
            for each in {function, inspect.unwrap(function)}:
                vars(each).pop("__signature__", None)


# Links to trio and Python by rules, because intersphinx would load its inventories from the network.
TRIO = "https://trio.readthedocs.io/en/stable/reference-"
PYTHON = "https://docs.python.org/3/library/"
TRIO_PAGES = {"testing": "testing", "lowlevel": "lowlevel", "abc": "io", "serve_tcp": "io", "open_tcp_listeners": "io"}
TRIO_PAGES |= dict.fromkeys(("SocketListener", "SocketStream", "SSLListener", "SSLStream"), "io")  # the others: core


def page_elsewhere(target: str) -> str:
    """Return the address of the page that documents a name of trio's or of Python's, or an empty string."""
    first, _, rest = target.partition(".")
    if first == "trio" and rest:
        return f"{TRIO}{TRIO_PAGES.get(rest.partition('.')[0], 'core')}.html"
    found = getattr(builtins, first, None)
    if isinstance(found, type):
        page = (
            "exceptions"
            if issubclass(found, BaseException)
            else "functions"
            if first in {"bool", "float", "int", "object", "type"}
            else ""
        )
        return f"{PYTHON}{page or 'stdtypes'}.html"
    if first in sys.stdlib_module_names:
        module = target if target in sys.modules else target.rpartition(".")[0]
        return f"{PYTHON}{module if module in sys.modules else module.rpartition('.')[0]}.html"
    return ""


def link_elsewhere(_app: Sphinx, _env: Any, node: Any, shown: nodes.Element) -> nodes.reference | None:
    """Sphinx calls this for a reference to what these pages do not have."""
    target = node.get("reftarget", "")
    page = page_elsewhere(target) if node.get("refdomain") == "py" else ""
    anchor = f"module-{target}" if target in sys.modules else target
    return nodes.reference("", "", shown, internal=False, refuri=f"{page}#{anchor}") if page else None


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    show_as_written()
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", list_options)
    app.connect("missing-reference", link_elsewhere)
