"""The pages as a site: tables are the schema's, examples are recipes, every page is in the navigation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from app.recipes import METHODS
from app.recipes.mergekit import AnyForm, written

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "site"))
BLOCKS = [
    (f"{page.name}:{number}", text)
    for page in [DOCS / "recipes.md", *sorted((DOCS / "methods").glob("*.md"))]
    for number, text in enumerate(re.findall(r"^```json\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL))
]


class _Loader(yaml.SafeLoader):
    """MkDocs' file names Python functions; here they are only text."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda _loader, suffix, _node: suffix)
SITE: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=_Loader)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_with_its_parameters_as_they_are(name: str) -> None:
    import tables

    text = (DOCS / "methods" / f"{name}.md").read_text()
    assert f"<!-- parameters: {name} -->" in text
    assert tables.rewritten(text) == text, "run: python docs/site/tables.py"
    assert f"`{name}`" in (DOCS / "methods" / "README.md").read_text()
    if name != "spear":
        assert "**Source.**" in text
        assert "**Not for.**" in text
        assert f'"name": "{name}"' in text


@pytest.mark.parametrize(("place", "text"), BLOCKS, ids=[place for place, _ in BLOCKS])
def test_every_recipe_in_the_pages_is_one(place: str, text: str) -> None:
    form = TypeAdapter(AnyForm).validate_python(json.loads(text))
    with written(form) as recipe:
        assert recipe.target.repo


def test_there_are_recipes_for_every_method() -> None:
    assert len(BLOCKS) >= len(METHODS) - 1 + 8


def test_the_navigation_lists_pages_that_there_are_each_once() -> None:
    from hooks import PAGES, pages

    listed = pages(SITE["nav"])
    assert len(listed) == len(set(listed))
    assert {name for name in listed if not (DOCS / name).exists()} == {"http-reference.md", *PAGES.values()}
    methods = {f"methods/{path.name}" for path in (DOCS / "methods").glob("*.md")}
    assert methods <= set(listed)


def test_every_decision_is_in_the_map() -> None:
    listed = (DOCS / "decisions" / "README.md").read_text()
    for page in (DOCS / "decisions").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in listed, page.name


def test_the_http_reference_has_every_route_and_every_body() -> None:
    from reference import render

    description = json.loads((DOCS / "openapi.json").read_text())
    text = render(description)
    for path, methods in description["paths"].items():
        assert all(f"\n### {method.upper()} {path}\n" in text for method in methods), path
    for name in description["components"]["schemas"]:
        assert f"\n### {name}\n" in text
    anchors = {heading.lower() for heading in re.findall(r"^### (\w+)$", text, flags=re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= anchors


def test_what_the_site_changes_in_the_pages() -> None:
    from hooks import relink, spaced

    assert spaced("words:\n- one\n- two\n") == "words:\n\n- one\n- two\n"
    assert spaced("```\nwords:\n- one\n```\n") == "```\nwords:\n- one\n```\n"
    assert relink("[s](../SECURITY.md)", folder=Path("docs"), depth=0) == "[s](security-policy.md)"
    assert relink("[d](docs/demo.md)", folder=Path(), depth=0) == "[d](demo.md)"
    assert relink("[w](../worker/run.py)", folder=Path("docs"), depth=0) == "w (`worker/run.py`)"
    assert relink("[h](http.md#problems)", folder=Path("docs"), depth=0) == "[h](http.md#problems)"


def test_the_hook_after_training_is_short_and_knows_its_options() -> None:
    script = ROOT / "examples" / "after_training.py"
    assert len([line for line in script.read_text().split("def main")[1].splitlines() if line.strip()]) <= 35
    found = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {"--run", "--alpha"} <= set(found.stdout.replace("[", " ").split())
    away = {**os.environ, "SPEAR_API_URL": "http://127.0.0.1:9", "SPEAR_API_KEY": "spear_k"}
    command = [sys.executable, script, "org/a", "org/b", "org/c", "--run", "1"]
    ended = subprocess.run(command, env=away, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 1
    assert ended.stderr.startswith("the service cannot be reached (")
    job = yaml.safe_load((ROOT / "examples" / "ci-job.yml").read_text())
    [run] = [step for step in job["jobs"]["repair"]["steps"] if "after_training" in step.get("run", "")]
    assert set(re.findall(r"\$([A-Z]+)\b", run["run"])) <= set(run["env"])
