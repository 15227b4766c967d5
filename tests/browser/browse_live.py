"""A job looked at while it runs, on the whole service: the page follows it to its end by itself."""

from tests.fixtures.models import make_checkpoint


def test_the_pages_follow_a_job_to_its_end(service, service_eyes, tmp_path):
    base = make_checkpoint(tmp_path / "base", seed=11, layers=6)
    adapted = make_checkpoint(tmp_path / "adapted", seed=12, like=base)
    recipe = service.recipe(service.push("live-base", base), service.push("live-adapted", adapted), "live")
    service.hub.fault("slow", path=r"/resolve/.*safetensors$", method="GET", times=None, delay=1.5)
    eyes, page = service_eyes, service_eyes.page
    with service.client() as client:
        job = client.submit(recipe | {"method": {"name": "spear", "show": ["*layers.0*q_proj*"]}})["id"]
    eyes.sign_in(service.key)
    page.wait_for_selector(f"tr:has(#to-{job}) .badge.running", timeout=30_000)
    eyes.shoot("jobs-live")
    page.click(f"#to-{job}")
    page.evaluate("window.unchanged = true")
    page.wait_for_selector("#run svg.chart", timeout=30_000)
    page.click("#stages summary")
    page.wait_for_selector("#live b:has-text('downloading')", timeout=30_000)
    page.wait_for_selector("#stages[open] th:has-text('downloading')")
    assert page.evaluate("window.unchanged")  # this came in place
    assert eyes.audit() == []
    eyes.shoot("job-live")
    page.wait_for_selector(".badge.succeeded", timeout=90_000)
    page.wait_for_selector("#heatmap svg.chart")
    assert page.evaluate("window.unchanged") is None  # and this as a new page
    assert "of 42 tensors" in page.text_content(".facts")
    assert f"spear reproduce {recipe['target']['repo']}@" in page.text_content("main")
    page.locator(".cells a.cell").first.click()
    page.wait_for_selector("#panel svg.chart path.merged")
    assert eyes.audit() == []
    eyes.shoot("job-real")
    assert service.wait(job)["status"] == "succeeded"
