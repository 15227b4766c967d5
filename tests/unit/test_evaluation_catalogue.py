"""The catalogue of tasks fits the libraries that are installed; names are resolved, and refused with a reason."""

from importlib.metadata import version

import pytest

from app.errors import Code, SpearError
from app.hub.datasets import data_files
from app.hub.pins import Pin, RemoteFile
from app.recipes.catalogue import OURS, is_causal, leaves, versions
from app.recipes.catalogue import _tasks as every_task
from worker.evaluation.catalogue import ROOTS, yaml_of

CARD = """---
configs:
- config_name: one
  default: true
  data_files:
  - split: train
    path: data/one/train-*
  - split: test
    path: ["data/one/test-?.parquet"]
- config_name: two
  data_dir: data/two
- config_name: three
  data_files: {test: "**/three.jsonl.gz"}
---
text
"""


def pin(*names: str) -> Pin:
    files = tuple(RemoteFile(name, 1, "git:" + "0" * 40) for name in names)
    return Pin("org/set", "main", "0" * 40, private=False, gated=False, license=None, files=files)


def chosen(found) -> list[str]:
    return [file.path for file in found]


def test_the_catalogue_is_of_the_installed_libraries():
    assert versions() == {name: version(name) for name in ("lm-eval", "transformers")}
    missing = [leaf.yaml for leaf in every_task().values() if not yaml_of(leaf.yaml).is_file()]
    assert missing == []
    ours = {path.name for path in (ROOTS[OURS] / "finance").glob("*.yaml")}
    assert {leaf.yaml.rpartition("/")[2] for leaf in every_task().values() if leaf.yaml.startswith(OURS)} <= ours


@pytest.mark.parametrize(
    ("name", "count", "dataset"),
    [("arc_easy", 1, "allenai/ai2_arc"), ("ai2_arc", 2, "allenai/ai2_arc"), ("mmlu", 57, "cais/mmlu"),
     ("gsm8k", 1, "openai/gsm8k"), ("hellaswag", 1, "Rowan/hellaswag")],
)  # fmt: skip
def test_names_groups_and_tags(name, count, dataset):
    found = leaves(name)
    assert len(found) == count
    assert {leaf.dataset for leaf in found} == {dataset}


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("arc_esay", Code.TASK_UNKNOWN, "arc_easy"), ("humaneval", Code.TASK_UNSUPPORTED, "code that models write"),
     ("squadv2", Code.TASK_UNSUPPORTED, "code of its own"), ("babilong", Code.TASK_UNSUPPORTED, "babilong_qa1")],
)  # fmt: skip
def test_what_cannot_be_run_is_told_with_the_reason(name, code, said):
    with pytest.raises(SpearError, match=said) as caught:
        leaves(name)
    assert caught.value.code == code
    assert caught.value.names["task"] == name


def test_architectures():
    assert is_causal("llama")
    assert is_causal("qwen3")
    assert not is_causal("vit")


def test_the_files_of_a_configuration():
    names = ("README.md", "data/one/train-0.parquet", "data/one/test-1.parquet", "data/one/test-10.parquet",
             "data/two/a/x.csv", "deep/three.jsonl.gz", "three.jsonl.gz", "set.py")  # fmt: skip
    whole = pin(*names)
    ask = {"card": CARD.encode(), "task": "t"}
    assert chosen(data_files(whole, config="one", **ask)) == [names[1], names[2], "README.md"]
    assert chosen(data_files(whole, config="two", **ask)) == [names[4], "README.md"]
    assert chosen(data_files(whole, config="three", **ask)) == [names[5], names[6], "README.md"]
    assert len(data_files(whole, config=None, **ask)) == 6
    with pytest.raises(SpearError, match="no configuration four; its card names: one, two, three"):
        data_files(whole, config="four", **ask)


def test_a_set_without_a_card_has_one_configuration():
    whole = pin("data/train-0.parquet")
    assert chosen(data_files(whole, card=b"", config=None, task="t")) == ["data/train-0.parquet"]
    assert chosen(data_files(whole, card=b"---\n: [\n---\n", config="default", task="t")) == ["data/train-0.parquet"]
    with pytest.raises(SpearError, match="no configuration main"):
        data_files(whole, card=b"", config="main", task="t")


@pytest.mark.parametrize("path", ["/etc/passwd.csv", "../x.csv", "a/../../x.csv", "https://x/y.csv", "zip://a::b.csv"])
def test_a_card_that_names_data_elsewhere_is_refused(path):
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {path!r}\n---\n".encode()
    with pytest.raises(SpearError, match="outside of it"):
        data_files(pin("x.csv"), card=card, config=None, task="t")


def test_a_script_is_no_data():
    with pytest.raises(SpearError, match="never run") as caught:
        data_files(pin("set.py", "README.md"), card=b"", config=None, task="t")
    assert caught.value.code == Code.TASK_UNSUPPORTED
