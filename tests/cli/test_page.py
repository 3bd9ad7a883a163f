"""The page of ``demo --web`` in Chromium: two people talk, the server is restarted, they talk on."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trio_pyjo_ws import Server, serve
from trio_pyjo_ws.cli import web

from .browser import Page, open_browser, run_chromium
from .program import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .browser import Browser

pytestmark = pytest.mark.interop

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "docs" / "examples"
OPEN = "document.getElementById('status').dataset.state == 'open'"
CLOSED = "document.getElementById('status').dataset.state == 'closed'"
SAID = "[...document.querySelectorAll('#said .text')].map(one => one.textContent)"
EVENTS = "[...document.querySelectorAll('#said .event')].map(one => one.textContent)"
PEOPLE = "[...document.querySelectorAll('#people li')].map(one => one.children[1].textContent)"
FRAMES = "[...document.querySelectorAll('#frames tr')].map(row => [...row.cells].slice(1).map(one => one.textContent))"
LOST = ("WebSocket connection to", "ERR_CONNECTION_REFUSED")  # what the console says while there is no server


async def start(nursery: trio.Nursery, port: int = 0) -> Server:
    """The server of ``demo --web``, with nobody in its room and nothing in its history."""
    handlers = {web.SOCKET: web.Room().join}
    options = {**web.OPTIONS, "close_timeout": 1}
    server: Server = await nursery.start(
        partial(serve, handlers, port, host="127.0.0.1", on_request=web.answer, **options)
    )
    return server


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_chromium(tmp_path_factory.mktemp("profile")) as url:
        yield url


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with open_browser(chromium) as browser:
        yield browser


async def arrive(page: Page, server: Server, name: str, width: int = 1280) -> None:
    await page.open(f"http://127.0.0.1:{server.port}/", width)
    await page.wait_for(OPEN)
    await page.evaluate("document.getElementById('name').select()")
    await page.type(name)
    await page.press("Enter")
    await page.wait_for(f"{PEOPLE}.includes({name!r})")
    assert await page.evaluate("document.activeElement.id") == "text"  # ready to write


async def say(page: Page, text: str) -> None:
    await page.evaluate("document.getElementById('text').focus()")
    await page.type(text)
    await page.press("Enter")


def faults(page: Page) -> list[str]:
    return [fault for fault in page.faults if not any(expected in fault for expected in LOST)]


async def test_two_people_talk_through_a_restart_of_the_server(browser: Browser, nursery: trio.Nursery) -> None:
    server = await start(nursery)
    assert server.port
    ada, grace = await browser.new_page(), await browser.new_page()
    await arrive(ada, server, "Ada")
    await arrive(grace, server, "Grace", width=390)
    for page in (ada, grace):
        await page.wait_for(f"{PEOPLE}.join() == 'Ada,Grace'")
    await say(ada, "Hello!")
    await say(grace, "Hello, Ada.")
    for page in (ada, grace):
        await page.wait_for(f"{SAID}.join('|') == 'Hello!|Hello, Ada.'")

    await server.aclose()
    for page in (ada, grace):
        await page.wait_for(CLOSED)
        await page.wait_for(f"{EVENTS}.includes('Connection lost (1001, the server is shutting down).')")
        await page.wait_for("!document.getElementById('reconnect').hidden")
        assert await page.evaluate(PEOPLE) == []
    await say(ada, "kept until it can be sent")
    await ada.wait_for(f"{EVENTS}.at(-1) == 'Not sent: there is no connection.'")
    assert await ada.evaluate("document.getElementById('text').value") == "kept until it can be sent"

    server = await start(nursery, server.port)
    for page in (ada, grace):
        await page.wait_for(OPEN)
        await page.wait_for(f"[...{PEOPLE}].sort().join() == 'Ada,Grace'")  # with their names
    await ada.press("Enter")
    for page in (ada, grace):
        await page.wait_for(f"{SAID}.join('|') == 'Hello!|Hello, Ada.|kept until it can be sent'")
        assert faults(page) == []


async def test_the_connection_can_be_looked_into(
    browser: Browser, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PING_INTERVAL", 0.05)
    server = await start(nursery)
    page = await browser.new_page()
    await arrive(page, server, "Ada")
    await say(page, "x" * 300)
    await page.wait_for(f"{FRAMES}.some(row => row[0] == 'browser' && row[1] == 'text' && row[2] == '1   100')")
    await page.wait_for(f"{FRAMES}.some(row => row[0] == 'server' && row[1] == 'text' && row[2] == '1   100')")
    await page.wait_for(f"{FRAMES}.some(row => row[0] == 'server' && row[1] == 'ping' && row[3] == '4')")
    await page.wait_for(f"{FRAMES}.some(row => row[0] == 'browser' && row[1] == 'pong' && row[3] == '4')")
    await page.wait_for("document.getElementById('line').getAttribute('d').split('L').length > 3")
    await page.wait_for("/^[0-9.]+ ms$/.test(document.getElementById('now').textContent)")
    await page.wait_for(f"{FRAMES}.length == 100")  # and no more, however long it goes on
    await page.evaluate("document.getElementById('pause').click()")
    before = await page.evaluate(FRAMES)
    count = "document.getElementById('line').getAttribute('d').split('L').length"
    samples = await page.evaluate(count)
    await page.wait_for(f"{count} >= Math.min(60, {samples + 3})")
    assert await page.evaluate(FRAMES) == before
    assert faults(page) == []


async def test_what_others_say_is_text(browser: Browser, nursery: trio.Nursery) -> None:
    attack = "<img src=x onerror='window.fallen = 1'><script>window.fallen = 1</script>"
    server = await start(nursery)
    page = await browser.new_page()
    await arrive(page, server, "<b>Eve</b>")
    await say(page, attack)
    await page.wait_for(f"{SAID}.length == 1")
    assert await page.evaluate(SAID) == [attack]
    # Though it came into the page, the policy would not let it run.
    await page.evaluate(f"document.getElementById('said').innerHTML = {attack!r}; 0")
    await page.wait_for("document.querySelector('#said img').complete")
    assert await page.evaluate("window.fallen === undefined")
    assert any("Content Security Policy" in fault for fault in page.faults)


async def test_everything_is_reached_by_the_keyboard_and_has_a_name(browser: Browser, nursery: trio.Nursery) -> None:
    server = await start(nursery)
    page = await browser.new_page()
    await arrive(page, server, "Ada")
    reached = []
    for _ in range(10):
        await page.press("Tab")
        reached.append(await page.evaluate("document.activeElement.id || document.activeElement.className"))
    # From the message on, all around; what has neither is a button of a form, or the end of the page.
    assert [one for one in reached if one] == ["pause", "scroll", "skip", "name", "log", "text"]
    tree = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    named = {"textbox", "button", "log", "region", "table", "image", "status", "heading", "link"}
    for node in tree:
        role = node.get("role", {}).get("value")
        if role in named - {"status", "table"} and not node.get("ignored"):
            assert node.get("name", {}).get("value"), node
    assert named <= {node["role"]["value"] for node in tree if "role" in node}

    await say(page, "one line")
    await page.wait_for(f"{SAID}.length == 1")
    assert await page.evaluate("document.getElementById('text').value") == ""


async def test_it_fits_the_window(browser: Browser, nursery: trio.Nursery) -> None:
    server = await start(nursery)
    for width in (320, 390, 768, 1280):
        page = await browser.new_page()
        await arrive(page, server, f"{width}{'W' * 28}", width)
        await say(page, "x" * 500)
        await page.wait_for(f"{SAID}.length")
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        too_small = """[...document.querySelectorAll('button, input, textarea')]
            .filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 40).map(one => one.id)"""
        assert await page.evaluate(too_small) == []


async def test_the_page_of_the_example(browser: Browser, nursery: trio.Nursery) -> None:
    command = [sys.executable, str(EXAMPLES / "page.py"), "--port", "0"]
    start = partial(trio.run_process, command, stdout=subprocess.PIPE, env=ENVIRONMENT, check=False)
    process: trio.Process = await nursery.start(start)
    announced = b""
    while not announced.endswith(b"\n"):
        announced += await process.stdout.receive_some()
    page = await browser.new_page()
    await page.open(announced.decode().removeprefix("open ").strip())
    await page.wait_for("document.getElementById('said').textContent == 'Hello World!'")
