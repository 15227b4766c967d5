"""What the routes work with, built once per application."""

from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request

from app.api.bodies import Bodies
from app.api.limits import Limits
from app.api.together import Together
from app.jobs.audit import Audit
from app.jobs.database import Database
from app.jobs.figures import Figures
from app.jobs.keys import Caller, Keys
from app.jobs.quotas import Quota
from app.jobs.sealed import Seal
from app.jobs.store import Glimpse, Store
from app.jobs.workers import Workers
from app.queue.broker import make_celery
from app.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Services:
    """The application's parts, shared by all requests."""

    settings: Settings
    database: Database
    store: Store
    keys: Keys
    celery: Celery
    limits: Limits
    audit: Audit
    figures: Figures
    workers: Workers
    seal: Seal
    """for callers' own Hub tokens"""
    callers: Together[str, Caller]
    """who is behind a key"""
    glimpses: Together[str, Glimpse]
    """which version a job is at"""
    bodies: Bodies
    checks: BoundedSemaphore
    """turns for checking a request against the Hub"""


def build_services(settings: Settings) -> Services:
    """Nothing is connected yet: the first use connects."""
    database = Database(settings.database_url)
    store = Store(database, max_attempts=settings.max_attempts, idempotency_hours=settings.idempotency_hours)
    keys = Keys(database, secret=settings.secret, defaults=_quota(settings))
    return Services(
        settings=settings,
        database=database,
        store=store,
        keys=keys,
        callers=Together(keys.find_all),
        glimpses=Together(store.glimpse),
        bodies=Bodies(),
        celery=make_celery(settings, patience_seconds=3),
        limits=Limits(settings),
        audit=Audit(database, days=settings.audit_days),
        figures=Figures(database),
        workers=Workers(database, lost_seconds=settings.lease_seconds),
        seal=Seal(settings.secret),
        checks=BoundedSemaphore(settings.parallel_checks),
    )


def _quota(settings: Settings) -> Quota:
    return Quota(max_active=settings.max_active_jobs or None, bytes_per_day=settings.max_daily_bytes or None)


async def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Uses = Annotated[Services, Depends(_services)]
