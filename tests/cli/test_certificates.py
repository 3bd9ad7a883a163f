from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trustme

from trio_pyjo_ws import HandshakeError
from trio_pyjo_ws.cli import main
from trio_pyjo_ws.cli.arguments import WrongUsage
from trio_pyjo_ws.cli.certificates import client_context, server_context
from trio_pyjo_ws.cli.main import make_parser

from .program import echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio_pyjo_ws import Server

    from .program import Pipes

    StartServer = Callable[..., Awaitable[Server]]


class Files(NamedTuple):
    authority: str
    certificate: str
    key: str
    both: str
    other_key: str


@pytest.fixture(scope="module")
def issued() -> tuple[trustme.CA, trustme.LeafCert, trustme.LeafCert]:
    authority = trustme.CA()
    return authority, authority.issue_cert("127.0.0.1"), authority.issue_cert("other.test")


@pytest.fixture
def files(tmp_path: Path, issued: tuple[trustme.CA, trustme.LeafCert, trustme.LeafCert]) -> Files:
    authority, own, other = issued
    found = Files(*(str(tmp_path / name) for name in Files._fields))
    authority.cert_pem.write_to_path(found.authority)
    own.cert_chain_pems[0].write_to_path(found.certificate)
    own.private_key_pem.write_to_path(found.key)
    own.private_key_and_cert_chain_pem.write_to_path(found.both)
    other.private_key_pem.write_to_path(found.other_key)
    return found


def context_of(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.authority)
    context.load_cert_chain(files.both)
    return context


def parse(program: str, *arguments: str) -> ssl.SSLContext | None:
    parsed = make_parser().parse_args([program, *(["--echo"] if program == "serve" else ["wss://test/"]), *arguments])
    return server_context(parsed) if program == "serve" else client_context(parsed)


async def test_an_authority_may_be_named_and_a_certificate_not_be_verified(
    pipes: Pipes, start_server: StartServer, files: Files
) -> None:
    server = await start_server(echo, ssl_context=context_of(files))
    url = str(server.url).replace("wss", "https")
    pipes.end_input()
    with pytest.RaisesGroup(pytest.RaisesExc(HandshakeError, match="CERTIFICATE_VERIFY"), flatten_subgroups=True):
        await pipes.run("connect", url)
    for trust in (["--ca", files.authority], ["--insecure"], ["-k"]):
        assert await pipes.run("connect", *trust, "--wait", "0.01", url) == 0
    assert await pipes.run("bench", "--ca", files.authority, "-d", "0.1", "-c", "1", url) == 0


async def test_a_client_shows_its_certificate(pipes: Pipes, start_server: StartServer, files: Files) -> None:
    context = context_of(files)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await start_server(echo, ssl_context=context)
    pipes.end_input()
    arguments = ["connect", "--ca", files.authority, "--wait", "0.01", str(server.url)]
    for shown in (["--cert", files.both], ["--cert", files.certificate, "--key", files.key]):
        assert await pipes.run(*arguments, *shown) == 0
    with pytest.RaisesGroup(HandshakeError, flatten_subgroups=True):
        await pipes.run(*arguments)


@pytest.mark.parametrize("program", ["connect", "serve"])
def test_without_certificates_the_library_decides(program: str) -> None:
    assert parse(program) is None


@pytest.mark.parametrize("program", ["connect", "serve"])
def test_certificates_that_cannot_be_used_are_named(program: str, files: Files) -> None:
    for arguments, message in [
        (["--key", files.key], "argument --key: requires --cert"),
        (
            ["--cert", files.both, "--key", files.other_key],
            f"--key: {files.other_key!r} is the key of another certificate",
        ),
        (["--cert", files.certificate], f"expected a certificate in {files.certificate!r} and its private key in"),
        (["--cert", files.key, "--key", files.key], f"expected a certificate in {files.key!r}"),
        (["--cert", files.both, "--key", __file__], f"its private key in {__file__!r}, both in PEM"),
    ]:
        with pytest.raises(WrongUsage) as caught:
            parse(program, *arguments)
        assert message in str(caught.value)


@pytest.mark.parametrize("which", ["key", "source"])
def test_an_authority_that_is_not_one_is_named(which: str, files: Files) -> None:
    path = files.key if which == "key" else __file__
    with pytest.raises(WrongUsage, match=re.escape(f"argument --ca: no certificate in PEM in {path!r}")):
        parse("connect", "--ca", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["connect", "--cert", "/no/such", "wss://test/"],
            "connect: error: argument --cert: cannot read '/no/such': No",
        ),
        (["serve", "--echo", "--cert", "/no/such"], "serve: error: argument --cert: cannot read '/no/such': No"),
        (["bench", "--ca", "/", "wss://test/"], "bench: error: argument --ca: cannot read '/': Is a directory"),
        (["inspect", "--key", __file__, "wss://test/"], "inspect: error: argument --key: requires --cert"),
        (["serve", "--echo", "--cert", __file__], "serve: error: argument --cert: expected a certificate in"),
        (["connect", "-k", "--ca", __file__, "wss://test/"], "argument --ca: not allowed with argument -k/--insecure"),
    ],
)
def test_what_is_wrong_is_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
