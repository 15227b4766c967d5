"""SCE's selection counts what really varies over the experts."""

import torch

from worker.methods import Chunk, Spec, Workspace
from worker.methods.sce import Sce


def test_entries_in_which_the_experts_agree_do_not_count_as_varying():
    """0.1 + 0.1 + 0.1 is not 0.3: a mean by rounded thirds would give equal task vectors a variance."""
    agreed = torch.linspace(0.1, 0.9, 1000)
    apart = torch.linspace(1.0, 2.0, 100)
    experts = tuple(torch.cat([agreed, apart * factor]) for factor in (1, 2, 3))
    spec = Spec("w", (1100,), {"select_topk": 0.5}, ({}, {}, {}))
    method, chunk = Sce(spec, Workspace()), Chunk(0, 1100, torch.zeros(1100), experts)
    while method.turn < method.surveys:
        method.survey(chunk)
        method.conclude()
        method.turn += 1
    merged = torch.empty(1100)
    method.merge(chunk, merged)
    assert merged[:1050].count_nonzero() == 0
    assert merged[1050:].count_nonzero() == 50
