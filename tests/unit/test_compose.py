import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def names(entries: Any) -> set[str]:
    """The names in a list or mapping of a service: `data:/data`, `{source: data}`, `data` or the mapping's keys."""
    return {entry["source"] if isinstance(entry, dict) else entry.split(":")[0] for entry in entries or ()}


def commands() -> list[tuple[str, list[str]]]:
    """Every command line in the compose file and the Dockerfiles that starts `spear`, by the place where it stands."""
    found = [(name, service["command"]) for name, service in SERVICES.items() if "command" in service]
    for file in DOCKERFILES:
        last = re.findall(r"^CMD (\[.*\])$", file.read_text(), flags=re.MULTILINE)[-1]
        found.append((file.name, yaml.safe_load(last)))
    return [(place, command) for place, command in found if command[0] == "spear"]


@pytest.mark.parametrize("kind", ["volumes", "networks", "secrets"])
def test_what_services_use_is_declared_and_all_declared_is_used(kind: str) -> None:
    used = set().union(*(names(service.get(kind)) for service in SERVICES.values()))
    assert used == set(COMPOSE[kind])


def test_services_wait_for_services_that_can_satisfy_the_condition() -> None:
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}"
            if wait["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], f"{name} waits for {other}'s health"
            if wait["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", f"{name} waits for {other}'s end"


def test_every_spear_command_is_one_that_the_command_line_has() -> None:
    import typer

    from app.cli import app

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    found = commands()
    assert {command[1] for _, command in found} == {"api", "migrate", "sweep", "worker"}
    for place, (_, name, *arguments) in found:
        with group.commands[name].make_context(name, list(arguments)) as context:  # refuses unknown options
            assert context.info_name == name, place


def test_our_containers_are_confined() -> None:
    ours = {name: service for name, service in SERVICES.items() if service["image"].startswith("spear-merge/")}
    assert len(ours) == 5
    for name, service in ours.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    for file in DOCKERFILES:
        users = re.findall(r"^USER (\S+)$", file.read_text(), flags=re.MULTILINE)
        assert users
        assert not users[-1].startswith(("0", "root")), file.name


def test_images_are_pinned_and_built_from_files_that_exist() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":\d+\.\d+", service["image"]), name
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
    for file in DOCKERFILES:
        for source in re.findall(r"^COPY (?!--)(.+) \S+$", file.read_text(), flags=re.MULTILINE):
            assert all((ROOT / part).exists() for part in source.split()), f"{file.name}: {source}"


def test_all_that_serve_are_watched() -> None:
    watched = {"api.Dockerfile", "worker.Dockerfile"}
    assert {file.name for file in DOCKERFILES if "\nHEALTHCHECK " in file.read_text()} == watched
    unwatched = {name for name, service in SERVICES.items() if service.get("healthcheck", {}).get("disable")}
    assert unwatched == {"migrate", "sweep"}, "they serve nothing; their end is what shows"
    assert all("test" in SERVICES[name]["healthcheck"] for name in ("postgres", "redis"))


def test_workers_have_time_to_end_a_publishing() -> None:
    from app.settings import Settings

    minutes = {service["stop_grace_period"] for name, service in SERVICES.items() if name.startswith("worker")}
    [grace] = [int(period.removesuffix("m")) * 60 for period in minutes]
    assert grace > Settings.model_fields["publish_seconds"].default


def test_no_two_workers_share_a_gpu() -> None:
    workers = [service for name, service in SERVICES.items() if name.startswith("worker")]
    devices = [service["deploy"]["resources"]["reservations"]["devices"] for service in workers]
    ids = [number for [device] in devices for number in device["device_ids"]]
    assert len(ids) == len(set(ids)) == len(workers)


def test_no_secret_stands_in_the_environment_or_in_a_command() -> None:
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        assert not [key for key in environment if re.search("PASSWORD$|TOKEN$|DATABASE_URL$|KEY$", key)], name


def test_the_api_image_has_no_torch() -> None:
    lock = (ROOT / "docker" / "api.lock").read_text()
    assert not re.search(r"^(torch|transformers|numpy|safetensors)==", lock, flags=re.MULTILINE)
    assert "torch" not in (ROOT / "docker" / "api.Dockerfile").read_text().split("FROM", 1)[1]


def test_the_worker_image_takes_the_locked_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [torch] = project["tool"]["uv"]["constraint-dependencies"]
    assert f"ARG TORCH={torch}\n" in (ROOT / "docker" / "worker.Dockerfile").read_text()
    assert f"TORCH ?= {torch}\n" in (ROOT / "Makefile").read_text()
