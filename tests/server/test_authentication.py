"""Who is let in by Basic and by a bearer token, and what the others are told."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio

from trio_pyjo_ws import HandshakeError, Response, Transaction, basic_authentication, bearer_authentication, connect

from ..service import never, request, start, status

if TYPE_CHECKING:
    from ..service import Service

KEY = bytes(range(0xF0, 0x100)) + b"\0:\r\n"  # the raw key of a charging station, 20 bytes
USERS: dict[str, str | bytes] = {"ada": "pass:word", "grüße": "pässword", "nobody": "", "station": KEY}


def basic(credentials: str | bytes) -> str:
    return f"Basic {b64encode(credentials if isinstance(credentials, bytes) else credentials.encode()).decode()}"


async def tell(ws: Transaction) -> None:
    await ws.send(f"{ws.user}")


async def user(service: Service, authorization: str | None) -> str:
    """Who the server says that this is."""
    headers = {} if authorization is None else {"Authorization": authorization}
    return str(await (await service.connect(additional_headers=headers)).receive())


async def refusal(service: Service, *authorization: str) -> Response:
    with pytest.raises(HandshakeError) as raised:
        await service.connect(additional_headers=[("Authorization", value) for value in authorization])
    assert raised.value.response is not None
    assert raised.value.response.status == 401
    return raised.value.response


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        (basic("ada:pass:word"), "ada"),
        (basic("ada:pass:word").replace("Basic", "bAsIc  "), "ada"),
        (basic("grüße:pässword"), "grüße"),
        (basic("nobody:"), "nobody"),
        (basic(b"station:" + KEY), "station"),
    ],
)
async def test_basic_lets_in_who_knows_the_password(nursery: trio.Nursery, authorization: str, name: str) -> None:
    service = await start(nursery, tell, on_request=basic_authentication(USERS))
    assert await user(service, authorization) == name


@pytest.mark.parametrize(
    "authorization",
    [
        (),
        ("",),
        ("Basic",),
        ("Basic ",),
        (basic("ada:password"),),
        (basic("ada:"),),
        (basic("ada"),),
        (basic("Ada:pass:word"),),
        (basic("eve:pass:word"),),
        (basic(":"),),
        (basic(b"ada:\xff"),),
        (basic(b"\xff:pass:word"),),
        (basic(b"station:" + KEY[:-1]),),
        (basic("station:" + KEY.decode("latin-1")),),
        (basic("ada:pass:word") + "!",),
        (basic("ada:pass:word").replace("Basic", "Bearer"),),
        (basic("ada:pass:word"), basic("ada:pass:word")),
    ],
)
async def test_basic_answers_others_with_401(nursery: trio.Nursery, authorization: tuple[str, ...]) -> None:
    service = await start(nursery, never, on_request=basic_authentication(USERS, realm="the chat"))
    response = await refusal(service, *authorization)
    assert response.headers.getall("WWW-Authenticate") == ['Basic realm="the chat", charset="UTF-8"']


@pytest.mark.parametrize("credentials", ["ada:pass:word", "ada:x", "eve:pass:word", "eve:" + "x" * 1000])
async def test_basic_compares_in_constant_time_also_for_who_is_not_there(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    service = await start(nursery, tell, on_request=basic_authentication(USERS))
    await service.ask(request(authorization=basic(credentials), sec_websocket_key=None))
    assert compared == [(32, 32)]  # whatever the lengths of the passwords


@pytest.mark.parametrize("later", [False, True])
async def test_basic_may_ask_a_function(nursery: trio.Nursery, later: bool) -> None:
    def check(name: str, password: str) -> bool:
        return (name, password) == ("ada", "secret")

    async def check_later(name: str, password: str) -> bool:
        await trio.lowlevel.checkpoint()
        return check(name, password)

    service = await start(nursery, tell, on_request=basic_authentication(check_later if later else check))
    assert await user(service, basic("ada:secret")) == "ada"
    await refusal(service, basic("ada:guess"))


@pytest.mark.parametrize("later", [False, True])
async def test_basic_may_ask_a_function_for_bytes(nursery: trio.Nursery, later: bool) -> None:
    asked: list[tuple[str, bytes]] = []

    def check(name: str, password: bytes) -> bool:
        asked.append((name, password))
        return hmac.compare_digest(password, KEY)

    async def check_later(name: str, password: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        return check(name, password)

    authenticate = basic_authentication(check_later if later else check, decode=False)
    service = await start(nursery, tell, on_request=authenticate)
    assert await user(service, basic(b"station:" + KEY)) == "station"
    await refusal(service, basic("station:grüße"))
    await refusal(service, basic(b"\xff:" + KEY))
    assert asked == [("station", KEY), ("station", "grüße".encode())]


async def test_a_function_of_text_is_not_asked_about_bytes(nursery: trio.Nursery) -> None:
    """It would fail at what it cannot encode, and any client could have it fail."""

    def check(name: str, password: str) -> bool:
        raise AssertionError(f"it is asked about {name!r} and {password!r}")

    service = await start(nursery, never, on_request=basic_authentication(check))
    await refusal(service, basic(b"station:" + KEY))


async def test_the_password_of_a_clients_url_may_be_bytes(nursery: trio.Nursery) -> None:
    service = await start(nursery, tell, on_request=basic_authentication(USERS))
    ws = await connect(nursery, f"ws://station:{quote(KEY)}@test/", stream=service.dial())
    assert await ws.receive() == "station"


async def test_user_and_password_of_a_clients_url_are_basic(nursery: trio.Nursery) -> None:
    service = await start(nursery, tell, on_request=basic_authentication(USERS))
    ws = await connect(nursery, "ws://ada:pass%3Aword@test/", stream=service.dial())
    assert await ws.receive() == "ada"


@pytest.mark.parametrize("later", [False, True])
async def test_bearer_lets_in_whom_the_hook_knows(nursery: trio.Nursery, later: bool) -> None:
    tokens = {"s3cr=t": {"id": 7}}

    async def find_later(token: str) -> Any:
        await trio.lowlevel.checkpoint()
        return tokens.get(token)

    service = await start(nursery, tell, on_request=bearer_authentication(find_later if later else tokens.get))
    assert await user(service, "Bearer s3cr=t") == "{'id': 7}"
    assert await user(service, "bearer  s3cr=t") == "{'id': 7}"
    response = await refusal(service, "Bearer guess")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="WebSocket", error="invalid_token"'


@pytest.mark.parametrize("authorization", [(), ("Bearer",), (basic("a:b"),), ("Bearer a", "Bearer a")])
async def test_bearer_names_no_error_to_who_gave_no_token(
    nursery: trio.Nursery, authorization: tuple[str, ...]
) -> None:
    service = await start(nursery, never, on_request=bearer_authentication({"a": 1}.get, realm="feed"))
    response = await refusal(service, *authorization)
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="feed"'


async def test_it_is_one_piece_of_an_on_request(nursery: trio.Nursery) -> None:
    authenticate = basic_authentication(USERS)

    async def on_request(ws: Transaction) -> Response | None:
        return Response(200) if ws.req.path == "/health" else await authenticate(ws)

    service = await start(nursery, tell, on_request=on_request)
    assert status(await service.ask(request("GET /health HTTP/1.1"))) == 200
    assert status(await service.ask()) == 401


async def test_nobody_is_known_where_nobody_was_asked(nursery: trio.Nursery) -> None:
    service = await start(nursery, tell)
    assert await user(service, None) == "None"


@pytest.mark.parametrize(
    ("make", "raised", "message"),
    [
        (
            lambda: basic_authentication([("a", "b")]),
            TypeError,
            "users must be a mapping of names to passwords, or a function, not list",
        ),  # type: ignore[arg-type]
        (lambda: basic_authentication({"a:b": "c"}), ValueError, "a user's name must not have a colon"),
        (lambda: basic_authentication({}, realm='"'), ValueError, "realm must be printable"),
        (lambda: basic_authentication({}, realm="\u20ac"), ValueError, "realm must be printable Latin-1"),
        (lambda: basic_authentication({}, realm="a\r\nb"), ValueError, "realm must be"),
        (lambda: bearer_authentication({"a": 1}), TypeError, "check must be a function of the token, not dict"),  # type: ignore[arg-type]
        (lambda: bearer_authentication(str, realm="\\"), ValueError, "realm must be"),
    ],
)
def test_what_does_not_fit_raises(make: Any, raised: type[Exception], message: str) -> None:
    with pytest.raises(raised) as caught:
        make()
    assert message in str(caught.value)
