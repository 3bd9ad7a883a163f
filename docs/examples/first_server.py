import trio

from trio_pyjo_ws import Transaction, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:  # ends when the peer closes normally
        await ws.send(message)


if __name__ == "__main__":
    trio.run(serve, echo, 8080)
