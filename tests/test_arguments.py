"""What the arguments of send() say."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
import trio

from trio_pyjo_ws.arguments import compose, compose_whole
from trio_pyjo_ws.wire.frames import Frame, Opcode


def callback(ws: object) -> None:
    pass


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("given", "forms", "payload"),
    [
        (["Hello"], {}, "Hello"),
        ([""], {}, ""),
        ([Text("Hello")], {}, "Hello"),
        ([b"Hello"], {}, b"Hello"),
        ([bytearray(b"Hello")], {}, b"Hello"),
        ([memoryview(b"Hello")], {}, b"Hello"),
        ([], {"text": "Hello"}, "Hello"),
        ([], {"text": Text("Hello")}, "Hello"),
        ([], {"binary": b"Hello"}, b"Hello"),
        ([], {"binary": bytearray(b"Hello")}, b"Hello"),
        ([], {"binary": memoryview(b"Hello")[1:3]}, b"el"),
        ([], {"json": {"test": [1, 2, 3]}}, '{"test":[1,2,3]}'),
        ([], {"json": "Grüße"}, '"Grüße"'),
        ([], {"json": None}, "null"),
        ([], {"json": 1.5}, "1.5"),
        ([], {"frame": [1, 0, 0, 0, 9, b"Hello"]}, Frame(True, False, False, False, 9, b"Hello")),
        ([], {"frame": (0, 1, 1, 1, 15, bytearray(b""))}, Frame(False, True, True, True, 15, b"")),
        ([], {"frame": Frame(True, False, False, False, Opcode.TEXT, b"a")}, Frame(True, False, False, False, 1, b"a")),
    ],
)
def test_one_payload_in_any_of_its_forms(given: list[Any], forms: dict[str, Any], payload: object) -> None:
    assert compose(None, *given, **forms) == (payload, None, None)
    assert compose(None, callback, *given, **forms) == (payload, callback, None)
    assert compose(None, *given, **forms, cb=callback) == (payload, callback, None)
    assert compose(None, *given, **forms, cb=None) == (payload, None, None)
    # What travels on is of the plain type, and is not changed by what the caller does with its own object later.
    assert type(compose(None, *given, **forms)[0]) in {str, bytes, Frame}


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("given", "forms"), [(["a"], {}), ([b"a"], {}), ([], {"text": "a"}), ([], {"binary": b"a"}), ([], {"json": "a"})]
)
def test_any_message_may_say_whether_it_is_compressed(given: list[Any], forms: dict[str, Any], compress: bool) -> None:
    payload, _, _ = compose(None, *given, **forms)
    assert compose(None, callback, *given, **forms, compress=compress) == (payload, callback, compress)


@pytest.mark.parametrize(
    ("given", "forms", "error", "names"),
    [
        ([], {}, TypeError, ["got nothing", "text=", "binary=", "json=", "frame="]),
        ([callback], {}, TypeError, ["got nothing"]),
        ([], {"cb": callback}, TypeError, ["got nothing"]),
        (["a"], {"text": "b"}, TypeError, ["a message and text="]),
        ([callback, "a"], {"json": "b"}, TypeError, ["a message and json="]),
        ([], {"binary": b"a", "frame": []}, TypeError, ["binary= and frame="]),
        (["a", "b"], {}, TypeError, ["one message", "'a'"]),
        (["a", callback], {}, TypeError, ["a callback comes first", "'a'"]),
        ([callback, "a", "b"], {}, TypeError, ["one message"]),
        ([callback, "a"], {"cb": callback}, TypeError, ["one callback"]),
        (["a"], {"cb": "b"}, TypeError, ["cb= must be a callable", "'b'"]),
        (
            ["a"],
            {"txt": "b", "bin": "c"},
            TypeError,
            ["text=, binary=, json=, frame=, cb= and compress=", "not txt, bin="],
        ),
        (["a"], {"compress": 1}, TypeError, ["compress= must be True or False", "not 1"]),
        (["a"], {"compress": None}, TypeError, ["compress= must be True or False", "not None"]),
        (["a"], {"compress": "yes"}, TypeError, ["compress= must be True or False", "not 'yes'"]),
        ([], {"frame": [1, 0, 0, 0, 9, b""], "compress": True}, TypeError, ["compress=", "frame=", "rsv1"]),
        ([], {"frame": [1, 0, 0, 0, 9, b""], "compress": False}, TypeError, ["compress=", "frame="]),
        ([1], {}, TypeError, ["a message must be str or bytes", "json=", "not int"]),
        ([None], {}, TypeError, ["a message must be str or bytes", "not NoneType"]),
        ([["a"]], {}, TypeError, ["not list"]),
        ([], {"text": b"a"}, TypeError, ["text= must be str", "not bytes", "binary="]),
        ([], {"text": None}, TypeError, ["text= must be str", "not NoneType"]),
        ([], {"text": {"a": 1}}, TypeError, ["text= must be str", "not dict"]),
        ([], {"text": {"a"}}, TypeError, ["text= must be str", "not set"]),
        ([], {"text": ["a", 1]}, TypeError, ["pieces of this message must be str or bytes, not int"]),
        ([], {"binary": (b"a", "b")}, TypeError, ["pieces of this message must be bytes, not str"]),
        ([], {"binary": range(5)}, TypeError, ["pieces of this message must be bytes, not int"]),
        ([], {"binary": {"a": 1}}, TypeError, ["binary= must be bytes", "not dict"]),
        ([], {"binary": "a"}, TypeError, ["binary= must be bytes", "not str", "text="]),
        ([], {"json": {1, 2}}, TypeError, ["set"]),
        ([], {"json": math.nan}, ValueError, ["JSON"]),
        ([], {"json": [math.inf]}, ValueError, ["JSON"]),
        ([], {"frame": [1, 0, 0, 0, 9]}, TypeError, ["[fin, rsv1, rsv2, rsv3, opcode, payload]", "[1, 0, 0, 0, 9]"]),
        ([], {"frame": 9}, TypeError, ["[fin, rsv1, rsv2, rsv3, opcode, payload]", "not 9"]),
        ([], {"frame": [1, 0, 0, 0, 16, b""]}, ValueError, ["0 to 15", "16"]),
        ([], {"frame": [1, 0, 0, 0, -1, b""]}, ValueError, ["0 to 15", "-1"]),
        ([], {"frame": [1, 0, 0, 0, "9", b""]}, ValueError, ["0 to 15", "'9'"]),
        ([], {"frame": [1, 0, 0, 0, 9, "a"]}, TypeError, ["payload of a frame must be bytes", "not str"]),
    ],
)
def test_anything_else_is_named(
    given: list[Any], forms: dict[str, Any], error: type[Exception], names: list[str]
) -> None:
    with pytest.raises(error) as caught:
        compose(None, *given, **forms)
    for name in names:
        assert name in str(caught.value)


def test_what_is_given_is_shown_in_part_only() -> None:
    with pytest.raises(TypeError) as caught:
        compose(None, "a" * 10_000, "b")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("form", "opcode"), [("text", Opcode.TEXT), ("binary", Opcode.BINARY)])
def test_pieces_are_for_those_who_can_wait(form: str, opcode: Opcode) -> None:
    pieces = trio.open_memory_channel[str](0)[1]
    assert compose(None, callback, **{form: pieces}, compress=True) == ((opcode, pieces), callback, True)
    with pytest.raises(TypeError, match="only send"):
        compose_whole(None, **{form: pieces})
    with pytest.raises(TypeError, match="a message must be str or bytes"):
        compose(None, pieces)
    assert compose_whole(None, "whole") == ("whole", None, None)


@pytest.mark.parametrize("pieces", [["a", b"b"], ("a", b"b"), deque(["a", b"b"])])
def test_a_sequence_of_pieces_is_taken_as_it_is_now(pieces: Any) -> None:
    found, _, _ = compose(None, text=pieces)
    assert found == (Opcode.TEXT, ("a", b"b"))
    with pytest.raises(TypeError, match="only send"):
        compose_whole(None, text=pieces)


def test_a_generator_is_not_asked_yet() -> None:
    pieces = iter([b"a"])
    assert compose(None, binary=pieces)[0] == (Opcode.BINARY, pieces)
    assert next(pieces) == b"a"
