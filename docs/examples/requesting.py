from functools import partial

import trio

from trio_pyjo_ws import Request, Response, Transaction, open_websocket, serve


def route(ws: Transaction) -> Response | None:
    return Response(307, {"Location": "/chat"}) if ws.req.path == "/" else None


async def handler(ws: Transaction) -> None:
    request = ws.req
    assert isinstance(request, Request)
    for name in ("User-Agent", "Authorization", "Cookie", "X-Trace"):
        await ws.send(f"{request.path} {name}: {request.headers.get(name)}")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1", on_request=route))

        async with open_websocket(
            f"ws://ada:secret@127.0.0.1:{server.port}/",
            additional_headers={"Cookie": "session=1234; theme=dark", "X-Trace": "abc"},
            user_agent="example/1.0",
        ) as ws:
            async for message in ws:
                print(message)

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
