"""Run seeds, and show those that fail with the log of what happened: ``python -m tests.stress SEED`` runs one again."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections import Counter

from .plan import TRANSPORTS, Plan, draw
from .running import Verdict, run

HANGING = 120
"""Seconds of real time; an ordinary seed takes some hundredths."""


def smaller(plan: Plan, kind: str) -> Plan:
    """A plan with as few actors as show the same kind of fault. Those that receive stay: without them much may wait."""
    going = True
    while going:
        going = False
        for actor in plan.actors:
            fewer = plan.without({actor.name})
            if not (actor.kind == "receiver" and "count" not in actor.traits) and kind in run(fewer).kinds:
                plan, going = fewer, True
                break
    return plan


def watched(plan: Plan) -> Verdict:
    """Run a plan; end the process if not even the clock goes on."""

    def hang(*_: object) -> None:
        traceback.print_stack()
        print(f"{plan}\nhangs for {HANGING} seconds", flush=True)
        os._exit(1)

    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, hang)
        signal.alarm(HANGING)
    try:
        return run(plan)
    finally:
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="nox -s stress --", description="Run seeds, and show those that fail with the log of what happened."
    )
    parser.add_argument("seed", type=int, nargs="?", help="this seed alone")
    parser.add_argument("--transport", choices=TRANSPORTS, help="over this transport only (default: the seed chooses)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--count", type=int, default=3000, help="how many seeds (default: 3000)")
    parser.add_argument(
        "--repeat", type=int, default=1, help="run each seed so often: real sockets have a will of their own"
    )
    parser.add_argument(
        "--smaller",
        nargs="?",
        const="",
        metavar="KIND",
        help="leave out the actors that a fault (of this kind) does not need",
    )
    parser.add_argument("--brief", action="store_true", help="show what is wrong with a failing seed, not its log")
    parser.add_argument("--verbose", action="store_true", help="show the log of a seed that passes, too")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.count)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    found: Counter[str] = Counter()
    failed: list[int] = []
    for seed in seeds:
        for _ in range(arguments.repeat):
            verdict = watched(draw(seed, arguments.transport))
            if not verdict.wrongs:
                if arguments.verbose:
                    print(verdict, flush=True)
                continue
            if arguments.smaller is not None:
                verdict = run(smaller(verdict.plan, arguments.smaller or verdict.wrongs[0].kind))
            found.update(verdict.kinds)
            failed.append(seed)
            print(brief(verdict) if arguments.brief else verdict, flush=True)
            break
    print(
        f"{len(seeds)} seeds, {len(failed)} failed",
        *(f"{kind}: {count}" for kind, count in found.most_common()),
        sep="\n  ",
    )
    if failed:
        sys.exit(1)


def brief(verdict: Verdict) -> str:
    head = f"seed {verdict.plan.seed} over {verdict.plan.transport}, {verdict.plan.ending}"
    return "\n".join([head, *(f"  {str(wrong)[:300]}" for wrong in verdict.wrongs)])


if __name__ == "__main__":
    main()
