"""The pages in a real browser, with jobs that have ended: what a reader can do, and axe's word on how."""

import re
from typing import Any

import pytest

from app.errors import Code
from app.jobs.workers import Badge
from tests.fixtures.api import Api
from tests.fixtures.reports import add_job, make_prediction, make_report, make_search, make_sheets, make_spectra
from tests.unit.test_dashboard_views import make_study


@pytest.fixture
def caller(api: Api) -> Any:
    return api.services.keys.find(api.key)


@pytest.fixture
def whole(api: Api, caller: Any) -> str:
    """A finished job of a large model, with an evaluation."""
    report = make_report()
    documents = {"spectra": make_spectra(report), "sheets": make_sheets()}
    return add_job(api.services.database, caller, report=report, documents=documents)


@pytest.fixture
def searched(api: Api, caller: Any) -> str:
    """A finished job of `policy: auto`."""
    report = make_report(layers=4)
    report["evaluation"] |= {"search": make_search(), "prediction": make_prediction()}
    return add_job(api.services.database, caller, report=report)


@pytest.fixture
def study(api: Api, caller: Any) -> str:
    """A finished study of two experts, with a sweep."""
    return add_job(api.services.database, caller, report=make_study() | {"scores": []}, target="org/study")


@pytest.fixture
def failed(api: Api, caller: Any) -> str:
    return add_job(api.services.database, caller, status="failed", code=Code.NONFINITE_TENSOR)


def test_sign_in_list_and_sign_out(api, eyes, whole, failed):
    page = eyes.page
    eyes.go("/")
    assert page.title() == "Sign in · spear"
    assert eyes.audit() == []
    eyes.shoot("sign-in")
    eyes.expected = ("Failed to load resource: the server responded with a status of 401",)
    page.fill("#key", "spear_00000000_wrong")
    page.click("text=Sign in >> nth=-1")
    assert "not valid" in page.text_content("[role=alert]")
    eyes.sign_in(api.key)
    assert page.locator("table.jobs tbody tr").count() == 2
    assert eyes.audit() == []
    eyes.shoot("jobs")
    page.select_option("select[name=status]", "failed")
    page.click("text=Show")
    assert page.locator("table.jobs tbody tr").count() == 1
    page.click(f"#to-{failed}")
    assert "org/llama-8b-restored" in page.text_content("h1")
    page.click("text=Sign out")
    page.wait_for_url(re.compile("/sign-in"))
    eyes.go(f"/jobs/{whole}")
    assert "/sign-in?next=" in page.url


def test_a_link_from_another_site_goes_on_to_its_page(api, eyes, whole):
    eyes.sign_in(api.key)
    elsewhere = eyes.home.replace("127.0.0.1", "localhost")  # another site, to a browser
    eyes.expected = ("asks elsewhere",)
    eyes.page.route("**/elsewhere", lambda route: route.fulfill(
        content_type="text/html", body=f"<a href='{eyes.home}/jobs/{whole}'>look</a>"))  # fmt: skip
    eyes.page.goto(f"{elsewhere}/elsewhere")
    eyes.page.click("text=look")
    eyes.page.wait_for_url(f"{eyes.home}/jobs/{whole}")
    assert "Sign in" not in eyes.page.title()


def test_a_job_page_answers_by_looking(api, eyes, whole):
    eyes.sign_in(api.key, path=f"/jobs/{whole}")
    page = eyes.page
    assert "93.1 %" in page.text_content(".facts")
    assert page.locator(".cells a.cell").count() == 224
    assert eyes.audit() == []
    eyes.shoot("job")
    assert not eyes.is_wider_than_the_screen()


def test_a_tensor_opens_in_place_by_mouse_and_by_keyboard(api, eyes, whole):
    eyes.sign_in(api.key, path=f"/jobs/{whole}")
    page = eyes.page
    page.locator(".cells a.cell").nth(32 * 5 + 3).click()  # row `up`, layer 3
    page.wait_for_selector("#panel svg.chart")
    assert page.text_content("#panel h3") == "model.layers.3.mlp.up_proj.weight"
    assert page.url.endswith(whole)
    assert eyes.audit() == []
    eyes.shoot("tensor", whole=False)
    assert page.locator(".cells a.cell[tabindex='0']").count() == 1
    page.locator(".cells a.cell").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#panel h3:has-text('layers.2.self_attn.k_proj')")
    assert page.evaluate("document.activeElement.id") == "panel"


def test_the_heatmap_and_the_table_change_in_place(api, eyes, whole):
    eyes.sign_in(api.key, path=f"/jobs/{whole}")
    page = eyes.page
    page.click("#by-snr")
    page.wait_for_selector("#heatmap svg[aria-label^='Heatmap of SNR']")
    assert page.evaluate("document.activeElement.id") == "by-snr"
    assert page.locator(".cells a.cell[tabindex='0']").count() == 1
    page.click("#only-all")
    page.wait_for_selector("text=page 1 of 9")
    page.click("#sort-layer")
    page.wait_for_selector("th[aria-sort=ascending] >> #sort-layer")
    assert page.text_content("#tensors tbody tr td:nth-child(3)") == "0"
    page.click("#sort-layer")
    page.wait_for_selector("th[aria-sort=descending] >> #sort-layer")
    assert page.text_content("#tensors tbody tr td:nth-child(3)") == "31"
    with page.expect_download() as got:
        page.click("text=CSV")
    assert got.value.suggested_filename == f"{whole}-scores.csv"
    assert eyes.audit() == []


def test_a_task_opens_item_by_item(api, eyes, whole):
    eyes.sign_in(api.key, path=f"/jobs/{whole}")
    eyes.page.click("#items-1")
    eyes.page.wait_for_selector("#answers svg.chart")
    assert eyes.audit() == []
    eyes.shoot("answers", whole=False)


def test_the_reproduce_command_is_copied(api, eyes, whole, chromium):
    eyes.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=eyes.home)
    eyes.sign_in(api.key, path=f"/jobs/{whole}")
    eyes.page.click("[aria-label='Copy: make it again and compare']")
    eyes.page.wait_for_selector("text=Copied >> nth=0")
    said = eyes.page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"spear reproduce org/llama-8b-restored@[0-9a-f]{40}", said)


def test_a_failure_says_what_broke(api, eyes, failed):
    eyes.sign_in(api.key, path=f"/jobs/{failed}")
    words = eyes.page.text_content("section.failed")
    for said in ("What broke", "Whose fault", "What to change", "nonfinite_tensor", "curl"):
        assert said in words
    assert eyes.audit() == []
    eyes.shoot("failure")


def test_a_search_tells_how_it_came_to_its_strengths(api, eyes, searched):
    eyes.sign_in(api.key, path=f"/jobs/{searched}")
    page = eyes.page
    assert page.locator("svg[aria-label^='Mean strength'] .bar.past").count() == 2
    page.click("text=The 7 groups as a table")
    page.wait_for_selector("th:has-text('mlp.2/2') >> visible=true")
    assert "Did the scores tell it?" in page.text_content("main")
    assert eyes.audit() == []
    eyes.shoot("searched")


def test_a_study_shows_what_was_gained_and_by_which_settings(api, eyes, study):
    eyes.sign_in(api.key, path=f"/jobs/{study}")
    page = eyes.page
    assert "Stage 2: pairs" in page.text_content("main")
    assert page.locator("svg[aria-label^='Gain: against']").count() == 1
    assert page.locator("svg[aria-label^='Macro-Gain, points: finance + math by lambda']").count() == 1
    page.click("summary:has-text('fpb')")
    assert page.locator("svg[aria-label^='fpb: 4 models']").is_visible()
    assert eyes.audit() == []
    eyes.shoot("study")


def test_two_jobs_side_by_side(api, eyes, whole, caller):
    stronger = make_report(seed=3, share=0.5)
    other = add_job(api.services.database, caller, report=stronger, target="org/llama-8b-stronger")
    eyes.sign_in(api.key, path=f"/compare?a={whole}&b={other}")
    assert "by the second alone" in eyes.page.text_content("main")
    assert eyes.audit() == []
    eyes.shoot("compare")


def test_an_administrator_sees_the_workers(api, eyes):
    for name, device in (("worker-1", "cpu"), ("worker-2", "cuda")):
        api.services.workers.arrive(
            Badge(name=name, owner=f"{name}@host", host="host", pid=7, version="0.1.0", device=device)
        )
    eyes.sign_in(api.services.keys.create(name="root", scopes=("admin",)), path="/fleet")
    assert [one.text_content() for one in eyes.page.locator("#fleet .badge").all()] == ["idle", "idle"]
    assert eyes.audit() == []
    eyes.shoot("fleet")


def test_dark_is_dark_and_can_be_overruled(api, dark_eyes, whole, failed, searched, study):
    eyes, page = dark_eyes, dark_eyes.page
    eyes.go("/")
    assert eyes.audit() == []
    eyes.sign_in(api.key)
    assert eyes.audit() == []
    eyes.shoot("jobs-dark")
    for name, path in (("failure", f"/jobs/{failed}"), ("compare", f"/compare?a={whole}&b={searched}"),
                       ("searched", f"/jobs/{searched}"), ("study", f"/jobs/{study}")):  # fmt: skip
        eyes.go(path)
        assert eyes.audit() == [], name
        eyes.shoot(f"{name}-dark")
    eyes.go(f"/jobs/{whole}")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert eyes.audit() == []
    eyes.shoot("job-dark")
    page.click("#theme")
    assert page.text_content("#theme") == "Theme: light"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert eyes.audit() == []


def test_a_phone_is_wide_enough(api, phone_eyes, whole, failed, searched, study):
    eyes = phone_eyes
    eyes.go("/")
    assert not eyes.is_wider_than_the_screen()
    eyes.sign_in(api.key)
    for name, path in (("jobs", "/"), ("job", f"/jobs/{whole}"), ("failure", f"/jobs/{failed}"),
                       ("searched", f"/jobs/{searched}"), ("study", f"/jobs/{study}"),
                       ("compare", f"/compare?a={whole}&b={failed}")):  # fmt: skip
        eyes.go(path)
        assert not eyes.is_wider_than_the_screen(), name
        assert eyes.audit() == [], name
        eyes.shoot(f"{name}-phone")
    eyes.go(f"/jobs/{whole}")
    eyes.page.locator(".cells a.cell").first.tap()
    eyes.page.wait_for_selector("#panel svg.chart")
    assert not eyes.is_wider_than_the_screen()
    eyes.shoot("tensor-phone", whole=False)


def test_without_scripts_everything_is_still_there(api, chromium, live_url, whole):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{live_url}/jobs/{whole}")
    page.fill("#key", api.key)
    page.click("button.main")
    page.click("#by-swci")
    assert page.locator("svg[aria-label^='Heatmap of SWCI']").count() == 1
    page.click("#sort-svdr")
    assert page.locator("th[aria-sort=descending] #sort-svdr").count() == 1
    page.locator(".cells a.cell").first.click()
    assert "model.layers.0.self_attn.q_proj.weight" in page.text_content("h1")
    context.close()
