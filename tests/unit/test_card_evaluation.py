"""The card of a merge that was measured: figures the Hub can read, the trade-off's picture, licences that clash.

The Hub's own validator is a call to huggingface.co (`/api/validate-yaml`), which a test cannot make; what is used here
are the checks that its library makes itself: parsing a card strictly, and building the same metadata.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_eval_result
from hypothesis import given
from hypothesis import strategies as st
from test_report import make_parts, make_task

from worker.report import licence, markup
from worker.report.card import build_card
from worker.report.evaluation import statement
from worker.report.figures import TRADEOFF, draw
from worker.report.report import build_report
from worker.report.schema import Evaluation, Measured

CONFIG = {"architectures": ["LlamaForCausalLM"]}
RECIPE = {
    "evaluation": {
        "general": [{"task": "arc_easy"}],
        "domain": [
            {"name": "fin", "kind": "perplexity", "repo": "org/evalsets", "path": "fin.jsonl", "revision": "v2"}
        ],
        "gate": {"min_retention": 0.9, "on_fail": "warn"},
    }
}


def estimate(value: float | None, spread: float = 0.02) -> dict[str, float | None]:
    return {"value": value, "low": None if value is None else value - spread,
            "high": None if value is None else value + spread}  # fmt: skip


def task_result(name: str, role: str, kind: str, values: tuple[float, float, float], share: float) -> dict[str, Any]:
    base, adapted, merged = values
    return {
        "task": name, "role": role, "ability": None, "weight": 1.0, "kind": kind,
        "metric": "acc" if kind == "score" else "nll", "unit": "share" if kind == "score" else "nats per token",
        "items": 200, "base": estimate(base), "adapted": estimate(adapted), "adapted_repo": "org/adapted",
        "merged": estimate(merged), "share": estimate(share), "adapted_share": estimate(1.0),
        "flips_from_base": {"lost": 3, "won": 5} if kind == "score" else None, "flips_from_adapted": None,
    }  # fmt: skip


def point(kind: str, name: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "label": more.pop("label", name), "retention": estimate(x),
            "gain_kept": estimate(y), **more}  # fmt: skip


def evaluation() -> Evaluation:
    return Evaluation.model_validate({
        "tasks": [
            task_result("arc_easy", "general", "score", (0.6, 0.5, 0.57), 0.95),
            task_result("fin", "domain", "loss", (2.4, 0.9, 0.00001), 0.93),
        ],
        "retention": {"mean": estimate(0.95), "pooled": estimate(None)},
        "gain_kept": {"mean": estimate(0.93), "pooled": estimate(None)},
        "abilities": {},
        "gate": {"min_retention": 0.9, "min_gain_kept": None, "on_fail": "warn", "passed": True, "reasons": []},
        "points": [
            point("base", "base", 1.0, 0.0), point("adapted", "adapted", 0.83, 1.0),
            *(point("candidate", "spear", 0.85 + 0.02 * i, 0.98 - 0.05 * i) for i in range(4)),
            point("control", "uniform", 0.93, 0.9, label="uniform, t = 0.7", share=1.0),
            point("control", "random", 0.9, 0.9, label="random | tensors", seed=1, share=0.25),
            point("chosen", "spear", 0.95, 0.93, label="spear", share=0.25),
            point("candidate", "spear", 0.1, 0.1, on="calibration"),
        ],
    })  # fmt: skip


def report_of(folder: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    task = make_task(folder, recipe=RECIPE, **changes)
    return task, build_report(task, **make_parts(), evaluation=evaluation())


def test_the_hubs_library_reads_the_figures(tmp_path: Path) -> None:
    task, report = report_of(tmp_path)
    text = build_card(task, report=report, config=CONFIG, figures={})
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert [(one.dataset_name, one.dataset_type, one.metric_type) for one in data.eval_results] == [
        ("arc_easy", "arc_easy", "acc"), ("fin", "org/evalsets", "nll"),
    ]  # fmt: skip
    assert [one.metric_value for one in data.eval_results] == [0.57, 0.00001]
    assert {one.task_type for one in data.eval_results} == {"text-generation"}
    assert data.eval_results[1].dataset_revision == "v2"
    assert data.base_model == ["org/base", "org/adapted"]


def test_the_front_matter_is_what_the_library_would_have_made(tmp_path: Path) -> None:
    task, report = report_of(tmp_path)
    front = yaml.safe_load(build_card(task, report=report, config=CONFIG, figures={}).split("---\n")[1])
    results = [
        EvalResult(
            task_type="text-generation", task_name="general ability", dataset_type="arc_easy", dataset_name="arc_easy",
            metric_type="acc", metric_value=0.57, metric_name="acc (share)",
        ),
        EvalResult(
            task_type="text-generation", task_name="domain", dataset_type="org/evalsets", dataset_name="fin",
            dataset_revision="v2", metric_type="nll", metric_value=0.00001, metric_name="nll (nats per token)",
        ),
    ]  # fmt: skip
    made = ModelCardData(model_name="restored", eval_results=results).to_dict()["model-index"]
    assert front["model-index"] == made
    single = metadata_eval_result(
        model_pretty_name="restored", task_pretty_name="general ability", task_id="text-generation",
        metrics_pretty_name="acc (share)", metrics_id="acc", metrics_value=0.57, dataset_pretty_name="arc_easy",
        dataset_id="arc_easy",
    )["model-index"][0]["results"][0]  # fmt: skip
    ours = front["model-index"][0]["results"][0]
    assert {key: ours[key] for key in ("task", "dataset")} == {key: single[key] for key in ("task", "dataset")}
    assert ours["metrics"][0].items() <= single["metrics"][0].items()


def test_the_text_tells_the_figures_with_their_intervals_and_the_controls(tmp_path: Path) -> None:
    task, report = report_of(tmp_path)
    text = build_card(task, report=report, config=CONFIG, figures={})
    assert "| `arc_easy` | general | acc, share | 200 | 0.600 (0.580 to 0.620) | 0.500 (0.480 to 0.520) |" in text
    assert "retention 0.950 (0.930 to 0.970) | -3 +5 |" in text
    assert "**Mean retention 0.950 (0.930 to 0.970), mean gain kept 0.930 (0.910 to 0.950).**" in text
    assert "a retention of at least 0.9, and passed" in text
    assert "| **spear** | 0.950" in text
    assert "| random \\| tensors | 0.900" in text
    assert "No evaluation was run" not in text
    assert "can only be told by measuring both" not in text
    assert "spear reproduce org/restored" in text


def test_without_an_evaluation_there_is_no_index(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    report = build_report(task, **make_parts())
    text = build_card(task, report=report, config=CONFIG, figures={})
    assert "model-index" not in text
    assert "## Evaluation" not in text
    assert TRADEOFF not in draw(report, folder=tmp_path)


def test_the_trade_off_is_drawn_alike_in_every_process(tmp_path: Path) -> None:
    _, report = report_of(tmp_path)
    words = draw(report, folder=tmp_path / "one")
    assert next(iter(words)) == TRADEOFF
    assert "Retention against gain kept of 9 models; the chosen one has 0.95 and 0.93" in words[TRADEOFF]
    script = (
        "import json, sys; from pathlib import Path; from worker.report.figures import draw; "
        "draw(json.loads(Path(sys.argv[1]).read_text()), folder=Path(sys.argv[2]))"
    )
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    subprocess.run([sys.executable, "-c", script, str(file), str(tmp_path / "two")], check=True, timeout=120)
    for path in words:
        first, second = ((tmp_path / place / path).read_bytes() for place in ("one", "two"))
        assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest(), path


@pytest.mark.parametrize(
    ("licenses", "count", "said"),
    [
        (("apache-2.0", "mit"), 0, "licences differ"),
        (("gpl-3.0", "cc-by-nc-4.0"), 1, "gpl-3.0 asks for itself on whatever is made of it, and cc-by-nc-4.0 adds"),
        (("gpl-3.0", "cc-by-sa-4.0"), 1, "each ask for themselves"),
        (("cc-by-nc-nd-4.0", "cc-by-nc-nd-4.0"), 1, "a merge is one"),
        (("cc-by-nc-4.0", None), 0, "may not be used commercially"),
    ],
)
def test_licences_that_clash_are_told(
    tmp_path: Path, licenses: tuple[str | None, ...], count: int, said: str
) -> None:
    task = make_task(tmp_path, licenses=licenses)
    assert len(licence.conflicts(task.inputs)) == count
    statement = licence.statement(task.inputs)
    assert said in statement
    assert ("cannot all be honoured" in statement) is bool(count)


SCALARS = st.one_of(st.text(max_size=20), st.integers(-1000, 1000), st.booleans())
KEYS = st.text(alphabet="abc-_", min_size=1, max_size=6).filter(lambda key: key[0] != "-")
TREES = st.recursive(
    st.dictionaries(KEYS, SCALARS, min_size=1, max_size=3),
    lambda inner: st.dictionaries(KEYS, st.one_of(SCALARS, inner, st.lists(inner, min_size=1, max_size=2)), min_size=1,
                                  max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(TREES)
def test_any_tree_survives_yaml(tree: dict[str, Any]) -> None:
    assert yaml.safe_load(markup.yaml(tree)) == tree


def test_several_models_are_each_measured_by_their_own_name() -> None:
    whole = evaluation()
    other = whole.retention.model_copy(update={"mean": whole.retention.mean.model_copy(update={"value": 0.5})})
    one = {"revision": "main", "commit": "a" * 40, "tasks": (), "gain_kept": None}
    models = tuple(Measured.model_construct(repo=repo, retention=retention, **one)
                   for repo, retention in (("org/a", whole.retention), ("org/b", other), ("org/c", None)))  # fmt: skip
    said = statement(whole.model_copy(update={"models": models}))
    assert said.startswith("Measured: org/a retention ")
    assert "; org/b retention 0.500 (" in said
    assert "org/c" not in said
    assert statement(whole.model_copy(update={"models": models[:1]})).startswith("Measured: retention ")
