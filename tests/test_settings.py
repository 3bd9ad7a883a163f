"""The options that client and server share: their defaults, and what is refused before anything happens."""

from __future__ import annotations

import math
import ssl
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from trio_pyjo_ws.settings import (
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

COUNTS = [
    "max_websocket_size",
    "max_empty_fragments",
    "max_queue",
    "max_queue_bytes",
    "write_limit",
    "max_pings_owed",
    "max_header_bytes",
    "max_headers",
]
CLIENT = {
    *["additional_headers", "subprotocols", "origin", "user_agent", "ssl_context", "server_hostname", "proxy", "unix"],
    *["local_address", "max_redirects"],
}
TIMES = ["open_timeout", "close_timeout", "ping_interval", "ping_timeout"]


@pytest.mark.parametrize("codec", [1, "json", object(), {}])
def test_a_json_codec_has_dumps_and_loads(codec: object) -> None:
    with pytest.raises(TypeError, match=r"json is a module or an object with dumps\(\) and loads\(\), not"):
        Settings.of({"json": codec})


def test_every_setting_is_an_option_and_every_option_a_setting() -> None:
    names = {field.name for field in fields(Settings)}
    assert names == set(Options.__annotations__) == {"compression", "json", *COUNTS, *TIMES}


def test_every_setting_of_a_server_is_an_option_and_every_option_a_setting() -> None:
    names = {field.name for field in fields(ServerSettings)}
    assert names | {"proxy_header"} == {*ServerOptions.__annotations__, *Options.__annotations__}


def test_a_server_counts_handshakes_and_nothing_else_unless_it_is_told_to() -> None:
    settings = ServerSettings.of({})
    assert settings.max_handshakes == 1024
    assert settings.max_connections == settings.max_connections_per_address == math.inf
    assert settings.max_message_rate == settings.idle_timeout == math.inf
    assert not settings.trusted_proxies.trusts("127.0.0.1")
    assert ServerSettings.of({"max_handshakes": None}).max_handshakes == math.inf


def test_every_setting_of_a_client_is_one_of_its_options() -> None:
    own = {field.name for field in fields(ClientSettings)} - {field.name for field in fields(Settings)}
    assert own == set(ClientOptions.__annotations__) - set(Options.__annotations__) == CLIENT


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


def test_an_unknown_option_of_a_client_is_named_with_those_there_are() -> None:
    with pytest.raises(
        TypeError, match=r"there is no option 'headers'; there are compression, .*, additional_headers,"
    ):
        ClientSettings.of({"headers": {}})


def test_defaults_bound_everything_that_a_peer_controls() -> None:
    settings = Settings.of({})
    assert settings.compression is None
    assert settings.max_websocket_size == MAX_WEBSOCKET_SIZE == 262_144
    assert all(getattr(settings, name) > 0 for name in COUNTS)
    assert all(0 < getattr(settings, name) < math.inf for name in TIMES)


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


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_kept_as_it_is_given(name: str) -> None:
    assert getattr(Settings.of({name: 1}), name) == 1


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(("value", "seconds"), [(None, math.inf), (math.inf, math.inf), (2, 2.0), (0.5, 0.5)])
def test_a_time_is_seconds_and_none_means_never(name: str, value: float | None, seconds: float) -> None:
    assert getattr(Settings.of({name: value}), name) == seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": 1}, "compression is True, False or a Deflate, not 1"),
        ({"compression": "deflate"}, "compression is True, False or a Deflate, not 'deflate'"),
        ({"timeout": 1}, "there is no option 'timeout'; there are compression, max_websocket_size, "),
        *[({name: True}, f"{name} is a whole number, not True") for name in COUNTS],
        *[({name: 1.0}, f"{name} is a whole number, not 1.0") for name in COUNTS],
        *[({name: "1"}, f"{name} is a number of seconds or None, not '1'") for name in TIMES],
        *[({name: True}, f"{name} is a number of seconds or None, not True") for name in TIMES],
    ],
)
def test_what_is_of_a_wrong_type_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        Settings.of(options)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({name: 0}, f"{name} is at least 1, not 0") for name in COUNTS],
        *[({name: -1}, f"{name} is at least 1, not -1") for name in COUNTS],
        *[({name: 0}, f"{name} is a positive number of seconds or None, not 0") for name in TIMES],
        *[({name: -0.5}, f"{name} is a positive number of seconds or None, not -0.5") for name in TIMES],
        *[({name: math.nan}, f"{name} is a positive number of seconds or None, not nan") for name in TIMES],
    ],
)
def test_what_is_out_of_bounds_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        Settings.of(options)


def test_the_environment_sets_the_size_where_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYJO_MAX_WEBSOCKET_SIZE", "1000")
    assert Settings.of({}).max_websocket_size == 1000
    assert Settings.of({"max_websocket_size": 2000}).max_websocket_size == 2000


def test_an_environment_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYJO_MAX_WEBSOCKET_SIZE", "1 MB")
    with pytest.raises(ValueError, match=r"^PYJO_MAX_WEBSOCKET_SIZE is a number of bytes, not '1 MB'$"):
        Settings.of({})


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError, match="max_queue"):
        Settings.of({}).max_queue = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("context", "unfit"),
    [
        (lambda: None, ssl.PROTOCOL_TLS_SERVER),
        (ssl.create_default_context, ssl.PROTOCOL_TLS_SERVER),
        (lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.PROTOCOL_TLS_CLIENT),
    ],
    ids=["none", "client", "server"],
)
def test_an_ssl_context_of_this_side_passes(context: Callable[[], ssl.SSLContext | None], unfit: int) -> None:
    check_ssl_context(context(), unfit)


def test_an_ssl_context_of_the_other_side_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not of PROTOCOL_TLS_SERVER$"):
        check_ssl_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.PROTOCOL_TLS_SERVER)


def test_an_ssl_context_is_one() -> None:
    with pytest.raises(TypeError, match=r"^ssl_context is an ssl\.SSLContext, not bool$"):
        check_ssl_context(True, ssl.PROTOCOL_TLS_SERVER)  # type: ignore[arg-type]
