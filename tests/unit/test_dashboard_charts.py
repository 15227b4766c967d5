"""The charts as text: equal to what was looked at and kept, free of styles and scripts, and safe for any name.

After a change that is meant, write the kept pictures anew with `SPEAR_GOLDEN=write` and look at them.
"""

import math
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dashboard.charts import (
    METRICS,
    Strength,
    TradeOff,
    Trial,
    change_chart,
    gantt_chart,
    heatmap_chart,
    spectra_chart,
    strengths_chart,
    tradeoff_chart,
)
from app.dashboard.charts.gantt import duration
from app.dashboard.charts.scales import Scale
from app.dashboard.charts.svg import number
from app.dashboard.charts.tradeoff import dominated

GOLDEN = Path(__file__).parents[1] / "golden" / "charts"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CSS = Path(__file__).parents[2] / "app" / "dashboard" / "static" / "charts.css"


def make_report() -> dict[str, Any]:
    modules, layers = ["q", "v", "down"], [0, 1, 2, 3, 10]
    grid = [[0.1 + (7 * i + 3 * j) % 10 / 10 for j in range(5)] for i in range(3)]
    grid[1][2] = None
    wide = [[10.0 ** (i + j / 5 - 2) for j in range(5)] for i in range(3)]
    restored = [[1.0 if (i + j) % 4 == 0 else 0.0 for j in range(5)] for i in range(3)]
    restored[2][4] = 0.25
    metrics = dict.fromkeys(METRICS, grid) | {"snr": wide}
    edges = [0.001 * 1.5**i for i in range(9)]
    return {
        "heatmap": {"modules": modules, "layers": layers, "restored": restored, **metrics},
        "distribution": {"edges": edges, "kept": [1, 4, 9, 12, 7, 0, 2, 1], "restored": [0, 0, 3, 5, 6, 0, 1, 1],
                         "unchanged": 2, "endless": 0, "median": 0.0045},
    }  # fmt: skip


def make_spectrum(*, merged: bool = True) -> dict[str, Any]:
    base = [4.0, 2.5] + [2 * math.sqrt(1 - i / 40) for i in range(40)]
    adapted = [value * (1 + 0.02 * math.sin(i / 5)) for i, value in enumerate(base)]
    between = [(one + two) / 2 for one, two in zip(base, adapted, strict=True)]
    return {
        "ranks": list(range(1, 43)), "base": base, "adapted": adapted, "merged": between if merged else None,
        "edge": 2.1, "edge_adapted": 2.12, "count": 42, "shape": [42, 96], "precision": "exact",
    }  # fmt: skip


def make_stages() -> list[dict[str, Any]]:
    spans = [("resolving", 1, 0, 1.5), ("scoring", 1, 1.5, 80), ("scoring", 2, 120, 190), ("merging", 2, 190, None)]
    return [
        {"name": name, "attempt": attempt, "started_at": (START + timedelta(seconds=begin)).isoformat(),
         "ended_at": None if end is None else (START + timedelta(seconds=end)).isoformat()}
        for name, attempt, begin, end in spans
    ]  # fmt: skip


def make_trials() -> TradeOff:
    trials = (
        Trial(label="base", kind="base", retention=1.0, gain=0.0),
        Trial(label="adapted", kind="adapted", retention=0.82, gain=1.0),
        Trial(label="t = 0.3", kind="candidate", retention=0.96, gain=0.7),
        Trial(label="spear, 50 %", kind="chosen", retention=0.93, gain=0.9, retention_interval=(0.9, 0.955),
              gain_interval=(0.86, 0.94)),
        Trial(label="random tensors", kind="control", retention=0.88, gain=0.85),
    )  # fmt: skip
    return TradeOff(trials=trials, min_retention=0.9, min_gain=0.85)


STRENGTHS = {"attention.1/2": 0.36, "embedding": 0.0, "mlp.1/2": 1.0, "mlp.2/2": 1.4}
CHARTS = {
    "heatmap": lambda: heatmap_chart(make_report()),
    "heatmap-snr": lambda: heatmap_chart(make_report(), metric="snr", link=lambda kind, layer: f"?c={kind}&{layer}"),
    "spectra": lambda: spectra_chart(make_spectrum(), name="model.layers.0.self_attn.q_proj.weight"),
    "change": lambda: change_chart(make_report()),
    "gantt": lambda: gantt_chart(make_stages(), now=START + timedelta(seconds=201)),
    "tradeoff": lambda: tradeoff_chart(make_trials()),
    "strengths": lambda: strengths_chart([Strength(group=name, t=t, share=0.25) for name, t in STRENGTHS.items()]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_as_it_was_looked_at(name: str) -> None:
    drawn, kept = CHARTS[name]() + "\n", GOLDEN / f"{name}.svg"
    if os.environ.get("SPEAR_GOLDEN") == "write":
        kept.write_text(drawn)
    assert drawn == kept.read_text()


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_holds_under_a_strict_policy_and_every_class_has_its_colours(name: str) -> None:
    tree = ET.fromstring(CHARTS[name]())
    css = CSS.read_text()
    for node in tree.iter():
        assert not {"style", "id", "onclick", "onload", "fill", "stroke"} & node.attrib.keys()
        assert node.tag.rpartition("}")[2] not in {"script", "style", "foreignObject", "image", "use"}
        for class_ in node.attrib.get("class", "").split():
            assert class_ in {"ink", "candidate", "trial", "running"} or re.search(rf"\.{class_}\b", css), class_
    assert tree.attrib["role"] == ("group" if "href" in CHARTS[name]() else "img")
    assert tree[0].tag.endswith("title")
    assert tree[0].text == tree.attrib["aria-label"]


def test_colour_is_never_the_only_sign_of_a_restored_cell() -> None:
    tree = ET.fromstring(heatmap_chart(make_report()))
    cells = [node for node in tree.iter() if node.attrib.get("class") == "cell"]
    assert len(cells) == 15
    for cell in cells:
        restored = "as adapted" not in cell[0].text
        assert any("frame" in node.attrib.get("class", "") for node in cell) is restored
        assert any(node.attrib.get("class") == "dot" for node in cell) is restored
    assert "layer 10, down: score 0.7, 25% restored" in [cell[0].text for cell in cells]


def test_strengths_beyond_the_adapted_model_have_room_and_their_own_sign() -> None:
    tree = ET.fromstring(CHARTS["strengths"]())
    bars = [node for node in tree.iter() if node.attrib.get("class", "").startswith("bar")]
    assert [bar.attrib["class"] for bar in bars] == ["bar", "bar", "bar", "bar past"]
    ends = [(float(bar.attrib["x"]), float(bar.attrib["x"]) + float(bar.attrib["width"])) for bar in bars]
    assert ends[1][0] == pytest.approx(120)  # the base, at the left
    assert ends[3][0] == pytest.approx(ends[1][1])  # the adapted model
    assert ends[3][1] == pytest.approx(504)  # 1.4, at the right
    assert (ends[3][1] - ends[3][0]) / (ends[1][1] - ends[1][0]) == pytest.approx(0.4, abs=1e-3)


def test_nothing_to_draw_is_nothing() -> None:
    assert strengths_chart([]) == ""
    report = make_report()
    report["heatmap"]["layers"] = report["distribution"]["edges"] = []
    assert heatmap_chart(report) == change_chart(report) == gantt_chart([], now=START) == ""
    assert tradeoff_chart(TradeOff(trials=())) == ""


@given(st.text(max_size=40))
def test_names_from_outside_stay_text(name: str) -> None:
    spectrum = spectra_chart(make_spectrum(merged=False), name=name)
    trials = TradeOff(trials=[Trial(label=name, kind="chosen", retention=1, gain=1)])
    report = make_report()
    report["heatmap"]["modules"][0] = name
    heatmap = heatmap_chart(report, link=lambda module, layer: f"{module}{layer}")
    for svg in (spectrum, tradeoff_chart(trials), heatmap):
        tags = {node.tag.rpartition("}")[2] for node in ET.fromstring(svg).iter()}
        assert tags <= {"svg", "g", "a", "rect", "circle", "line", "path", "text", "title"}


@pytest.mark.parametrize("values", [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
def test_spectra_with_zeros_are_drawn(values: list[float]) -> None:
    spectrum = {**make_spectrum(merged=False), "ranks": [1, 2, 3], "base": values, "adapted": values, "count": 3}
    for edge in (0.0, None):
        assert "nan" not in spectra_chart({**spectrum, "edge": edge}, name="w")


def test_models_of_many_layers_keep_their_cells_apart() -> None:
    report = make_report()
    data = report["heatmap"]
    data["layers"] = list(range(80))
    for name in (*METRICS, "restored"):
        data[name] = [[0.5] * 80 for _ in data["modules"]]
    tree = ET.fromstring(heatmap_chart(report))
    labels = [node.text for node in tree.iter() if node.tag.endswith("text") and (node.text or "").isdigit()]
    assert labels[:3] == ["0", "5", "10"]
    assert float(tree.attrib["viewBox"].split()[2]) < 1000


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.25, "250 ms"), (12.34, "12.3 s"), (59.99, "60 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_lengths_of_time_read_well(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e4), st.booleans())
def test_ticks_lie_within_their_scale(low: float, ratio: float, log: bool) -> None:
    scale = Scale(low=low, high=low * ratio, start=0, stop=100, log=log)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 11
    assert all(low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6) for tick in ticks)
    assert [scale.at(tick) for tick in ticks] == sorted(scale.at(tick) for tick in ticks)


def test_the_chosen_setting_is_never_pale_even_where_a_control_beats_it() -> None:
    trials = (Trial(label="result", kind="chosen", retention=0.3, gain=0.8),
              Trial(label="uniform", kind="control", retention=0.6, gain=0.9),
              Trial(label="random", kind="control", retention=0.2, gain=0.7))  # fmt: skip
    drawn = tradeoff_chart(TradeOff(trials=trials))
    assert drawn.count('class="trial pale"') == 1
    assert re.search(r'class="trial"><title>result', drawn)


def test_only_what_another_trial_beats_is_dominated() -> None:
    trials = make_trials().trials
    assert [trial.label for trial in trials if dominated(trial, trials)] == ["random tensors"]


def test_numbers_are_short() -> None:
    assert [number(value) for value in (1.0, 0.126, -0.001, 100.0, -2.5)] == ["1", "0.13", "0", "100", "-2.5"]
