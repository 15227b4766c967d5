"""What the Hub's client is given and what becomes of its errors."""

import subprocess
import sys

import httpx2
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from app.errors import Code
from app.hub.access import granted
from app.hub.client import Hub
from app.hub.failures import redact, translate
from app.hub.pins import safe_path

TOKEN = "hf_" + "x" * 30
MODULES = ("access", "admission", "client", "download", "inspect", "pins", "preflight", "publish")


def answered(kind, status, message=None):
    request = httpx2.Request("GET", "http://hub/api/models/org/a", headers={"authorization": f"Bearer {TOKEN}"})
    return kind("said", response=httpx2.Response(status, request=request), server_message=message)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (answered(RepositoryNotFoundError, 404), Code.REPO_NOT_FOUND),
        (answered(GatedRepoError, 403), Code.REPO_GATED),
        (answered(RevisionNotFoundError, 404), Code.REVISION_NOT_FOUND),
        (answered(RemoteEntryNotFoundError, 404), Code.HUB_REFUSED),
        (answered(HfHubHTTPError, 401), Code.REPO_ACCESS_DENIED),
        (answered(HfHubHTTPError, 403), Code.REPO_ACCESS_DENIED),
        (answered(HfHubHTTPError, 400), Code.HUB_REFUSED),
        (answered(HfHubHTTPError, 412), Code.HUB_REFUSED),
        (answered(HfHubHTTPError, 429), Code.HUB_UNAVAILABLE),
        (answered(HfHubHTTPError, 500), Code.HUB_UNAVAILABLE),
        (answered(HfHubHTTPError, 507), Code.HUB_UNAVAILABLE),
        (httpx2.ReadTimeout("late"), Code.HUB_UNAVAILABLE),
        (httpx2.ConnectError("nobody"), Code.HUB_UNAVAILABLE),
        (httpx2.RemoteProtocolError("cut"), Code.HUB_UNAVAILABLE),
        (ValueError("not JSON"), Code.HUB_UNAVAILABLE),
    ],
)
def test_every_error_has_its_code_and_its_names(error, code):
    found = translate(error, repo="org/a", revision="main", file="f")
    assert found.code is code
    assert found.names.items() >= {"repo": "org/a", "revision": "main", "file": "f"}.items()
    if isinstance(error, HfHubHTTPError):
        assert found.names["status"] == error.response.status_code


def test_the_hubs_words_are_passed_on_without_the_token():
    error = translate(answered(HfHubHTTPError, 400, f"no\n{TOKEN} and secret7"), repo="org/a", token="secret7")
    assert error.message == "the Hub answered 400 (org/a): no hf_*** and ***"
    assert TOKEN not in f"{error}{error.names}{error.__cause__}"
    assert redact("plain") == "plain"


def test_a_hub_does_not_show_its_token():
    hub = Hub("http://127.0.0.1:9/", TOKEN, timeout_seconds=1)
    assert repr(hub) == "Hub('http://127.0.0.1:9', with a token)"
    hub.close()


@pytest.mark.parametrize("module", MODULES)
def test_whichever_module_comes_first_the_client_sees_its_environment(module):
    code = (
        f"import app.hub.{module}; from huggingface_hub import constants as c; "
        "assert c.HF_HUB_DISABLE_IMPLICIT_TOKEN and c.HF_HUB_DISABLE_TELEMETRY and c.HF_HUB_DISABLE_PROGRESS_BARS"
    )
    clean = {"PATH": "/usr/bin:/bin", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=clean, timeout=60)


def test_the_parser_does_not_pull_the_client_in():
    code = "import sys, app.hub.headers, app.hub.strictjson; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("repo", "grants", "expected"),
    [
        ("Org/Name", ["org"], True),
        ("org/name", ["ORG/NAME"], True),
        ("org/name", ["org/other", "organisation", "or", "name", "org/"], False),
        ("org/name", [], False),
        ("org/name", ["*"], False),
    ],
)
def test_a_grant_covers_a_namespace_or_a_repository(repo, grants, expected):
    assert granted(repo, grants) is expected


@pytest.mark.parametrize("path", ["a", "a/b.txt", "..a", "a..b/c", ".gitattributes"])
def test_ordinary_paths_are_safe(path):
    assert safe_path(path)


@pytest.mark.parametrize("path", ["", "/a", "a/../b", "..", ".", "a//b", "a/", "a\\b", "c:a", "a\nb", "x" * 1001])
def test_paths_that_lead_elsewhere_are_not(path):
    assert not safe_path(path)
