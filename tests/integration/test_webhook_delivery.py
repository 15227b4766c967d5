"""Webhooks end to end: written with the job's end, signed, tried again, logged, sent anew."""

import json
import threading

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.jobs.leases import Lease
from app.jobs.states import Status
from app.jobs.webhooks import Deliveries
from app.settings import Settings
from app.webhooks.sender import Sender
from app.webhooks.signing import secrets_of

RESULT = {"repo": "a/b", "commit": "0" * 40, "url": "u", "selected": 1, "scored": 2, "metrics": {}}


@pytest.fixture
def sender(jobs, receiver, tmp_path):
    def make(**values) -> Sender:
        settings = Settings(
            **{"data_dir": tmp_path, "webhook_hosts": receiver.origin, "webhook_retry_seconds": "0,0,0"} | values
        )
        return Sender(settings, jobs.database)

    return make


def ended(jobs, receiver, *, webhook=None, status=Status.SUCCEEDED, target="org/target") -> str:
    hook = {"url": f"{receiver.origin}/hook", "events": ["job.succeeded", "job.failed", "job.cancelled"]}
    job_id = jobs.submit(target, recipe={"method": {"name": "spear"}, "webhook": webhook or hook})
    job = jobs.leases.claim(job_id, owner="w")
    lease = Lease(job_id=job_id, token=job.lease_token)
    error = {"code": "disk_full", "message": "full", "stage": None, "retryable": True, "hint": "", "names": {}}
    if status is Status.SUCCEEDED:
        jobs.leases.settle(lease, status, result=RESULT)
    else:
        jobs.leases.settle(lease, status, error=error)
    return job_id


def rows(jobs, statement: str):
    with jobs.database.engine.connect() as connection:
        return connection.exec_driver_sql(statement).all()


def test_a_word_is_signed_thin_and_sent_once(jobs, receiver, sender, tmp_path):
    job_id = ended(jobs, receiver)
    sending = sender()
    assert sending.send_one()
    assert not sending.send_one()
    [(headers, body)] = receiver.requests
    [secret] = secrets_of("team", settings=Settings(data_dir=tmp_path))
    word = Webhook(secret).verify(body, headers)
    assert word["type"] == "job.succeeded"
    assert word["data"] == {
        "id": job_id, "status": "succeeded",
        "links": {"self": f"/merges/{job_id}", "report": f"/merges/{job_id}/report"},
    }
    assert len(body) < 2_000
    assert headers["webhook-id"].startswith("msg_")
    [other] = secrets_of("other", settings=Settings(data_dir=tmp_path))
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)


def test_a_failing_receiver_is_tried_again_with_the_same_id_until_it_accepts(jobs, receiver, sender):
    ended(jobs, receiver, status=Status.FAILED)
    receiver.answers = [500, 302, 429]
    sending = sender()
    while sending.send_one():
        pass
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    assert len(receiver.requests) == 4
    assert rows(jobs, "SELECT status, tries FROM deliveries") == [("delivered", 4)]
    assert rows(jobs, "SELECT status_code FROM delivery_attempts ORDER BY number") == [(500,), (302,), (429,), (204,)]


def test_the_ladder_ends(jobs, receiver, sender):
    ended(jobs, receiver)
    receiver.answers = [500] * 9
    sending = sender()
    while sending.send_one():
        pass
    assert len(receiver.requests) == 4
    assert rows(jobs, "SELECT status, ended_at IS NULL FROM deliveries") == [("failed", False)]


def test_the_steps_of_the_ladder_are_waited_for(jobs, receiver, sender):
    ended(jobs, receiver)
    receiver.answers = [500]
    sending = sender(webhook_retry_seconds="600")
    assert sending.send_one()
    assert not sending.send_one()
    [(seconds,)] = rows(jobs, "SELECT extract(epoch FROM due_at - clock_timestamp()) FROM deliveries")
    assert 590 < seconds < 721


def test_gone_is_the_end(jobs, receiver, sender):
    ended(jobs, receiver)
    receiver.answers = [410]
    sending = sender()
    assert sending.send_one()
    assert not sending.send_one()
    assert rows(jobs, "SELECT status FROM deliveries") == [("failed",)]


def test_a_host_that_was_taken_off_the_list_hears_nothing_more(jobs, receiver, sender):
    ended(jobs, receiver)
    assert sender(webhook_hosts="").send_one()
    assert receiver.requests == []
    [(status, error)] = rows(jobs, "SELECT d.status, a.error FROM deliveries d JOIN delivery_attempts a ON true")
    assert status == "failed"
    assert error.startswith("refused: ")


def test_only_the_wanted_events_are_told(jobs, receiver, sender):
    ended(jobs, receiver, webhook={"url": receiver.origin, "events": ["job.failed"]})
    assert not sender().send_one()
    cancelled = jobs.submit(recipe={"webhook": {"url": receiver.origin, "events": ["job.cancelled"]}})
    jobs.store.cancel(jobs.caller, cancelled)
    assert sender().send_one()
    assert json.loads(receiver.requests[0][1])["data"]["status"] == "cancelled"


def test_a_rolled_back_end_tells_nothing(jobs, receiver, sender):
    job_id = jobs.submit(recipe={"webhook": {"url": receiver.origin, "events": ["job.succeeded"]}})
    job = jobs.leases.claim(job_id, owner="w")
    with pytest.raises(Exception, match="documents"):
        jobs.leases.settle(
            Lease(job_id=job_id, token=job.lease_token), Status.SUCCEEDED, result=RESULT, documents={"report": None}
        )
    assert jobs.get(job_id).status == "running"
    assert not sender().send_one()


def test_many_senders_send_each_word_once(jobs, receiver, sender):
    for number in range(24):
        ended(jobs, receiver, target=f"org/t{number}")
    sending = sender()

    def drain() -> None:
        while sending.send_one():
            pass

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ids = [headers["webhook-id"] for headers, _ in receiver.requests]
    assert len(ids) == len(set(ids)) == 24


def test_a_sender_that_died_delays_its_word_only(jobs, receiver, sender):
    ended(jobs, receiver)
    sending = sender()
    assert sending._outbox.take() is not None  # and it is gone
    assert not sending.send_one()
    jobs.execute("UPDATE deliveries SET due_at = clock_timestamp()")
    assert sending.send_one()
    assert len(receiver.requests) == 1


def test_one_owners_many_words_do_not_delay_anothers(jobs, receiver):
    for number in range(60):
        ended(jobs, receiver, target=f"org/target{number}")
    with jobs.database.engine.begin() as connection:  # the youngest word is somebody else's
        connection.exec_driver_sql(
            "UPDATE deliveries SET owner = 'other' WHERE due_at = (SELECT max(due_at) FROM deliveries)"
        )
    outbox = Deliveries(jobs.database, ladder=())
    taken = [outbox.take() for _ in range(61)]
    owners = [delivery.owner for delivery in taken if delivery]
    assert (len(owners), owners.count("other"), taken[-1]) == (60, 1, None)
    assert owners.index("other") < 30  # by lot: once in a thousand million times it would come later


def test_two_secrets_while_they_are_rotated(jobs, receiver, sender, tmp_path):
    lines = tmp_path / "webhooks"
    lines.write_text("whsec_bmV3LXNlY3JldA==\nwhsec_b2xkLXNlY3JldA==\n")
    ended(jobs, receiver)
    assert sender(webhook_secret_file=lines).send_one()
    [(headers, body)] = receiver.requests
    settings = Settings(data_dir=tmp_path, webhook_secret_file=lines)
    assert len(secrets_of("team", settings=settings)) == 2
    for secret in secrets_of("team", settings=settings):
        assert Webhook(secret).verify(body, headers)["type"] == "job.succeeded"


@pytest.mark.parametrize(
    ("webhook", "code", "pointer"),
    [
        ("https://hooks.example.org/x", "webhook_refused", "/webhook/url"),
        ({"url": "https://127.0.0.1/x"}, "webhook_refused", "/webhook/url"),
        ({"url": "http://user@hooks.example.org/x"}, "invalid_recipe", "/webhook/url"),
        ({"url": "https://0x7f.1/x"}, "invalid_recipe", "/webhook/url"),
        ({"url": "https://hooks.example.org/x", "events": ["job.exploded"]}, "invalid_recipe", "/webhook/events/0"),
        ({"url": "https://hooks.example.org/x", "events": []}, "invalid_recipe", "/webhook/events"),
        ({"url": "https://hooks.example.org/x", "method": "GET"}, "invalid_recipe", "/webhook/method"),
    ],
)
def test_a_webhook_that_can_be_known_to_be_refused_is_refused_with_the_recipe(api, webhook, code, pointer):
    answer = api.submit(api.recipe(webhook=webhook))
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert not api.hub.requests()


def test_deliveries_are_shown_to_their_owner_and_can_be_sent_again(api, receiver, tmp_path):
    settings = api.services.settings
    object.__setattr__(settings, "webhook_hosts", receiver.origin)
    sending = Sender(settings, api.services.database)
    job = api.submit(api.recipe(webhook=f"{receiver.origin}/hook")).json()
    assert job["recipe"]["webhook"] == {
        "url": f"{receiver.origin}/hook", "events": ["job.succeeded", "job.failed", "job.cancelled"],
    }
    assert api.call("GET", f"/merges/{job['id']}/deliveries").json() == {"data": []}
    api.call("POST", f"/merges/{job['id']}/cancel")
    assert sending.send_one()
    path = f"/merges/{job['id']}/deliveries"
    [shown] = api.call("GET", path).json()["data"]
    assert (shown["number"], shown["type"], shown["status"]) == (1, "job.cancelled", "delivered")
    assert [attempt["status_code"] for attempt in shown["attempts"]] == [204]
    assert api.call("POST", f"{path}/1/redeliver").status_code == 202
    assert sending.send_one()
    assert [headers["webhook-id"] for headers, _ in receiver.requests] == [shown["id"]] * 2
    secret = api.call("GET", "/webhooks/secrets").json()["data"][0]
    assert Webhook(secret).verify(receiver.requests[1][1], receiver.requests[1][0])["data"]["id"] == job["id"]
    assert api.call("POST", f"{path}/2/redeliver").status_code == 404
    other = api.new_key("other")
    for method, route in (("GET", path), ("POST", f"{path}/1/redeliver")):
        assert api.call(method, route, key=other).status_code == 404
