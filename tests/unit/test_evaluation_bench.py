"""Tasks asked of a small real model: the answers are lm-eval's own, and bad task files are refused by line."""

import json
from pathlib import Path

import pytest
import torch

from app.errors import Code, SpearError
from app.recipes.evaluation import FileTask, RegisteredTask
from worker.evaluation.bench import Bench, ask_all
from worker.evaluation.files import check_apart, item_digest
from worker.evaluation.language_model import LanguageModel
from worker.evaluation.likelihood import Span, likelihoods
from worker.evaluation.shortage import is_shortage, shortage_told
from worker.evaluation.tasks import build

TEXTS = ["The quick brown fox jumps over the lazy dog. " * 8, "Revenue rose.", "A worker claims it. " * 3]
QUESTIONS = [
    {"question": "Revenue rose by", "choices": [" 12 %", " the lazy dog"], "answer": 0},
    {"question": "The quick brown", "choices": [" row", " fox", " quarter"], "answer": 1},
]


@pytest.fixture(scope="module")
def loaded(base_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(base_model)


def lines(path: Path, items) -> Path:
    path.write_text("\n".join(json.dumps(item) for item in items) + "\n")
    return path


def bench(path: Path, kind: str, *, limit=None) -> Bench:
    task = FileTask(name=path.stem, kind=kind, repo="org/sets", path=path.name)
    return Bench.build(task.label, build(task, source=path), limit=limit, seed=0)


def test_likelihoods_are_those_that_lm_eval_finds(loaded):
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = loaded
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2)
    asked = [("The lazy", " dog jumps"), ("What is seven", " times eight?"), ("A", " merge is a row in a table")]
    encoded = [(pair, *theirs._encode_pair(*pair)) for pair in asked]
    expected = theirs._loglikelihood_tokens(encoded, disable_tqdm=True)
    spans = [Span((*before, *after), len(after)) for _, before, after in encoded]
    for batch_tokens in (1, 16, 4096):
        found = likelihoods(model, spans, batch_tokens=batch_tokens)
        assert [one.total for one in found] == pytest.approx([total for total, _ in expected], abs=1e-4)
        assert [one.greedy for one in found] == [greedy for _, greedy in expected]


CPU_SHORTAGE = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize("shortage", [torch.OutOfMemoryError("no room"), RuntimeError(CPU_SHORTAGE)])
def test_memory_that_runs_out_halves_the_batch_until_a_single_sequence_does_not_fit(loaded, shortage):
    model, _ = loaded
    spans = [Span(tuple(range(3, 3 + length)), 2) for length in (9, 8, 7, 6)]
    whole = likelihoods(model, spans, batch_tokens=4096)

    class Small(torch.nn.Module):
        """The model on a device that holds so many sequences at once."""

        def __init__(self, most):
            super().__init__()
            self.most, self.device = most, model.device

        def forward(self, *, input_ids, **options):
            if len(input_ids) > self.most:
                raise shortage
            return model(input_ids=input_ids, **options)

    halved = likelihoods(Small(1), spans, batch_tokens=4096)
    assert [one.total for one in halved] == pytest.approx([one.total for one in whole], abs=1e-4)
    with pytest.raises(SpearError) as caught:
        likelihoods(Small(0), spans, batch_tokens=4096)
    assert caught.value.code == Code.OUT_OF_MEMORY


def test_memory_that_runs_out_is_told_by_its_own_code_on_the_cpu_too():
    with pytest.raises(RuntimeError) as caught:  # as torch says it
        torch.empty(2**45)
    assert is_shortage(caught.value)
    assert not is_shortage(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(MemoryError), shortage_told():
        torch.empty(2**45)


def test_perplexity_is_the_models_own_loss_window_by_window(loaded, tmp_path):
    model, tokenizer = loaded
    sheet = bench(lines(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS]), "perplexity").ask(
        LanguageModel(model, tokenizer)
    )
    assert (sheet.kind, sheet.unit) == ("loss", "nats/token")
    for text, value, weight in zip(TEXTS, sheet.values, sheet.weights, strict=True):
        tokens = tokenizer(text)["input_ids"]
        assert weight == len(tokens)
        if len(tokens) < 100:  # in one window
            ids = torch.tensor([[tokenizer.bos_token_id, *tokens]])
            expected = model(input_ids=ids, labels=ids).loss.item() * len(tokens)
            assert value == pytest.approx(expected, rel=1e-4)


def test_choices_and_generation_are_graded_item_by_item(loaded, tmp_path):
    model, tokenizer = loaded
    asked = LanguageModel(model, tokenizer)
    choices = bench(lines(tmp_path / "m.jsonl", QUESTIONS), "multiple_choice")
    exact = bench(lines(tmp_path / "exact.jsonl", [{"question": "A merge is", "answer": "a row"}]), "exact_match")
    sheets = ask_all([choices, exact], asked)
    assert sheets["m"].metric == "acc"
    for item, value in zip(QUESTIONS, sheets["m"].values, strict=True):
        totals = asked.loglikelihood([_Request((item["question"], choice)) for choice in item["choices"]])
        best = max(range(len(totals)), key=lambda i: totals[i][0])
        assert value == float(best == item["answer"])
    assert sheets["exact"].metric == "exact_match"
    assert sheets["exact"].values in ((0.0,), (1.0,))


def test_what_is_asked_again_is_answered_the_same_and_for_the_weights_of_the_moment(loaded, tmp_path):
    import copy

    model, tokenizer = copy.deepcopy(loaded[0]), loaded[1]
    asked = LanguageModel(model, tokenizer)
    task = bench(lines(tmp_path / "t.jsonl", [{"text": TEXTS[2]}]), "perplexity")
    first = task.ask(asked)
    assert task.ask(asked) == first
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    assert task.ask(asked).values != first.values
    assert task.ask(asked).items == first.items


def test_a_limit_takes_the_first_items(loaded, tmp_path):
    path = lines(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    asked = LanguageModel(*loaded)
    assert bench(path, "perplexity", limit=2).ask(asked).items == bench(path, "perplexity").ask(asked).items[:2]


@pytest.mark.parametrize(
    ("kind", "line", "said"),
    [
        ("perplexity", '{"txt": "a"}', "line 2: text is missing"),
        ("perplexity", '{"text": " "}', "line 2: text must be a text that is not empty"),
        ("perplexity", '["text"]', "line 2: not a JSON object"),
        ("perplexity", "{", "line 2: not a JSON object"),
        ("multiple_choice", '{"question": "a", "choices": ["b"], "answer": 0}', "line 2: choices must be a list"),
        ("multiple_choice", '{"question": "a", "choices": ["b", "c"], "answer": 2}', "line 2: answer must be the"),
        ("multiple_choice", '{"question": "a", "choices": ["b", "c"], "answer": true}', "line 2: answer must be"),
        ("exact_match", '{"question": "a"}', "line 2: answer is missing"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, kind, line, said):
    good = {"perplexity": {"text": "a"}, "multiple_choice": QUESTIONS[0]}
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(good.get(kind, {"question": "a", "answer": "b"})) + "\n" + line + "\n")
    with pytest.raises(SpearError, match=said) as caught:
        bench(path, kind)
    assert caught.value.code == Code.TASK_INVALID
    assert caught.value.names["line"] == 2


def test_a_file_without_lines_is_empty(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n\n")
    with pytest.raises(SpearError) as caught:
        bench(tmp_path / "none.jsonl", "perplexity")
    assert caught.value.code == Code.TASK_EMPTY


def test_a_registered_task_runs_on_a_data_set_that_was_fetched(loaded, tmp_path, monkeypatch):
    import lm_eval
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "allenai" / "ai2_arc"
    (folder / "ARC-Easy").mkdir(parents=True)
    row = {"id": "x", "question": "What jumps?", "choices": {"text": ["the fox", "a row"], "label": ["A", "B"]},
           "answerKey": "A"}  # fmt: skip
    splits = ("train", "validation", "test")
    for split in splits:
        pq.write_table(pa.Table.from_pylist([row] * 3), folder / "ARC-Easy" / f"{split}.parquet")
    files = "".join(f"  - split: {split}\n    path: ARC-Easy/{split}.parquet\n" for split in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n{files}---\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    yaml = Path(lm_eval.__file__).parent / "tasks" / "arc" / "arc_easy.yaml"
    task = build(RegisteredTask(task="arc_easy", num_fewshot=1), source=yaml)
    sheet = Bench.build("arc_easy", task, limit=2, seed=0).ask(LanguageModel(*loaded))
    assert (sheet.kind, sheet.metric, len(sheet.values)) == ("score", "acc", 2)


class _Request:
    def __init__(self, args):
        self.args = args


def digests(*texts):
    return [item_digest({"text": text}) for text in texts]


def test_calibration_items_are_held_against_those_to_report_on():
    held, other = digests("a", "b", "c"), digests("d", "e")
    assert check_apart({"prose": held}, {"cal": other}) == []
    (said,) = check_apart({"prose": held}, {"cal": [*other, held[1], held[1]]})
    assert "1 items of calibration task cal" in said
    for calibration in (held[:2], [*held, *other]):  # nothing of its own; nothing left to report on
        with pytest.raises(SpearError, match="calibration task cal and task prose") as caught:
            check_apart({"more": digests("z"), "prose": held}, {"cal": calibration})
        assert (caught.value.code, caught.value.names["task"]) == (Code.TASK_INVALID, "cal")
    assert item_digest({"question": "q", "answer": 1}) == item_digest({"answer": 1, "question": "q"})
