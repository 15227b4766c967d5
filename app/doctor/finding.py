"""What a check found."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at; `cure` says in one line what to do where it is not well."""

    area: str
    name: str
    state: State
    detail: str
    cure: str = ""

    def document(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def ok(area: str, name: str, detail: str) -> Finding:
    """All is well."""
    return Finding(area=area, name=name, state="ok", detail=detail)


def warn(area: str, name: str, detail: str, *, cure: str) -> Finding:
    """It works, and somebody should look."""
    return Finding(area=area, name=name, state="warning", detail=detail, cure=cure)


def fail(area: str, name: str, detail: str, *, cure: str) -> Finding:
    """It does not work."""
    return Finding(area=area, name=name, state="failed", detail=detail, cure=cure)


def skip(area: str, name: str, detail: str) -> Finding:
    """Nothing to look at on this machine."""
    return Finding(area=area, name=name, state="skipped", detail=detail)
