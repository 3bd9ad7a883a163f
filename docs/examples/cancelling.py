import trio
from trio.testing import MockClock

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import open_memory_pair, open_scripted_pair


async def chatter(ws: Transaction) -> None:
    for number in range(5):
        await trio.sleep(0.9)
        await ws.send(f"message {number}")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery)
        nursery.start_soon(chatter, server)
        received: list[str | bytes] = []
        while len(received) < 5:
            with trio.move_on_after(0.5) as scope:
                received.append(await client.receive())
            if scope.cancelled_caught:
                print("cancelled")
        print(received)

        client, _silent = open_scripted_pair(nursery, "client", close_timeout=10)
        with trio.move_on_after(1):
            await client.aclose()
        print("aclose, cancelled:", "ended" if client.is_finished else "closing")

        client, _silent = open_scripted_pair(nursery, "client", close_timeout=10)
        with trio.move_on_after(1):
            await client.finish()
        print("finish, cancelled:", "ended" if client.is_finished else "closing")
        await trio.sleep(10)  # its close_timeout is over
        print("ended" if client.is_finished else "closing")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, clock=MockClock(autojump_threshold=0))
