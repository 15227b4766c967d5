"""Train the pairs, compare the methods on each, and write the tables of docs/evidence.md.

    python -m benchmarks.evidence [--small | --ablation | --smollm2] [--tables]

All 15 small pairs take about 40 minutes of one core; `--small` takes two of them in a few minutes, `--ablation` those
on which the scores are compared one by one and in pairs, `--smollm2` the real model alone (about 20 minutes). What is
there already (in `.bench/evidence`) is not made again. `--tables` writes the page from the results that there are.
"""

import argparse
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from benchmarks.evidence.kits import Kit
    from benchmarks.evidence.plan import PairName


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of the Hub
    from transformers.utils import logging  # noqa: PLC0415

    from benchmarks.evidence.judge import judge  # noqa: PLC0415
    from benchmarks.evidence.measure import measure  # noqa: PLC0415
    from benchmarks.evidence.tables import write  # noqa: PLC0415

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    for pair, kit in () if arguments.tables else _wanted(arguments):
        auto = judge(measure(pair, kit))["auto"]
        told = ", ".join(f"{least}: {100 * found['advantage']['value']:+.1f}" for least, found in auto.items())
        name = f"{pair.architecture} {pair.domain} {pair.seed}"
        print(f"{name}: points over uniform at an asked gain of {told}", flush=True)
    print(write())


def _wanted(arguments: argparse.Namespace) -> Iterator[tuple["PairName", "Kit"]]:
    from benchmarks.evidence import smollm2  # noqa: PLC0415
    from benchmarks.evidence.kits import SMALL  # noqa: PLC0415
    from benchmarks.evidence.plan import pairs  # noqa: PLC0415

    if arguments.smollm2:
        yield smollm2.SMOLLM2, smollm2.KIT
        return
    for pair in pairs(small=arguments.small):
        if pair.ablated or not arguments.ablation:
            yield pair, SMALL


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--small", action="store_true", help="one seed of two pairs")
    some.add_argument("--ablation", action="store_true", help="only the pairs on which the scores are taken apart")
    some.add_argument("--smollm2", action="store_true", help="only SmolLM2-135M")
    parser.add_argument("--tables", action="store_true", help="only write the page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
