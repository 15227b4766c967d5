"""The demo's own arithmetic: conversion, interpolation, strength, verdict. The whole of it is `make demo`."""

import io
import socket
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.demo import llama, places, service, texts, verdict
from benchmarks.demo.measure import Loss, Measured, interpolate, strength

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "1", "2", "Ġ", "ab", "12", "Ġab"]


def made(*, restored: Loss, **uniform: Loss) -> Measured:
    return Measured(
        base=Loss(general=3.0, domain=2.0),
        adapted=Loss(general=4.0, domain=1.0),
        restored=restored,
        uniform={0.8: Loss(general=3.6, domain=1.02), 0.5: Loss(general=3.2, domain=1.2)},
        strength=0.8,
    )


def test_the_order_of_rotary_rows_is_undone() -> None:
    weight = np.arange(4 * 6 * 5, dtype=np.float32).reshape(24, 5)  # 4 heads of 6 rows
    as_in_gguf = weight.reshape(4, 2, 3, 5).swapaxes(1, 2).reshape(24, 5)  # llama.cpp's permute
    assert not np.array_equal(as_in_gguf, weight)
    np.testing.assert_array_equal(llama.rotary(as_in_gguf, heads=4), weight)


def test_tensors_have_their_names_in_transformers() -> None:
    assert llama.weight_name("token_embd.weight") == "model.embed_tokens.weight"
    assert llama.weight_name("blk.12.attn_output.weight") == "model.layers.12.self_attn.o_proj.weight"


def test_the_tokenizer_splits_digits_and_keeps_control_tokens() -> None:
    said = {
        "tokenizer.ggml.tokens": WORDS, "tokenizer.ggml.merges": ["a b", "1 2", "Ġ ab"], "llama.context_length": 64,
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(WORDS) - 3)], "tokenizer.chat_template": "{{ messages }}",
    }  # fmt: skip
    tokenizer = llama.tokenizer(said)
    assert tokenizer("ab ab12<|im_end|>").input_ids == [8, 10, 5, 6, 2]
    assert tokenizer.decode([8, 10, 5, 6]) == "ab ab12"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_interpolation_and_strength_agree() -> None:
    base = {"model.embed_tokens.weight": torch.zeros(8, 4), "x": torch.ones(3)}
    adapted = {name: tensor + 2.0 for name, tensor in base.items()}
    for t in (0.0, 0.25, 1.0):
        assert strength(base, adapted, interpolate(base, adapted, t=t)) == pytest.approx(t)
    half = {**adapted, "model.embed_tokens.weight": base["model.embed_tokens.weight"]}
    assert strength(base, adapted, half) == pytest.approx((3 / 35) ** 0.5)


def test_a_tied_head_is_counted_once() -> None:
    base = {"model.embed_tokens.weight": torch.zeros(8, 4), "x": torch.ones(4)}
    adapted = {"model.embed_tokens.weight": torch.ones(8, 4), "x": torch.ones(4) * 3}
    tied = [{**w, "lm_head.weight": w["model.embed_tokens.weight"]} for w in (base, adapted)]
    restored = {**tied[1], "x": base["x"]}
    assert strength(*tied, restored) == pytest.approx(strength(base, adapted, {**adapted, "x": base["x"]}))


def test_shares_are_of_what_was_forgotten_and_gained() -> None:
    found = made(restored=Loss(general=3.25, domain=1.1))
    assert (found.undone(found.base), found.undone(found.adapted)) == (1.0, 0.0)
    assert (found.kept(found.base), found.kept(found.adapted)) == (0.0, 1.0)
    assert (found.undone(found.restored), found.kept(found.restored)) == pytest.approx((0.75, 0.9))
    assert found.uniform_undone(kept=0.98) == pytest.approx(0.4)
    assert found.uniform_undone(kept=0.89) == pytest.approx(0.6)
    assert found.forgets


@pytest.mark.parametrize(
    ("general", "said"), [(3.2, "better than"), (3.41, "as good as"), (3.39, "as good as"), (3.9, "here worse than")]
)
def test_the_verdict_says_how_the_control_does_at_the_same_price(general: float, said: str) -> None:
    found = made(restored=Loss(general=general, domain=1.11))  # there, uniform interpolation undoes 60 %
    sentence = verdict.sentence(found)
    assert f"undoes {4 - general:.0%} of the forgetting and keeps 89% of the gain; {said} uniform" in sentence
    assert "which undoes 60% where it keeps as much" in sentence


def test_the_table_has_every_model() -> None:
    screen = Console(width=80, file=io.StringIO(), record=True)
    screen.print(verdict.table(made(restored=Loss(general=3.25, domain=1.1))))
    lines = screen.export_text().splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "base", "adapted", "restored", "uniform t = 0.80, matched", "uniform t = 0.50",
    ]  # fmt: skip
    assert lines[3].split() == ["restored", "3.250", "1.100", "75%", "90%"]


def test_a_folder_is_made_once_and_only_whole(tmp_path: Path) -> None:
    target, runs = tmp_path / "model", []

    def broken(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("power cut")

    def whole(folder: Path) -> None:
        runs.append(folder)
        (folder / "weights").write_text("all")

    with pytest.raises(RuntimeError, match="power cut"):
        places.once(target, broken)
    assert not target.exists()
    assert places.once(target, whole) == target
    assert places.once(target, whole) == target
    assert len(runs) == 1
    assert [file.name for file in target.iterdir()] == ["weights"]


@pytest.mark.skipif(find_spec("gguf") is None, reason="the demo's packages come with `make demo`")
def test_problems_can_be_made_again_and_differ_by_seed() -> None:
    said = {
        "tokenizer.ggml.tokens": WORDS, "tokenizer.ggml.merges": ["a b"], "llama.context_length": 64,
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(WORDS) - 3)], "tokenizer.chat_template": "",
    }  # fmt: skip
    tokenizer = llama.tokenizer(said)
    first, again, other = (texts.problems(tokenizer, blocks=1, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (1, texts.BLOCK)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_missing_package_is_named() -> None:
    assert places.package_folder("rich").name == "rich"
    with pytest.raises(SystemExit, match="no_such_package_at_all is missing"):
        places.package_folder("no_such_package_at_all")


def test_the_service_starts_apart_from_other_installations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEAR_DATABASE_URL", "postgresql://somewhere.else/")
    assert not [name for name in service._environment() if name.startswith("SPEAR_")]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(service, "PORT", taken.getsockname()[1])
        assert service._port() != service.PORT
