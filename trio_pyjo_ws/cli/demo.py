"""``demo``: a client and a server talk, frame by frame."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from .. import Options, Transaction, codec, open_websocket, serve, zlib_name
from . import web
from .arguments import WrongUsage
from .ending import Status
from .serve import HOST, PORT, add_address_arguments

if TYPE_CHECKING:
    import argparse

    from .. import Frame

__all__ = ["add_arguments", "run"]

DESCRIPTION = """\
A client and a server talk over TCP, in one process, and their frames are shown. With --web: a chat between browsers.
"""

MEBIBYTE = 2**20

DEMO_TIMEOUT = 30
"""Seconds after which a demo that hangs gives up. It takes less than one."""

MAX_SHOWN = 40
"""Characters of a payload or message that are shown."""

INTRODUCTION = """\
A client and a server talk over TCP, in one process. Each line says who does what.
Every frame is shown by the side that receives it: FIN=0 says that the message goes on in the next frame,
RSV1=1 that it is compressed, as all but short messages are, and the number of bytes is that of the payload as it
travels.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``demo`` to ``parser``."""
    parser.description = DESCRIPTION
    parser.add_argument("--web", action="store_true", help="serve a page to open in two windows of a browser instead")
    add_address_arguments(parser)
    parser.set_defaults(host=None, port=None)


async def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    if arguments.web:
        arguments.host = HOST if arguments.host is None else arguments.host
        arguments.port = PORT if arguments.port is None else arguments.port
        return await web.run(arguments)
    if arguments.host is not None or arguments.port is not None:
        raise WrongUsage("--host and --port go with --web: otherwise nothing is served for others")
    await demo()
    return Status.DONE


async def demo() -> None:
    """Start a server, connect a client to it, and have them do everything once."""
    with trio.fail_after(DEMO_TIMEOUT):
        async with trio.open_nursery() as nursery:
            print(INTRODUCTION)
            options: Options = {"compression": True, "max_websocket_size": 2 * MEBIBYTE}
            server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", **options))
            _tell("server", "listens", server.url)
            async with open_websocket(server.url, proxy=None, **options) as ws:
                await talk(ws)
            await server.aclose()
            _tell("server", "stopped", "")


async def echo(ws: Transaction) -> None:
    """The server: send every message back."""
    _watch("server", ws)
    async for message in ws:
        _tell("server", "received", _show(message))
        await ws.send(message)


async def talk(ws: Transaction) -> None:
    """The client."""
    _watch("client", ws)
    _tell("client", "connected", f"{ws.res.status} {ws.res.reason}")
    _tell("client", "agreed on", ws.res.headers["Sec-WebSocket-Extensions"])
    _tell("both", "use", f"{zlib_name}; codec: {codec}")

    _step("Text", 'await ws.send("Hello World!")')
    await ws.send("Hello World!")
    _check(await ws.receive(), "Hello World!")

    _step("Binary", r'await ws.send(b"\x00\x01\x02\x03")')
    await ws.send(b"\x00\x01\x02\x03")
    _check(await ws.receive(), b"\x00\x01\x02\x03")

    _step("JSON, and a channel that decodes it", 'await ws.send(json={"test": [1, 2, 3]})')
    async with ws.open_channel("json") as objects:
        await ws.send(json={"test": [1, 2, 3]})
        _check(await objects.receive(), {"test": [1, 2, 3]})

    _step("One message in two frames, sent as they are", 'await ws.send(frame=[0, 0, 0, 0, 1, b"Hello "])')
    print('   await ws.send(frame=[1, 0, 0, 0, 0, b"World!"])')
    await ws.send(frame=[0, 0, 0, 0, 1, b"Hello "])
    await ws.send(frame=[1, 0, 0, 0, 0, b"World!"])
    _check(await ws.receive(), "Hello World!")

    _step("1 MiB of text, and a callback once it is written", "await ws.send(text, cb=drained)")
    verse = "bottles of beer on the wall, and as many bottles of beer."
    text = "".join(f"{number:05} {verse}\n" for number in range(MEBIBYTE // 64))
    await ws.send(text, cb=lambda _: _tell("client", "drained", "all is handed to the kernel"))
    _check(await ws.receive(), text)

    _step("A ping, and its pong", "latency = await ws.ping()")
    _tell("client", "latency", f"{await ws.ping() * 1000:.3f} ms")

    _step("The end", 'close = await ws.finish(1000, "That was all")')
    close = await ws.finish(1000, "That was all")
    _tell("client", "returned", str(close))


def _watch(who: str, ws: Transaction) -> None:
    """Have each frame that ``ws`` receives shown, and its end."""

    @ws.on
    def frame(_: Transaction, received: Frame) -> None:
        fin, rsv1, _rsv2, _rsv3, opcode, payload = received
        name = getattr(opcode, "name", str(opcode))
        bits = f"FIN={fin:d} RSV1={rsv1:d}"
        _tell(who, "frame", f"{bits} {name:<12} {len(payload):>6,} bytes  {_shorten(repr(payload))}")

    @ws.on
    def finish(_: Transaction, code: int, reason: str) -> None:
        _tell(who, "finished", f"code {code}, reason {reason!r}")


def _step(title: str, call: str) -> None:
    print(f"\n{title}:\n   {call}")


def _tell(who: str, what: str, detail: str) -> None:
    print(f"   {who:<7} {what:<10} {detail}".rstrip())


def _show(message: Any) -> str:
    """A message, and its size if it has one."""
    if isinstance(message, str):
        return f"{_shorten(repr(message))} ({len(message):,} characters)"
    if isinstance(message, bytes):
        return f"{_shorten(repr(message))} ({len(message):,} bytes)"
    return repr(message)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _check(received: object, expected: object) -> None:
    _tell("client", "received", _show(received))
    if received != expected:
        raise RuntimeError(f"the server sent back {_show(received)}, not {_show(expected)}")
