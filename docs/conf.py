"""How Sphinx builds these pages."""

from __future__ import annotations

import math
from importlib import metadata
from typing import TYPE_CHECKING, Any

from sphinx.pycode import ModuleAnalyzer

from trio_pyjo_ws.settings import ClientSettings, ServerSettings, Settings
from trio_pyjo_ws.wire.forwarded import Forwarding

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "trio_pyjo_ws"
author = "The trio_pyjo_ws developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name for it
release = metadata.version("trio-pyjo-ws")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]  # no intersphinx: the build needs no network
exclude_patterns = ["_build", "autobahn", "benchmarks"]  # included in conformance.md and performance.md
# A public name stands in the reference twice, at the top of the package and in its own module; either is a fine target.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]


GIVEN = {
    *("ClientOptions", "JsonCodec", "MemoryServer", "MessageStream", "Options", "Reconnecting", "Router", "Server"),
    *("ServerOptions", "ServerStatistics", "Transaction", "TransactionStatistics", "UnixListener"),
}
SETTINGS = {"Options": Settings, "ClientOptions": ClientSettings, "ServerOptions": ServerSettings}


def shown(value: object) -> str:
    """A default as the caller would give it; the settings have what was made of it."""
    return repr({math.inf: None, Forwarding(): ()}.get(value, value))


def list_options(_app: Sphinx, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Add each of the options to their docstring, with its type, its default and its meaning."""
    kind = name.rpartition(".")[2]
    if kind not in SETTINGS:
        return
    analyzer = ModuleAnalyzer.for_module("trio_pyjo_ws.settings")
    meanings = analyzer.find_attr_docs()
    defaults = SETTINGS[kind].of({})
    for (owner, option), annotation in analyzer.annotations.items():
        meaning = meanings.get((SETTINGS[kind].__name__, option))
        if owner == kind and meaning is not None:
            default = "False" if option == "compression" else shown(getattr(defaults, option))
            lines += [
                "",
                f"``{option}``: ``{annotation}``, by default ``{default}``",
                *[f"    {line}" for line in meaning],
            ]


def hide_constructors(_app: Sphinx, what: str, name: str, *_: Any) -> tuple[str, None] | None:
    """Show no arguments of the classes that a user is given, and does not call."""
    return ("", None) if what == "class" and name.rpartition(".")[2] in GIVEN else None


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-signature", hide_constructors)
    app.connect("autodoc-process-docstring", list_options)
