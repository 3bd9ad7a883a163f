"""Fuzz the targets, one after the other; an input that makes one fail is written to a file."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

TARGETS = ["parser", "protocol", "handshake", "inflater"]
HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
FAILED = Path(sys.prefix).resolve()
"""Where an input is written that makes a target fail."""
MAX_LENGTH = 512
"""Bytes of an input: enough for a session of some frames, or for a request."""
HANGING = 10
"""Seconds that one input may take."""
MEMORY = 1024
"""MiB that the process may take."""


def fuzz(target: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, which ends with that."""
    import atheris

    with atheris.instrument_imports(include=["trio_pyjo_ws.wire", "pure_trio_pyjo_ws.wire", "h11"]):
        module = import_module(f".{target}", __package__)
    atheris.Setup([target, *arguments], module.check)
    atheris.Fuzz()


def run(target: str, seconds: int, keep: Path | None) -> bool:
    """Fuzz one target in a process of its own; return whether all went well."""
    with tempfile.TemporaryDirectory() as folder:
        new = keep / target if keep else Path(folder)
        new.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", __package__, "--child", target, str(new), str(CORPUS / target)),
            *(f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", f"-timeout={HANGING}"),
            *(f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={FAILED / target}-", "-print_final_stats=1"),
        ]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)  # noqa: S603
    counts = re.findall(r"^stat::number_of_executed_units: *(\d+)", done.stderr, re.MULTILINE)
    if done.returncode or not counts:
        print(*(line for line in done.stderr.splitlines() if not re.match(r"#\d+\t", line)), sep="\n", file=sys.stderr)
        return False
    print(f"{target}: {seconds} s, {int(counts[0]):,} inputs", flush=True)
    return True


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="nox -s fuzz --", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=6, help="for each target (default: 6)")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that reached something new")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    results = [run(target, arguments.seconds, arguments.keep) for target in arguments.targets or TARGETS]
    if not all(results):
        sys.exit("a target failed; the input is in the file that libFuzzer names above")


if __name__ == "__main__":
    main()
