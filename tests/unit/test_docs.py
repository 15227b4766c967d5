import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import app
from app.errors import KINDS
from app.main import create_app
from app.recipes import Expert, ModelRef, Output, Recipe, Target
from app.settings import PREFIX, SETTINGS_FILE, Settings

ROOT = Path(__file__).resolve().parents[2]
MINE = ("tests/unit/test_docs.py",)  # it names what it looks for
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
HTTP = (ROOT / "docs" / "http.md").read_text()
PLACES = tuple(f"/{name}/" for name in ("work", "home", "root", "Users", "mnt"))
"""where machines keep what belongs to one person; paths inside of images (/data, /srv, /opt, /run, /tmp) are none"""


def project_files() -> list[str]:
    """The project's files: as git knows them, or all but the ignored folders where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [str(path) for path in files if not path.parts[0].startswith((".", "build", "dist"))]


FILES = project_files()
PAGES = [ROOT / name for name in FILES if name.endswith(".md")]


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    for name, field in Settings.model_fields.items():
        default = "empty" if field.default in ("", None) else f"`{field.default}`"
        assert f"\n| `{PREFIX}{name.upper()}` | {default} |" in OPERATIONS, name


def test_no_page_names_a_setting_that_is_not() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {SETTINGS_FILE}
    for page in PAGES:
        assert set(re.findall(r"\bSPEAR_[A-Z_]*[A-Z]", page.read_text())) <= known, page


def test_the_table_of_error_codes_is_the_list_of_error_codes() -> None:
    found = set(re.findall(r"^\| `[a-z_]+` \| \d{3} \| .+ \| (?:yes|no) \|$", HTTP, flags=re.MULTILINE))
    expected = {
        f"| `{code}` | {kind.status} | {kind.title} | {'yes' if kind.retryable else 'no'} |"
        for code, kind in KINDS.items()
    }
    assert found == expected  # what the pages lack, or have too much, are whole lines to paste or to delete


def test_every_route_is_described_and_every_described_route_is_there(tmp_path: Path) -> None:
    settings = Settings(
        database_url="postgresql+psycopg://nobody@localhost/none", redis_url="redis://localhost", data_dir=tmp_path
    )
    paths: dict[str, dict[str, Any]] = create_app(settings).openapi()["paths"]
    offered = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    described = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^` ]*)`", HTTP))
    assert described == offered | {"GET /openapi.json", "GET /docs"}
    for path in paths:
        pattern = re.sub(r"\\{[a-z_]+\\}", r'[^/"]+', re.escape("$SPEAR_API_URL" + path))
        assert re.search(pattern + '"', HTTP), f"no example for {path}"


@pytest.mark.parametrize("prefix", ["", "base.", "experts[].", "target.", "output."])
def test_every_field_of_the_recipe_is_in_the_table(prefix: str) -> None:
    parts = {"": Recipe, "base.": ModelRef, "experts[].": Expert, "target.": Target, "output.": Output}
    table = "\n".join(re.findall(r"^\| `.*$", HTTP, flags=re.MULTILINE))
    for name in parts[prefix].model_fields:
        whole = re.escape(prefix + name) + r"(?:`|\.|\[)"
        assert re.search(rf"`{whole}|`\.{name}`" if prefix else rf"`{whole}", table), prefix + name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Git forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def spear_commands() -> Iterator[tuple[str, list[str]]]:
    """Every `spear ...` in a block or in code within a line, by its page."""
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^(?:    |\$ ).*$", text, flags=re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
        for line in blocks:
            found = re.search(r"(?:^|\s|/)spear (?=[a-z])([^`#|<]+)", line)
            if found and not line.strip().startswith(("{", '"', "#")):
                yield str(page.relative_to(ROOT)), shlex.split(found[1].split(" && ")[0])


def test_every_spear_command_in_the_pages_is_one_that_there_is() -> None:
    group = typer.main.get_command(app)
    found = list(spear_commands())
    assert {"up", "submit", "plan", "keys", "worker", "sweep", "migrate", "api"} <= {words[0] for _, words in found}
    for page, words in found:
        assert_parses(group, words, page=page)


def assert_parses(command: Any, words: list[str], *, page: str) -> None:
    while hasattr(command, "commands"):
        if not words:
            return
        assert words[0] in command.commands, f"{page}: spear {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= options | {"--help"}, f"{page}: {given - options}"


def test_every_make_target_in_the_pages_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        named = re.findall(r"^    make ([a-z-]+)", text, flags=re.MULTILINE) + re.findall(r"`make ([a-z-]+)", text)
        assert set(named) <= targets, page


def test_no_file_has_a_path_of_one_machine() -> None:
    for name in FILES:
        if name in MINE or name.endswith((".png", ".lock", ".gz")):
            continue
        text = (ROOT / name).read_text()
        for place in PLACES:
            assert not re.search(rf"(?<![\w./:}}$]){re.escape(place)}\w", text), f"{name}: {place}"


def test_nothing_large_is_kept() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in FILES}
    assert [name for name, size in sizes.items() if size > 300_000 and not name.endswith(".lock")] == []
