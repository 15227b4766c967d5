"""The throughput of two workers on two cores beside one on one, and that of two copies beside one.

A copy is the floor of a merge: what the machine itself gains from a second core, in reading and writing files. The
runs take turns, each copy before its merge, because memory that a virtual machine touches anew costs it several times
as much.
"""

import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.cases import Case, our_task
from benchmarks.measure import Figures, run_pipeline, run_plain, together

Run = Callable[[Path, int], object]


def two_workers(case: Case, models: Path, room: Path, *, rounds: int) -> str:
    """A line of medians over `rounds`, after one round that only warms up."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    work = [room / f"out{core}" for core in cores]
    merging: list[float] = []
    turns = (partial(copy, case, models), partial(_merge, case, models, merging))
    gains = [_gains(turns, work, cores) for _ in range(rounds + 1)]
    for folder in work:
        shutil.rmtree(folder, ignore_errors=True)
    floor, whole = (statistics.median(each) for each in zip(*gains[1:], strict=True))
    stage = statistics.median(2 * one / statistics.mean(both) for one, *both in _threes(merging[3:]))
    return (
        f"two workers, {case.name}: {whole:.2f} times the throughput of one, merging stage {stage:.2f}; "
        f"two copies: {floor:.2f} times one"
    )


def copy(case: Case, models: Path, out: Path, core: int) -> Figures:
    """Reading all inputs, and writing one output, by `cat`."""
    folders = [models / name for name in sorted({"base", *case.experts})]
    read = [str(file) for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    files = sorted((models / "base").glob("*.safetensors"))
    copies = "".join(f"; cat '{file}' > '{out / file.name}'" for file in files)
    listing = " ".join(f"'{file}'" for file in read)
    found = run_plain(["sh", "-c", f"cat {listing} > /dev/null{copies}"], core=core)
    shutil.rmtree(out)
    return found


def _gains(turns: Sequence[Run], work: Sequence[Path], cores: Sequence[int]) -> list[float]:
    """How much more two of each get done than one, by the wall of whole processes; all alone first, then by twos."""
    alone = [together([partial(run, work[0], cores[0])]) for run in turns]
    both = [together([partial(run, folder, core) for folder, core in zip(work, cores, strict=True)]) for run in turns]
    return [2 * one / two for one, two in zip(alone, both, strict=True)]


def _merge(case: Case, models: Path, merging: list[float], out: Path, core: int) -> None:
    """The worker's child; the seconds of its merging stage go to `merging`: one alone, then two at once, and so on."""
    stages = run_pipeline(sys.executable, our_task(case, models, work=out), core=core)
    merging.append(stages["merging"].wall)


def _threes(values: list[float]) -> list[tuple[float, ...]]:
    return list(zip(*(iter(values),) * 3, strict=True))
