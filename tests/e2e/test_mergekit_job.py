"""A mergekit YAML from the command line to the Hub: models whose tokens stand in other rows, merged by token."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.fixtures.models import make_checkpoint
from tests.fixtures.service import Service

EMBED = "model.embed_tokens.weight"
YAML = """\
models:
  - model: {user}/kit-base # no parameters for the base
  - model: {user}/kit-turned
    parameters:
      weight: 0.5
merge_method: task_arithmetic
base_model: {user}/kit-base
tokenizer_source: base
dtype: bfloat16
"""


def turn(source: Path, target: Path) -> Path:
    """The same model with its ordinary tokens in the opposite order."""
    shutil.copytree(source, target)
    tokenizer = json.loads((target / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    last = len(vocab) + 2  # rows 0 to 2 are the special tokens
    tokenizer["model"]["vocab"] = {token: row if row < 3 else last - row for token, row in vocab.items()}
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    for file in target.glob("*.safetensors"):
        tensors = load_file(file)
        if EMBED in tensors:
            tensors[EMBED][3 : last - 2] = tensors[EMBED][3 : last - 2].flip(0)
            save_file(tensors, file, metadata={"format": "pt"})
    return target


def stored(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


def spear(service: Service, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"SPEAR_API_URL": service.url, "SPEAR_API_KEY": service.key}
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


def test_a_yaml_from_the_command_line(service: Service, tmp_path):
    base = make_checkpoint(tmp_path / "base", seed=11)
    plain = make_checkpoint(tmp_path / "plain", seed=12, like=base)
    service.push("kit-base", base)
    service.push("kit-turned", turn(plain, tmp_path / "turned"))
    recipe, target = tmp_path / "merge.yml", f"{service.user}/kit-merged"
    recipe.write_text(YAML.replace("{user}", service.user))
    plan = json.loads(spear(service, "plan", recipe, "--target", target).stdout)
    assert plan["recipe"]["method"]["name"] == "task_arithmetic"
    assert any("matched by token" in warning for warning in plan["warnings"])
    ended = spear(service, "submit", recipe, "--target", target, "--wait", "--json")
    assert ended.returncode == 0, ended.stderr
    job = json.loads(ended.stdout)
    result = Path(service.hub.api(service.token).snapshot_download(
        target, revision=job["result"]["commit"], local_dir=tmp_path / "merged", cache_dir=tmp_path / "cache"
    ))  # fmt: skip
    before, after, merged = stored(base), stored(plain), stored(result)
    assert merged.keys() == before.keys()
    for name, tensor in merged.items():
        exact = (before[name].double() + after[name].double()) / 2
        assert ((tensor.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-9).all(), name
    assert (result / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    report = json.loads((result / "report.json").read_text())
    assert any("matched by token" in warning for warning in report["warnings"])


def test_a_refused_yaml_names_its_line(service: Service, tmp_path):
    recipe = tmp_path / "merge.yaml"
    recipe.write_text(YAML.replace("{user}", service.user).replace("base\ndtype", "union\ndtype"))
    ended = spear(service, "submit", recipe, "--target", f"{service.user}/kit-refused")
    assert ended.returncode == 1
    assert "line 8: tokenizer_source: union is not supported" in ended.stderr
