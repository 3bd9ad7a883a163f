"""Scores as they happen: without arguments the server, with its URL the client."""

import asyncio
import itertools
import json
import sys
from http import HTTPStatus

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

AUTHORIZATION = {"Authorization": "Bearer sesame"}


def check(ws: ServerConnection, request: Request) -> Response | None:
    if request.headers.get("Authorization") != AUTHORIZATION["Authorization"]:
        return ws.respond(HTTPStatus.UNAUTHORIZED, "who are you?\n")
    return None


async def send_scores(ws: ServerConnection, team: str) -> None:
    for score in itertools.count(1):
        await ws.send(json.dumps({"team": team, "score": score}))
        await asyncio.sleep(0.05)


async def handle(ws: ServerConnection) -> None:
    team = json.loads(await ws.recv())["team"]
    sending = asyncio.create_task(send_scores(ws, team))
    try:
        await ws.recv()  # {"stop": true}
    finally:
        sending.cancel()
    await ws.close(4000, "stopped")


async def run_server() -> None:
    async with serve(handle, "127.0.0.1", 0, process_request=check, subprotocols=["scores.v1"]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"listening on ws://127.0.0.1:{port}/", flush=True)
        await server.serve_forever()


async def run_client(url: str) -> None:
    async with connect(url, additional_headers=AUTHORIZATION, subprotocols=["scores.v1"]) as ws:
        print(f"this is {ws.subprotocol}")
        await ws.send(json.dumps({"team": "lions"}))
        try:
            async for message in ws:
                score = json.loads(message)["score"]
                if score <= 3:
                    print(f"lions {score}")
                if score == 3:
                    await ws.send(json.dumps({"stop": True}))
        except ConnectionClosed as exc:
            print(f"closed with {exc.rcvd.code} ({exc.rcvd.reason})")

    try:
        async with connect(url):
            print("anybody may come in")
    except InvalidStatus as exc:
        print(f"refused with {exc.response.status_code}")


if __name__ == "__main__":
    asyncio.run(run_client(sys.argv[1]) if sys.argv[1:] else run_server())
