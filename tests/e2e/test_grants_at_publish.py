"""What a key may do is asked again before the publish: a key that ended while its merge was computed publishes nothing.

The download is slow here, so that the key's grants change after the job's checks and before its publish.
"""

from dataclasses import replace

import pytest

from app.client import Client
from app.jobs.database import Database
from app.jobs.keys import Keys
from app.local.postgres import Postgres
from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service


@pytest.fixture
def keys(service: Service):
    database = Database(Postgres(service.home / "postgres").url, pool_size=1)
    yield Keys(database, secret=(service.home / "secret").read_text().strip().encode())
    database.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_key_that_was_revoked_while_its_job_ran_publishes_nothing(service, keys, tmp_path, replaced):
    owner, target = f"owner{replaced}", f"revoked{replaced}"
    base = make_checkpoint(tmp_path / "base", seed=50 + replaced)
    pair = (service.push(f"base{target}", base), service.push(f"expert{target}", make_checkpoint(
        tmp_path / "expert", seed=60 + replaced, like=base
    )))  # fmt: skip
    grants = {"scopes": ("merges:read", "merges:write"), "reads": [service.user]}
    row, token = keys.add(name="doomed", owner=owner, writes=[service.user], **grants)
    service.hub.fault("slow", path=r"/resolve/.*safetensors$", ranged=False, delay=3, times=1)
    onlooker = replace(service, key=keys.create(name=f"onlooker{replaced}", scopes=("admin",)))
    with Client(service.url, token) as client:
        job = client.submit(service.recipe(*pair, target, method={"name": "linear"}))
        onlooker.wait(job["id"], until=lambda job: job["stage"] == "downloading")
    if replaced:  # the owner keeps a key, which may not write there
        keys.add(name="other", owner=owner, writes=[f"{service.user}/elsewhere"], **grants)
    keys.revoke_one(row.id)
    ended = onlooker.wait(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "write_not_granted"), ended["error"]
    assert "merging" in [stage["name"] for stage in ended["stages"]]
    assert "publishing" not in [stage["name"] for stage in ended["stages"]]
    assert not service.hub.api(service.token).repo_exists(f"{service.user}/{target}")
