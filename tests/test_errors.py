"""The exceptions: they survive a copy and a pickle with all that they carry, and what they quote is safe to print."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import trio_pyjo_ws
from trio_pyjo_ws import (
    Close,
    ConnectionClosed,
    Frame,
    HandshakeError,
    LocalProtocolError,
    Missed,
    Opcode,
    ProtocolError,
    RemoteProtocolError,
    Request,
    Response,
    RoomsUnavailable,
)
from trio_pyjo_ws.handshake.messages import Headers, build_headers

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = "x)\r\nCRITICAL: \x1b[31m\x9b31m\u2028\u202e"
HARMLESS = r"x)\r\nCRITICAL: \x1b[31m\x9b31m\u2028\u202e"

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {number}": number for number in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.fixture(params=COPIES.values(), ids=COPIES)
def again(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """One of the ways to have a value a second time."""
    way = request.param
    return way if callable(way) else lambda value: pickle.loads(pickle.dumps(value, way))  # noqa: S301 - our own


RESPONSE = Response(403, [("Set-Cookie", "a=1"), ("set-cookie", "b=2")], "no", "Not today")

EXCEPTIONS = [
    ProtocolError("a rule"),
    LocalProtocolError("not now"),
    RemoteProtocolError("too much", 1009),
    HandshakeError("lost"),
    HandshakeError("expected status 101, found 403", RESPONSE),
    ConnectionClosed(Close(4000, "bye")),
    ConnectionClosed(Close(1006)),
    Missed("not all messages are kept"),
    RoomsUnavailable("no connection to the broker"),
]


def test_all_the_exceptions_of_the_package_are_tried() -> None:
    public = [getattr(trio_pyjo_ws, name) for name in trio_pyjo_ws.__all__]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, BaseException)}
    assert kinds == {type(exc) for exc in EXCEPTIONS}


@pytest.mark.parametrize("exc", EXCEPTIONS, ids=repr)
def test_an_exception_has_its_text_and_attributes_in_a_copy(exc: Exception, again: Callable[[Any], Any]) -> None:
    exc.added = "by its user"  # type: ignore[attr-defined]
    another = again(exc)
    assert another is not exc
    assert type(another) is type(exc)
    assert (str(another), repr(another), another.args) == (str(exc), repr(exc), exc.args)
    assert vars(another) == vars(exc)


ROUTED = Request("GET", "/feed/7?a=b&c", {"Cookie": "session=1; theme=dark"}).with_path_parameters({"room": 7})
assert ROUTED.cookies  # Both are kept from now on.
assert ROUTED.query_parameters


@pytest.mark.parametrize(
    "value",
    [
        Close(4000, "bye"),
        Frame(True, False, False, False, Opcode.TEXT, b"Hello"),
        build_headers([("A", "1"), ("a", "2"), ("B", "3")]),
        Request("GET", "/chat?token=secret", {"Authorization": "Bearer secret"}),
        ROUTED,
        RESPONSE,
    ],
    ids=repr,
)
def test_so_have_the_values_that_they_carry(value: Any, again: Callable[[Any], Any]) -> None:
    another = again(value)
    assert type(another) is type(value)
    assert another == value
    assert repr(another) == repr(value)


def test_a_request_has_its_parameters_and_cookies_in_a_copy(again: Callable[[Any], Any]) -> None:
    another = again(ROUTED)
    assert another.path_parameters == {"room": 7}
    assert another.cookies == {"session": "1", "theme": "dark"}
    assert another.query_parameters.getone("a") == "b"


def test_headers_keep_their_order_and_their_names_in_any_case(again: Callable[[Any], Any]) -> None:
    another = again(build_headers([("A", "1"), ("B", "2"), ("a", "3")]))
    assert isinstance(another, Headers)
    assert list(another.items()) == [("A", "1"), ("B", "2"), ("a", "3")]
    assert another.getall("A") == ["1", "3"]


@pytest.mark.parametrize(
    "exc",
    [
        ProtocolError(HOSTILE),
        LocalProtocolError(HOSTILE),
        RemoteProtocolError(HOSTILE, 1007),
        HandshakeError(HOSTILE),
        HandshakeError(HOSTILE, Response(403, reason="\x9b31m")),
        ConnectionClosed(Close(4000, HOSTILE)),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_what_they_quote_of_a_peer_is_safe_to_log_and_to_print(exc: Exception, again: Callable[[Any], Any]) -> None:
    for shown in (str(exc), str(again(exc)), repr(exc)):
        assert shown.isprintable()
    assert HARMLESS in str(exc)


def test_the_reason_itself_is_kept_as_it_came() -> None:
    assert ConnectionClosed(Close(4000, HOSTILE)).close.reason == HOSTILE


def test_the_end_of_a_connection_is_shown_with_code_and_reason() -> None:
    assert str(ConnectionClosed(Close(4000, "bye"))) == "connection closed with 4000 (bye)"
    assert str(ConnectionClosed(Close(1006))) == "connection closed with 1006"
    assert repr(ConnectionClosed(Close(4000, "bye"))) == "ConnectionClosed(Close(code=4000, reason='bye'))"
