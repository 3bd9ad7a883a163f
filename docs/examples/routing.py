from functools import partial

import trio

from trio_pyjo_ws import HandshakeError, Response, Transaction, open_websocket, serve


async def chat(ws: Transaction) -> None:
    await ws.send("this is the chat")


async def feed(ws: Transaction) -> None:
    await ws.send(f"this is the feed of {ws.req.path_parameters['room']}")


def on_request(ws: Transaction) -> Response | None:
    if ws.req.path == "/health":
        return Response(200, body="fine\n")
    if ws.req.path == "/":
        return Response(200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><title>Chat</title>")
    return None  # go on


async def get(port: int, path: str) -> str:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        response = b"".join([bytes(data) async for data in stream]).decode()
        return response.partition("\r\n")[0]


async def main() -> None:
    routes = {"/chat": chat, "/feed/{room}": feed}
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, routes, 0, host="127.0.0.1", on_request=on_request))
        for path in ("chat", "feed/caf%C3%A9"):
            async with open_websocket(server.url + path) as ws:
                print(await ws.receive())
        try:
            async with open_websocket(server.url + "nowhere"):
                pass
        except HandshakeError as exc:
            print(exc)
        for path in ("/health", "/", "/chat", "/nowhere"):
            print(path, await get(server.port, path))
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
