"""The URL that a redirect leads to (RFC 9110, section 15.4; RFC 6455, section 4.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urldefrag, urljoin

from ..errors import HandshakeError
from .messages import hide_secrets, shorten
from .url import VISIBLE, Url

if TYPE_CHECKING:
    from .messages import Response

__all__ = ["REDIRECTS", "redirected"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
"""The statuses that are followed. A WebSocket's request is a GET without a body, so to it they all mean the same."""

_HTTP = re.compile("http(?=s?:)", re.IGNORECASE)


def redirected(url: Url, response: Response) -> Url | None:
    """The URL that ``response``, the answer of ``url``, redirects to; None if it is not a redirect.

    ``http`` and ``https`` mean ``ws`` and ``wss``. The user information stays with its origin. Raises HandshakeError
    for a Location that is not a WebSocket's URL, and for one that leads from ``wss`` to ``ws``.
    """
    if response.status not in REDIRECTS:
        return None
    locations = response.headers.getall("Location", ())
    if len(locations) != 1:
        raise HandshakeError(f"expected one Location in a redirect, found {len(locations)}", response)
    # What is not ASCII came as bytes, and is percent-encoded as such.
    reference = quote(locations[0].encode("latin-1"), safe=VISIBLE)
    base = f"{url.origin}{url.target}"
    try:
        target = Url.parse(
            urldefrag(urljoin(base, _HTTP.sub("ws", reference, 1) if _HTTP.match(reference) else reference))[0]
        )
    except ValueError as exc:
        found = shorten(hide_secrets(locations[0]))
        raise HandshakeError(f"expected a WebSocket's URL in Location, found {found}", response) from exc
    if url.secure and not target.secure:
        raise HandshakeError("expected wss:// in Location, because this is wss://, found ws://", response)
    if target.user_information is None and target.origin == url.origin:
        target = target._replace(user_information=url.user_information)
    return target
