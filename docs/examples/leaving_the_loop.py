from functools import partial

import trio

from trio_pyjo_ws import HandshakeError, Transaction, is_transient, reconnecting, serve


def also_404(exc: Exception) -> bool:  # the server is up before its routes are
    not_found = isinstance(exc, HandshakeError) and exc.response is not None and exc.response.status == 404
    return not_found or is_transient(exc)


async def greet(ws: Transaction) -> None:
    await ws.send("Hello!")
    async for _ in ws:
        pass


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, {"/chat": greet}, 0, host="127.0.0.1"))

        async with reconnecting(f"{server.url}chat", is_transient=also_404) as connections:
            async for ws in connections:
                print(await ws.receive())
                break
            print("still open:", ws.closed is None)
        print("closed in order:", ws.closed)

        async with reconnecting(f"{server.url}chat") as connections:
            with trio.move_on_after(0.1):  # or a scope that another task cancels
                async for ws in connections:
                    async for message in ws:
                        print(message)
            print("still open:", ws.closed is None)
        print("closed in order:", ws.closed)

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
