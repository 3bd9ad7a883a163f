import argparse
import ssl

import trio

from trio_pyjo_ws import HandshakeError, open_websocket


async def main(url: str, authority: str) -> None:
    try:
        async with open_websocket(url):
            print("an authority that the system trusts")
    except HandshakeError as exc:
        print(exc)

    context = ssl.create_default_context(cafile=authority)  # and no other authority
    async with open_websocket(url, ssl_context=context) as ws:
        await ws.send("Hello World!")
        print(await ws.receive())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Connect to a server whose certificate comes from your own authority.")
    parser.add_argument("url")
    parser.add_argument("authority")
    arguments = parser.parse_args()
    trio.run(main, arguments.url, arguments.authority)
