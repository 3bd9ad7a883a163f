"""The request and the response of an opening handshake, and what HTTP can carry in their headers (RFC 9110).

Both are checked when they are built: whatever exists can be sent. Their repr leaves out secrets, because they end up in
logs: passwords, tokens, cookies, and the query of a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, NoneType
from typing import Any, Final
from urllib.parse import parse_qsl

from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy

__all__ = [
    "MAX_SHOWN",
    "SECRET_HEADERS",
    "TOKEN",
    "Headers",
    "HeadersLike",
    "Request",
    "Response",
    "build_headers",
    "hide_secrets",
    "is_token",
    "shorten",
]

HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]

MAX_SHOWN: Final = 60
"""Characters of an offending value that a message shows: a log line stays a line, whatever the peer sends."""

SECRET_HEADERS: Final = frozenset(
    # Browsers cannot set Authorization on a WebSocket, so tokens travel as subprotocols (Kubernetes does so).
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "sec-websocket-protocol"}
)
"""Headers whose values are never shown."""

TOKEN: Final = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"  # noqa: S105 - a pattern
"""The pattern of a token (RFC 9110, section 5.6.2)."""

_TOKEN = re.compile(TOKEN)
_TARGET = re.compile(r"[\x21-\x7e]+")
# What h11 takes, so that whatever was parsed can also be built: any byte but those that some parser takes for the end
# of a line.
_VALUE = re.compile(r"[^\x00\n\r\x0b\x0c\u0100-\U0010ffff]*")
_VALUE_IS = "Latin-1 without line breaks and NUL"
_TOKEN_IS = "a token (RFC 9110, section 5.6.2)"  # noqa: S105 - a text
_COOKIE_ESCAPE = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)
# What to do with the value of a header that is not a str.
_HINTS = (
    ((int, float), " (write str({part}))"),
    (bytes, " (write {part}.decode('latin-1'))"),
    (NoneType, " (leave it out)"),
)
_NO_PARAMETERS: dict[str, Any] = {}


class Headers(CIMultiDictProxy[str]):
    """Checked headers. Their repr leaves out secrets: see :data:`SECRET_HEADERS`."""

    __slots__ = ()

    def shown(self) -> list[tuple[str, str]]:
        """Names and values, as they may stand in a log."""
        return [
            (name, "..." if name.lower() in SECRET_HEADERS else hide_secrets(value)) for name, value in self.items()
        ]

    def __repr__(self) -> str:
        return f"Headers({self.shown()!r})"

    def __reduce__(self) -> tuple[Any, ...]:  # type: ignore[override]  # multidict's own cannot be pickled
        return build_headers, (list(self.items()),)


@dataclass(frozen=True, init=False, repr=False)
class Request:
    """The client's opening request. ``target`` is as it stands on the wire: percent-encoded, with its query.

    A server's request has the path and query in ``target`` in any case: if the client sent a whole URL there (RFC 9112,
    section 3.2.2), its host becomes the value of Host.

    ``headers`` is a multidict: names in any case, ``getall`` for repeated ones.
    :class:`Headers` are taken as they are, any others are checked as :func:`build_headers` does.
    """

    method: str
    target: str
    headers: Headers

    def __init__(self, method: str, target: str, headers: HeadersLike = ()) -> None:
        if not is_token(method):
            raise ValueError(f"method must be {_TOKEN_IS}, not {shorten(method)}")
        if _TARGET.fullmatch(target) is None:
            raise ValueError(f"target must be visible ASCII characters, not {shorten(hide_secrets(target))}")
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "target", target)
        # The server's parser has checked its headers already, and makes one of these for every connection.
        checked = headers if isinstance(headers, Headers) else build_headers(headers)
        object.__setattr__(self, "headers", checked)

    @property
    def path(self) -> str:
        """The target up to the first ``?``, as it was sent."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first ``?`` of the target, as it was sent; empty if there is none."""
        return self.target.partition("?")[2]

    @cached_property
    def query_parameters(self) -> MultiDictProxy[str]:
        """The parameters of the query, decoded by :func:`urllib.parse.parse_qsl`: a multidict that cannot be changed.

        A parameter without a value is empty, and invalid UTF-8 becomes U+FFFD. Nothing that a client sends raises.
        """
        return MultiDictProxy(MultiDict(parse_qsl(self.query, keep_blank_values=True)))

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The cookies of the request by name: a mapping that cannot be changed (RFC 6265, section 4.2).

        Of two with the same name the first counts: clients put the one of the longer path first (section 5.4). Quoted
        values are unquoted, and invalid UTF-8 becomes U+FFFD. Anything that is not a cookie is skipped. Nothing that a
        client sends raises.
        """
        cookies: dict[str, str] = {}
        for value in self.headers.getall("Cookie", ()):
            for pair in value.encode("latin-1").decode(errors="replace").split(";"):
                name, equals, text = pair.partition("=")
                name, text = name.strip(" \t"), text.strip(" \t")
                if equals and name:
                    cookies.setdefault(name, _unquote(text))
        return MappingProxyType(cookies)

    @property
    def path_parameters(self) -> Mapping[str, Any]:
        """The values of the parameters in the path of its route, by name; empty if there is no route."""
        return MappingProxyType(self.__dict__.get("_path_parameters", _NO_PARAMETERS))

    def with_path_parameters(self, parameters: Mapping[str, Any]) -> Request:
        """Return the same request with these :attr:`path_parameters`."""
        routed = copy(self)
        routed.__dict__["_path_parameters"] = dict(parameters)
        return routed

    def __getstate__(self) -> dict[str, Any]:
        # The cached properties are computed again: their views can be neither copied nor pickled.
        return {name: value for name, value in vars(self).items() if name not in ("query_parameters", "cookies")}

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {hide_secrets(self.target)!r}, {self.headers.shown()!r})"


@dataclass(frozen=True, init=False, repr=False)
class Response:
    """The server's answer: ``Response(403, body=b"no")``, ``Response(403, {"X-Why": "closed"}, "Come back later")``.

    ``status`` is 100 to 599, ``headers`` a mapping or pairs, ``reason`` the phrase behind the status (the usual one
    if it is empty). A ``str`` as body becomes UTF-8, with a Content-Type of text/plain unless one is given. Raises
    TypeError or ValueError for anything that HTTP cannot carry.
    """

    status: int
    headers: Headers
    body: bytes
    reason: str

    def __init__(
        self,
        status: int,
        headers: HeadersLike = (),
        body: bytes | bytearray | memoryview | str = b"",
        reason: str = "",
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status must be an int, not {status!r:.60}")
        if not 100 <= status <= 599:
            raise ValueError(f"status must be 100 to 599, not {status!r}")
        if _VALUE.fullmatch(reason) is None:
            raise ValueError(f"reason must be {_VALUE_IS}, not {shorten(reason)}")
        given: object = headers
        if isinstance(given, (str, bytes)):
            kind = type(given).__name__
            raise TypeError(f"headers must be a mapping or pairs, not {kind} (the body goes as body=)")
        checked = build_headers(headers)
        if isinstance(body, str):
            if "Content-Type" not in checked:
                checked = build_headers([*checked.items(), ("Content-Type", "text/plain; charset=utf-8")])
            body = body.encode()
        elif not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"body must be str or bytes, not {type(body).__name__}")
        object.__setattr__(self, "status", int(status))
        object.__setattr__(self, "headers", checked)
        object.__setattr__(self, "body", bytes(body))
        object.__setattr__(self, "reason", reason)

    def __repr__(self) -> str:
        body = f"{self.body!r}"
        if len(self.body) > MAX_SHOWN:
            body = f"{self.body[:MAX_SHOWN]!r}... ({len(self.body)} bytes)"
        return f"Response({self.status}, {self.headers.shown()!r}, {body}, {self.reason!r})"


def build_headers(headers: HeadersLike) -> Headers:
    """Headers from a mapping or from pairs.

    Raises ValueError, with the name or value, for one that HTTP cannot carry, and TypeError unless both are str.
    """
    given: object = headers
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"headers must be a mapping or pairs, not {type(given).__name__} (write {{'Name': 'value'}})")
    built: CIMultiDict[str] = CIMultiDict()
    for pair in given.items() if isinstance(given, Mapping) else given:
        name, value = _check_pair(pair)
        if not is_token(name):
            # A whole header line, given as a name by mistake, may hold a secret.
            begin = _TOKEN.match(name)
            is_secret = begin is not None and begin[0].lower() in SECRET_HEADERS
            shown = f"{begin[0]!r}..." if begin and is_secret else shorten(name)
            raise ValueError(f"header name must be {_TOKEN_IS}, not {shown}")
        if _VALUE.fullmatch(value) is None:
            shown = "" if name.lower() in SECRET_HEADERS else f", not {shorten(hide_secrets(value))}"
            raise ValueError(f"value of header {name} must be {_VALUE_IS}{shown}")
        built.add(name, value.strip(" \t"))
    return Headers(built)


def _check_pair(pair: Any) -> tuple[str, str]:
    """Return the name and value of a header, if they are that. What was given is not shown: it may be a secret."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(
            f"a header must be a pair of name and value, not {type(pair).__name__} (write ('Name', 'value'))"
        )
    name, value = pair
    if isinstance(name, str) and isinstance(value, str):
        return name, value
    part, given, of = ("value", value, f" {name!r:.60}") if isinstance(name, str) else ("name", name, "")
    hint = next((hint for kinds, hint in _HINTS if isinstance(given, kinds)), "")
    raise TypeError(f"{part} of header{of} must be a str, not {type(given).__name__}{hint.format(part=part)}")


def is_token(value: str) -> bool:
    """Whether the value is a token (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(value) is not None


def hide_secrets(url: str) -> str:
    """A URL, or a text that may have one in it, without user information, query and fragment.

    A password may hold any of a URL's own characters, so the user information goes up to the last ``@``.
    """
    begin, end = url.find("//"), url.rfind("@")
    if 0 <= begin < end:
        url = f"{url[:begin]}//...{url[end:]}"
    for mark in "?#":
        before, found, _ = url.partition(mark)
        url = f"{before}{found}..." if found else before
    return url


def shorten(value: str) -> str:
    """The value as a literal, cut if it is too long to be shown whole."""
    return repr(value) if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]!r}... ({len(value)} characters)"


def _unquote(value: str) -> str:
    """A cookie's value without quotes and escapes, if it has the quotes that :mod:`http.cookies` writes.

    The standard library's own way to undo that takes quadratic time before Python 3.12.6 and 3.13 (CVE-2024-7592).
    """
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _COOKIE_ESCAPE.sub(lambda found: chr(int(found[1], 8)) if found[1] else found[2], value[1:-1])
