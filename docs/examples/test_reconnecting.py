from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from trio_pyjo_ws import reconnecting


async def test_a_server_that_stays_away(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[float] = []

    async def refuse(*_: object, **__: object) -> trio.SocketStream:
        attempts.append(trio.current_time())
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    with trio.move_on_after(3600):
        async for _ws in reconnecting("ws://chat.example/", proxy=None, max_delay=60):
            pass
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    assert max(waits) <= 60  # seconds, of which none has passed
    assert len(attempts) > 60
