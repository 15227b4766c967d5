"""What went wrong at the Hub, said in our own codes: the one place that knows the client's exceptions.

`app.hub.client` imports the Hub's client first, with the environment it needs; import this module only after it.
"""

import re
from typing import Any

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from app.errors import Code, SpearError

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
WIRE = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, EntryNotFoundError)
"""What goes wrong on the way; `HfHubHTTPError` is an `httpx2.HTTPError`."""
CALL = (*WIRE, ValueError, OSError, KeyError)
"""What a whole call through the client may raise: also answers that it cannot understand."""

_TOKEN = re.compile(r"hf_[A-Za-z0-9_]{8,}")
_MAX_WORDS = 300


def translate(error: Exception, *, repo: str = "", revision: str = "", file: str = "", token: str = "") -> SpearError:
    """The `SpearError` for an exception of the Hub's client, without a token in any part of it."""
    names: dict[str, Any] = {
        name: value for name, value in (("repo", repo), ("revision", revision), ("file", file)) if value
    }
    status = error.response.status_code if isinstance(error, HfHubHTTPError | httpx2.HTTPStatusError) else None
    if status is not None:
        names["status"] = status
    code, words = _verdict(error, status, subject=_subject(repo=repo, revision=revision, file=file), repo=repo)
    hub_says = _server_words(error, token=token)
    return SpearError(code, f"{words}: {hub_says}" if hub_says else words, **names)


def redact(text: str, *, token: str = "") -> str:
    """The text without the given token, and without anything that looks like one."""
    return _TOKEN.sub("hf_***", text.replace(token, "***") if token else text)


def _verdict(error: Exception, status: int | None, *, subject: str, repo: str) -> tuple[Code, str]:
    if isinstance(error, GatedRepoError):
        return Code.REPO_GATED, f"{repo} is gated, and its terms are not accepted for the service's account"
    if isinstance(error, DisabledRepoError):
        return Code.REPO_ACCESS_DENIED, f"{repo} is disabled on the Hub"
    if isinstance(error, RepositoryNotFoundError):
        return Code.REPO_NOT_FOUND, f"{repo or 'the repository'} does not exist on the Hub, or is not visible"
    if isinstance(error, RevisionNotFoundError):
        return Code.REVISION_NOT_FOUND, f"there is no such revision: {subject}"
    return _by_status(status, subject=subject, error=error)


def _by_status(status: int | None, *, subject: str, error: Exception) -> tuple[Code, str]:
    if status is None:
        return _without_status(error, subject=subject)
    if status in TRANSIENT or status > 500:
        return Code.HUB_UNAVAILABLE, f"the Hub answered {status} ({subject})"
    if status in {401, 403}:
        return Code.REPO_ACCESS_DENIED, f"the Hub denies access ({subject})"
    return Code.HUB_REFUSED, f"the Hub answered {status} ({subject})"


def _without_status(error: Exception, *, subject: str) -> tuple[Code, str]:
    kind = type(error).__name__
    if isinstance(error, EntryNotFoundError):
        return Code.HUB_REFUSED, f"there is no such file on the Hub ({subject})"
    if isinstance(error, httpx2.TimeoutException):
        return Code.HUB_UNAVAILABLE, f"the Hub did not answer in time ({subject})"
    if isinstance(error, httpx2.HTTPError | OSError):
        return Code.HUB_UNAVAILABLE, f"the Hub cannot be reached ({subject}; {kind})"
    return Code.HUB_UNAVAILABLE, f"the Hub's answer cannot be understood ({subject}; {kind})"


def _subject(*, repo: str, revision: str, file: str) -> str:
    place = f"{repo}@{revision}" if revision else repo
    return ", ".join(part for part in (place, file) if part) or "no repository"


def _server_words(error: Exception, *, token: str) -> str:
    """The Hub's own explanation, short and on one line."""
    words = getattr(error, "server_message", None)
    if not isinstance(words, str) or isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        return ""
    return redact(" ".join(words.split()), token=token)[:_MAX_WORDS]
