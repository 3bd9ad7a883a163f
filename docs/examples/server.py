import trio

from trio_pyjo_ws import Transaction, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:  # ends when the peer closes normally
        await ws.send(message)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, echo, 8080)  # returns once the server listens


if __name__ == "__main__":
    trio.run(main)
