"""The pages as text: what each shows of a job, to whom, and under which headers."""

import csv
import gzip
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from app.dashboard.assets import FOLDER, TYPES, asset_url
from app.dashboard.rendering import POLICY
from app.errors import Code
from tests.fixtures.api import Api
from tests.fixtures.reports import (
    EMBEDDING,
    add_job,
    make_prediction,
    make_report,
    make_search,
    make_sheets,
    make_spectra,
)

VOID = {"meta", "link", "input", "br", "path", "rect", "circle", "line"}


class Elements(HTMLParser):
    """Every element with its attributes; fails where they do not nest, and where an identifier stands twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []
        names = [a["id"] for _, a in self.found if "id" in a]
        assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())


def caller(api: Api, key: str | None = None):
    found = api.services.keys.find(key or api.key)
    assert found is not None
    return found


def keep(api: Api, **values: Any) -> str:
    return add_job(api.services.database, caller(api), **values)


def look(api: Api, path: str, **options: Any) -> str:
    answer = api.call("GET", path, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    if answer.text.startswith("<!doctype"):
        Elements(answer.text)
    assert "style=" not in answer.text
    assert not re.search(r"\son[a-z]+=", answer.text)
    return answer.text


@pytest.fixture
def whole(api: Api) -> tuple[str, dict[str, Any]]:
    """A finished job of a large model, and its report."""
    report = make_report()
    return keep(api, report=report, documents={"spectra": make_spectra(report), "sheets": make_sheets()}), report


def test_a_finished_job_tells_all_in_the_order_of_the_questions(api, whole):
    job, report = whole
    text = look(api, f"/jobs/{job}")
    order = [
        "succeeded", ">gate<", ">retention<", ">gain kept<", ">restored<", report["verdict"][:40], '"Trade-off"',
        "control as good", "What was restored, and why", "Restored tensors", "Before and after", "arc_easy", "The run",
        "scoring · 2", ">Log<", "Where it comes from",
        f"spear reproduce org/llama-8b-restored@{report['inputs'][0]['commit']}",
    ]  # fmt: skip
    places = [text.find(words) for words in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert text.count('class="cell"') >= 224
    assert "93.1 %" in text
    assert "spear, balanced" in text


def test_a_search_tells_how_it_came_to_its_strengths_and_what_the_scores_foretold(api):
    report = make_report(layers=2)
    report["evaluation"] |= {"search": make_search(), "prediction": make_prediction()}
    report["evaluation"]["diagnosis"][0]["groups"] = ["embedding"]
    text = look(api, f"/jobs/{keep(api, report=report)}")
    order = [
        "Groups: embedding.", "How the strengths were found", "at least 90 % of the gain kept",
        "58.5 of 60 evaluations",
        "head, mlp.2/2 went beyond the adapted model", "mlp.2/2: t = 1.4, 14.3 % of the parameters, beyond",
        "auto at gain kept of 0.9 <b>(merged)</b>", "as searched", "at least 1.3 %", "t = 0.605 for all weights",
        "What was restored, and why", "Before and after", "Did the scores tell it?", "12 tensors",
        '<th scope="row">SWCI', "The run",
    ]  # fmt: skip
    places = [text.find(words) for words in order]
    assert -1 not in places, order[places.index(-1)]
    assert places[-6:] == sorted(places[-6:])
    assert places[:5] == sorted(places[:5])
    Elements(text)


def test_without_an_evaluation_the_page_says_what_is_missing(api):
    job = keep(api, report=make_report(layers=2, evaluated=False))
    text = look(api, f"/jobs/{job}")
    assert "No evaluation was run" in text
    assert "Nothing was measured" in text
    assert "Before and after" in text


def test_a_report_of_the_first_version_still_makes_a_page(api):
    report = make_report(layers=2, evaluated=False)
    for name in ("evaluation", "distribution", "spectra"):
        del report[name]
    old = ("metric", "modules", "layers", "score", "relative_change", "restored", "outside")
    report["heatmap"] = {name: report["heatmap"][name] for name in old}
    for row in report["scores"]:
        del row["reason"], row["parameters"]
    job = keep(api, report=report)
    assert "Restored" in look(api, f"/jobs/{job}")
    assert "What the colour shows" in look(api, f"/jobs/{job}?metric=snr")


def test_a_merge_without_scores_tells_what_was_done_to_its_tensors(api):
    report = make_report(layers=1, evaluated=False)
    report["scores"], report["merge"]["operations"] = [], {"linear": 12}
    report["heatmap"] = {name: [] for name in report["heatmap"]}
    report["distribution"]["edges"] = []
    text = look(api, f"/jobs/{keep(api, report=report)}")
    assert "Tensors by operation: linear 12." in text
    assert "What was done" in text
    assert "Scored tensors" not in text


def test_a_failed_job_says_what_broke_whose_fault_it_is_and_what_to_change(api):
    job = keep(api, status="failed", code=Code.NONFINITE_TENSOR)
    text = look(api, f"/jobs/{job}")
    for words in (
        "A tensor has NaN or infinite values", "What broke", "mlp.up_proj.weight", "Whose fault",
        "One of the input repositories", "What to change", f"/merges/{job}/retry", "req_example",
    ):  # fmt: skip
        assert words in text
    assert "Where it comes from" in text


def test_the_list_is_narrowed_and_goes_on_by_cursor(api):
    names = [keep(api, target=f"org/model-{number}") for number in range(27)]
    failed = keep(api, status="failed", code=Code.DISK_FULL)
    first = look(api, "/")
    assert failed in first
    assert names[-1] in first
    assert names[0] not in first
    second = look(api, re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&"))
    assert names[0] in second
    assert "newest" in second
    assert failed in look(api, "/?status=failed")
    assert names[3] not in look(api, "/?status=failed")
    assert re.findall(r'id="to-(\w+)"', look(api, "/?target=ORG/model-3")) == [names[3]]
    assert "No job is like this" in look(api, "/?label=team:other")
    assert "No job is like this" in look(api, "/?kind=scores&status=active")
    assert api.call("GET", "/?status=odd").status_code == 400
    assert api.call("GET", "/?cursor=odd").status_code == 400
    assert api.call("GET", "/?label=team").status_code == 400


def test_the_list_tells_only_what_is_new(api):
    job = api.submit().json()["id"]
    text = look(api, "/")
    address = re.search(r'hx-get="(/jobs\?[^"]+)"', text)[1].replace("&amp;", "&")
    assert api.call("GET", address).status_code == 204
    api.call("POST", f"/merges/{job}/cancel")
    assert "cancelled" in look(api, address)


def test_a_running_job_tells_only_what_is_new_and_reloads_at_its_end(api):
    job = api.submit().json()["id"]
    text = look(api, f"/jobs/{job}")
    assert "Waiting for a worker" in text
    assert "No stage has begun yet" in text
    address = re.search(r'hx-get="(/jobs/[^"]+/live\?version=\d+)"', text)[1]
    assert api.call("GET", address).status_code == 204
    part = look(api, f"/jobs/{job}/live?version=0")
    assert 'hx-swap-oob="true"' in part
    api.call("POST", f"/merges/{job}/cancel")
    assert api.call("GET", address).headers["hx-refresh"] == "true"
    assert "hx-trigger" not in look(api, f"/jobs/{job}")


def test_the_table_is_sorted_in_pages_and_downloaded(api, whole):
    job, report = whole
    text = look(api, f"/jobs/{job}/tensors?only=all&sort=relative_change", headers={"HX-Request": "true"})
    shown = re.findall(r">(model\.[^<]+)</a></th>", text)
    best = sorted(report["scores"], key=lambda row: -row["relative_change"])
    assert shown == [row["name"] for row in best[:25]]
    assert not text.startswith("<!doctype")
    later = look(api, f"/jobs/{job}/tensors?only=all&sort=relative_change&number=9")
    assert later.startswith("<!doctype")
    assert re.findall(r">(model\.[^<]+)</a></th>", later) == [row["name"] for row in best[200:]]
    assert api.call("GET", f"/jobs/{job}/tensors?sort=odd").status_code == 400
    lines = list(csv.DictReader(io.StringIO(api.call("GET", f"/jobs/{job}/scores.csv").text)))
    assert [line["name"] for line in lines] == [row["name"] for row in report["scores"]]
    assert float(lines[5]["svdr"]) == report["scores"][5]["svdr"]
    assert lines[0]["shape"] == "4096x4096"
    assert api.call("GET", f"/jobs/{job}/report.json").json() == report


def test_a_cell_opens_its_tensor_with_its_spectra(api, whole):
    job, _ = whole
    text = look(api, f"/jobs/{job}/cell?module=up&layer=3", headers={"HX-Request": "true"})
    assert "model.layers.3.mlp.up_proj.weight" in text
    assert "noise edge 9.5" in text
    assert "<svg" in text
    alone = look(api, f"/jobs/{job}/cell?module=up&layer=3")
    assert alone.startswith("<!doctype")
    assert "layer" not in look(api, f"/jobs/{job}/cell?tensor={EMBEDDING}", headers={"HX-Request": "true"})
    assert api.call("GET", f"/jobs/{job}/cell?module=up&layer=99").status_code == 404


def test_a_task_is_seen_item_by_item(api, whole):
    job, _ = whole
    text = look(api, f"/jobs/{job}/answers?task=arc_easy", headers={"HX-Request": "true"})
    assert "200 items" in text
    assert re.search(r"result: \d+ of 200 right, [1-9]\d* won, [1-9]\d* lost", text)
    assert "furthest behind the base" in text
    losses = look(api, f"/jobs/{job}/answers?task=finance", headers={"HX-Request": "true"})
    assert "<svg" not in losses
    assert losses.count("item-") == 20
    assert api.call("GET", f"/jobs/{job}/answers?task=none").status_code == 404


def test_a_cell_of_several_tensors_names_them_all(api):
    report = make_report(layers=1, evaluated=False)
    twin = report["scores"][0] | {"name": "model.layers.0.experts.1.q_proj.weight"}
    report["scores"].append(twin)
    job = keep(api, report=report)
    text = look(api, f"/jobs/{job}/cell?module=q&layer=0")
    assert "holds 2 tensors" in text
    assert twin["name"] in text
    assert "No singular values of this tensor were kept" in text


def test_two_jobs_side_by_side(api):
    a = keep(api, report=make_report(layers=4, seed=1))
    b = keep(api, report=make_report(layers=4, seed=2, share=0.5), target="org/other")
    text = look(api, f"/compare?a={a}&b={b}")
    assert "by the first alone" in text
    assert "both recipes ask for the same computation" in text
    assert text.count("<svg xmlns") == 2
    assert "org/other" in text
    assert "Compare two jobs" in look(api, "/compare")
    assert api.call("GET", f"/compare?a={a}&b=mrg_none").status_code == 404


def test_names_from_outside_are_text_and_never_markup(api):
    report = make_report(layers=1, evaluated=True)
    evil = '"><script>alert(1)</script>'
    report["verdict"] = report["warnings"][0] = report["scores"][0]["name"] = evil
    report["evaluation"]["tasks"][0]["task"] = report["evaluation"]["points"][3]["label"] = evil
    report["heatmap"]["modules"][0] = evil
    job = keep(api, report=report)
    text = look(api, f"/jobs/{job}")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "<script>alert" not in look(api, f"/jobs/{job}/cell?module=q&layer=0")


def test_a_page_of_a_large_model_is_small(api, whole):
    job, _ = whole
    answer = api.call("GET", f"/jobs/{job}", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    names = re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text)
    assert len(names) == 6
    files = [api.http.get(name, headers={"Accept-Encoding": "gzip"}) for name in names]
    sizes = [len(gzip.compress(answer.content, 6))] + [int(file.headers["content-length"]) for file in files]
    assert sum(sizes) <= 60_000, sizes


def test_static_files_may_be_kept_for_ever_because_their_names_change(api):
    for path in FOLDER.iterdir():
        if path.suffix in TYPES:
            answer = api.http.get(asset_url(path.name))
            assert answer.content == path.read_bytes()
            assert "immutable" in answer.headers["cache-control"]
            plain = api.http.get(asset_url(path.name), headers={"Accept-Encoding": "identity"})
            assert plain.content == path.read_bytes()
            assert "content-encoding" not in plain.headers
    assert api.http.get("/static/pages.css").status_code == 404
    assert api.http.get("/static/..%2fpages.py").status_code == 404


def test_the_routes_for_programs_answer_as_before(api):
    html = {"Accept": "text/html"}
    assert api.call("GET", "/merges", headers=html).headers["content-type"] == "application/json"
    assert api.http.get("/openapi.json").json()["paths"].keys().isdisjoint({"/", "/jobs/{job_id}", "/sign-in"})
