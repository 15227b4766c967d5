"""`make bench`: copy floor, mergekit 0.1.5 and this engine side by side, on generated checkpoints.

Everything is pinned to one core (two for the throughput of two workers), page cache warm, one arithmetic thread; the
three are measured in turn, so that whatever else the machine does disturbs all of them alike.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.cases import CASES, SHARD_BYTES, Case, mergekit_jobs, our_task
from benchmarks.checkpoints import make_pair
from benchmarks.measure import Figures, run_pipeline, run_plain, together

HOME = Path(".bench")
MERGEKIT = "mergekit==0.1.5"
CORE = 1
HEADER = (
    "| method | floor s | merge s | verify s | free s | merge / floor | free / floor | CPU merge / floor "
    "| anonymous MB | mergekit s | mergekit / floor | mergekit / merge | CPU mergekit / merge | mergekit MB |\n"
    + "| --- " * 14 + "|"
)


def main() -> None:
    arguments = _arguments()
    if arguments.memory:
        _memory(arguments.methods[0])
        return
    models = HOME / arguments.size
    print(f"checkpoints under {models}", file=sys.stderr)
    make_pair(models, size=arguments.size)
    python = None if arguments.no_mergekit else _mergekit()
    room = (arguments.out or HOME).resolve()
    rows = {}
    print(HEADER)
    for name in arguments.methods:
        rows[name] = [_round(CASES[name], models.resolve(), python, room) for _ in range(arguments.runs)]
        if arguments.runs:
            print(_line(name, rows[name]), flush=True)
    for name in arguments.methods if arguments.two else ():
        print(_two_workers(CASES[name], models.resolve(), room), flush=True)
    (HOME / f"results-{arguments.size}.json").write_text(json.dumps(rows, indent=1, default=vars))
    if not arguments.keep:
        shutil.rmtree(models)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=["tiny", "quick", "full"], default="quick", help="5 M, 0.13 B, 1.1 B")
    parser.add_argument("--methods", nargs="+", choices=CASES, default=[name for name in CASES if name != "spear"])
    parser.add_argument("--memory", action="store_true", help="only: peak memory by stage for 0.1 GB and 2 GB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-mergekit", action="store_true")
    parser.add_argument("--two", action="store_true", help="also the throughput of two worker processes")
    parser.add_argument("--out", type=Path, help="where outputs are written, by default beside the checkpoints")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints for the next run")
    return parser.parse_args()


def _mergekit() -> str:
    """The python of mergekit's own environment, which is made if it is not there."""
    python = HOME / "mergekit" / "bin" / "python"
    if not python.exists():
        print(f"installing {MERGEKIT} into {HOME / 'mergekit'}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", HOME / "mergekit"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", MERGEKIT, "torch==2.13.0"], check=True)
    return str(python.absolute())


def _round(case: Case, models: Path, python: str | None, room: Path) -> dict[str, Figures]:
    """One measurement of everything; outputs are written under `room`."""
    out = room / "out"
    figures = {"floor": _floor(case, models, out)}
    task = our_task(case, models, work=out)
    stages = run_pipeline(sys.executable, task, core=CORE)
    figures |= {"merge": stages["merging"], "verify": stages["verifying"]}
    figures["unpinned"] = run_pipeline(sys.executable, our_task(case, models, work=out), core=None)["merging"]
    shutil.rmtree(out)
    if python:
        runner = str(Path(__file__).with_name("mergekit_runner.py"))
        jobs = mergekit_jobs(case, models, out=out)
        figures["mergekit"] = run_plain([python, runner, str(jobs), "0", str(SHARD_BYTES)], core=CORE)
        shutil.rmtree(out)
        jobs.write_text("[]")
        figures["mergekit start"] = run_plain([python, runner, str(jobs), "0", str(SHARD_BYTES)], core=CORE)
        jobs.unlink()
    return figures


def _memory(method: str) -> None:
    """The child's peak anonymous memory above its idle state, for a small and a large model of the same matrices."""
    for size in ("short", "long"):
        models = HOME / size
        make_pair(models, size=size, experts=len(set(CASES[method].experts) - {"base"}))
        task = our_task(CASES[method], models.resolve(), work=HOME.resolve() / "out")
        stages = run_pipeline(sys.executable, task, core=None)
        peaks = ", ".join(f"{name} {stage.anonymous:.0f} MB in {stage.wall:.1f} s" for name, stage in stages.items())
        print(f"{method}, {size}: {peaks}", flush=True)
        shutil.rmtree(HOME / "out")
        shutil.rmtree(models)


def _floor(case: Case, models: Path, out: Path) -> Figures:
    """Reading all inputs, and writing one output, by `cat`."""
    folders = [models / name for name in sorted({"base", *case.experts})]
    read = [str(file) for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    files = sorted((models / "base").glob("*.safetensors"))
    copies = "".join(f"; cat '{file}' > '{out / file.name}'" for file in files)
    listing = " ".join(f"'{file}'" for file in read)
    found = run_plain(["sh", "-c", f"cat {listing} > /dev/null{copies}"], core=CORE)
    shutil.rmtree(out)
    return found


def _line(name: str, rounds: list[dict[str, Figures]]) -> str:
    """A row of the table: medians, and ratios within each round."""
    walls = [_median(row[part].wall for row in rounds) for part in ("floor", "merge", "verify", "unpinned")]
    cells = [name, *(f"{wall:.2f}" for wall in walls)]
    cells.append(f"{_median(row['merge'].wall / row['floor'].wall for row in rounds):.2f}")
    cells.append(f"{_median(row['unpinned'].wall / row['floor'].wall for row in rounds):.2f}")
    cells.append(f"{_median(row['merge'].cpu / row['floor'].cpu for row in rounds):.2f}")
    cells.append(f"{max(row['merge'].anonymous for row in rounds):.0f}")
    if "mergekit" in rounds[0]:
        net = [row["mergekit"].wall - row["mergekit start"].wall for row in rounds]
        pairs = list(zip(net, rounds, strict=True))
        cells += [f"{_median(net):.2f}", f"{_median(seconds / row['floor'].wall for seconds, row in pairs):.2f}"]
        cells.append(f"{_median(seconds / row['merge'].wall for seconds, row in pairs):.1f}")
        cpu = [(row["mergekit"].cpu - row["mergekit start"].cpu) / row["merge"].cpu for row in rounds]
        cells.append(f"{_median(cpu):.1f}")
        cells.append(f"{max(r['mergekit'].anonymous - r['mergekit start'].anonymous for r in rounds):.0f}")
    return "| " + " | ".join(cells) + " |"


def _two_workers(case: Case, models: Path, room: Path) -> str:
    """How much more two worker processes on two cores get done than one on one.

    Whole processes, from their start to their last word, and their merging stages, each beside the one alone. A run
    before that brings the inputs into the page cache.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    work = [room / f"out{core}" for core in cores]
    run_pipeline(sys.executable, our_task(case, models, work=work[0]), core=cores[0])
    walls, merging = [], []
    for count in (1, 2):
        tasks = [our_task(case, models, work=folder) for folder in work[:count]]
        stages: list[dict[str, Figures]] = []
        runs = [partial(_into, stages, task, core) for task, core in zip(tasks, cores, strict=False)]
        walls.append(together(runs))
        merging.append(statistics.mean(each["merging"].wall for each in stages))
    for folder in work:
        shutil.rmtree(folder)
    whole, stage = (2 * alone / both for alone, both in (walls, merging))
    return f"two workers, {case.name}: {whole:.2f} times the throughput of one, merging stage {stage:.2f}"


def _into(stages: list[dict[str, Figures]], task: Path, core: int) -> None:
    stages.append(run_pipeline(sys.executable, task, core=core))


def _median(values: object) -> float:
    return statistics.median(values)  # type: ignore[call-overload,no-any-return]


if __name__ == "__main__":
    main()
