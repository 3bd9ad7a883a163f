"""Measure WebSocket libraries side by side, and write the figures, tables and pictures.

The libraries of a group run all at once, on one core with the load, and take turns in short slices: what slows the
machine down for a while slows neighbours alike. Ratios are of neighbours, of one round.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from . import figures, load, plan, plot
from .measures import MEASURES, Target
from .processes import TESTS, Failed, client, command, environment, free_port, redis_server, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plan import Scenario

    Measure = Callable[[Scenario, float], float]
    """The figure of one slice of so many seconds."""

OUTPUT = TESTS.parent / "docs" / "benchmarks"
PACKAGES = ["trio-pyjo-ws", "trio", "picows", "uvloop", "aiohttp", "websockets", "trio-websocket", "coredis"]


class Bench:
    """A run: what is chosen, and what has been found."""

    def __init__(self, libraries: list[str], scenarios: list[Scenario], arguments: argparse.Namespace) -> None:
        self.found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
        """By group, scenario and library, the value of each round; None where it has failed."""
        self.missing: dict[str, str] = {}
        """Why some are missing, by scenario and library. What has failed once is not tried again."""
        self._libraries = libraries
        self._scenarios = scenarios
        self._arguments = arguments

    def run(self) -> None:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            self._certificate, self._context = make_certificate(Path(folder))
            for name, group in plan.GROUPS.items():
                scenarios = [scenario for scenario in self._scenarios if scenario.group == name]
                libraries = [library for library in self._libraries if library in group.libraries]
                if scenarios and libraries:
                    self.found[name] = {scenario.name: {library: [] for library in libraries} for scenario in scenarios}
                    self._run_group(name, scenarios, libraries)
        progress(f"done in {time.monotonic() - started:.0f} s", last=True)

    def _run_group(self, name: str, scenarios: list[Scenario], libraries: list[str]) -> None:
        group = plan.GROUPS[name]
        rounds = min(self._arguments.rounds, group.most_rounds)
        with ExitStack() as stack:
            running: dict[str, Measure] = {}
            if not group.fresh:
                for library in libraries:
                    self._start(stack, running, group, library)
            for number in range(1, rounds + 1):
                progress(f"{name}, round {number} of {rounds}")
                for scenario in scenarios:
                    for library in libraries if number % 2 else reversed(libraries):
                        with ExitStack() as once:
                            if group.fresh:
                                self._start(once, running, group, library)
                            self._measure(scenario, library, running)

    def _start(self, stack: ExitStack, running: dict[str, Measure], group: plan.Group, library: str) -> None:
        try:
            running[library] = self._enter(stack, group, library)
        except Failed as exc:
            self.missing[f"{group.heading}: {plan.LIBRARIES[library].title}"] = str(exc)

    def _enter(self, stack: ExitStack, group: plan.Group, library: str) -> Measure:
        port, pure, against = free_port(), plan.LIBRARIES[library].pure, self._arguments.against
        if group.server is None:
            stack.enter_context(server(command("ours", "raw_echo", str(port)), port))
            return stack.enter_context(
                client(command(library, "clients", library, str(port), against=against), pure=pure)
            )
        tls = group.server == "tls"
        arguments = [group.server, library, str(port), *([str(self._certificate)] if tls else [])]
        if plan.LIBRARIES[library].redis:
            arguments.append(stack.enter_context(redis_server()))
        argv = command(library, "servers", *arguments, against=against)
        process = stack.enter_context(server(argv, port, pure=pure))
        target = Target(port, process, self._context if tls else None)
        return lambda scenario, seconds: MEASURES[scenario.kind](scenario, target, seconds)

    def _measure(self, scenario: Scenario, library: str, running: dict[str, Measure]) -> None:
        what = f"{plan.GROUPS[scenario.group].heading}, {scenario.title}: {plan.LIBRARIES[library].title}"
        value = None
        if library in running and what not in self.missing and plan.takes_part(library, scenario):
            try:
                value = round(running[library](scenario, self._arguments.slice), 4)
            except (Failed, OSError) as exc:
                self.missing[what] = str(exc)
        self.found[scenario.group][scenario.name][library].append(value)


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for this machine's loopback, and a client's context that trusts it."""
    import trustme

    authority = trustme.CA()
    path = folder / "certificate.pem"
    authority.issue_cert(load.HOST).private_key_and_cert_chain_pem.write_to_path(str(path))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return path, context


def progress(text: str, last: bool = False) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def codec_of(library: str) -> str:
    """Which of its codecs ours takes in a process as the one that is measured."""
    program = [sys.executable, "-c", "import trio_pyjo_ws; print(trio_pyjo_ws.codec)"]
    done = subprocess.run(  # noqa: S603 - ours
        program,
        cwd=TESTS,
        env=environment(plan.LIBRARIES[library].pure),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="each measures every library (default: 15)")
    parser.add_argument("--slice", type=float, default=0.08, help="seconds, of each figure of a round (default: 0.08)")
    parser.add_argument(
        "--only",
        default="",
        metavar="WORD,...",
        help=f"some groups ({', '.join(plan.GROUPS)}), scenarios (rtt, pipe:256x64, ...) or libraries (picows, ...)",
    )
    parser.add_argument(
        "--against", metavar="PYTHON", help="an interpreter that has another version of the package, to show beside"
    )
    parser.add_argument("--quick", action="store_true", help="one round of 0.02 s, to see that all works")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the CPU core that is used")
    parser.add_argument(
        "--output",
        type=Path,
        help="the folder of the results (default: docs/benchmarks; with --only, --against or --quick, only printed)",
    )
    arguments = parser.parse_args()
    words = [word for word in arguments.only.split(",") if word]
    try:
        arguments.libraries, arguments.scenarios = plan.choose(words, bool(arguments.against))
    except ValueError as exc:
        parser.error(f"--only: {exc}")
    if arguments.rounds < 1 or arguments.slice <= 0:
        parser.error("--rounds must be at least 1, and --slice more than 0")
    if arguments.against and shutil.which(arguments.against) is None:
        parser.error(f"--against must be the path of an interpreter, not {arguments.against!r} (in {Path.cwd()})")
    if arguments.core not in os.sched_getaffinity(0):
        parser.error(f"--core: there is no core {arguments.core}")
    if arguments.quick:
        arguments.rounds, arguments.slice = 1, 0.02
    elif not arguments.only and not arguments.against and arguments.output is None:
        arguments.output = OUTPUT
    return arguments


def main() -> None:
    arguments = options()
    cores = len(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {arguments.core})  # and so all processes that are started from here on
    bench = Bench(arguments.libraries, arguments.scenarios, arguments)
    bench.run()
    results = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "command": shlex.join(["nox", "-s", "bench", *(["--", *sys.argv[1:]] if sys.argv[1:] else [])]),
        "rounds": arguments.rounds,
        "slice": arguments.slice,
        "machine": {
            "cpu": cpu_model(),
            "cores": cores,
            "system": f"{platform.system()} {platform.release()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {package: version_of(package) for package in PACKAGES},
        "codec": {name: codec_of(name) for name in ("ours", "ours-pure")},
        "figures": bench.found,
        "missing": bench.missing,
    }
    print(figures.markdown(results), end="")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        written = {
            "results.json": json.dumps(results, indent=1) + "\n",
            "results.md": figures.markdown(results),
            "results.svg": plot.svg(results),
            "summary.svg": plot.summary(results),
        }
        for name, text in written.items():
            (arguments.output / name).write_text(text, "utf-8")
    if any(what.endswith(f": {plan.LIBRARIES['ours'].title}") for what in bench.missing):
        sys.exit("some of trio_pyjo_ws's own figures are missing")


if __name__ == "__main__":
    main()
