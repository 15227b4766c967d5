"""`policy: auto` and the controls, as stages of a merge of small real models that were trained a little."""

import json

import pytest
import torch

from app.errors import Code, SpearError
from app.recipes import parse_recipe
from tests.fixtures.models import SENTENCES, make_checkpoint
from tests.unit.test_evaluation_stage import Heard, as_input, report_of
from worker.pipeline.run import run
from worker.pipeline.task import Source, Task

GENERAL = [{"text": sentence} for sentence in SENTENCES[:2] * 6]
DOMAIN = [{"text": sentence} for sentence in SENTENCES[2:] * 6]
FILES = {"general.jsonl": GENERAL, "domain.jsonl": DOMAIN, "general_cal.jsonl": GENERAL, "domain_cal.jsonl": DOMAIN,
         "choice_cal.jsonl": [{"question": "The quick", "choices": [" brown", " row"], "answer": 0}] * 6}  # fmt: skip


def file(name, kind="perplexity"):
    return {"name": name, "kind": kind, "repo": "org/sets", "path": f"{name}.jsonl"}


EVALUATION = {
    "general": [file("general")], "domain": [file("domain")],
    "calibration": {"general": [file("general_cal")], "domain": [file("domain_cal")]},
}  # fmt: skip
AUTO = {"name": "spear", "policy": "auto", "auto": {"budget": 20, "least": 0.8}}


def trained(path, *, start, texts, steps):
    """The checkpoint after a few steps on some sentences."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = [torch.tensor([tokenizer(one["text"])["input_ids"]]) for one in texts[:2]]
    for step in range(steps):
        ids = batches[step % 2]
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base that knows two sentences, and its child that learned two others and forgot."""
    folder = tmp_path_factory.mktemp("pair")
    start = make_checkpoint(folder / "start", seed=3, dtype=torch.float32, hidden=32)
    base = trained(folder / "base", start=start, texts=GENERAL, steps=40)
    return base, trained(folder / "adapted", start=base, texts=DOMAIN, steps=30)


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    for name, items in FILES.items():
        (folder / name).write_text("\n".join(json.dumps(item) for item in items) + "\n")
    digests = {name: f"sha256:{name}" for name in FILES}
    whole = {"repo": "org/sets", "repo_type": "dataset", "revision": "main", "commit": "1" * 40}
    return (Source(**whole, path=folder, digests=digests),)


def merging(tmp_path, pair, sources, *, method=AUTO, **changes):
    recipe = {
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "method": method,
        "target": {"repo": "org/target"}, "evaluation": EVALUATION | changes,
    }  # fmt: skip
    inputs = tuple(as_input(path, repo) for path, repo in zip(pair, ("org/base", "org/adapted"), strict=True))
    task = Task(job_id="mrg_x", attempt=1, recipe=parse_recipe(recipe), work_dir=tmp_path / "work", sources=sources,
                inputs=inputs)  # fmt: skip
    task.output.mkdir(parents=True)
    return task


def test_a_searched_merge_writes_the_strengths_that_it_found(tmp_path, pair, sources):
    from safetensors.torch import load_file

    task = merging(tmp_path, pair, sources, controls=False)
    heard = Heard()
    run(task, heard)
    stages = [one["name"] for one in heard.said if one["kind"] == "stage"]
    assert stages.index("selecting") < stages.index("searching") < stages.index("merging")
    manifest = json.loads((task.output / "merge_manifest.json").read_text())
    strengths = {each["name"]: each["t"] for each in manifest["decisions"] if "t" in each}
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= set(strengths)
    found = report_of(task)["evaluation"]
    assert found["search"]["method"] == "gradient"
    assert found["search"]["spent"] <= 20
    assert 0 < found["search"]["groups"]["embedding"]["share"] < 1
    assert {point["on"] for point in found["points"]} == {"calibration", "held_out"}
    base, adapted = (load_file(next(path.glob("*.safetensors"))) for path in pair)
    name = "model.layers.0.input_layernorm.weight"
    merged = {k: v for file in task.output.glob("*.safetensors") for k, v in load_file(file).items()}
    low, high = (torch.minimum(base[name], adapted[name]), torch.maximum(base[name], adapted[name]))
    assert ((merged[name] >= low - 0.02) & (merged[name] <= high + 0.02)).all()
    gain = found["gain_kept"]["mean"]["value"]
    assert gain >= 0.7  # 80 % was asked for on calibration items that are the same sentences


def test_a_search_that_was_killed_goes_on_to_the_same_choice(tmp_path, pair, sources):
    task = merging(tmp_path, pair, sources, controls=False)
    run(task, Heard())
    first = json.loads((task.output / "merge_manifest.json").read_text())["decisions"]
    journal = task.work_dir / "search.journal"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[: len(lines) // 2]) + '\n{"key": "torn')
    run(task, Heard())
    assert json.loads((task.output / "merge_manifest.json").read_text())["decisions"] == first


def test_groups_are_searched_where_a_task_has_no_slope(tmp_path, pair, sources):
    general = [file("general_cal"), file("choice_cal", "multiple_choice")]
    calibration = {"general": general, "domain": [file("domain_cal")]}
    task = merging(tmp_path, pair, sources, controls=False, calibration=calibration)
    run(task, Heard())
    assert report_of(task)["evaluation"]["search"]["method"] == "groups"
    asked = AUTO | {"auto": {"budget": 20, "method": "gradient"}}
    other = merging(tmp_path / "other", pair, sources, method=asked, calibration=calibration)
    with pytest.raises(SpearError, match="perplexity") as caught:
        run(other, Heard())
    assert caught.value.code == Code.TASK_UNSUPPORTED


def test_a_preset_is_shown_beside_its_controls(tmp_path, pair, sources):
    task = merging(tmp_path, pair, sources, method={"name": "spear", "policy": "aggressive"}, calibration=None)
    run(task, Heard())
    found = report_of(task)["evaluation"]
    controls = [point for point in found["points"] if point["kind"] == "control"]
    assert {point["name"] for point in controls} == {
        "uniform", "random", "random_embedding", "relative_change", "dg_hard"
    }
    assert len({point["seed"] for point in controls if point["name"] == "random"}) == 3
    chosen = report_of(task)["selection"]["shares"]["share"]
    for point in controls:
        if point["name"] == "random":
            assert point["share"] == pytest.approx(chosen, abs=0.1)
    assert {one["kind"] for one in found["diagnosis"]} <= {"over_restored", "under_restored", "control_as_good"}
    assert found["prediction"]["tensors"] >= 5
    again = Heard()
    run(task, again)
    assert report_of(task)["evaluation"]["points"] == found["points"]
    assert not [one for one in again.said if one["kind"] == "sheet"]  # every point was known


def test_where_there_is_no_gain_to_keep_the_diagnosis_says_so(tmp_path, pair, sources):
    method = {"name": "spear", "policy": "aggressive"}
    task = merging(tmp_path, pair, sources, method=method, calibration=None, domain=[])
    run(task, Heard())
    found = report_of(task)["evaluation"]
    (said,) = found["diagnosis"]
    assert (said["kind"], said["setting"].partition(":")[0]) == ("not_judged", "evaluation.domain")
    assert "nothing was gained" in said["message"]
    assert "forgotten" not in said["message"]
    assert found["prediction"] is None
    assert {point["name"] for point in found["points"]} >= {"uniform", "random", "dg_hard"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluation": None}, "calibration"),
        ({"evaluation": EVALUATION | {"calibration": None}}, "calibration"),
        ({"evaluation": EVALUATION | {"calibration": {"domain": [file("domain_cal")]}}}, "general and with domain"),
        ({"evaluation": EVALUATION | {"calibration": {"general": [file("general") | {"name": "other"}],
                                                      "domain": [file("domain_cal")]}}}, "keep them apart"),
        ({"method": AUTO | {"fraction": 0.5}}, "only one of"),
        ({"method": {"name": "spear", "auto": {"budget": 20}}}, "policy is another one"),
        ({"method": AUTO | {"freeze": ["*norm*"]}}, "leave out freeze"),
    ],
)  # fmt: skip
def test_what_a_search_cannot_work_with_is_refused(change, said):
    recipe = {
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "method": AUTO,
        "target": {"repo": "org/target"}, "evaluation": EVALUATION,
    } | change  # fmt: skip
    with pytest.raises(SpearError, match=said):
        parse_recipe(recipe)
