"""Measure WebSocket libraries side by side, and write the figures, a table and a plot."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shlex
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import figures, load, plan, plot

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parents[1]
OUTPUT = TESTS.parent / "docs" / "benchmarks"
PACKAGES = ["trio-pyjo-ws", "trio", "picows", "aiofastnet", "aiohttp", "websockets", "trio-websocket", "wsproto"]
STARTING = 30.0  # seconds that a server may take until it listens
CLIENT_STARTING = 60.0  # and that a client may take beside its measuring


class Failed(Exception):  # noqa: N818 - what happened to a job
    pass


def environment(library: str) -> dict[str, str]:
    pure = {"TRIO_PYJO_WS_PURE": "1"} if plan.LIBRARIES[library].pure else {}
    return {**{name: value for name, value in os.environ.items() if name != "TRIO_PYJO_WS_PURE"}, **pure}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((load.HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def last_line(text: bytes, otherwise: str) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else otherwise


@contextmanager
def server(library: str, module: str, *arguments: str, port: int) -> Iterator[int]:
    """A server of this package in a process of its own, listening; gives the process's id."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-m", f"{__package__}.{module}", *arguments],
            cwd=TESTS,
            env=environment(library),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            end = time.monotonic() + STARTING
            while True:
                try:
                    socket.create_connection((load.HOST, port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        errors.seek(0)
                        raise Failed(last_line(errors.read(), "it does not listen")) from None
                    time.sleep(0.02)
            yield process.pid
        finally:
            process.kill()
            process.wait()


def measure_server(job: plan.Job, seconds: float, certificate: Path, context: ssl.SSLContext) -> dict[str, float]:
    port = free_port()
    what = "broadcast" if job.group == "broadcast" else "echo"
    tls = job.scenarios[0].kind == "tls"
    extra = [str(certificate)] if tls else []
    found: dict[str, float] = {}
    with server(job.library, "servers", what, job.library, str(port), *extra, port=port) as pid:
        try:
            for scenario in job.scenarios:
                found[scenario.name] = load.measure(scenario, port, pid, seconds, context if tls else None)
        except OSError as exc:
            raise Failed(f"{job.scenarios[len(found)].name}: {exc}") from exc
    return found


def measure_client(job: plan.Job, seconds: float, port: int) -> dict[str, float]:
    names = [scenario.name for scenario in job.scenarios]
    try:
        done = subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-m", f"{__package__}.clients", job.library, str(port), str(seconds), *names],
            cwd=TESTS,
            env=environment(job.library),
            capture_output=True,
            timeout=CLIENT_STARTING + 2 * seconds * len(names),
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise Failed("it does not come to an end") from exc
    if done.returncode:
        raise Failed(last_line(done.stderr, f"it ended with {done.returncode}"))
    found: dict[str, float] = json.loads(done.stdout)
    return found


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for this machine's loopback, and a client's context that trusts it."""
    import trustme

    authority = trustme.CA()
    path = folder / "certificate.pem"
    authority.issue_cert(load.HOST).private_key_and_cert_chain_pem.write_to_path(str(path))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return path, context


def run(jobs: list[plan.Job], rounds: int, seconds: float) -> tuple[dict[str, Any], dict[str, str]]:
    """All rounds; return the figures by group, scenario and library, and why some are missing."""
    found: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    missing: dict[str, str] = {}
    weights = [len(job.scenarios) + 1 for job in jobs]  # 1 for the start of the process
    total, weighed, started = rounds * sum(weights), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        certificate, context = make_certificate(Path(folder))
        port = free_port()
        with server("ours", "raw_echo", str(port), port=port):
            for number in range(1, rounds + 1):
                for job, weight in zip(jobs, weights, strict=True):
                    spent = time.monotonic() - started
                    left = f"{spent / weighed * (total - weighed):.0f} s left" if weighed else "..."
                    progress(f"{job.title}, round {number} of {rounds}, {left}")
                    try:
                        if job.group == "client":
                            new = measure_client(job, seconds, port)
                        else:
                            new = measure_server(job, seconds, certificate, context)
                    except Failed as exc:
                        missing[job.title] = str(exc)
                        new = {}
                    for name, value in new.items():
                        found[job.group][name][job.library].append(round(value, 4))
                    weighed += weight
    progress(f"done in {time.monotonic() - started:.0f} s", last=True)
    return found, missing


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
    command = [sys.executable, "-c", "import trio_pyjo_ws; print(trio_pyjo_ws.codec)"]
    done = subprocess.run(  # noqa: S603 - ours
        command, cwd=TESTS, env=environment(library), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="each round measures every library (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each figure of a round (default: 0.4)")
    parser.add_argument(
        "--only",
        default="",
        metavar="WORD,...",
        help="some groups (server, client, broadcast), scenarios (rtt, pipe:256x64, ...) or libraries (picows, ...)",
    )
    parser.add_argument("--quick", action="store_true", help="one round of 0.1 s, to see that all works")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the CPU core that is used")
    parser.add_argument(
        "--output",
        type=Path,
        help="the folder of the results (default: docs/benchmarks; with --only or --quick, they are only printed)",
    )
    arguments = parser.parse_args()
    try:
        arguments.libraries, arguments.scenarios = plan.choose([word for word in arguments.only.split(",") if word])
    except ValueError as exc:
        parser.error(f"--only: {exc}")
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("--rounds is at least 1, --seconds more than 0")
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.1
    elif not arguments.only and arguments.output is None:
        arguments.output = OUTPUT
    if arguments.core not in os.sched_getaffinity(0):
        parser.error(f"--core: there is no core {arguments.core}")
    return arguments


def main() -> None:
    arguments = options()
    cores = len(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {arguments.core})  # and so all processes that are started from here on
    jobs = plan.jobs(arguments.libraries, arguments.scenarios)
    found, missing = run(jobs, arguments.rounds, arguments.seconds)
    results = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "command": shlex.join(["nox", "-s", "bench", *(["--", *sys.argv[1:]] if sys.argv[1:] else [])]),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "machine": {
            "cpu": cpu_model(),
            "cores": cores,
            "system": f"{platform.system()} {platform.release()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {package: version_of(package) for package in PACKAGES},
        "codec": {name: codec_of(name) for name in ("ours", "ours-pure")},
        "figures": found,
        "missing": missing,
    }
    print(figures.markdown(results), end="")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        summaries = {
            group: {
                scenario: {library: figures.summarise(values)._asdict() for library, values in by_library.items()}
                for scenario, by_library in by_scenario.items()
            }
            for group, by_scenario in found.items()
        }
        written = {
            "results.json": json.dumps({**results, "summaries": summaries}, indent=1) + "\n",
            "results.md": figures.markdown(results),
            "results.svg": plot.svg(results),
        }
        for name, text in written.items():
            (arguments.output / name).write_text(text, "utf-8")
    if any(job.title in missing for job in jobs if job.library == "ours"):
        sys.exit("some of trio_pyjo_ws's own figures are missing")


if __name__ == "__main__":
    main()
