"""Every method against its formula, computed in the test on whole tensors in fp64; and what holds for all of them."""

import math

import pytest
import torch

from app.recipes.methods import load_all as parameter_classes
from worker.methods import Chunk, Spec, Workspace, load_all
from worker.methods.counter import key_of, random_bits, random_words

METHODS = load_all()
SHAPE = (37, 52)
WEIGHTS = (0.3, 0.5, 0.4)
KEYS = ("a" * 40, "b" * 40, "c" * 40)
GTA = {"normalize": False, "lambda": 1.0, "rescale": False}


def models(count: int, *, shape=SHAPE, dtype=torch.bfloat16, seed=0) -> list[torch.Tensor]:
    """A base and `count` experts."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    noise = [torch.randn(shape, generator=generator) for _ in range(count)]
    return [tensor.to(dtype) for tensor in (base, *(base + 0.3 * part for part in noise))]


def run(name, tensors, parameters=None, experts=None, *, chunk=300, dtype=torch.float64, depth=0.0, tensor="w"):
    """A method over chunks, as the merge runs it; the result in fp64 and the operation's word."""
    shape = tuple(tensors[0].shape)
    experts = experts or [{"weight": weight} for weight in WEIGHTS[: len(tensors) - 1]]
    spec = Spec(tensor, shape, {"name": name, **(parameters or {})}, tuple(experts), KEYS[: len(experts)], depth=depth)
    method = METHODS[name].made_for(spec, Workspace())
    flat = [t.flatten() for t in tensors]

    def chunks(spans):
        for start, stop in spans:
            yield Chunk(start, stop, flat[0][start:stop], tuple(t[start:stop] for t in flat[1:]))

    size = max(1, chunk // method.grain) * method.grain
    spans = [(at, min(len(flat[0]), at + size)) for at in range(0, len(flat[0]), size)]
    for part in chunks(method.probes):
        method.probe(part)
    while method.turn < method.surveys:
        for part in chunks(spans):
            method.survey(part)
        method.conclude()
        method.turn += 1
    out = torch.empty(len(flat[0]), dtype=dtype)
    for part in chunks(spans):
        method.merge(part, out[part.start : part.stop])
    return out.reshape(shape), method.operation


def exact(tensors):
    return [tensor.double() for tensor in tensors]


def same(found, expected, *, tolerance=2e-6):
    torch.testing.assert_close(found[0], expected, rtol=0, atol=tolerance * expected.abs().max().item())


def elected(deltas, weights, *, normalize):
    """TIES's mix: sums of what agrees with the sign of the weighted sum, over the sum of those weights."""
    weighted = [weight * delta for weight, delta in zip(weights, deltas, strict=True)]
    sign = torch.where(sum(weighted) >= 0, 1.0, -1.0).double()
    kept = [(part.sign() == sign).double() for part in weighted]
    mixed = sum(part * mask for part, mask in zip(weighted, kept, strict=True))
    divisor = sum(weight * mask for weight, mask in zip(weights, kept, strict=True))
    return mixed / torch.where(divisor == 0, 1.0, divisor) if normalize else mixed


def trim(delta, keep, *, skip=0):
    order = torch.argsort(delta.abs().flatten(), descending=True, stable=True)
    mask = torch.zeros(delta.numel(), dtype=torch.float64)
    mask[order[skip:keep]] = 1
    return delta * mask.reshape(delta.shape)


def test_every_method_has_its_parameters_and_the_other_way_round():
    assert set(METHODS) | {"spear"} == set(parameter_classes())


def test_linear():
    _, *experts = exact(tensors := models(3))
    total = sum(weight * expert for weight, expert in zip(WEIGHTS, experts, strict=True))
    same(run("linear", tensors, {"normalize": True}), total / sum(WEIGHTS))
    same(run("linear", tensors, {"normalize": False}), total)


@pytest.mark.parametrize("normalize", [True, False])
def test_task_arithmetic(normalize):
    base, *experts = exact(tensors := models(3))
    mixed = sum(weight * (expert - base) for weight, expert in zip(WEIGHTS, experts, strict=True))
    expected = base + 0.7 * mixed / (sum(WEIGHTS) if normalize else 1)
    same(run("task_arithmetic", tensors, {"normalize": normalize, "lambda": 0.7}), expected)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [(0.3, 0.5, 0.4), (0.3171, -0.45313, 0.20939), (1.0, 0.0, 1.0)])
@pytest.mark.parametrize("densities", [(1, 1, 1), (0.5, 0.1, 0.9), (0, 0.3, 1)])
def test_ties(normalize, weights, densities):
    base, *experts = exact(tensors := models(3))
    kept = [1924 if d >= 1 else int(d * 1924) for d in densities]
    deltas = [trim(expert - base, keep) for expert, keep in zip(experts, kept, strict=True)]
    parameters = {"normalize": normalize, "lambda": 0.9, "rescale": False}
    settings = [{"weight": w, "density": d} for w, d in zip(weights, densities, strict=True)]
    expected = base + 0.9 * elected(deltas, weights, normalize=normalize)
    same(run("ties", tensors, parameters, settings), expected)


def test_ties_rescales_to_the_old_l1_norm():
    base, *experts = exact(tensors := models(2))
    deltas = [trim(expert - base, 481) for expert in experts]
    scaled = [d * ((e - base).abs().sum() / d.abs().sum()) for d, e in zip(deltas, experts, strict=True)]
    settings = [{"weight": 0.5, "density": 0.25}] * 2
    expected = base + elected(scaled, (0.5, 0.5), normalize=False)
    same(run("ties", tensors, GTA | {"rescale": True}, settings), expected)


@pytest.mark.parametrize("weight", [0.7, -0.7, 0.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_ties_of_one_expert(weight, normalize):
    base, expert = exact(tensors := models(1))
    delta = trim(expert - base, 962)
    settings = [{"weight": weight, "density": 0.5}]
    expected = base + elected([delta], [weight], normalize=normalize)
    same(run("ties", tensors, GTA | {"normalize": normalize}, settings), expected)


def kept_by_mask(expert: int, density: float, *, seed=3):
    bits = random_bits(key_of(seed, "w", KEYS[expert]), start=0, size=1924, work=Workspace())
    return (bits < round(density * 32768)).double().reshape(SHAPE)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_dare(name, rescale):
    base, *experts = exact(tensors := models(2))
    deltas = []
    for number, expert in enumerate(experts):
        masked = (expert - base) * kept_by_mask(number, 0.3)
        ratio = (expert - base).abs().sum() / masked.abs().sum() if rescale else 1
        deltas.append(masked * ratio)
    mixed = elected(deltas, WEIGHTS[:2], normalize=False) if "ties" in name else 0.3 * deltas[0] + 0.5 * deltas[1]
    settings = [{"weight": weight, "density": 0.3} for weight in WEIGHTS[:2]]
    same(run(name, tensors, GTA | {"rescale": rescale, "seed": 3}, settings), base + mixed)


def test_a_density_of_one_is_task_arithmetic():
    tensors = models(2)
    settings = [{"weight": weight, "density": 1.0, "gamma": 0.2, "epsilon": 0.1} for weight in WEIGHTS[:2]]
    plain = run("task_arithmetic", tensors, GTA, settings)[0]
    for name in ("dare_linear", "della_linear", "breadcrumbs"):
        assert torch.equal(run(name, tensors, GTA | {"rescale": True, "seed": 1}, settings)[0], plain)


@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.1), (0.9, 0.3), (0.2, 0.0), (0.0, 0.1), (0.001, 0.5)])
@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs(name, density, gamma):
    base, *experts = exact(tensors := models(2))
    keep = int(density * 1924)
    smallest = max(0, 1924 - keep - int(gamma * 1924))
    deltas = [trim(expert - base, 1924 - smallest, skip=1924 - smallest - keep) for expert in experts]
    weights = WEIGHTS[:2]
    mixed = elected(deltas, weights, normalize=False) if "ties" in name else 0.3 * deltas[0] + 0.5 * deltas[1]
    settings = [{"weight": weight, "density": density, "gamma": gamma} for weight in weights]
    same(run(name, tensors, GTA, settings), base + mixed)


def test_della():
    base, *experts = exact(tensors := models(2))
    deltas = []
    for number, expert in enumerate(experts):
        delta = expert - base
        ranks = torch.argsort(torch.argsort(delta.abs(), dim=1, stable=True), dim=1)
        chances = 0.4 - 0.15 + ranks / 51 * 0.3
        words = random_words(key_of(3, "w", KEYS[number]), start=0, size=1924 // 2, work=Workspace())
        bits = words.view(torch.int32).bitwise_and(2**31 - 1).reshape(SHAPE)
        masked = delta * (bits < (chances * 2**31).round())
        deltas.append(masked * (delta.abs().sum() / masked.abs().sum()))
    settings = [{"weight": weight, "density": 0.4, "epsilon": 0.15} for weight in WEIGHTS[:2]]
    parameters = GTA | {"rescale": True, "seed": 3, "normalize": True}
    same(run("della", tensors, parameters, settings), base + elected(deltas, WEIGHTS[:2], normalize=True))
    linear = base + 0.3 * deltas[0] + 0.5 * deltas[1]
    same(run("della_linear", tensors, parameters | {"normalize": False}, settings), linear)


def test_della_refuses_an_epsilon_that_leaves_the_range():
    with pytest.raises(ValueError, match="epsilon"):
        run("della", models(1), GTA | {"seed": 0}, [{"weight": 1.0, "density": 0.9, "epsilon": 0.2}])


def test_nearswap():
    base, expert = exact(tensors := models(1))
    weight = (0.1 / (expert - base).abs().clamp(min=1e-6)).clamp(0, 1)
    same(run("nearswap", tensors, {"t": 0.1}), weight * expert + (1 - weight) * base)


def test_wise_ft_and_its_ends():
    base, expert = exact(tensors := models(1))
    same(run("wise_ft", tensors, {"alpha": 0.3}), 0.7 * base + 0.3 * expert)
    assert torch.equal(run("wise_ft", tensors, {"alpha": 0.0})[0], base)
    assert torch.equal(run("wise_ft", tensors, {"alpha": 1.0})[0], expert)


@pytest.mark.parametrize(
    ("alpha", "beta", "depth", "factor"), [(0.4, None, 0.0, 0.4), (0.4, None, 1.0, 1.0), (0.2, 0.5, 0.5, 0.45)]
)
def test_lines(alpha, beta, depth, factor):
    base, expert = exact(tensors := models(1))
    same(run("lines", tensors, {"alpha": alpha, "beta": beta}, depth=depth), base + factor * (expert - base))


def test_passthrough():
    tensors = models(1)
    assert torch.equal(run("passthrough", tensors, {"scale": None})[0], tensors[1].double())
    same(run("passthrough", tensors, {"scale": 0.7}), 0.7 * tensors[1].double())


def slerp(one, two, t, dim):
    cosine = torch.nn.functional.cosine_similarity(one, two, dim=dim).unsqueeze(dim)
    angle = torch.acos(cosine)
    return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)


@pytest.mark.parametrize("shape", [(1,), (1, 2048), (2048, 1), (300, 7)])
@pytest.mark.parametrize("row_wise", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
def test_nuslerp_of_antiparallel_vectors_is_linear(shape, row_wise, flatten):
    one = models(1, shape=shape, dtype=torch.float32)[0]
    tensors = [one, one * 0.7, one * -0.31]
    parameters = {"nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise, "task_vectors": False}
    expected = (tensors[1].double() + tensors[2].double()) / 2
    same(run("nuslerp", tensors, parameters, [{"weight": 1.0}] * 2), expected)


@pytest.mark.parametrize("task_vectors", [True, False])
@pytest.mark.parametrize(("flatten", "row_wise", "dim"), [(True, False, 0), (False, False, 1), (False, True, 0)])
def test_nuslerp(task_vectors, flatten, row_wise, dim):
    base, *experts = exact(tensors := models(2))
    one, two = (expert - base if task_vectors else expert for expert in experts)
    t = 0.5 / 0.8
    shape = (-1,) if flatten else SHAPE
    expected = slerp(one.reshape(shape), two.reshape(shape), t, dim).reshape(SHAPE)
    parameters = {"nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise, "task_vectors": task_vectors}
    same(run("nuslerp", tensors, parameters), expected + base if task_vectors else expected)


@pytest.mark.parametrize("task_vectors", [True, False])
def test_multislerp_with_the_tangent_step_written_out(task_vectors):
    base, *experts = exact(tensors := models(3))
    vectors = torch.stack([(e - base if task_vectors else e).flatten() for e in experts])
    weights = torch.tensor(WEIGHTS, dtype=torch.float64) / sum(WEIGHTS)
    norms = vectors.norm(dim=1, keepdim=True)
    unit = vectors / (norms + 1e-8)
    mean = (unit * weights[:, None]).sum(0)
    mean = mean / mean.norm()
    tangent = ((unit - (unit @ mean)[:, None] * mean) * weights[:, None]).sum(0)
    angle = tangent.norm() + 1e-8
    mixed = (mean * torch.cos(angle) + tangent * torch.sin(angle) / angle) * (norms[:, 0] * weights).sum()
    parameters = {"normalize_weights": True, "eps": 1e-8, "task_vectors": task_vectors}
    expected = mixed.reshape(SHAPE) + (base if task_vectors else 0)
    same(run("multislerp", tensors, parameters), expected)


def test_multislerp_of_what_is_zero_or_unchanged():
    parameters = {"normalize_weights": True, "eps": 1e-8, "task_vectors": False}
    one = models(1, dtype=torch.float32)[0]
    assert not run("multislerp", [one[:0]] * 4, parameters)[0].numel()
    same(run("multislerp", [one * 0] * 4, parameters), one.double() * 0)
    same(run("multislerp", [one] * 4, parameters | {"task_vectors": True}), one.double())


def test_multislerp_of_opposite_directions():
    one = models(1)[1]
    parameters = {"normalize_weights": True, "eps": 1e-8, "task_vectors": False}
    zero = run("multislerp", [one, one, -one], parameters, [{"weight": 1.0}] * 2)[0]
    assert not zero.any()
    with pytest.raises(ValueError, match="cancel out"):
        run("multislerp", [one, one, -one, one * 0], parameters, [{"weight": 1.0}] * 3)


def test_karcher_of_opposite_scalars_is_finite():
    tensors = [torch.tensor([value]) for value in (0.0, 0.7, -0.31, 0.2, 0.4)]
    mean = run("karcher", tensors, {"max_iter": 10, "tol": 1e-5}, [{}] * 4)[0]
    assert abs(mean.item()) == pytest.approx((0.7 + 0.31 + 0.2 + 0.4) / 4)


def test_karcher_is_where_the_tangents_cancel():
    _, *experts = exact(tensors := models(3))
    mean = run("karcher", tensors, {"max_iter": 50, "tol": 1e-9})[0].flatten()
    norms = [expert.norm().item() for expert in experts]
    assert mean.norm().item() == pytest.approx(sum(norms) / 3, rel=1e-6)
    unit, pull = mean / mean.norm(), torch.zeros_like(mean)
    for expert in experts:
        other = expert.flatten() / expert.norm()
        angle = torch.acos(unit @ other)
        pull += angle / torch.sin(angle) * (other - (unit @ other) * unit)
    assert pull.norm() < 1e-5


@pytest.mark.parametrize("rows", [True, False])
def test_model_stock(rows):
    base, *experts = exact(tensors := models(3))
    deltas = [(e - base) if rows else (e - base).reshape(1, -1) for e in experts]
    pairs = [(0, 1), (0, 2), (1, 2)]
    cosine = sum(torch.nn.functional.cosine_similarity(deltas[i], deltas[j], dim=1) for i, j in pairs) / 3
    t = (3 * cosine / (1 + 2 * cosine))[:, None]
    expected = (t * sum(deltas) / 3).reshape(SHAPE) + base
    same(run("model_stock", tensors, {"filter_wise": rows}), expected)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
def test_sce(share):
    base, *experts = exact(tensors := models(3))
    deltas = torch.stack([expert - base for expert in experts])
    variance = deltas.var(dim=0, unbiased=False)
    mask = trim(variance, int(1924 * share)).sign() if share < 1 else 1.0
    deltas = deltas * mask
    weights = deltas.square().mean(dim=(1, 2))
    weights = weights / weights.sum() if share else torch.full((3,), 1 / 3, dtype=torch.float64)
    sign = torch.where(deltas.sum(0) >= 0, 1.0, -1.0)
    agree = (deltas.sign() == sign) * weights[:, None, None]
    expected = base + (deltas * agree).sum(0) / agree.sum(0).clamp(min=1e-6)
    same(run("sce", tensors, {"select_topk": share}), expected)


def test_arcee_fusion():
    base, expert = exact(tensors := models(1))
    p, q = (torch.softmax(model, dim=-1) + 1e-8 for model in (expert, base))
    importance = (expert - base).abs() * (p * torch.log(p / q)).sum(-1, keepdim=True)
    ordered = importance.flatten().sort().values
    first, median, third = (ordered[int(share * 1923)] for share in (0.25, 0.5, 0.75))
    threshold = median + 1.5 * (third - first)
    near = (importance - threshold).abs() < 1e-6 * threshold
    expected = base + (expert - base) * (importance >= threshold)
    found = run("arcee_fusion", tensors)[0]
    torch.testing.assert_close(found[~near], expected[~near], rtol=1e-6, atol=1e-6)
    assert near.sum() < 3


def test_arcee_fusion_tells_small_divergences_apart():
    """Rows that differ by parts in a thousand: their divergences are far below fp32's step at 1."""
    base = models(1, shape=(400, 300), dtype=torch.float32)[0]
    expert = base + 1e-3 * torch.randn(base.shape, generator=torch.Generator().manual_seed(5))
    p, q = (torch.softmax(model.double(), dim=-1) + 1e-8 for model in (expert, base))
    importance = (expert - base).abs().double() * (p * torch.log(p / q)).sum(-1, keepdim=True)
    ordered = importance.flatten().sort().values
    first, median, third = (ordered[int(share * (base.numel() - 1))] for share in (0.25, 0.5, 0.75))
    threshold = median + 1.5 * (third - first)
    found = run("arcee_fusion", [base, expert], chunk=3000)[0] != base.double()
    wrong = (found != (importance >= threshold)) & ((importance / threshold - 1).abs() > 1e-6)
    assert not wrong.any()


@pytest.mark.parametrize("shape", [(96, 40), (40, 96), (64, 64)])
def test_dg_hard_keeps_the_signal_and_drops_the_noise(shape):
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(shape, generator=generator)
    signal = torch.randn(shape[0], 3, generator=generator) @ torch.randn(3, shape[1], generator=generator)
    noise = torch.randn(shape, generator=generator) * 0.3
    expert = base + signal + noise
    found, operation = run("dg_hard", [base, expert], {"scale": 1.0, "min_elements": 1024})
    left, values, right = torch.linalg.svd((expert - base).double(), full_matrices=False)
    kept = left[:, :3] @ torch.diag(values[:3]) @ right[:3]
    torch.testing.assert_close(found, base.double() + kept, rtol=0, atol=2e-5)
    assert operation == "dg_hard"


@pytest.mark.parametrize(("held", "tile"), [(96, 96), (96 * 7, 96 * 5), (96 * 39, 96 * 11), (96 * 40, 96 * 64)])
def test_dg_hard_of_a_wide_matrix_by_blocks_is_the_same(monkeypatch, held, tile):
    """However few rows are held, and however the chunks cut them."""
    tensors = models(1, shape=(40, 96), dtype=torch.float32)
    tensors[1] += 2 * torch.ones(40, 1) @ torch.ones(1, 96)
    parameters = {"scale": 1.0, "min_elements": 1024}
    expected = run("dg_hard", [tensor.T.contiguous() for tensor in tensors], parameters)[0].T
    monkeypatch.setattr("worker.methods.dg_hard.HELD", held)
    monkeypatch.setattr("worker.methods.dg_hard.TILE", tile)
    found, operation = run("dg_hard", tensors, parameters, chunk=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert operation == "dg_hard"


def test_dg_hard_threshold_for_square_matrices_is_the_known_constant():
    """τ*/median(S) = 2.858 at β = 1 (arXiv 1305.5870)."""
    spec = Spec("w", (64, 64), {"scale": 1.0, "min_elements": 1}, ({},))
    assert METHODS["dg_hard"](spec, Workspace())._edge(torch.ones(64)) == pytest.approx(2.858, abs=1e-3)


def test_dg_hard_leaves_small_and_unchanged_tensors_to_the_expert():
    tensors = models(1, shape=(10, 10))
    found, operation = run("dg_hard", tensors, {"scale": 1.0, "min_elements": 1024})
    assert torch.equal(found, tensors[1].double())
    assert operation == "copied_adapted"
    same_model = [tensors[0], tensors[0]]
    assert torch.equal(run("dg_hard", same_model, {"scale": 1.0, "min_elements": 1})[0], tensors[0].double())


EVERY = {
    "arcee_fusion": ({}, 1), "breadcrumbs": (GTA, 2), "breadcrumbs_ties": (GTA, 2),
    "dare_linear": (GTA | {"seed": 1}, 2), "dare_ties": (GTA | {"seed": 1, "rescale": True}, 2),
    "della": (GTA | {"seed": 1}, 2), "della_linear": (GTA | {"seed": 1, "rescale": True}, 2),
    "dg_hard": ({"scale": 1.0, "min_elements": 1024}, 1), "karcher": ({"max_iter": 10, "tol": 1e-5}, 2),
    "linear": ({"normalize": True}, 2), "lines": ({"alpha": 0.5, "beta": None}, 1),
    "model_stock": ({"filter_wise": False}, 2),
    "multislerp": ({"normalize_weights": True, "eps": 1e-8, "task_vectors": False}, 2), "nearswap": ({"t": 0.1}, 1),
    "nuslerp": ({"nuslerp_flatten": True, "nuslerp_row_wise": False, "task_vectors": True}, 2),
    "passthrough": ({"scale": None}, 1), "sce": ({"select_topk": 0.5}, 2), "slerp": ({"t": 0.5}, 1),
    "task_arithmetic": (GTA, 2), "ties": (GTA | {"normalize": True}, 2), "wise_ft": ({"alpha": 0.5}, 1),
}  # fmt: skip
FULL = [{"weight": weight, "density": 0.5, "gamma": 0.1, "epsilon": 0.1} for weight in WEIGHTS]


def test_this_list_is_complete():
    assert set(EVERY) == set(METHODS)


@pytest.mark.parametrize("name", EVERY)
def test_the_chunks_change_nothing_but_the_order_of_sums(name):
    parameters, count = EVERY[name]
    tensors = models(count)
    small = run(name, tensors, parameters, FULL[:count], chunk=64, dtype=torch.float32)[0]
    large = run(name, tensors, parameters, FULL[:count], chunk=10**6, dtype=torch.float32)[0]
    torch.testing.assert_close(small, large, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("name", EVERY)
def test_it_is_the_same_every_time(name):
    parameters, count = EVERY[name]
    tensors = models(count)
    first, second = (run(name, tensors, parameters, FULL[:count])[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", EVERY)
def test_experts_that_equal_the_base_give_the_base(name):
    parameters, count = EVERY[name]
    base = models(0)[0]
    found = run(name, [base] * (count + 1), parameters, FULL[:count], dtype=torch.bfloat16)[0]
    assert torch.equal(found, base)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(1,), (5,), (1, 1), (3, 1), (1, 7), (2, 3, 4)])
def test_any_shape_goes(name, shape):
    parameters, count = EVERY[name]
    tensors = models(count, shape=shape)
    assert run(name, tensors, parameters, FULL[:count])[0].isfinite().all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["base", "expert"])
def test_a_value_that_is_not_finite_is_never_hidden(name, value, where):
    parameters, count = EVERY[name]
    tensors = models(count)
    tensors[0 if where == "base" else 1][3, 4] = value
    if where == "base" and not METHODS[name].made_for(
        Spec("w", SHAPE, {"name": name, **parameters}, tuple(FULL[:count]), KEYS[:count]), Workspace()
    ).uses_base:
        return
    try:
        found = run(name, tensors, parameters, FULL[:count])[0]
    except ArithmeticError:
        return
    assert not found.isfinite().all()
