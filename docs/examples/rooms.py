import argparse
from functools import partial

import trio

from trio_pyjo_ws import Missed, Position, Room, Rooms, Transaction, open_rooms, open_websocket, serve


async def show(room: Room, ws: Transaction) -> None:
    async with room.open_channel() as events:
        async for position, message in events:
            await ws.send(json={"position": str(position), "text": message})


async def chat(rooms: Rooms, ws: Transaction) -> None:
    query = ws.req.query_parameters
    try:
        after = Position.parse(query["after"]) if "after" in query else None
        async with rooms.join("chat", after=after, who=query.get("who")) as room, trio.open_nursery() as nursery:
            await ws.send(json={"position": str(room.position), "present": sorted(await rooms.who("chat"))})
            nursery.start_soon(show, room, ws)
            async for message in ws:
                await room.publish(message)
            nursery.cancel_scope.cancel()
    except (Missed, ValueError):
        await ws.finish(1013, "begin anew")


async def talk(url: str) -> None:
    async with open_websocket(f"{url}?who=anna") as anna:
        print((await anna.receive_json())["present"])
        async with open_websocket(f"{url}?who=bert") as bert:
            print((await bert.receive_json())["present"])
            await anna.send("Hello, Bert!")
            first = await bert.receive_json()
            print(first["text"])
        await anna.send("Are you there?")
        for _ in range(2):
            print((await anna.receive_json())["text"])
        async with open_websocket(f"{url}?who=bert&after={first['position']}") as bert:
            await bert.receive_json()
            print((await bert.receive_json())["text"])


async def main(redis: str | None, port: int | None) -> None:
    async with open_rooms(redis, history=100) as rooms, trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, partial(chat, rooms), port or 0, host="127.0.0.1", reuse_port=True))
        if port is None:
            await talk(server.url)
            await server.aclose()
        else:
            print(server.url, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat. Without --port it talks to itself.")
    parser.add_argument("--redis", metavar="URL", help="share the rooms with other processes")
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    trio.run(main, arguments.redis, arguments.port)
