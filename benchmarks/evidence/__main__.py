"""Train the pairs, compare the methods on each, and write the tables of docs/evidence.md.

    python -m benchmarks.evidence [--small] [--tables]

All 15 pairs take about an hour of one core; `--small` takes two of them in a few minutes. What is there already (in
`.bench/evidence`) is not made again. `--tables` writes the page from the results that there are.
"""

import argparse
import os

import torch


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of the Hub
    from transformers.utils import logging  # noqa: PLC0415

    from benchmarks.evidence.compare import compare  # noqa: PLC0415
    from benchmarks.evidence.plan import pairs  # noqa: PLC0415
    from benchmarks.evidence.tables import write  # noqa: PLC0415

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    for pair in () if arguments.tables else pairs(small=arguments.small):
        auto = compare(pair)["auto"]
        told = ", ".join(f"{least}: {100 * found['advantage']['value']:+.1f}" for least, found in auto.items())
        name = f"{pair.architecture} {pair.domain} {pair.seed}"
        print(f"{name}: points over uniform at an asked gain of {told}", flush=True)
    print(write())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence")
    parser.add_argument("--small", action="store_true", help="one seed of two pairs")
    parser.add_argument("--tables", action="store_true", help="only write the page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
