"""The API's description: FastAPI's, with examples and with every problem.

`python -m app.api.openapi write docs/openapi.json` keeps it, `check` compares it with what the code says now.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from app.api.compatibility import breaks, operations
from app.api.examples import BODIES, example_of

Json = dict[str, Any]


def install(app: FastAPI) -> None:
    """Let the application describe itself with what is added here."""
    plain = app.openapi

    def described() -> Json:
        if app.openapi_schema is None:
            _add(plain())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way of extending it


def _add(document: Json) -> None:
    for _, _, operation in operations(document):
        name = operation["operationId"]
        for parameter in operation.get("parameters", []):
            found = example_of(name, parameter["name"])
            if found is not None:
                parameter["example"] = found
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if name in BODIES:
                content["examples"] = BODIES[name]


def describe() -> Json:
    """The description that the code gives, without any server."""
    from app.main import create_app  # noqa: PLC0415  (it imports this module)
    from app.settings import Settings  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            database_url="postgresql+psycopg://nobody@localhost/none", redis_url="redis://localhost",
            data_dir=Path(folder),
        )
        return create_app(settings).openapi()


def main(action: str, file: str) -> int:
    """`write` or `check`; the exit status."""
    new, path = describe(), Path(file)
    if action == "write":
        path.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
        return 0
    found = breaks(json.loads(path.read_text()), new)
    for line in found:
        sys.stderr.write(f"breaks callers: {line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
