"""`spear` as programs and people use it, against a service that answers from a list: outputs, errors, exit statuses."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from app.console.follow import Lines
from app.console.screen import Exit, size, span
from app.errors import KINDS, Code
from tests.fixtures.scripted import Script, playing


class Service(Script):
    """Its answers are (status, body), each of a new version."""

    def next(self) -> tuple[int, dict[str, str], Any]:
        status, content = self.answers.pop(0)
        return status, {"ETag": f'W/"{len(self.seen)}"'}, content

    def spear(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *words], env=self.env(), capture_output=True, text=True, timeout=60,
            check=False, **more,
        )  # fmt: skip

    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SPEAR_")}
        return kept | {"SPEAR_API_URL": self.url, "SPEAR_API_KEY": "spear_k", "COLUMNS": "100"}


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    with playing(made):
        yield made


def job(status: str = "succeeded", **more: Any) -> dict[str, Any]:
    pinned = {"repo": "org/base", "revision": "main", "commit": "a" * 40}
    return {
        "id": "mrg_1", "kind": "merge", "status": status, "stage": None, "stages": [], "progress": None,
        "recipe": {"method": {"name": "spear"}, "target": {"repo": "org/[out]", "branch": "main"}},
        "resolved": {"base": pinned, "experts": [{**pinned, "repo": "org/adapted"}]}, "labels": {"team": "risk"},
        "result": None, "error": None, "attempt": 1, "max_attempts": 3, "retry_of": None,
        "created_at": "2026-11-22T04:00:00Z", "started_at": None, "updated_at": "", "ended_at": None, "links": {},
    } | more  # fmt: skip


def stage(name: str, *, ended: bool, attempt: int = 1) -> dict[str, Any]:
    return {"name": name, "attempt": attempt, "started_at": "2026-11-22T04:00:00Z",
            "ended_at": "2026-11-22T04:03:20Z" if ended else None}  # fmt: skip


PROGRESS = {"percent": 42.0, "done": 4.2e8, "total": 1e9, "unit": "bytes", "eta_seconds": 75.0}
FAILED = job("failed", error={"code": "nonfinite_tensor", "message": "a [NaN] in q", "stage": "merging",
                              "retryable": False, "hint": "Look at it.", "names": {}})  # fmt: skip


def test_every_command_tells_machines_json_on_stdout_and_nothing_else(service):
    delivery = {"number": 1, "type": "job.succeeded", "status": "delivered", "attempts": [], "next_attempt_at": None}
    event = {"seq": 1, "at": "2026-11-22T04:00:00Z", "type": "job.queued", "stage": None, "data": {}}
    report = {"verdict": "v", "selection": {"modules": []}, "warnings": []}
    method = {"name": "linear", "description": "d", "min_experts": 1, "max_experts": None, "parameters": {}}
    asked = {
        ("show", "mrg_1"): job(), ("cancel", "mrg_1"): job("cancelling"), ("retry", "mrg_1"): job("queued"),
        ("watch", "mrg_1"): job(), ("list",): {"data": [job()], "next_cursor": None},
        ("events", "mrg_1"): {"data": [event], "next_cursor": None}, ("report", "mrg_1"): report,
        ("deliveries", "mrg_1"): {"data": [delivery]}, ("methods",): {"data": [method]},
    }  # fmt: skip
    for words, answer in asked.items():
        service.answers = [(200, answer), (200, {"data": [], "next_cursor": None})]
        ended = service.spear(*words, "--json")
        assert ended.returncode == Exit.OK, ended.stderr
        expected = answer.get("data", answer) if isinstance(answer, dict) else answer
        assert json.loads(ended.stdout) == expected, words
        service.answers = [(200, answer), (200, {"data": [], "next_cursor": None})]
        told = service.spear(*words)
        assert told.returncode == Exit.OK, told.stderr
        assert told.stdout.strip(), words
        assert not told.stdout.startswith(("{", "[")), words


def test_a_job_is_told_to_people_as_it_is(service):
    service.answers = [(200, job(result={
        "repo": "org/[out]", "commit": "b" * 40, "url": "http://hub/x", "selected": 7, "scored": 28, "metrics": {},
    }))]  # fmt: skip
    said = service.spear("show", "mrg_1").stdout
    for words in ("mrg_1", "succeeded", "org/adapted@aaaaaaaaaaaa", "org/[out]@main", "label team risk", "7 of 28",
                  "http://hub/x"):  # fmt: skip
        assert words in said, said


def test_filters_of_the_list_are_passed_on(service):
    service.answers = [(200, {"data": [], "next_cursor": None})]
    ended = service.spear("list", "--status", "failed", "--status", "queued", "--target", "a/b", "--label", "x:y",
                          "--kind", "scores", "--limit", "5", "--json")  # fmt: skip
    assert (ended.returncode, json.loads(ended.stdout)) == (0, [])
    [(_, path, _, _)] = service.seen
    assert path.startswith("/scores?")
    for part in ("status=failed", "status=queued", "target=a%2Fb", "label=x%3Ay", "limit=5"):
        assert part in path


def test_a_followed_job_is_told_in_lines_where_there_is_no_terminal(service, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text("{}")
    download = stage("downloading", ended=False)
    service.answers = [
        (202, job("queued")), (200, job("queued")),
        (200, job("running", stage="downloading", stages=[download], progress=PROGRESS)),
        (200, job(stages=[stage("downloading", ended=True), stage("merging", ended=True, attempt=2)])),
    ]  # fmt: skip
    ended = service.spear("submit", str(recipe), "--wait", "--json", "--idempotency-key", "mine")
    assert ended.returncode == Exit.OK, ended.stderr
    assert json.loads(ended.stdout)["status"] == "succeeded"
    lines = ended.stderr.splitlines()
    for line in ("job mrg_1", "mrg_1 queued", "mrg_1 running", "downloading", "downloading: done, 3 min 20 s",
                 "merging (attempt 2)", "mrg_1 succeeded"):  # fmt: skip
        assert line in lines, lines
    assert lines[-1] == "mrg_1 succeeded"


def test_lines_tell_progress_with_what_is_left(capsys):
    lines = Lines()
    lines._said_at = -100.0
    running = job("running", stage="downloading", stages=[stage("downloading", ended=False)], progress=PROGRESS)
    lines.tell(running)
    lines._said_at = -100.0
    lines.tell(running)
    assert "downloading: 42 % of 1 GB, 1 min 15 s left" in capsys.readouterr().err


def test_a_followed_job_is_drawn_in_bars_on_a_terminal(service):
    service.answers = [
        (200, job("running", stage="merging", stages=[stage("downloading", ended=True), stage("merging", ended=False)],
                  progress=PROGRESS)),
        (200, job(stages=[stage("downloading", ended=True), stage("merging", ended=True)])),
    ]  # fmt: skip
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "watch", "mrg_1", "--json"], env=service.env() | {"TERM": "xterm"},
        stdout=subprocess.PIPE, stderr=theirs, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        drawn = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            drawn += chunk
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["status"] == "succeeded"
    os.close(ours)
    assert process.returncode == Exit.OK
    for words in ("downloading", "merging", "100%", "3 min 20 s", "✓"):
        assert words in drawn.decode(), drawn


@pytest.mark.parametrize("words", [("watch", "mrg_1"), ("watch", "mrg_1", "--json")])
def test_a_job_that_failed_ends_in_one_with_its_reason(service, words):
    service.answers = [(200, FAILED)]
    ended = service.spear(*words)
    assert ended.returncode == Exit.FAILED
    said = ended.stdout + ended.stderr
    assert "nonfinite_tensor: a [NaN] in q" in said
    assert "Look at it." in said


def test_problems_are_told_with_code_pointer_hint_and_request(service):
    problem = {
        "code": "invalid_recipe", "detail": "2 fields", "hint": "See the docs.", "request_id": "req-7",
        "errors": [{"pointer": "/method/t", "detail": "[bold]must[/bold] be less"}],
    }  # fmt: skip
    service.answers = [(422, problem)]
    ended = service.spear("show", "mrg_1", "--json")
    assert (ended.returncode, ended.stdout) == (Exit.FAILED, "")
    for line in ("invalid_recipe: 2 fields", "  /method/t: [bold]must[/bold] be less", "  hint: See the docs.",
                 "  request: req-7"):  # fmt: skip
        assert line in ended.stderr.splitlines()


def test_a_hint_for_programs_is_not_told_to_people(service):
    fields = {"code": "invalid_recipe", "detail": "1 field", "hint": KINDS[Code.INVALID_RECIPE].hint,
              "errors": [{"pointer": "/base", "detail": "is missing"}]}  # fmt: skip
    service.answers = [(422, fields)]
    assert service.spear("show", "mrg_1").stderr.splitlines() == ["invalid_recipe: 1 field", "  /base: is missing"]


def test_exit_statuses_tell_who_has_to_act(service, tmp_path):
    away = {"code": "not_ready", "detail": "wait"}
    service.answers = [(503, away)] * 5
    assert service.spear("show", "mrg_1").returncode == Exit.AWAY
    service.answers = [(404, {"code": "not_found", "detail": "none"})]
    assert service.spear("show", "mrg_1").returncode == Exit.FAILED
    assert service.spear("show").returncode == Exit.USAGE
    assert service.spear("list", "--status", "done").returncode == Exit.USAGE
    bad = tmp_path / "recipe.json"
    bad.write_text("{")
    ended = service.spear("submit", str(bad))
    assert ended.returncode == Exit.FAILED
    assert "is not JSON" in ended.stderr
    service.port = 9
    ended = service.spear("methods")
    assert ended.returncode == Exit.AWAY
    assert "cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_recipe_may_come_from_stdin_and_a_plan_says_no(service):
    refusal = {"code": "repo_not_found", "detail": "no such", "pointer": "/base/repo", "names": {}}
    service.answers = [(200, {"accepted": False, "refusals": [refusal], "warnings": []})]
    ended = service.spear("plan", "-", input='{"base": {"repo": "a/b"}}')
    assert ended.returncode == Exit.FAILED
    assert json.loads(ended.stdout)["refusals"] == [refusal]
    assert json.loads(service.seen[0][3]) == {"base": {"repo": "a/b"}}


def test_a_job_that_is_no_study_is_not_shown_as_one(service):
    service.answers = [(200, job())]
    ended = service.spear("study", "show", "mrg_1")
    assert ended.returncode == Exit.FAILED
    assert ended.stderr.strip() == "error: mrg_1 is of the kind merge, not a study: see `spear show mrg_1`"


def test_a_study_is_told_whole_where_there_is_no_terminal(service):
    """No expert, method or setting is cut short."""
    gain = {"value": 0.25, "low": None, "high": None}
    outcome = {"stage": 2, "experts": ["org/a-rather-long-finance-expert", "org/another-mathematics-expert"],
               "method": "task_arithmetic", "settings": {"lambda": 0.5}, "emerged": 3, "lost": None,
               "macro": {"score": {"gain": gain, "og": gain}}}  # fmt: skip
    report = {"verdict": "best is [this]", "main_kind": "score", "outcomes": [outcome]}
    service.answers = [(200, job(kind="study")), (200, report)]
    ended = service.spear("study", "show", "std_1")
    assert ended.returncode == Exit.OK, ended.stderr
    first, _, row = ended.stdout.splitlines()
    assert first == "best is [this]"
    for words in ("a-rather-long-finance-expert + another-mathematics-expert", "task_arithmetic", "lambda 0.5", "0.25"):
        assert words in row


def test_a_running_job_tells_its_progress_in_units_and_an_ended_one_none(service):
    service.answers = [(200, job("running", stage="downloading", progress=PROGRESS)),
                       (200, job(progress=PROGRESS, ended_at="2026-11-22T04:05:06.789Z"))]  # fmt: skip
    assert "progress   42 % of 1 GB, 1 min 15 s left" in service.spear("show", "mrg_1").stdout
    said = service.spear("show", "mrg_1").stdout
    assert "progress" not in said
    assert "ended      2026-11-22 04:05:06 UTC" in said


def test_a_hub_that_is_away_is_named(service):
    env = service.env() | {"SPEAR_HUB_ENDPOINT": "http://127.0.0.1:9"}
    ended = subprocess.run([sys.executable, "-m", "app.cli", "reproduce", "org/out"], env=env, capture_output=True,
                           text=True, timeout=120, check=False)  # fmt: skip
    assert ended.returncode == Exit.AWAY
    assert "  asked: http://127.0.0.1:9 (SPEAR_HUB_ENDPOINT names another)" in ended.stderr.splitlines()


def test_flags_take_no_value_in_the_help(service):
    said = service.spear("submit", "--help").stdout
    assert "--wait" in said
    for line in said.splitlines():
        assert "<bool>" not in line or "--help" in line


def test_an_unknown_method_names_those_there_are(service):
    service.answers = [(200, {"data": [{"name": "linear", "description": "", "min_experts": 1, "max_experts": None,
                                        "parameters": {"properties": {}}}]})]  # fmt: skip
    ended = service.spear("methods", "liner")
    assert ended.returncode == Exit.FAILED
    assert "there are linear" in ended.stderr


def test_the_shell_completes_commands_and_job_ids(service):
    service.answers = [(200, {"data": [job()]})]
    env = service.env() | {"_SPEAR_COMPLETE": "complete_bash", "COMP_WORDS": "spear watch mrg", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", "from app.cli import app; app(prog_name='spear')"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout.split() == ["mrg_1"]
    service.answers = [(200, {"data": [job(id="std_2", kind="study", recipe={})]})]
    env |= {"COMP_WORDS": "spear watch s", "COMP_CWORD": "2"}
    service.answers = [(200, {"data": [job(id="scr_2", recipe={"method": {}})]}), *service.answers]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout.split() == ["scr_2", "std_2"]
    env |= {"COMP_WORDS": "spear repr", "COMP_CWORD": "1"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout.split() == ["reproduce"]


def test_the_client_needs_no_database_library():
    heavy = {"sqlalchemy", "celery", "torch", "fastapi", "huggingface_hub", "psycopg"}
    script = f"import sys, app.cli; print(sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_times_are_short(seconds, words):
    assert span(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(12, "12 B"), (1234, "1.23 kB"), (269_060_000, "269 MB"), (2e12, "2 TB")])
def test_sizes_are_short(count, words):
    assert size(count) == words
