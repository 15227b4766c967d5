"""The Hub's client with our own timeouts, credentials and errors. Everything said to the Hub goes through `Hub`."""

import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, TypeVar
from urllib.parse import quote

# The client reads these when it is imported, so they are set here and the client is first imported here:
# no token but ours is ever sent, nothing is reported home, nothing is drawn on a terminal.
for _name in ("DISABLE_IMPLICIT_TOKEN", "DISABLE_TELEMETRY", "DISABLE_PROGRESS_BARS", "DISABLE_UPDATE_CHECK"):
    os.environ[f"HF_HUB_{_name}"] = "1"

import httpx2  # noqa: E402
from huggingface_hub import CommitOperationAdd as CommitOperationAdd  # noqa: E402, PLC0414 - for app.hub.publish
from huggingface_hub import DatasetInfo, HfApi, ModelInfo, constants, set_client_factory  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError  # noqa: E402
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: E402 - it exports without __all__
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from app.counters import counters  # noqa: E402
from app.errors import Code, SpearError  # noqa: E402
from app.hub.credentials import choose  # noqa: E402
from app.hub.failures import CALL, WIRE, translate  # noqa: E402
from app.settings import Settings  # noqa: E402

OFFICIAL = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
READ_ATTEMPTS = 3
FIRST_WAIT_SECONDS = 0.2
TURN_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""waits for other creations of repositories to end"""
_CHUNK = 1 << 20
_WRITING_ROLES = ("admin", "write", "contributor")

T = TypeVar("T")
RepoType = Literal["model", "dataset"]


class Hub:
    """One endpoint with one credential; `token=None` is the anonymous reader.

    Every method raises `SpearError` with the code that fits; no message, name or repr holds the token.
    """

    def __init__(
        self, endpoint: str, token: str | None, *, timeout_seconds: float, repo_type: RepoType = "model"
    ) -> None:
        self.repo_type: RepoType = repo_type
        self.endpoint = endpoint.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self._token = token
        self.api = HfApi(endpoint=self.endpoint, token=token or False)
        self._headers = {**build_hf_headers(token=token or False), "accept-encoding": "identity"}
        # for the bytes of files; redirects to storage elsewhere go without our credential
        self._http = httpx2.Client(follow_redirects=True, timeout=timeout_seconds, verify=_tls())
        if self.endpoint != OFFICIAL:
            # Other Hubs have no Xet storage, and the client does not fall back by itself. Read at each upload.
            constants.HF_HUB_DISABLE_XET = True
        _use_timeout(timeout_seconds)

    def __repr__(self) -> str:
        return f"Hub({self.endpoint!r}, {'with a token' if self._token else 'anonymous'})"

    @property
    def anonymous(self) -> bool:
        return self._token is None

    def of(self, repo_type: RepoType) -> "Hub":
        """The same Hub with the same credential and connections, for repositories of this type: to read only."""
        if repo_type == self.repo_type:
            return self
        other = copy(self)
        other.repo_type = repo_type
        return other

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def calling(
        self, *, repo: str = "", revision: str = "", file: str = "", known: tuple[type[Exception], ...] = CALL
    ) -> Iterator[None]:
        """Turns the client's exceptions inside into `SpearError`s that name these things."""
        try:
            yield
        except known as error:
            told = translate(error, repo=repo, revision=revision, file=file, token=self._token or "")
            counters.add("spear_hub_calls", outcome=told.code)
            raise told from None
        counters.add("spear_hub_calls", outcome="ok")

    def whoami(self) -> str:
        """The account's name."""
        return str(self._account()["name"])

    def writable_namespaces(self) -> frozenset[str]:
        """The account and its organisations with the right to write, in lower case; empty for a token that reads."""
        account = self._account()
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            return frozenset()
        orgs = [org for org in account.get("orgs", []) if org.get("roleInOrg", "write") in _WRITING_ROLES]
        return frozenset(str(owner["name"]).lower() for owner in (account, *orgs))

    def check_access(self, repo: str, *, write: bool = False) -> None:
        """Returns if this credential may read (or write) the files of the repository."""
        self._reading(lambda: self.api.auth_check(repo, repo_type=self.repo_type, write=write), repo=repo)

    def info(self, repo: str, revision: str) -> ModelInfo | DatasetInfo:
        ask = self.api.model_info if self.repo_type == "model" else self.api.dataset_info
        return self._reading(
            lambda: ask(
                repo, revision=revision, files_metadata=True, timeout=self.timeout_seconds  # None would mean no limit
            ),
            repo=repo,
            revision=revision,
        )

    def name_of(self, repo: str) -> str:
        """The repository's own name: another one where it was renamed and the Hub leads on."""
        ask = self.api.model_info if self.repo_type == "model" else self.api.dataset_info
        found = self._reading(lambda: ask(repo, timeout=self.timeout_seconds), repo=repo)
        return str(found.id)

    def branches(self, repo: str) -> dict[str, str]:
        """The commit at the head of each branch, by the branch's name."""
        refs = self._reading(lambda: self.api.list_repo_refs(repo), repo=repo)
        return {branch.name: branch.target_commit for branch in refs.branches}

    def commits(self, repo: str, revision: str) -> Iterator[tuple[str, str]]:
        """Commits from the newest on, as (oid, whole message); pages are asked for as they are needed."""
        url = f"{self.endpoint}/api/models/{repo}/commits/{quote(revision, safe='')}"
        while url.startswith(f"{self.endpoint}/"):  # the credential goes to no other place
            page, url = self._reading(partial(self._page, url), repo=repo, revision=revision)
            for item in page:
                yield item["id"], f"{item['title']}\n\n{item['message']}"

    def create_repo(self, repo: str, *, private: bool) -> bool:
        """Creates the repository; one that exists stays as it is. Whether the Hub said that it made it now.

        The Hub makes one repository of an account at a time, and other workers may be at it. The client's own method
        asks again without end meanwhile, hence this one. Raises `HUB_UNAVAILABLE` if that takes too long.
        """
        owner, name = repo.split("/")
        body = {"name": name, "organization": owner, "type": "model", "visibility": "private" if private else "public"}
        for wait in (0.0, *TURN_SECONDS):
            time.sleep(wait)
            with self.calling(repo=repo):
                reply = get_session().post(f"{self.endpoint}/api/repos/create", headers=self._headers, json=body)
                if reply.status_code != httpx2.codes.CONFLICT:
                    hf_raise_for_status(reply)
                    return True
                if "conflicting operation" not in reply.text:
                    return False
        raise SpearError(
            Code.HUB_UNAVAILABLE, f"the Hub could not create {repo}: it is busy with another creation", repo=repo
        )

    def create_branch(self, repo: str, branch: str, *, start: str) -> bool:
        """Creates the branch; one that exists stays as it is. Whether the Hub said that it made it now."""
        with self.calling(repo=repo, revision=branch):
            try:
                self.api.create_branch(repo, branch=branch, revision=start)
            except HfHubHTTPError as error:
                if error.response.status_code != httpx2.codes.CONFLICT:
                    raise
                return False
        return True

    def upload(self, repo: str, branch: str, additions: list[CommitOperationAdd]) -> None:
        """Stores the files' content, without a commit; content that is there already is not sent. Can be repeated."""
        with self.calling(repo=repo, file=", ".join(addition.path_in_repo for addition in additions)):
            try:
                # no .gitignore, of theirs or of ours, may keep a file out of the commit
                self.api.preupload_lfs_files(
                    repo, additions, revision=branch, free_memory=False, gitignore_content=""
                )
            except RuntimeError as error:
                # the client wraps what went wrong on a thread of its own
                raise error.__cause__ if isinstance(error.__cause__, CALL) else OSError(str(error)) from None

    def validate_card(self, repo: str, text: str) -> None:
        """Returns if the Hub would take this as the repository's README.md."""
        body = {"content": text, "repoType": "model"}
        url = f"{self.endpoint}/api/validate-yaml"
        self._reading(
            lambda: hf_raise_for_status(get_session().post(url, headers=self._headers, json=body)),
            repo=repo, file="README.md",
        )  # fmt: skip

    def commit(self, repo: str, branch: str, body: bytes, *, sent: Callable[[], None] = lambda: None) -> None:
        """One request for one commit, as `app.hub.parcel` lays it out. It is sent once, and nothing is sent before it.

        Neither its success nor its failure proves anything: see `app.hub.publish`. The client's own method asks the Hub
        for other things first, so a lease that was checked before it may be lost when the commit leaves. `sent` is
        called when the last byte is out, before the reply.
        """

        def told() -> Iterator[bytes]:
            yield body
            sent()

        url = f"{self.endpoint}/api/models/{repo}/commit/{quote(branch, safe='')}"
        length = str(len(body))
        headers = {**self._headers, "content-type": "application/x-ndjson", "content-length": length}
        with self.calling(repo=repo, revision=branch):
            hf_raise_for_status(get_session().post(url, headers=headers, content=told()), endpoint_name="commit")

    def read(self, repo: str, commit: str, file: str, *, start: int = 0, size: int) -> bytes:
        """`size` bytes of a file from `start` on, by a range request; fewer where the file ends before."""
        return self._reading(
            lambda: self._read(repo, commit, file, start=start, size=size), repo=repo, revision=commit, file=file
        )

    @contextmanager
    def stream(
        self, repo: str, commit: str, file: str, *, start: int = 0, end: int | None = None
    ) -> Iterator[httpx2.Response]:
        """An open response for bytes `start` to `end` (inclusive, as in HTTP); the caller reads its body."""
        folder = "" if self.repo_type == "model" else "datasets/"
        url = f"{self.endpoint}/{folder}{repo}/resolve/{commit}/{quote(file)}"
        headers = dict(self._headers)
        if start or end is not None:
            headers["range"] = f"bytes={start}-{'' if end is None else end}"
        # only the wire's errors: what the caller does with the bytes (a full disk) is not the Hub's doing
        with (
            self.calling(repo=repo, revision=commit, file=file, known=WIRE),
            self._http.stream("GET", url, headers=headers) as reply,
        ):
            hf_raise_for_status(reply)
            yield reply

    def _read(self, repo: str, commit: str, file: str, *, start: int, size: int) -> bytes:
        found = bytearray()
        with self.stream(repo, commit, file, start=start, end=start + size - 1) as reply:
            if start and reply.status_code != 206:
                raise SpearError(Code.HUB_REFUSED, f"the Hub does not serve parts of {file} in {repo}", repo=repo)
            for chunk in reply.iter_bytes(_CHUNK):
                found += chunk
                if len(found) >= size:
                    break
        return bytes(found[:size])

    def _page(self, url: str) -> tuple[list[dict[str, Any]], str]:
        """One page of a list, and the address of the next."""
        reply = get_session().get(url, headers=self._headers)
        hf_raise_for_status(reply)
        return reply.json(), reply.links.get("next", {}).get("url", "")

    def _account(self) -> dict[str, Any]:
        if self.anonymous:
            raise SpearError(Code.TARGET_NOT_WRITABLE, "the service has no Hub token")
        return self._reading(self.api.whoami)

    def _reading(self, call: Callable[[], T], *, repo: str = "", revision: str = "", file: str = "") -> T:
        """Calls what changes nothing at the Hub; after a passing failure, again."""
        for attempt in range(READ_ATTEMPTS):
            try:
                with self.calling(repo=repo, revision=revision, file=file):
                    return call()
            except SpearError as error:
                if error.code is not Code.HUB_UNAVAILABLE or attempt == READ_ATTEMPTS - 1:
                    raise
            time.sleep(FIRST_WAIT_SECONDS * 3**attempt)
        raise AssertionError


@dataclass(frozen=True)
class Hubs:
    """The same Hub without a credential, with the one that reads, and with the one that publishes."""

    anonymous: Hub
    service: Hub
    publishing: Hub | None = None
    """where it is another credential than the one that reads"""

    @property
    def publisher(self) -> Hub:
        return self.publishing or self.service

    def of(self, repo_type: RepoType) -> "Hubs":
        """The same for reading repositories of this type."""
        return Hubs(anonymous=self.anonymous.of(repo_type), service=self.service.of(repo_type))


@contextmanager
def connected(settings: Settings, *, credential: str | None = None, token: str | None = None) -> Iterator[Hubs]:
    """`connect`, closed at the end."""
    hubs = connect(settings, credential=credential, token=token)
    try:
        yield hubs
    finally:
        for hub in {hubs.anonymous, hubs.service, hubs.publisher}:
            hub.close()


def connect(settings: Settings, *, credential: str | None = None, token: str | None = None) -> Hubs:
    """All views of the configured Hub, as the caller's own `token`, else the named credential, else the service's own.

    Tokens are read from their files now.
    """
    timeout, chosen = settings.hub_timeout_seconds, choose(settings, name=credential, token=token)
    service = Hub(settings.hub_endpoint, chosen.read, timeout_seconds=timeout)
    return Hubs(
        anonymous=Hub(settings.hub_endpoint, None, timeout_seconds=timeout),
        service=service,
        publishing=None if chosen.write == chosen.read else Hub(
            settings.hub_endpoint, chosen.write, timeout_seconds=timeout
        ),
    )


_timeout_in_use: float | None = None


def _use_timeout(seconds: float) -> None:
    """Gives the client's own HTTP session a timeout: by default it would wait for ever."""
    global _timeout_in_use  # noqa: PLW0603 - the client has one session for the whole process
    if _timeout_in_use == seconds:
        return
    _timeout_in_use = seconds
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=seconds, verify=_tls()))


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes 20 ms: once per process, not per request."""
    return httpx2.create_ssl_context()
