"""`make bench`: copy floor, mergekit 0.1.5 and this engine side by side, on generated checkpoints.

Everything is pinned to one core (two for the throughput of two workers), page cache warm, one arithmetic thread; the
three are measured in turn, so that whatever else the machine does disturbs all of them alike.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import CASES, SHARD_BYTES, Case, mergekit_jobs, our_task
from benchmarks.checkpoints import make_pair
from benchmarks.measure import Figures, run_pipeline, run_plain
from benchmarks.two import copy, two_workers

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
    if arguments.two:
        for name in arguments.methods:
            print(two_workers(CASES[name], models.resolve(), _room(arguments), rounds=arguments.runs), flush=True)
    else:
        _side_by_side(arguments, models.resolve())
    if not arguments.keep:
        shutil.rmtree(models)


def _room(arguments: argparse.Namespace) -> Path:
    return (arguments.out or HOME).resolve()


def _side_by_side(arguments: argparse.Namespace, models: Path) -> None:
    python = None if arguments.no_mergekit else _mergekit()
    rows = {}
    print(HEADER)
    for name in arguments.methods:
        rows[name] = [_round(CASES[name], models, python, _room(arguments)) for _ in range(arguments.runs)]
        print(_line(name, rows[name]), flush=True)
    (HOME / f"results-{arguments.size}.json").write_text(json.dumps(rows, indent=1, default=vars))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=["tiny", "quick", "full"], default="quick", help="5 M, 0.13 B, 1.1 B")
    parser.add_argument("--methods", nargs="+", choices=CASES, default=[name for name in CASES if name != "spear"])
    parser.add_argument("--memory", action="store_true", help="only: peak memory by stage for 0.1 GB and 2 GB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-mergekit", action="store_true")
    parser.add_argument("--two", action="store_true", help="only: the throughput of two workers beside that of one")
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
    figures = {"floor": copy(case, models, out, CORE)}
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


def _median(values: object) -> float:
    return statistics.median(values)  # type: ignore[call-overload,no-any-return]


if __name__ == "__main__":
    main()
