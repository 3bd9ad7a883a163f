"""The options: their defaults, and what is refused before anything happens."""

from __future__ import annotations

import inspect
import math
import re
import ssl
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trio_pyjo_ws import connect, serve, serve_listeners
from trio_pyjo_ws.options import (
    UNBOUNDED,
    ClientOptions,
    ClientSettings,
    Options,
    ServerOptions,
    ServerSettings,
    Settings,
    check_ssl_context,
)
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.protocol import MAX_WEBSOCKET_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
KINDS: list[tuple[type[Settings], Any]] = [
    (Settings, Options),
    (ClientSettings, ClientOptions),
    (ServerSettings, ServerOptions),
]

COUNTS = [
    *("write_limit", "max_header_bytes"),
    *("max_websocket_size", "max_queue", "max_queue_bytes"),
]
BOUNDS = ["max_websocket_size", "max_queue", "max_queue_bytes"]
"""The counts that may be None."""
BOUNDS_OF_SERVERS = ["max_connections", "max_connections_per_address", "max_handshakes"]
TIMES = ["open_timeout", "close_timeout", "ping_interval", "ping_timeout"]


def own(settings: type[Settings]) -> list[Any]:
    """The fields that a class adds to those of its base."""
    inherited = {field.name for field in fields(Settings)} if settings is not Settings else set()
    return [field for field in fields(settings) if field.name not in inherited]


# The table, and what comes from it


@pytest.mark.parametrize(("settings", "options"), KINDS)
def test_the_typed_dictionaries_are_those_of_the_table(settings: type[Settings], options: Any) -> None:
    assert list(options.__annotations__) == [field.name for field in fields(settings)]


@pytest.mark.parametrize(("settings", "options"), KINDS)
def test_none_is_accepted_where_the_types_say_so(settings: type[Settings], options: Any) -> None:
    for name, annotation in options.__annotations__.items():
        assert isinstance(annotation, str) or hasattr(annotation, "__forward_arg__")
        if "None" in str(annotation):
            settings.of({name: None})
        else:
            with pytest.raises(TypeError if name != "proxy_header" else ValueError):
                settings.of({name: None})


@pytest.mark.parametrize(("settings", "options"), KINDS)
def test_each_default_may_be_given(settings: type[Settings], options: Any) -> None:
    defaults = {field.name: field.metadata["default"] for field in fields(settings)}
    assert settings.of(defaults) == settings.of({})


@pytest.mark.parametrize("settings", [settings for settings, _ in KINDS])
def test_the_page_shows_the_table(settings: type[Settings]) -> None:
    page = PAGE.read_text("utf-8")
    places = []
    for field in own(settings):
        default = field.metadata["default"]
        shown = f"{default:,}" if isinstance(default, int) and not isinstance(default, bool) else f"`{default!r}`"
        row = f"\n| `{field.name}` | {shown} | {field.metadata['meaning']} |\n"
        assert row in page, f"the page shall have{row}"
        places.append(page.index(row))
    assert places == sorted(places)


def test_the_page_has_no_other_options() -> None:
    shown = re.findall(r"^\| `([a-z_]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    table = [field.name for settings, _ in KINDS for field in own(settings)]
    assert shown[: len(table)] == table


# Names that there are not


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    with pytest.raises(
        TypeError, match=r"^unknown option 'colour' \(expected one of compression, .*, max_header_bytes\)$"
    ):
        Settings.of({"colour": "green"})
    with pytest.raises(TypeError, match=r"^unknown option 'colour' \(expected one of .*, additional_headers, "):
        ClientSettings.of({"colour": "green"})


@pytest.mark.parametrize(
    ("settings", "given", "meant"),
    [
        (Settings, "max_websocket_sise", "max_websocket_size"),
        (Settings, "open_time_out", "open_timeout"),
        (Settings, "max_size", "max_websocket_size"),
        (Settings, "max_sise", "max_websocket_size"),
        (Settings, "heartbeat", "ping_interval"),
        (Settings, "compress", "compression"),
        (Settings, "timeout", "open_timeout"),
        (ClientSettings, "extra_headers", "additional_headers"),
        (ClientSettings, "headers", "additional_headers"),
        (ClientSettings, "protocols", "subprotocols"),
        (ClientSettings, "ssl", "ssl_context"),
        (ClientSettings, "streams", "stream"),
        (ServerSettings, "ssl", "ssl_context"),
        (ServerSettings, "origin", "origins"),
        (ServerSettings, "process_request", "on_request"),
        (ServerSettings, "max_connection", "max_connections"),
    ],
)
def test_an_option_of_another_name_is_guessed(settings: type[Settings], given: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"^unknown option '{given}' \(did you mean '{meant}'\?\)$"):
        settings.of({given: 1})


@pytest.mark.parametrize(
    ("settings", "functions"), [(ClientSettings, [connect]), (ServerSettings, [serve, serve_listeners])]
)
def test_the_guess_knows_the_arguments_beside_the_options(settings: type[Settings], functions: list[Any]) -> None:
    known: set[str] = set()
    for function in functions:
        known |= set(inspect.signature(function).parameters) - set(settings.defaults())
    assert known - set(settings.parameters) <= {"nursery", "url", "handler", "listeners", "task_status"}
    assert set(settings.parameters) <= known


# Defaults


def test_defaults_bound_everything_that_a_peer_controls() -> None:
    settings = Settings.of({})
    assert settings.compression is None
    assert settings.max_websocket_size == MAX_WEBSOCKET_SIZE == 262_144
    assert all(0 < getattr(settings, name) < UNBOUNDED for name in COUNTS)
    assert all(0 < getattr(settings, name) < math.inf for name in TIMES)


def test_a_server_counts_handshakes_and_nothing_else_unless_it_is_told_to() -> None:
    settings = ServerSettings.of({})
    assert settings.max_handshakes == 1024
    assert settings.max_connections == settings.max_connections_per_address == UNBOUNDED
    assert settings.max_message_rate == settings.idle_timeout == math.inf
    assert not settings.trusted_proxies.trusts("127.0.0.1")


def test_a_client_sends_what_identifies_nobody_and_asks_the_environment_for_a_proxy() -> None:
    settings = ClientSettings.of({})
    assert settings.user_agent == "trio_pyjo_ws"
    assert settings.proxy is True
    assert settings.max_redirects == 10
    assert not any([settings.additional_headers, settings.subprotocols, settings.origin, settings.ssl_context])
    assert not any([settings.server_hostname, settings.unix, settings.local_address])


def test_what_is_used_for_more_than_one_request_is_kept() -> None:
    settings = ClientSettings.of({"additional_headers": iter([("A", "b"), ("A", "c")]), "subprotocols": iter(["v1"])})
    assert settings.additional_headers.getall("a") == ["b", "c"]
    assert settings.subprotocols == ("v1",)


# Values


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        (True, Deflate()),
        (False, None),
        (None, None),
        (Deflate(server_max_window_bits=9), Deflate(server_max_window_bits=9)),
    ],
)
def test_compression_is_a_switch_or_the_parameters(value: Any, parameters: Deflate | None) -> None:
    assert Settings.of({"compression": value}).compression == parameters


@pytest.mark.parametrize("value", [1, UNBOUNDED])
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_kept_as_it_is_given(name: str, value: int) -> None:
    assert getattr(Settings.of({name: value}), name) == value


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_of_none_is_no_bound(name: str) -> None:
    assert getattr(Settings.of({name: None}), name) == UNBOUNDED


@pytest.mark.parametrize("name", BOUNDS_OF_SERVERS)
def test_a_bound_of_none_is_no_bound_for_servers(name: str) -> None:
    assert getattr(ServerSettings.of({name: None}), name) == UNBOUNDED


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    ("value", "seconds"), [(None, math.inf), (math.inf, math.inf), (10**400, math.inf), (2, 2.0), (0.5, 0.5)]
)
def test_a_time_is_seconds_and_none_means_never(name: str, value: float | None, seconds: float) -> None:
    assert getattr(Settings.of({name: value}), name) == seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": 1}, "compression must be True, False or a Deflate, not 1"),
        ({"compression": "deflate"}, "compression must be True, False or a Deflate, not 'deflate'"),
        *[({name: True}, f"{name} must be an int, not True") for name in COUNTS if name not in BOUNDS],
        *[({name: 1.0}, f"{name} must be an int, not 1.0") for name in COUNTS if name not in BOUNDS],
        *[({name: 1.0}, f"{name} must be an int or None, not 1.0") for name in BOUNDS],
        *[({name: "1"}, f"{name} must be a number of seconds or None, not '1'") for name in TIMES],
        *[({name: True}, f"{name} must be a number of seconds or None, not True") for name in TIMES],
        *[
            ({"json": codec}, f"json must be a module or an object with dumps() and loads(), not {codec!r:.60}")
            for codec in (1, "json", {})
        ],
    ],
)
def test_a_value_of_a_wrong_type_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        Settings.of(options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"origin": b"https://example.org"}, "origin must be a str or None, not b'https://example.org'"),
        ({"user_agent": 5}, "user_agent must be a str or None, not 5"),
        ({"subprotocols": "chat"}, "subprotocols must be a sequence of str, not 'chat'"),
        ({"subprotocols": 5}, "subprotocols must be a sequence of str, not 5"),
        ({"proxy": False}, "proxy must be a URL, True or None, not False"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_to_a_client(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        ClientSettings.of(options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({name: 0}, f"{name} must be at least 1, not 0") for name in COUNTS],
        *[({name: -1}, f"{name} must be at least 1, not -1") for name in COUNTS],
        *[({name: 2**63}, f"{name} must be at most {UNBOUNDED}, not 0x8000000000000000") for name in COUNTS],
        ({"max_queue": 10**5000}, rf"max_queue must be at most {UNBOUNDED}, not 0x[0-9a-f]{{58}}"),
        ({"max_queue": -(10**5000)}, "max_queue must be at least 1, not -0x[0-9a-f]{57}"),
        *[({name: 0}, f"{name} must be a positive number of seconds or None, not 0") for name in TIMES],
        *[({name: -0.5}, f"{name} must be a positive number of seconds or None, not -0.5") for name in TIMES],
        *[({name: math.nan}, f"{name} must be a positive number of seconds or None, not nan") for name in TIMES],
    ],
)
def test_a_value_out_of_bounds_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        Settings.of(options)


def test_the_environment_sets_the_size_unless_an_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYJO_MAX_WEBSOCKET_SIZE", "1000")
    assert Settings.of({}).max_websocket_size == 1000
    assert Settings.of({"max_websocket_size": 2000}).max_websocket_size == 2000


@pytest.mark.parametrize("value", ["1 MB", str(2**63)])
def test_an_environment_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYJO_MAX_WEBSOCKET_SIZE", value)
    with pytest.raises(ValueError, match=r"(?i)max_websocket_size"):
        Settings.of({})


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError, match="max_queue"):
        Settings.of({}).max_queue = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("context", "role"),
    [
        (lambda: None, "client"),
        (lambda: None, "server"),
        (ssl.create_default_context, "client"),
        (lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "server"),
        (lambda: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), "server"),
    ],
)
def test_an_ssl_context_of_this_side_passes(context: Callable[[], ssl.SSLContext | None], role: Any) -> None:
    given = context()
    assert check_ssl_context(given, role) is given


@pytest.mark.parametrize(
    ("protocol", "role", "message"),
    [
        (ssl.PROTOCOL_TLS_SERVER, "client", r"is one for servers \(use ssl\.create_default_context\(\)\)"),
        (ssl.PROTOCOL_TLS_CLIENT, "server", r"is one for clients \(use .*\(ssl\.Purpose\.CLIENT_AUTH\)\)"),
    ],
)
def test_an_ssl_context_of_the_other_side_is_refused(protocol: int, role: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^ssl_context {message}$"):
        check_ssl_context(ssl.SSLContext(protocol), role)


@pytest.mark.parametrize("role", ["client", "server"])
def test_an_ssl_context_is_one(role: Any) -> None:
    with pytest.raises(TypeError, match=r"^ssl_context must be an ssl\.SSLContext or None, not True$"):
        check_ssl_context(True, role)
