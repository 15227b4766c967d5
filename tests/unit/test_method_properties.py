"""What holds for every method on any tensors: equal experts, weight 0, density 1, exact ends, NaN that shows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_method_catalogue import EVERY, FULL, GTA, WEIGHTS, run
from worker.methods.base import NotFiniteError

DTYPES = st.sampled_from([torch.bfloat16, torch.float16, torch.float32])
SHAPES = st.one_of(
    st.tuples(st.integers(1, 40)), st.tuples(st.integers(1, 17), st.integers(1, 23)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 7)),
)  # fmt: skip
THINNED = ("ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties")
COMPAT = ("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties")
ADDING = ("task_arithmetic", *THINNED)
AVERAGING = ("linear", "multislerp", "nuslerp", "karcher", "slerp", "wise_ft", "nearswap", "arcee_fusion",
             "passthrough", "model_stock", "sce")  # fmt: skip
quick = settings(max_examples=12, deadline=None)


@st.composite
def draws(draw, count: int = 3):
    """A base and `count` experts of one shape and dtype."""
    shape, dtype, seed = draw(SHAPES), draw(DTYPES), draw(st.integers(0, 2**20))
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    noise = [torch.randn(shape, generator=generator) * 0.2 for _ in range(count)]
    return [tensor.to(dtype) for tensor in (base, *(base + part for part in noise))]


def stored(name, tensors, parameters, experts):
    return run(name, tensors, parameters, experts, dtype=tensors[0].dtype, chunk=64)[0]


def gta(name: str) -> dict:
    return GTA | ({"seed": 5} if name.startswith(("dare", "della")) else {})


@pytest.mark.parametrize("name", AVERAGING)
@quick
@given(tensors=draws(1))
def test_the_mean_of_equal_models_is_that_model(name, tensors):
    """All models alike, the base among them: nothing is left to choose, to one rounding."""
    parameters, count = EVERY[name]
    same = [tensors[0]] * (count + 1)
    found = stored(name, same, parameters | ({"normalize": True} if name == "linear" else {}), FULL[:count])
    torch.testing.assert_close(found, tensors[0], rtol=4 * torch.finfo(found.dtype).eps, atol=1e-6)


@pytest.mark.parametrize("name", ADDING)
@quick
@given(tensors=draws(1))
def test_experts_that_are_the_base_change_no_byte(name, tensors):
    found = stored(name, [tensors[0]] * 3, gta(name), FULL[:2])
    assert torch.equal(found, tensors[0])


@pytest.mark.parametrize("name", ADDING)
@quick
@given(tensors=draws(2))
def test_weight_0_of_all_is_the_base(name, tensors):
    experts = [{**expert, "weight": 0.0} for expert in FULL[:2]]
    assert torch.equal(stored(name, tensors, gta(name), experts), tensors[0])


@pytest.mark.parametrize("name", [*ADDING, "linear"])
@quick
@given(tensors=draws(3))
def test_an_expert_of_weight_0_is_as_good_as_none(name, tensors):
    experts = [FULL[0], FULL[1], {**FULL[2], "weight": 0.0}]
    parameters = {"normalize": True} if name == "linear" else gta(name)
    with_it = run(name, tensors, parameters, experts, dtype=torch.float64)[0]
    without = run(name, tensors[:3], parameters, experts[:2], dtype=torch.float64)[0]
    torch.testing.assert_close(with_it, without, rtol=0, atol=0)


@pytest.mark.parametrize("name", THINNED)
@quick
@given(tensors=draws(2))
def test_density_1_thins_nothing(name, tensors):
    experts = [{**expert, "density": 1.0} for expert in FULL[:2]]
    found = run(name, tensors, gta(name) | {"rescale": True}, experts)[0]
    plain = "ties" if name in {"ties", "dare_ties", "della", "breadcrumbs_ties"} else "task_arithmetic"
    assert torch.equal(found, run(plain, tensors, GTA, experts)[0])


@pytest.mark.parametrize(("name", "parameter"), [("slerp", "t"), ("wise_ft", "alpha")])
@quick
@given(tensors=draws(1))
def test_the_ends_are_byte_for_byte_the_models(name, parameter, tensors):
    assert torch.equal(stored(name, tensors, {parameter: 0.0}, [{}]), tensors[0])
    assert torch.equal(stored(name, tensors, {parameter: 1.0}, [{}]), tensors[1])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (1,), (1, 1), ()])
def test_a_tensor_of_no_or_one_entry_goes_through(name, shape):
    parameters, count = EVERY[name]
    tensors = [torch.full(shape, 0.25 * (number + 1)) for number in range(count + 1)]
    found, _ = run(name, tensors, parameters, FULL[:count], dtype=torch.float32)
    assert found.shape == torch.Size(shape)
    assert found.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("name", "compat"), [*((name, None) for name in EVERY), *((n, "mergekit") for n in COMPAT)])
def test_what_is_not_finite_never_hides(name, density, value, compat):
    """In any expert, with any weight: the method says so, or its result shows it."""
    if density == 0 and name.startswith("della"):
        density = 0.3
    parameters, count = EVERY[name]
    parameters = parameters | ({"compat": compat, "dtype": None} if compat else {})
    generator = torch.Generator().manual_seed(3)
    for place in range(1, count + 1):
        tensors = [torch.randn((40, 30), generator=generator) for _ in range(count + 1)]
        tensors[place][17, 5] = value
        thins = {"density": density, "gamma": 0.1, "epsilon": 0.1} if name in THINNED else {}
        experts = [{"weight": weight} | thins for weight in WEIGHTS[:count]]
        try:
            found, _ = run(name, tensors, parameters, experts, dtype=torch.float32)
        except NotFiniteError:
            continue
        assert not found.isfinite().all(), (name, place)
