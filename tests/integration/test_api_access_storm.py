"""One hundred identical submissions at once make one job; `STORM_ROUNDS=20` in the environment for the long form."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

CALLERS = 100
ROUNDS = int(os.environ.get("STORM_ROUNDS", "2"))


@pytest.mark.parametrize("storm", range(ROUNDS))
def test_a_hundred_identical_submissions_make_one_job(api, storm):
    """Quoted and bare keys, two API keys of one owner, all at once; those without a turn are told to come again."""
    second = api.services.keys.create(
        name="second", owner="team", scopes=("merges:write",), reads=[api.user], writes=[api.user], unlimited=True
    )
    first = api.services.keys.create(
        name="first", owner="team", scopes=("merges:write",), reads=[api.user], writes=[api.user], unlimited=True
    )

    def one(number: int):
        name = f"storm-{storm}"
        for _ in range(200):
            answer = api.submit(
                key=(first, second)[number % 2], headers={"Idempotency-Key": (name, f'"{name}"')[number % 3 == 0]}
            )
            if answer.status_code != 503:
                return answer
        raise AssertionError("the service never had a turn")

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(one, range(CALLERS)))
    assert {answer.status_code for answer in answers} == {202}, {answer.text for answer in answers}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    with api.services.database.transaction() as session:
        assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == 1
        assert session.execute(text("SELECT count(*) FROM events WHERE type = 'job.queued'")).scalar() == 1
    other = api.services.keys.create(name="o", scopes=("merges:write",), reads=[api.user], writes=[f"{api.user}/t"])
    mine = api.submit(
        api.recipe(target={"repo": f"{api.user}/t"}), key=other, headers={"Idempotency-Key": f"storm-{storm}"}
    )
    assert (mine.status_code, mine.headers.get("Idempotent-Replayed")) == (202, None)  # another owner, another job
