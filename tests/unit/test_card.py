"""The model card: readable by the Hub's own parser, whatever its parents are called."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from test_report import make_parts, make_task

from worker.pipeline.task import Task
from worker.report import licence, markup
from worker.report.card import build_card
from worker.report.report import build_report

CONFIG = {"architectures": ["LlamaForCausalLM"]}


def card_of(task: Task, **changes: Any) -> str:
    report = build_report(task, **{**make_parts(), **changes})
    return build_card(task, report=report, config=CONFIG, figures={"figures/scores.png": "Heatmap [of] scores"})


def test_the_hub_reads_the_front_matter(tmp_path: Path) -> None:
    data = ModelCard(card_of(make_task(tmp_path)), ignore_metadata_errors=False).data.to_dict()
    assert data["base_model"] == ["org/base", "org/adapted"]
    assert data["base_model_relation"] == "merge"
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert {"merge", "spear-mm"} <= set(data["tags"])


def test_the_text_tells_what_was_restored_from_which_commits(tmp_path: Path) -> None:
    text = card_of(make_task(tmp_path))
    assert "| `k` | 2 of 4 | 128 | 50.0% |" in text
    assert "| **all scored** | 14 of 28 |" in text
    assert "t = 0.5, 50% of the way back to the base" in text
    assert f"[org/adapted](/org/adapted/tree/{'b' * 40}) | `v1` | `{'b' * 40}` | apache-2.0 |" in text
    assert "![Heatmap \\[of\\] scores](figures/scores.png)" in text
    assert "No evaluation was run" in text
    assert "10 of 14 restored tensors SLERP fell back to LERP" in text
    assert "embedding 25.0%" in text


def test_a_searched_merge_does_not_claim_one_strength(tmp_path: Path) -> None:
    sides = {side: [{"name": side, "kind": "perplexity", "repo": "org/sets", "path": f"{side}.jsonl"}]
             for side in ("general", "domain")}  # fmt: skip
    other = {side: [{**tasks[0], "name": f"{side}_cal", "path": f"{side}_cal.jsonl"}] for side, tasks in sides.items()}
    task = make_task(tmp_path, method={"name": "spear", "policy": "auto"},
                     recipe={"evaluation": {**sides, "calibration": other}})  # fmt: skip
    text = card_of(task)
    assert "Strength: each weight by a strength of its own, which policy auto found" in text
    assert "of the way back" not in text


def test_the_recipe_in_the_card_is_the_jobs(tmp_path: Path) -> None:
    task = make_task(tmp_path, recipe={"labels": {"note": "```\n# not a heading\n<script>"}})
    text = card_of(task)
    fence = "````json\n"
    block = text.split(fence)[1].split("\n````")[0]
    assert json.loads(block) == task.recipe.model_dump(mode="json")


@pytest.mark.parametrize(
    ("licenses", "expected", "said"),
    [
        (("mit", "mit"), {"license": "mit"}, "Carried over from the parents: mit."),
        (("mit", None), {"license": "mit"}, "`org/adapted` states no licence"),
        ((None, None), {}, "None of the parents states a licence"),
        (("mit", "llama3.1"), {"license": "other", "license_name": "parents-differ"}, "licences differ"),
        (("My *own*: one\n", None), {"license": "other", "license_name": "my-own-one"}, r"my \*own\*: one"),
        (("***", None), {"license": "other", "license_name": "see-parents"}, r"\*\*\*"),
    ],
)
def test_licences_are_carried_over_or_their_conflict_is_told(
    tmp_path: Path, licenses: tuple[str | None, ...], expected: dict[str, str], said: str
) -> None:
    task = make_task(tmp_path, licenses=licenses)
    assert licence.fields(task.inputs) == expected
    text = card_of(task)
    assert said in text
    assert {k: v for k, v in ModelCard(text).data.to_dict().items() if k.startswith("license")} == expected


def test_warnings_cannot_write_markup(tmp_path: Path) -> None:
    text = card_of(make_task(tmp_path), warnings=["<img src=x> [a](http://b) | `c`\n# d"])
    assert r"- Warning: \<img src=x\> \[a\](http\://b) \| \`c\` # d" in text


@given(st.text(max_size=60))
def test_any_string_survives_yaml(value: str) -> None:
    front = markup.yaml({"license": value, "tags": [value, "merge"]})
    assert yaml.safe_load(front) == {"license": value, "tags": [value, "merge"]}


@given(st.text(max_size=60))
def test_any_string_stays_in_its_table_cell(value: str) -> None:
    table = markup.table(("a", "b"), [(markup.text(value), markup.code(value))])
    row = table.split("\n", 2)[2]
    assert "\n" not in row
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 3
