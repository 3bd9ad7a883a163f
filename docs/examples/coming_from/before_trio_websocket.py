"""Scores as they happen: without arguments the server, with its URL the client."""

import itertools
import json
import sys

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    WebSocketRequest,
    open_websocket_url,
    serve_websocket,
)

AUTHORIZATION = [(b"authorization", b"Bearer sesame")]


async def send_scores(ws: WebSocketConnection, team: str) -> None:
    for score in itertools.count(1):
        await ws.send_message(json.dumps({"team": team, "score": score}))
        await trio.sleep(0.05)


async def handle(request: WebSocketRequest) -> None:
    if AUTHORIZATION[0] not in request.headers:
        await request.reject(401, body=b"who are you?\n")
        return
    ws = await request.accept(subprotocol="scores.v1")
    team = json.loads(await ws.get_message())["team"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_scores, ws, team)
        await ws.get_message()  # {"stop": true}
        nursery.cancel_scope.cancel()
    await ws.aclose(4000, "stopped")


async def run_server() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, handle, "127.0.0.1", 0, None)
        print(f"listening on ws://127.0.0.1:{server.port}/", flush=True)


async def run_client(url: str) -> None:
    async with open_websocket_url(url, extra_headers=AUTHORIZATION, subprotocols=["scores.v1"]) as ws:
        print(f"this is {ws.subprotocol}")
        await ws.send_message(json.dumps({"team": "lions"}))
        try:
            while True:
                score = json.loads(await ws.get_message())["score"]
                if score <= 3:
                    print(f"lions {score}")
                if score == 3:
                    await ws.send_message(json.dumps({"stop": True}))
        except ConnectionClosed as exc:
            print(f"closed with {exc.reason.code} ({exc.reason.reason})")

    try:
        async with open_websocket_url(url):
            print("anybody may come in")
    except ConnectionRejected as exc:
        print(f"refused with {exc.status_code}")


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(run_client, sys.argv[1])
    else:
        trio.run(run_server)
