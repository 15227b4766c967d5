"""One frozen settings object, from the environment (prefix SPEAR_), a settings file, and mounted secret files."""

import os
import secrets
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

PREFIX = "SPEAR_"
SETTINGS_FILE = "SPEAR_SETTINGS_FILE"


class Settings(BaseSettings):
    """The service's settings. Names in the environment are these in capitals, with the prefix SPEAR_."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    database_url: str = Field("", description="postgresql+psycopg://...; empty: none is configured")
    redis_url: str = Field("", description="redis://, rediss:// or unix:///path/to/socket")
    hub_endpoint: str = "https://huggingface.co"
    hub_token_file: Path | None = Field(None, description="file with the Hub token that the service acts with")
    hub_credentials: Path | None = Field(None, description="named Hub credentials: a directory, or a TOML or JSON file")
    secret_file: Path | None = Field(None, description="file with the key that API keys and cursors are signed with")
    data_dir: Path = Path("~/.local/share/spear")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_threads: int = Field(1, ge=1, description="arithmetic threads of one worker; more than one worker: leave 1")
    api_url: str = "http://127.0.0.1:8000"
    api_key: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    lease_seconds: float = Field(60, gt=0)
    sweep_seconds: float = Field(15, gt=0)
    resend_seconds: float = Field(30, gt=0, description="a queued job is announced again after this time")
    max_attempts: int = Field(3, ge=1)
    stall_seconds: float = Field(1800, gt=0, description="a stage without any progress for so long is ended")
    stage_stall_seconds: dict[str, float] = Field(
        {"resolving": 600, "downloading": 600}, description="the same for single stages, as a JSON object"
    )
    max_running_jobs: int = Field(
        0, ge=0, description="jobs of one API key that run at once, where the key has no limit of its own; 0: no limit"
    )
    publish_seconds: float = Field(120, gt=0, description="deadline of one publishing attempt")
    restart_seconds: float = Field(30, gt=0, description="longest wait before `spear up` restarts a part")
    crash_at: str = Field("", description="for tests: where workers die, as point@attempt:target, comma-separated")
    idempotency_hours: float = Field(24, gt=0)

    webhook_hosts: str = Field("", description="hosts and origins that webhooks may go to; `*`: the public internet")
    webhook_secret_file: Path | None = Field(None, description="file with whsec_ lines, the newest first")
    webhook_retry_seconds: str = "5,300,1800,7200,18000,36000,50400,72000,86400"
    webhook_senders: int = Field(2, ge=0, description="threads of each sweep that deliver webhooks")
    otlp_endpoint: str = Field("", description="where traces are sent (OTLP over HTTP); empty: nowhere")
    metrics_port: int = Field(0, ge=0, le=65_535, description="where a worker tells its figures; 0: nowhere")
    metrics_host: str = Field("127.0.0.1", description="the address of that port")
    signing_key_file: Path | None = Field(None, description="Ed25519 private key (PEM) that manifests are signed with")

    requests_per_minute: int = Field(1_200, ge=1, description="of one API key; its own number goes before")
    changes_per_minute: int = Field(300, ge=1, description="of one API key: requests that are to change something")
    refusals_per_minute: int = Field(300, ge=1, description="requests without a valid API key, of one address")
    max_active_jobs: int = Field(1_000, ge=0, description="jobs of one API key that have not ended; 0: no limit")
    max_daily_bytes: int = Field(0, ge=0, description="planned input bytes of one API key in a UTC day; 0: no limit")
    audit_days: float = Field(365, ge=0, description="how long the audit is kept; 0: for ever")

    hub_timeout_seconds: float = Field(30, gt=0, description="connect and read timeout of one call to the Hub")
    parallel_checks: int = Field(8, ge=1, description="requests that one API process checks against the Hub at once")
    download_workers: int = Field(4, ge=1)
    cache_max_bytes: int = Field(200_000_000_000, ge=0)
    spectra_max_bytes: int = Field(1_000_000_000, ge=0)
    sheets_max_bytes: int = Field(1_000_000_000, ge=0, description="cached answer sheets, in the database")
    max_dataset_bytes: int = Field(5_000_000_000, ge=1, description="files of one data set that a task reads")
    max_task_bytes: int = Field(200_000_000, ge=1, description="one task file")
    max_body_bytes: int = Field(1_000_000, ge=1)
    max_header_bytes: int = Field(100_000_000, ge=8, le=100_000_000, description="safetensors takes no more")
    max_tensors: int = Field(200_000, ge=1, le=200_000)
    max_name_length: int = Field(512, ge=1, le=512, description="characters of a tensor's name")
    max_json_depth: int = Field(64, ge=4, le=64, description="levels of config, tokenizer and index files")
    max_json_values: int = Field(5_000_000, ge=1, le=5_000_000, description="members and items of any JSON of a repo")
    max_files: int = Field(2_000, ge=1)
    max_total_bytes: int = Field(4_000_000_000_000, ge=1)
    max_small_file_bytes: int = Field(64_000_000, ge=1, description="config, tokenizer and index files")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (the library names its arguments)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get(SETTINGS_FILE)
        toml = (TomlConfigSettingsSource(settings_cls, toml_file=Path(file)),) if file else ()
        return (init_settings, env_settings, *toml)

    @property
    def home(self) -> Path:
        """The data directory, with ~ resolved."""
        return self.data_dir.expanduser().absolute()

    def stall_seconds_of(self, stage: str) -> float:
        """How long a stage may be without progress: its own limit, if it has one that is shorter."""
        return min(self.stall_seconds, self.stage_stall_seconds.get(stage, self.stall_seconds))

    def hub_token(self) -> str | None:
        """The Hub token, read anew so that a rotated file takes effect."""
        return self.hub_token_file.read_text().strip() if self.hub_token_file else None

    @cached_property
    def secret(self) -> bytes:
        """The key for API-key hashes and cursors: from `secret_file`, else made once in the data directory."""
        path = self.secret_file or self.home / "secret"
        if not path.exists() and self.secret_file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_once(path, secrets.token_hex(32))
        return path.read_text().strip().encode()


def _write_once(path: Path, text: str) -> None:
    """Write a private file unless another process was first; never leaves a partial file under the name."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def load(**overrides: Any) -> Settings:
    """The settings of this process.

    Raises `ValueError` for an unknown SPEAR_ name, so that a misspelt setting never passes unseen.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {SETTINGS_FILE}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise ValueError(f"unknown setting in the environment: {', '.join(unknown)}")
    return Settings(**overrides)
