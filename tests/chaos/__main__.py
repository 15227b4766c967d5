"""`make chaos`: everything is killed at random, and nothing may be lost, or published twice.

Prints the seed, what was done to the service and what was found, and ends in a verdict; the exit status is 0 only if
everything held. The parts: `storm` (many jobs under random strikes), `points` (a death at every named point), `stale`
(paused workers wake up), `reruns` (twenty kills, the same bytes), `cancels` (in every stage), `machine` (the
state machine of jobs).
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import cancels, machine, points, reruns, stale, storm

PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "storm": lambda root, given: storm.run(
        root, jobs=given.jobs, workers=given.workers, seed=given.seed, seconds=given.seconds
    ),
    "points": lambda root, given: points.run(root, chosen=_cases(given.point), workers=4, seconds=1500),
    "stale": lambda root, given: stale.run(root, rounds=given.rounds, seed=given.seed),
    "reruns": lambda root, given: reruns.run(root, kills=given.kills, seed=given.seed),
    "cancels": lambda root, given: cancels.run(root, each=given.each, seed=given.seed),
    "machine": lambda _, given: machine.run(examples=given.examples),
}


def main() -> None:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # its servers end with it
    print(f"seed {given.seed}, commit {_commit()}", flush=True)
    held = True
    for name in given.parts or PARTS:
        root = Path(tempfile.mkdtemp(prefix=f"spear-chaos-{name}-"))
        found = PARTS[name](root, given)
        print(json.dumps({"part": name, "seed": given.seed, **found}, indent=1), flush=True)
        print(f"{name}: {'held' if found['held'] else f'BROKEN, see {root}'}", flush=True)
        held &= found["held"]
        if found["held"]:
            shutil.rmtree(root, ignore_errors=True)
    print(f"verdict: {'held' if held else 'BROKEN'}")
    sys.exit(0 if held else 1)


def _cases(named: list[str]) -> list[points.Case]:
    return points.cases(named) if named else [*points.cases(), points.poison()]


def _commit() -> str:
    """The commit that is tested, with a + where files differ from it."""
    argv = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all, unless some are named")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--jobs", type=int, default=500, help="that have to succeed in the storm; others are added")
    parser.add_argument("--point", action="append", default=[], help="one of the points only; may be repeated")
    parser.add_argument("--rounds", type=int, default=50, help="of stale workers")
    parser.add_argument("--kills", type=int, default=20, help="before the bytes are compared")
    parser.add_argument("--each", type=int, default=10, help="cancellations in each stage")
    parser.add_argument("--examples", type=int, default=2_000, help="of the state machine")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3600, help="the storm's bound")
    given = parser.parse_args()
    if unknown := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]}")
    return given


if __name__ == "__main__":
    main()
