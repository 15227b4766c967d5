"""What `make docs` does beside MkDocs: pages made from the project's own files, and links that lead out of docs/.

The pages are written for a forge, where a list may follow a line of text at once and links may lead to any file.
"""

import json
import re
from pathlib import Path
from typing import Any

from reference import render

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"SECURITY.md": "security-policy.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""the project's own pages, by the name they have on the site"""
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
LATE_LIST = re.compile(r"^(?![ \t]*(?:[-*]|\d+\.) )(?!\s*$)(?!\|)(?!#)(.+)\n(?=(?:[-*]|1\.) )", flags=re.MULTILINE)
FENCE = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """A page that nobody has put into the navigation yet stands at its end."""
    listed = set(pages(config.nav))
    found = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    if more := [name for name in found if name not in listed]:
        config.nav.append({"More": more})
    return config


def pages(nav: Any) -> list[str]:
    """The pages in a navigation, section by section."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)]


def on_files(files: Any, config: Any) -> Any:
    """Add the project's own pages and the HTTP reference."""
    from mkdocs.structure.files import File  # noqa: PLC0415  (only MkDocs has it)

    made = {name: (ROOT / source).read_text() for source, name in PAGES.items()}
    made["http-reference.md"] = render(json.loads((ROOT / "docs" / "openapi.json").read_text()))
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001  (MkDocs' signature)
    """The page as MkDocs wants it."""
    place = page.file.src_uri
    own = {name: source for source, name in PAGES.items()}
    folder = (Path() if place in own else Path("docs") / place).parent
    return relink(spaced(markdown), folder=folder, depth=place.count("/"))


def spaced(markdown: str) -> str:
    """A blank line before each list that follows a line of text, outside of code."""
    parts = FENCE.split(markdown)
    return "".join(part if number % 2 else LATE_LIST.sub(r"\1\n\n", part) for number, part in enumerate(parts))


def relink(markdown: str, *, folder: Path, depth: int) -> str:
    """Links that leave docs/ lead to the page made of their target; to other files there is none, so the words stay."""

    def led(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = _normal(folder / target)
        if path in PAGES:
            return f"]({'../' * depth}{PAGES[path]}{anchor})"
        if path.startswith("docs/"):
            return f"]({_from(folder, path)}{anchor})" if not str(folder).startswith("docs") else found[0]
        return f"](https://example.invalid/{path})"

    return re.sub(r"\[([^\]]+)\]\(https://example\.invalid/([^)]+)\)", r"\1 (`\2`)", LINK.sub(led, markdown))


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _from(folder: Path, path: str) -> str:
    return path.removeprefix("docs/") if folder == Path() else path
