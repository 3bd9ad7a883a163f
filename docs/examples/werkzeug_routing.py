from functools import partial

import trio
from werkzeug.routing import Map, Rule

from trio_pyjo_ws import Transaction, open_websocket, serve
from trio_pyjo_ws.adapters.werkzeug import WerkzeugRouter


async def feed(ws: Transaction) -> None:
    await ws.send(f"feed {ws.req.path_parameters['number'] + 1}")  # an int, says the rule


async def main() -> None:
    rules = Map([Rule("/feed/<int:number>/", endpoint=feed, websocket=True)])
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, WerkzeugRouter(rules), 0, host="127.0.0.1"))
        async with open_websocket(f"{server.url}feed/41") as ws:  # redirected to the path with its slash
            print(await ws.receive())
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
