"""The settings: unknown, wrong or given twice; files of secrets that others may read."""

import os
import tomllib
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from app.doctor.finding import Finding, fail, ok, warn
from app.settings import PREFIX, SETTINGS_FILE, Settings

AREA = "settings"
SECRETS = ("hub_token_file", "hub_credentials", "secret_file", "webhook_secret_file", "signing_key_file")
_OTHERS_MAY_READ = 0o077


def check_settings() -> tuple[list[Finding], Settings | None]:
    """What is wrong with the environment and the settings file; the settings, where they can be used."""
    found = [*_unknown(), *_twice()]
    settings: Settings | None = None
    try:
        settings = Settings()
    except ValidationError as error:
        found += [
            fail(AREA, _name(str(each["loc"][0]) if each["loc"] else ""), each["msg"], cure="give it a value that fits")
            for each in error.errors(include_url=False, include_input=False)
        ]
    except (OSError, tomllib.TOMLDecodeError) as error:
        found.append(fail(AREA, SETTINGS_FILE, str(error), cure="name a TOML file that can be read, or unset it"))
    if settings:
        found += _secrets(settings)
    if all(each.state == "ok" for each in found):
        given = sum(name.upper().startswith(PREFIX) for name in os.environ)
        found.insert(0, ok(AREA, "names and values", f"{given} in the environment, all known"))
    return found, settings


def _unknown() -> Iterator[Finding]:
    known = {_name(field) for field in Settings.model_fields} | {SETTINGS_FILE}
    for name in sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known):
        close = get_close_matches(name.upper(), known, n=1)
        cure = f"did you mean {close[0]}? else unset it" if close else "unset it; docs/operations.md lists all"
        yield fail(AREA, name, "is no setting; every part refuses to start with it", cure=cure)


def _twice() -> Iterator[Finding]:
    """Settings with two values: one of them is silently without effect."""
    spelt = Counter(name.upper() for name in os.environ if name.upper().startswith(PREFIX))
    for name, count in spelt.items():
        if count > 1:
            yield fail(AREA, name, f"is in the environment in {count} spellings", cure="keep the one in capitals")
    values = {name.upper(): value for name, value in os.environ.items()}
    for field, value in _of_file().items():
        name = _name(field)
        if name in values and values[name] != str(value):
            yield warn(
                AREA, name, "stands in the environment and, with another value, in the settings file",
                cure="remove one of them; the environment's counts",
            )  # fmt: skip


def _of_file() -> dict[str, object]:
    """The settings file's content; empty where there is none or it cannot be read, which is told elsewhere."""
    file = os.environ.get(SETTINGS_FILE)
    try:
        return tomllib.loads(Path(file).read_text()) if file else {}
    except (OSError, ValueError):
        return {}


def _secrets(settings: Settings) -> Iterator[Finding]:
    for field in SECRETS:
        path: Path | None = getattr(settings, field)
        if path is None:
            continue
        path = path.expanduser()
        if not path.exists():
            yield fail(AREA, _name(field), f"{path} does not exist", cure="create it, or unset the setting")
        elif not os.access(path, os.R_OK):
            yield fail(AREA, _name(field), f"{path} cannot be read by this user", cure=f"chown {path} to this user")
        elif path.is_file() and path.stat().st_mode & _OTHERS_MAY_READ:
            yield warn(AREA, _name(field), f"{path} may be read by other users", cure=f"chmod 600 {path}")


def _name(field: str) -> str:
    return PREFIX + field.upper()
