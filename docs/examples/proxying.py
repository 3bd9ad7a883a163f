from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_websocket, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope) -> None:
    async for data in source:
        await sink.send_all(data)
    scope.cancel()


async def proxy(port: int, near: trio.SocketStream) -> None:
    """A proxy as simple as can be: whatever host it is asked for, it connects to this port."""
    request = await near.receive_some()
    print(request.partition(b"\r\n")[0].decode())
    far = await trio.open_tcp_stream("127.0.0.1", port)
    async with near, far, trio.open_nursery() as nursery:
        await near.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        nursery.start_soon(copy, near, far, nursery.cancel_scope)
        nursery.start_soon(copy, far, near, nursery.cancel_scope)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
        serve_proxy = partial(trio.serve_tcp, partial(proxy, server.port), 0, host="127.0.0.1")
        listeners = await nursery.start(serve_proxy)
        proxy_port = listeners[0].socket.getsockname()[1]

        async with open_websocket("ws://chat.example/", proxy=f"http://127.0.0.1:{proxy_port}") as ws:
            await ws.send("Hello World!")
            print(await ws.receive())

        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
