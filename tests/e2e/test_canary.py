"""Canary tokens through submit, failure, retry, webhook and crash: none of them may be found anywhere afterwards."""

import os
import re
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psycopg
import pytest
from redis import Redis

from app.local.hub import HubStore
from app.local.postgres import Postgres
from app.local.valkey import Valkey
from tests.fixtures.receiver import Receiver, serving
from tests.fixtures.service import Service, start_service, stop_service


class Watch:
    """Looks at every process of the service, over and over: command lines, environments, limits of core files."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.seen: dict[str, set[bytes]] = {"cmdline": set(), "environ": set()}
        self.child_environments: set[bytes] = set()
        self.cores: dict[str, set[bytes]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def looking(self):
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            for pid in (self.root, *descendants(self.root)):
                self._look(Path(f"/proc/{pid}"))

    def _look(self, place: Path) -> None:
        try:
            command, environment = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
            limits = (place / "limits").read_text()
        except OSError:
            return
        self.seen["cmdline"].add(command)
        self.seen["environ"].add(environment)
        if b"spear-worker-child" in command:
            self.child_environments.add(environment)
        if b"python" in command:
            found = re.search(r"Max core file size\s+(\S+)\s+(\S+)", limits)
            self.cores.setdefault(" ".join(found.groups()) if found else "?", set()).add(command)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass
    return found


def dump(service: Service) -> bytes:
    """Every row of every table, as COPY writes them."""
    url = Postgres(service.home / "postgres").url.replace("+psycopg", "", 1)
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(tables) > 8
        parts = []
        for (table,) in tables:
            with connection.cursor().copy(f'COPY "{table}" TO STDOUT') as copy:
                parts += [bytes(part) for part in copy]
    return b"".join(parts)


def hex_too(secret: str) -> tuple[bytes, ...]:
    """A secret as it is, and as COPY would write it out of a binary column."""
    return secret.encode(), secret.encode().hex().encode()


def sealed(service: Service) -> int:
    url = Postgres(service.home / "postgres").url.replace("+psycopg", "", 1)
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM sealed_tokens").fetchone()[0]


def redis_content(service: Service) -> bytes:
    with Redis.from_url(Valkey(service.home / "valkey").url) as redis:
        kinds = {b"string": redis.get, b"list": lambda name: redis.lrange(name, 0, -1), b"hash": redis.hgetall,
                 b"set": redis.smembers, b"zset": lambda name: redis.zrange(name, 0, -1)}  # fmt: skip
        return repr([(name, kinds[redis.type(name)](name)) for name in redis.scan_iter("*")]).encode()


def write_token(service: Service) -> str:
    """One more token of the service's user, which the service does not know."""
    return HubStore(service.hub.root).add_token(service.user, role="write")


class Story:
    """What a caller does with a Hub token of its own, and everything that it was told."""

    def __init__(self, service: Service, pair: tuple[str, str], *, webhook: Receiver, traces: Receiver) -> None:
        self.service, self.pair = service, pair
        self.webhook, self.traces = webhook, traces
        self.mine = write_token(service)
        self.told: list[str] = []

    def post(self, path: str, body: dict | None = None, token: str | None = None) -> dict:
        headers = {"Authorization": f"Bearer {self.service.key}"} | ({"X-Hub-Token": token} if token else {})
        for _ in range(100):
            try:
                answer = httpx2.post(self.service.url + path, json=body, headers=headers, timeout=30)
                break
            except httpx2.TransportError:  # the API is being restarted
                time.sleep(0.2)
        self.told.append(f"{answer.headers} {answer.text}")
        return answer.json()

    def submit(self, target: str, *, token: str | None = None) -> dict:
        recipe = self.service.recipe(*self.pair, target, webhook=f"{self.webhook.origin}/hook")
        return self.post("/merges", recipe, token=token or self.mine)

    def read_back(self, job_id: str) -> None:
        with httpx2.Client(headers={"Authorization": f"Bearer {self.service.key}"}, timeout=30) as http:
            for part in ("", "/events?limit=1000", "/report", "/scores", "/deliveries"):
                self.told.append(http.get(f"{self.service.url}/merges/{job_id}{part}").text)

    def signing_secrets(self) -> list[str]:
        headers = {"Authorization": f"Bearer {self.service.key}"}
        return httpx2.get(f"{self.service.url}/webhooks/secrets", headers=headers).json()["data"]

    def hear(self, *, words: int) -> None:
        """Until the webhook was told of so many ends, and both sides have sent their spans."""
        end = time.monotonic() + 30
        while len(self.webhook.requests) < words or not all(
            name in received(self.traces) for name in (b"POST /merges", b"attempt", b"stage.merging", b"retry")
        ):
            assert time.monotonic() < end, (len(self.webhook.requests), len(self.traces.requests))
            time.sleep(0.1)


def received(receiver: Receiver) -> bytes:
    """All that came in, headers and bodies."""
    return b"".join(str(headers).encode() + body for headers, body in list(receiver.requests))


@pytest.fixture
def canary(local_hub, base_model, adapted_model, tmp_path):
    account = local_hub.fresh_user()
    with serving() as webhook, serving() as traces:
        service = start_service(
            local_hub, tmp_path, account=account, SPEAR_LOG_LEVEL="debug",
            SPEAR_CRASH_AT=f"scoring.begun@1:{account[0]}/crashing", SPEAR_WEBHOOK_HOSTS=webhook.origin,
            SPEAR_WEBHOOK_RETRY_SECONDS="0.2,0.2", SPEAR_OTLP_ENDPOINT=f"{traces.origin}/v1/traces",
        )  # fmt: skip
        webhook.answers.append(500)  # the first word is not taken, and told again
        pair = service.push("base", base_model), service.push("adapted", adapted_model)
        yield Story(service, pair, webhook=webhook, traces=traces)
        stop_service(service)


def kill_api(service: Service) -> None:
    for pid in service.children(b"\0api\0"):
        os.kill(pid, signal.SIGKILL)


def test_no_secret_is_found_anywhere_afterwards(canary, tmp_path):
    service = canary.service
    with Watch(service.process.pid).looking() as watch:
        good = canary.submit("good")
        assert service.wait(good["id"])["status"] == "succeeded"

        refused = canary.submit("refused", token="hf_canaryOfNobody0123456789")
        assert refused["code"] in ("target_not_writable", "repo_access_denied")

        other = service.hub.read_token(service.user)
        failing = canary.submit("failing", token=canary.mine)
        service.hub.revoke_token(canary.mine)
        failed = service.wait(failing["id"])
        assert failed["status"] == "failed", failed
        canary.told.append(str(failed))
        assert canary.post(f"/merges/{failing['id']}/retry", token=other)["code"] == "target_not_writable"
        again = canary.post(f"/merges/{failing['id']}/retry")
        assert service.wait(again["id"])["status"] == "succeeded"

        fresh = write_token(service)
        crashing = canary.submit("crashing", token=fresh)
        service.wait(crashing["id"], until=lambda job: job["stage"] == "scoring")  # there its worker dies
        during = dump(service)  # the sealed token is in this one
        assert sealed(service) == 1
        kill_api(service)
        canary.told.append(str(refused))
        crashed = wait_through(service, crashing["id"])
        assert (crashed["status"], crashed["attempt"]) == ("succeeded", 2)
        canary.hear(words=5)  # four jobs have ended, and one word came twice
        for job in (good, failing, again, crashing):
            canary.read_back(job["id"])
    hub = service.hub.api(service.token)
    published = b"".join(
        Path(file).read_bytes() for name in ("good", "failing", "crashing")
        for file in Path(hub.snapshot_download(f"{service.user}/{name}", local_dir=tmp_path / name)).rglob("*")
        if Path(file).is_file()
    )  # fmt: skip
    places = {
        "logs": service.log.read_bytes(), "database": dump(service), "database, while sealed": during,
        "redis": redis_content(service), "answers": "".join(canary.told).encode(), "published": published,
        "webhook": received(canary.webhook), "traces": received(canary.traces),
        "command lines": b"".join(watch.seen["cmdline"]), "environments": b"".join(watch.seen["environ"]),
        "jobs' directories": b"".join(
            file.read_bytes() for file in (service.home / "jobs").rglob("*.json*") if file.is_file()
        ),
    }  # fmt: skip
    secrets = [service.token, canary.mine, other, fresh, "hf_canaryOfNobody0123456789", service.key,
               (service.home / "secret").read_text().strip(), *canary.signing_secrets()]  # fmt: skip
    assert len(set(secrets)) == 8
    hits = [
        (where, number) for where, content in places.items() for number, secret in enumerate(secrets)
        if any(form in content for form in hex_too(secret))
    ]  # fmt: skip
    assert hits == []
    assert all(places[where] for where in places if where != "jobs' directories")
    assert sealed(service) == 0
    assert watch.child_environments
    assert not any(b"SPEAR_" in environment or b"TOKEN" in environment for environment in watch.child_environments)
    assert set(watch.cores) == {"0 0"}, watch.cores


def wait_through(service: Service, job_id: str) -> dict:
    """As `service.wait`, while the API comes back."""
    for _ in range(50):
        try:
            return service.wait(job_id, timeout=60)
        except httpx2.TransportError:
            time.sleep(0.2)
    raise AssertionError("the API did not come back")
