"""The peer's certificate and the parameters of TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["TlsInfo", "describe"]


class TlsInfo(NamedTuple):
    """What TLS has agreed on, and the peer's certificate: :attr:`Transaction.tls`."""

    version: str
    """``"TLSv1.3"``, for example."""
    cipher: str
    """The name of the cipher suite: ``"TLS_AES_256_GCM_SHA384"``."""
    alpn: str | None
    """The protocol that ALPN has chosen (RFC 7301), or None."""
    certificate: Mapping[str, Any] | None
    """The peer's certificate, verified, as :meth:`ssl.SSLSocket.getpeercert` gives it: ``certificate["subject"]``. None
    if the peer has sent none, and if the ``ssl_context`` does not verify it."""
    certificate_der: bytes | None
    """The same in DER, as the peer has sent it, whether it was verified or not; None if the peer has sent none."""


class _Tls(Protocol):
    """What :class:`ssl.SSLObject` and :class:`trio.SSLStream` have in common."""

    def version(self) -> str | None: ...
    def cipher(self) -> tuple[str, str, int] | None: ...
    def selected_alpn_protocol(self) -> str | None: ...
    @property
    def getpeercert(self) -> Callable[..., Any]: ...


def describe(tls: _Tls) -> TlsInfo:
    """What there is to know of TLS that has shaken hands."""
    name, _, _ = tls.cipher() or ("", "", 0)
    return TlsInfo(
        tls.version() or "",
        name,
        tls.selected_alpn_protocol(),
        tls.getpeercert() or None,  # empty if it was not verified
        tls.getpeercert(True),
    )
