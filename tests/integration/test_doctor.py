"""`spear doctor` on real servers, and on a machine where everything is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

from app.jobs import migrate


def doctor(*, expected: int, **settings: str) -> dict[tuple[str, str], dict]:
    """What the command finds with these settings and no others, by area and name."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("SPEAR_")}
    run = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor", "--json"], env=kept | settings, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == expected, run.stdout + run.stderr
    told = json.loads(run.stdout)
    assert told["healthy"] is (expected == 0)
    for each in told["checks"]:
        assert bool(each["cure"]) is (each["state"] in {"failed", "warning"}), each
        assert "\n" not in each["cure"]
    return {(each["area"], each["name"]): each for each in told["checks"]}


def test_a_machine_where_all_is_well(database_url, redis_url, local_hub, tmp_path):
    user, token = local_hub.fresh_user()
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(token)
    migrate.upgrade(database_url)
    found = doctor(
        expected=0, SPEAR_DATABASE_URL=database_url, SPEAR_REDIS_URL=redis_url, SPEAR_HUB_ENDPOINT=local_hub.endpoint,
        SPEAR_HUB_TOKEN_FILE=str(file), SPEAR_DATA_DIR=str(tmp_path / "data"),
    )  # fmt: skip
    assert "the newest" in found["database", "schema"]["detail"]
    assert found["broker", "connection"]["detail"].startswith("Valkey")
    assert f"of {user}; may write to {user}" in found["hub", "token"]["detail"]
    assert "MB/s" in found["disk", "speed"]["detail"]
    assert found["service", "address"]["state"] == "skipped"
    assert found["gpu", "devices"]["state"] == "ok"
    assert not (tmp_path / "data").exists()
    assert token not in json.dumps(list(found.values()))


def test_a_machine_where_everything_is_wrong(database_url, tmp_path):
    migrate.upgrade(database_url)
    migrate.downgrade(database_url, "0001")
    file = tmp_path / "token"
    file.touch(mode=0o644)
    found = doctor(
        expected=1, SPEAR_DATABASE_URL=database_url, SPEAR_REDIS_URL="redis://127.0.0.1:9",
        SPEAR_HUB_ENDPOINT="http://127.0.0.1:9", SPEAR_HUB_TOKEN_FILE=str(file), SPEAR_DEVICE="cuda",
        SPEAR_API_URL="http://127.0.0.1:9", SPEAR_API_KEY="none", SPEAR_DEVIC="cpu", SPEAR_LOG_LEVEL="info",
        spear_log_level="info", SPEAR_DATA_DIR=str(file / "below-a-file"),
    )  # fmt: skip
    failed = {key for key, each in found.items() if each["state"] == "failed"}
    assert failed >= {
        ("settings", "SPEAR_DEVIC"), ("settings", "SPEAR_LOG_LEVEL"), ("database", "schema"), ("broker", "connection"),
        ("hub", "endpoint"), ("disk", "data directory"), ("gpu", "devices"), ("service", "address"),
    }
    assert "spear migrate" in found["database", "schema"]["cure"]
    assert found["settings", "SPEAR_DEVIC"]["cure"].startswith("did you mean SPEAR_DEVICE?")
    assert found["settings", "SPEAR_HUB_TOKEN_FILE"]["cure"] == f"chmod 600 {file}"
    migrate.upgrade(database_url)


def test_settings_that_cannot_be_used_are_told_and_the_rest_is_left_out(tmp_path):
    file = tmp_path / "spear.toml"
    file.write_text("max_attempts = 4\nlease_seconds = 30\n")
    env = {"SPEAR_SETTINGS_FILE": str(file), "SPEAR_DATABASE_URL": ""}
    found = doctor(expected=1, SPEAR_MAX_ATTEMPTS="many", **env)
    assert "valid integer" in found["settings", "SPEAR_MAX_ATTEMPTS"]["detail"]
    assert found["database", "all"]["state"] == "skipped"


def test_a_value_given_twice_is_told(local_hub, tmp_path):
    file = tmp_path / "spear.toml"
    file.write_text("max_attempts = 4\n")
    found = doctor(
        expected=0, SPEAR_SETTINGS_FILE=str(file), SPEAR_MAX_ATTEMPTS="5", SPEAR_HUB_ENDPOINT=local_hub.endpoint,
        SPEAR_DATA_DIR=str(Path(tmp_path) / "data"),
    )  # fmt: skip
    assert found["settings", "SPEAR_MAX_ATTEMPTS"]["state"] == "warning"
    assert found["hub", "token"]["state"] == "warning"  # there is none
    assert found["database", "connection"]["state"] == "skipped"
