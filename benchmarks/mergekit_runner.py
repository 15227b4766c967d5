"""Runs a list of mergekit merges in one process, inside mergekit's own environment (nothing of ours is imported)."""

import json
import sys
from pathlib import Path

import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

torch.set_num_threads(1)
for recipe, out in json.loads(Path(sys.argv[1]).read_text()):
    run_merge(
        MergeConfiguration.model_validate(recipe), out,
        MergeOptions(random_seed=int(sys.argv[2]), copy_tokenizer=False, out_shard_size=int(sys.argv[3]), quiet=True,
                     write_model_card=False),
    )  # fmt: skip
