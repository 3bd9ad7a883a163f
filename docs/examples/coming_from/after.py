"""Scores as they happen: without arguments the server, with its URL the client."""

import itertools
import json
import sys
from functools import partial

import trio

from trio_pyjo_ws import ConnectionClosed, HandshakeError, Response, Transaction, open_websocket, serve

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
    team = (await ws.receive_json())["team"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_scores, ws, team)
        await ws.receive_json()  # {"stop": true}
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
        await ws.send(json={"team": "lions"})
        try:
            async for message in ws:
                score = json.loads(message)["score"]
                if score <= 3:
                    print(f"lions {score}")
                if score == 3:
                    await ws.send(json={"stop": True})
        except ConnectionClosed as exc:
            print(f"closed with {exc.close.code} ({exc.close.reason})")

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
