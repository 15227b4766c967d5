"""A refusal in the Hub's own words: the status and the headers by which the client knows what happened."""


class HubError(Exception):
    """A reply other than success. `code` becomes X-Error-Code, which the client maps to its exceptions."""

    def __init__(self, status: int, message: str, *, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        # a header is one line of printable ASCII
        line = "".join(letter if " " <= letter <= "~" else "?" for letter in message)
        self.headers = {"X-Error-Message": line, **({"X-Error-Code": code} if code else {}), **(headers or {})}


def repo_not_found() -> HubError:
    """What somebody with a token hears of a repository that is missing or hidden from them."""
    return HubError(404, "Repository not found", code="RepoNotFound")


def unknown_caller() -> HubError:
    """What a stranger hears of a repository that is missing or private, or may not be written.

    huggingface.co leaves the code out, and the client infers it from the 401, but from https addresses only.
    """
    return HubError(401, "Invalid username or password.", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """No branch, tag or commit has this name."""
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(path: str, *, commit: str) -> HubError:
    """The Hub names the commit even here: the client caches that the file is absent from it."""
    return HubError(404, f"{path} does not exist", code="EntryNotFound", headers={"X-Repo-Commit": commit})
