"""What the commands work with: the service's client, or its settings."""

from typing import TYPE_CHECKING

from app.client import Client

if TYPE_CHECKING:
    from app.settings import Settings


def client() -> Client:
    """The client of the configured service. Raises `ValueError` without a key."""
    from app.settings import load

    settings = load()
    if settings.api_key is None:
        raise ValueError("SPEAR_API_KEY is not set: `spear up` prints a key, `spear keys create` makes one")
    return Client(settings.api_url, settings.api_key.get_secret_value())


def serving() -> "Settings":
    """The settings of a part of the service; without a database there is nothing to serve."""
    from app import cores
    from app.logs import configure
    from app.settings import load

    cores.forbid()
    settings = load()
    if not settings.database_url or not settings.redis_url:
        raise ValueError("SPEAR_DATABASE_URL and SPEAR_REDIS_URL must be set; `spear up` brings its own")
    configure(settings.log_level)
    return settings
