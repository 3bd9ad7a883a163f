"""What help() and editors show: each option by its name, with its default."""

from __future__ import annotations

import inspect
import pydoc
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

import trio_pyjo_ws
from trio_pyjo_ws import (
    Transaction,
    broadcast,
    broadcast_nowait,
    connect,
    open_websocket,
    reconnecting,
    serve,
    serve_listeners,
)
from trio_pyjo_ws.options import ClientSettings, ServerSettings, Settings
from trio_pyjo_ws.testing import open_memory_pair, open_scripted_pair, serve_memory

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        *[(function, ClientSettings) for function in (connect, open_websocket, reconnecting)],
        *[(function, ServerSettings) for function in (serve, serve_listeners, serve_memory)],
        *[(function, Settings) for function in (open_memory_pair, open_scripted_pair)],
    ],
)
def test_the_signature_names_each_option_with_its_default(
    function: Callable[..., Any], settings: type[Settings]
) -> None:
    parameters = inspect.signature(function).parameters
    assert settings.defaults().items() <= {name: each.default for name, each in parameters.items()}.items()
    hidden = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    assert all(each.kind not in hidden for each in parameters.values())
    assert all(parameters[name].annotation for name in settings.defaults())


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (Transaction.send, "self message text binary json frame compress cb"),
        (Transaction.send_nowait, "self message text binary json frame compress cb"),
        (Transaction.build_message, "self message text binary json frame compress"),
        (broadcast, "transactions message text binary json compress slow code"),
        (broadcast_nowait, "transactions message text binary json compress slow code"),
    ],
)
def test_the_signature_names_each_form_of_a_message(function: Callable[..., Any], names: str) -> None:
    assert list(inspect.signature(function).parameters) == names.split()


def test_what_send_takes_fits_its_signature() -> None:
    signature = inspect.signature(Transaction.send)
    signature.bind(None, "Hello")
    signature.bind(None, print, "Hello", compress=True)
    signature.bind(None, json={"a": 1}, cb=print)
    with pytest.raises(TypeError, match="unexpected keyword argument 'txt'"):
        signature.bind(None, txt="Hello")


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (Transaction.send, ["text:", "binary:", "json:", "frame:", "compress:", "cb:", "= ..."]),
        (connect, ["compression:", "ssl_context:", "open_timeout:", "max_websocket_size:", "The common options are"]),
        (serve, ["compression:", "max_connections:", "idle_timeout:", "The common options are"]),
    ],
)
def test_help_shows_the_options(function: Callable[..., Any], shown: list[str]) -> None:
    page = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert [word for word in shown if word not in " ".join(page.split())] == []


def test_the_package_tells_its_version() -> None:
    assert trio_pyjo_ws.__version__ == metadata.version("trio-pyjo-ws")
