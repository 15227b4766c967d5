"""The charts of studies, held to what the other charts are held to (see test_dashboard_charts.py)."""

import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from app.dashboard.charts import (
    AnswerSheet,
    Matrix,
    Series,
    Sweep,
    answer_sheet_chart,
    matrix_chart,
    sweep_chart,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "charts"
CSS = (Path(__file__).parents[2] / "app" / "dashboard" / "static" / "charts.css").read_text()


def make_matrix() -> Matrix:
    return Matrix(
        rows=("linear", "ties", "task_arithmetic"), columns=("fpb", "headlines", "a_long_task_name"), label="Gain",
        unit="points", values=((1.5, -0.4, 0.0), (2.25, None, -3.1), (2.25, 0.2, 0.7)),
    )  # fmt: skip


def make_sweep() -> Sweep:
    x = (0.1, 0.3, 0.5, 0.7, 0.9)
    return Sweep(
        across="λ", up="gain in points",
        series=(
            Series(name="ties", x=x, y=(-1.0, 0.5, 1.25, 0.8, -0.5),
                   intervals=((-1.5, -0.5), None, (1, 1.5), None, None)),
            Series(name="linear", x=x, y=(-0.5, 0.1, None, 0.4, 0.2)),
            Series(name="dare_ties", x=x, y=(0, 0.2, 0.4, 0.2, 0)),
            Series(name="slerp", x=x, y=(0.1, 0.2, 0.3, 0.4, 0.5)),
        ),
    )  # fmt: skip


def make_sheet() -> AnswerSheet:
    return AnswerSheet(
        models=("base", "finance", "merged"),
        answers=(
            ("right", "right", "wrong", "wrong", "right", "wrong"),
            ("wrong", "right", "right", "wrong", "right", "wrong"),
            ("right", "right", "right", "won", "lost", "wrong"),
        ),
    )  # fmt: skip


CHARTS = {
    "study-matrix": lambda: matrix_chart(make_matrix()),
    "study-sweep": lambda: sweep_chart(make_sweep()),
    "study-sheet": lambda: answer_sheet_chart(make_sheet()),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_of_a_study_is_as_it_was_looked_at(name: str) -> None:
    drawn, kept = CHARTS[name]() + "\n", GOLDEN / f"{name}.svg"
    if os.environ.get("SPEAR_GOLDEN") == "write":
        kept.write_text(drawn)
    assert drawn == kept.read_text()


@pytest.mark.parametrize("name", CHARTS)
def test_it_holds_under_a_strict_policy_and_every_class_has_its_colours(name: str) -> None:
    tree = ET.fromstring(CHARTS[name]())
    for node in tree.iter():
        assert not {"style", "id", "fill", "stroke"} & node.attrib.keys()
        for class_ in node.attrib.get("class", "").split():
            assert class_ == "ink" or f".{class_} " in CSS, class_
    assert tree[0].text == tree.attrib["aria-label"]


def test_the_sign_of_a_gain_stands_in_its_cell_and_the_best_is_framed() -> None:
    tree = ET.fromstring(matrix_chart(make_matrix()))
    cells = [node for node in tree if node.tag.endswith("}g")][3:]
    words = [(cell[0].text, cell[-1].text) for cell in cells]
    assert words[0] == ("linear, fpb: +1.5 points", "+1.5")
    assert words[5] == ("ties, a_long_task_name: -3.1 points", "-3.1")
    framed = [i for i, cell in enumerate(cells) if any(n.attrib.get("class") == "frame" for n in cell)]
    assert framed == [3, 7, 8]  # of two that are equally good the first


def test_a_sheet_counts_what_was_won_and_lost() -> None:
    text = answer_sheet_chart(make_sheet())
    assert "merged: 4 of 6 right, 1 won, 1 lost" in text
    many = AnswerSheet(models=("base",), answers=(("right",) * 500 + ("wrong",) * 500,))
    assert len(answer_sheet_chart(many)) < 2_000


def test_nothing_to_draw_of_a_study_is_nothing() -> None:
    assert matrix_chart(Matrix(rows=(), columns=("a",), values=(), label="Gain")) == ""
    assert sweep_chart(Sweep(series=(Series(name="a", x=(1,), y=(None,)),), across="x", up="y")) == ""
    assert answer_sheet_chart(AnswerSheet(models=("base",), answers=((),))) == ""


def test_grids_without_any_value_or_difference_are_drawn() -> None:
    for value in (None, 0.0):
        ET.fromstring(matrix_chart(Matrix(rows=("a",), columns=("b",), values=((value,),), label="OG")))
    ET.fromstring(sweep_chart(Sweep(series=(Series(name="a", x=(1,), y=(2,)),), across="x", up="y")))
