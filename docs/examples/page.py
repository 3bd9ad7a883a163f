import argparse
from functools import partial

import trio

from trio_pyjo_ws import Response, Transaction, serve

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Echo</title>
<h1>Echo</h1>
<p id="said" role="status">Connecting …</p>
<script>
  const ws = new WebSocket(`ws://${location.host}/echo`);
  ws.onopen = () => ws.send("Hello World!");
  ws.onmessage = ({ data }) => document.getElementById("said").textContent = data;
</script>
"""


def answer(ws: Transaction) -> Response | None:
    """The page, where plain HTTP asks for it."""
    if ws.req.path == "/":
        return Response(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE.encode())
    return None  # whatever else there is


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    start = partial(serve, {"/echo": echo}, port, host="127.0.0.1", on_request=answer)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(start)
        print(f"open http://127.0.0.1:{server.port}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a page and its WebSocket on one port.")
    parser.add_argument("--port", type=int, default=8080)
    trio.run(main, parser.parse_args().port)
