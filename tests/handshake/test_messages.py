"""Requests and responses, and what may stand in their headers."""

from __future__ import annotations

import dataclasses
import re
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from trio_pyjo_ws.handshake.messages import (
    Headers,
    Request,
    Response,
    build_headers,
    hide_secrets,
    shorten,
)
from trio_pyjo_ws.handshake.negotiate import refusal

# What h11 lets pass.
LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\x00\n\r\x0b\x0c"), max_size=30)


def trusted(pairs: list[tuple[str, str]]) -> Headers:
    """Headers as they come from the parser of http1."""
    return Headers(CIMultiDict(pairs))


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [("/", "/", ""), ("/a%20b?c=d?e", "/a%20b", "c=d?e"), ("/?", "/", ""), ("*", "*", "")],
)
def test_target_has_a_raw_path_and_query(target: str, path: str, query: str) -> None:
    request = Request("GET", target)
    assert (request.path, request.query) == (path, query)


def test_headers_may_be_a_mapping_or_pairs_and_ignore_case() -> None:
    for headers in ({"X-A": "b"}, [("X-A", "b")], CIMultiDict({"X-A": "b"}), trusted([("X-A", "b")])):
        assert Request("GET", "/", headers).headers["x-a"] == "b"
        assert Response(403, headers).headers["x-a"] == "b"


def test_header_of_the_same_name_is_kept_twice() -> None:
    assert build_headers([("A", "1"), ("a", "2")]).getall("A") == ["1", "2"]


def test_white_space_around_a_value_goes() -> None:
    assert build_headers({"A": " \tb c\t "})["A"] == "b c"


@pytest.mark.parametrize(("method", "target"), [("", "/"), ("G T", "/"), ("GET", ""), ("GET", "/ b"), ("GET", "/\x85")])
def test_request_that_cannot_be_sent_is_refused(method: str, target: str) -> None:
    with pytest.raises(ValueError, match=r"(method|target) must be .*, not '.*'"):
        Request(method, target)


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\n", "Ä"])
def test_header_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"header name must be a token \(RFC 9110, section 5.6.2\), not {re.escape(repr(name))}"
    ):
        build_headers({name: "x"})


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\x00b", "a\r\n", "\u20ac"])
def test_header_value_that_cannot_be_sent_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=f"value of header X must be Latin-1 .*, not {re.escape(repr(value))}"):
        build_headers({"X": value})
    with pytest.raises(ValueError, match="value of header X"):
        Response(403, trusted([("X", value)]))
    with pytest.raises(ValueError, match="reason must be Latin-1"):
        Response(403, reason=value)


@pytest.mark.parametrize("status", [99, 600, -1])
def test_status_that_is_none_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=f"status must be 100 to 599, not {status}"):
        Response(status)


def test_types_that_are_none_are_refused() -> None:
    with pytest.raises(TypeError, match="status must be an int, not '403'"):
        Response("403")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="body must be str or bytes, not int"):
        Response(403, body=5)  # type: ignore[arg-type]


def test_status_may_be_an_http_status() -> None:
    assert repr(Response(HTTPStatus.FORBIDDEN)) == "Response(403, [], b'', '')"


@pytest.mark.parametrize("body", [b"no", bytearray(b"no"), memoryview(b"no")])
def test_body_of_bytes_stays_as_it_is(body: bytes) -> None:
    assert Response(403, body=body) == Response(403, {}, b"no")


def test_body_of_text_becomes_utf_8() -> None:
    response = Response(403, {"X-A": "b"}, "nö")
    assert response.body == b"n\xc3\xb6"
    assert dict(response.headers) == {"X-A": "b", "Content-Type": "text/plain; charset=utf-8"}
    assert dict(Response(403, {"content-type": "text/html"}, "<p>").headers) == {"content-type": "text/html"}


def test_both_are_immutable() -> None:
    for value in (Request("GET", "/"), Response(403)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.headers = trusted([])  # type: ignore[misc]


def test_secrets_are_never_shown() -> None:
    names = ["Authorization", "proxy-authorization", "Cookie", "SET-COOKIE"]
    headers = [(name, "secret") for name in names] + [("X", "shown")]
    for value in (Request("GET", "/", headers), Response(200, headers)):
        assert "secret" not in repr(value)
        assert "('X', 'shown')" in repr(value)
        assert "('Authorization', '...')" in repr(value)
    for name in names:
        with pytest.raises(ValueError, match=f"value of header {name} must be Latin-1 without line breaks and NUL$"):
            build_headers({name: "secret\n"})


def test_long_values_are_shortened_in_messages() -> None:
    assert shorten("a" * 60) == repr("a" * 60)
    assert shorten("a" * 61) == repr("a" * 60) + "... (61 characters)"


def test_refusal_tells_the_client() -> None:
    error = refusal(403, "not you", {"X": "y"})
    assert str(error) == "not you"
    assert error.response is not None
    assert (error.response.status, error.response.headers["X"], error.response.body) == (403, "y", b"not you\n")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Length": 5}, "value of header 'Content-Length' must be a str, not int (write str(value))"),
        ({"X": b"a"}, "value of header 'X' must be a str, not bytes (write value.decode('latin-1'))"),
        ({"X": None}, "value of header 'X' must be a str, not NoneType (leave it out)"),
        ({"X": ["a", "b"]}, "value of header 'X' must be a str, not list"),
        ({1: "a"}, "name of header must be a str, not int (write str(name))"),
        ("X: a", "headers must be a mapping or pairs, not str (write {'Name': 'value'})"),
        (b"X: a", "headers must be a mapping or pairs, not bytes (write {'Name': 'value'})"),
        (None, "headers must be a mapping or pairs, not NoneType (write {'Name': 'value'})"),
        (["X: secret"], "a header must be a pair of name and value, not str (write ('Name', 'value'))"),
        ([("X", "a", "b")], "a header must be a pair of name and value, not tuple (write ('Name', 'value'))"),
    ],
)
def test_headers_are_text(headers: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        build_headers(headers)
    assert str(caught.value) == message


@pytest.mark.parametrize("body", ["no", b"no"])
def test_a_body_in_the_place_of_the_headers_is_named(body: Any) -> None:
    message = rf"^headers must be a mapping or pairs, not {type(body).__name__} \(the body goes as body=\)$"
    with pytest.raises(TypeError, match=message):
        Response(403, body)


def test_a_long_body_is_not_shown_whole() -> None:
    assert repr(Response(403, body=b"a" * 60)) == f"Response(403, [], {b'a' * 60!r}, '')"
    assert repr(Response(403, body=b"a" * 61)) == f"Response(403, [], {b'a' * 60!r}... (61 bytes), '')"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://a/b", "ws://a/b"),
        ("ws://ada:secret@a/b", "ws://...@a/b"),
        ("see ws://ada:sec/ret?#@a/b, ada@example.org", "see ws://...@example.org"),
        ("//a/b?token=secret", "//a/b?..."),
        ("/b?c?d#e", "/b?..."),
        ("/b#access_token=secret", "/b#..."),
        ("ws://ada:sec?ret@a/?b", "ws://...@a/?..."),
        ("ada@example.org // comment", "ada@example.org // comment"),
        ("", ""),
    ],
)
def test_what_is_secret_in_a_url_is_hidden(url: str, shown: str) -> None:
    assert hide_secrets(url) == shown


def test_a_token_in_the_query_or_among_the_subprotocols_is_not_shown() -> None:
    headers = {"Sec-WebSocket-Protocol": "v1, secret", "X-Original-URI": "/chat?token=secret"}
    for value in (Request("GET", "/chat?token=secret", headers), Response(101, headers)):
        assert "secret" not in repr(value)
    assert repr(Request("GET", "/chat?token=secret")) == "Request('GET', '/chat?...', [])"
    with pytest.raises(ValueError, match=r"target must be visible ASCII characters, not '/\?\.\.\.'"):
        Request("GET", "/?secret\n")


# The query


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", []),
        ("a=b&c=d", [("a", "b"), ("c", "d")]),
        ("a=b&a=c", [("a", "b"), ("a", "c")]),
        ("a", [("a", "")]),
        ("a=&=b", [("a", ""), ("", "b")]),
        ("&&a=b&", [("a", "b")]),
        ("a=b=c", [("a", "b=c")]),
        ("a+b=%C3%BC+%2B", [("a b", "ü +")]),
        ("a=%ff&b=%zz&c=%", [("a", "\ufffd"), ("b", "%zz"), ("c", "%")]),
        ("a=b;c=d", [("a", "b;c=d")]),
        ("a=b?c", [("a", "b?c")]),
    ],
)
def test_the_query_has_parameters(query: str, parameters: list[tuple[str, str]]) -> None:
    request = Request("GET", f"/chat?{query}")
    assert list(request.query_parameters.items()) == parameters
    assert request.query == query


def test_parameters_and_cookies_are_parsed_once_and_cannot_be_changed() -> None:
    request = Request("GET", "/?a=b&a=c", {"Cookie": "a=b"})
    assert request.query_parameters is request.query_parameters
    assert request.query_parameters["a"] == "b"
    assert request.query_parameters.getall("a") == ["b", "c"]
    assert not hasattr(request.query_parameters, "add")
    with pytest.raises(TypeError):
        request.cookies["a"] = "c"  # type: ignore[index]
    routed = request.with_path_parameters({"room": "1"})
    assert (routed.query_parameters, routed.cookies) == (request.query_parameters, request.cookies)
    assert routed == request
    assert Request("GET", "/").query_parameters == {}


# Cookies


@pytest.mark.parametrize(
    ("values", "cookies"),
    [
        ([], {}),
        ([""], {}),
        (["a=b"], {"a": "b"}),
        (["a=b; c=d"], {"a": "b", "c": "d"}),
        (["a=b;c=d;;", "e=f"], {"a": "b", "c": "d", "e": "f"}),
        (["a=b=c; d="], {"a": "b=c", "d": ""}),
        (["a=first; a=second", "a=third"], {"a": "first"}),
        (["A=b; a=c"], {"A": "b", "a": "c"}),
        (["\ta =  b c "], {"a": "b c"}),
        # Names that mean something in Set-Cookie, and values that http.cookies would give up at.
        (["path=/; version=1; $x=y"], {"path": "/", "version": "1", "$x": "y"}),
        (['a={"b":[1]}; c=d'], {"a": '{"b":[1]}', "c": "d"}),
        (["nonsense; =b; a=c"], {"a": "c"}),
        (['a="b c"'], {"a": "b c"}),
        (['a="\\"\\\\\\054\\303"'], {"a": '"\\,\xc3'}),
        (['a="b; c="; d=""'], {"a": '"b', "c": '"', "d": ""}),
        # JavaScript's document.cookie sends UTF-8.
        (["gr\xc3\xbc\xc3\x9fe=\xe2\x98\x95; b=\xff"], {"grüße": "☕", "b": "\ufffd"}),
    ],
)
def test_a_request_has_cookies(values: list[str], cookies: dict[str, str]) -> None:
    assert Request("GET", "/", [("Cookie", value) for value in values]).cookies == cookies


@given(st.text(st.characters(max_codepoint=255)))
def test_cookies_of_the_standard_library_come_back(value: str) -> None:
    cookie: SimpleCookie = SimpleCookie({"a": value})
    written = cookie["a"].coded_value
    if written.isascii():  # The rest is not for HTTP.
        assert Request("GET", "/", {"Cookie": f"a={written}"}).cookies == {"a": value}


@given(st.lists(LATIN), st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_nothing_that_a_client_sends_raises(values: list[str], query: str) -> None:
    request = Request("GET", f"/?{query}", trusted([("Cookie", value) for value in values]))
    for name, value in [*request.cookies.items(), *request.query_parameters.items()]:
        assert isinstance(name, str)
        assert isinstance(value, str)
    assert repr(request)
