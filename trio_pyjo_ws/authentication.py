"""Who is asking: Basic (RFC 7617) and bearer tokens (RFC 6750), for a server's ``on_request``.

Both are functions that make one. What they find out is ``ws.user``. Browsers let no page set Authorization on a
WebSocket (Basic they ask their user for): there, a cookie or a token in the query or the first message is what is left,
and is for an ``on_request`` of one's own.
"""

from __future__ import annotations

import hmac
import inspect
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from secrets import token_bytes
from typing import TYPE_CHECKING, Any

from .wire.negotiate import Response

if TYPE_CHECKING:
    from .transaction import Transaction
    from .wire.negotiate import Request

__all__ = ["basic_authentication", "bearer_authentication"]

CheckPassword = Callable[[str, str], bool | Awaitable[bool]]
CheckToken = Callable[[str], Any]
Authenticate = Callable[["Transaction"], Awaitable[Response | None]]


def basic_authentication(users: Mapping[str, str] | CheckPassword, *, realm: str = "WebSocket") -> Authenticate:
    """Let in who gives the name and password of one of ``users``; ``ws.user`` is the name. Others get 401.

    ``users`` maps names to passwords, which are compared in constant time, or is a function of name and password, which
    may be asynchronous: one that asks a database should compare by :func:`hmac.compare_digest`, too. Raises TypeError
    and ValueError for what does not fit.
    """
    check = users if callable(users) else _compare(users)
    challenge = _challenge("Basic", realm) + ', charset="UTF-8"'

    async def authenticate(ws: Transaction) -> Response | None:
        found = _basic_credentials(ws.req)
        if found is None or not await _result(check(*found)):
            return _refusal(challenge)
        ws.user = found[0]
        return None

    return authenticate


def bearer_authentication(check: CheckToken, *, realm: str = "WebSocket") -> Authenticate:
    """Let in who gives a bearer token for which ``check(token)`` gives a user: anything true. That is ``ws.user``.

    ``check`` may be asynchronous. Others get 401. Raises TypeError and ValueError for what does not fit.
    """
    if not callable(check):
        raise TypeError(f"check is a function of the token, not {type(check).__name__}")
    challenge = _challenge("Bearer", realm)

    async def authenticate(ws: Transaction) -> Response | None:
        token = _credentials(ws.req, "bearer")
        if token is None:
            return _refusal(challenge)  # RFC 6750, section 3.1: no error is named to who gave no token
        user = await _result(check(token))
        if not user:
            return _refusal(challenge + ', error="invalid_token"')
        ws.user = user
        return None

    return authenticate


def _compare(users: Mapping[str, str]) -> CheckPassword:
    """Compare digests under a key of this process: how long that takes tells nothing, not even a password's length."""
    if not isinstance(users, Mapping):
        raise TypeError(f"users is a mapping of names to passwords, or a function, not {type(users).__name__}")
    key = token_bytes(32)

    def digest(password: str) -> bytes:
        return hmac.digest(key, password.encode(), "sha256")

    for name in users:
        if ":" in name:
            raise ValueError(f"a user's name has no colon (RFC 7617, section 2), and this one has: {name!r:.60}")
    digests = {name: digest(password) for name, password in users.items()}
    nobody = token_bytes(32)

    def check(name: str, password: str) -> bool:
        return hmac.compare_digest(digests.get(name, nobody), digest(password))

    return check


def _credentials(request: Request | None, scheme: str) -> str | None:
    """What stands behind the scheme in Authorization (RFC 9110, section 11.6.2); None where it is another, or two."""
    assert request is not None  # There is one in on_request.
    values = request.headers.getall("Authorization", ())
    found, _, credentials = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return credentials.strip(" ") if found.lower() == scheme and credentials.strip(" ") else None


def _basic_credentials(request: Request | None) -> tuple[str, str] | None:
    """Name and password; None where there are none that could be right."""
    try:
        decoded = b64decode(_credentials(request, "basic") or "", validate=True).decode()
    except ValueError:  # no base64, or no UTF-8
        return None
    name, colon, password = decoded.partition(":")
    return (name, password) if colon else None


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _challenge(scheme: str, realm: str) -> str:
    if '"' in realm or "\\" in realm or not realm.isprintable():
        raise ValueError(f"realm is {realm!r:.60}, accepted are printable characters but quote and backslash")
    return f'{scheme} realm="{realm}"'


def _refusal(challenge: str) -> Response:
    return Response(401, {"WWW-Authenticate": challenge}, "who are you?\n")
