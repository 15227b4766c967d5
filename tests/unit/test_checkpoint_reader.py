"""Reading: what the headers promise is what arrives, and what is broken is named."""

import json

import pytest
import torch
from safetensors.torch import load_file

from app.errors import Code, SpearError
from tests.fixtures.models import make_checkpoint
from worker.checkpoints.reader import Checkpoint


def stored(path):
    return {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shard", [60_000, "1GB"])
def test_every_tensor_is_read_as_stored(tmp_path, dtype, shard):
    path = make_checkpoint(tmp_path / "m", dtype=dtype, max_shard_size=shard, tied=False)
    expected = stored(path)
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(checkpoint.read(name), tensor)


def test_a_part_is_read_into_the_callers_buffer(base_model):
    buffer = torch.empty(1000, dtype=torch.bfloat16)
    with Checkpoint.open(base_model) as checkpoint:
        part = checkpoint.read_flat("model.embed_tokens.weight", start=17, stop=817, out=buffer)
        whole = checkpoint.read("model.embed_tokens.weight").flatten()
    assert part.data_ptr() == buffer.data_ptr()
    assert torch.equal(part, whole[17:817])


def test_spans_lie_one_behind_the_other(base_model):
    buffer, spans = torch.empty(1000, dtype=torch.bfloat16), [(3, 20), (700, 701), (701, 701), (90, 300)]
    with Checkpoint.open(base_model) as checkpoint:
        parts = checkpoint.read_spans("model.embed_tokens.weight", spans, out=buffer)
        whole = checkpoint.read("model.embed_tokens.weight").flatten()
        with pytest.raises(ValueError, match="BF16"):
            checkpoint.read_spans("model.norm.weight", spans, out=torch.empty(1000))
    assert parts.data_ptr() == buffer.data_ptr()
    assert torch.equal(parts, torch.cat([whole[start:stop] for start, stop in spans]))


def test_a_wrong_buffer_and_an_unknown_tensor_are_refused(base_model):
    with Checkpoint.open(base_model) as checkpoint:
        with pytest.raises(ValueError, match="BF16"):
            checkpoint.read_flat("model.norm.weight", start=0, stop=4, out=torch.empty(4))
        with pytest.raises(SpearError) as caught:
            checkpoint.read("model.nothing")
    assert caught.value.code == Code.TENSOR_MISSING
    assert caught.value.names["tensor"] == "model.nothing"


def test_a_shard_cut_short_after_opening_is_named(tmp_path):
    path = make_checkpoint(tmp_path / "m", max_shard_size="1GB")
    with Checkpoint.open(path) as checkpoint:
        file = path / "model.safetensors"
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size // 2)
        last = list(checkpoint.tensors)[-1]
        with pytest.raises(SpearError) as caught:
            checkpoint.read(last)
    assert caught.value.code == Code.FILE_CORRUPT
    assert caught.value.names == {"file": "model.safetensors", "tensor": last}


def test_missing_parts_each_have_their_code(tmp_path):
    path = make_checkpoint(tmp_path / "m")
    cases = {
        "model-00002-of-00003.safetensors": Code.SHARD_MISSING,
        "config.json": Code.CONFIG_INVALID,
        "model.safetensors.index.json": Code.WEIGHTS_MISSING,
    }
    for file, code in cases.items():
        kept = (path / file).read_bytes()
        (path / file).unlink()
        with pytest.raises(SpearError) as caught:
            Checkpoint.open(path)
        assert caught.value.code == code
        (path / file).write_bytes(kept)


def test_a_tensor_in_two_shards_is_named(tmp_path):
    path = make_checkpoint(tmp_path / "m")
    first, second = sorted(path.glob("*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(SpearError) as caught:
        Checkpoint.open(path)
    assert caught.value.code == Code.DUPLICATE_TENSOR
    assert caught.value.names["tensor"] in json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
