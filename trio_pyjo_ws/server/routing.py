"""Routing: from the path of a request to its handler.

``{"/chat": chat, "/feed/{room}": feed}``: a pattern is a path, and a segment of it in braces matches any one segment
that is not empty. There are no other rules; converters and redirects, as web frameworks have them, come from werkzeug
by :mod:`trio_pyjo_ws.adapters.werkzeug`, or from any object with a method ``route``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import unquote

from ..handshake.messages import Request, Response, shorten
from ..transaction import Transaction

__all__ = ["Handler", "Route", "Router", "Routes"]

Handler = Callable[[Transaction], Awaitable[object]]
"""Called with each transaction once it is open; when it returns, the connection is closed with 1000."""

NOT_FOUND = Response(404, body="not found\n")


class Route(NamedTuple):
    """The handler of a request, with the parameters of its path."""

    handler: Handler
    """The function that handles the connection."""
    parameters: Mapping[str, Any]
    """The values of the path's parameters by their names: ``request.path_parameters`` from then on."""


@runtime_checkable
class Router(Protocol):
    """Any object that finds the handler of a request."""

    def route(self, request: Request, /) -> Route | Handler | Response:
        """Return the handler of ``request``, alone or as a :class:`Route`, or the response that refuses it.

        Must not block. If it raises, or returns anything else, that is logged and the request is answered with 500.
        """
        ...


class Routes:
    """A :class:`Router` over a mapping of patterns to handlers.

    The path is split at its slashes and each segment percent-decoded, so ``%2F`` never separates. If several patterns
    match, a literal segment goes before a parameter, at the first segment in which they differ. A path that no pattern
    matches gets 404, and so does one that is not UTF-8.

    Raises TypeError and ValueError for an invalid or repeated pattern, a handler that cannot be called, and no handlers
    at all.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._routes: dict[int, list[tuple[list[str | None], list[str], Handler]]] = {}
        shapes = set()
        if not handlers:
            raise ValueError("routes must not be empty: every request would get 404")
        for pattern, handler in handlers.items():
            if not callable(handler):
                raise TypeError(f"the handler of {pattern!r:.60} must be an async function, not {handler!r:.60}")
            segments, names = _parse(pattern)
            shape = tuple(segments)
            if shape in shapes:
                raise ValueError(f"route {shorten(pattern)} matches the same paths as another one")
            shapes.add(shape)
            self._routes.setdefault(len(segments), []).append((segments, names, handler))
        for routes in self._routes.values():
            routes.sort(key=lambda route: [segment is None for segment in route[0]])

    def route(self, request: Request, /) -> Route | Response:
        """Return the handler whose pattern matches the path of ``request``, or 404."""
        try:
            found = [unquote(segment, errors="strict") for segment in request.path.split("/")]
        except UnicodeDecodeError:
            return NOT_FOUND
        for segments, names, handler in self._routes.get(len(found), ()):
            values = []
            for segment, value in zip(segments, found, strict=True):
                if segment is None and value:
                    values.append(value)
                elif segment != value:
                    break
            else:
                return Route(handler, dict(zip(names, values, strict=True)))
        return NOT_FOUND


def _parse(pattern: str) -> tuple[list[str | None], list[str]]:
    """Return the segments of a pattern, None for a parameter, and the names of its parameters."""
    if not isinstance(pattern, str):
        raise TypeError(f"a route must be a str such as '/feed/{{room}}', not {pattern!r:.60}")
    if not pattern.startswith("/") or "?" in pattern or "#" in pattern:
        raise ValueError(f"a route must be a path that begins with a slash, without a query, not {shorten(pattern)}")
    if "<" in pattern or ">" in pattern:  # which no client sends unescaped
        raise ValueError(f"a parameter of a route must be {{name}}, not <name> as in {shorten(pattern)}")
    segments: list[str | None] = []
    names: list[str] = []
    for segment in pattern.split("/"):
        if "{" not in segment and "}" not in segment:
            segments.append(segment)
            continue
        name = segment[1:-1]
        if not (segment[0] == "{" and segment[-1] == "}" and name.isidentifier()) or name in names:
            found = f"{shorten(segment)} in the route {shorten(pattern)}"
            raise ValueError(f"a segment with braces must be one {{name}}, used once, not {found}")
        segments.append(None)
        names.append(name)
    return segments, names
