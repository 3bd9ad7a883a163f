"""Routing by werkzeug: converters, hosts, redirects, defaults. The extra ``routing`` installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..handshake.messages import Response
from ..server.routing import Route

try:
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import RequestRedirect
except ImportError as error:
    raise ImportError("werkzeug is missing: pip install 'trio-pyjo-ws[routing]'") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.routing import Map

    from ..handshake.messages import Request
    from ..server.routing import Handler

__all__ = ["WerkzeugRouter"]


class WerkzeugRouter:
    """A :class:`~trio_pyjo_ws.Router` over a werkzeug ``Map``: ``serve(WerkzeugRouter(rules), port)``.

    Its rules have ``websocket=True``. The endpoint of a rule is the handler, or its key in ``handlers`` if that is
    given. What werkzeug answers in place of an endpoint (404, a redirect) is the response.
    """

    def __init__(self, rules: Map, handlers: Mapping[Any, Handler] | None = None) -> None:
        self._rules = rules
        self._handlers = handlers

    def route(self, request: Request, /) -> Route | Response:
        """Return the route of ``request`` by its Host and path; its parameters are what the converters return."""
        host = request.headers.get("Host", "")
        try:
            adapter = self._rules.bind(host, url_scheme="ws")
            path = unquote(request.path, errors="replace")
            endpoint, parameters = adapter.match(path, "GET", query_args=request.query, websocket=True)
        except RequestRedirect as redirect:
            return Response(redirect.code, {"Location": _relative(redirect.new_url, host)})
        except HTTPException as error:
            answer = error.get_response()
            return Response(answer.status_code, list(answer.headers), error.get_body())
        return Route(endpoint if self._handlers is None else self._handlers[endpoint], parameters)


def _relative(url: str, host: str) -> str:
    """A redirect within the host without its scheme: whether the client came by TLS, only the proxy may know."""
    parts = urlsplit(url)
    return parts._replace(scheme="", netloc="").geturl() if parts.netloc == host else url
