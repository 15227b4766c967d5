"""The compiled loops against torch's operations, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker import child, processor
from worker.methods import Chunk, NotFiniteError, Spec, Workspace, load_all
from worker.methods.counter import keep_mask, mask_levels
from worker.methods.products import Products

METHODS = load_all()
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
NAMES = ["task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties"]
PATTERNS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def merged(spec: Spec, tensors: list[torch.Tensor], *, dtype: torch.dtype, chunk: int, fused: bool) -> torch.Tensor:
    """As the pipeline does it: probes, surveys, then the merge, chunk by chunk."""
    work = Workspace(fused=fused)
    if work.engine:  # else methods that gain little go without
        work.engine.load_blends()
    method = METHODS[spec.parameters["name"]].made_for(spec, work)
    out = torch.empty(spec.elements, dtype=dtype)
    spans = [(at, min(at + chunk, spec.elements)) for at in range(0, spec.elements, chunk)]

    def chunks(spans):
        return [Chunk(a, b, tensors[0][a:b], tuple(tensor[a:b] for tensor in tensors[1:])) for a, b in spans]

    for part in chunks(method.probes):
        method.probe(part)
    while method.turn < method.surveys:
        for part in chunks(spans):
            method.survey(part)
        method.conclude()
        method.turn += 1
    for part in chunks(spans):
        method.merge(part, out[part.start : part.stop])
    return out


def spec_of(name: str, elements: int, experts: list[dict], **parameters) -> Spec:
    shared = {"name": name, "lambda": 1.0, "normalize": True, "rescale": name.startswith("dare"), "seed": 7}
    return Spec(
        "layers.0.weight", (elements,), shared | parameters, tuple(experts), tuple("abcd"[: len(experts)])
    )


def both(spec: Spec, tensors, *, dtype: torch.dtype, chunk: int = 4096) -> tuple[torch.Tensor, torch.Tensor]:
    found = [merged(spec, tensors, dtype=dtype, chunk=chunk, fused=fused) for fused in (True, False)]
    return found[0].view(PATTERNS[dtype]), found[1].view(PATTERNS[dtype])


def models(count: int, elements: int, *, dtypes: list[torch.dtype], seed: int, coarse: bool) -> list[torch.Tensor]:
    """Weights with exact zeros, both signs of zero, subnormals and equal magnitudes among them."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(elements, generator=generator) * 0.02
    if coarse:
        base = (base * 100).round() / 100
    base[torch.rand(elements, generator=generator) < 0.05] = -0.0
    found = [base]
    for _ in range(count):
        noise = torch.randn(elements, generator=generator) * 0.01
        noise[torch.rand(elements, generator=generator) < 0.2] = 0
        noise[torch.rand(elements, generator=generator) < 0.02] *= 1e-37
        found.append(base + ((noise * 200).round() / 200 if coarse else noise))
    return [tensor.to(dtype) for tensor, dtype in zip(found, dtypes, strict=False)]


density = st.sampled_from([0.0, 0.003, 0.2, 0.5, 0.9, 0.99999, 1.0])
weight = st.sampled_from([0.5, 0.5, 1.0, 0.3, -0.7, 0.0])


@st.composite
def cases(draw):
    name = draw(st.sampled_from(NAMES))
    count, elements = draw(st.integers(1, 4)), draw(st.sampled_from([1, 7, 2047, 2048, 2049, 5000, 9000]))
    mixed = draw(st.booleans())
    dtypes = [draw(st.sampled_from(DTYPES)) for _ in range(count + 1)] if mixed else [draw(st.sampled_from(DTYPES))] * 5
    one = draw(st.booleans())
    shared = draw(weight)
    experts = [
        {"weight": shared if one else draw(weight), "density": draw(density),
         "gamma": 0.01}
        for _ in range(count)
    ]  # fmt: skip
    spec = spec_of(name, elements, experts, normalize=draw(st.booleans()), **{"lambda": draw(st.floats(-2, 2))})
    tensors = models(count, elements, dtypes=dtypes, seed=draw(st.integers(0, 99)), coarse=draw(st.booleans()))
    return spec, tensors, draw(st.sampled_from(DTYPES)), draw(st.sampled_from([1024, 3000, 4096]))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_the_bits_are_those_of_torch(case):
    spec, tensors, dtype, chunk = case
    fused, plain = both(spec, tensors, dtype=dtype, chunk=chunk)
    assert torch.equal(fused, plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_16_bit_pattern_is_read_and_written_as_torch_does(dtype):
    """Each finite number of the dtype as the base, with experts that are it: and the same rounded from fp32."""
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
    every = every.view(dtype) if dtype != torch.float32 else every.view(torch.bfloat16).float() * (1 + 2**-9)
    every = every[every.isfinite()]
    spec = spec_of("task_arithmetic", len(every), [{"weight": 1.0}])
    for out in DTYPES:
        wide = [every, every.float() * (1 - 2**-12)]
        for tensors in ([every, every], [every, every * 0], wide):
            fused, plain = both(spec, tensors, dtype=out)
            assert torch.equal(fused, plain)


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "dare_linear", "dare_ties"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rescale", [True, False])
def test_what_is_not_finite_never_gets_lost(name, bad, density, rescale):
    tensors = models(2, 9000, dtypes=[torch.bfloat16] * 3, seed=1, coarse=False)
    for place in range(8000, 8032):  # masks drop some of these, never all
        tensors[1][place] = bad
    spec = spec_of(name, 9000, [{"weight": 0.5, "density": density}] * 2, rescale=rescale and name != "ties")
    with pytest.raises(NotFiniteError):
        merged(spec, tensors, dtype=torch.bfloat16, chunk=4096, fused=True)


@given(
    elements=st.sampled_from([1, 15, 16, 17, 2047, 2048, 2049, 5000]), seed=st.integers(0, 99),
    ends=st.sampled_from([
        ("none", 0), ("none", 1), ("none", 9), ("some", 0), ("some", 1), ("some", 2), ("some", 1 << 20), ("all", 0),
    ]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_survey_of_ranks_counts_and_collects_what_numpy_does(elements, seed, ends):
    tensors = models(2, elements, dtypes=[torch.bfloat16] * 3, seed=seed, coarse=bool(seed % 2))
    patterns = [
        (each.float() - tensors[0].float()).view(torch.int32).bitwise_and(0x7FFFFFFF).numpy() for each in tensors[1:]
    ]
    where, span = ends
    brackets = []
    for number, found in enumerate(patterns):
        low = int(found[len(found) // 2]) if where == "some" else 0
        brackets += [(number, low, 0x7F7FFFFF if where == "all" else low + span)] * 2
    for (number, low, high), got in zip(
        brackets, Workspace().engine.rank(Chunk(0, elements, tensors[0], tuple(tensors[1:])), brackets), strict=True
    ):
        each = patterns[number]
        assert (got.above, got.highest) == ((each > high).sum(), (each == high).sum())
        assert low == high or got.lowest == (each == low).sum()
        assert (got.between == each[(each > low) & (each < high)] - low - 1).all()
        assert len(got.between) == ((each > low) & (each < high)).sum()


@pytest.mark.parametrize("density", [0.0, 1e-9, 0.0001, 0.007, 0.3, 0.99999])
def test_masks_are_made_of_the_levels_that_the_loops_get(density):
    work = Workspace()
    mask = keep_mask(12345, start=8, size=4096, density=density, work=work).clone().bool()
    kept = torch.ones(4096, dtype=torch.bool)
    for key, limit in mask_levels(12345, density):
        kept &= keep_mask(key, start=8, size=4096, density=limit / 2**15, work=work).bool()
    assert torch.equal(mask, kept)


def test_double_precision_takes_the_way_of_torch():
    tensors = [tensor.double() for tensor in models(2, 3000, dtypes=[torch.float32] * 3, seed=5, coarse=False)]
    spec = spec_of("ties", 3000, [{"weight": 0.5, "density": 0.3}] * 2)
    found = [merged(spec, tensors, dtype=torch.float64, chunk=1024, fused=fused) for fused in (True, False)]
    assert torch.equal(*found)


@given(
    name=st.sampled_from(["linear", "slerp", "wise_ft"]), count=st.integers(1, 4), one=st.booleans(),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=5, max_size=5), out=st.sampled_from(DTYPES),
    elements=st.sampled_from([1, 31, 2047, 2048, 2081, 9000]), weights=st.lists(weight, min_size=4, max_size=4),
    normalize=st.booleans(), coarse=st.booleans(), t=st.sampled_from([0.2, 0.5, 0.8]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_weighted_sums_have_the_bits_of_torch(
    name, count, dtypes, one, out, elements, weights, normalize, coarse, t
):
    count = count if name == "linear" else 1
    dtypes = dtypes[:1] * 5 if one else dtypes
    shared = {"name": name, "normalize": normalize, "t": t, "alpha": t}
    experts = tuple({"weight": each} for each in weights[:count])
    spec = Spec("layers.0.weight", (elements,), shared, experts, tuple("abcd"[:count]))
    tensors = models(count, elements, dtypes=dtypes, seed=elements, coarse=coarse)
    fused, plain = both(spec, tensors, dtype=out)
    assert torch.equal(fused, plain)


def test_products_of_the_loops_are_those_of_torch_to_15_digits():
    one, other = models(1, 70_001, dtypes=[torch.bfloat16, torch.float32], seed=4, coarse=False)
    loaded, plain = Workspace(), Workspace(fused=False)
    loaded.engine.load_blends()
    found = [Products(work) for work in (loaded, plain)]
    for products in found:
        for start in range(0, len(one), 3001):
            products.add(one[start : start + 3001], other[start : start + 3001])
    exact = (one.double().norm().item(), other.double().norm().item(), (one.double() * other.double()).sum().item())
    for products in found:
        assert (*products.norms, products.dot) == pytest.approx(exact, rel=1e-13)


def test_methods_that_gain_little_do_not_load_the_compiler_for_little():
    code = (
        "import sys; from worker.methods import load_all, Spec, Workspace; methods = load_all();"
        "small, large = ([Spec('w', (size, 1000), {'t': 0.5}, ({'weight': 1.0},) * 2)] for size in (10**5, 10**6));"
        "compat = [Spec('w', (10**6, 1000), {'compat': 'mergekit'}, ({'weight': 1.0},) * 2)];"
        "[methods[name].prepare(Workspace(), small) for name in ('linear', 'slerp', 'karcher', 'wise_ft')];"
        "[methods[name].prepare(Workspace(), compat) for name in ('linear', 'slerp', 'ties', 'dare_ties')];"
        "print('numba' in sys.modules, 'llvmlite' in sys.modules);"
        "work = Workspace(); methods['slerp'].prepare(work, large); print(work.loaded is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


@pytest.mark.parametrize("damage", ["cut", "emptied", "foreign", "exchanged"])
def test_what_is_kept_and_torn_is_compiled_anew(tmp_path, damage):
    code = (
        "import torch; from worker.methods import Workspace; work = Workspace(); work.engine.load_blends();"
        "one = torch.ones(5000); out = torch.empty(5000);"
        "work.engine.blend([one, one * 3], [0.5, 0.5], out, lerp=True); print(out.sum().item())"
    )
    places = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **places}, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert run() == "10000.0\n"
    kept = sorted([*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")])
    before = {file: file.read_bytes() for file in kept}
    for file, data in before.items():
        other = next(each for name, each in before.items() if name != file and name.suffix == file.suffix)
        found = {"cut": data[: len(data) // 2], "emptied": b"", "foreign": b"text", "exchanged": other}
        file.write_bytes(found[damage])
    assert run() == "10000.0\n"
    assert run() == "10000.0\n"


def test_without_the_compiler_torch_does_it(tmp_path):
    """Where numba cannot be imported there is no engine, and everything goes on."""
    code = (
        "import sys; sys.modules['numba'] = None; from worker.methods import Workspace;"
        "print(Workspace().engine)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None"]


def test_where_fp16_takes_a_function_that_is_not_there_torch_does_it(tmp_path):
    """Compiled for a processor without F16C, the loops would abort the process."""
    code = (
        "import torch; from worker.methods import Workspace; from worker.spectra.gram import has_pairs;"
        "from worker.scores.passes import load; load(); print(Workspace().engine, has_pairs())"
    )
    outer = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=outer)
    assert done.stdout.split() == ["None", "False"]


@pytest.mark.parametrize(
    ("machine", "flags", "able"),
    [("x86_64", {"avx2"}, False), ("x86_64", {"avx", "f16c"}, False), ("x86_64", {"avx2", "f16c"}, True),
     ("aarch64", set(), True), ("riscv64", set(), False)],
)  # fmt: skip
def test_processors_that_convert_fp16(monkeypatch, machine, flags, able):
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processor, "features", lambda: frozenset(flags))
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    assert processor.converts_halves() is able


def test_another_version_of_the_sources_has_another_folder(tmp_path, monkeypatch):
    first = child._environment({}, threads=1, kernels=tmp_path)["NUMBA_CACHE_DIR"]
    assert first == child._environment({}, threads=1, kernels=tmp_path)["NUMBA_CACHE_DIR"]
    assert Path(first).parent == tmp_path
    sources = tmp_path / "methods" / "fused"
    sources.mkdir(parents=True)
    (sources / "loops.py").write_text("changed")
    monkeypatch.setattr(child, "__file__", str(tmp_path / "child.py"))
    assert child._environment({}, threads=1, kernels=tmp_path)["NUMBA_CACHE_DIR"] != first
    assert "NUMBA_CACHE_DIR" not in child._environment({}, threads=1)


def test_there_is_an_engine_on_the_cpu_unless_it_is_not_wanted():
    assert Workspace().engine is not None
    assert Workspace(fused=False).engine is None
    assert Workspace(device=torch.device("meta")).engine is None


def test_compiled_code_is_kept_where_it_is_told_to_be(tmp_path):
    code = (
        "import torch; from tests.unit.test_method_fused import *;"
        "t = models(1, 100, dtypes=[torch.float32] * 2, seed=1, coarse=False);"
        "merged(spec_of('task_arithmetic', 100, [{'weight': 1.0}]), t, dtype=torch.float32, chunk=100, fused=True)"
    )
    places = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **places}, check=True)
    assert list(tmp_path.rglob("*.nbi"))
