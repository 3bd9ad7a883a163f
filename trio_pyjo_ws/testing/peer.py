"""A peer that does what its script says, frame by frame, and expects exact frames in return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio

from .. import Close, Frame, Opcode
from ..handshake.http1 import ClientHandshake, ServerHandshake
from ..wire.frames import NO_CODE, build_frame, parse_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .. import Request, Response
    from ..handshake.messages import HeadersLike

__all__ = ["ScriptedPeer"]

_SHOWN = 80
"""Bytes of a payload that the message of a failure shows."""


class ScriptedPeer(trio.abc.AsyncResource):
    """One end of a WebSocket connection that the test controls: it plays ``role`` over ``stream``.

    As a ``"server"`` it meets a client under test, as a ``"client"`` a handler. Nothing happens by itself: no pong,
    no answer to Close. :func:`~trio_pyjo_ws.testing.open_scripted_pair` returns one whose opening handshake is done.

    ``what`` to expect or to reply is a ``str`` (a text frame), ``bytes`` (a binary frame), a
    :class:`~trio_pyjo_ws.Close` (1005: without a code), a :class:`~trio_pyjo_ws.Frame`, which is compared bit by bit,
    or an :class:`~trio_pyjo_ws.Opcode` and a ``payload``.

    Anything unexpected raises AssertionError, which shows both frames; so does waiting for more than
    ``timeout`` seconds. The methods are checkpoints.
    """

    def __init__(self, role: Literal["client", "server"], stream: trio.abc.Stream, *, timeout: float = 5.0) -> None:
        if role not in ("client", "server"):
            raise ValueError(f"the role must be 'client' or 'server', not {role!r}")
        self.role: Literal["client", "server"] = role
        """Whom it plays."""
        self.stream: trio.abc.Stream = stream
        """Its end of the connection."""
        self.received: list[Frame] = []
        """All the frames that it has received, in their order."""
        self._timeout = timeout
        self._buffer = bytearray()

    async def request(
        self,
        url: str = "ws://memory.test/",
        *,
        additional_headers: HeadersLike = (),
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
    ) -> Response:
        """As a client, go through the opening handshake. Raises :class:`HandshakeError` if the server refuses."""
        handshake = ClientHandshake(url, headers=additional_headers, subprotocols=subprotocols, origin=origin)
        await self.stream.send_all(handshake.write())
        while handshake.read(await self._read("the response of the opening handshake")) is None:
            pass
        self._buffer += handshake.rest
        assert handshake.response is not None
        return handshake.response

    async def accept(self, *, subprotocol: str | None = None, headers: HeadersLike = ()) -> Request:
        """As a server, await the request of the opening handshake and agree to it; return the request."""
        handshake, request = await self._read_request()
        handshake.accept(subprotocol=subprotocol, headers=headers)
        await self.stream.send_all(handshake.write())
        self._buffer += handshake.rest
        return request

    async def refuse(self, response: Response) -> Request:
        """As a server, await the request, answer with ``response`` instead, and close; return the request."""
        handshake, request = await self._read_request()
        handshake.refuse(response)
        await self.stream.send_all(handshake.write())
        await self.aclose()
        return request

    async def expect(self, what: str | bytes | Frame | Close | Opcode, payload: bytes | None = None) -> Frame:
        """Await the next frame, check that it is this one, and return it.

        An opcode without a payload stands for any frame with FIN, that opcode and no other bits.
        """
        expected = _frame(what, payload)
        shown = show(expected)
        if isinstance(what, Opcode) and payload is None:
            shown = f"{what.name} of any payload"
        while (frame := parse_frame(self._buffer)) is None:
            self._buffer += await self._read(shown)
        if isinstance(what, Opcode) and payload is None:
            expected = expected._replace(payload=frame.payload)
        failure = ""
        if frame != expected:
            failure = self._failure(shown, show(frame)) + _difference(expected.payload, frame.payload)
        self.received.append(frame)
        if failure:
            raise AssertionError(failure)
        return frame

    async def expect_eof(self) -> None:
        """Await the end of the stream, before any other frame."""
        shown = "the end of the stream"
        while True:
            if (frame := parse_frame(self._buffer)) is not None:
                raise AssertionError(self._failure(shown, show(frame)))
            if not (data := await self._receive(shown)):
                break
            self._buffer += data
        if self._buffer:
            raise AssertionError(self._failure(shown, f"it in the middle of a frame: {bytes(self._buffer[:_SHOWN])!r}"))

    async def reply(self, what: str | bytes | Frame | Close | Opcode, payload: bytes | None = None) -> None:
        """Send a frame, masked if this is a client. An opcode without a payload gets an empty one."""
        await self.stream.send_all(build_frame(*_frame(what, payload), masked=self.role == "client"))

    async def reply_bytes(self, data: bytes) -> None:
        """Send bytes as they are: half a frame, a forbidden one, anything."""
        await self.stream.send_all(data)

    async def aclose(self) -> None:
        """End the stream, without a word."""
        # It does not wait; but a Cancelled out of it would take the place of what a block with this peer raises.
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self.stream)

    async def _read_request(self) -> tuple[ServerHandshake, Request]:
        handshake = ServerHandshake()
        while (request := handshake.read(await self._read("the request of the opening handshake"))) is None:
            pass
        return handshake, request

    async def _read(self, awaited: str) -> bytes:
        if data := await self._receive(awaited):
            return data
        raise AssertionError(self._failure(awaited, "the end of the stream"))

    async def _receive(self, awaited: str) -> bytes:
        with trio.move_on_after(self._timeout):
            return bytes(await self.stream.receive_some())
        raise AssertionError(self._failure(awaited, f"nothing more for {self._timeout:g} seconds"))

    def _failure(self, expected: str, received: str) -> str:
        lines = [f"expected {expected}", f"received {received}"]
        if self.received:
            lines.append(f"after    {', '.join(map(show, self.received[-3:]))}")
        return "\n".join(lines)


def show(frame: Frame) -> str:
    """A frame, for the reader of a test's output: what sets it apart from an ordinary one is named."""
    name = frame.opcode.name if isinstance(frame.opcode, Opcode) else f"opcode {frame.opcode}"
    bits = [name for name in ("rsv1", "rsv2", "rsv3") if getattr(frame, name)]
    marks = ["without FIN"] * (not frame.fin) + bits
    beginning: object = frame.payload[:_SHOWN]
    if frame.opcode == Opcode.CLOSE and len(frame.payload) > 1:
        beginning = int.from_bytes(frame.payload[:2], "big"), frame.payload[2:_SHOWN].decode(errors="backslashreplace")
    elif frame.opcode == Opcode.TEXT:
        beginning = frame.payload[:_SHOWN].decode(errors="backslashreplace")
    shown = repr(beginning)
    if len(frame.payload) > _SHOWN:
        shown += f"... of {len(frame.payload)} bytes"
    return " ".join([name, *([f"({', '.join(marks)})"] if marks else []), shown])


def _frame(what: str | bytes | Frame | Close | Opcode, payload: bytes | None) -> Frame:
    if isinstance(what, Opcode):
        return Frame(True, False, False, False, what, payload or b"")
    if payload is not None:
        raise TypeError(f"a payload goes with an Opcode, not with {what!r:.60}")
    if isinstance(what, Frame):
        return what
    if isinstance(what, Close):
        code = b"" if what.code == NO_CODE else what.code.to_bytes(2, "big")
        return Frame(True, False, False, False, Opcode.CLOSE, code + what.reason.encode())
    if isinstance(what, str):
        return Frame(True, False, False, False, Opcode.TEXT, what.encode())
    return Frame(True, False, False, False, Opcode.BINARY, bytes(what))


def _difference(expected: bytes, received: bytes) -> str:
    """Where two long payloads part, which their beginnings may not show."""
    if expected == received or max(len(expected), len(received)) <= _SHOWN // 2:
        return ""
    pairs = enumerate(zip(expected, received, strict=False))
    start = next((place for place, (one, other) in pairs if one != other), min(len(expected), len(received)))
    parts = [payload[start : start + 20] for payload in (expected, received)]
    return f"\nfrom byte {start} on: expected {parts[0]!r}, received {parts[1]!r}"
