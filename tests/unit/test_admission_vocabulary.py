"""Vocabularies compared: what an id means must not differ."""

import json

import pytest

from app.errors import Code, SpearError
from app.hub.vocabulary import Vocabulary, compare_vocabularies, parse_vocabulary


def parse(data, file="tokenizer.json"):
    return parse_vocabulary(json.dumps(data).encode(), repo="org/a", file=file).ids


def compare(base, other):
    return compare_vocabularies(Vocabulary("org/a", "t", base), Vocabulary("org/b", "t", other))


def test_every_form_of_vocabulary_is_read():
    added = [{"id": 2, "content": "<s>"}]
    assert parse({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added}) == {"a": 0, "b": 1, "<s>": 2}
    assert parse({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": added}) == {"a": 0, "b": 1, "<s>": 2}
    assert parse({"a": 0}, file="vocab.json") == {"a": 0}


@pytest.mark.parametrize("data", [{}, {"model": 3}, {"model": {"vocab": 3}}, {"model": {"vocab": {"a": "0"}}},
                                  {"model": {"vocab": {"a": True}}}, {"added_tokens": [{"content": "x"}]}])  # fmt: skip
def test_a_file_without_a_vocabulary_is_refused(data):
    with pytest.raises(SpearError) as caught:
        parse(data)
    assert caught.value.code is Code.VOCABULARY_MISMATCH
    assert caught.value.names == {"repo": "org/a", "file": "tokenizer.json"}


def test_equal_maps_agree():
    assert compare({"a": 0, "b": 1}, {"b": 1, "a": 0}) == ()


@pytest.mark.parametrize(
    ("base", "other", "token"),
    [
        ({"a": 0, "b": 1, "c": 2}, {"a": 0, "b": 2, "c": 1}, "b"),  # two tokens changed places: the first by id
        ({"a": 0, "b": 1}, {"a": 0, "x": 1}, "b"),  # an id that means another token
        ({"a": 0, "b": 1, "c": 2}, {"a": 0, "b": 1, "c": 3}, "c"),  # a token that has moved away
    ],
)
def test_the_first_token_that_differs_is_named(base, other, token):
    with pytest.raises(SpearError) as caught:
        compare(base, other)
    assert caught.value.code is Code.VOCABULARY_MISMATCH
    assert (caught.value.names["token"], caught.value.names["repo"]) == (token, "org/b")


def test_tokens_added_at_free_ids_are_a_warning_on_either_side():
    more, fewer = {"a": 0, "<x>": 5, "<y>": 4}, {"a": 0}
    assert compare(fewer, more) == ("org/b has 2 tokens that org/a lacks, the first '<y>'",)
    assert compare(more, fewer) == ("org/a has 2 tokens that org/b lacks, the first '<y>'",)
