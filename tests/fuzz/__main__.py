"""`python -m tests.fuzz --minutes 10 --seed S`: every target in turn; ends with status 1 on the first finding.

A finding is anything but `SpearError`, an input that takes longer than two seconds, or memory that grows without bound.
The same seed gives the same inputs; a finding is repeated alone with `--target NAME --case NUMBER`.
"""

import argparse
import resource
import sys
import time
import traceback
from collections import Counter
from random import Random

from tests.fuzz.targets import TARGETS

SLOW_SECONDS = 2.0
MOST_MEGABYTES = 500


def run(*, seconds: float, seed: int, targets: list[str], case: int | None = None) -> tuple[Counter[str], list[str]]:
    """Outcomes by `target:code`, and the findings, at most five."""
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    before = _megabytes()
    end, number = time.monotonic() + seconds, 0 if case is None else case
    while (time.monotonic() < end or (case is not None and number == case)) and len(findings) < 5:
        for target in targets:
            began = time.process_time()
            try:
                outcomes[f"{target}:{TARGETS[target](Random(f'{seed}/{target}/{number}'))}"] += 1
            except Exception:  # noqa: BLE001 - whatever it is, it is a finding
                findings.append(f"--seed {seed} --target {target} --case {number}\n{traceback.format_exc()}")
            if time.process_time() - began > SLOW_SECONDS:
                findings.append(f"--seed {seed} --target {target} --case {number}: slow")
        number += 1
        if case is not None:
            break
    if _megabytes() - before > MOST_MEGABYTES:
        findings.append(f"--seed {seed}: the process has grown by more than {MOST_MEGABYTES} MB")
    return outcomes, findings


def _megabytes() -> int:
    """The most memory that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--case", type=int, help="one input alone")
    asked = parser.parse_args()
    outcomes, findings = run(
        seconds=asked.minutes * 60, seed=asked.seed, targets=asked.target or list(TARGETS), case=asked.case
    )
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9} {outcome}")
    print(f"{sum(outcomes.values())} inputs, {len(findings)} findings, peak {_megabytes()} MB")
    print("\n".join(findings))
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
