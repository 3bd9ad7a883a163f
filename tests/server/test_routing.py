"""Which handler a request is for: the patterns, what they match, and what a server does with it."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug.routing import Map, Rule

from trio_pyjo_ws import HandshakeError, Request, Response, Route, Router, Routes, Transaction, connect, serve
from trio_pyjo_ws.adapters.werkzeug import WerkzeugRouter

from ..service import never, request, start, status

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio
    from trio.testing import MockClock

    from trio_pyjo_ws.server.routing import Handler

    from ..service import Service

PLAIN = "GET {} HTTP/1.1\r\nHost: test\r\n\r\n"


def named(name: str) -> Handler:
    """A handler that tells its name, and what the path's parameters are."""

    async def handler(ws: Transaction) -> None:
        await ws.send(json=[name, dict(ws.req.path_parameters)])

    handler.__name__ = name
    return handler


def found(routes: Router, path: str) -> tuple[str, dict[str, Any]] | int:
    """The name of the handler and the parameters, or the status of the refusal."""
    route = routes.route(Request("GET", path))
    if isinstance(route, Response):
        return route.status
    return getattr(route.handler, "__name__", "?"), dict(route.parameters)


def routes(*patterns: str) -> Routes:
    return Routes({pattern: named(pattern) for pattern in patterns})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("/", {})),
        ("/chat", ("/chat", {})),
        ("/chat?room=1", ("/chat", {})),
        ("/ch%61t", ("/chat", {})),
        ("/chat/", 404),
        ("//chat", 404),
        ("/Chat", 404),
        ("/chat/x", 404),
        ("/feed/news", ("/feed/{room}", {"room": "news"})),
        ("/feed/caf%C3%A9%20%2F%3F", ("/feed/{room}", {"room": "café /?"})),
        ("/feed/100%", ("/feed/{room}", {"room": "100%"})),
        ("/feed/", 404),
        ("/feed", 404),
        ("/feed/a/b", ("/feed/{room}/{user}", {"room": "a", "user": "b"})),
        ("/feed/a/", ("/feed/{room}/", {"room": "a"})),
        ("/feed/all", ("/feed/all", {})),
        ("/feed/all/b", ("/feed/all/{user}", {"user": "b"})),
        ("/feed/a/log", ("/feed/{room}/log", {"room": "a"})),
        ("/feed/all/log", ("/feed/all/{user}", {"user": "log"})),
        ("/x/y/z", ("/{a}/{b}/z", {"a": "x", "b": "y"})),
        ("/feed/%FF", 404),  # not UTF-8
        ("*", 404),
        ("http://test/chat", 404),
    ],
)
def test_a_path_finds_its_handler_and_parameters(path: str, expected: object) -> None:
    patterns = ["/feed/{room}/{user}", "/feed/{room}/log", "/feed/{room}/", "/feed/all/{user}", "/{a}/{b}/z"]
    assert found(routes("/feed/{room}", *patterns, "/feed/all", "/chat", "/"), path) == expected


@pytest.mark.parametrize(
    ("patterns", "raised", "message"),
    [
        ([], ValueError, "routes must not be empty: every request would get 404"),
        (["chat"], ValueError, "a route must be a path that begins with a slash, without a query, not 'chat'"),
        ([""], ValueError, "not ''"),
        (["/chat?x"], ValueError, "must be a path"),
        (["/chat#x"], ValueError, "must be a path"),
        (["/feed/<room>"], ValueError, "a parameter of a route must be {name}, not <name> as in '/feed/<room>'"),
        (["/feed/room>"], ValueError, "must be {name}, not <name>"),
        (["/{}"], ValueError, "a segment with braces must be one {name}, used once, not '{}' in the route '/{}'"),
        (["/{a b}"], ValueError, "must be one {name}"),
        (["/x{a}"], ValueError, "must be one {name}"),
        (["/{a}x"], ValueError, "must be one {name}"),
        (["/{a}-{b}"], ValueError, "must be one {name}"),
        (["/}{"], ValueError, "must be one {name}"),
        (["/{a}/{a}"], ValueError, "must be one {name}, used once, not '{a}' in the route '/{a}/{a}'"),
        (["/{a}", "/{b}"], ValueError, "route '/{b}' matches the same paths as another one"),
        ([b"/chat"], TypeError, "a route must be a str such as '/feed/{room}', not b'/chat'"),
    ],
)
async def test_an_invalid_pattern_raises_before_it_listens(
    patterns: list[Any], raised: type[Exception], message: str
) -> None:
    with pytest.raises(raised) as caught:
        await serve(dict.fromkeys(patterns, never), 0)
    assert message in str(caught.value)


@pytest.mark.parametrize("handler", [None, "chat", {"/": None}, Routes])
async def test_anything_but_a_handler_raises_before_it_listens(handler: Any) -> None:
    with pytest.raises(TypeError, match="handler"):
        await serve(handler, 0)


async def ask(service: Service, path: str) -> list[Any]:
    """What the handler for this path tells."""
    ws = await connect(service.nursery, f"ws://test{path}", stream=service.dial())
    told: list[Any] = await ws.open_channel("json").receive()
    return told


class Tenants:
    """A router of one's own: the first segment, whatever it is, names the tenant."""

    def route(self, request: Request, /) -> Route | Response:
        tenant = request.path.split("/")[1]
        if tenant == "closed":
            return Response(410, body="closed for good")
        if tenant == "broken":
            raise KeyError("a bug")
        return Route(named("tenant"), {"tenant": tenant})


async def test_a_server_routes_by_a_mapping(nursery: trio.Nursery) -> None:
    service = await start(nursery, {"/chat": named("chat"), "/feed/{room}": named("feed")})
    assert await ask(service, "/chat") == ["chat", {}]
    assert await ask(service, "/feed/a%20b?since=1") == ["feed", {"room": "a b"}]


async def test_a_server_routes_by_a_router_of_ones_own(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    service = await start(nursery, Tenants())
    assert await ask(service, "/acme") == ["tenant", {"tenant": "acme"}]
    assert status(await service.ask(request("GET /closed HTTP/1.1"))) == 410
    assert not caplog.records
    assert status(await service.ask(request("GET /broken HTTP/1.1"))) == 500
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [KeyError]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request("GET /chat HTTP/1.1"), 101),
        (PLAIN.format("/chat").encode(), 426),
        (PLAIN.format("/chat").replace("1.1", "1.0").encode(), 426),
        (request("POST /chat HTTP/1.1"), 405),
        (request("GET /nowhere HTTP/1.1"), 404),
        (PLAIN.format("/nowhere").encode(), 404),
        (PLAIN.format("/nowhere").replace("GET", "HEAD").encode(), 404),
        (request("POST /nowhere HTTP/1.1"), 404),
    ],
)
async def test_a_route_asked_plainly_is_426_and_an_unknown_one_404(
    nursery: trio.Nursery, autojump_clock: MockClock, data: bytes, expected: int
) -> None:
    async def handler(_: Transaction) -> None:
        pass

    service = await start(nursery, {"/chat": handler})
    response = await service.ask(data)
    assert status(response) == expected
    if expected == 426:
        assert b"\r\nUpgrade: websocket\r\n" in response
    if data.startswith(b"HEAD"):
        assert response.endswith(b"\r\n\r\n")


async def test_on_request_answers_what_is_no_route_and_sees_the_parameters_of_what_is(nursery: trio.Nursery) -> None:
    seen: list[Mapping[str, Any]] = []

    def on_request(ws: Transaction) -> Response | None:
        seen.append(ws.req.path_parameters)
        return Response(200, body="fine") if ws.req.path == "/health" else None

    service = await start(nursery, {"/feed/{room}": named("feed")}, on_request=on_request)
    assert status(await service.ask(PLAIN.format("/health").encode())) == 200
    assert await ask(service, "/feed/a") == ["feed", {"room": "a"}]
    assert seen[0] == {}
    assert seen[-1] == {"room": "a"}


def test_a_request_that_is_not_routed_has_no_parameters() -> None:
    plain = Request("GET", "/feed/a", {"Host": "test"})
    routed = plain.with_path_parameters({"room": "a"})
    assert plain.path_parameters == {}
    assert routed.path_parameters == {"room": "a"}
    assert (routed.method, routed.target, routed.headers) == (plain.method, plain.target, plain.headers)
    with pytest.raises(TypeError):
        routed.path_parameters["room"] = "b"  # type: ignore[index]


# werkzeug


@pytest.fixture
def rules() -> Map:
    return Map(
        [
            Rule("/chat", endpoint=named("chat"), websocket=True),
            Rule("/feed/<int:number>/", endpoint=named("feed"), websocket=True),
            Rule("/old", redirect_to="/chat", endpoint="old", websocket=True),
            Rule("/away", redirect_to="http://elsewhere.test/chat", endpoint="away", websocket=True),
            Rule("/page", endpoint="page"),
        ]
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/chat", ("chat", {})),
        ("/feed/7/", ("feed", {"number": 7})),
        ("/feed/seven/", 404),
        ("/nowhere", 404),
        ("/%FF", 404),
        ("/feed/7", 308),
        ("/old", 308),
        ("/page", 400),  # It is there, and is no WebSocket.
    ],
)
def test_werkzeug_routes(rules: Map, path: str, expected: object) -> None:
    assert found(WerkzeugRouter(rules), path) == expected


@pytest.mark.parametrize(
    ("path", "location"),
    [("/feed/7?a=b", "/feed/7/?a=b"), ("/old", "/chat"), ("/away", "http://elsewhere.test/chat")],
)
def test_werkzeug_redirects_without_a_scheme_where_it_stays_on_the_host(rules: Map, path: str, location: str) -> None:
    response = WerkzeugRouter(rules).route(Request("GET", path, {"Host": "test:8080"}))
    assert isinstance(response, Response)
    assert response.headers["Location"] == location


@pytest.mark.parametrize("host", ["test", "", "a..b", "\xe9", "x" * 300])
def test_werkzeug_bears_any_host(rules: Map, host: str) -> None:
    router = WerkzeugRouter(rules)
    assert router.route(Request("GET", "/chat", {"Host": host})) is not None


def test_werkzeug_may_name_the_handlers_by_keys() -> None:
    rules = Map([Rule("/chat", endpoint="chat", websocket=True)])
    handlers: dict[str, Handler] = {"chat": named("talk")}
    assert found(WerkzeugRouter(rules, handlers), "/chat") == ("talk", {})


async def test_a_server_routes_by_werkzeug(nursery: trio.Nursery, rules: Map) -> None:
    service = await start(nursery, WerkzeugRouter(rules))
    assert await ask(service, "/feed/7/") == ["feed", {"number": 7}]
    with pytest.raises(HandshakeError) as raised:
        await service.connect()
    assert raised.value.response is not None
    assert raised.value.response.status == 404
    assert b"<title>404 Not Found</title>" in raised.value.response.body


def test_without_werkzeug_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules.pop("trio_pyjo_ws.adapters.werkzeug")
    monkeypatch.setitem(sys.modules, "werkzeug.exceptions", None)
    try:
        with pytest.raises(ImportError, match=r"pip install 'trio-pyjo-ws\[routing\]'"):
            importlib.import_module("trio_pyjo_ws.adapters.werkzeug")
    finally:
        sys.modules["trio_pyjo_ws.adapters.werkzeug"] = module
