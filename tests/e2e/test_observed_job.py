"""One job seen from outside: its spans at a real OTLP receiver, its log lines, and its worker's figures."""

import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.service import start_service, stop_service

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


class Receiver:
    """Takes spans as a collector does: protobuf over HTTP."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, object]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                outer.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]

    def of(self, trace: str) -> dict[str, tuple[str, object]]:
        return {span.name: (service, span) for service, span in self.spans if span.trace_id.hex() == trace}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def attributes(span) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_job_can_be_followed_from_the_request_to_the_publish(
    local_hub, tmp_path, base_model, adapted_model, receiver
):
    port = free_port()
    service = start_service(
        local_hub, tmp_path, SPEAR_OTLP_ENDPOINT=receiver.url, SPEAR_METRICS_PORT=str(port),
    )  # fmt: skip
    try:
        recipe = service.recipe(service.push("base", base_model), service.push("adapted", adapted_model), "traced")
        job = service.wait(submit(service, recipe))
        assert job["status"] == "succeeded", job["error"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            told = answer.read().decode()
    finally:
        stop_service(service)
    check_spans(receiver, job)
    check_figures(told, job)
    check_log(service.log.read_text(), job)


def submit(service, recipe: dict) -> str:
    request = urllib.request.Request(
        f"{service.url}/merges", data=json.dumps(recipe).encode(), method="POST",
        headers={
            "Authorization": f"Bearer {service.key}", "Content-Type": "application/json",
            "traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "from-the-platform",
        },
    )  # fmt: skip
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["id"]


def check_spans(receiver: Receiver, job: dict) -> None:
    """One trace; each span below the one that caused it; the publish knows its commit."""
    found = receiver.of(TRACE)
    request, attempt = found["POST /merges"], found["attempt"]
    assert (request[0], attempt[0]) == ("spear-api", "spear-worker")
    assert request[1].parent_span_id.hex() == CALLER
    assert attempt[1].parent_span_id == request[1].span_id
    assert attributes(attempt[1]) == {"job": job["id"], "attempt": 1}
    stages = ("resolving", "downloading", "scoring", "selecting", "merging", "verifying", "publishing")
    for stage in stages:
        service, span = found[f"stage.{stage}"]
        assert service == "spear-worker"
        assert span.parent_span_id == attempt[1].span_id
    publish = found["publish"][1]
    assert publish.parent_span_id == found["stage.publishing"][1].span_id
    assert attributes(publish)["commit"] == job["result"]["commit"]
    assert attributes(publish)["repo"] == job["result"]["repo"]
    events = [event.name for event in publish.events]
    assert events[0] == "prepared"
    assert {"recorded", "sent", "answered", "found"} <= set(events)


def check_figures(told: str, job: dict) -> None:
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(told) for sample in family.samples
    }  # fmt: skip
    assert found["spear_bytes_total", "downloading"] > 1000
    assert found["spear_bytes_total", "publishing"] > 1000
    assert found["spear_hub_calls_total", "ok"] > 5
    assert found["spear_spectra_total", "computed"] > 0
    assert found["spear_child_peak_bytes",] > 10_000_000


def check_log(text: str, job: dict) -> None:
    """Every line is JSON; the worker's lines about the job bear job, request and trace."""
    written = [line for line in text.splitlines() if line.strip()]
    assert [line for line in written if not line.startswith("{")] == []
    lines = [json.loads(line) for line in written]
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    about = [line for line in lines if line["event"] in ("stage.ended", "job.ended")]
    assert {line["stage"] for line in about if line["event"] == "stage.ended"} >= {"resolving", "merging", "publishing"}
    assert {(line["job"], line["request_id"], line["trace_id"]) for line in about} == {
        (job["id"], "from-the-platform", TRACE)
    }
    [request] = [line for line in lines if line["event"] == "request" and line["method"] == "POST"]
    assert (request["status"], request["trace_id"]) == (202, TRACE)
