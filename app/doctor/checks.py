"""All checks, in the order in which they are told."""

from collections.abc import Callable, Iterator

from app.doctor.configuration import check_settings
from app.doctor.finding import Finding, skip
from app.doctor.machine import check_disk, check_gpu, check_versions
from app.doctor.servers import check_api, check_broker, check_database, check_hub
from app.settings import Settings

CHECKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "database": check_database, "broker": check_broker, "hub": check_hub, "disk": check_disk, "gpu": check_gpu,
    "service": check_api,
}  # fmt: skip


def examine() -> Iterator[Finding]:
    """One finding after another, as they are made; what needs usable settings is left out where there are none."""
    yield from check_versions()
    found, settings = check_settings()
    yield from found
    for area, check in CHECKS.items():
        if settings is None:
            yield skip(area, "all", "the settings cannot be read")
        else:
            yield from check(settings)
