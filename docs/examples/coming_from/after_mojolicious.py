"""Scores as they happen: without arguments the server, with its URL the client."""

import itertools
import sys
from functools import partial
from typing import Any

import trio

from trio_pyjo_ws import HandshakeError, Response, Transaction, open_websocket, serve

AUTHORIZATION = {"Authorization": "Bearer sesame"}


def check(ws: Transaction) -> Response | None:
    if ws.req.headers.get("Authorization") != AUTHORIZATION["Authorization"]:
        return Response(401, body="who are you?\n")
    return None


async def send_scores(ws: Transaction, team: str) -> None:
    for score in itertools.count(1):
        await ws.send(json={"team": team, "score": score})
        await trio.sleep(0.05)


async def handle(ws: Transaction) -> None:
    stopped = trio.Event()
    async with trio.open_nursery() as nursery:

        @ws.on
        def json(ws: Transaction, json: Any) -> None:
            if "stop" in json:
                stopped.set()
            else:
                nursery.start_soon(send_scores, ws, json["team"])

        @ws.on
        def finish(ws: Transaction, code: int, reason: str) -> None:
            stopped.set()

        await stopped.wait()
        nursery.cancel_scope.cancel()
    await ws.finish(4000, "stopped")


async def run_server() -> None:
    start = partial(serve, handle, 0, host="127.0.0.1", on_request=check, subprotocols=["scores.v1"])
    async with trio.open_nursery() as nursery:
        server = await nursery.start(start)
        print(f"listening on {server.url}", flush=True)


async def run_client(url: str) -> None:
    async with open_websocket(url, additional_headers=AUTHORIZATION, subprotocols=["scores.v1"]) as ws:
        print(f"this is {ws.protocol}")
        ended = ws.open_channel("finish")

        @ws.on
        def json(ws: Transaction, json: Any) -> None:
            if json["score"] <= 3:
                print(f"lions {json['score']}")
            if json["score"] == 3:
                ws.send_nowait(json={"stop": True})

        await ws.send(json={"team": "lions"})
        code, reason = await ended.receive()
        print(f"closed with {code} ({reason})")

    try:
        async with open_websocket(url):
            print("anybody may come in")
    except HandshakeError as exc:
        if exc.response is not None:  # the server has answered
            print(f"refused with {exc.response.status}")


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(run_client, sys.argv[1])
    else:
        trio.run(run_server)
