"""One POST: to the judged address with the name kept, within its time, and no more read than it has to be."""

import socket
import time

import pytest

from app.webhooks.policy import Policy
from app.webhooks.transport import post
from tests.fixtures.receiver import authority, serving


def test_the_name_is_kept_for_tls_and_host_while_the_connection_goes_to_the_address(tmp_path):
    server, client = authority(tmp_path, host="hooks.internal")
    names = []
    server.sni_callback = lambda _, name, __: names.append(name)
    with serving(tls=server) as receiver:
        policy = Policy.of(f"https://hooks.internal:{receiver.port}")
        url = f"https://hooks.internal:{receiver.port}/a?b=c"
        outcome = post(
            url, body=b"{}", headers={"webhook-id": "m"}, policy=policy, tls=client, seconds=5,
            resolve=lambda host, port: ["127.0.0.1"],
        )
    assert outcome.accepted, outcome
    assert names == ["hooks.internal"]
    assert receiver.requests[0][0]["host"] == f"hooks.internal:{receiver.port}"


def test_a_certificate_for_another_name_is_refused(tmp_path):
    server, client = authority(tmp_path, host="other.internal")
    with serving(tls=server) as receiver:
        outcome = post(
            f"https://hooks.internal:{receiver.port}/", body=b"{}", headers={}, tls=client, seconds=5,
            policy=Policy.of(f"https://hooks.internal:{receiver.port}"), resolve=lambda host, port: ["127.0.0.1"],
        )
    assert outcome.status_code is None
    assert "TLS" in (outcome.error or "")
    assert receiver.requests == []


def test_an_answer_without_end_is_cut(receiver):
    receiver.endless = True
    started = time.monotonic()
    outcome = post(f"{receiver.origin}/", body=b"{}", headers={}, policy=Policy.of(receiver.origin), seconds=1)
    receiver.endless = False
    assert time.monotonic() - started < 3
    assert outcome.status_code in (None, 204)
    assert outcome.status_code == 204 or outcome.error


def _drip(handler) -> None:
    """A header line that never ends, a byte at a time: each read is short, the whole is not."""
    handler.rfile.read(int(handler.headers["Content-Length"]))
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(60):
        try:
            handler.wfile.write(b"a")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.1)


@pytest.mark.parametrize("secure", [False, True])
def test_an_answer_that_drips_is_cut_over_tls_too(tmp_path, secure):
    server, client = authority(tmp_path, host="hooks.internal")
    with serving(tls=server if secure else None) as receiver:
        receiver.server.RequestHandlerClass.do_POST = _drip
        url = f"http{'s' if secure else ''}://hooks.internal:{receiver.port}"
        started = time.monotonic()
        outcome = post(
            url, body=b"{}", headers={}, policy=Policy.of(url), tls=client, seconds=1,
            resolve=lambda host, port: ["127.0.0.1"],
        )
    assert time.monotonic() - started < 3
    assert outcome.status_code == 200, outcome  # its first line said so


def test_a_handshake_that_never_comes_is_cut(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://hooks.internal:{silent.getsockname()[1]}"
        started = time.monotonic()
        outcome = post(
            url, body=b"{}", headers={}, policy=Policy.of(url), seconds=0.5, resolve=lambda host, port: ["127.0.0.1"]
        )
    assert time.monotonic() - started < 2
    assert outcome.error


def test_a_name_server_that_does_not_answer_takes_no_longer_than_the_whole(receiver):
    started = time.monotonic()
    outcome = post(
        "https://slow.example/", body=b"{}", headers={}, policy=Policy.of("*"), seconds=0.3,
        resolve=lambda host, port: time.sleep(2) or ["127.0.0.1"],
    )
    assert time.monotonic() - started < 1.5
    assert outcome.error == "timed out"
