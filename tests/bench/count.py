"""Count what a message costs our server, by valgrind: instructions and system calls, on any machine, however loaded.

A figure is the difference of a long and a short run, for one message, so that nothing of the start is in it. System
calls are counted, and what the kernel does in them is not.
"""

from __future__ import annotations

import argparse
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from . import load
from .counted import END, GATE, GO_ON, WAITING
from .plan import Scenario
from .processes import TESTS, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typing_extensions import Self

CODECS = ("compiled", "pure")
WAYS = {"for": "async for", "channel": "channel", "callback": "callback"}

ARRIVING = 1.0
"""Seconds for which the load waits until the server has nothing left to do, and sends all the same."""

ANSWERING = 60.0
"""Seconds that an answer may take, under valgrind on a loaded machine."""

NOT_CALLS = {"sys_clock_gettime"}
"""System calls under valgrind, and elsewhere functions of the C library that do not enter the kernel."""


class Case(NamedTuple):
    scenario: Scenario
    way: str
    """How the handler takes its messages."""
    short: int
    """Rounds of the short run; the interpreter has specialised the code in them."""
    long: int
    """Rounds of the long one."""

    @property
    def title(self) -> str:
        return f"{self.scenario.title}, {WAYS[self.way]}"


CASES = [
    *(Case(Scenario("server", "rtt", 256), way, 100, 400) for way in WAYS),
    *(Case(Scenario("server", "pipe", 256, 64), way, 20, 100) for way in WAYS),
    *(Case(Scenario("server", "talk", 256, 20), way, 20, 100) for way in ("for", "callback")),
    Case(Scenario("server", "conn"), "for", 50, 200),
]


class Total(NamedTuple):
    """What a run has taken, the start of its process included."""

    instructions: float
    calls: float
    passes: int
    """How often the server has passed the gate: twice a system call, and some instructions that are not its own."""


class Figure(NamedTuple):
    """What a message takes."""

    instructions: float
    calls: float


Figures = dict[tuple[Case, str], list[Figure]]
"""By case and codec, one for each repetition."""


class Gate:
    """The load's side of the gate at which the server waits when it has nothing left to do."""

    def __init__(self, connection: socket.socket) -> None:
        self.passes = 0
        self._connection = connection
        self._waiting = False

    def wait(self) -> None:
        """Until the server has come to the gate.

        It does not come if what it had sent arrived late, after the gate was opened to see whether more would come. So
        this ends at last all the same.
        """
        if not self._waiting and select.select([self._connection], [], [], ARRIVING)[0]:
            self._hear()

    def open(self, word: bytes = GO_ON) -> None:
        """Let the server go on, if it waits."""
        if self._waiting:
            self._waiting = False
            self.passes += 1
            self._connection.send(word)

    def receive(self, stream: socket.socket, size: int) -> bytes:
        """So many bytes at most. While there are none, the server goes on."""
        while not select.select([stream], [], [], 0)[0]:
            self.open()
            ready = select.select([stream, self._connection], [], [], ANSWERING)[0]
            if not ready:
                raise TimeoutError("the server does not answer")
            if self._connection in ready:
                self._hear()
        return stream.recv(size)

    def _hear(self) -> None:
        if self._connection.recv(100) != WAITING:
            raise ConnectionError("the server has ended")
        self._waiting = True


def exchange(scenario: Scenario, rounds: int, port: int, gate: Gate) -> None:
    """Send what is in flight together, on one connection or on each of many, and receive it back."""
    connections, together = (scenario.amount, 1) if scenario.kind == "talk" else (1, scenario.amount)
    blob = load.masked_frame(bytes(scenario.size)) * together
    expected = load.unmasked_size(scenario.size) * together
    streams = [_open(port, gate) for _ in range(connections)]
    try:
        for _ in range(rounds):
            gate.wait()
            for stream in streams:
                stream.sendall(blob)
            for stream in streams:
                _receive_exactly(stream, expected, gate)
        gate.wait()
    finally:
        for stream in streams:
            stream.close()


def open_and_close(scenario: Scenario, rounds: int, port: int, gate: Gate) -> None:
    """Connect, send one message, receive it back, and close."""
    for _ in range(rounds):
        with _open(port, gate) as stream:
            gate.wait()
            stream.sendall(load.masked_frame(b"hello"))
            _receive_exactly(stream, load.unmasked_size(5), gate)
            gate.wait()
            stream.sendall(load.masked_frame(b"\x03\xe8", opcode=8))
            while gate.receive(stream, 4096):
                pass
        gate.wait()


def _open(port: int, gate: Gate) -> socket.socket:
    gate.wait()
    stream = load.connect(port)
    stream.sendall(load.opening_request(port))
    load.read_response(lambda size: gate.receive(stream, size))
    return stream


def _receive_exactly(stream: socket.socket, size: int, gate: Gate) -> None:
    while size:
        data = gate.receive(stream, size)
        if not data:
            raise ConnectionError("the server has closed")
        size -= len(data)


class Counted:
    """The process that is counted: ``python -m bench.counted``, of some interpreter, with one of its codecs."""

    def __init__(self, python: str, codec: str, folder: Path | None, seed: int = 0) -> None:
        """Start it under valgrind, whose files go to ``folder``. Without a folder it runs alone, uncounted.

        ``seed`` seeds Python's hashes, which decide with the addresses of objects what collides in a dict. The same
        seed gives the same figure to some 0.01 %, but the same package in another place has other addresses. What
        several seeds cannot tell apart is no difference.
        """
        self._folder = folder
        self._read = 0
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        valgrind = [] if folder is None else [
            *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--trace-syscalls=yes"),
            *(f"--cachegrind-out-file={folder}/%p", f"--log-file={folder}/log"),
        ]  # fmt: skip
        with other:
            self._process = subprocess.Popen(  # noqa: S603 - ours
                [*valgrind, python, "-m", "bench.counted", str(other.fileno())],
                cwd=TESTS,
                pass_fds=[other.fileno()],
                env=environment(codec == "pure", PYTHONHASHSEED=str(seed)),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.wait()

    def run(self, way: str, put_load: Callable[[int, Gate], None]) -> Total:
        """Fork, and have the child be a server under a load, to which its port and the gate are given."""
        self._connection.send(way.encode())
        gate = Gate(self._connection)
        put_load(0 if way == GATE else self._hear("port"), gate)
        gate.wait()
        gate.open(END)
        child = self._hear("child")
        if self._folder is None:
            return Total(0, 0, gate.passes)
        instructions = re.findall(r"^summary: (\d+)", (self._folder / str(child)).read_text("utf-8"), re.MULTILINE)
        with (self._folder / "log").open(errors="replace") as log:
            log.seek(self._read)
            calls = calls_of(child, log)
            self._read = log.tell()
        return Total(int(instructions[-1]), calls, gate.passes)

    def _hear(self, what: str) -> int:
        name, _, number = self._connection.recv(100).decode().partition(" ")
        if name != what:
            raise ConnectionError("the process that is counted has ended")
        return int(number)


def calls_of(process: int, log: Iterable[str]) -> int:
    """How many system calls a process has made, by valgrind's log."""
    begun = re.compile(rf"SYSCALL\[{process},\d+\]\( *\d+\) (\w+)")
    return sum(1 for line in log if (found := begun.match(line)) and found[1] not in NOT_CALLS)


def difference(short: Total, long: Total, messages: int, a_pass: float) -> Figure:
    """What each of the ``messages`` takes that the long run has more than the short one, the gate subtracted."""
    passes = long.passes - short.passes
    return Figure(
        (long.instructions - short.instructions - passes * a_pass) / messages,
        (long.calls - short.calls - passes * 2) / messages,
    )


def cost_of_a_pass(counted: Counted) -> float:
    def pass_by(times: int) -> Total:
        def put_load(_: int, gate: Gate) -> None:
            for _ in range(times):
                gate.wait()
                gate.open()

        return counted.run(GATE, put_load)

    return difference(pass_by(100), pass_by(300), 200, 0).instructions


def measure(counted: Counted, case: Case, a_pass: float) -> Figure:
    put_load = open_and_close if case.scenario.kind == "conn" else exchange
    short, long = (
        counted.run(case.way, partial(put_load, case.scenario, rounds)) for rounds in (case.short, case.long)
    )
    return difference(short, long, (case.long - case.short) * case.scenario.amount, a_pass)


def spread(*repetitions: Sequence[Figure]) -> str:
    """How far the instructions of repetitions lie apart, at most, as a part of their median."""
    series = [[figure.instructions for figure in figures] for figures in repetitions]
    if min(map(len, series)) == 1:
        return "-"
    return f"{max((max(values) - min(values)) / median(values) for values in series):.2%}"


def table(now: Figures, before: Figures) -> list[str]:
    """Markdown; with a second interpreter's figures beside the first one's where there are any."""

    def middle(figures: Sequence[Figure]) -> Figure:
        return Figure(median(f.instructions for f in figures), median(f.calls for f in figures))

    head = ["codec", "instructions", "spread", "system calls"]
    if before:
        head = ["codec", "before", "now", "now / before", "spread", "system calls before", "now"]
    rows = [["", *head], ["---", "---", *("---:" for _ in head[1:])]]
    for (case, codec), figures in now.items():
        new = middle(figures)
        row = [case.title, codec]
        if before:
            old = middle(before[case, codec])
            ratio = new.instructions / old.instructions
            row += [f"{old.instructions:,.0f}", f"{new.instructions:,.0f}", f"{ratio:.3f}"]
            row.append(spread(figures, before[case, codec]))
            row += [f"{old.calls:.2f}", f"{new.calls:.2f}"]
        else:
            row += [f"{new.instructions:,.0f}", spread(figures), f"{new.calls:.2f}"]
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def describe(python: str) -> list[str]:
    """An interpreter's and its packages' versions, and whether the codec is compiled there."""
    program = (
        "import platform, trio, trio_pyjo_ws; "
        "print(platform.python_version(), trio.__version__, trio_pyjo_ws.__path__[0], trio_pyjo_ws.codec, sep='\\n')"
    )
    done = subprocess.run(  # noqa: S603 - the interpreter that the user names
        [python, "-c", program], cwd=TESTS, env=environment(False), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{python} has no trio_pyjo_ws to count")
    return done.stdout.splitlines()


def choose(words: Sequence[str]) -> tuple[list[Case], list[str]]:
    """The cases and codecs that ``words`` name; words of one sort add up, of different sorts narrow down."""
    names = {word for case in CASES for word in (case.scenario.kind, case.scenario.name)}
    for word in words:
        if word not in {*names, *WAYS, *CODECS}:
            raise ValueError(f"expected some of {', '.join([*sorted(names), *WAYS, *CODECS])}, not {word!r}")
    which, ways = names.intersection(words) or names, set(WAYS).intersection(words) or set(WAYS)
    return (
        [case for case in CASES if case.way in ways and which & {case.scenario.kind, case.scenario.name}],
        [codec for codec in CODECS if codec in words or not set(CODECS).intersection(words)],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="nox -s count --", description=__doc__)
    parser.add_argument("--against", metavar="PYTHON", help="an interpreter that has another version of the package")
    parser.add_argument("--repeats", type=int, default=3, help="each with another seed of hashes (default: 3)")
    parser.add_argument(
        "--only", default="", metavar="WORD,...", help="some cases (rtt, callback, ...), or one codec (compiled, pure)"
    )
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, not {options.repeats}")
    try:
        cases, codecs = choose([word for word in options.only.split(",") if word])
    except ValueError as exc:
        parser.error(f"--only: {exc}")
    if options.against and shutil.which(options.against) is None:
        parser.error(f"--against must be the path of an interpreter, not {options.against!r} (in {Path.cwd()})")
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not on the PATH")
    pythons = [sys.executable, *([options.against] if options.against else [])]
    for name, python in zip(("now", "before"), pythons, strict=False):
        version, of_trio, path, codec = describe(python)
        print(f"{name}: {path}, codec: {codec}; Python {version}, trio {of_trio}")
        if codec != "compiled" and "compiled" in codecs:
            codecs.remove("compiled")
    found: dict[str, Figures] = {python: defaultdict(list) for python in pythons}
    for seed in range(options.repeats):
        for codec in codecs:
            for python, figures in found.items():
                print(f"{python}, {codec}, {seed + 1} of {options.repeats}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory() as folder, Counted(python, codec, Path(folder), seed) as counted:
                    a_pass = cost_of_a_pass(counted)
                    for case in cases:
                        figures[case, codec].append(measure(counted, case, a_pass))
    print("", *table(found[sys.executable], found[options.against] if options.against else {}), sep="\n")


if __name__ == "__main__":
    main()
