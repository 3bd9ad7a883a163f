from __future__ import annotations

import argparse

import pytest

from trio_pyjo_ws.cli.arguments import count, port, seconds, url


def test_what_fits() -> None:
    assert url("wss://example.org/chat") == "wss://example.org/chat"
    assert seconds("0.5") == 0.5
    assert seconds("inf") == float("inf")
    assert count("12") == 12
    assert count("3k") == 3_000
    assert count("2M") == 2_000_000
    assert port("0") == 0
    assert port("65535") == 65_535


@pytest.mark.parametrize(
    ("check", "given", "message"),
    [
        (url, "http://example.org/", "accepted are 'ws' and 'wss'"),
        (seconds, "0", "'0' is no positive number of seconds"),
        (seconds, "-1", "no positive number"),
        (seconds, "nan", "no positive number"),
        (seconds, "soon", "no positive number"),
        (count, "0", "'0' is no positive whole number"),
        (count, "-1", "no positive whole number"),
        (count, "1.5", "no positive whole number"),
        (count, "k", "no positive whole number"),
        (count, "²", "no positive whole number"),
        (port, "65536", "'65536' is no port"),
        (port, "http", "no port"),
        (port, "-1", "no port"),
        (count, "", "no positive whole number"),
    ],
)
def test_what_does_not_fit_is_named(check: type, given: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        check(given)
