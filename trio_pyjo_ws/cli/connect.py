"""``connect URL``: talk with a server, typing in a terminal or through pipes."""

from __future__ import annotations

import argparse
from base64 import b64encode
from typing import TYPE_CHECKING

from .. import is_transient, reconnecting
from ..handshake.tunnel import Proxy
from .arguments import WrongUsage, count, seconds, url
from .certificates import add_trust_arguments, client_context
from .screens import choose_screen
from .talking import Conversation

if TYPE_CHECKING:
    from .. import ClientOptions
    from .screens import Screen

__all__ = ["EXIT_STATUSES", "add_arguments", "add_talk_arguments", "client_options", "run", "talk"]

MAX_DELAY = 5.0
"""Seconds between two attempts of `--reconnect` at most: somebody watches."""

DESCRIPTION = """\
Connect to a WebSocket server. In a terminal: type a line to send it, /ping to measure, /close CODE REASON or Ctrl-D to
close; //ping sends "/ping". In a pipe: a line of standard input is a message, and a message is a line of standard
output; all else goes to standard error.
"""
EXIT_STATUSES = """\
exit status: 0 closed normally (1000, 1001 or no code), 1 failed (for example an invalid line of JSON), 2 wrong usage,
3 no connection, 4 refused by the server, 5 closed otherwise, 128 + N ended by the signal N (130: Ctrl-C).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``connect`` to ``parser``."""
    parser.description, parser.epilog = DESCRIPTION, EXIT_STATUSES
    parser.add_argument("url", type=url, metavar="URL", help="ws://HOST:PORT/PATH, wss://HOST/PATH, or HOST:PORT")
    add_talk_arguments(parser)


def add_talk_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to ``parser`` how to connect, and what to do with lines."""
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--text",
        action="store_const",
        dest="kind",
        const="text",
        default="text",
        help="a line is a text message (default)",
    )
    kinds.add_argument(
        "--binary", action="store_const", dest="kind", const="binary", help="a line is a binary message, in hexadecimal"
    )
    kinds.add_argument(
        "--json", action="store_const", dest="kind", const="json", help="a line is JSON, in both directions"
    )
    parser.add_argument(
        "-H", "--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'", help="add to the request"
    )
    parser.add_argument(
        "-s", "--subprotocol", action="append", default=[], metavar="NAME", help="offer; the first is preferred"
    )
    parser.add_argument("--origin", help="send as Origin")
    parser.add_argument("--auth", metavar="USER:PASSWORD", type=_basic, help="authenticate (Basic)")
    parser.add_argument(
        "--proxy",
        type=_proxy,
        default=True,
        metavar="URL",
        help="http://, https:// or socks5h://host:port; 'none' for none (default: that of the environment)",
    )
    parser.add_argument("--unix", metavar="PATH", help="connect to this Unix socket; the URL gives the request")
    add_trust_arguments(parser)
    parser.add_argument("--compress", action="store_true", help="offer permessage-deflate")
    parser.add_argument(
        "--max-size", type=count, metavar="BYTES", help="of the largest message that is taken (default 256 KiB)"
    )
    parser.add_argument(
        "-x",
        "--execute",
        action="append",
        default=[],
        metavar="MESSAGE",
        help="send this, in place of standard input; may be given more than once",
    )
    parser.add_argument("-1", "--one-message", action="store_true", help="close when a message has come")
    parser.add_argument("--reconnect", action="store_true", help="connect again when the connection ends")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the headers of the opening handshake")
    parser.add_argument(
        "--ping", type=seconds, metavar="SECONDS", help="ping this often, and show how long the pong took"
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        metavar="SECONDS",
        help="after the end of the input, close when nothing has come for so long (default 1, with -1 inf: never)",
    )


def _header(given: str) -> tuple[str, str]:
    name, colon, value = given.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"must be 'NAME: VALUE', not {given!r}")
    return name.strip(), value.strip()


def _basic(given: str) -> tuple[str, str]:
    if ":" not in given:
        raise argparse.ArgumentTypeError("must be USER:PASSWORD")  # not shown: it may be the password
    return "Authorization", f"Basic {b64encode(given.encode()).decode()}"


def _proxy(given: str) -> str | None:
    if given == "none":
        return None
    try:
        Proxy.parse(given)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return given


async def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    options = client_options(arguments)  # first: OpenSSL may ask for the password of a key
    open_screen = choose_screen(arguments.kind, typing=not arguments.execute)
    async with open_screen() as screen:
        return await talk(screen, arguments, options)


async def talk(screen: Screen, arguments: argparse.Namespace, options: ClientOptions) -> int:
    """Carry messages between ``screen`` and the server until it is enough, and return the exit status."""
    conversation = Conversation(screen, arguments)

    def retries(exc: Exception) -> bool:
        if not is_transient(exc):
            return False
        conversation.retried(exc)
        return True

    attempts = None if arguments.reconnect else 1
    try:
        opening = reconnecting(
            arguments.url, max_attempts=attempts, max_delay=MAX_DELAY, is_transient=retries, **options
        )
    except ValueError as exc:  # a header, a subprotocol, two ways to the server
        raise WrongUsage(str(exc)) from None
    async with opening as connections:
        return await conversation.run(connections)


def client_options(arguments: argparse.Namespace) -> ClientOptions:
    """What ``arguments`` say about the connection. Raises WrongUsage for files that cannot be used."""
    options: ClientOptions = {
        "proxy": arguments.proxy,
        "additional_headers": [*arguments.header, *filter(None, [arguments.auth])],
        "subprotocols": arguments.subprotocol,
        "origin": arguments.origin,
        "compression": arguments.compress,
        "ssl_context": client_context(arguments),
    }
    if arguments.unix is not None:
        options["unix"] = arguments.unix
        if arguments.proxy is True:
            options["proxy"] = None  # not even that of the environment
    if arguments.max_size is not None:
        options["max_websocket_size"] = arguments.max_size
    return options
