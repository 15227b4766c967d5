"""The plan's peak memory: what methods hold of one tensor, and nothing for those that stream."""

import pytest

from app.hub.headers import TensorInfo
from app.hub.memory import BLOCK_BYTES, working_set
from app.recipes import parse_recipe

MEGA = 1_000_000


def tensor(*shape: int) -> TensorInfo:
    size = 2
    for length in shape:
        size *= length
    return TensorInfo("model.layers.0.mlp.down_proj.weight", "BF16", shape, "f", 0, size)


def recipe(**method):
    experts = [{"repo": "org/a"}, {"repo": "org/b"}][: 1 if method["name"] in {"dg_hard", "spear"} else 2]
    return parse_recipe({
        "base": {"repo": "org/base"}, "experts": experts, "method": method, "target": {"repo": "org/out"}
    })  # fmt: skip


@pytest.mark.parametrize("name", ["linear", "ties", "dare_ties", "della", "breadcrumbs", "sce", "karcher"])
def test_what_streams_holds_nothing(name):
    assert working_set(tensor(4096, 14336), recipe(name=name)) == 0


def test_compat_mode_holds_the_whole_tensor_where_it_thins():
    wide = tensor(1000, 1000)
    assert working_set(wide, recipe(name="ties", density=1.0, compat="mergekit")) == 0
    assert working_set(wide, recipe(name="linear", compat="mergekit")) == 0
    assert 50 * MEGA < working_set(wide, recipe(name="ties", density=[0.5, 1.0], compat="mergekit")) < 100 * MEGA


def test_dg_hard_holds_a_gram_matrix_and_a_block():
    tall, wide = tensor(14336, 4096), tensor(4096, 14336)
    method = recipe(name="dg_hard")
    assert working_set(wide, method) - working_set(tall, method) == BLOCK_BYTES
    assert working_set(tall, method) < 700 * MEGA
    assert working_set(tensor(4096), method) == 0


def test_spear_holds_what_it_scores():
    assert working_set(tensor(64, 64), recipe(name="spear")) == 3 * 4 * 64**2 + 3 * 8 * 64**2
