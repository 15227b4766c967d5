"""Vocabularies that differ: rows of embedding and head matched by token, nothing truncated, everything said."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from app.errors import Code, SpearError
from app.hub.tokenrows import Lexicon, count_rows, match_rows, read_tokens, row_warnings
from app.recipes import parse_recipe
from tests.fixtures.adapters import make_adapter
from tests.fixtures.models import make_checkpoint
from worker.checkpoints.open import open_model
from worker.checkpoints.reader import Checkpoint
from worker.checkpoints.vocabulary import open_models
from worker.pipeline.merge import merge
from worker.pipeline.run import run
from worker.pipeline.task import Input, Reporter, Task

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"

BASE = Lexicon("org/base", {"<pad>": 0, "a": 1, "b": 2, "c": 3}, 6)
MOVED = Lexicon("org/moved", {"<pad>": 0, "c": 1, "a": 2, "x": 3, "y": 9}, 4)
THIRD = Lexicon("org/third", {"<pad>": 0, "a": 1, "b": 2, "x": 3}, 4)


def test_rows_follow_their_tokens():
    lexicons = [BASE, MOVED, THIRD]
    assert match_rows(lexicons, source=0, number=0) == [(0, row) for row in range(6)]
    # b is not in MOVED: the base's; the rows behind the tokens are padding of the base
    assert match_rows(lexicons, source=0, number=1) == [(1, 0), (1, 2), (0, 2), (1, 1), (0, 4), (0, 5)]
    assert match_rows(lexicons, source=0, number=2) == [(2, 0), (2, 1), (2, 2), (0, 3), (0, 4), (0, 5)]


def test_the_vocabulary_of_an_expert():
    lexicons = [BASE, MOVED, THIRD]
    assert match_rows(lexicons, source=1, number=1) == [(1, row) for row in range(4)]
    assert match_rows(lexicons, source=1, number=0) == [(0, 0), (0, 3), (0, 1), (1, 3)]  # x: the first that has it
    assert match_rows(lexicons, source=1, number=2) == [(2, 0), (0, 3), (2, 1), (2, 3)]  # c: the base before MOVED


def test_a_token_without_a_row_is_a_token_that_is_not_there():
    assert MOVED.row("y") is None
    short = Lexicon("org/short", BASE.ids, 2)
    assert match_rows([BASE, short], source=0, number=1) == [(1, 0), (1, 1), (0, 2), (0, 3), (0, 4), (0, 5)]
    assert match_rows([BASE, short], source=1, number=0) == [(0, 0), (0, 1)]


def test_two_tokens_with_one_id():
    damaged = Lexicon("org/damaged", {"a": 0, "A": 0}, 1)
    other = Lexicon("org/other", {"q": 0, "A": 1}, 2)
    assert match_rows([damaged, other], source=0, number=1) == [(1, 1)]


def test_everything_is_said():
    assert row_warnings([BASE, BASE], source=0) == ()
    words = (
        "{}: 3 of 6 rows matched by token to the vocabulary of org/base, 1 that it lacks taken from org/base; "
        "left out are 1 of its tokens that this vocabulary lacks, the first 'x'"
    )
    assert row_warnings([BASE, MOVED, THIRD], source=0) == (
        words.format("org/moved"),
        words.format("org/third"),
        "2 of the 6 rows belong to no token: they are those of org/base",
    )


def test_what_has_no_tokens_is_refused():
    files = {"vocab.json": b'{"a": 0, "b": 1}', "added_tokens.json": b'{"<x>": 2}'}
    assert read_tokens(files.get, repo="org/a") == {"a": 0, "b": 1, "<x>": 2}
    with pytest.raises(SpearError) as caught:
        read_tokens({}.get, repo="org/a")
    assert (caught.value.code, caught.value.names["repo"]) == (Code.VOCABULARY_MISMATCH, "org/a")


@pytest.mark.parametrize(
    ("shapes", "tensor"),
    [
        ({"model.norm.weight": (8,)}, None),
        ({EMBED: (10, 8), HEAD: (12, 8)}, HEAD),
        ({EMBED: (10, 8), "model.embed_tokens_per_layer.weight": (10, 4)}, "model.embed_tokens_per_layer.weight"),
    ],
)
def test_tables_that_cannot_be_matched_are_refused(shapes, tensor):
    assert count_rows({EMBED: (10, 8), HEAD: (10, 8), "model.norm.weight": (10,)}, repo="org/a") == 10
    with pytest.raises(SpearError) as caught:
        count_rows(shapes, repo="org/a")
    assert (caught.value.code, caught.value.names.get("tensor")) == (Code.VOCABULARY_MISMATCH, tensor)


def model(path: Path, tokens: dict[str, int], *, rows: int, dtype=torch.float32, seed: int = 0, width: int = 3) -> Path:
    path.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {EMBED: torch.randn(rows, width, generator=generator).to(dtype), "lm_head.bias": torch.randn(rows)}
    tensors["model.norm.weight"] = torch.ones(width)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "x", "vocab_size": rows}))
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}}))
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_span_reads_as_the_gathered_rows(tmp_path, data):
    words = st.lists(st.sampled_from("abcdefghij"), min_size=1, unique=True)
    made, lexicons = [], []
    for number in range(3):
        shutil.rmtree(tmp_path / str(number), ignore_errors=True)
        tokens = {token: row for row, token in enumerate(data.draw(words))}
        rows = len(tokens) + data.draw(st.integers(0, 3))
        dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
        made.append(model(tmp_path / str(number), tokens, rows=rows, dtype=dtype, seed=number))
        lexicons.append(Lexicon(str(number), tokens, rows))
    source, number = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
    tensors = [load_file(path / "model.safetensors") for path in made]
    models = open_models([(str(i), path) for i, path in enumerate(made)], vocabulary=source)
    try:
        view = models[number]
        for name in (EMBED, "lm_head.bias"):
            origins = match_rows(lexicons, source=source, number=number)
            dtype = tensors[number][name].dtype
            wanted = torch.stack([tensors[m][name][row].to(dtype) for m, row in origins]).flatten()
            assert view.info(name).shape[0] == lexicons[source].rows
            assert view.info(name).nbytes == wanted.nbytes
            start = data.draw(st.integers(0, len(wanted)))
            stop = data.draw(st.integers(start, len(wanted)))
            found = view.read_flat(name, start=start, stop=stop, out=torch.empty(stop - start + 2, dtype=dtype))
            assert torch.equal(found, wanted[start:stop])
            raw = bytearray((stop - start) * dtype.itemsize)
            view.read_bytes(name, start=start * dtype.itemsize, stop=stop * dtype.itemsize, out=memoryview(raw))
            assert bytes(raw) == wanted[start:stop].view(torch.uint8).numpy().tobytes()
            view.will_need(name)
        assert torch.equal(view.read("model.norm.weight"), torch.ones(3))
    finally:
        for one in models:
            one.close()


def test_a_model_that_needs_no_other_is_read_as_it_is(tmp_path):
    paths = [model(tmp_path / name, {"a": 0, "b": 1}, rows=4, seed=i) for i, name in enumerate("xy")]
    models = open_models([("x", paths[0]), ("y", paths[1])], vocabulary=0)
    # the padding rows are the first model's, so the second is not itself to the end
    assert [bool(one.moved) for one in models] == [False, True]
    for one in models:
        one.close()
    plain = open_models([("x", paths[0]), ("y", paths[1])], vocabulary=None)
    assert [type(one) for one in plain] == [Checkpoint, Checkpoint]
    for one in plain:
        one.close()


def permute(source: Path, target: Path, *, seed: int) -> Path:
    """The same model with its tokens in other rows; the special tokens stay."""
    shutil.copytree(source, target)
    tokenizer = json.loads((target / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    order = torch.randperm(len(vocab) - 3, generator=torch.Generator().manual_seed(seed)) + 3
    moved = {old + 3: int(new) for old, new in enumerate(order)}
    tokenizer["model"]["vocab"] = {token: moved.get(row, row) for token, row in vocab.items()}
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    for file in target.glob("*.safetensors"):
        tensors = load_file(file)
        for name in {EMBED, HEAD} & tensors.keys():
            rows = tensors[name].clone()
            for old, new in moved.items():
                tensors[name][new] = rows[old]
        save_file(tensors, file, metadata={"format": "pt"})
    return target


def task(work: Path, *paths: Path, method=None, source=None) -> Task:
    recipe = parse_recipe({
        "base": {"repo": f"org/{paths[0].name}"}, "experts": [{"repo": f"org/{path.name}"} for path in paths[1:]],
        "method": method or {"name": "ties", "density": 0.5}, "target": {"repo": "org/merged"},
        "tokenizer_source": source,
    })  # fmt: skip
    inputs = tuple(
        Input(repo=f"org/{path.name}", revision="main", commit=str(i) * 40, path=path,
              digests={file.name: f"sha256:{path.name}{file.name}" for file in path.iterdir()})
        for i, path in enumerate(paths)
    )  # fmt: skip
    work.mkdir()
    return Task(job_id="mrg_test", attempt=1, recipe=recipe, inputs=inputs, work_dir=work)


def stored(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


def weights(work: Path) -> dict[str, torch.Tensor]:
    return stored(work / "output")


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request, tmp_path_factory):
    """Two models of one vocabulary, and the second again with its tokens elsewhere."""
    root = tmp_path_factory.mktemp("pair")
    base = make_checkpoint(root / "base", seed=1, tied=request.param)
    plain = make_checkpoint(root / "plain", seed=2, like=base)
    return base, plain, permute(plain, root / "moved", seed=5)


@pytest.mark.parametrize("method", [
    {"name": "ties", "density": 0.5}, {"name": "linear"}, {"name": "slerp", "t": 0.3},
    {"name": "dare_linear", "density": 0.5}, {"name": "passthrough"},
], ids=lambda method: method["name"])  # fmt: skip
def test_where_the_tokens_stand_makes_no_difference(tmp_path, pair, method):
    base, plain, moved = pair
    merge(task(tmp_path / "one", base, plain, method=method), None, Reporter(io.BytesIO()))
    merge(task(tmp_path / "two", base, moved, method=method, source="base"), None, Reporter(io.BytesIO()))
    same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    tied = json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    assert (HEAD in weights(tmp_path / "two")) == (not tied)


def test_the_tokenizer_goes_with_the_vocabulary(tmp_path, pair):
    base, _, moved = pair
    for source, path in (("base", base), ("org/moved", moved)):
        work = tmp_path / path.name
        merge(task(work, base, moved, source=source), None, Reporter(io.BytesIO()))
        assert (work / "output" / "tokenizer.json").read_bytes() == (path / "tokenizer.json").read_bytes()
        assert (work / "output" / "tokenizer_config.json").exists()


def test_more_tokens_and_padding(tmp_path):
    """An expert with more tokens and a padded embedding, against the dense computation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_checkpoint(tmp_path / "small", seed=1, vocabulary=300)
    wide = make_checkpoint(tmp_path / "wide", seed=2, vocabulary=344)
    tokens = [json.loads((path / "tokenizer.json").read_text())["model"]["vocab"] for path in (base, wide)]
    embeds = [stored(path)[EMBED] for path in (base, wide)]
    assert len(tokens[1]) > len(tokens[0])
    for source, rows in (("base", 300), ("org/wide", 344)):
        work = tmp_path / f"out{rows}"
        made = task(work, base, wide, method={"name": "task_arithmetic", "weight": 0.5}, source=source)
        merge(made, None, Reporter(io.BytesIO()))
        number = 0 if rows == 300 else 1
        wanted = embeds[number].float().clone()
        for token, row in tokens[number].items():
            held = [embeds[m][tokens[m][token]].float() if token in tokens[m] else None for m in (0, 1)]
            one, two = (held[0] if held[0] is not None else held[1]), (held[1] if held[1] is not None else held[0])
            wanted[row] = one + 0.5 * (two - one)
        found = weights(work)[EMBED]
        assert found.shape == (rows, 64)
        assert torch.equal(found, wanted.to(found.dtype))
        model = AutoModelForCausalLM.from_pretrained(work / "output")
        tokenizer = AutoTokenizer.from_pretrained(work / "output")
        assert model.config.vocab_size == rows == model.get_input_embeddings().num_embeddings
        assert model.config.tie_word_embeddings
        assert HEAD not in weights(work)
        assert len(tokenizer) == len(tokens[number])
        batch = tokenizer("Revenue rose", return_tensors="pt")
        assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[0] == 1


def test_the_whole_pipeline_verifies(tmp_path, pair):
    base, _, moved = pair
    made = task(tmp_path / "whole", base, moved, source="org/moved", method={"name": "spear", "exclude": ["*up*"]})
    summary = run(made, Reporter(io.BytesIO()))
    assert summary["selected"] > 0
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["verification"]["tensors"] == len(weights(tmp_path / "whole"))
    assert report["recipe"]["tokenizer_source"] == "org/moved"
    assert torch.equal(weights(tmp_path / "whole")[EMBED], stored(moved)[EMBED])


def test_an_adapter_has_the_bases_tokens(tmp_path, pair):
    """An adapter that changes the embedding too, beside a model with other rows: as the whole model that it makes."""
    base, _, moved = pair
    adapter = make_adapter(base, tmp_path / "adapter", seed=3, target_modules=["embed_tokens", "up_proj"])
    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    with open_model(adapter, base=base) as applied:
        for file in whole.glob("*.safetensors"):
            save_file({name: applied.read(name) for name in load_file(file)}, file, metadata={"format": "pt"})
    for number, expert in enumerate((adapter, whole)):
        made = task(tmp_path / f"out{number}", base, expert, moved, source="org/moved")
        merge(made, None, Reporter(io.BytesIO()))
    same(weights(tmp_path / "out0"), weights(tmp_path / "out1"))
    assert not torch.equal(stored(whole)[EMBED], stored(base)[EMBED])
    assert (tmp_path / "out0" / "output" / "tokenizer.json").read_bytes() == (moved / "tokenizer.json").read_bytes()


def test_rows_that_are_matched_cannot_be_scored(tmp_path, pair):
    base, _, moved = pair
    for group in ("embedding", "head"):
        with pytest.raises(SpearError, match="cannot be scored"):
            task(tmp_path / "never", base, moved, source="base", method={"name": "spear", group: True})
    method = {"name": "spear", "modules": ["q", "*embed_tokens*"]}
    made = task(tmp_path / "scored", base, moved, source="base", method=method)
    with pytest.raises(SpearError) as caught:
        run(made, Reporter(io.BytesIO()))
    assert (caught.value.code, caught.value.names["tensor"]) == (Code.INVALID_RECIPE, EMBED)


@pytest.mark.parametrize("source", ["org/other", "union"])
def test_the_vocabulary_must_be_an_inputs(tmp_path, base_model, adapted_model, source):
    with pytest.raises(SpearError) as caught:
        task(tmp_path / "none", base_model, adapted_model, source=source)
    assert caught.value.code is Code.INVALID_RECIPE
