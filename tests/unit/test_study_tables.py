"""Studies: the recipe's cells, and every figure against plain numpy written without the service's modules."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from app.errors import SpearError
from app.recipes.study import parse_study
from worker.evaluation.sheets import Sheet
from worker.evaluation.studies.gains import About
from worker.evaluation.studies.report import build
from worker.evaluation.studies.results import Measured, Results
from worker.evaluation.studies.similarity import Gram, spearman

EXPERTS = ["org/finance", "org/math", "org/ja"]
BODY = {
    "base": {"repo": "org/base"},
    "experts": [{"repo": repo, "domain": repo.split("/")[1]} for repo in EXPERTS],
    "methods": [
        {"method": {"name": "task_arithmetic"}, "grid": {"lambda": [0.2, 0.6]}},
        {"method": {"name": "dare_ties"}, "grid": {"lambda": [0.5, 1.0], "density": [0.5], "seed": [0, 1]}},
    ],
    "evaluation": {
        "general": [{"task": "hellaswag"}],
        "domain": [
            {"name": name, "kind": "multiple_choice", "repo": repo, "path": f"{name}.jsonl", "ability": ability}
            for name, repo, ability in [
                ("fin1", "org/sets", "finance"), ("fin2", "org/sets", "finance"), ("gsm", "org/gsm", "math"),
            ]
        ] + [{"name": "text", "kind": "perplexity", "repo": "org/ja", "path": "t.jsonl", "ability": "ja"}],
        "calibration": {"domain": [{"name": "cal", "kind": "multiple_choice", "repo": "org/cal", "path": "c.jsonl"}]},
        "seed": 7,
    },
}  # fmt: skip
TASKS = (
    About("hellaswag", "general", "general", "Rowan/hellaswag", "score"),
    About("fin1", "domain", "finance", "org/sets", "score"), About("fin2", "domain", "finance", "org/sets", "score"),
    About("gsm", "domain", "math", "org/gsm", "score"), About("text", "domain", "ja", "org/ja", "loss"),
)  # fmt: skip
CALIBRATION = (About("cal", "domain", "finance", "org/cal", "score"),)


def sheet(task: About, random) -> Sheet:
    items = tuple(f"{task.task}{i}" for i in range(40))
    if task.kind == "loss":
        weights = random.integers(5, 40, size=40)
        values = weights * random.normal(3, 0.5, size=40)
        weights = np.arange(40) + 5  # the tokens of an item are the same for every model
        return Sheet(
            task=task.task, kind="loss", metric="nll", items=items, values=tuple(values), weights=tuple(weights)
        )
    values = (random.random(40) < random.uniform(0.3, 0.7)).astype(float)
    return Sheet(task=task.task, kind="score", metric="acc", items=items, values=tuple(values), weights=(1.0,) * 40)


def measured(study, tasks, seed) -> Measured:
    random = np.random.default_rng(seed)
    models = {i: {task.task: sheet(task, random) for task in tasks} for i in range(4)}
    cells = {cell.key: {task.task: sheet(task, random) for task in tasks} for cell in study.cells()}
    return Measured(tasks=tasks, models=models, cells=cells)


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(3)
    return [random.normal(size=500).astype(np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def results():
    study = parse_study(BODY)
    return Results(study=study, held_out=measured(study, TASKS, 1), calibration=measured(study, CALIBRATION, 2))


@pytest.fixture(scope="module")
def report(results, vectors):
    gram = Gram(3)
    for part in np.split(np.arange(500), [200]):  # in two tensors
        base, *experts = (torch.from_numpy(vector[part]) for vector in vectors)
        gram.add(base, experts)
    found = build(
        results, gram, job_id="std_x", commits=["a" * 40] * 4, settings={}, warnings=(), engine={}, costs={}
    )
    return found.model_dump(mode="json")


def values(measured, number_or_key, task):
    """Score of one model on one task, and its items: numpy, from the raw sheets."""
    models = measured.models if isinstance(number_or_key, int) else measured.cells
    one = models[number_or_key][task]
    items, weights = np.array(one.values), np.array(one.weights)
    total = items.sum() / weights.sum()
    return (total if one.kind == "score" else -total), items


def test_the_cells_are_every_stage_method_and_grid_point():
    study = parse_study(BODY)
    cells = study.cells()
    assert len(cells) == (3 + 3 + 1) * (2 + 4)
    assert len({cell.key for cell in cells}) == len(cells)
    assert cells[0].key == "1:0:task_arithmetic:lambda=0.2"
    assert cells[0].constituents == (0, 1)
    pair = next(cell for cell in cells if cell.stage == 2 and cell.experts == (0, 2))
    assert pair.constituents == (1, 3)
    last = cells[-1]
    recipe = study.recipe(last)
    assert [expert.repo for expert in recipe.experts] == EXPERTS
    assert recipe.method.model_dump(mode="json")["lambda"] == 1.0
    assert (recipe.method.seed, recipe.method.density) == (1, 0.5)


def test_cells_of_long_seeds_are_told_apart():
    grid = {"lambda": [0.5, 0.5000001], "seed": [4000000001, 4000000002]}
    study = parse_study(BODY | {"methods": [{"method": {"name": "dare_ties"}, "grid": grid}]})
    cells = study.cells()
    assert len({cell.key for cell in cells}) == len(cells) == (3 + 3 + 1) * 4
    assert cells[0].key == "1:0:dare_ties:lambda=0.5,seed=4000000001"


def test_the_finance_group_is_its_eighteen_tasks():
    evaluation = {**BODY["evaluation"], "domain": [{"task": "spear_finance", "ability": "finance", "weight": 2.0}]}
    experts = [{"repo": repo, "domain": "finance"} for repo in EXPERTS]
    study = parse_study({**BODY, "evaluation": evaluation, "experts": experts})
    assert len(study.evaluation.domain) == 18
    assert {task.ability for task in study.evaluation.domain} == {"finance"}
    assert parse_study(study.model_dump(mode="json")) == study
    groups = {**BODY["evaluation"], "general": [{"task": "mmlu"}]}
    assert [task.label for task in parse_study({**BODY, "evaluation": groups}).evaluation.general] == ["mmlu"]


@pytest.mark.parametrize(("change", "word"), [
    ({"experts": BODY["experts"][:1]}, "at least 2"),
    ({"experts": [*BODY["experts"], BODY["experts"][0]]}, "twice"),
    ({"methods": [{"method": {"name": "spear"}}]}, "spear"),
    ({"methods": [{"method": {"name": "ties"}, "grid": {"colour": [1]}}]}, "no such parameter"),
    ({"methods": [{"method": {"name": "ties"}, "grid": {"density": [0.5, 1.5]}}]}, "must lie between"),
    ({"methods": [{"method": {"name": "ties"}, "grid": {"density": [0.5, 0.5]}}]}, "twice"),
    ({"methods": [BODY["methods"][0], BODY["methods"][0]]}, "label"),
    ({"methods": [{"method": {"name": "wise_ft"}}], "stages": [3]}, "no method takes"),
    ({"evaluation": {**BODY["evaluation"], "calibration": None}}, "calibration is needed"),
    ({"evaluation": {**BODY["evaluation"], "gate": {"min_retention": 0.5}}}, "no gate"),
    ({"experts": [{**BODY["experts"][0], "domain": "law"}, *BODY["experts"][1:]]}, "ability law"),
    ({"gain_reference": "org/other"}, "is not an expert"),
    ({"publish": [{"experts": ["org/x"], "method": "ties", "target": {"repo": "org/t"}}]}, "names no merge"),
    ({"methods": [{"method": {"name": "ties"}, "grid": {
        "lambda": [i / 100 for i in range(100)], "density": [i / 100 for i in range(1, 100)],
    }}]}, "at most"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(change, word):
    with pytest.raises(SpearError, match=word):
        parse_study({**BODY, **change})


def test_gain_and_og_of_every_cell_are_plain_differences(results, report):
    held = results.held_out
    by_key = {row["key"]: row for row in report["cells"]}
    for cell in results.study.cells():
        row = by_key[cell.key]
        numbers = [i + 1 for i in cell.experts] + ([0] if cell.stage == 1 else [])
        gains, ogs = {}, {}
        for task in TASKS:
            merged, _ = values(held, cell.key, task.task)
            parents = [values(held, number, task.task)[0] for number in numbers]
            gains[task.task], ogs[task.task] = merged - np.mean(parents), merged - np.max(parents)
        assert row["gain"] == pytest.approx(gains)
        assert row["og"] == pytest.approx(ogs)
        scores = ["hellaswag", "fin1", "fin2", "gsm"]
        assert row["macro_gain"]["score"] == pytest.approx(np.mean([gains[t] for t in scores]))
        assert row["macro_og"]["loss"] == pytest.approx(ogs["text"])
        sets = [gains["hellaswag"], (gains["fin1"] + gains["fin2"]) / 2, gains["gsm"]]
        assert row["macro_gain_datasets"]["score"] == pytest.approx(np.mean(sets))


def test_emergence_and_loss_are_counted_item_by_item(results, report):
    held = results.held_out
    for row in report["outcomes"]:
        cell = next(cell for cell in results.study.cells() if cell.key == row["key"])
        numbers = [i + 1 for i in cell.experts] + ([0] if cell.stage == 1 else [])
        emerged = lost = 0
        for task in ("hellaswag", "fin1", "fin2", "gsm"):
            merged = values(held, cell.key, task)[1] == 1
            any_right = np.array([values(held, number, task)[1] == 1 for number in numbers]).any(0)
            emerged += int((merged & ~any_right).sum())
            lost += int((~merged & any_right).sum())
        assert (row["emerged"], row["lost"], row["items"]) == (emerged, lost, 160)
        bits = report["answers"]["gsm"][row["key"]]
        assert [int(bit) for bit in bits] == [int(v) for v in values(held, cell.key, "gsm")[1]]


def test_settings_are_chosen_on_calibration_over_seeds_and_told_on_held_out(results, report):
    cells = results.study.cells()
    for row in report["outcomes"]:
        cell = next(cell for cell in cells if cell.key == row["key"])
        siblings = [one for one in cells if one.place == cell.place]
        merit: dict = {}
        for one in siblings:
            merit.setdefault(dict(one.settings)["lambda"], []).append(values(results.calibration, one.key, "cal")[0])
        best = max(merit, key=lambda value: np.mean(merit[value]))
        assert row["settings"]["lambda"] == best
        assert row["chosen_on"] == "calibration"
        assert row["settings"].get("seed", 0) == 0
        by_key = {one["key"]: one["macro_gain"]["score"] for one in report["cells"]}
        told = [by_key[one.key] for one in siblings]
        assert row["sensitivity"]["best"] == pytest.approx(max(told))
        assert row["sensitivity"]["deviation"] == pytest.approx(np.std(told))
        if cell.method == "dare_ties":
            same = [by_key[one.key] for one in siblings if dict(one.settings)["lambda"] == best]
            assert row["seeds"] == pytest.approx({"seeds": 2, "mean": np.mean(same), "deviation": np.std(same)})
        assert row["macro"]["score"]["gain"]["value"] == pytest.approx(by_key[row["key"]])
        interval = row["macro"]["score"]["gain"]
        assert interval["low"] < interval["value"] < interval["high"]


def test_shares_are_of_each_experts_own_gain(results, report):
    held = results.held_out
    for row in report["outcomes"]:
        for share in row["shares"]:
            number = EXPERTS.index(share["expert"]) + 1
            tasks = {"finance": ["fin1", "fin2"], "math": ["gsm"], "ja": ["text"]}[share["domain"]]
            base, expert, merged = (
                sum(values(held, model, task)[0] for task in tasks) for model in (0, number, row["key"])
            )
            expected = (merged - base) / (expert - base) if expert > base else None
            assert share["share"]["value"] == (pytest.approx(expected) if expected is not None else None)


def test_similarity_and_its_correlation_with_gain(results, report, vectors):
    taus = [vector.astype(np.float64) - vectors[0].astype(np.float64) for vector in vectors[1:]]
    for pair in report["pairs"]:
        one, other = (taus[EXPERTS.index(repo)] for repo in pair["experts"])
        assert pair["l2"] == pytest.approx(np.linalg.norm(one - other))
        assert pair["cosine"] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    chosen = [row for row in report["outcomes"] if len(row["experts"]) > 1]
    for found in report["correlations"]:
        some = [row for row in chosen if found["method"] in (row["method"], "all")]
        xs, ys = [], []
        for row in some:
            pairs = list(itertools.combinations([taus[EXPERTS.index(repo)] for repo in row["experts"]], 2))
            if found["similarity"] == "l2":
                xs.append(np.mean([np.linalg.norm(a - b) for a, b in pairs]))
            else:
                xs.append(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))
            ys.append(row["macro"]["score"]["gain"]["value"] if found["against"] == "gain" else row["emerged"] / 160)
        assert found["rank"]["rho"] == pytest.approx(stats.spearmanr(xs, ys).statistic)
        assert found["rank"]["n"] == len(xs)
        one, other = stats.rankdata(xs), stats.rankdata(ys)
        orders = np.array(list(itertools.permutations(other)))  # all of them: four points, or eight
        every = (orders - other.mean()) @ (one - one.mean()) / (len(one) * one.std() * other.std())
        assert found["rank"]["p"] == pytest.approx(np.mean(abs(every) >= abs(found["rank"]["rho"]) - 1e-9))


def test_rank_correlation_at_its_edges():
    assert spearman([1, 2], [1, 2]).rho is None
    assert spearman([1, 1, 1], [1, 2, 3]).p is None
    many = list(range(12))
    assert spearman(many, [v**3 for v in many]).rho == pytest.approx(1)


def test_exports_say_what_the_report_says(results, vectors, tmp_path):
    import base64
    import csv
    import io
    import json

    from pyarrow import parquet

    from worker.evaluation.studies.write import write

    gram = Gram(3)
    gram.add(torch.from_numpy(vectors[0]), [torch.from_numpy(vector) for vector in vectors[1:]])
    found = build(
        results, gram, job_id="std_<b>", commits=["a" * 40] * 4, settings={}, warnings=(), engine={}, costs={}
    )
    whole = write(found, folder=tmp_path / "one")
    again = write(found, folder=tmp_path / "two")
    assert set(whole.figures) == {"gain", "og", "sweep", "answers", "similarity"}
    assert whole == again
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path
    made = json.loads((tmp_path / "one" / "exports.json").read_text())
    data = {name: base64.b64decode(one["base64"]) for name, one in made.items()}
    rows = list(csv.DictReader(io.StringIO(data["csv"].decode())))
    table = parquet.read_table(io.BytesIO(data["parquet"])).to_pylist()
    assert len(rows) == len(table) == len(found.cells) * len(TASKS)
    for row, other in zip(rows, table, strict=True):
        cell = next(cell for cell in found.cells if cell.key == row["key"])
        assert float(row["gain"]) == other["gain"] == cell.gain[row["task"]]
        assert float(row["macro_og_score"]) == other["macro_og_score"] == cell.macro_og["score"]
        assert (row["seed"] == "") == (other["seed"] is None)
    text = data["html"].decode()
    assert "std_&lt;b&gt;" in text
    assert "<b>" not in text
    assert text.count("data:image/png;base64,") == 5
    assert "<script" not in text
    assert "http" not in text


def test_texts_that_a_spreadsheet_would_run_are_made_harmless():
    from worker.evaluation.studies.export import to_csv

    assert to_csv([{"name": "=1+1", "value": -2.0}]) == b"name,value\n'=1+1,-2.0\n"


def test_a_frontier_is_a_table(tmp_path):
    from worker.evaluation.studies.export import frontier_table, to_csv

    share = {"value": 0.5, "low": 0.4, "high": None}
    point = {"kind": "control", "name": "uniform", "label": "t 0.5", "on": "held_out", "seed": None, "share": 1.0,
             "settings": {"t": 0.5}, "retention": share, "gain_kept": share}  # fmt: skip
    head, row = to_csv(frontier_table([point])).decode().splitlines()
    assert head.startswith("kind,name,label,on,seed,share,retention,")
    assert row == "control,uniform,t 0.5,held_out,,1.0,0.5,0.4,,0.5,0.4,"


def test_the_frontier_of_a_merge_is_exported(tmp_path):
    import base64
    import json

    from worker.evaluation.studies.frontier import write_frontier

    report = {"job": {"id": "mrg_x"}, "verdict": "a < b", "evaluation": None}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert not write_frontier(tmp_path, output=tmp_path)
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    points = [{"kind": kind, "name": "uniform", "label": f"<{kind}>", "on": "held_out", "seed": seed, "share": 0.5,
               "settings": {}, "retention": share, "gain_kept": share}
              for kind, seed in (("control", None), ("chosen", 3))]  # fmt: skip
    (tmp_path / "report.json").write_text(json.dumps(report | {"evaluation": {"points": points}}))
    assert write_frontier(tmp_path, output=tmp_path)
    made = json.loads((tmp_path / "exports.json").read_text())
    page = base64.b64decode(made["html"]["base64"]).decode()
    assert "&lt;control&gt;" in page
    assert "a &lt; b" in page
    assert base64.b64decode(made["parquet"]["base64"])[:4] == b"PAR1"
    assert len(base64.b64decode(made["csv"]["base64"]).splitlines()) == 3
