"""Who may read and write which repository. Grants are namespaces (`org`) or repositories (`org/name`)."""

from collections.abc import Sequence

from app.errors import Code, SpearError
from app.hub.client import Hub
from app.recipes import Target

_DENIALS = frozenset({Code.REPO_NOT_FOUND, Code.REPO_ACCESS_DENIED, Code.REPO_GATED})


def granted(repo: str, grants: Sequence[str]) -> bool:
    """Whether a grant covers the repository; the Hub's names do not differ by case."""
    namespace, whole = repo.split("/", maxsplit=1)[0].lower(), repo.lower()
    return any(grant.lower() in {namespace, whole} for grant in grants)


def check_read(repo: str, *, anonymous: Hub, service: Hub, reads: Sequence[str]) -> None:
    """Returns if a key with these read grants may read the repository, and the service can.

    What anybody can read, every key can. Otherwise `READ_NOT_GRANTED` without a grant, the same for repositories
    that are missing and that are private, so that nothing can be found out by trying; with a grant, what the Hub
    says to the service: `REPO_NOT_FOUND`, `REPO_GATED`, `REPO_ACCESS_DENIED`.
    """
    refusal = _refusal(anonymous, repo)
    if refusal is None:
        return
    if granted(repo, reads):
        service.check_access(repo)
        _refuse_moved(repo, service.name_of(repo), anonymous=anonymous, grants=reads)
    elif refusal.code is Code.REPO_GATED:
        # everybody can see that it is gated
        raise SpearError(Code.REPO_GATED, f"{repo} is gated, and this API key has no grant for it", repo=repo)
    else:
        raise SpearError(
            Code.READ_NOT_GRANTED, f"{repo} is not public, and this API key has no grant for it", repo=repo
        )


def check_write(target: Target, *, service: Hub, writes: Sequence[str]) -> None:
    """Returns if a key with these write grants may publish to the target, and the service can.

    Raises `WRITE_NOT_GRANTED`, before any word to the Hub, or `TARGET_NOT_WRITABLE`.
    """
    repo = target.repo
    if not granted(repo, writes):
        raise SpearError(Code.WRITE_NOT_GRANTED, f"this API key has no write grant for {repo}", repo=repo)
    try:
        service.check_access(repo, write=True)
        name = service.name_of(repo)
    except SpearError as error:
        if error.code not in _DENIALS:
            raise
        if error.code is not Code.REPO_NOT_FOUND or not _creatable(repo, service):
            raise SpearError(
                Code.TARGET_NOT_WRITABLE, f"the service's Hub account cannot write to {repo}", repo=repo
            ) from None
        return
    if not granted(name, writes):
        message = f"{repo} is not the repository's own name, and this API key has no write grant for that one"
        raise SpearError(Code.WRITE_NOT_GRANTED, message, repo=repo)


def _refuse_moved(repo: str, name: str, *, anonymous: Hub, grants: Sequence[str]) -> None:
    """A repository that was moved to another namespace is still found under its old name: that grant ended there."""
    if granted(name, grants) or _refusal(anonymous, name) is None:
        return
    message = f"{repo} is not public, and this API key has no grant for it under its present name"
    raise SpearError(Code.READ_NOT_GRANTED, message, repo=repo)


def _creatable(repo: str, service: Hub) -> bool:
    return repo.split("/", maxsplit=1)[0].lower() in service.writable_namespaces()


def _refusal(hub: Hub, repo: str) -> SpearError | None:
    try:
        hub.check_access(repo)
    except SpearError as error:
        if error.code in _DENIALS:
            return error
        raise
    return None
