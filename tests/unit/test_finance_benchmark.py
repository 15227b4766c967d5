"""The finance benchmark: every task file asked of a small real model, over small files of the same schemas."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from app.recipes.evaluation import RegisteredTask
from worker.evaluation.bench import Bench
from worker.evaluation.language_model import LanguageModel
from worker.evaluation.tasks import build

FOLDER = Path(__file__).parents[2] / "worker" / "evaluation" / "finance"
GROUP = yaml.safe_load((FOLDER / "_spear_finance.yaml").read_text())
FILES = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("_"))
GOLD_FLAGS = (
    "Price Direction Up", "Price Direction Constant", "Price Direction Down", "Asset Comparision", "Past Information",
    "Future Information",
)  # fmt: skip


def gold_row(number: int, sentiment: str) -> dict:
    flags = {flag: (number + i) % 2 for i, flag in enumerate(GOLD_FLAGS)}
    news = f"gold settles at $1,{number}16.10 an ounce"
    return {"Dates": "28-01-2016", "URL": f"http://a/{number}", "News": news} | flags | {"Price Sentiment": sentiment}


def fed_row(stance: str, time: str, certainty: str) -> dict:
    sentence = f"Participants saw inflation as {stance}."
    labels = {"stance_label": stance, "time_label": time, "certain_label": certainty}
    return {"sentences": sentence} | labels | {"year": 2020, "__index_level_0__": 3}


ROWS = {
    "SaguaroCapital/sentiment-analysis-in-commodity-market-gold": [
        gold_row(i, sentiment) for i, sentiment in enumerate(["positive", "negative", "neutral", "none"])
    ],
    "atrost/financial_phrasebank": [
        {"sentence": f"Revenue {word} by 12 %.", "label": i} for i, word in enumerate(["fell", "stayed", "rose"])
    ],
    "pauri32/fiqa-2018": [
        {
            "sentence": "Tesco sales rise", "snippets": "['sales rise']", "target": "Tesco", "sentiment_score": score,
            "aspects": aspects, "format": "headline",
        }
        for score, aspects in [
            (0.5, "['Corporate/Sales/Deal']"), (-0.4, '["Stock/Price Action/Bearish"]'), (0.0, "['Economy']"),
            (0.1, "['Market/Volatility']"),
        ]
    ],
    "zeroshot/twitter-financial-news-sentiment": [{"text": f"$ABC {i}", "label": i} for i in range(3)],
    "zeroshot/twitter-financial-news-topic": [{"text": f"$ABC {i}", "label": i} for i in (0, 7, 19)],
    "gtfintechlab/federal_reserve_system": [
        fed_row("hawkish", "forward looking", "certain"), fed_row("dovish", "not forward looking", "uncertain"),
        fed_row("neutral", "forward looking", "certain"), fed_row("irrelevant", "not forward looking", "uncertain"),
    ],
    "AdaptLLM/finance-tasks": [
        {"id": i, "input": "Revenue was 206 in 2009 and 181 in 2008. What was it in 2009? ", "label": label}
        for i, label in enumerate(["206.0", "25", "yes"])
    ],
    "TheFinAI/flare-tatqa": [{"id": "t1", "query": "Context: 12 and 15. Question: what rose?", "answer": "15"}],
    "TheFinAI/flare-cfa": [
        {"query": "Q: A premium for: A: maturity., B: liquidity., C: inflation. Answer:", "answer": "C", "text": "Q",
         "choices": ["A", "B", "C"], "gold": 2},
    ],
}  # fmt: skip
"""of each repository on the Hub, rows of the columns that its card names"""
EXPECTED = {
    "spear_finance_gold_up": [0, 1, 0, 1], "spear_finance_gold_constant": [1, 0, 1, 0],
    "spear_finance_gold_sentiment": [0, 1, 2, 3], "spear_finance_phrasebank": [0, 1, 2],
    "spear_finance_fiqa_sentiment": [2, 0, 1, 1], "spear_finance_fiqa_aspect": [0, 3, 1, 2],
    "spear_finance_tweets_sentiment": [0, 1, 2], "spear_finance_tweets_topic": [0, 7, 19],
    "spear_finance_federal_reserve_stance": [0, 1, 2, 3], "spear_finance_federal_reserve_time": [0, 1, 0, 1],
    "spear_finance_federal_reserve_certainty": [0, 1, 0, 1], "spear_finance_cfa": [2],
}  # fmt: skip
"""the right choices, by hand"""


def parquet(path: Path, rows) -> None:
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(path)


def configured(folder: Path, name: str, splits: dict[str, str]) -> None:
    files = [{"split": split, "path": path} for split, path in splits.items()]
    card = yaml.safe_dump({"configs": [{"config_name": name, "data_files": files}]})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{card}---\n")


def lay_out(root: Path) -> None:
    """The repositories as their files lie on the Hub, below folders of their names."""
    for repo in ("SaguaroCapital/sentiment-analysis-in-commodity-market-gold", "TheFinAI/flare-tatqa",
                 "TheFinAI/flare-cfa"):  # fmt: skip
        for split in ("train", "test"):
            parquet(root / repo / "data" / f"{split}-00000-of-00001.parquet", ROWS[repo])
    for repo in ("atrost/financial_phrasebank", "pauri32/fiqa-2018"):
        for split in ("train", "validation", "test"):
            parquet(root / repo / "data" / f"{split}-00000-of-00001.parquet", ROWS[repo])
    for name, prefix in (("sentiment", "sent"), ("topic", "topic")):
        repo = f"zeroshot/twitter-financial-news-{name}"
        (root / repo).mkdir(parents=True)
        for split in ("train", "valid"):
            with (root / repo / f"{prefix}_{split}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=["text", "label"])
                writer.writeheader()
                writer.writerows(ROWS[repo])
    fed = root / "gtfintechlab/federal_reserve_system"
    configured(fed, "5768", {split: f"5768/{split}-*" for split in ("train", "test", "val")})
    for split in ("train", "test", "val"):
        parquet(fed / "5768" / f"{split}-00000-of-00001.parquet", ROWS["gtfintechlab/federal_reserve_system"])
    tasks = root / "AdaptLLM/finance-tasks"
    configured(tasks, "ConvFinQA", {"test": "ConvFinQA/test.json"})
    (tasks / "ConvFinQA").mkdir()
    (tasks / "ConvFinQA" / "test.json").write_text(json.dumps(ROWS["AdaptLLM/finance-tasks"]))


@pytest.fixture(scope="module")
def asked(base_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32).eval()
    return LanguageModel(model, AutoTokenizer.from_pretrained(base_model))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    lay_out(folder)
    return folder


@pytest.fixture
def there(root, tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(root)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return root


def test_the_group_names_eighteen_tasks_over_eight_data_sets():
    found = {yaml.safe_load(path.read_text())["task"] for path in FILES}
    assert found == set(GROUP["task"])
    assert len(GROUP["task"]) == 18
    repos = {_resolved(path)["dataset_path"] for path in FILES}
    assert repos == set(ROWS)
    assert len({repo.removesuffix("-sentiment").removesuffix("-topic") for repo in repos}) == 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_task_file_runs_end_to_end(path, there, asked):
    name = yaml.safe_load(path.read_text())["task"]
    task = build(RegisteredTask(task=name), source=path)
    bench = Bench.build(name, task, limit=None, seed=0)
    sheet = bench.ask(asked)
    rows = ROWS[_resolved(path)["dataset_path"]]
    assert len(sheet.items) == len(rows)
    assert set(sheet.values) <= {0.0, 1.0}
    assert sheet.metric == ("exact_match" if task.OUTPUT_TYPE == "generate_until" else "acc")
    for row in rows:
        text = task.doc_to_text(row)
        assert any(str(value) in text for key, value in row.items() if key in {
            "News", "sentence", "text", "sentences", "input", "query",
        })  # fmt: skip
    if name in EXPECTED:
        assert [_index(task, row) for row in rows] == EXPECTED[name]
        assert sheet.values == tuple(_graded(task, row, asked) for row in rows)


def test_numbers_are_right_however_they_are_written(there):
    by_name = {yaml.safe_load(path.read_text())["task"]: path for path in FILES}
    task = build(RegisteredTask(task="spear_finance_convfinqa"), source=by_name["spear_finance_convfinqa"])
    row = ROWS["AdaptLLM/finance-tasks"][0]
    for answer, right in (("206", 1), ("$206.00 in 2009", 1), ("it was 25", 0), ("nothing", 0)):
        (filtered,) = task._filters[0].filters[0]().apply([[answer]], [row])
        assert task.process_results(row, [filtered[0]])["exact_match"] == right


def _index(task, row) -> int:
    target, choices = task.doc_to_target(row), task.doc_to_choice(row)
    return choices.index(target) if isinstance(target, str) else target


def _graded(task, row, asked) -> float:
    class Request:
        def __init__(self, *args):
            self.args = args

    totals = asked.loglikelihood([Request(task.doc_to_text(row), f" {c}") for c in task.doc_to_choice(row)])
    return float(max(range(len(totals)), key=lambda i: totals[i][0]) == _index(task, row))


def _resolved(path: Path) -> dict:
    found = yaml.safe_load(path.read_text())
    return (yaml.safe_load((FOLDER / found["include"]).read_text()) if "include" in found else {}) | found
