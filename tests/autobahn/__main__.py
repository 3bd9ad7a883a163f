"""Run the Autobahn test suite against our client and our server, both at once."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import trio

import trio_pyjo_ws

from . import results, suite

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "autobahn"

SHORT = [f"{group}.*" for group in ("1", "2", "3", "4", "5", "6", "7", "9.1", "9.2", "9.3", "9.4", "9.5", "9.6", "10")]
SHORT_COUNT = 289
FULL_COUNT = 517


async def run(role: str, wstest: Path, patterns: list[str], reports: Path) -> None:
    folder = reports / role
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        await suite.ROLES[role](wstest, patterns, folder)
    except BaseException:
        print((folder / "wstest.log").read_text("utf-8", "replace")[-2000:], file=sys.stderr)
        raise
    print(f"{role}: {time.monotonic() - started:.0f} s", flush=True)


async def run_all(roles: list[str], wstest: Path, patterns: list[str], reports: Path) -> None:
    async with trio.open_nursery() as nursery:
        for role in roles:
            nursery.start_soon(run, role, wstest, patterns, reports)


def commit() -> str:
    """The last commit that has changed the library, and its subject."""
    done = subprocess.run(
        ["git", "log", "-1", "--format=%h (%s)", "--", "trio_pyjo_ws"],  # noqa: S607 - whichever git there is
        cwd=OUTPUT.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "(not in a repository)"


def write(found: dict[str, Any]) -> None:
    """Write the results of these roles; those of another role stay as they are."""
    path = OUTPUT / "results.json"
    record = {**json.loads(path.read_text("utf-8")), **found} if path.exists() else found
    OUTPUT.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
    (OUTPUT / "results.md").write_text(results.markdown(record), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="nox -s autobahn --", description=__doc__)
    parser.add_argument("wstest", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("reports", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--role", choices=list(suite.ROLES), help="this one only")
    arguments = parser.parse_args()
    roles = [arguments.role] if arguments.role else list(suite.ROLES)
    patterns, count = (["*"], FULL_COUNT) if arguments.full else (SHORT, SHORT_COUNT)
    about = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "commit": commit(),
        "codec": trio_pyjo_ws.codec,
        "zlib": trio_pyjo_ws.zlib_name,
        "versions": {
            "autobahntestsuite": "0.8.2",
            "Python": sys.version.partition(" ")[0],
            **{name: metadata.version(name) for name in ("trio-pyjo-ws", "trio")},
        },
    }
    trio.run(run_all, roles, arguments.wstest, patterns, arguments.reports)
    wrong: list[str] = []
    found: dict[str, Any] = {}
    for role in roles:
        index = json.loads((arguments.reports / role / "index.json").read_text("utf-8"))
        cases = results.cases_of(index[suite.AGENT])
        found[role] = {**about, **results.summary(cases)}
        wrong += [f"{role}, {complaint}" for complaint in results.complaints(cases, count)]
    print(results.markdown(found))
    if arguments.full:
        write(found)
    if wrong:
        sys.exit("\n".join([*wrong, f"wstest's own reports are in {arguments.reports}"]))


if __name__ == "__main__":
    main()
