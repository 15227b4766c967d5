"""What token ids mean: the token-to-id maps of tokenizers, compared. Pure."""

from dataclasses import dataclass
from typing import Any

from app.errors import Code, SpearError
from app.hub.strictjson import MAX_DEPTH, parse_object

COMPARABLE = ("tokenizer.json", "vocab.json")
"""Files whose token-to-id map can be read, the best first."""
OPAQUE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")
"""Files that are compared by digest only."""


@dataclass(frozen=True)
class Vocabulary:
    """`ids` maps each token to its id."""

    repo: str
    file: str
    ids: dict[str, int]


def parse_vocabulary(raw: bytes, *, repo: str, file: str, max_depth: int = MAX_DEPTH) -> Vocabulary:
    """The token-to-id map in a `tokenizer.json` or `vocab.json`; raises `VOCABULARY_MISMATCH` where there is none."""
    try:
        data = parse_object(raw, code=Code.VOCABULARY_MISMATCH, file=file, max_depth=max_depth)
    except SpearError as error:
        raise SpearError(error.code, f"{repo}: {error.message}", **{**error.names, "repo": repo}) from None
    ids = data if file != "tokenizer.json" else _ids(data)
    if not ids or not all(type(number) is int for number in ids.values()):
        raise SpearError(Code.VOCABULARY_MISMATCH, f"{file} of {repo} holds no vocabulary", repo=repo, file=file)
    return Vocabulary(repo, file, ids)


def compare_vocabularies(base: Vocabulary, other: Vocabulary) -> tuple[str, ...]:
    """Warnings; raises `VOCABULARY_MISMATCH` naming the first token, by id, on which the two disagree.

    They disagree where a token has two ids, or an id two tokens. Tokens that only one of them has, at ids that the
    other does not use (added control tokens in a padded embedding), are a warning.
    """
    fault = min((*_moved(base, other), *_renamed(base, other)), default=None)
    if fault is not None:
        _, token, words = fault
        raise SpearError(
            Code.VOCABULARY_MISMATCH, f"{other.repo} and {base.repo} differ in their vocabulary: {words}",
            repo=other.repo, file=other.file, token=token,
        )
    return tuple(
        f"{here.repo} has {len(more)} tokens that {there.repo} lacks, the first {more[0]!r}"
        for here, there in ((base, other), (other, base))
        if (more := sorted(here.ids.keys() - there.ids.keys(), key=lambda token: here.ids[token]))
    )


def _moved(base: Vocabulary, other: Vocabulary) -> list[tuple[int, str, str]]:
    return [
        (number, token, f"{token!r} is {number} in the base and {other.ids[token]} in the other")
        for token, number in base.ids.items()
        if other.ids.get(token, number) != number
    ]


def _renamed(base: Vocabulary, other: Vocabulary) -> list[tuple[int, str, str]]:
    names = {number: token for token, number in other.ids.items()}
    return [
        (number, token, f"id {number} is {token!r} in the base and {names[number]!r} in the other")
        for token, number in base.ids.items()
        # several tokens may share an id in a damaged file: only a token that the other lacks can be renamed
        if token not in other.ids and number in names
    ]


def _ids(data: dict[str, Any]) -> dict[str, Any]:
    """The map in a `tokenizer.json`: BPE and WordPiece store it, Unigram stores a list in the ids' order."""
    model = data.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids: dict[str, Any] = {}
    if isinstance(vocab, dict):
        ids.update(vocab)
    elif isinstance(vocab, list):
        ids.update({str(entry[0]): number for number, entry in enumerate(vocab) if isinstance(entry, list) and entry})
    more = data.get("added_tokens")
    for added in more if isinstance(more, list) else ():
        if isinstance(added, dict) and isinstance(added.get("content"), str):
            ids[added["content"]] = added.get("id")
    return ids
