"""Chunks through a device's lanes, and its integer arithmetic: on the CPU, where nothing is queued."""

import numpy as np
import pytest
import torch

from app.errors import Code, SpearError
from worker.checkpoints.behind import WriteBehind
from worker.checkpoints.reader import Checkpoint, memory
from worker.checkpoints.writer import ShardedWriter
from worker.methods import NotFiniteError, Workspace
from worker.methods.counter import key_of, random_words
from worker.methods.patterns import bracketed, equals, mixed_words
from worker.pipeline.staging import DEPTH, Part, Staging

CPU = torch.device("cpu")


@pytest.mark.parametrize("overlap", [True, False])
def test_chunks_of_any_size_arrive_in_order(tmp_path, overlap):
    """Ten chunks through two slots: every piece is written where it belongs, and sees what was read for it."""
    values = torch.arange(10_000, dtype=torch.float32)
    spans = [(at, min(at + 1111, 10_000)) for at in range(0, 10_000, 1111)]
    wanted = [("w", "F32", (10_000,))]
    with (
        ShardedWriter(tmp_path / "o", tensors=wanted, max_shard_bytes=10**6, journal=tmp_path / "j", plan="") as writer,
        WriteBehind(writer, overlap=overlap, held=DEPTH) as behind, Staging(CPU, behind) as staging,
    ):
        part = Part(torch.float32, lambda start, stop, out: out.copy_(values[start:stop]))
        for chunk in staging.chunks(spans, [None, part]):
            assert chunk.base.numel() == 0
            out = staging.room(len(chunk), torch.float32)
            staging.store("w", out.copy_(chunk.experts[0]).mul_(2))
        staging.flush()
        behind.finish("w", note="", then=lambda: None)
    (tmp_path / "o" / "model.safetensors.partial").rename(tmp_path / "o" / "model.safetensors")
    (tmp_path / "o" / "config.json").write_text("{}")
    with Checkpoint.open(tmp_path / "o") as written:
        assert torch.equal(written.read("w"), values * 2)


def test_a_failed_read_is_raised_and_ends_the_reading(tmp_path):
    def fail(start, stop, out):
        raise SpearError(Code.FILE_CORRUPT, "the file ends", file="f")

    with (
        ShardedWriter(tmp_path / "o", tensors=[], max_shard_bytes=10**6, journal=tmp_path / "j", plan="") as writer,
        WriteBehind(writer, held=DEPTH) as behind, Staging(CPU, behind) as staging,
        pytest.raises(SpearError, match="the file ends"),
    ):
        list(staging.chunks([(0, 5), (5, 10), (10, 15)], [Part(torch.float32, fail)]))


@pytest.mark.parametrize("start", [0, 1, 77, 1 << 40])
def test_words_are_those_of_the_cpu(start):
    key = key_of("any", start)
    plain = random_words(key, start=start, size=20_000, work=Workspace())
    assert torch.equal(mixed_words(key, start=start, size=20_000, device=CPU), plain)


def test_brackets_and_equals_are_those_of_numpy():
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    bits = values.view(torch.int32).numpy() & 0x7FFFFFFF
    low, high = int(np.quantile(bits, 0.4)), int(np.quantile(bits, 0.6))
    finite, above, within = bracketed(values, low=low, high=high)
    assert finite
    assert above == (bits > high).sum()
    assert np.array_equal(within.numpy(), bits[(bits >= low) & (bits <= high)] - low)
    magnitude = abs(values[17].item())
    assert equals(values, magnitude).tolist() == np.flatnonzero(np.abs(values.numpy()) == magnitude).tolist()
    assert not bracketed(torch.tensor([1.0, float("nan")]), low=low, high=high)[0]
    assert not bracketed(torch.tensor([1.0, float("-inf")]), low=low, high=high)[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_the_cpu_s_words():
    there = torch.device("cuda")
    plain = random_words(5, start=3, size=100_000, work=Workspace())
    assert torch.equal(mixed_words(5, start=3, size=100_000, device=there).cpu(), plain)


def test_a_piece_that_is_not_finite_is_told_before_it_is_written(tmp_path):
    wanted = [("w", "F32", (4,))]
    with (
        ShardedWriter(tmp_path / "o", tensors=wanted, max_shard_bytes=10**6, journal=tmp_path / "j", plan="") as writer,
        WriteBehind(writer, held=DEPTH) as behind, Staging(CPU, behind) as staging,
    ):
        out = staging.room(4, torch.float32)
        staging.store("w", out.fill_(float("inf")))
        with pytest.raises(NotFiniteError):
            staging.flush()
        assert memory(out).nbytes == 16
