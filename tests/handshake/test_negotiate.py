"""What the headers of the opening handshake mean."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from trio_pyjo_ws.errors import HandshakeError
from trio_pyjo_ws.handshake.messages import Headers, Request, Response, shorten
from trio_pyjo_ws.handshake.negotiate import (
    accept_offer,
    accept_value,
    check_agreed,
    check_origin,
    check_request,
    check_response,
    choose_subprotocol,
    make_key,
    offer,
    offered_subprotocols,
    parse_extensions,
)
from trio_pyjo_ws.wire.deflate import Deflate, PerMessageDeflate

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

# What Python takes for white space or the end of a line, and HTTP does not.
FALSE_SPACES = ["\x0b", "\x0c", "\x1c", "\x85", "\xa0"]

RIGHT_REQUEST = [
    ("Host", "example.org"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
]
RIGHT_RESPONSE = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)]

# What h11 lets pass.
LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\x00\n\r\x0b\x0c"), max_size=30)
LISTS = st.text('ab \t,;="\\\x1c\x85', max_size=30) | LATIN


def trusted(pairs: list[tuple[str, str]]) -> Headers:
    """Headers as they come from the parser of http1."""
    return Headers(CIMultiDict(pairs))


def changed(pairs: list[tuple[str, str]], name: str, *values: str) -> Headers:
    """The headers with one of them replaced: by nothing, by another value, by several."""
    return trusted([pair for pair in pairs if pair[0] != name] + [(name, value) for value in values])


def request_with(name: str, *values: str) -> Request:
    return Request("GET", "/", changed(RIGHT_REQUEST, name, *values))


def response_with(name: str, *values: str) -> Response:
    return Response(101, changed(RIGHT_RESPONSE, name, *values))


def parameters_of(codec: PerMessageDeflate) -> tuple[int, int, bool, bool]:
    return (
        codec.compress_window_bits,
        codec.decompress_window_bits,
        codec.compress_no_context_takeover,
        codec.decompress_no_context_takeover,
    )


def error_of(call: Callable[..., object], *arguments: object, **options: object) -> HandshakeError | None:
    """Make a call that may end in a HandshakeError, and in no other."""
    try:
        call(*arguments, **options)
    except HandshakeError as error:
        return error
    return None


# Key and accept value


def test_key_is_16_new_bytes() -> None:
    keys = {make_key() for _ in range(10)}
    assert len(keys) == 10
    assert {len(b64decode(key, validate=True)) for key in keys} == {16}


def test_accept_value_is_that_of_the_rfc() -> None:
    assert accept_value(KEY) == ACCEPT


# The server checks the request


def check_refused(request: Request, status: int) -> tuple[str, dict[str, str]]:
    """See that the request is refused with this status; give the message and the headers of the answer."""
    with pytest.raises(HandshakeError) as caught:
        check_request(request)
    response = caught.value.response
    assert response is not None
    assert response.status == status
    assert response.body.decode() == f"{caught.value}\n"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    return str(caught.value), {name: value for name, value in response.headers.items() if name != "Content-Type"}


def test_right_request_passes() -> None:
    check_request(Request("GET", "/", RIGHT_REQUEST))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", "WebSocket"),
        ("Upgrade", "h2c, websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Connection", "UPGRADE\t,close"),
        ("Connection", ",, upgrade ,"),
        ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC=="),  # RFC 6455, section 4.1, has stray bits in it
    ],
)
def test_header_may_be_written_in_this_way_too(name: str, value: str) -> None:
    check_request(request_with(name, value))


def test_list_may_span_several_headers() -> None:
    check_request(request_with("Connection", "keep-alive", "Upgrade"))


def test_other_method_is_405() -> None:
    for method in ("POST", "HEAD", "get"):
        message, headers = check_refused(Request(method, "/", RIGHT_REQUEST), 405)
        assert message == f"expected method GET, found {method!r}"
        assert headers == {"Allow": "GET"}


@pytest.mark.parametrize("name", ["Upgrade", "Connection"])
@pytest.mark.parametrize("values", [[], [""], ["websockets, upgrades"], ["a", "b"]])
def test_request_for_no_websocket_is_426(name: str, values: list[str]) -> None:
    message, headers = check_refused(request_with(name, *values), 426)
    assert message.startswith(f"expected {name}: ")
    assert message.endswith(f"found {', '.join(values)!r}" if values else "found none")
    assert headers == {"Upgrade": "websocket"}


@pytest.mark.parametrize("space", FALSE_SPACES)
def test_false_space_separates_nothing(space: str) -> None:
    check_refused(request_with("Connection", f"{space}Upgrade"), 426)
    check_refused(request_with("Connection", f"close,{space}Upgrade"), 426)
    check_refused(request_with("Connection", f"close{space}Upgrade"), 426)


@pytest.mark.parametrize("name", ["Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
@pytest.mark.parametrize("count", [0, 2])
def test_missing_or_repeated_header_is_400(name: str, count: int) -> None:
    message, _ = check_refused(request_with(name, *[dict(RIGHT_REQUEST)[name]] * count), 400)
    assert message == f"expected one {name} header, found {count}"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "dGhlIHNhbXBsZSBub25j",  # 15 bytes
        "dGhlIHNhbXBsZSBub25jZSE=",  # 17
        "dGhlIHNhbXBsZSBub25jZQ",  # without its padding
        "dGhlIHNhbXBsZSBub25jZQ==\x85",
        "dGhlIHNhbXBsZSBub25jZ_==",
        "dGhlIHNhbXBsZSBub25jZé==",
    ],
)
def test_key_that_is_not_16_bytes_is_400(key: str) -> None:
    message, _ = check_refused(request_with("Sec-WebSocket-Key", key), 400)
    assert message.endswith(f"found {key!r}")


@pytest.mark.parametrize("version", ["", "8", "14", "013", "13, 8", "\x8513"])
def test_other_version_is_426_and_names_the_right_one(version: str) -> None:
    message, headers = check_refused(request_with("Sec-WebSocket-Version", version), 426)
    assert message == f"expected Sec-WebSocket-Version 13, found {version!r}"
    assert headers == {"Sec-WebSocket-Version": "13", "Upgrade": "websocket"}


def test_message_shows_a_long_value_shortened() -> None:
    message, _ = check_refused(request_with("Sec-WebSocket-Key", "a" * 9000), 400)
    assert len(message) < 200


# Origin


def check_origin_refused(request: Request, origins: list[str | re.Pattern[str] | None]) -> str:
    with pytest.raises(HandshakeError) as caught:
        check_origin(request, origins)
    assert caught.value.response is not None
    assert caught.value.response.status == 403
    return str(caught.value)


def test_origin_in_the_list_passes() -> None:
    request = request_with("Origin", "https://example.org")
    check_origin(request, ["https://example.com", "https://example.org"])
    check_origin(request, [None, re.compile(r"https://(\w+\.)*example\.org")])


def test_foreign_origin_is_403() -> None:
    request = request_with("Origin", "https://example.org.evil")
    origins = ["https://example.org", re.compile(r"https://example\.org"), None]
    assert check_origin_refused(request, origins) == "origin not allowed: 'https://example.org.evil'"
    check_origin_refused(request, [])


def test_request_without_origin_passes_where_none_is_listed() -> None:
    request = request_with("Origin")
    check_origin(request, ["https://example.org", None])
    assert check_origin_refused(request, ["https://example.org", re.compile("")]) == "origin not allowed: none"


def test_repeated_origin_is_foreign() -> None:
    request = request_with("Origin", "https://example.org", "https://example.org")
    check_origin_refused(request, ["https://example.org", None])


def test_origins_are_not_one_str() -> None:
    with pytest.raises(TypeError, match=r"origins must be a sequence of origins, not one: 'https://example\.org'"):
        check_origin(request_with("Origin", "h"), "https://example.org")


# Subprotocols


@pytest.mark.parametrize(
    ("values", "offered"),
    [([], []), ([""], []), (["chat"], ["chat"]), (["b ,\ta", "c"], ["b", "a", "c"]), ([",, a,"], ["a"])],
)
def test_client_offers_subprotocols_in_its_order(values: list[str], offered: list[str]) -> None:
    assert offered_subprotocols(request_with("Sec-WebSocket-Protocol", *values)) == offered


def test_server_chooses_by_its_own_order() -> None:
    request = request_with("Sec-WebSocket-Protocol", "a, b", "c")
    assert choose_subprotocol(request, ["x", "c", "a"]) == "c"
    assert choose_subprotocol(request, ["A"]) is None
    assert choose_subprotocol(request, []) is None


@pytest.mark.parametrize("value", ["a b", "a;b", 'a, "b"', *(f"a{space}" for space in FALSE_SPACES)])
def test_subprotocol_that_is_no_token_is_400(value: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        choose_subprotocol(request_with("Sec-WebSocket-Protocol", value), ["a"])
    assert caught.value.response is not None
    assert caught.value.response.status == 400


# Extension lists


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("", []),
        (" , ,\t", []),
        ("a", [("a", [])]),
        ("a,b", [("a", []), ("b", [])]),
        (" ,a , b ,", [("a", []), ("b", [])]),
        ("a; b; c=1", [("a", [("b", None), ("c", "1")])]),
        ("a ;\tb = 1 , c;d", [("a", [("b", "1")]), ("c", [("d", None)])]),
        ('a; b="1"', [("a", [("b", "1")])]),
        ('a; b="\\1\\2"', [("a", [("b", "12")])]),
        ('a; b="c" ; e, f', [("a", [("b", "c"), ("e", None)]), ("f", [])]),
    ],
)
def test_extensions_are_parsed(value: str, extensions: list[tuple[str, list[tuple[str, str | None]]]]) -> None:
    assert parse_extensions([value]) == extensions
    assert parse_extensions([value, value]) == extensions * 2


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "a;",
        "a;;b",
        ";a",
        "a=1",
        "a; =1",
        "a; b=1=2",
        'a; b="1',
        'a; b="1" 2',
        'a; b="1\\',
        "a; b=(",
        # A value is a token, in quotes as well (RFC 6455, section 9.1).
        "a; b=",
        "a; b=, c",
        'a; b=""',
        'a; b="b@z"',
        'a; b=" 9"',
        'a; b=", c; d" ; e, f',
        'a; b="\\1\\""',
        *(f"a{space}" for space in FALSE_SPACES),
        *(f"a;{space}b" for space in FALSE_SPACES),
    ],
)
def test_malformed_extensions_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="expected an extension or parameter, found "):
        parse_extensions([value])


# permessage-deflate on the server


@pytest.mark.parametrize(
    ("offered", "wishes", "answer", "parameters"),
    [
        # What the client asks for is granted.
        ("", {}, "", (15, 15, False, False)),
        ("; server_no_context_takeover", {}, "; server_no_context_takeover", (15, 15, True, False)),
        ("; client_no_context_takeover", {}, "; client_no_context_takeover", (15, 15, False, True)),
        ("; server_max_window_bits=10", {}, "; server_max_window_bits=10", (10, 15, False, False)),
        ("; server_max_window_bits=15", {}, "; server_max_window_bits=15", (15, 15, False, False)),
        ('; server_max_window_bits="10"', {}, "; server_max_window_bits=10", (10, 15, False, False)),
        ("; client_max_window_bits", {}, "", (15, 15, False, False)),
        ("; client_max_window_bits=10", {}, "; client_max_window_bits=10", (15, 10, False, False)),
        ("; server_max_window_bits=8", {}, "; server_max_window_bits=8", (8, 15, False, False)),
        # What the server wishes for is stated.
        ("", {"server_no_context_takeover": True}, "; server_no_context_takeover", (15, 15, True, False)),
        ("", {"client_no_context_takeover": True}, "; client_no_context_takeover", (15, 15, False, True)),
        ("", {"server_max_window_bits": 9}, "; server_max_window_bits=9", (9, 15, False, False)),
        (
            "; client_max_window_bits",
            {"client_max_window_bits": 9},
            "; client_max_window_bits=9",
            (15, 9, False, False),
        ),
        # The client's window cannot be limited where the client does not say that it understands this.
        ("", {"client_max_window_bits": 9}, "", (15, 15, False, False)),
        # The stricter counts.
        ("; server_max_window_bits=10", {"server_max_window_bits": 12}, "; server_max_window_bits=10", (10, 15, 0, 0)),
        ("; server_max_window_bits=12", {"server_max_window_bits": 10}, "; server_max_window_bits=10", (10, 15, 0, 0)),
        ("; client_max_window_bits=10", {"client_max_window_bits": 12}, "; client_max_window_bits=10", (15, 10, 0, 0)),
        ("; client_max_window_bits=12", {"client_max_window_bits": 10}, "; client_max_window_bits=10", (15, 10, 0, 0)),
        (
            "; client_max_window_bits; server_max_window_bits=11; server_no_context_takeover",
            {"client_max_window_bits": 12},
            "; server_no_context_takeover; server_max_window_bits=11; client_max_window_bits=12",
            (11, 12, True, False),
        ),
    ],
)
def test_server_answers_an_offer(
    offered: str, wishes: dict[str, int], answer: str, parameters: tuple[int, int, bool, bool]
) -> None:
    accepted = accept_offer([f"permessage-deflate{offered}"], Deflate(**wishes))  # type: ignore[arg-type]
    assert accepted is not None
    header, codec = accepted
    assert header == f"permessage-deflate{answer}"
    assert parameters_of(codec) == parameters


DECLINED = [
    *(
        f"{name}={value}"
        for name in ("server_max_window_bits", "client_max_window_bits")
        for value in ("7", "16", "abc", '"7"', "08", "010", "+9", "9.0", "-9")
    ),
    "server_max_window_bits",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits; client_max_window_bits",
    "server_no_context_takeover; server_no_context_takeover",
    "server_no_context_takeover=1",
    'client_no_context_takeover="1"',
    "unknown",
    "Server_No_Context_Takeover",
]


@pytest.mark.parametrize("parameters", DECLINED)
def test_invalid_offer_is_declined_and_the_next_one_tried(parameters: str) -> None:
    declined = f"permessage-deflate; {parameters}"
    assert accept_offer([declined], Deflate()) is None
    for values in ([f"{declined}, permessage-deflate"], [declined, "x", "permessage-deflate"]):
        accepted = accept_offer(values, Deflate())
        assert accepted is not None
        assert accepted[0] == "permessage-deflate"


def test_first_acceptable_offer_counts() -> None:
    accepted = accept_offer(["permessage-deflate; server_max_window_bits=9, permessage-deflate"], Deflate())
    assert accepted is not None
    assert accepted[0] == "permessage-deflate; server_max_window_bits=9"


def test_other_extensions_are_ignored() -> None:
    assert accept_offer([], Deflate()) is None
    assert accept_offer(["x-webkit-deflate-frame, permessage-bzip2; a=b, Permessage-Deflate"], Deflate()) is None


def test_malformed_extensions_are_400() -> None:
    with pytest.raises(HandshakeError, match="malformed Sec-WebSocket-Extensions") as caught:
        accept_offer(["permessage-deflate;"], Deflate())
    assert caught.value.response is not None
    assert caught.value.response.status == 400


def test_server_compresses_as_it_wishes() -> None:
    accepted = accept_offer(["permessage-deflate"], Deflate(level=1, memory_level=2))
    assert accepted is not None
    assert (accepted[1].level, accepted[1].memory_level) == (1, 2)


# permessage-deflate on the client


@pytest.mark.parametrize(
    ("wishes", "value"),
    [
        ({}, "; client_max_window_bits"),
        ({"client_max_window_bits": 9}, "; client_max_window_bits=9"),
        ({"server_max_window_bits": 9}, "; server_max_window_bits=9; client_max_window_bits"),
        ({"server_no_context_takeover": True}, "; server_no_context_takeover; client_max_window_bits"),
        ({"client_no_context_takeover": True}, "; client_no_context_takeover; client_max_window_bits"),
    ],
)
def test_client_offers_what_it_wishes_for(wishes: dict[str, int], value: str) -> None:
    assert offer(Deflate(**wishes)) == f"permessage-deflate{value}"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wishes", "answer", "parameters"),
    [
        ({}, "", (15, 15, False, False)),
        ({}, "; server_no_context_takeover; client_no_context_takeover", (15, 15, True, True)),
        ({}, "; server_max_window_bits=8", (15, 8, False, False)),
        ({}, "; client_max_window_bits=8", (8, 15, False, False)),
        ({"client_max_window_bits": 9}, "", (9, 15, False, False)),
        ({"client_max_window_bits": 12}, "; client_max_window_bits=10", (10, 15, False, False)),
        ({"server_max_window_bits": 12}, "; server_max_window_bits=12", (15, 12, False, False)),
        ({"server_no_context_takeover": True}, "; server_no_context_takeover", (15, 15, False, True)),
        ({"client_no_context_takeover": True}, "", (15, 15, True, False)),
    ],
)
def test_client_takes_what_the_server_agreed_to(
    wishes: dict[str, int], answer: str, parameters: tuple[int, int, bool, bool]
) -> None:
    codec = check_agreed([f"permessage-deflate{answer}"], Deflate(**wishes))  # type: ignore[arg-type]
    assert codec is not None
    assert parameters_of(codec) == parameters


@pytest.mark.parametrize("values", [[], [""], [" , "]])
def test_server_may_decline(values: list[str]) -> None:
    assert check_agreed(values, Deflate()) is None
    assert check_agreed(values, None) is None


@pytest.mark.parametrize(
    ("wishes", "value", "message"),
    [
        (None, "permessage-deflate", "none was offered"),
        ({}, "x", "permessage-deflate, once"),
        ({}, "permessage-deflate, permessage-deflate", "permessage-deflate, once"),
        ({}, "permessage-deflate, x", "permessage-deflate, once"),
        ({}, "permessage-deflate;", "expected an extension or parameter"),
        ({}, "permessage-deflate; client_max_window_bits", "found none"),
        ({"server_no_context_takeover": True}, "permessage-deflate", "which was asked for"),
        ({"server_max_window_bits": 12}, "permessage-deflate", "at most 12 for server_max_window_bits"),
        (
            {"server_max_window_bits": 12},
            "permessage-deflate; server_max_window_bits=13",
            "at most 12 for server_max_window_bits",
        ),
        (
            {"client_max_window_bits": 12},
            "permessage-deflate; client_max_window_bits=13",
            "at most 12 for client_max_window_bits",
        ),
        *(({}, f"permessage-deflate; {parameters}", "^Sec-WebSocket-Extensions ") for parameters in DECLINED),
    ],
)
def test_answer_that_does_not_fit_the_offer_fails(wishes: dict[str, int] | None, value: str, message: str) -> None:
    with pytest.raises(HandshakeError, match=message) as caught:
        check_agreed([value], None if wishes is None else Deflate(**wishes))  # type: ignore[arg-type]
    assert shorten(value) in str(caught.value)


@settings(deadline=None)
@given(
    client=st.builds(
        Deflate,
        server_no_context_takeover=st.booleans(),
        client_no_context_takeover=st.booleans(),
        server_max_window_bits=st.integers(8, 15),
        client_max_window_bits=st.integers(8, 15),
    ),
    server=st.builds(
        Deflate,
        server_no_context_takeover=st.booleans(),
        client_no_context_takeover=st.booleans(),
        server_max_window_bits=st.integers(8, 15),
        client_max_window_bits=st.integers(8, 15),
    ),
)
def test_both_sides_come_to_codecs_that_understand_each_other(client: Deflate, server: Deflate) -> None:
    accepted = accept_offer([offer(client)], server)
    assert accepted is not None
    header, ours = accepted
    theirs = check_agreed([header], client)
    assert theirs is not None
    assert ours.compress_window_bits == theirs.decompress_window_bits <= server.server_max_window_bits
    assert theirs.compress_window_bits == ours.decompress_window_bits <= server.client_max_window_bits
    for sender, recipient in ((ours, theirs), (theirs, ours)):
        for _ in range(2 * sender.can_compress):
            recipient.feed(sender.compress(b"Hello" * 999))
            assert recipient.inflate(5000) == b"Hello" * 999
            recipient.end()


# The client checks the response


def check_response_refused(response: Response, message: str, **offered: object) -> None:
    with pytest.raises(HandshakeError, match=message) as caught:
        check_response(Request("GET", "/", RIGHT_REQUEST), response, **offered)  # type: ignore[arg-type]
    assert caught.value.response is response


def test_right_response_is_an_agreement() -> None:
    assert check_response(Request("GET", "/", RIGHT_REQUEST), Response(101, RIGHT_RESPONSE)) == (None, None)


def test_agreement_has_what_was_chosen() -> None:
    headers = [*RIGHT_RESPONSE, ("Sec-WebSocket-Protocol", "b"), ("Sec-WebSocket-Extensions", "permessage-deflate")]
    agreement = check_response(
        Request("GET", "/", RIGHT_REQUEST), Response(101, headers), subprotocols=["a", "b"], deflate=Deflate()
    )
    assert agreement.subprotocol == "b"
    assert agreement.deflate is not None


@pytest.mark.parametrize(("name", "value"), [("Upgrade", "WebSocket"), ("Connection", "close, upgrade")])
def test_response_may_be_written_in_this_way_too(name: str, value: str) -> None:
    check_response(Request("GET", "/", RIGHT_REQUEST), response_with(name, value))


def test_other_status_fails() -> None:
    check_response_refused(Response(403, RIGHT_RESPONSE, reason="No"), "^expected status 101, found 403 No$")
    check_response_refused(Response(200, RIGHT_RESPONSE), "^expected status 101, found 200$")
    check_response_refused(Response(302, reason="a" * 99), f"^expected status 101, found 302 {'a' * 60}$")


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("Upgrade", [], "none"),
        ("Upgrade", ["h2c"], "'h2c'"),
        ("Upgrade", ["websocket", "websocket"], "'websocket, websocket'"),
        ("Connection", [], "none"),
        ("Connection", ["close"], "'close'"),
        ("Sec-WebSocket-Accept", [], "none"),
        ("Sec-WebSocket-Accept", [KEY], re.escape(repr(KEY))),
        ("Sec-WebSocket-Accept", [ACCEPT, ACCEPT], re.escape(repr(f"{ACCEPT}, {ACCEPT}"))),
        ("Sec-WebSocket-Accept", ["a" * 99], "'a{60}'... \\(99 characters\\)"),
    ],
)
def test_wrong_response_fails(name: str, values: list[str], found: str) -> None:
    check_response_refused(response_with(name, *values), f"^expected {name}.*, found {found}$")


@pytest.mark.parametrize("values", [["c"], [""], ["A"], ["a, b"], ["a", "b"], ["a", "a"]])
def test_subprotocol_that_was_not_offered_fails(values: list[str]) -> None:
    response = response_with("Sec-WebSocket-Protocol", *values)
    expected = "at most one Sec-WebSocket-Protocol, found 2" if len(values) > 1 else "one of the offered subprotocols"
    check_response_refused(response, f"^expected {expected}", subprotocols=["a", "b"])
    check_response_refused(response, "^expected (at most one|no subprotocol)")


def test_extension_that_was_not_offered_fails() -> None:
    response = response_with("Sec-WebSocket-Extensions", "permessage-deflate")
    check_response_refused(response, "none was offered")


# Whatever a peer writes


@settings(deadline=None)
@given(
    method=st.sampled_from(["GET", "POST"]),
    headers=st.lists(st.tuples(st.sampled_from([name for name, _ in RIGHT_REQUEST]), LATIN), max_size=3),
    lists=st.lists(st.tuples(st.sampled_from(["Connection", "Origin", "Sec-WebSocket-Protocol"]), LISTS), max_size=3),
    extensions=st.lists(LISTS, max_size=3),
)
def test_only_handshake_errors_come_of_any_headers(
    method: str, headers: list[tuple[str, str]], lists: list[tuple[str, str]], extensions: list[str]
) -> None:
    given_names = {name for name, _ in headers}
    right = [pair for pair in RIGHT_REQUEST if pair[0] not in given_names]
    request = Request(method, "/", trusted([*right, *headers, *lists]))
    response = trusted([("Sec-WebSocket-Extensions", value) for value in extensions] + RIGHT_RESPONSE)
    for call, *arguments in (
        (check_request, request),
        (check_origin, request, ["a", None]),
        (choose_subprotocol, request, ["a"]),
        (accept_offer, extensions, Deflate()),
    ):
        error = error_of(call, *arguments)
        assert error is None or error.response is not None
    error = error_of(check_response, Request("GET", "/", RIGHT_REQUEST), Response(101, response), deflate=Deflate())
    assert error is None or "Sec-WebSocket-Extensions" in str(error)
