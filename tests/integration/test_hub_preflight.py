"""Everything that is checked before a merge is queued, against a real Hub server: no weight is ever downloaded."""

import json
from dataclasses import dataclass, field

import pytest

from app.errors import Code, SpearError
from app.hub.client import Hub, Hubs
from app.hub.preflight import preflight
from app.recipes import parse_recipe
from app.settings import Settings
from tests.fixtures.checkpoints import CONFIG, TENSORS, VOCABULARY, checkpoint, push, safetensors


@dataclass
class House:
    """The service's account, and what an API key may do."""

    server: object
    name: str
    token: str
    hubs: Hubs
    changes: dict = field(default_factory=dict)

    @property
    def api(self):
        return self.server.api(self.token)

    def push(self, name: str, files, *, private: bool = True) -> str:
        return push(self.api, f"{self.name}/{name}", files, private=private)

    def recipe(self, **changes):
        body = {
            "base": {"repo": f"{self.name}/base"}, "experts": [{"repo": f"{self.name}/expert"}],
            "method": {"name": "spear"}, "target": {"repo": f"{self.name}/out"}, **changes,
        }
        return parse_recipe(body)

    def check(self, *, settings=None, commits=None, reads=None, writes=None, **changes):
        return preflight(
            self.recipe(**changes), hubs=self.hubs, settings=settings or Settings(), commits=commits,
            reads=[self.name] if reads is None else reads, writes=[self.name] if writes is None else writes,
        )

    def refusal(self, code: Code, pointer: str, **changes) -> SpearError:
        with pytest.raises(SpearError) as caught:
            self.check(**changes)
        assert (caught.value.code, caught.value.pointer) == (code, pointer)
        assert self.token not in f"{caught.value}{caught.value.names}"
        return caught.value


@pytest.fixture
def house(local_hub):
    name, token = local_hub.fresh_user("pre")
    hubs = Hubs(Hub(local_hub.endpoint, None, timeout_seconds=5), Hub(local_hub.endpoint, token, timeout_seconds=5))
    yield House(local_hub, name, token, hubs)
    hubs.anonymous.close()
    hubs.service.close()


@pytest.fixture
def pair(house):
    """The house with a base of one file and an expert of two shards."""
    house.push("base", checkpoint(seed=1))
    house.push("expert", checkpoint(shards=2, seed=2))
    house.server.clear_requests()
    return house


def test_a_good_recipe_is_pinned_and_counted_without_a_weight_downloaded(pair):
    found = pair.check()
    for one, name in zip(found.pins, ("base", "expert"), strict=True):
        assert one.commit == pair.api.model_info(f"{pair.name}/{name}").sha
        assert (one.revision, one.private, one.gated) == ("main", True, False)
    weights = 2 * (80 + 64 + 128 + 8)
    assert found.admission.tensors[0].name == "model.embed_tokens.weight"
    assert found.admission.bytes == found.output_bytes == weights
    assert found.admission.parameters == weights // 2
    assert found.dtypes == ("BF16",)
    wanted = {file.digest: file.size for head in found.heads for file in head.files}
    assert found.bytes_to_download == sum(wanted.values())
    assert found.disk_bytes == found.bytes_to_download + weights
    assert found.peak_memory_bytes > 0
    assert found.warnings == ()
    asked = [r for r in pair.server.requests() if r["path"].endswith(".safetensors")]
    assert len(asked) == 2 * 3  # the length and the header of each of three files
    headers = sum(r["bytes"] for r in asked)
    total = sum(file.size for head in found.heads for file in head.weights)
    assert all(r["range"] for r in asked)
    assert headers == total - 2 * weights


def test_the_output_dtype_changes_the_size(pair):
    assert pair.check(output={"dtype": "float32"}).output_bytes == 2 * pair.check().output_bytes
    linear = {"name": "linear", "compat": "mergekit", "dtype": "float32"}
    assert pair.check(method=linear).dtypes == ("F32",)
    assert pair.check(method=linear, output={"dtype": "bfloat16"}).dtypes == ("BF16",)


def test_commits_given_are_used_and_not_what_the_branch_means_now(pair):
    first = pair.check()
    pair.push("expert", checkpoint(seed=9))
    commits = [one.commit for one in first.pins]
    assert [(one.commit, one.revision) for one in pair.check(commits=commits).pins] == [(c, "main") for c in commits]
    assert pair.check().pins[1].commit != commits[1]


def test_a_public_repo_of_others_needs_no_grant(pair):
    other, token = pair.server.fresh_user("other")
    push(pair.server.api(token), f"{other}/open", checkpoint(seed=3))
    assert pair.check(base={"repo": f"{other}/open"}).pins[0].private is False


@pytest.mark.parametrize("kind", ["private", "missing"])
def test_without_a_grant_private_and_missing_cannot_be_told_apart(pair, kind):
    other, token = pair.server.fresh_user("other")
    if kind == "private":
        push(pair.server.api(token), f"{other}/model", checkpoint(), private=True)
    error = pair.refusal(Code.READ_NOT_GRANTED, "/base/repo", base={"repo": f"{other}/model"})
    assert error.message.replace(other, "other") == "other/model is not public, and this API key has no grant for it"
    assert error.names == {"repo": f"{other}/model"}


def test_with_a_grant_the_service_must_reach_it(pair):
    other, token = pair.server.fresh_user("other")
    push(pair.server.api(token), f"{other}/model", checkpoint(), private=True)
    reads = [pair.name, f"{other.upper()}/Model"]
    pair.refusal(Code.REPO_NOT_FOUND, "/base/repo", base={"repo": f"{other}/model"}, reads=reads)


@pytest.mark.parametrize("granted", [True, False])
def test_a_gated_repo_without_access_is_told_as_gated(pair, granted):
    other, token = pair.server.fresh_user("other")
    api = pair.server.api(token)
    push(api, f"{other}/gated", checkpoint())
    api.update_repo_settings(f"{other}/gated", gated="manual")
    reads = [pair.name, *([other] if granted else [])]
    pair.refusal(Code.REPO_GATED, "/experts/0/repo", experts=[{"repo": f"{other}/gated"}], reads=reads)


def test_a_missing_repo_and_a_missing_revision(pair):
    pair.refusal(Code.REPO_NOT_FOUND, "/experts/0/repo", experts=[{"repo": f"{pair.name}/nowhere"}])
    error = pair.refusal(
        Code.REVISION_NOT_FOUND, "/base/revision", base={"repo": f"{pair.name}/base", "revision": "v9"}
    )
    assert error.names["revision"] == "v9"


def test_of_two_refusals_the_first_of_the_recipe_is_told(pair):
    pair.refusal(
        Code.REPO_NOT_FOUND, "/base/repo",
        base={"repo": f"{pair.name}/no1"}, experts=[{"repo": f"{pair.name}/no2"}],
    )  # fmt: skip


def test_a_target_needs_a_grant_and_an_account_that_can_write(pair):
    pair.refusal(Code.WRITE_NOT_GRANTED, "/target/repo", writes=[])
    assert pair.server.requests() == []
    other, token = pair.server.fresh_user("other")
    writes = [other]
    for repo in ("new", "old"):
        pair.refusal(Code.TARGET_NOT_WRITABLE, "/target/repo", target={"repo": f"{other}/{repo}"}, writes=writes)
        push(pair.server.api(token), f"{other}/old", {"a": b"1"})


def test_a_token_that_only_reads_cannot_publish(pair):
    reader = Hub(pair.server.endpoint, pair.server.read_token(pair.name), timeout_seconds=5)
    pair.hubs = Hubs(pair.hubs.anonymous, reader)
    pair.refusal(Code.TARGET_NOT_WRITABLE, "/target/repo")
    reader.close()


def test_a_public_target_is_warned_about_where_private_was_asked(pair):
    pair.push("out", {"a": b"1"}, private=False)
    assert "is public" in pair.check().warnings[0]
    assert pair.check(target={"repo": f"{pair.name}/out", "private": False}).warnings == ()


PICKLES = {key: value for key, value in checkpoint().items() if key != "model.safetensors"}
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({**PICKLES, "pytorch_model.bin": b"x"}, Code.PICKLE_ONLY, "pytorch_model.bin"),
        ({**PICKLES, "consolidated.safetensors": safetensors(TENSORS)}, Code.WEIGHTS_MISSING, "model.safetensors"),
        ({"model.safetensors": safetensors(TENSORS)}, Code.CONFIG_INVALID, "config.json"),
        ({**checkpoint(), "config.json": b"{"}, Code.CONFIG_INVALID, "config.json"),
        ({**checkpoint(), "config.json": b"[" * 9000}, Code.CONFIG_INVALID, "config.json"),
        ({**checkpoint(), "config.json": b"{}"}, Code.CONFIG_INVALID, "model_type"),
        (checkpoint(config={**CONFIG, "auto_map": {"AutoModel": "m.M"}}), Code.REMOTE_CODE, "auto_map"),
        (checkpoint(config={**CONFIG, "text_config": {"auto_map": {"A": "m.M"}}}), Code.REMOTE_CODE, "auto_map"),
        ({**checkpoint(), "tokenizer_config.json": b'{"auto_map":{"A":"t.T"}}'}, Code.REMOTE_CODE, "tokenizer_config"),
        (checkpoint(config={**CONFIG, "quantization_config": {"b": 4}}), Code.QUANTIZED_WEIGHTS, "quantization_config"),
        ({**checkpoint(), "model.safetensors": b"\xff" * 64}, Code.HEADER_TOO_LARGE, "model.safetensors"),
        ({**checkpoint(), "model.safetensors": b"\x40" + b"\0" * 7 + b"{}"}, Code.HEADER_INVALID, "model.safetensors"),
        ({**checkpoint(), "model.safetensors": safetensors(TENSORS)[:-1]}, Code.HEADER_INVALID, "model.norm.weight"),
        ({**checkpoint(shards=2), INDEX: b'{"weight_map":{"a":"../x.safetensors"}}'}, Code.UNSAFE_PATH, "../x"),
        ({**checkpoint(shards=2), INDEX: b'{"weight_map":{"a":"x.safetensors"}}'}, Code.SHARD_MISSING, "x.safetensors"),
        (checkpoint(tensors={}), Code.WEIGHTS_MISSING, "no tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_repo_that_cannot_be_merged_is_refused_by_name(pair, files, code, words):
    pair.push("odd", files)
    error = pair.refusal(code, "/experts/0/repo", experts=[{"repo": f"{pair.name}/odd"}])
    assert words in error.message
    assert error.names["repo"] == f"{pair.name}/odd"
    assert f"{pair.name}/odd" in str(error)


@pytest.mark.parametrize(
    ("files", "code", "names"),
    [
        (checkpoint(config={**CONFIG, "model_type": "qwen2"}), Code.ARCHITECTURE_MISMATCH, {"field": "model_type"}),
        (checkpoint(config={**CONFIG, "vocab_size": 11}), Code.VOCABULARY_MISMATCH, {"field": "vocab_size"}),
        (checkpoint(tensors={**TENSORS, "model.norm.weight": ("BF16", (9,))}), Code.SHAPE_MISMATCH,
         {"tensor": "model.norm.weight", "shape": [9], "base_shape": [8]}),
        (checkpoint(tensors=dict(list(TENSORS.items())[:-1])), Code.TENSOR_MISSING, {"tensor": "model.norm.weight"}),
        (checkpoint(vocabulary={**VOCABULARY, "t3": 4, "t4": 3}), Code.VOCABULARY_MISMATCH, {"token": "t3"}),
    ],
    ids=["architecture", "vocab_size", "shape", "missing", "tokens"],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused_by_name(pair, files, code, names):
    pair.push("odd", files)
    error = pair.refusal(code, "/experts/0/repo", experts=[{"repo": f"{pair.name}/odd"}])
    assert names.items() <= error.names.items()
    assert error.names["repo"] == f"{pair.name}/odd"


def test_the_second_of_two_experts_is_pointed_at(pair):
    pair.push("odd", checkpoint(config={**CONFIG, "vocab_size": 11}))
    heads = [{"repo": f"{pair.name}/expert"}, {"repo": f"{pair.name}/odd"}]
    recipe = pair.recipe()
    with pytest.raises(SpearError) as caught:
        preflight(
            recipe.model_copy(update={"experts": tuple(type(recipe.experts[0])(**head) for head in heads)}),
            hubs=pair.hubs, settings=Settings(), reads=[pair.name], writes=[pair.name],
        )
    assert caught.value.pointer == "/experts/1/repo"


def test_limits_are_kept(pair):
    pair.refusal(Code.LIMIT_EXCEEDED, "/base/repo", settings=Settings(max_files=1))
    pair.refusal(Code.LIMIT_EXCEEDED, "/base/repo", settings=Settings(max_total_bytes=10))
    pair.refusal(Code.LIMIT_EXCEEDED, "/base/repo", settings=Settings(max_small_file_bytes=10))
    pair.refusal(Code.LIMIT_EXCEEDED, "/base/repo", settings=Settings(max_tensors=2))
    error = pair.refusal(Code.HEADER_TOO_LARGE, "/base/repo", settings=Settings(max_header_bytes=10))
    assert error.names["file"] == "model.safetensors"


def test_a_single_file_goes_before_an_index_and_duplicates_do_not_count(pair):
    duplicates = {"original/consolidated.safetensors": b"x", "pytorch_model.bin": b"x"}
    pair.push("both", {**checkpoint(shards=2), **checkpoint(), **duplicates})
    found = pair.check(base={"repo": f"{pair.name}/both"})
    assert [file.path for file in found.heads[0].weights] == ["model.safetensors"]
    assert {file.path for file in found.heads[0].files} == {"config.json", "tokenizer.json", "model.safetensors"}


def test_equal_tokenizers_are_not_downloaded_and_missing_ones_are_warned_about(pair):
    pair.check()
    assert not [r for r in pair.server.requests() if r["path"].endswith("tokenizer.json")]
    pair.push("bare", checkpoint(vocabulary=None))
    assert "not compared" in pair.check(base={"repo": f"{pair.name}/bare"}).warnings[0]


def test_added_tokens_are_a_warning(pair):
    pair.push("chatty", checkpoint(vocabulary={**VOCABULARY, "<|end|>": 11}))
    assert "'<|end|>'" in pair.check(experts=[{"repo": f"{pair.name}/chatty"}]).warnings[0]


def test_the_license_of_the_card_is_kept(pair):
    pair.push("base", {"README.md": b"---\nlicense: apache-2.0\n---\n# base\n"})
    assert pair.check().pins[0].license == "apache-2.0"


@pytest.mark.parametrize("fault", [{"action": "status", "status": 429}, {"action": "status", "status": 503},
                                   {"action": "drop"}, {"action": "truncate", "bytes": 3}])  # fmt: skip
def test_passing_trouble_is_overcome_and_lasting_trouble_told(pair, fault):
    pair.server.fault(path="/resolve/", times=2, **fault)
    assert pair.check().warnings == ()
    pair.server.fault(path=f"/{pair.name}/base/resolve/", times=None, **fault)
    error = pair.refusal(Code.HUB_UNAVAILABLE, "/base/repo")
    assert error.kind.retryable


def test_a_hub_that_hangs_is_given_up(pair):
    slow = Hub(pair.server.endpoint, pair.token, timeout_seconds=0.3)
    pair.hubs = Hubs(pair.hubs.anonymous, slow)
    pair.server.fault("slow", path="/revision/", delay=3, times=None)
    pair.refusal(Code.HUB_UNAVAILABLE, "/base/repo")
    slow.close()


def test_a_hub_that_is_not_there_is_told(pair):
    gone = Hub("http://127.0.0.1:9", pair.token, timeout_seconds=1)
    pair.hubs = Hubs(gone, gone)
    pair.refusal(Code.HUB_UNAVAILABLE, "/target/repo")
    gone.close()


def test_real_checkpoints_of_transformers_pass(pair, base_model, adapted_model):
    for name, folder in (("base", base_model), ("expert", adapted_model)):
        pair.api.create_repo(f"{pair.name}/real-{name}", private=True)
        pair.api.upload_folder(repo_id=f"{pair.name}/real-{name}", folder_path=folder)
    found = pair.check(base={"repo": f"{pair.name}/real-base"}, experts=[{"repo": f"{pair.name}/real-expert"}])
    index = json.loads((adapted_model / INDEX).read_text())
    assert {tensor.name for tensor in found.admission.tensors} == set(index["weight_map"])
    assert found.admission.bytes == index["metadata"]["total_size"]
    assert found.warnings == ()
