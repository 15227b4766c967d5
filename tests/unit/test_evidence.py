"""The evidence's comparison, end to end on a pair that is trained here in seconds, and its tables."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.evidence.judge import along, judge, smooth
from benchmarks.evidence.kits import Kit
from benchmarks.evidence.measure import SEARCH, measure
from benchmarks.evidence.plan import ASKED, BLOCK, PairName
from benchmarks.evidence.tables import tables
from benchmarks.evidence.train import COSTS
from tests.fixtures.models import make_checkpoint

COUNT = {"train": 240, "calibration": 18, "held_out": 16}
CHAINS = {"general": 1, "domain": 2, "prose": 1, "code": 1}


class Name(PairName):
    """A pair somewhere else."""

    home: Path

    @property
    def base(self) -> Path:
        return self.home / "base"

    @property
    def adapted(self) -> Path:
        return self.home / "adapted"

    @property
    def measured(self) -> Path:
        return self.home / f"{self.seed}.json"


def text(kind: str, *, part: str) -> torch.Tensor:
    """Blocks of a language in which each token is followed by one of three; other blocks by kind and part."""
    follow = torch.randint(10, 90, (320, 3), generator=torch.Generator().manual_seed(CHAINS[kind]))
    draw = torch.Generator().manual_seed(10 * list(CHAINS).index(kind) + list(COUNT).index(part))
    found = torch.randint(10, 90, (COUNT[part], BLOCK), generator=draw)
    for i in range(1, BLOCK):
        found[:, i] = follow[found[:, i - 1], torch.randint(3, (COUNT[part],), generator=draw)]
    return found


def train(start: Path, folder: Path, *, kind: str, steps: int, rate: float) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for batch in text(kind, part="train").split(8)[:steps]:
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    (folder / COSTS).write_text(json.dumps({"core_seconds": 1.0}))


def kit(roles: tuple[str, ...]) -> Kit:
    def prepare(pair: PairName) -> None:
        if not pair.adapted.exists():
            start = make_checkpoint(pair.base.parent / "start", seed=1, dtype=torch.float32, hidden=32)
            train(start, pair.base, kind="general", steps=30, rate=1e-2)
            train(pair.base, pair.adapted, kind="domain", steps=15, rate=5e-3)

    return Kit(
        prepare=prepare, texts=lambda _, part: {role: text(role, part=part) for role in roles}, dtype=torch.float32
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Name:
    pair = Name("llama", "math", 1)
    object.__setattr__(pair, "home", tmp_path_factory.mktemp("evidence"))
    return pair


@pytest.fixture(scope="module")
def compared(small) -> dict:
    return judge(measure(small, kit(("general", "domain"))))


def test_every_method_is_measured_on_a_pair_that_forgot(compared):
    (before, after), (untaught, taught) = compared["losses"]["general"], compared["losses"]["domain"]
    assert after > before + 0.1
    assert taught < untaught - 0.3
    single = {f"only {name}" for name in ("snr", "swci", "svdr", "snr + swci", "snr + svdr")}
    drawn = {f"{name} {seed}" for name in ("random", "random_embedding") for seed in (1, 2, 3)}
    presets = {f"spear {name}" for name in ("conservative", "balanced", "aggressive")}
    assert set(compared["asked"]) == {"uniform", "dg_hard", "relative_change"} | presets | single | drawn


def test_the_search_is_nowhere_worse_than_the_uniform_curve_beyond_its_interval(compared):
    assert compared["spent"] <= SEARCH["budget"]
    for least in ASKED:
        found = compared["auto"][str(least)]
        assert found["advantage"]["high"] >= -1e-4  # a uniform point may be kept, and read off its curve
        assert found["gain"]["value"] == pytest.approx(least, abs=0.05)


def test_what_is_known_is_not_made_again(small, compared):
    assert compared["spent"]
    assert measure(small, kit(())) == json.loads(small.measured.read_text())


def test_a_curve_is_as_bent_between_points_as_at_them():
    ts = [0.0, 0.3, 0.6, 0.8, 1.0]
    gains = np.linspace(0.2, 0.95, 7)
    samples = np.array([[1 - t**2, 1 - (1 - t) ** 2] for t in ts])[:, :, None]
    undone = 1 - (1 - np.sqrt(1 - gains)) ** 2
    found = [along(smooth(ts, samples), np.array([gain])).item() for gain in gains]
    assert found == pytest.approx(undone.tolist(), abs=3e-4)
    assert along(samples, np.array([0.6]))[0] < 1 - (1 - np.sqrt(0.4)) ** 2 - 0.005  # straight lines lie below


def test_the_tables_tell_every_pair_each_score_and_the_real_model_by_itself(small, compared):
    other = Name("llama", "math", 2)
    object.__setattr__(other, "home", small.home)
    real = judge(measure(other, kit(("prose", "code", "domain"))))
    page = "\n".join(tables([compared], real=real))
    for title in ("The pairs", "Three architectures", "Ablation", "All methods: llama, math", "A real model"):
        assert f"### {title}" in page
    ablation = page.partition("### Ablation")[2].partition("###")[0]
    rows = {line.split("|")[1].strip() for line in ablation.splitlines() if line.startswith("|")}
    assert {"snr", "swci", "svdr", "snr + swci", "snr + svdr"} <= rows
    own = page.partition("### A real model")[2].partition("###")[0]
    assert "prose: over uniform" in own
    assert "code: over uniform" in own
    assert own.count("| 0.9") == 3  # 0.9, 0.95 and 0.97
