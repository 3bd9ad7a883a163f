"""Sessions of steps that nobody chose, by Hypothesis, against a model of what they mean."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_pyjo_ws.errors import LocalProtocolError, RemoteProtocolError
from trio_pyjo_ws.handshake.http1 import ClientHandshake, ServerHandshake
from trio_pyjo_ws.handshake.messages import Request
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode, parse_frame
from trio_pyjo_ws.wire.protocol import Agreement, State

from ..fuzz.pure import IMPLEMENTATIONS
from . import raw
from .raw import BINARY, CLOSE, FIN, PING, PONG, RSV1, RSV2, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WISHES = {
    "uncompressed": None,
    "compressed": Deflate(threshold=0),
    "no context takeover": Deflate(client_no_context_takeover=True, server_no_context_takeover=True, threshold=0),
    "small windows": Deflate(client_max_window_bits=9, server_max_window_bits=9, threshold=0),
}
EACH_WISH = st.sampled_from(list(WISHES.values()))
EACH = st.sampled_from([implementation.protocol for implementation in IMPLEMENTATIONS.values()])

_deflater = zlib.compressobj(wbits=-9)
BOMB = _deflater.compress(bytes(10_000)) + _deflater.flush()


class Halves(RuleBasedStateMachine):
    """Two halves, and bytes that travel between them as they like: every message arrives once, and in order."""

    MESSAGES = st.text(max_size=40) | st.binary(max_size=40) | st.sampled_from(["Hello " * 60, bytes(70_000)])

    @initialize(
        wishes=st.tuples(EACH_WISH, EACH_WISH),
        protocols=st.tuples(EACH, EACH),
        size=st.integers(1, 1000),
        watch=st.booleans(),
    )
    def connect(
        self, wishes: tuple[Deflate | None, Deflate | None], protocols: tuple[Any, Any], size: int, watch: bool
    ) -> None:
        handshake = ClientHandshake("ws://example.org/", deflate=wishes[0])
        self.client = protocols[0].Protocol("client", handshake=handshake)
        self.server = protocols[1].Protocol("server", handshake=ServerHandshake())
        self.server.watch_frames = watch
        self.wish = wishes[1]
        self.sides = (self.client, self.server)
        self.travelling = (bytearray(), bytearray())  # to the client, to the server
        self.sent: tuple[list[Any], list[Any]] = ([], [])  # by the client, by the server
        self.received: tuple[list[Any], list[Any]] = ([], [])
        self.pings: tuple[list[bytes], list[bytes]] = ([], [])
        self.pongs: tuple[list[bytes], list[bytes]] = ([], [])
        for _ in range(2):
            for side in (1, 0):
                self.write(1 - side)
                while self.travelling[side]:
                    self.deliver(side, size, 10)

    def write(self, side: int) -> None:
        self.travelling[1 - side].extend(self.sides[side].client_write())

    @rule(side=st.integers(0, 1), size=st.integers(1, 200) | st.just(1 << 20), limit=st.integers(1, 5))
    def deliver(self, side: int, size: int, limit: int) -> None:
        travelling = self.travelling[side]
        data = bytes(travelling[:size])
        del travelling[:size]
        self.take_in(side, self.sides[side].client_read(data, max_messages=limit, max_bytes=1000))

    @rule(side=st.integers(0, 1))
    def read_what_is_pending(self, side: int) -> None:
        while self.sides[side].pending:
            self.take_in(side, self.sides[side].client_read(max_messages=1))

    def take_in(self, side: int, events: Sequence[Any]) -> None:
        for event in events:
            if type(event).__name__ == "Pong":
                self.pongs[side].append(event.payload)
            elif isinstance(event, (str, bytes)):
                self.received[side].append(event)
            elif isinstance(event, Request):
                self.server.accept(deflate=self.wish)
            else:
                assert isinstance(event, (Agreement, Frame, Close))
        self.write(side)

    def is_open(self) -> bool:
        return all(protocol.state is not State.CONNECTING for protocol in self.sides)

    @rule(side=st.integers(0, 1), message=MESSAGES)
    def send(self, side: int, message: str | bytes) -> None:
        self.send_or_refuse(side, [message], lambda protocol: protocol.send_message(message))

    @rule(
        side=st.integers(0, 1),
        message=MESSAGES,
        places=st.lists(st.integers(0, 40), max_size=4),
        ping=st.binary(max_size=9),
    )
    def send_in_fragments(self, side: int, message: str | bytes, places: list[int], ping: bytes) -> None:
        payload = message.encode() if isinstance(message, str) else message
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY

        def send(protocol: Any) -> None:
            self.ping(side, ping)
            compressed = protocol.compressed
            assert protocol.agreement is not None
            whole = protocol.agreement.deflate.compress(payload) if protocol.agreement.deflate else payload
            cuts = [0, *sorted(min(place, len(whole)) for place in places), len(whole)]
            for index, (start, end) in enumerate(pairwise(cuts)):
                first, last = index == 0, index == len(cuts) - 2
                part = Frame(last, first and compressed, False, False, opcode if first else 0, whole[start:end])
                protocol.send_frame(part)
                if not last:
                    self.ping(side, ping)

        self.send_or_refuse(side, [message], send)

    def ping(self, side: int, payload: bytes) -> None:
        self.sides[side].send_frame(Frame(True, False, False, False, Opcode.PING, payload))
        self.pings[side].append(payload)

    @rule(side=st.integers(0, 1), payload=st.binary(max_size=125))
    def send_ping(self, side: int, payload: bytes) -> None:
        self.send_or_refuse(side, [], lambda _: self.ping(side, payload))

    @precondition(lambda self: len(self.sent[0]) + len(self.sent[1]) > 4)
    @rule(side=st.integers(0, 1), code=st.sampled_from([None, 1000, 1001, 4000]))
    def close(self, side: int, code: int | None) -> None:
        self.send_or_refuse(side, [], lambda protocol: protocol.send_close(code))

    def send_or_refuse(self, side: int, messages: list[str | bytes], send: Callable[[Any], object]) -> None:
        protocol = self.sides[side]
        if protocol.state is State.OPEN:
            send(protocol)
            self.sent[side].extend(messages)
        else:
            with pytest.raises(LocalProtocolError):
                send(protocol)
        self.write(side)

    @invariant()
    def what_arrived_is_what_was_sent_first(self) -> None:
        for side in (0, 1):
            received = self.received[side]
            assert received == self.sent[1 - side][: len(received)]
            assert self.sides[side].state is not State.FAILED

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        for _ in range(4):
            for side in (0, 1):
                self.deliver(side, 1 << 30, 1 << 30)
                self.read_what_is_pending(side)
        assert not any(self.travelling)
        closing = any(protocol.state is not State.OPEN for protocol in self.sides)
        for side in (0, 1):
            protocol = self.sides[side]
            assert self.received[side] == self.sent[1 - side]
            pongs = self.pongs[side]
            assert pongs == self.pings[side][: len(pongs)]
            assert closing or pongs == self.pings[side]
            assert protocol.state is (State.CLOSED if closing else State.OPEN)
            protocol.read_eof()
            assert protocol.close is not None
            assert protocol.close.code in ({1000, 1001, 1005, 4000} if closing else {1006})


class AgainstTheWire(RuleBasedStateMachine):
    """One half, and a peer that sends what it likes: right frames, each kind of breach, noise, an end at any time.

    What a frame means is written down when it is sent. It has to come out, in that order, however the bytes are cut.
    """

    MAX_SIZE = 300
    MESSAGES = st.text(max_size=75) | st.binary(max_size=MAX_SIZE)
    SIZES = st.integers(1, 200) | st.just(1 << 20)

    @initialize(role=st.sampled_from(["client", "server"]), deflate=EACH_WISH, protocol=EACH)
    def connect(self, role: Literal["client", "server"], deflate: Deflate | None, protocol: Any) -> None:
        agreement = Agreement(None, deflate and deflate.codec(client=role == "client"))
        self.protocol = protocol.Protocol(role, agreement=agreement, max_websocket_size=self.MAX_SIZE)
        self.deflate = deflate and deflate.codec(client=role != "client")
        self.wire = bytearray()
        self.fragments: list[tuple[int, bytes]] = []  # of the message that is being sent
        self.message: str | bytes | None = None  # which that is
        self.expected: list[Any] = []  # a breach as its code
        self.events: list[Any] = []
        self.pings: list[bytes] = []
        self.written = bytearray()
        self.over = False  # Close or a breach is on the wire: nothing behind it has a meaning
        self.noisy = False  # noise is on the wire: what it means is not known here
        self.closed_here = False

    def put(self, head: int, payload: bytes, *expected: Any) -> None:
        self.put_bytes(raw.frame(head, payload, self.protocol.role == "server"), *expected)

    def put_bytes(self, data: bytes, *expected: Any) -> None:
        self.wire += data
        if not self.over and not self.noisy:
            self.expected += expected
            self.over = any(isinstance(event, (int, Close)) for event in expected)

    def has_talked(self) -> bool:
        """Whether the session is old enough to end: most sessions would be over with their first step."""
        return len(self.expected) > 2

    # What is right

    @precondition(lambda self: not self.fragments)
    @rule(
        message=MESSAGES,
        compress=st.booleans(),
        places=st.lists(st.integers(0, 300), max_size=4),
        held_back=st.integers(0, 2),
    )
    def send_message(self, message: str | bytes, compress: bool, places: list[int], held_back: int) -> None:
        head = (TEXT if isinstance(message, str) else BINARY) & ~FIN
        payload = message.encode() if isinstance(message, str) else message
        if self.deflate is not None and compress:
            head |= RSV1
            payload = self.deflate.compress(payload)
        cuts = [0, *sorted(min(place, len(payload)) for place in places), len(payload)]
        parts = [payload[start:end] for start, end in pairwise(cuts)]
        self.fragments = [(0 if number else head, part) for number, part in enumerate(parts)]
        self.fragments[-1] = (self.fragments[-1][0] | FIN, parts[-1])
        self.message = message
        self.send_fragment()
        while len(self.fragments) > held_back:
            self.send_fragment()

    @precondition(lambda self: self.fragments)
    @rule()
    def send_fragment(self) -> None:
        head, payload = self.fragments.pop(0)
        self.put(head, payload, *([] if self.fragments else [self.message]))

    @rule(payload=st.binary(max_size=125))
    def ping(self, payload: bytes) -> None:
        if not self.over and not self.noisy:
            self.pings.append(payload)
        self.put(PING, payload)

    @rule(payload=st.binary(max_size=125))
    def pong(self, payload: bytes) -> None:
        self.put(PONG, payload, (payload,))

    @precondition(lambda self: self.has_talked())
    @rule(code=st.sampled_from([1000, 1001, 1011, 3000, 4999]), reason=st.text(max_size=30))
    def close(self, code: int, reason: str) -> None:
        self.put(CLOSE, code.to_bytes(2, "big") + reason.encode(), Close(code, reason))

    # What is not

    @precondition(lambda self: self.has_talked())
    @rule(
        breach=st.sampled_from(
            [
                (0x83, b"", 1002),  # a reserved opcode
                (PING | RSV2, b"", 1002),
                (PING | RSV1, b"", 1002),
                (PING & ~FIN, b"", 1002),
                (PING, bytes(126), 1002),
                (CLOSE, b"\x03", 1002),
                (CLOSE, b"\x03\xed", 1002),  # 1005
                (CLOSE, b"\x03\xe8\xff", 1007),
            ]
        )
    )
    def break_a_rule(self, breach: tuple[int, bytes, int]) -> None:
        self.put(*breach)

    @precondition(lambda self: self.has_talked() and not self.fragments)
    @rule(
        breach=st.sampled_from(
            [
                (FIN, b"", 1002),  # a continuation of nothing
                (TEXT, b"\xed\xa0\x80", 1007),
                (BINARY, bytes(MAX_SIZE + 1), 1009),
            ]
        )
    )
    def break_a_rule_between_messages(self, breach: tuple[int, bytes, int]) -> None:
        self.put(*breach)

    @precondition(lambda self: self.has_talked() and not self.fragments)
    @rule(payload=st.sampled_from([(b"\x07", 1007), (BOMB, 1009)]))
    def break_a_rule_of_compression(self, payload: tuple[bytes, int]) -> None:
        data, code = payload
        self.put(TEXT | RSV1, data, 1002 if self.deflate is None else code)

    @precondition(lambda self: self.has_talked())
    @rule(data=st.sampled_from([(b"\x82\xff\xc0" + bytes(7), b"\x82\x7f\xc0" + bytes(7))]))
    def announce_too_much(self, data: tuple[bytes, bytes]) -> None:
        self.put_bytes(data[self.protocol.role == "client"], 1002)

    @precondition(lambda self: self.fragments)
    @rule()
    def begin_a_message_within_another(self) -> None:
        self.put(TEXT, b"", 1002)

    @precondition(lambda self: self.has_talked())
    @rule(noise=st.binary(min_size=1, max_size=40))
    def make_noise(self, noise: bytes) -> None:
        self.wire += noise
        self.noisy = True

    # What this half does

    @rule(size=SIZES, limit=st.integers(1, 5), max_bytes=st.sampled_from([1, 100, 1 << 20]))
    def read(self, size: int, limit: int, max_bytes: int) -> None:
        data = bytes(self.wire[:size])
        del self.wire[:size]
        self.take_in(self.protocol.client_read(data, max_messages=limit, max_bytes=max_bytes))

    @rule()
    def read_what_is_pending(self) -> None:
        while self.protocol.pending:
            self.take_in(self.protocol.client_read(max_messages=1))

    def take_in(self, events: Sequence[Any]) -> None:
        self.events += [event.code if isinstance(event, RemoteProtocolError) else event for event in events]
        self.written += self.protocol.client_write()

    @rule(message=MESSAGES)
    def answer(self, message: str | bytes) -> None:
        if self.protocol.state is State.OPEN:
            self.protocol.send_message(message)
        else:
            with pytest.raises(LocalProtocolError):
                self.protocol.send_message(message)

    @precondition(lambda self: self.has_talked() and self.protocol.state is State.OPEN)
    @rule()
    def send_close(self) -> None:
        self.protocol.send_close(1000)
        self.closed_here = True

    @precondition(lambda self: self.has_talked())
    @rule()
    def lose_the_connection(self) -> None:
        self.protocol.read_eof()

    @invariant()
    def what_came_out_is_what_was_sent_first(self) -> None:
        found = len(self.events)
        if self.noisy:
            assert self.events[: len(self.expected)] == self.expected[:found]
        else:
            assert self.events == self.expected[:found]
        assert not any(isinstance(event, (int, Close)) for event in self.events[:-1])
        assert all(len(event) <= self.MAX_SIZE for event in self.events if isinstance(event, bytes))

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        # One byte more is inflated, to see that there is more than may be.
        assert self.protocol.arriving.held <= self.MAX_SIZE + 1
        assert self.protocol.outgoing_size == sum(map(len, self.protocol.outgoing))

    def teardown(self) -> None:
        if not hasattr(self, "protocol"):
            return
        lost = self.protocol.state is State.ENDED
        self.read(1 << 30, 1 << 30, 1 << 30)
        self.read_what_is_pending()
        if not lost and not self.noisy:
            assert self.events == self.expected
        self.check_answers(lost)
        self.protocol.read_eof()
        assert self.protocol.close is not None

    def check_answers(self, lost: bool) -> None:
        """The pongs in their order, and one Close at the most; behind it stand pongs if this side began to close."""
        answers = []
        while (frame := parse_frame(self.written)) is not None:
            answers.append(frame)
        assert not self.written
        pongs = [frame.payload for frame in answers if frame.opcode == Opcode.PONG]
        assert pongs[: len(self.pings)] == self.pings[: len(pongs)]
        assert lost or len(pongs) >= len(self.pings)
        assert sum(frame.opcode == Opcode.CLOSE for frame in answers) <= 1
        end = self.events[-1] if self.events else None
        if isinstance(end, (int, Close)) and not self.closed_here:
            assert answers[-1].opcode == Opcode.CLOSE
            assert int.from_bytes(answers[-1].payload[:2], "big") == (end if isinstance(end, int) else end.code)


TestHalves = Halves.TestCase
TestAgainstTheWire = AgainstTheWire.TestCase
