"""What is said of a field is told in our words, without those of the library that checks it."""

import pytest

from app.errors import SpearError
from app.recipes import parse_measuring


def test_a_rule_of_ours_is_told_without_the_librarys_prefix() -> None:
    body = {"models": [{"repo": "org/a"}], "base": {"repo": "org/b"}, "evaluation": {"general": [{"task": "arc_easy"}]}}
    with pytest.raises(SpearError) as caught:
        parse_measuring(body)
    assert caught.value.message.startswith("/: base and experts go together")
    assert caught.value.names["errors"][0]["detail"].startswith("base and experts go together")
