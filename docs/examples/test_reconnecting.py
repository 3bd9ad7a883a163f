from itertools import pairwise

import trio
from trio.testing import MockClock

from trio_pyjo_ws import reconnecting


async def test_a_server_that_stays_away(autojump_clock: MockClock) -> None:
    attempts: list[float] = []

    async def open_stream() -> trio.abc.Stream:
        attempts.append(trio.current_time())
        raise ConnectionRefusedError("nobody listens")

    with trio.move_on_after(3600):
        async with reconnecting("ws://chat.example/", open_stream=open_stream, max_delay=60) as connections:
            async for _ws in connections:
                pass
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    assert max(waits) <= 60  # seconds, of which none has passed
    assert len(attempts) > 60
