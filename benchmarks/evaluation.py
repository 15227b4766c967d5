"""What 40 candidates cost beside 40 bare forward passes over the same texts: `python -m benchmarks.evaluation`.

A candidate is every weight between base and adapted model at a strength of its own, made in place, and all answers
of a calibration file. A bare pass is the model alone, on the same tokens in the same batches. The mark is 1.3.
With `--processes N` the same candidates are measured again, as a search does it, on one process and on N, and the
answer sheets held against each other.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from app.recipes.evaluation import FileTask
from tests.fixtures.models import make_checkpoint
from worker.evaluation.bench import Bench
from worker.evaluation.candidates import Between
from worker.evaluation.crew import Crew
from worker.evaluation.language_model import BATCH_TOKENS, LanguageModel
from worker.evaluation.loading import load_model, load_tokenizer
from worker.evaluation.sides import Part
from worker.evaluation.tasks import build
from worker.evaluation.trials import Ask
from worker.evaluation.yardstick import Asked, BenchYardstick

MARK = 1.3
WORDS = ("revenue", "quick", "brown", "merge", "worker", "quarter", "table", "seven", "lazy", "row", "claims", "rose")


def main() -> None:
    """Print both times and their ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as name:
        models, bench, tokenizer = _made(Path(name), options)
        told = _compare(models, bench, tokenizer, candidates=options.candidates)
        if options.processes > 1:
            told |= _spread(models, bench, tokenizer, candidates=options.candidates, processes=options.processes)
        print(json.dumps(told, indent=2))


def _made(folder: Path, options: argparse.Namespace) -> tuple[list[Any], Bench, Any]:
    base = make_checkpoint(folder / "base", seed=1, hidden=options.hidden, layers=options.layers, vocabulary=320)
    adapted = make_checkpoint(folder / "adapted", seed=2, like=base)
    models = [load_model(path, repo=path.name, base=base, device="cpu") for path in (base, adapted)]
    return models, _bench(folder, texts=options.texts), load_tokenizer(base, repo="base", base=base)


def _compare(models: list[Any], bench: Bench, tokenizer: Any, *, candidates: int) -> dict[str, Any]:
    between = Between(*models)
    asked = LanguageModel(between.model, tokenizer)
    batches = _batches(asked, bench)
    spent = {"candidates": 0.0, "passes": 0.0}
    for number in range(candidates):  # turn by turn, so that both see the same machine
        began = time.perf_counter()
        between.move(dict.fromkeys(between.sizes, (number + 1) / (candidates + 1)))
        bench.ask(asked)
        middle = time.perf_counter()
        for ids, keep in batches:
            between.model(input_ids=ids, use_cache=False, logits_to_keep=keep)
        spent["candidates"] += middle - began
        spent["passes"] += time.perf_counter() - middle
    ratio = spent["candidates"] / spent["passes"]
    return {
        "candidates": candidates, "parameters": sum(between.sizes.values()),
        "tokens": sum(ids.numel() for ids, _ in batches),
        "candidate_seconds": round(spent["candidates"] / candidates, 4),
        "pass_seconds": round(spent["passes"] / candidates, 4),
        "ratio": round(ratio, 3), "mark": MARK, "reached": ratio <= MARK,
    }


def _spread(
    models: list[Any], bench: Bench, tokenizer: Any, *, candidates: int, processes: int
) -> dict[str, Any]:
    """Wall seconds of all candidates on one process and on several, and whether the answers are the same."""
    tasks = [Asked("general", bench, Part("general")), Asked("domain", bench, Part("domain"))]
    seconds, sheets = [], []
    for size in (1, processes):
        with Crew(size=size) as crew:
            yardstick = BenchYardstick(Between(*models), tokenizer, tasks, crew=crew)
            crew.start(yardstick.perform)
            points = [dict.fromkeys(yardstick.names, (i + 1) / (candidates + 1)) for i in range(candidates)]
            began = time.perf_counter()
            sheets.append([trial.sheets for trial in yardstick.measure_all([Ask(one, "search") for one in points])])
            seconds.append(time.perf_counter() - began)
    return {
        "processes": processes, "one_process_seconds": round(seconds[0], 2), "spread_seconds": round(seconds[1], 2),
        "times_as_fast": round(seconds[0] / seconds[1], 2), "same_answers": sheets[0] == sheets[1],
    }  # fmt: skip


def _bench(folder: Path, *, texts: int) -> Bench:
    chance = random.Random(7)
    lines = [{"text": " ".join(chance.choices(WORDS, k=chance.randint(12, 60)))} for _ in range(texts)]
    path = folder / "calibration.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = FileTask(name="calibration", kind="perplexity", repo="org/sets", path=path.name)
    return Bench.build(task.label, build(task, source=path), limit=None, seed=0)


def _batches(asked: LanguageModel, bench: Bench) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches that an answer sheet takes, as they reach the model."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        seen.append((given["input_ids"], given["logits_to_keep"]))

    hook = asked.model.register_forward_pre_hook(note, with_kwargs=True)
    bench.ask(asked)
    hook.remove()
    assert max(ids.numel() for ids, _ in seen) <= BATCH_TOKENS
    return seen


if __name__ == "__main__":
    main()
