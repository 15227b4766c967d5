"""The stage `evaluating` on small real models: a merge, and models on their own."""

import json
from pathlib import Path

import pytest

from app.errors import Code, SpearError
from app.recipes import parse_measuring, parse_recipe
from tests.fixtures.models import SENTENCES, make_checkpoint
from worker.pipeline.run import run
from worker.pipeline.task import Input, Reporter, Source, Task

QUESTIONS = [{"question": "Revenue rose by", "choices": [" 12 %", " the dog"], "answer": 0}] * 3
FILES = {
    "prose.jsonl": [{"text": text * 3} for text in SENTENCES],
    "fin.jsonl": QUESTIONS,
    "exact.jsonl": [{"question": "A merge is", "answer": "a row"}] * 2,
}
EVALUATION = {
    "general": [{"name": "prose", "kind": "perplexity", "repo": "org/sets", "path": "prose.jsonl", "ability": "prose"}],
    "domain": [{"name": "fin", "kind": "multiple_choice", "repo": "org/sets", "path": "fin.jsonl"},
               {"name": "exact", "kind": "exact_match", "repo": "org/sets", "path": "exact.jsonl"}],
    "limit": 3, "controls": False,
}  # fmt: skip


class Heard(Reporter):
    """What the child says, kept."""

    def __init__(self):
        super().__init__(_Stream(self))
        self.said = []

    def _say(self, kind, **data):
        self.said.append({"kind": kind, **data})

    @property
    def stream(self):
        return _Stream(self)


class _Stream:
    def __init__(self, heard):
        self.heard = heard

    def write(self, line):
        self.heard.said.append(json.loads(line))

    def flush(self):
        pass


def as_input(path: Path, repo: str) -> Input:
    digests = {file.name: f"sha256:{abs(hash((file.name, file.read_bytes()))):064x}" for file in path.iterdir()}
    return Input(repo=repo, revision="main", commit="0" * 40, path=path, digests=digests)


@pytest.fixture
def sources(tmp_path) -> tuple[Source, ...]:
    folder = tmp_path / "sets"
    folder.mkdir()
    for name, items in FILES.items():
        (folder / name).write_text("\n".join(json.dumps(item) for item in items) + "\n")
    digests = {name: f"sha256:{name}" for name in FILES}
    whole = {"repo": "org/sets", "repo_type": "dataset", "revision": "main", "commit": "1" * 40}
    return (Source(**whole, path=folder, digests=digests),)


def merging(tmp_path, base, adapted, sources, **changes) -> Task:
    recipe = {
        "base": {"repo": "org/base"}, "experts": [{"repo": "org/adapted"}], "method": {"name": "linear"},
        "target": {"repo": "org/target"}, "evaluation": EVALUATION | changes,
    }  # fmt: skip
    return Task(
        job_id="mrg_x", attempt=1, recipe=parse_recipe(recipe), work_dir=tmp_path / "work", sources=sources,
        inputs=(as_input(base, "org/base"), as_input(adapted, "org/adapted")),
    )


def report_of(task: Task) -> dict:
    return json.loads((task.work_dir / "report.json").read_text())


def test_a_merge_is_measured_beside_its_parents(tmp_path, base_model, adapted_model, sources):
    task = merging(tmp_path, base_model, adapted_model, sources)
    task.output.mkdir(parents=True)
    heard = Heard()
    summary = run(task, heard)
    found = report_of(task)["evaluation"]
    assert [one["task"] for one in found["tasks"]] == ["prose", "fin", "exact"]
    assert [one["role"] for one in found["tasks"]] == ["general", "domain", "domain"]
    assert [point["kind"] for point in found["points"]] == ["base", "adapted", "chosen"]
    assert found["points"][2]["name"] == "linear"
    assert summary["metrics"]["retention"] == found["retention"]["mean"]["value"]
    sheets = json.loads((task.work_dir / "sheets.json").read_text())["tasks"]
    assert set(sheets["prose"]["models"]) == {"org/base", "org/adapted", "result"}
    assert len(sheets["fin"]["models"]["result"]["values"]) == 3
    stages = [one["name"] for one in heard.said if one["kind"] == "stage"]
    assert stages[0] == "preparing"
    assert stages[-1] == "evaluating"
    kept = [one["record"] for one in heard.said if one["kind"] == "sheet"]
    assert len(kept) == 9


def test_what_is_known_is_not_asked_again(tmp_path, base_model, adapted_model, sources):
    task = merging(tmp_path, base_model, adapted_model, sources)
    task.output.mkdir(parents=True)
    run(task, Heard())
    first = report_of(task)
    assert first["costs"]["items_asked"] == 3 * 8
    again = Heard()
    run(task, again)
    assert report_of(task)["costs"]["items_asked"] == 0
    assert report_of(task)["evaluation"] == first["evaluation"]
    assert not [one for one in again.said if one["kind"] == "sheet"]


@pytest.mark.parametrize(("on_fail", "blocked"), [("block", True), ("warn", False)])
def test_a_gate_that_is_not_passed(tmp_path, base_model, adapted_model, sources, on_fail, blocked):
    gate = {"min_retention": 5, "on_fail": on_fail}
    task = merging(tmp_path, base_model, adapted_model, sources, gate=gate)
    task.output.mkdir(parents=True)
    summary = run(task, Heard())
    report = report_of(task)
    assert report["evaluation"]["gate"]["passed"] is False
    assert "retention" in report["evaluation"]["gate"]["reasons"][0]
    assert bool(summary["blocked"]) is blocked
    assert summary["metrics"]["gate"] == "failed"
    assert any("gate" in warning for warning in report["warnings"]) is not blocked


def test_models_on_their_own(tmp_path, base_model, adapted_model, sources):
    whole = EVALUATION | {"gate": {"min_retention": 0}}
    recipe = {
        "models": [{"repo": "org/adapted"}, {"repo": "org/base"}], "base": {"repo": "org/base"},
        "experts": [{"repo": "org/adapted"}], "evaluation": whole,
    }  # fmt: skip
    base, adapted = as_input(base_model, "org/base"), as_input(adapted_model, "org/adapted")
    task = Task(
        job_id="evl_x", attempt=1, recipe=parse_measuring(recipe), work_dir=tmp_path / "work", sources=sources,
        inputs=(base, adapted, adapted, base),
    )
    task.work_dir.mkdir()
    summary = run(task, Heard())
    report = report_of(task)
    models = report["evaluation"]["models"]
    assert [one["repo"] for one in models] == ["org/adapted", "org/base"]
    assert models[0]["retention"]["mean"]["value"] == 0.0
    assert models[1]["retention"]["mean"]["value"] == 1.0
    assert [one["role"] for one in report["inputs"]] == ["base", "expert", "model", "model"]
    assert summary["metrics"]["gate"] in {"passed", "failed"}
    assert report["costs"]["items_asked"] == 2 * 8


def test_one_model_alone_has_values_and_no_shares(tmp_path, base_model, sources):
    recipe = {"models": [{"repo": "org/base"}], "evaluation": EVALUATION}
    task = Task(
        job_id="evl_x", attempt=1, recipe=parse_measuring(recipe), work_dir=tmp_path / "work", sources=sources,
        inputs=(as_input(base_model, "org/base"),),
    )
    task.work_dir.mkdir()
    run(task, Heard())
    found = report_of(task)["evaluation"]
    assert found["tasks"] == []
    assert found["models"][0]["retention"] is None
    assert [one["task"] for one in found["models"][0]["tasks"]] == ["prose", "fin", "exact"]
    assert found["models"][0]["tasks"][0]["value"]["low"] is not None


def test_a_tokenizer_without_beginning_and_end_is_refused_before_any_work(tmp_path, base_model, adapted_model, sources):
    bare = make_checkpoint(tmp_path / "bare", seed=1)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (bare / name).exists():
            said = json.loads((bare / name).read_text())
            said = {key: value for key, value in said.items() if key not in {"bos_token", "eos_token"}}
            (bare / name).write_text(json.dumps(said))
    task = merging(tmp_path, bare, adapted_model, sources)
    task.output.mkdir(parents=True)
    heard = Heard()
    with pytest.raises(SpearError) as caught:
        run(task, heard)
    assert caught.value.code == Code.TOKENIZER_UNSUITABLE
    assert [one["name"] for one in heard.said if one["kind"] == "stage"] == ["preparing"]


def test_weights_that_are_missing_are_never_made_up(tmp_path, base_model):
    from safetensors.torch import load_file, save_file

    from worker.evaluation.loading import load_model

    broken = make_checkpoint(tmp_path / "broken", seed=1, max_shard_size="1GB")
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpearError, match=r"model\.norm\.weight") as caught:
        load_model(broken, repo="org/broken", base=broken, device="cpu")
    assert caught.value.code == Code.MODEL_UNSUPPORTED


def test_an_unknown_architecture_is_told(tmp_path, base_model):
    from worker.evaluation.loading import load_model

    other = make_checkpoint(tmp_path / "other", seed=1)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "nobody", "architectures": ["Nobody"]}))
    with pytest.raises(SpearError, match="org/other") as caught:
        load_model(other, repo="org/other", base=other, device="cpu")
    assert caught.value.code == Code.MODEL_UNSUPPORTED


def test_an_adapter_is_loaded_over_its_base_with_the_very_weights_that_a_merge_reads(tmp_path, base_model):
    from tests.fixtures.adapters import make_adapter
    from worker.checkpoints.adapter import AdaptedCheckpoint
    from worker.evaluation.loading import load_model, load_tokenizer

    adapter = make_adapter(base_model, tmp_path / "adapter", seed=3)
    model = load_model(adapter, repo="org/adapter", base=base_model, device="cpu")
    loaded = dict(model.named_parameters())
    with AdaptedCheckpoint.apply(adapter, base=base_model) as checkpoint:
        for name in checkpoint.tensors:
            assert loaded[name].equal(checkpoint.read(name).float()), name
        assert checkpoint.changes
    assert load_tokenizer(adapter, repo="org/adapter", base=base_model).eos_token == "</s>"


def test_a_journal_whose_last_line_was_torn_is_read_and_written_on(tmp_path):
    from worker.evaluation.identity import Key
    from worker.evaluation.kept import Kept
    from worker.evaluation.sheets import Sheet

    journal, told = tmp_path / "journal", []
    sheet = Sheet(task="t", kind="score", metric="acc", items=("a" * 16,), values=(1.0,), weights=(1.0,))
    first, second = Key("m", "t1", "s"), Key("m", "t2", "s")
    Kept(journal=journal, tell=told.append).keep(first, sheet)
    journal.write_text(journal.read_text() + '{"model": "m", "ta')
    Kept(journal=journal, tell=told.append).keep(second, sheet)
    again = Kept(None, tmp_path / "none", journal=journal, tell=told.append)
    assert again.find(first) == again.find(second) == sheet
    assert again.find(Key("other", "t1", "s")) is None
    assert len(told) == 2


def test_a_worker_without_the_extra_merges_and_says_what_is_missing(tmp_path, base_model, adapted_model, sources):
    import subprocess
    import sys

    task = merging(tmp_path, base_model, adapted_model, sources)
    (tmp_path / "task.json").write_text(task.model_dump_json())
    code = (
        "import sys\n"
        "for name in ('lm_eval', 'transformers', 'datasets', 'sklearn', 'pyarrow'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from worker.pipeline.run import run\n"  # all that a merge needs
        "from worker.pipeline.task import Reporter, Task\n"
        "from app.errors import SpearError\n"
        f"task = Task.model_validate_json(Path({str(tmp_path / 'task.json')!r}).read_bytes())\n"
        "try:\n"
        "    run(task, Reporter(sys.stderr.buffer))\n"
        "except SpearError as error:\n"
        "    print(error.code, error.names['extra'], error.names['module'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["evaluation_missing", "eval", "lm_eval"]
