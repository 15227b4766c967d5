"""Writing: the result is a safetensors checkpoint, however often it was interrupted; a full disk leaves nothing."""

import json
import resource
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from app.errors import Code, SpearError
from worker.checkpoints.layout import lay_out, natural_key
from worker.checkpoints.reader import memory
from worker.checkpoints.writer import ShardedWriter
from worker.pipeline.companions import copy_companions

TENSORS = {
    "layers.10.w": torch.arange(600, dtype=torch.bfloat16).reshape(20, 30),
    "layers.2.w": torch.randn(31, 7, generator=torch.Generator().manual_seed(0)),
    "layers.2.b": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "scale": torch.tensor(2.5, dtype=torch.float16),
    "empty": torch.empty(0, 4, dtype=torch.bfloat16),
}
TAGS = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8", torch.float16: "F16"}


def writer(path: Path, *, limit: int = 10**6, plan: str = "plan") -> ShardedWriter:
    wanted = [(name, TAGS[tensor.dtype], tuple(tensor.shape)) for name, tensor in TENSORS.items()]
    return ShardedWriter(path / "out", tensors=wanted, max_shard_bytes=limit, journal=path / "journal", plan=plan)


def write_one(to: ShardedWriter, name: str) -> None:
    flat = memory(TENSORS[name].reshape(-1))
    for at in range(0, len(flat), 100):
        to.write(name, flat[at : at + 100])
    to.finish(name, note=name.upper())


def write_all(path: Path, **options) -> dict[str, bytes]:
    with writer(path, **options) as to:
        for name in to.order:
            if name not in to.finished:
                write_one(to, name)
        to.complete()
    return {file.name: file.read_bytes() for file in (path / "out").iterdir()}


def interrupt(path: Path, *, after: int, torn: bool = False, **options) -> ShardedWriter:
    """A writer that was stopped (not by an expected failure) behind so many tensors."""
    with suppress(InterruptedError), writer(path, **options) as to:
        for name in to.order[:after]:
            if name not in to.finished:
                write_one(to, name)
        if torn:
            to.write(to.order[after], memory(torch.zeros(1, dtype=torch.uint8)))
        raise InterruptedError
    return to


def finished(path: Path, **options) -> dict[str, str]:
    return interrupt(path, after=0, **options).finished


@contextmanager
def no_file_beyond(size: int):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("limit", [10**6, 2000, 600])
def test_the_files_load_as_safetensors(tmp_path, limit):
    files = write_all(tmp_path, limit=limit)
    loaded = {}
    for file in (tmp_path / "out").glob("*.safetensors"):
        loaded |= load_file(file)
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    assert ("model.safetensors" in files) == (limit == 10**6)
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_rerun_finds_all_done(tmp_path):
    expected = write_all(tmp_path, limit=2000)
    assert len(finished(tmp_path, limit=2000)) == len(TENSORS)
    assert write_all(tmp_path, limit=2000) == expected


def test_the_index_names_every_tensor_and_the_total(tmp_path):
    files = write_all(tmp_path, limit=2000)
    index = json.loads(files["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in TENSORS.values())
    assert set(index["weight_map"].values()) == {name for name in files if name.endswith(".safetensors")}
    assert list(index["weight_map"]) == sorted(TENSORS, key=natural_key)


NAMES = st.text("ab.019", min_size=1, max_size=8)


@given(st.dictionaries(NAMES, st.integers(0, 400), min_size=1), st.integers(300, 5000))
@settings(max_examples=60, deadline=None)
def test_no_shard_passes_the_limit_unless_it_holds_one_tensor(shapes, limit):
    shards = lay_out([(name, "BF16", (size,)) for name, size in shapes.items()], max_shard_bytes=limit)
    assert sorted(t.name for shard in shards for t in shard.tensors) == sorted(shapes)
    assert all(shard.size <= limit or len(shard.tensors) == 1 for shard in shards)
    assert shards == lay_out([(n, "BF16", (shapes[n],)) for n in sorted(shapes)], max_shard_bytes=limit)


def test_natural_order_puts_layer_2_before_layer_10():
    assert sorted(["l.10.w", "l.2.w", "l.2.b", "a"], key=natural_key) == ["a", "l.2.b", "l.2.w", "l.10.w"]


@pytest.mark.parametrize("stop", range(len(TENSORS)))
def test_an_interrupted_writer_goes_on_behind_the_last_whole_tensor(tmp_path, stop):
    expected = write_all(tmp_path / "undisturbed", limit=2000)
    order = interrupt(tmp_path, after=stop, torn=True, limit=2000).order
    assert finished(tmp_path, limit=2000) == {name: name.upper() for name in order[:stop]}
    assert write_all(tmp_path, limit=2000) == expected


def test_a_claim_that_does_not_hold_is_not_believed(tmp_path):
    expected = write_all(tmp_path / "undisturbed")
    first = interrupt(tmp_path, after=3)
    file = tmp_path / "out" / "model.safetensors.partial"
    data = bytearray(file.read_bytes())
    data[first.shards[0].tensors[2].offset] ^= 1
    file.write_bytes(data)
    assert list(finished(tmp_path)) == first.order[:2]
    assert write_all(tmp_path) == expected


def test_a_torn_journal_line_is_skipped(tmp_path):
    first = interrupt(tmp_path, after=2)
    journal = tmp_path / "journal"
    journal.write_text(journal.read_text()[:-20])
    assert list(finished(tmp_path)) == first.order[:1]


def test_another_plan_starts_anew(tmp_path):
    interrupt(tmp_path, after=1, limit=600)
    assert finished(tmp_path, plan="another") == {}
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.safetensors.partial"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    expected = write_all(tmp_path / "undisturbed", limit=2000)
    first = interrupt(tmp_path, after=len(TENSORS), limit=2000)
    shard = first.shards[0].file
    (tmp_path / "out" / f"{shard}.partial").rename(tmp_path / "out" / shard)
    assert len(finished(tmp_path, limit=2000)) == len(TENSORS)
    assert write_all(tmp_path, limit=2000) == expected


def test_a_full_disk_is_named_leaves_nothing_and_can_be_retried(tmp_path):
    with pytest.raises(SpearError) as caught, no_file_beyond(1000):
        write_all(tmp_path)
    assert (caught.value.code, caught.value.names["file"]) == (Code.DISK_FULL, "model.safetensors")
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "journal").exists()
    assert "model.safetensors" in write_all(tmp_path)


def test_a_disk_too_full_for_the_journal_leaves_nothing(tmp_path):
    with pytest.raises(SpearError) as caught, no_file_beyond(4):
        writer(tmp_path)
    assert (caught.value.code, caught.value.names["file"]) == (Code.DISK_FULL, "journal")

    def record_the_second():
        with writer(tmp_path) as to:
            write_one(to, to.order[0])
            to.write(to.order[1], memory(TENSORS[to.order[1]].reshape(-1)))
            with no_file_beyond((tmp_path / "journal").stat().st_size + 4):
                to.finish(to.order[1])

    with pytest.raises(SpearError) as caught:
        record_the_second()
    assert caught.value.names["file"] == "journal"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_disk_too_full_for_the_index_or_the_companions_leaves_nothing(tmp_path):
    def write_the_index():
        with writer(tmp_path, limit=600) as to:
            for name in to.order:
                write_one(to, name)
            with no_file_beyond(4):
                to.complete()

    with pytest.raises(SpearError) as caught:
        write_the_index()
    assert caught.value.names["file"] == "model.safetensors.index.json"
    assert not any((tmp_path / "out").iterdir())
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{" + " " * 100 + "}")
    with pytest.raises(SpearError) as caught, no_file_beyond(50):
        copy_companions(tmp_path, tmp_path / "out", dtype=None)
    assert caught.value.names["file"] == "tokenizer.json"
    assert not any((tmp_path / "out").iterdir())


def test_an_expected_failure_leaves_nothing(tmp_path):
    with suppress(SpearError), writer(tmp_path, limit=600) as to:
        write_one(to, to.order[0])
        raise SpearError(Code.NONFINITE_TENSOR, "as the merge raises it")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_tensor_of_the_wrong_length_is_a_bug(tmp_path):
    with writer(tmp_path) as to:
        to.write(to.order[0], memory(torch.zeros(3, dtype=torch.uint8)))
        with pytest.raises(ValueError, match="written up to"):
            to.finish(to.order[0])
        with pytest.raises(ValueError, match="never written"):
            to.complete()
