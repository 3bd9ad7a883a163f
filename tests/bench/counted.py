"""The server whose instructions `count` counts: ``python -m bench.counted FD``, under valgrind.

It forks for each run, so that the start of Python is paid once. Whatever would make two runs differ is out of the way:
the clock stands still, so that no turn is over early because valgrind is slow; what trio leaves to chance comes from a
seed; and when the server has nothing left to do it waits at a gate, which the load, in the other process, opens after
it has sent all that the next turn is to find.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

from . import ours
from .load import HOST

if TYPE_CHECKING:
    import trio

HANDLERS = {"for": ours.echo, "channel": ours.echo_by_channel, "callback": ours.echo_by_callback}
GATE = "gate"
"""In place of a handler's name: pass the gate and do nothing else, to know what that costs."""

WAITING = b"?"
GO_ON = b"!"
END = b"."


def make_gate(fd: int) -> trio.abc.Instrument:
    import trio

    class Gate(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            if timeout:  # otherwise there are tasks to run
                os.write(fd, WAITING)
                if os.read(fd, 1) == END:
                    os._exit(0)

    return Gate()


def run(name: str, fd: int) -> None:
    """Be the server of that handler until the load says that it is the end, which is the process's, too."""
    import trio

    from trio_pyjo_ws import serve

    gate = make_gate(fd)
    while name == GATE:
        gate.before_io_wait(1.0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, HANDLERS[name], 0, host=HOST, compression=False))
            os.write(fd, b"port %d" % server.port)
            trio.lowlevel.add_instrument(gate)

    trio._core._run._r.seed(0)  # there is no public way; Hypothesis's plugin takes the same
    trio.run(main)


def main() -> None:
    time.perf_counter = repeat(0.0).__next__  # before anybody imports it
    import trio_pyjo_ws  # noqa: F401 - so that no child has to

    with socket.socket(fileno=int(sys.argv[1])) as connection:
        while name := connection.recv(100).decode():
            child = os.fork()
            if not child:
                run(name, connection.fileno())
            os.waitpid(child, 0)
            connection.send(b"child %d" % child)


if __name__ == "__main__":
    main()
