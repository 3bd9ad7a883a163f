"""Scores as they happen: without arguments the server, with its URL the client."""

import asyncio
import itertools
import json
import sys

from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError, web

AUTHORIZATION = {"Authorization": "Bearer sesame"}


async def send_scores(ws: web.WebSocketResponse, team: str) -> None:
    for score in itertools.count(1):
        await ws.send_json({"team": team, "score": score})
        await asyncio.sleep(0.05)


async def handle(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Authorization") != AUTHORIZATION["Authorization"]:
        return web.Response(status=401, text="who are you?\n")
    ws = web.WebSocketResponse(protocols=["scores.v1"])
    await ws.prepare(request)
    team = (await ws.receive_json())["team"]
    sending = asyncio.create_task(send_scores(ws, team))
    try:
        await ws.receive_json()  # {"stop": true}
    finally:
        sending.cancel()
    await ws.close(code=4000, message=b"stopped")
    return ws


async def run_server() -> None:
    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    print(f"listening on ws://127.0.0.1:{port}/", flush=True)
    await asyncio.Event().wait()


async def run_client(url: str) -> None:
    async with ClientSession() as session:
        async with session.ws_connect(url, headers=AUTHORIZATION, protocols=["scores.v1"]) as ws:
            print(f"this is {ws.protocol}")
            await ws.send_json({"team": "lions"})
            while (message := await ws.receive()).type is WSMsgType.TEXT:
                score = json.loads(message.data)["score"]
                if score <= 3:
                    print(f"lions {score}")
                if score == 3:
                    await ws.send_json({"stop": True})
            print(f"closed with {message.data} ({message.extra})")

        try:
            async with session.ws_connect(url):
                print("anybody may come in")
        except WSServerHandshakeError as exc:
            print(f"refused with {exc.status}")


if __name__ == "__main__":
    asyncio.run(run_client(sys.argv[1]) if sys.argv[1:] else run_server())
