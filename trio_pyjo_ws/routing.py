"""Which handler a request is for.

``{"/chat": chat, "/feed/{room}": feed}``: a pattern is a path, and a segment of it in braces stands for any one segment
that is not empty. That is all the rules that there are; converters, redirects and what else a web framework knows come
from werkzeug, by :mod:`trio_pyjo_ws.adapters.werkzeug`, or from any object with a method ``route``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import unquote

from .transaction import Transaction
from .wire.negotiate import Request, Response, shorten

__all__ = ["Handler", "Route", "Router", "Routes"]

Handler = Callable[[Transaction], Awaitable[object]]
"""Called with each transaction once it is open; the connection closes with 1000 when it returns."""

NOT_FOUND = Response(404, body="not found\n")


class Route(NamedTuple):
    """Where a request goes."""

    handler: Handler
    """What handles the connection."""
    parameters: Mapping[str, Any]
    """What the path's parameters stand for: ``request.path_parameters`` from then on."""


@runtime_checkable
class Router(Protocol):
    """Whatever finds the handler of a request."""

    def route(self, request: Request, /) -> Route | Response:
        """Where ``request`` goes, or the response that refuses it: 404, a redirect. Must not block."""
        ...


class Routes:
    """A :class:`Router` over a mapping of patterns to handlers.

    The path is split at its slashes and each segment percent-decoded, so ``%2F`` never separates. Of the patterns that
    match, the one is taken whose first segment in which they differ is no parameter. What no pattern matches is 404,
    and so is what is not UTF-8. Raises TypeError and ValueError for what is no pattern, or stands there twice.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._routes: dict[int, list[tuple[list[str | None], list[str], Handler]]] = {}
        shapes = set()
        for pattern, handler in handlers.items():
            if not callable(handler):
                raise TypeError(f"the handler of {pattern!r:.60} is a callable, not {handler!r:.60}")
            segments, names = _parse(pattern)
            shape = tuple(segments)
            if shape in shapes:
                raise ValueError(f"route {shorten(pattern)} matches just what another one does")
            shapes.add(shape)
            self._routes.setdefault(len(segments), []).append((segments, names, handler))
        for routes in self._routes.values():
            routes.sort(key=lambda route: [segment is None for segment in route[0]])

    def route(self, request: Request, /) -> Route | Response:
        """The handler whose pattern matches the path of ``request``, or 404."""
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
    """The segments of a pattern, None for a parameter, and the names of its parameters."""
    if not isinstance(pattern, str):
        raise TypeError(f"a route is a str such as '/feed/{{room}}', not {pattern!r:.60}")
    if not pattern.startswith("/") or "?" in pattern or "#" in pattern:
        raise ValueError(f"route is {shorten(pattern)}, accepted is a path that begins with a slash")
    segments: list[str | None] = []
    names: list[str] = []
    for segment in pattern.split("/"):
        if "{" not in segment and "}" not in segment:
            segments.append(segment)
            continue
        name = segment[1:-1]
        if not (segment[0] == "{" and segment[-1] == "}" and name.isidentifier()) or name in names:
            raise ValueError(f"route {shorten(pattern)} has the segment {shorten(segment)}, accepted is one {{name}}")
        segments.append(None)
        names.append(name)
    return segments, names
