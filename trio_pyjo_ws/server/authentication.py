"""HTTP authentication for a server's ``on_request``: Basic (RFC 7617) and bearer tokens (RFC 6750).

Each function here returns one for ``on_request``, which sets ``ws.user`` or answers with 401. A page in a browser
cannot set Authorization on a WebSocket (for Basic the browser asks its user). Let it send a cookie, or a
token in the query, among the subprotocols or in the first message, and write your own ``on_request``.
"""

from __future__ import annotations

import hmac
import inspect
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Literal, overload

from ..handshake.messages import Response

if TYPE_CHECKING:
    from ..handshake.messages import Request
    from ..transaction import Transaction

__all__ = ["basic_authentication", "bearer_authentication"]

CheckPassword = Callable[[str, str], bool | Awaitable[bool]]
CheckRawPassword = Callable[[str, bytes], bool | Awaitable[bool]]
CheckToken = Callable[[str], Any]
Authenticate = Callable[["Transaction"], Awaitable[Response | None]]


@overload
def basic_authentication(
    users: Mapping[str, str | bytes] | CheckPassword, *, realm: str = ..., decode: Literal[True] = ...
) -> Authenticate: ...
@overload
def basic_authentication(users: CheckRawPassword, *, realm: str = ..., decode: Literal[False]) -> Authenticate: ...
def basic_authentication(
    users: Mapping[str, str | bytes] | CheckPassword | CheckRawPassword,
    *,
    realm: str = "WebSocket",
    decode: bool = True,
) -> Authenticate:
    """Authenticate clients by name and password; ``ws.user`` is the name. Everybody else gets 401.

    ``users`` maps names to passwords, as str or bytes, which are compared in constant time. Or it is a function of name
    and password that returns whether they are right, or an awaitable of that: let it compare with
    :func:`hmac.compare_digest`, too.

    A function gets the password as str; one that is not UTF-8 gets 401 without a call. With
    ``decode=False`` it gets the bytes, whatever they are: charging stations (OCPP) send raw keys of 20 bytes. The name
    is always UTF-8.

    Raises TypeError and ValueError for wrong arguments.
    """
    check: Any = users if callable(users) else _compare(users)
    challenge = _challenge("Basic", realm) + ', charset="UTF-8"'

    async def authenticate(ws: Transaction) -> Response | None:
        found = _basic_credentials(ws.req, decode=decode and callable(users))
        if found is None or not await _result(check(*found)):
            return _refusal(challenge)
        ws.user = found[0]
        return None

    return authenticate


def bearer_authentication(check: CheckToken, *, realm: str = "WebSocket") -> Authenticate:
    """Authenticate clients by a bearer token: ``check(token)`` returns the user, which becomes ``ws.user``.

    If the user is false (None, for example), the client gets 401. ``check`` may be asynchronous. Raises TypeError and
    ValueError for wrong arguments.
    """
    if not callable(check):
        raise TypeError(f"check must be a function of the token, not {type(check).__name__}")
    challenge = _challenge("Bearer", realm)

    async def authenticate(ws: Transaction) -> Response | None:
        token = _credentials(ws.req, "bearer")
        if token is None:
            return _refusal(challenge)  # RFC 6750, section 3.1: a request without a token gets no error code
        user = await _result(check(token))
        if not user:
            return _refusal(challenge + ', error="invalid_token"')
        ws.user = user
        return None

    return authenticate


def _compare(users: Mapping[str, str | bytes]) -> CheckRawPassword:
    """Compare digests under a key of this process: the time it takes reveals nothing, not even a length."""
    if not isinstance(users, Mapping):
        raise TypeError(f"users must be a mapping of names to passwords, or a function, not {type(users).__name__}")
    key = token_bytes(32)

    def digest(password: bytes) -> bytes:
        return hmac.digest(key, password, "sha256")

    for name in users:
        if ":" in name:
            raise ValueError(f"a user's name must not have a colon (RFC 7617, section 2): {name!r:.60}")
    digests = {
        name: digest(password.encode() if isinstance(password, str) else password) for name, password in users.items()
    }
    nobody = token_bytes(32)

    def check(name: str, password: bytes) -> bool:
        return hmac.compare_digest(digests.get(name, nobody), digest(password))

    return check


def _credentials(request: Request, scheme: str) -> str | None:
    """What follows the scheme in Authorization (RFC 9110, section 11.6.2); None for another scheme, or two headers."""
    values = request.headers.getall("Authorization", ())
    found, _, credentials = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return credentials.strip(" ") if found.lower() == scheme and credentials.strip(" ") else None


def _basic_credentials(request: Request, *, decode: bool) -> tuple[str, str | bytes] | None:
    """Name and password; None if the header is missing or malformed."""
    try:
        name, colon, password = b64decode(_credentials(request, "basic") or "", validate=True).partition(b":")
        found = (name.decode(), password.decode() if decode else password)
    except ValueError:  # not base64, or not UTF-8
        return None
    return found if colon else None


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _challenge(scheme: str, realm: str) -> str:
    if '"' in realm or "\\" in realm or not realm.isprintable() or max(realm, default="") > "\xff":
        raise ValueError(f"realm must be printable Latin-1 without quotes and backslashes, not {realm!r:.60}")
    return f'{scheme} realm="{realm}"'


def _refusal(challenge: str) -> Response:
    return Response(401, {"WWW-Authenticate": challenge}, "who are you?\n")
