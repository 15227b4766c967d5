"""Fixtures: real headless Chromium, which fails a test for any error in its console and any request to elsewhere."""

import importlib.resources
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 740}
SHOTS = os.environ.get("SHOTS")
"""a folder for pictures of what the tests look at"""


@dataclass
class Eyes:
    """One page of a browser of its own, and what went wrong on it."""

    page: Any
    home: str
    wrong: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def watch(self) -> None:
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.home).netloc:
            self.wrong.append(f"asks elsewhere: {request.url}")

    def go(self, path: str) -> Any:
        return self.page.goto(self.home + path)

    def sign_in(self, key: str, *, path: str = "/") -> None:
        """Through the form, by the keyboard: the field has the focus."""
        self.go(path)
        self.page.wait_for_selector("#key:focus")
        self.page.keyboard.type(key)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(self.home + path)

    def audit(self) -> list[str]:
        """What axe finds serious or critical, by rule and place."""
        script = importlib.resources.files("axe_playwright_python") / "axe.min.js"
        self.page.evaluate(script.read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [
            f"{rule['id']} ({rule['impact']}): {node['target']} {node['failureSummary']}"
            for rule in found if rule["impact"] in {"serious", "critical"}
            for node in rule["nodes"]
        ]  # fmt: skip

    def is_wider_than_the_screen(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def shoot(self, name: str, *, whole: bool = True) -> None:
        if SHOTS:
            Path(SHOTS).mkdir(exist_ok=True)
            self.page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=whole)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser's process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ["CHROMIUM"],
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def open_eyes(chromium: Any, home: str, **options: Any) -> Iterator[Eyes]:
    context = chromium.new_context(**({"viewport": WIDE} | options))
    eyes = Eyes(page=context.new_page(), home=home)
    eyes.watch()
    yield eyes
    context.close()
    assert [wrong for wrong in eyes.wrong if not wrong.startswith(eyes.expected or ("\0",))] == []


@pytest.fixture
def eyes(chromium: Any, live_url: str) -> Iterator[Eyes]:
    """On the API of `api`."""
    yield from open_eyes(chromium, live_url)


@pytest.fixture
def dark_eyes(chromium: Any, live_url: str) -> Iterator[Eyes]:
    """The same, for a reader who prefers it dark."""
    yield from open_eyes(chromium, live_url, color_scheme="dark")


@pytest.fixture
def phone_eyes(chromium: Any, live_url: str) -> Iterator[Eyes]:
    """The same, on a phone."""
    yield from open_eyes(chromium, live_url, viewport=PHONE, device_scale_factor=2, has_touch=True, is_mobile=True)


@pytest.fixture
def service_eyes(chromium: Any, service: Any) -> Iterator[Eyes]:
    """On the whole service."""
    yield from open_eyes(chromium, service.url)
