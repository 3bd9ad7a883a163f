from functools import partial

import msgspec
import trio

from trio_pyjo_ws import Transaction, open_websocket, serve


class Order(msgspec.Struct):
    article: str
    count: int = 1


async def take_orders(ws: Transaction) -> None:
    while True:
        try:
            order = await ws.receive_json(type=Order)
        except msgspec.ValidationError as exc:  # noqa: PERF203 - each order is taken or refused by itself
            await ws.send(json={"refused": str(exc)})
        else:
            await ws.send(json={"taken": order})


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, take_orders, 0, host="127.0.0.1"))
        async with open_websocket(server.url) as ws:
            await ws.send(json=Order("lamp", 2))
            print((await ws.receive_json(type=dict[str, Order]))["taken"])
            await ws.send(json={"article": "lamp", "count": "two"})
            print(await ws.receive_json())
            await ws.send(json=Order("chair"))
            await ws.send(json=Order("desk"))
            async for answer in ws.iter_json(type=dict[str, Order]):
                print(answer["taken"])
                if answer["taken"].article == "desk":
                    break
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
