"""The manifests' cross references, and that they run what the compose file runs. Their schemas: docs/kubernetes.md."""

import re
from pathlib import Path
from typing import Any

import yaml

from app.settings import PREFIX, SETTINGS_FILE, Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    found for name in KUSTOMIZATION["resources"] for found in yaml.safe_load_all((FOLDER / name).read_text())
]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def of(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == kind}


PARTS = of("Deployment") | of("StatefulSet")


def pod(part: dict[str, Any]) -> dict[str, Any]:
    return part["spec"]["template"]["spec"]


def containers(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod(part).get("initContainers", []), *pod(part)["containers"]]


def test_every_manifest_is_listed() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*KUSTOMIZATION["resources"], "kustomization.yaml"}


def test_selectors_find_their_pods() -> None:
    labels = {name: part["spec"]["template"]["metadata"]["labels"] for name, part in PARTS.items()}
    for name, part in PARTS.items():
        assert part["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    selectors = [service["spec"]["selector"] for service in of("Service").values()]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of("PodDisruptionBudget").values()]
    for selector in selectors:
        assert any(selector.items() <= found.items() for found in labels.values()), selector
    for policy in of("NetworkPolicy").values():
        text = yaml.safe_dump(policy)
        known = {found["app.kubernetes.io/name"] for found in labels.values()}
        for names in re.findall(r"operator: In\n\s+values:\n((?:\s+- \w+\n)+)", text):
            assert {word.strip("- ") for word in names.split("\n") if word} - {""} <= known


def test_volumes_that_are_mounted_are_there() -> None:
    for name, part in PARTS.items():
        claims = {claim["metadata"]["name"] for claim in part["spec"].get("volumeClaimTemplates", [])}
        there = {volume["name"] for volume in pod(part).get("volumes", [])} | claims
        mounted = {mount["name"] for one in containers(part) for mount in one["volumeMounts"]}
        assert mounted == there, name


def test_the_secret_has_the_files_that_init_secrets_makes() -> None:
    script = (ROOT / "docker" / "init-secrets").read_text()
    made = set(re.findall(r"\[ -s (\S+) \]", script))
    wanted = {
        item["key"] for part in PARTS.values() for volume in pod(part).get("volumes", [])
        for item in volume.get("secret", {}).get("items", [])
    }  # fmt: skip
    assert wanted == made
    hosts = set(re.findall(r"@(\w+)/", script)) | set(re.findall(r"redis://(\w+):", script))
    assert hosts == {"postgres", "redis"} <= set(of("Service"))


def test_they_run_what_the_compose_file_runs() -> None:
    ours = {
        tuple(one["command"][:2]) for part in PARTS.values() for one in containers(part)
        if one.get("command", [""])[0] == "spear"
    }  # fmt: skip
    commands = [service.get("command", [""]) for service in COMPOSE.values()]
    theirs = {tuple(command[:2]) for command in commands if command[0] == "spear"}
    assert ours == theirs
    images = {name: one["image"] for name, part in PARTS.items() for one in containers(part)}
    assert images["postgres"] == COMPOSE["postgres"]["image"]
    assert images["valkey"] == COMPOSE["redis"]["image"]
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {
        image for image in images.values() if image.startswith("spear-merge/")
    }


def test_pods_are_confined() -> None:
    for name, part in PARTS.items():
        assert pod(part)["securityContext"]["runAsNonRoot"], name
        assert pod(part)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod(part)["automountServiceAccountToken"] is False
        for one in containers(part):
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"].get("readOnlyRootFilesystem") or name == "postgres"
            assert one["resources"]["limits"]["memory"], name


def test_workers_have_time_to_end_a_publishing() -> None:
    grace = pod(PARTS["worker"])["terminationGracePeriodSeconds"]
    assert grace > Settings.model_fields["publish_seconds"].default


def test_settings_are_ones_that_there_are() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {SETTINGS_FILE}
    given = set(of("ConfigMap")["spear"]["data"])
    given |= {
        one["name"] for part in PARTS.values() for container in containers(part) for one in container.get("env", [])
        if one["name"].startswith(PREFIX)
    }  # fmt: skip
    assert given <= known
