from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import pytest

from trio_pyjo_ws.cli.arguments import count, port, readable_file, seconds, url

if TYPE_CHECKING:
    from pathlib import Path


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
        (url, "ftp://example.org/", "unsupported URL scheme 'ftp'"),
        (url, "", "invalid host"),
        (url, "localhost:http", "invalid port 'http'"),
        (seconds, "0", "must be a positive number of seconds, not '0'"),
        (seconds, "-1", "a positive number"),
        (seconds, "nan", "a positive number"),
        (seconds, "soon", "a positive number"),
        (count, "0", "must be a positive whole number, not '0'"),
        (count, "-1", "a positive whole number"),
        (count, "1.5", "a positive whole number"),
        (count, "k", "a positive whole number"),
        (count, "²", "a positive whole number"),
        (port, "65536", "must be a port, 0 to 65535, not '65536'"),
        (port, "http", "must be a port"),
        (port, "-1", "must be a port"),
        (count, "", "a positive whole number"),
    ],
)
def test_what_does_not_fit_is_named(check: type, given: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        check(given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("wss://example.org/chat?a=://", "wss://example.org/chat?a=://"),
        ("http://example.org/", "ws://example.org/"),
        ("HTTPS://example.org/", "wss://example.org/"),
        ("localhost:8000", "ws://localhost:8000"),
        ("example.org/chat", "ws://example.org/chat"),
        ("example.org:443/chat", "wss://example.org:443/chat"),
        ("[::1]:8000/", "ws://[::1]:8000/"),
    ],
)
def test_an_address_as_it_is_typed_is_a_url(given: str, meant: str) -> None:
    assert url(given) == meant


def test_a_file_that_can_be_read_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert readable_file(str(pipe)) == str(pipe)  # opened, it would wait for who writes


@pytest.mark.parametrize("kind", ["missing", "folder", "secret", "nothing"])
def test_a_file_that_cannot_be_read_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / kind) if kind != "nothing" else ""
    reason = "No such file or directory"
    if kind == "folder":
        path, reason = str(tmp_path), "Is a directory"
    elif kind == "secret":
        (tmp_path / kind).touch()
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may read all there is
        reason = "Permission denied"
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        readable_file(path)
    assert str(caught.value) == f"cannot read {path!r}: {reason}"
