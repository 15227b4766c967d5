"""The whole service: a merge that is traced, signed and told to a webhook."""

import json
import os
import subprocess
import sys
import time

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from standardwebhooks.webhooks import Webhook

from tests.fixtures.service import start_service, stop_service

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.slow
def test_a_merge_is_traced_signed_and_told(local_hub_server, receiver, tmp_path, base_model, adapted_model):
    private = Ed25519PrivateKey.generate()
    (tmp_path / "signing.pem").write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "signing.pub").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    service = start_service(
        local_hub_server, tmp_path, SPEAR_WEBHOOK_HOSTS=receiver.origin,
        SPEAR_SIGNING_KEY_FILE=str(tmp_path / "signing.pem"),
    )
    try:
        base, adapted = service.push("base", base_model), service.push("adapted", adapted_model)
        receiver.answers = [500]  # tried again after five seconds
        headers = {"Authorization": f"Bearer {service.key}", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        recipe = service.recipe(base, adapted, "told", webhook=f"{receiver.origin}/hook")
        submitted = httpx2.post(f"{service.url}/merges", json=recipe, headers=headers, timeout=30).json()
        job = service.wait(submitted["id"])
        assert job["status"] == "succeeded", job["error"]
        assert_traced(service, job["id"])
        assert_signed(service, job, tmp_path)
        assert_told(service, job["id"], receiver)
    finally:
        stop_service(service)


def assert_traced(service, job_id: str) -> None:
    with service.client() as client:
        assert {event["trace_id"] for event in client.events(job_id)} == {TRACE}
    claimed = [line for line in service.log.read_text().splitlines() if '"job.ended"' in line and job_id in line]
    assert [json.loads(line)["trace_id"] for line in claimed] == [TRACE]


def assert_signed(service, job, folder) -> None:
    repo, commit = job["result"]["repo"], job["result"]["commit"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")} | {
        "SPEAR_HUB_ENDPOINT": service.hub.endpoint, "SPEAR_HUB_TOKEN_FILE": str(folder / "token"),
    }
    run = subprocess.run(
        [sys.executable, "-m", "app.cli", "verify", f"{repo}@{commit}", "--key", str(folder / "signing.pub")],
        env=environment, capture_output=True, text=True, check=False,
    )
    assert run.returncode == 0, run.stderr
    assert f"{repo}@{commit}" in run.stdout


def assert_told(service, job_id: str, receiver) -> None:
    with service.client() as client:
        end = time.monotonic() + 20
        while client.deliveries(job_id)[0]["status"] == "pending" and time.monotonic() < end:
            time.sleep(0.2)
        [delivery] = client.deliveries(job_id)
    assert (delivery["type"], delivery["status"]) == ("job.succeeded", "delivered")
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [500, 204]
    secrets = httpx2.get(
        f"{service.url}/webhooks/secrets", headers={"Authorization": f"Bearer {service.key}"}, timeout=30
    ).json()["data"]
    for sent, body in receiver.requests:
        assert Webhook(secrets[0]).verify(body, sent)["data"]["id"] == job_id
