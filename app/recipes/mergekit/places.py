"""A translated configuration, and where in the YAML each of its values comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import SpearError
from app.recipes.mergekit.document import Entry


@dataclass(frozen=True)
class Translation:
    """`body` is a recipe without its target; `places` says, by JSON pointer into it, where a value comes from."""

    body: dict[str, Any]
    places: Mapping[str, Entry]

    def place(self, pointer: str) -> Entry:
        """The YAML's entry behind a field of the recipe, or behind the nearest field around it."""
        while pointer not in self.places:
            pointer = pointer.rpartition("/")[0]
        return self.places[pointer]

    def explain(self, error: SpearError) -> SpearError:
        """An error about the recipe as one about the YAML: line and key in the message, the pointer `/mergekit`."""
        listed = error.names.get("errors") or [{"pointer": error.pointer, "detail": error.message}]
        told = [self._told(one["pointer"], one["detail"]) for one in listed if one["pointer"] is not None]
        if not told:
            return error
        first, (line, key) = told[0][0], told[0][1]
        names = {name: value for name, value in error.names.items() if name != "errors"}
        names |= {"line": line, "key": key} if line else {}
        return SpearError(
            error.code, str(first["detail"]), pointer=first["pointer"], **names, errors=[one for one, _ in told]
        )

    def _told(self, pointer: str, detail: str) -> tuple[dict[str, str], tuple[int, str]]:
        place = self.place(pointer)
        if pointer.startswith(("/target", "/labels")) or (pointer.startswith("/output") and place is self.places[""]):
            return {"pointer": pointer, "detail": detail}, (0, "")
        detail = detail.removeprefix("Value error, ")
        message = f"line {place.line}: {place.key}: {detail}" if place.key else f"line {place.line}: {detail}"
        return {"pointer": "/mergekit", "detail": message}, (place.line, place.key)
