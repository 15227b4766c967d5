"""Which names a target's branch may have."""

import pytest

from app.errors import Code, SpearError
from app.recipes import parse_recipe

BAD = ["0123456789" * 4, "ABCDEF0123" * 4, "HEAD", "refs/pr/1", "refs/heads/x", "a.lock/b"]


@pytest.mark.parametrize("branch", BAD)
def test_names_that_no_hub_takes_for_a_branch_are_refused_at_once(branch):
    recipe = {
        "base": {"repo": "o/b"}, "experts": [{"repo": "o/a"}], "method": {"name": "linear"},
        "target": {"repo": "o/t", "branch": branch},
    }
    with pytest.raises(SpearError) as caught:
        parse_recipe(recipe)
    assert caught.value.code is Code.INVALID_RECIPE
    assert [e["pointer"] for e in caught.value.names["errors"]] == ["/target/branch"]
    assert parse_recipe(recipe | {"target": {"repo": "o/t", "branch": "head/refs"}}).target.branch == "head/refs"
