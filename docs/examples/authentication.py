from functools import partial

import trio

from trio_pyjo_ws import (
    HandshakeError,
    Response,
    Transaction,
    basic_authentication,
    bearer_authentication,
    open_websocket,
    serve,
)

by_password = basic_authentication({"ada": "s3cret"}, realm="chat")
by_token = bearer_authentication({"t0ken": "the robot"}.get)


async def on_request(ws: Transaction) -> Response | None:
    if ws.req.headers.get("Authorization", "").startswith("Bearer"):
        return await by_token(ws)
    return await by_password(ws)


async def greet(ws: Transaction) -> None:
    await ws.send(f"Hello, {ws.user}!")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, greet, 0, host="127.0.0.1", on_request=on_request))
        async with open_websocket(f"ws://ada:s3cret@127.0.0.1:{server.port}/") as ws:
            print(await ws.receive())
        async with open_websocket(server.url, additional_headers={"Authorization": "Bearer t0ken"}) as ws:
            print(await ws.receive())
        try:
            async with open_websocket(server.url):
                pass
        except HandshakeError as exc:
            if exc.response is not None:  # the server has answered
                print(exc.response.status, exc.response.headers["WWW-Authenticate"])
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
