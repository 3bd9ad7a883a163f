"""The options of the programs about TLS, and the contexts that they ask for."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from .arguments import WrongUsage, readable_file

if TYPE_CHECKING:
    import argparse

__all__ = ["add_trust_arguments", "client_context", "server_context"]


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to ``parser`` how a client verifies the server, and shows who it is."""
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "-k", "--insecure", action="store_true", help="do not verify the server's certificate: anybody may listen"
    )
    trust.add_argument(
        "--ca", type=readable_file, metavar="FILE", help="trust these authorities (or this certificate), in PEM"
    )
    parser.add_argument(
        "--cert", type=readable_file, metavar="FILE", help="show this client certificate, in PEM, to the server"
    )
    parser.add_argument("--key", type=readable_file, metavar="FILE", help="its private key, unless it is in that file")


def client_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """The context that a client's arguments ask for; None for the library's own.

    Raises WrongUsage, which names the file, if one of them cannot be used.
    """
    _check_key(arguments)
    if not (arguments.insecure or arguments.ca or arguments.cert):
        return None
    context = ssl.create_default_context()
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if arguments.ca:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # with these authorities alone
        try:
            context.load_verify_locations(arguments.ca)
        except (OSError, ValueError):  # an SSLError is an OSError
            raise WrongUsage(f"argument --ca: no certificate in PEM in {arguments.ca!r}") from None
    _load(context, arguments)
    return context


def server_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """The context of a server with ``--cert``; None without. Raises as :func:`client_context`."""
    _check_key(arguments)
    if not arguments.cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, arguments)
    return context


def _check_key(arguments: argparse.Namespace) -> None:
    if arguments.key and not arguments.cert:
        raise WrongUsage("argument --key: requires --cert")


def _load(context: ssl.SSLContext, arguments: argparse.Namespace) -> None:
    if not arguments.cert:
        return
    key = arguments.key or arguments.cert
    try:
        context.load_cert_chain(arguments.cert, key)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise WrongUsage(f"argument --key: {key!r} is the key of another certificate") from None
        pieces = f"a certificate in {arguments.cert!r} and its private key in {key!r}"
        raise WrongUsage(f"argument --cert: expected {pieces}, both in PEM") from None
