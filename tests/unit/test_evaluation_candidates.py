"""Points between two models equal what a restoring merge writes."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from app.errors import Code, SpearError
from worker.evaluation.candidates import Between
from worker.methods import Spec, load_all
from worker.methods.base import Chunk, Workspace

CONFIG = LlamaConfig(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip


@pytest.fixture
def pair():
    torch.manual_seed(0)
    base = LlamaForCausalLM(CONFIG).to(torch.bfloat16)
    adapted = copy.deepcopy(base)
    for number, weight in enumerate(adapted.parameters()):  # some so near that LERP is used, others far apart
        weight.data.add_(torch.randn(weight.shape).to(weight.dtype) * (0.0001 if number % 2 else 0.05))
    return base, adapted


def merged_by_slerp(base, adapted, t):
    out, work = torch.empty_like(base.reshape(-1)), Workspace()
    method = load_all()["slerp"].made_for(Spec("w", tuple(base.shape), {"t": t}), work)
    chunk = Chunk(0, base.numel(), base.reshape(-1), (adapted.reshape(-1),))
    if method.surveys:
        method.survey(chunk)
        method.conclude()
    method.merge(chunk, out)
    return out.reshape(base.shape)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0, 1.3])
def test_a_point_has_the_weights_that_the_merge_would_write(pair, t):
    base, adapted = pair
    between = Between(base, adapted)
    between.move(dict.fromkeys(between.sizes, t))
    parents = zip(base.parameters(), adapted.parameters(), strict=True)
    for (name, live), (b, a) in zip(between.model.named_parameters(), parents, strict=True):
        assert torch.equal(live, merged_by_slerp(b.data, a.data, t)), name


def test_moves_do_not_depend_on_the_way_there(pair):
    base, adapted = pair
    between = Between(base, adapted)
    first, *_ = between.sizes
    between.move(dict.fromkeys(between.sizes, 0.25))
    between.put(first, torch.zeros_like(dict(base.named_parameters())[first]))
    between.move({first: 0.5})
    other = Between(base, adapted)
    other.move({first: 0.5})
    for live, same in zip(between.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(live, same)


def test_a_tied_head_moves_with_its_embedding(pair):
    between = Between(*pair)
    assert "lm_head.weight" not in between.sizes
    between.move({"model.embed_tokens.weight": 0.0})
    assert torch.equal(between.model.lm_head.weight, pair[0].model.embed_tokens.weight)


def test_an_unknown_name_is_an_error(pair):
    with pytest.raises(KeyError, match="nothing"):
        Between(*pair).move({"nothing": 0.5})


def test_slopes_are_what_a_small_step_changes(pair):
    from worker.evaluation.likelihood import Span
    from worker.evaluation.slopes import slopes

    base, adapted = (model.float() for model in pair)
    between = Between(base, adapted)
    spans = [Span(tuple(range(1, 12)), 10), Span(tuple(range(20, 26)), 3)]
    middle = dict.fromkeys(between.names, 0.6) | {"model.norm.weight": 1.2}
    between.move(middle)
    with torch.no_grad():  # as in the computing child
        nats, found = slopes(between, spans, batch_tokens=11)
    assert len(nats) == 2
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"):
        sums = []
        for step in (-0.01, 0.01):
            between.move(middle | {name: middle[name] + step})
            sums.append(slopes(between, spans)[0].sum())
        assert found[between.names.index(name)] == pytest.approx((sums[1] - sums[0]) / 0.02, rel=0.02, abs=1e-3)
    assert all(weight.grad is None for weight in between.model.parameters())


def test_slopes_halve_a_batch_that_memory_is_too_small_for(pair, monkeypatch):
    """Also where memory runs out in the backward pass, when some weights have had their share."""
    from worker.evaluation.likelihood import Span
    from worker.evaluation.slopes import slopes

    between = Between(*(model.float() for model in pair))
    spans = [Span(tuple(range(1, 1 + length)), 3) for length in (9, 8, 7)]
    between.move(dict.fromkeys(between.names, 0.6))
    whole = slopes(between, spans)
    passes, pull, most = [0], between.pull, [1]
    forward = between.model.forward

    def seen(*, input_ids, **options):
        passes[0] = len(input_ids)
        return forward(input_ids=input_ids, **options)

    def short(name, gradient):
        if passes[0] > most[0] and name == "model.layers.0.mlp.down_proj.weight":
            raise MemoryError
        return pull(name, gradient)

    monkeypatch.setattr(between.model, "forward", seen)
    monkeypatch.setattr(between, "pull", short)
    halved = slopes(between, spans)
    assert halved[0] == pytest.approx(whole[0], rel=1e-5)
    assert halved[1] == pytest.approx(whole[1], rel=1e-3, abs=1e-5)
    most[0] = 0
    with pytest.raises(SpearError) as caught:
        slopes(between, spans)
    assert caught.value.code == Code.OUT_OF_MEMORY
    assert all(weight.grad is None for weight in between.model.parameters())
