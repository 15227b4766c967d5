"""Rows of embeddings and heads matched by token, where models differ in their vocabularies. Pure.

The output has the rows of one model, the source. For every other model each of these rows is its own row of the same
token, wherever that stands; a token that it lacks takes its row from the first model that has it, base before experts.
Rows that belong to no token (a vocabulary padded to a round number) are the source's in every model.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.errors import Code, SpearError
from app.hub.vocabulary import COMPARABLE, parse_vocabulary

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
BY_TOKEN = (*EMBEDDINGS, "lm_head.weight", "lm_head.bias", "embed_out.weight")
"""Ends of the names of tensors whose first dimension counts tokens."""
ADDED = "added_tokens.json"

Origin = tuple[int, int]
"""A model's number (0 is the base, then the experts), and a row of its tensor."""


@dataclass(frozen=True)
class Lexicon:
    """A model's tokens: `ids` maps each to its row; `rows` is how many the embedding has, padding among them."""

    repo: str
    ids: Mapping[str, int]
    rows: int

    def row(self, token: str) -> int | None:
        """The token's row, if the model has it: an id behind the embedding's end has none."""
        found = self.ids.get(token)
        return found if found is not None and 0 <= found < self.rows else None


def read_tokens(read: Callable[[str], bytes | None], *, repo: str) -> dict[str, int]:
    """The token-to-id map of a repository; `read` gives a file's content, `None` where it is not there.

    Raises `SpearError(VOCABULARY_MISMATCH)` where no file holds one that can be read.
    """
    for name in COMPARABLE:
        raw = read(name)
        if raw is None:
            continue
        ids = dict(parse_vocabulary(raw, repo=repo, file=name).ids)
        more = read(ADDED) if name != COMPARABLE[0] else None
        return ids | (parse_vocabulary(more, repo=repo, file=ADDED).ids if more else {})
    raise SpearError(
        Code.VOCABULARY_MISMATCH, f"{repo} has no {' or '.join(COMPARABLE)}: its tokens cannot be matched", repo=repo
    )


def by_token(name: str) -> bool:
    """Whether a tensor of this name has a row for each token."""
    return name.endswith(BY_TOKEN)


def count_rows(shapes: Mapping[str, tuple[int, ...]], *, repo: str) -> int:
    """The rows of a model's embedding, from its tensors' shapes by name.

    Raises `SpearError(VOCABULARY_MISMATCH)` where there is none, where tensors by token differ in their rows, and where
    a further table has a row for each token.
    """
    found = {name: shape[0] for name, shape in shapes.items() if by_token(name) and shape}
    rows = next((count for name, count in found.items() if name.endswith(EMBEDDINGS)), None)
    if rows is None:
        raise _mismatch(f"{repo} has no embedding whose rows could be matched by token", repo=repo)
    if rows == 0:
        raise _mismatch(f"the embedding of {repo} has no rows", repo=repo)
    for name, count in found.items():
        if count != rows:
            raise _mismatch(f"{name} of {repo} has {count} rows, its embedding {rows}", repo=repo, tensor=name)
    for name, shape in shapes.items():
        if not by_token(name) and "embed" in name and shape[:1] == (rows,):
            raise _mismatch(f"{name} of {repo} cannot be matched by token", repo=repo, tensor=name)
    return rows


def match_rows(lexicons: Sequence[Lexicon], *, source: int, number: int) -> list[Origin]:
    """Where model `number` takes each of the output's rows from."""
    rows = lexicons[source].rows
    origins = [(source, row) for row in range(rows)]
    if number == source:
        return origins
    order = [number, *(other for other in range(len(lexicons)) if other != number)]
    for token in lexicons[source].ids:
        place = lexicons[source].row(token)
        if place is None or origins[place][0] == number:
            continue  # of several tokens with one id, the first that the model has itself counts
        having = ((other, row) for other in order if (row := lexicons[other].row(token)) is not None)
        origins[place] = next(having, origins[place])
    return origins


def row_warnings(lexicons: Sequence[Lexicon], *, source: int) -> tuple[str, ...]:
    """What matching by token does to each model, in words; nothing for a model with the source's own vocabulary."""
    target = lexicons[source]
    told = [
        _about(lexicons, source=source, number=number)
        for number, lexicon in enumerate(lexicons)
        if number != source and (dict(lexicon.ids) != dict(target.ids) or lexicon.rows != target.rows)
    ]
    padding = target.rows - len({row for token in target.ids if (row := target.row(token)) is not None})
    if told and padding:
        told.append(f"{padding} of the {target.rows} rows belong to no token: they are those of {target.repo}")
    return tuple(dict.fromkeys(told))


def _about(lexicons: Sequence[Lexicon], *, source: int, number: int) -> str:
    target, own = lexicons[source], lexicons[number]
    tokens = {row for token in target.ids if (row := target.row(token)) is not None}
    origins = [match for row, match in enumerate(match_rows(lexicons, source=source, number=number)) if row in tokens]
    taken = Counter(lexicons[other].repo for other, _ in origins if other != number)
    kept = len(origins) - taken.total()
    words = f"{own.repo}: {kept} of {target.rows} rows matched by token to the vocabulary of {target.repo}"
    words += "".join(f", {count} that it lacks taken from {repo}" for repo, count in taken.items())
    foreign = ((own.row(token), token) for token in own.ids if target.row(token) is None)
    if lost := sorted((row, token) for row, token in foreign if row is not None):
        words += f"; left out are {len(lost)} of its tokens that this vocabulary lacks, the first {lost[0][1]!r}"
    return words


def _mismatch(message: str, **names: str) -> SpearError:
    return SpearError(Code.VOCABULARY_MISMATCH, message, **names)
