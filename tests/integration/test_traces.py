"""One trace from the caller's header through API, row, message and worker; in events, problems and log lines."""

import json
import os

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.contextvars import clear_contextvars

from app.logs import configure
from app.tracing import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-Id": "asked-by-me"}


@pytest.fixture(scope="module")
def exported():
    exporter = InMemorySpanExporter()
    tracing.add(SimpleSpanProcessor(exporter))
    return exporter


def test_the_callers_trace_is_taken_up_and_told(api, exported):
    exported.clear()
    answer = api.submit(headers=SENT)
    assert answer.headers["traceparent"].split("-")[1] == TRACE
    [queued] = api.call("GET", f"/merges/{answer.json()['id']}/events").json()["data"]
    assert (queued["request_id"], queued["trace_id"]) == ("asked-by-me", TRACE)
    cancelled = api.call("POST", f"/merges/{answer.json()['id']}/cancel", headers={"X-Request-Id": "another"})
    assert cancelled.status_code == 202
    *_, event = api.call("GET", f"/merges/{answer.json()['id']}/events").json()["data"]
    assert event["type"] == "job.cancelled"
    assert event["request_id"] == "another"
    assert event["trace_id"] not in (TRACE, None)
    submitted = next(span for span in exported.get_finished_spans() if span.name == "POST /merges")
    assert f"{submitted.parent.span_id:016x}" == "b7ad6b7169203331"
    assert submitted.attributes["http.response.status_code"] == 202


@pytest.mark.parametrize("bad", ["", "00-xyz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-" + "a" * 60])
def test_a_traceparent_that_is_none_begins_a_new_trace(api, bad):
    answer = api.call("GET", "/methods", headers={"traceparent": bad})
    _, trace, span, _ = answer.headers["traceparent"].split("-")
    assert (len(trace), len(span)) == (32, 16)
    assert int(trace, 16) != 0


def test_problems_and_log_lines_bear_the_trace(api, capsys):
    configure("info")
    request_lines = capsys.readouterr
    problem = api.call("GET", "/merges/mrg_none", headers=SENT).json()
    assert (problem["request_id"], problem["trace_id"]) == ("asked-by-me", TRACE)
    structlog.reset_defaults()  # what is captured here is closed after this test
    lines = [json.loads(line) for line in request_lines().err.splitlines() if '"request"' in line]
    assert [(line["request_id"], line["trace_id"]) for line in lines] == [("asked-by-me", TRACE)]


def test_the_row_and_the_message_carry_it_on(api, redis_url):
    import redis

    job = api.submit(headers=SENT).json()
    with api.services.database.engine.connect() as connection:
        [(kept,)] = connection.exec_driver_sql("SELECT traceparent FROM jobs").all()
    assert kept.split("-")[1] == TRACE
    with redis.Redis.from_url(redis_url) as client:
        message = json.loads(client.lindex("celery", 0))
    assert message["headers"]["traceparent"].split("-")[1] == TRACE
    assert job["id"] in str(message)


def test_a_workers_attempt_is_part_of_the_trace(jobs, exported, tmp_path):
    from app.settings import Settings
    from worker.supervisor import supervise

    exported.clear()
    clear_contextvars()  # of whatever ran before in this process
    job_id = jobs.submit(traceparent=SENT["traceparent"], request_id="asked-by-me", recipe={"method": {}})
    url = jobs.database.engine.url.render_as_string(hide_password=False)
    settings = Settings(database_url=url, redis_url="redis://127.0.0.1:1", data_dir=tmp_path, max_attempts=1)
    supervise(settings=settings, owner=f"w:{os.getpid()}", draining=lambda: False)
    spans = {span.name: span for span in exported.get_finished_spans()}
    attempt = spans["attempt"]
    assert f"{attempt.context.trace_id:032x}" == TRACE
    assert attempt.attributes["job"] == job_id
    events = jobs.store.events(jobs.caller, job_id, after=0, limit=99)
    assert {(event.request_id, event.trace_id) for event in events} == {("asked-by-me", TRACE)}
    assert len(events) > 2
