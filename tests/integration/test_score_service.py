"""Scores through the running service: the shared cache, a pair's job, its spectra, the merge that names it."""

import pytest

from app.cli import app as spear
from app.client import ApiError
from tests.fixtures.models import make_checkpoint


@pytest.fixture(scope="module")
def repos(service_server, tmp_path_factory) -> list[str]:
    """A base that no other test uses, and two adapted models of it."""
    folder = tmp_path_factory.mktemp("scored")
    base = make_checkpoint(folder / "base", seed=91)
    others = [make_checkpoint(folder / f"adapted{seed}", seed=seed, like=base) for seed in (92, 93)]
    return [service_server.push(f"scored-{path.name}", path) for path in (base, *others)]


def score(service, base: str, adapted: str, **method):
    body = {"base": {"repo": base}, "experts": [{"repo": adapted}], "method": {"name": "spear", **method}}
    with service.client() as client:
        job = service.wait(client.score(body)["id"])
        assert job["status"] == "succeeded", job["error"]
        return job, client.report(job["id"])


def counts(report) -> list[int]:
    by_model = report["costs"]["spectra_by_model"]
    return [by_model[f"{side}_{what}"] for side in ("base", "adapted") for what in ("computed", "cached")]


def test_jobs_share_their_spectra(service, repos):
    first, report = score(service, repos[0], repos[1])
    count = len(report["scores"])
    assert counts(report) == [count, 0, count, 0]
    assert counts(score(service, repos[0], repos[2])[1]) == [0, count, count, 0]
    assert counts(score(service, repos[0], repos[1], policy="aggressive", unit="block")[1]) == [0, count, 0, count]
    merge = service.run(service.recipe(repos[0], repos[1], "scored-out", scores=first["id"]))
    assert merge["status"] == "succeeded", merge["error"]
    assert merge["resolved"]["experts"] == first["resolved"]["experts"]
    with service.client() as client:
        merged = client.report(merge["id"])
    assert counts(merged) == [0, count, 0, count]
    assert merged["scores"] == report["scores"]


def test_the_spectra_of_a_tensor_can_be_drawn(service, repos):
    job, report = score(service, repos[0], repos[1])
    row = report["scores"][0]
    with service.client() as client:
        found = client.spectrum(job["id"], row["name"])
        for missing in ("model.norm.weight", "nothing", "'; drop table jobs"):
            with pytest.raises(ApiError) as refused:
                client.spectrum(job["id"], missing)
            assert (refused.value.status, refused.value.code) == (404, "not_found")
    assert found["tensor"] == row["name"]
    assert found["shape"] == row["shape"]
    assert found["count"] == min(row["shape"]) == len(found["ranks"]) == len(found["base"]) == len(found["adapted"])
    assert found["base"] == sorted(found["base"], reverse=True)
    assert found["edge"] == pytest.approx(row["noise_edge"], rel=1e-3)
    assert found["merged"] is None


def test_a_shown_tensor_has_its_merged_spectrum(service, repos):
    name = "model.layers.1.mlp.down_proj.weight"
    method = {"name": "spear", "fraction": 1.0, "show": [name]}
    job = service.run(service.recipe(repos[0], repos[1], "scored-shown", method=method))
    assert job["status"] == "succeeded", job["error"]
    with service.client() as client:
        found = client.spectrum(job["id"], name)
        (shown,) = client.report(job["id"])["spectra"]
    assert found["merged"] == list(shown["merged"])
    middle = [(one + two) / 2 for one, two in zip(found["base"], found["adapted"], strict=True)]
    assert found["merged"] == pytest.approx(middle, rel=0.1)
    assert found["merged"] not in (found["base"], found["adapted"])
    files = service.hub.api(service.token).list_repo_files(job["result"]["repo"])
    assert {f"figures/{one}.png" for one in ("scores", "components", "change", "spectra")} <= set(files)


def test_the_command_scores_a_pair_and_names_the_job(service, repos, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("SPEAR_API_URL", service.url)
    monkeypatch.setenv("SPEAR_API_KEY", service.key)
    said = CliRunner().invoke(spear, ["scores", repos[0], repos[1], "--policy", "conservative"])
    assert said.exit_code == 0, said.output
    assert "model.layers.0.self_attn.q_proj.weight" in said.output
    assert "scr_" in said.output
    assert said.output.count("t = 0.5") == 7
    assert "would restore 7 of 14 matrices" in said.output
