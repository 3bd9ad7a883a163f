"""Headless Chromium: a page that has conversations, told to by our client, which speaks its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from trio_pyjo_ws import Response, open_websocket, serve

from .peers import LARGEST, account, serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator

    from trio_pyjo_ws import Close, Transaction

    from .peers import Talk, Tls

STARTING = 30.0  # seconds that it may take

_numbers = itertools.count(1)


class Tab:
    """A tab of the browser."""

    def __init__(self, devtools: Transaction, session: str) -> None:
        self._devtools = devtools
        self._session = session

    async def call(self, method: str, **parameters: Any) -> Any:
        return await call(self._devtools, method, self._session, **parameters)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, what it resolves to."""
        given = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")


async def call(devtools: Transaction, method: str, session: str | None = None, **parameters: Any) -> Any:
    """Call a method of the DevTools protocol, and return its result. One at a time."""
    where = {} if session is None else {"sessionId": session}
    number = next(_numbers)
    await devtools.send(json={"id": number, "method": method, "params": parameters, **where})
    async for message in devtools:
        answer = json.loads(message)
        if answer.get("id") == number:  # and not an event
            assert "error" not in answer, f"{method}: {answer['error']}"
            return answer["result"]
    raise AssertionError(f"{method}: Chromium has ended")


class ChromiumPeer:
    """A page in headless Chromium. Each conversation has its own tab."""

    name = "chromium"

    def __init__(self, process: subprocess.Popen[bytes], profile: Path, tls: Tls) -> None:
        self._process = process
        self._profile = profile
        self._tls = tls
        self._devtools = ""

    def wait_ready(self) -> None:
        """Wait until the browser has written the address of its DevTools into its profile."""
        file, end = self._profile / "DevToolsActivePort", time.monotonic() + STARTING
        while not (file.exists() and len(lines := file.read_text("utf-8").splitlines()) > 1):
            assert self._process.poll() is None, f"Chromium has ended with {self._process.returncode}"
            assert time.monotonic() < end, "Chromium does not start"
            time.sleep(0.02)
        self._devtools = f"ws://127.0.0.1:{lines[0]}{lines[1]}"

    def kill(self) -> None:
        """End the browser, with all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # which began a session
        self._process.wait()

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        async with serving_page() as page, open_websocket(self._devtools, max_websocket_size=LARGEST) as devtools:
            target = (await call(devtools, "Target.createTarget", url="about:blank"))["targetId"]
            attached = await call(devtools, "Target.attachToTarget", targetId=target, flatten=True)
            tab = Tab(devtools, attached["sessionId"])
            await tab.call("Page.navigate", url=page)
            while not await tab.evaluate("typeof talk === 'function'"):  # noqa: ASYNC110 - a browser sets no Event
                await trio.sleep(0.01)
            yield tab
            await call(devtools, "Target.closeTarget", targetId=target)

    async def as_client(self, talk: Talk) -> Close:
        async with serving(talk, self._tls) as url, self.tab() as tab:
            arguments = ", ".join(map(json.dumps, (url, talk.action, talk.subprotocols)))
            return account(talk, await tab.evaluate(f"talk({arguments})"))

    async def as_server(self, talk: Talk) -> Close:
        raise NotImplementedError("a page is no server")


@asynccontextmanager
async def serving_page() -> AsyncIterator[str]:
    """Our server, which has the page for who asks for no WebSocket; gives its URL."""
    page = Response(200, {"Content-Type": "text/html"}, Path(__file__).with_name("page.html").read_bytes())

    async def handler(ws: Transaction) -> None:
        raise AssertionError(f"{ws} is for no page")

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1", on_request=lambda _: page))
        yield server.url.replace("ws:", "http:")
        nursery.cancel_scope.cancel()
