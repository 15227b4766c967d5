"""What the pages say, from plain data: faults, evaluations, comparisons, tables, studies."""

import csv
import io
from typing import Any

import pytest

from app.api.views import JobView
from app.dashboard.charts import Trial
from app.dashboard.comparison import overlap, recipe_differences
from app.dashboard.evaluation import models_of, notes_of, tasks_of, tradeoff_of
from app.dashboard.faults import SERVICE, fault_of
from app.dashboard.headline import _restored, _shares, parents_of, title_of
from app.dashboard.rendering import many, size
from app.dashboard.searching import prediction_of, search_of
from app.dashboard.study import study_of
from app.dashboard.tensors import csv_text, read_view, table
from app.errors import KINDS, Code, SpearError
from tests.fixtures.reports import make_evaluation, make_prediction, make_report, make_search


def test_the_report_that_pages_are_tried_on_is_one_that_workers_write() -> None:
    from worker.report.schema import Report

    for report in (make_report(layers=2), make_report(layers=2, evaluated=False)):
        Report.model_validate(report)


@pytest.mark.parametrize("code", list(Code))
def test_every_failure_has_somebody_whose_fault_it_is_and_something_to_change(code: Code) -> None:
    fault = fault_of(code)
    assert fault.title == KINDS[code].title
    assert fault.whose
    assert fault.change
    if KINDS[code].status == 500 and code not in {Code.QUEUE_EXPIRED, Code.RUNTIME_EXCEEDED}:
        assert "not" in fault.whose  # the recipe's author is told that it is not theirs


def test_faults_are_told_apart() -> None:
    codes = (Code.NONFINITE_TENSOR, Code.DISK_FULL, Code.HUB_UNAVAILABLE, Code.GATE_FAILED, Code.TARGET_MOVED,
             Code.REPO_GATED, Code.INVALID_RECIPE, Code.TASK_UNKNOWN, Code.RUNTIME_EXCEEDED)  # fmt: skip
    assert len({fault_of(code).whose for code in codes}) == len(codes)
    assert fault_of("a_code_of_tomorrow").whose == SERVICE[0]


def test_a_task_is_better_or_worse_only_where_intervals_do_not_meet() -> None:
    told = {task.name: task.verdict for task in tasks_of(make_evaluation())}
    assert told["arc_easy"] == "no clear difference from the base"
    evaluation = make_evaluation()
    loss = next(task for task in evaluation["tasks"] if task["kind"] == "loss")
    for value, verdict in ((2.5, "worse than"), (2.0, "better than"), (2.26, "no clear difference from")):
        loss["merged"] = {"value": value, "low": value - 0.02, "high": value + 0.02}
        assert next(t for t in tasks_of(evaluation) if t.name == "finance").verdict == f"{verdict} the adapted model"
    loss["merged"] = {"value": None, "low": None, "high": None}
    assert tasks_of(evaluation)[-1].verdict == "-"  # nothing is known, which is not the same as no difference


def test_many_controls_that_do_as_well_are_one_note() -> None:
    good = [{"kind": "control_as_good", "message": f"uniform t = 0.{n} keeps as much", "groups": [], "setting": None}
            for n in range(3)]  # fmt: skip
    over = {"kind": "over_restored", "message": "gain was given up", "groups": ["mlp.1/2"], "setting": "method.t"}
    first, second = notes_of({"diagnosis": [good[0], over, *good[1:]]})
    assert first["message"] == "gain was given up"
    assert second["message"].startswith("3 simple controls")
    assert second["each"] == [one["message"] for one in good]
    assert [one["message"] for one in notes_of({"diagnosis": good[:1]})] == ["uniform t = 0.0 keeps as much"]


def test_the_headline_counts_what_a_search_moved_beside_the_scored_tensors() -> None:
    modules = {"q": {"tensors": 6}, "norm": {"tensors": 13}, "embedding": {"tensors": 1}, "head": {"tensors": 0}}
    selection = {"selected": 6, "scored": 6, "parameters": 24_576, "modules": [{"module_type": "q"}],
                 "shares": {"share": 1.0, "parameters": 45_888, "modules": modules}}  # fmt: skip
    (fact,) = _restored({"selection": selection})
    assert fact.note == "and 14 others, 45.9 k parameters, 100 % of the model"


def test_the_curve_shows_held_out_points_and_leaves_out_what_is_not_known() -> None:
    evaluation = make_evaluation()
    shown = tradeoff_of(evaluation)
    assert shown is not None
    assert len(shown.trials) == 14
    assert (shown.min_retention, shown.min_gain) == (0.9, 0.9)
    assert shown.trials[0] == Trial(label="base", kind="base", retention=1.0, gain=0.0)
    for point in evaluation["points"]:
        point["on"] = "calibration"
    evaluation["points"][3] |= {"on": "held_out", "gain_kept": {"value": None, "low": None, "high": None}}
    later = tradeoff_of(evaluation)
    assert later is not None
    assert len(later.trials) == 13  # the only held-out point is not known: the search's are shown
    assert tradeoff_of({"points": []}) is None


def test_a_search_is_told_in_words_and_may_be_missing() -> None:
    assert search_of({}) is search_of({"search": None}) is prediction_of({"prediction": None}) is None
    found = search_of({"search": make_search()})
    assert found is not None
    assert found.beyond == ["head", "mlp.2/2"]
    shuffled = make_search()  # as jsonb gives it back: shorter names first
    shuffled["groups"] = dict(sorted(shuffled["groups"].items(), key=lambda item: len(item[0])))
    again = search_of({"search": shuffled})
    assert again is not None
    assert again.groups == found.groups
    assert [(one.chosen, one.taken) for one in found.choices] == [
        (True, "as searched"), (False, "t = 0.605 for all weights"),
    ]  # fmt: skip
    gain = make_search() | {"objective": {"kind": "gain", "least": 0.95}, "method": "groups"}
    other = search_of({"search": gain})
    assert other is not None
    assert (other.aim, other.how.partition(":")[0]) == (
        "as much of the gain as can be kept at a retention of at least 95 %",
        "by groups of weights, split where it pays",
    )
    told = prediction_of({"prediction": make_prediction()})
    assert told is not None
    assert [words for words, _ in told.correlations] == ["score", "SNR", "SWCI", "SVDR", "relative change"]
    assert told.sample[0]["change"] == max(one["change"] for one in told.sample)


def test_recipes_differ_where_it_matters() -> None:
    e, f = {"repo": "o/e"}, {"repo": "o/f"}
    a = {"method": {"name": "spear", "t": 0.5}, "labels": {"x": "1"}, "target": {"repo": "o/a"}, "experts": [e]}
    b = {"method": {"name": "ties"}, "labels": {}, "target": {"repo": "o/b"}, "experts": [e, f]}
    assert [(d.name, d.a, d.b) for d in recipe_differences(a, b)] == [
        ("/experts/1/repo", "-", "o/f"), ("/method/name", "spear", "ties"), ("/method/t", "0.5", "-"),
    ]  # fmt: skip
    rows = [{"name": "x", "selected": True}, {"name": "y", "selected": True}, {"name": "z", "selected": False}]
    found = overlap(rows, [{"name": "y", "selected": True}, {"name": "z", "selected": True}])
    assert (found.both, found.only_a, found.only_b) == (1, ["x"], ["z"])


def test_rows_without_a_value_stand_last_in_either_order() -> None:
    rows: list[dict[str, Any]] = [{"name": "a", "snr": None}, {"name": "b", "snr": 1.0}, {"name": "c", "snr": 2.0}]
    for order, names in (("asc", ["b", "c", "a"]), ("desc", ["c", "b", "a"])):
        shown = table(rows, read_view(sort="snr", order=order, only="all"))
        assert [row["name"] for row in shown.rows] == names
    assert table(rows, read_view(only="restored")).view.only == "all"  # nothing was restored
    assert table([], read_view(page=7)).pages == 1
    with pytest.raises(SpearError, match="cannot be sorted"):
        read_view(sort="__class__")


def test_a_spreadsheet_reads_no_formula() -> None:
    text = csv_text([{"name": "=HYPERLINK(1)", "shape": (2, 3), "selected": True, "snr": -1.5, "rest": "@x"}])
    row = next(csv.DictReader(io.StringIO(text)))
    assert (row["name"], row["rest"], row["snr"]) == ("'=HYPERLINK(1)", "'@x", "-1.5")
    assert (row["shape"], row["selected"], row["layer"]) == ("2x3", "true", "")


def test_models_measured_alone_stand_in_a_table() -> None:
    models = [
        {"repo": "org/a", "revision": "main", "commit": "0" * 40, "retention": None, "gain_kept": None,
         "tasks": [{"task": "arc", "value": {"value": 0.5, "low": 0.4, "high": 0.6}}]},
        {"repo": "org/b", "revision": "main", "commit": "1" * 40, "retention": None, "gain_kept": None, "tasks": []},
    ]  # fmt: skip
    first, second = models_of({"models": models})
    assert first.tasks == second.tasks == ["arc"]
    assert first.values[0] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert second.values == [None]


def test_several_models_have_no_common_retention_and_are_named_once() -> None:
    share = {"mean": {"value": 1.0, "low": None, "high": None}}
    one = {"retention": share, "gain_kept": share, "models": [{}]}
    assert len(_shares(one)) == 2
    assert _shares(one | {"models": [{}, {}]}) == []
    recipe = {"base": {"repo": "org/a"}, "experts": [{"repo": "org/b"}],
              "models": [{"repo": "org/a"}, {"repo": "org/c"}]}  # fmt: skip
    job = JobView.model_construct(recipe=recipe, kind="evaluation")
    assert title_of(job) == "org/a + org/c"
    assert parents_of(job) == "org/a + org/b + org/c"


def test_large_numbers_are_short() -> None:
    said = ["-", "0 B", "999 B", "1 kB", "1 MB", "3.46 GB"]
    assert [size(n) for n in (None, 0, 999, 1000, 999_600, 3_456_789_012)] == said
    assert [many(n) for n in (None, 7, 9_999, 12_345, 56_600_000)] == ["-", "7", "9999", "12.3 k", "56.6 M"]


def make_study() -> dict[str, Any]:
    """A study of two experts and one task, with a sweep over λ."""
    from worker.evaluation.studies.schema import Study

    estimate = {"value": 0.02, "low": 0.01, "high": 0.03}
    figures = {"score": estimate, "gain": estimate, "og": estimate}
    experts = ("org/finance", "org/math")
    cells = [
        {"key": f"2:0+1:ties:{x}", "stage": 2, "experts": experts, "method": "ties", "settings": {"lambda": x},
         "scores": {"fpb": 0.5}, "gain": {"fpb": 0.02}, "og": {"fpb": x - 0.5}, "macro_gain": {"score": x / 50},
         "macro_og": {"score": 0.0}, "macro_gain_datasets": {}, "macro_og_datasets": {}, "calibration_gain": None,
         "emerged": 1, "lost": 0}
        for x in (0.9, 0.1, 0.5)
    ]  # fmt: skip
    outcome = {
        "stage": 2, "experts": experts, "constituents": experts, "method": "ties", "settings": {"lambda": 0.5},
        "key": cells[2]["key"], "chosen_on": "calibration", "macro": {"score": figures}, "macro_datasets": {},
        "domains": {}, "tasks": [{"task": "fpb", "figures": figures, "answers": None}], "shares": [], "emerged": 1,
        "lost": 0, "items": 4, "calibration_gain": 0.01, "seeds": None,
        "sensitivity": {"cells": 3, "best": 0.02, "worst": 0.0, "mean": 0.01, "deviation": 0.01, "best_settings": {}},
    }  # fmt: skip
    report = {
        "verdict": "ties gains", "job": {"id": "std_1"}, "recipe": {}, "main_kind": "score", "gain_reference": "mean",
        "tasks": [{"task": "fpb", "on": "held_out", "role": "domain", "domain": "finance", "dataset": "fpb",
                   "kind": "score", "metric": "acc", "unit": "share", "items": 4}],
        "models": [{"number": i, "repo": repo, "revision": "main", "commit": "0" * 40, "domain": None, "norm": None,
                    "scores": {"fpb": estimate}} for i, repo in enumerate(("org/base", *experts))],
        "cells": cells, "outcomes": [outcome], "pairs": [], "correlations": [], "publications": [],
        "answers": {"fpb": {"org/base": "1001", "org/finance": "1001", "org/math": "1001", cells[2]["key"]: "1010"}},
        "figures": {}, "settings": {}, "warnings": [], "engine": {}, "costs": None,
    }  # fmt: skip
    return Study.model_validate(report).model_dump(mode="json")


def test_a_sweep_is_of_one_set_of_experts_and_takes_seeds_together() -> None:
    report = make_study()
    one = report["cells"][0]
    more = [
        one | {"key": f"k{seed}{x}{name}", "experts": ["org/finance", name], "method": "dare_ties",
               "settings": {"lambda": x, "seed": seed, "density": 0.5}, "macro_gain": {"score": x * seed / 10}}
        for seed in (0, 1) for x in (0.5, 1.0) for name in ("org/math", "org/law")
    ]  # fmt: skip
    report["cells"] += more
    sweeps = study_of(report).stages[0].sweeps
    assert [chart.count('class="series') for chart in sweeps] == [4, 2]  # a line and its key: ties and dare_ties, dare
    assert "finance + math" in sweeps[0]
    assert "finance + law" in sweeps[1]
    assert "dare_ties, density 0.5: 5 at 1" in sweeps[1]  # the mean of 0 and 10 points


def test_a_study_shows_its_stages_its_sweeps_and_its_answers() -> None:
    found = study_of(make_study())
    assert found is not None
    (stage,) = found.stages
    assert stage.title.startswith("Stage 2")
    assert stage.outcomes[0]["name"] == "ties: finance + math"
    assert len(stage.matrices) == 2
    assert "ties: finance + math, fpb: +2 points" in stage.matrices[0]
    assert "0.2 at 0.1" in stage.sweeps[0]  # shares are told in points
    assert found.correlations == []
    assert found.unit == "points"
    ((task, sheet),) = found.sheets
    assert task == "fpb"
    assert "ties: finance + math: 2 of 4 right, 1 won, 1 lost" in sheet
    assert study_of(make_report(layers=1)) is None
