"""Tasks over texts that nobody was trained on: how likely a text is, and which continuation is the true one."""

import json
import random
from pathlib import Path
from typing import Any

from benchmarks.study.experts import documents

TEXTS, QUESTIONS = {"held_out": 20, "calibration": 10}, {"held_out": 48, "calibration": 20}
CHOICES = 3
_LENGTHS = {"japanese": (36, 16)}
_USUAL = (100, 40)
"""characters of what is given, and of a continuation; a Japanese character is about two tokens"""


def write(folder: Path, kinds: tuple[str, ...]) -> None:
    """`<kind>-<part>-text.jsonl` and `<kind>-<part>-next.jsonl` of each kind, for both parts."""
    for kind in kinds:
        for part in ("calibration", "held_out"):
            pieces = _pieces(kind, part)
            texts = [{"text": before + after} for before, after in pieces[: TEXTS[part]]]
            _dump(folder / f"{kind}-{part}-text.jsonl", texts)
            _dump(folder / f"{kind}-{part}-next.jsonl", _questions(pieces[: QUESTIONS[part]], kind=kind))


def named(kind: str, part: str, *, repo: str) -> list[dict[str, Any]]:
    """The tasks as a recipe names them."""
    ability = {} if kind == "general" else {"ability": kind}
    about = {"repo": repo, "repo_type": "dataset", **ability}
    return [
        {"name": f"{kind}-{part}-{form}", "kind": kind_of, "path": f"{kind}-{part}-{form}.jsonl", **about}
        for form, kind_of in (("next", "multiple_choice"), ("text", "perplexity"))
    ]


def _pieces(kind: str, part: str) -> list[tuple[str, str]]:
    """What is given and what follows, from all over the texts."""
    given, following = _LENGTHS.get(kind, _USUAL)
    found = []
    for text in documents(kind, part=part):
        if kind == "math":
            before, _, after = text.partition("\nAnswer:")
            found.append((before + "\nAnswer:", after.rstrip("\n")[:60]))
            continue
        step = given + following
        starts = range(0, len(text) - step, 3 * step)
        found += [(text[start : start + given], text[start + given : start + step]) for start in starts]
    found = [piece for piece in found if piece[0].strip() and piece[1].strip()]
    random.Random(f"{kind} {part}").shuffle(found)
    return found[: max(TEXTS[part], QUESTIONS[part])]


def _questions(pieces: list[tuple[str, str]], *, kind: str) -> list[dict[str, Any]]:
    draw = random.Random(kind)
    items = []
    for number, (given, following) in enumerate(pieces):
        others = [after for i, (_, after) in enumerate(pieces) if i != number and after != following]
        choices = [following, *draw.sample(others, CHOICES - 1)]
        draw.shuffle(choices)
        items.append({"question": given, "choices": choices, "answer": choices.index(following)})
    return items


def _dump(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
