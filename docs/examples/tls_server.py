import argparse
import signal
import ssl
from functools import partial

import trio

from trio_pyjo_ws import Transaction, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with trio.open_nursery() as nursery:
        # Before it listens: a SIGHUP that nobody waits for would end the program.
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            server = await nursery.start(partial(serve, echo, port, host="127.0.0.1", ssl_context=context))
            print(f"listening on {server.url}", flush=True)
            async for _ in signals:
                try:
                    # Into another context first: a pair that does not fit would spoil the one that serves.
                    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
                    context.load_cert_chain(certificate, key)
                    print("certificate renewed", flush=True)
                except (OSError, ssl.SSLError) as exc:
                    print(f"the old certificate stays: {exc}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Echo over TLS; SIGHUP renews the certificate.")
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("certificate")
    parser.add_argument("key")
    arguments = parser.parse_args()
    trio.run(main, arguments.port, arguments.certificate, arguments.key)
