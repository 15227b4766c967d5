"""mergekit's YAML as recipes: what its documentation shows is taken, what cannot be done is refused by line and key."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Code, SpearError
from app.recipes import METHODS
from app.recipes.coverage import check_coverage
from app.recipes.mergekit import MergekitForm, translate, written
from app.recipes.mergekit.contracts import CONTRACTS, REQUIRED
from app.recipes.mergekit.document import MAX_CHARACTERS, MAX_NODES, read
from app.recipes.methods.base import resolve


def recipe(text, **more):
    with written(MergekitForm(mergekit=text, target={"repo": "org/merged"}, **more)) as made:
        return made


def refused(text, **more):
    with pytest.raises(SpearError) as caught:
        recipe(text, **more)
    error = caught.value
    assert error.code is Code.INVALID_RECIPE
    assert error.pointer == "/mergekit"
    assert error.names["errors"][0] == {"pointer": "/mergekit", "detail": error.message}
    line, key = error.names["line"], error.names["key"]
    assert error.message.startswith(f"line {line}: {key}: " if key else f"line {line}: ")
    return line, key, error.message


LINEAR = """\
models:
  - model: org/chat
    parameters:
      weight: 1.0
  - model: org/code
    parameters:
      weight: 0.3
merge_method: linear
dtype: float16
"""
SLERP = """\
slices:
  - sources:
      - model: org/orca
        layer_range: [0, 40]
      - model: org/platypus
        layer_range: [0, 40]
merge_method: slerp
base_model: org/orca
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # everything else
dtype: float16
"""
TIES = """\
models:
  - model: org/orca
    parameters:
      density: [1, 0.7, 0.1] # over depth
      weight: 1.0
  - model: org/platypus@v2
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1]
  - model: org/math
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: org/llama
parameters:
  normalize: true
  int8_mask: true
dtype: float16
"""
DARE = """\
models:
  - model: org/mistral # the base takes no parameters
  - model: org/one
    parameters:
      density: 0.53
      weight: 0.4
  - model: org/two
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_ties
base_model: org/mistral
parameters:
  int8_mask: true
dtype: bfloat16
"""


def test_linear_without_a_base():
    made = recipe(LINEAR)
    assert made.base.repo == "org/chat"
    assert [(e.repo, e.weight) for e in made.experts] == [("org/chat", 1.0), ("org/code", 0.3)]
    assert (made.method.name, made.method.normalize, made.method.dtype, made.method.compat) == (
        "linear", True, "float16", None
    )
    assert made.tokenizer_source is made.layers is made.output.dtype is None


def test_slerp_in_one_slice_of_all_layers():
    made = recipe(SLERP)
    assert (made.base.repo, [e.repo for e in made.experts], made.layers) == ("org/orca", ["org/platypus"], 40)
    t = made.method.t
    assert resolve(t, tensor="model.layers.20.self_attn.q_proj.weight", depth=0.5) == 0.3
    assert resolve(t, tensor="model.layers.39.mlp.up_proj.weight", depth=1) == 0
    assert resolve(t, tensor="model.norm.weight", depth=0) == 0.5


def test_ties_with_gradients_and_filters():
    made = recipe(TIES)
    assert made.base.repo == "org/llama"
    assert [(e.repo, e.revision) for e in made.experts] == [
        ("org/orca", "main"), ("org/platypus", "v2"), ("org/math", "main")
    ]
    assert made.experts[0].density == (1, 0.7, 0.1)
    assert made.experts[1].weight == (0, 0.3, 0.7, 1)
    assert resolve(made.experts[2].weight, tensor="model.layers.1.mlp.up_proj.weight", depth=1) == 0.5
    assert resolve(made.experts[2].weight, tensor="model.norm.weight", depth=0) == 0


def test_a_listed_base_is_no_expert_of_a_method_with_task_vectors():
    made = recipe(DARE)
    assert (made.base.repo, [e.repo for e in made.experts]) == ("org/mistral", ["org/one", "org/two"])
    assert [(e.density, e.weight) for e in made.experts] == [(0.53, 0.4), (0.53, 0.3)]


def simple(method, *, models=("org/a", "org/b", "org/c"), base=None, own="weight: 1", shared=""):
    listed = "\n".join(f"  - model: {name}\n    parameters: {{{'' if name == base else own}}}" for name in models)
    return f"models:\n{listed}\nmerge_method: {method}\n" + (f"base_model: {base}\n" if base else "") + shared


@pytest.mark.parametrize("method", sorted(CONTRACTS))
def test_every_method_of_mergekit_that_is_here_is_taken(method):
    contract = CONTRACTS[method]
    models = ("org/a", "org/b", "org/c")[: contract.most or 3]
    base = "org/a" if contract.base == "required" else None
    if method == "nuslerp":
        models = models[:2]
    needed = {name: 0.5 for name, default in contract.shared.items() if default is REQUIRED}
    own = "weight: 0.5" if "weight" in contract.own else ""
    made = recipe(simple(method, models=models, base=base, own=own, shared=f"parameters: {json.dumps(needed)}\n"))
    assert made.method.name == method
    assert len(made.experts) == len(models) - (base is not None)


@pytest.mark.parametrize("method", sorted(set(CONTRACTS) & set(METHODS)))
def test_our_defaults_are_mergekits(method):
    fields = {field.alias or name: field for name, field in METHODS[method].model_fields.items()}
    for name, default in {**CONTRACTS[method].shared, **CONTRACTS[method].own}.items():
        assert name in fields, f"{method} here has no {name}"
        if default is not REQUIRED and (method, name) != ("passthrough", "scale"):
            assert fields[name].default == default, f"{method}.{name}"


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_a_base_makes_these_work_on_task_vectors(method):
    assert recipe(simple(method, models=("org/a", "org/b"))).method.task_vectors is False
    made = recipe(simple(method, models=("org/a", "org/b"), base="org/z"))
    assert (made.method.task_vectors, made.base.repo, len(made.experts)) == (True, "org/z", 2)


def test_a_base_that_is_an_input_like_the_others():
    """mergekit adds an unlisted base to the inputs of linear, which then needs a weight for it."""
    text = simple("linear", models=("org/a",), own="weight: 2", shared="base_model: org/z\nparameters: {weight: 3}\n")
    made = recipe(text)
    assert (made.base.repo, [e.repo for e in made.experts]) == ("org/z", ["org/a", "org/z"])
    assert [e.weight if e.weight is not None else made.method.weight for e in made.experts] == [2, 3]
    assert "needs a weight" in refused(text.replace("parameters: {weight: 3}\n", ""))[2]
    listed = simple("linear", models=("org/a", "org/z"), shared="base_model: org/z\n")
    assert [e.repo for e in recipe(listed).experts] == ["org/a", "org/z"]


def test_adapters_on_the_base():
    text = simple("ties", models=("org/llama+org/lora@v1", "org/b"), base="org/llama")
    made = recipe(text)
    assert [(e.repo, e.revision) for e in made.experts] == [("org/lora", "v1"), ("org/b", "main")]
    line, key, words = refused(text.replace("org/llama+", "org/other+"))
    assert (line, key) == (2, "models[0].model")
    assert "adapter" in words
    alone = recipe(simple("linear", models=("org/llama+org/l1", "org/llama+org/l2")))
    assert (alone.base.repo, [e.repo for e in alone.experts]) == ("org/llama", ["org/l1", "org/l2"])
    assert refused(simple("ties", base="org/llama+org/lora"))[1] == "base_model"


def test_models_as_mappings():
    text = """\
merge_method: linear
models:
  - model:
      model: {path: org/a, revision: refs/pr/1}
      lora: {path: org/lora}
    parameters: {weight: 1}
  - model: {model: org/b@v1}
    parameters: {weight: 1}
"""
    made = recipe(text.replace("org/b@v1", "org/a@refs/pr/1"))
    assert (made.base.repo, made.base.revision) == ("org/a", "refs/pr/1")
    assert [(e.repo, e.revision) for e in made.experts] == [("org/lora", "main"), ("org/a", "refs/pr/1")]
    assert refused(text.replace("lora: {path: org/lora}", "override_architecture: X"))[:2] == (
        5, "models[0].model.override_architecture"
    )
    assert refused(text.replace("path: org/a,", ""))[1] == "models[0].model.model"
    assert refused(text.replace("refs/pr/1", "3"))[1] == "models[0].model.model.revision"


def test_where_conditionals_match_nothing_the_next_place_counts():
    text = simple(
        "ties", models=("org/a",), base="org/z",
        own="weight: [{filter: mlp, value: 2}], density: [{filter: q, value: 0.1}]",
        shared="parameters: {weight: 3}\n",
    )  # fmt: skip
    expert = recipe(text).experts[0]
    assert [resolve(expert.weight, tensor=name, depth=0) for name in ("mlp.up", "norm")] == [2, 3]
    assert [resolve(expert.density, tensor=name, depth=0) for name in ("q_proj", "norm")] == [0.1, 1.0]


def test_what_stands_for_all_is_left_out_where_each_has_its_own():
    shared = "parameters: {weight: [{filter: mlp, value: 9}]}\n"
    made = recipe(simple("ties", models=("org/a", "org/b"), base="org/z", own="weight: 0.5", shared=shared))
    assert (made.method.weight, [e.weight for e in made.experts]) == (1.0, [0.5, 0.5])
    check_coverage(made, ["norm"])


def test_a_tensor_that_no_filter_matches():
    text = simple("slerp", models=("org/a", "org/z"), base="org/z", own="",
                  shared="parameters: {t: [{filter: mlp, value: 0.5}, {filter: attn, value: [0, 1]}]}\n")  # fmt: skip
    made = recipe(text)
    check_coverage(made, ["layers.0.mlp.up", "layers.0.attn.q"])
    with pytest.raises(SpearError, match="no filter of t matches norm") as caught:
        check_coverage(made, ["layers.0.mlp.up", "norm"])
    assert (caught.value.pointer, caught.value.names["tensor"]) == ("/method/t", "norm")
    told = translate(text).explain(caught.value)
    assert (told.names["line"], told.names["key"], told.pointer) == (8, "parameters.t", "/mergekit")
    own = recipe(simple("ties", models=("org/a",), base="org/z", own="weight: [{filter: mlp, value: 2}]"))
    with pytest.raises(SpearError) as caught:
        check_coverage(own, ["norm"])
    assert caught.value.pointer == "/experts/0/weight"


def test_numbers_as_yaml_writes_them():
    text = simple("ties", models=("org/a",), base="org/z", own="weight: 1e-1, density: '0.5'")
    assert (recipe(text).experts[0].weight, recipe(text).experts[0].density) == (0.1, 0.5)
    assert recipe(simple("karcher", own="", shared="parameters: {tol: 1e-6}\n")).method.tol == 1e-6
    assert recipe(simple("slerp", models=("org/a", "org/z"), base="org/z", own="",
                         shared="parameters: {t: {value: 0.25}}\n")).method.t[0].value == 0.25  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "method", "output"),
    [
        ("dtype: bfloat16", "bfloat16", None),
        ("dtype: torch.float32\nout_dtype: bfloat16", "float32", "bfloat16"),
        ("out_dtype: float16", None, "float16"),
        ("dtype: null", None, None),
    ],
)
def test_dtypes(lines, method, output):
    made = recipe(simple("task_arithmetic", base="org/a", own="weight: 1", shared=lines + "\n"))
    assert (getattr(made.method, "dtype", None), made.output.dtype) == (method, output)


def test_a_method_without_a_dtype_of_its_own_writes_in_it():
    made = recipe(simple("karcher", own="", shared="dtype: float32\n"))
    assert made.output.dtype == "float32"
    made = recipe(simple("karcher", own="", shared="dtype: float32\nout_dtype: float16\n"))
    assert made.output.dtype == "float16"


@pytest.mark.parametrize(
    ("lines", "source"),
    [
        ("tokenizer_source: base", "base"), ("tokenizer_source: org/b", "org/b"), ("tokenizer_source: org/z", "base"),
        ("tokenizer: {source: org/b}", "org/b"), ("tokenizer:\n  source: base\n  tokens: null", "base"),
        ("tokenizer_source: null", None), ("chat_template: auto", None),
    ],
)  # fmt: skip
def test_whose_vocabulary(lines, source):
    assert recipe(simple("ties", base="org/z", shared=lines + "\n")).tokenizer_source == source


def test_stacked_slices_that_cover_everything():
    text = """\
merge_method: ties
base_model: org/z
slices:
  - sources: &all
      - {model: org/z, layer_range: &first [0, 16]}
      - {model: org/a, layer_range: *first, parameters: {weight: 1}}
  - sources:
      - {model: org/z, layer_range: [16, 32]}
      - {model: org/a, layer_range: [16, 32], parameters: {weight: 1}}
    base_model: org/z
"""
    made = recipe(text)
    assert (made.layers, made.base.repo, [(e.repo, e.weight) for e in made.experts]) == (32, "org/z", [("org/a", 1.0)])


SLICES = "merge_method: ties\nbase_model: org/z\nslices:\n"


def sliced(*ranges, extra="", other=None):
    text = SLICES
    for first, last in ranges:
        text += "  - sources:\n" + f"      - {{model: org/z, layer_range: [{first}, {last}]}}\n"
        text += f"      - {{model: org/a, layer_range: {other or [first, last]}, parameters: {{weight: 1{extra}}}}}\n"
    return text


CASES = {
    "no method": ("models: [{model: org/a}]", 1, "", "no merge_method"),
    "unknown method": (simple("magic"), 8, "merge_method", "magic is not offered"),
    "a method of ours alone": (simple("spear"), 8, "merge_method", "spear is not offered"),
    "unknown key": (LINEAR + "random_seed: 3\n", 10, "random_seed", "not supported here"),
    "parameter at the top": (LINEAR + "normalize: true\n", 10, "normalize", "not supported here"),
    "unknown key of a model": (LINEAR.replace("    parameters", "    params", 1), 3, "models[0].params",
        "not supported"),
    "modules": ("modules: {vision: {models: []}}\nmerge_method: linear", 1, "modules", "several modules"),
    "no models": ("merge_method: linear", 1, "merge_method", "no models"),
    "models and slices": (SLERP + "models: [{model: org/a}]\n", 1, "slices", "either models or slices"),
    "an empty list": ("models: []\nmerge_method: linear", 1, "models", "not an empty one"),
    "a model twice": (simple("linear", models=("org/a", "org/a@main")), 4, "models[1].model", "twice; first in line 2"),
    "a local folder": (simple("linear", models=("./merged", "org/b")), 2, "models[0].model", "not a repository"),
    "no namespace": (simple("linear", models=("gpt2", "org/b")), 2, "models[0].model", "not a repository"),
    "two revisions": (simple("linear", models=("org/a@b@c", "org/b")), 2, "models[0].model", "org/name@revision"),
    "a bad name": (simple("linear", models=("org/a..b", "org/b")), 2, "models[0].model", "must not hold"),
    "a number for a model": ("models: [{model: 3}]\nmerge_method: linear", 1, "models[0].model", "must be a mapping"),
    "no weight": (simple("linear", own=""), 2, "models[0].model", "needs a weight"),
    "no base": (simple("ties"), 8, "merge_method", "needs a base_model"),
    "no t": (simple("slerp", models=("org/a", "org/b"), base="org/a", own=""), 6, "merge_method", "t is missing"),
    "three for slerp": (simple("slerp", base="org/a", own=""), 1, "models", "takes 2 models"),
    "one for nuslerp": (simple("nuslerp", models=("org/a",)), 1, "models", "takes 2 to 3 models"),
    "too few for model_stock": (simple("model_stock", models=("org/a", "org/b"), base="org/a", own=""), 1, "models",
                                "takes 3 to many models"),
    "density out of range": (DARE.replace("density: 0.53\n", "density: 1.5\n"), 5, "models[1].parameters.density",
                             "must lie between 0 and 1"),
    "out of range in a list": (TIES.replace("[1, 0.7, 0.1]", "[1, 7, 0.1]"), 4,
        "models[0].parameters.density", "7: must"),
    "not a number": (TIES.replace("density: 0.5\n", "density: half\n"), 8, "models[1].parameters.density", "number"),
    "not a number in a list": (TIES.replace("0.7, 0.1]", "much]"), 4, "models[0].parameters.density[1]",
        "not a number"),
    "a value that is missing": (TIES.replace("          value: 0.5\n", ""), 14,
        "models[2].parameters.weight[0]", "no value"),
    "an empty parameter": (TIES.replace("density: 0.33", "density:"), 12, "models[2].parameters.density",
        "has no value"),
    "infinite": (LINEAR.replace("0.3", ".inf"), 7, "models[1].parameters.weight", "finite"),
    "a filter that is a number": (TIES.replace("filter: mlp", "filter: 3"), 14, "models[2].parameters.weight[0].filter",
                                  "text"),
    "normalize that is a list": (TIES.replace("normalize: true", "normalize: [true, 2]"), 20,
        "parameters.normalize", ""),
    "a parameter of another method": (simple("linear", shared="parameters: {density: 0.5}\n"), 9, "parameters.density",
                                      "linear takes no density"),
    "no effect in mergekit": (simple("task_arithmetic", base="org/a", own="weight: 1, density: 1"), 5,
                              "models[1].parameters.density", "no parameter of task_arithmetic"),
    "shared under a model": (simple("ties", base="org/a", own="weight: 1, normalize: true"), 5,
                             "models[1].parameters.normalize", "of the whole merge"),
    "parameters of the base": (DARE.replace("org/mistral # the base takes no parameters",
        "org/mistral\n    parameters: "
                               "{weight: 1}"), 3, "models[0].parameters.weight", "no effect on the base"),
    "a dtype": (LINEAR.replace("float16", "float64"), 9, "dtype", "must be one of"),
    "an output dtype": (LINEAR + "out_dtype: int8\n", 10, "out_dtype", "must be one of"),
    "union": (LINEAR + "tokenizer_source: union\n", 10, "tokenizer_source", "union is not supported"),
    "another tokenizer": (LINEAR + "tokenizer_source: org/x\n", 10, "tokenizer_source", "neither the base nor"),
    "tokens": (LINEAR + "tokenizer:\n  source: base\n  tokens: {a: {source: org/a}}\n", 12, "tokenizer.tokens", ""),
    "padding": (LINEAR + "tokenizer: {source: base, pad_to_multiple_of: 64}\n", 10, "tokenizer.pad_to_multiple_of", ""),
    "tokenizer twice": (LINEAR + "tokenizer: {source: base}\ntokenizer_source: base\n", 10, "tokenizer", "either"),
    "no tokenizer source": (LINEAR + "tokenizer: {}\n", 10, "tokenizer", "union in mergekit"),
    "a chat template": (LINEAR + "chat_template: chatml\n", 10, "chat_template", "not supported"),
    "layers left out": (sliced((0, 8), (12, 24)), 8, "slices[1].sources[0].layer_range", "leaves out layers 8 to 11"),
    "layers repeated": (sliced((0, 16), (8, 24)), 8, "slices[1].sources[0].layer_range", "repeats layer 8"),
    "not from the start": (sliced((2, 8)), 5, "slices[0].sources[0].layer_range", "leaves out layers 0 to 1"),
    "layers moved": (sliced((0, 8), other=[8, 16]), 6, "slices[0].sources[1].layer_range", "differs from the first"),
    "no range": (SLERP.replace("        layer_range: [0, 40]\n", "", 1), 3, "slices[0].sources[0]", "no layer_range"),
    "a bad range": (sliced((0, 8), other="[0, x]"), 6, "slices[0].sources[1].layer_range", "two whole numbers"),
    "an empty range": (sliced((4, 4)), 5, "slices[0].sources[0].layer_range", "holds no layer"),
    "no sources": (SLICES + "  - parameters: {}\n", 4, "slices[0]", "has no sources"),
    "a residual": (sliced((0, 8)) + "    residual_weight: 0.5\n", 7, "slices[0].residual_weight", "not supported"),
    "a base of a slice": (sliced((0, 8)) + "    base_model: org/a\n", 7, "slices[0].base_model", "of its own"),
    "other models": (sliced((0, 8), (8, 16)).replace("org/a", "org/b", 1), 7, "slices[1]", "has other models"),
    "other parameters": (sliced((0, 8), (8, 16)).replace("weight: 1", "weight: 2", 1), 7, "slices[1]",
        "other parameters"),
    "gradients anew": (sliced((0, 8), (8, 16), extra=", density: [0.1, 1]"), 6,
        "slices[0].sources[1].parameters.density",
                       "one slice of all layers"),
    "gradients anew from the top": (
        sliced((0, 8), (8, 16)) + "parameters:\n  density: [{filter: mlp, value: [0.1, 1]}]\n", 11,
        "parameters.density[0].value", "one slice of all layers"),
    "the base is no source": (sliced((0, 8)).replace("model: org/z,", "model: org/y,"), 2, "base_model", "not among"),
    "not a mapping": ("- model: org/a", 1, "", "must be a mapping"),
    "parameters that are a list": (LINEAR + "parameters: [1]\n", 10, "parameters", "must be a mapping"),
    "empty": ("# nothing\n", 1, "", "empty"),
    "broken": ("models: [", 1, "", "not valid YAML"),
    "a tab": ("models:\n\t- model: x", 2, "", "not valid YAML"),
    "a key twice": (LINEAR + "dtype: float16\n", 10, "dtype", "twice; first in line 9"),
    "two documents": (LINEAR + "---\na: 1\n", 10, "", "not valid YAML"),
    "an object": ("merge_method: !!python/object/apply:os.system [ls]", 1, "merge_method", "not plain data"),
    "an object of text": ("merge_method: !!python/name:os.system ''", 1, "merge_method", "cannot be read"),
    "a set": ("models: !!set {a, b}", 1, "models", "not plain data"),
    "a method that is a list": ("merge_method: [a]\nmodels: []", 1, "merge_method", "['a'] is not offered"),
    "a control character": ("a: 1\nb: \x07", 2, "", "not valid YAML"),
    "a surrogate": ('merge_method: "\\uD800"', 1, "merge_method", "cannot be printed"),
    "a zero": ('models: {"\\0": 1}', 1, "models", "cannot be printed"),
    "a key that is no text": ("1: 2", 1, "", "a key must be text"),
    "a merge key": ("a: &a {b: 1}\nc:\n  <<: *a", 3, "c.<<", "merge keys"),
    "a value without end": ("models: &a [*a]", 1, "models", "nested deeper"),
    "deep": ("models: " + "[" * 40 + "]" * 40, 1, "models", "nested deeper"),
    "very deep": ("models: " + "[" * 5000, 1, "", ""),
    "a huge number": ("models: " + "9" * 9000, 1, "models", "cannot be read"),
    "a large number": (LINEAR.replace("0.3", "9" * 30), 7, "models[1].parameters.weight", "too large"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "words"), CASES.values(), ids=CASES.keys())
def test_refusals(text, line, key, words):
    found = refused(text)
    assert (found[0], found[1][: len(key)] if words == "nested deeper" else found[1]) == (line, key), found
    assert words in found[2]


def test_an_alias_bomb_ends_early():
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert f"more than {MAX_NODES} values" in refused("\n".join(lines))[2]


def test_a_text_that_is_too_long():
    with pytest.raises(SpearError):
        read("# " + "x" * MAX_CHARACTERS)


def test_every_fault_of_the_recipe_is_told():
    text = DARE.replace("0.53", "5").replace("weight: 0.4", "weight: lots")
    with pytest.raises(SpearError) as caught:
        recipe(text)
    details = [error["detail"] for error in caught.value.names["errors"]]
    assert any(detail.startswith("line 5: models[1].parameters.density") for detail in details)
    assert any(detail.startswith("line 6: models[1].parameters.weight") for detail in details)
    assert any(detail.startswith("line 8: models[2].parameters.density") for detail in details)


WORDS = st.sampled_from([
    *"abc", "models", "slices", "sources", "model", "layer_range", "parameters", "weight", "density", "t", "base_model",
    "merge_method", "linear", "ties", "slerp", "org/a", "org/b@v", "tokenizer_source", "tokenizer", "source", "value",
    "filter", "dtype", "float16", "union", "base",
])  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8) | st.dates()
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=6), max_leaves=24
)


def survives(text):
    """It is taken, or refused as it should be; anything else is an error of the test."""
    try:
        recipe(text)
    except SpearError:
        refused(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-&*!|>'\"#?%@ \n\tabc01.~=<", max_size=80))
def test_no_text_breaks_the_parser(text):
    survives(text)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(WORDS, TREES, max_size=8))
def test_no_tree_breaks_the_translation(tree):
    survives(yaml.safe_dump(tree))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([LINEAR, SLERP, TIES, DARE]), st.data())
def test_no_change_of_a_real_one_breaks_it(text, data):
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "double", "swap", "empty"]))
        if change == "drop" and len(lines) > 1:
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "swap":
            lines[at], lines[-1] = lines[-1], lines[at]
        else:
            lines[at] = lines[at].partition(":")[0] + ":"
    survives("\n".join(lines))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), min_size=2, max_size=5, unique=True),
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
def test_what_is_written_is_what_is_made(names, numbers):
    """Every number of a YAML arrives at its own model, in its order."""
    models = [
        {"model": f"org/{name}", "parameters": {"density": density, "weight": 1 - density}}
        for name, density in zip(names, numbers, strict=False)
    ]
    whole = {"models": models, "merge_method": "dare_linear", "base_model": "org/z", "parameters": {"lambda": 0.5}}
    made = recipe(yaml.safe_dump(whole))
    assert [(e.repo, e.density, e.weight) for e in made.experts] == [
        (m["model"], m["parameters"]["density"], m["parameters"]["weight"]) for m in models
    ]
    assert made.method.lambda_ == 0.5
    assert translate(yaml.safe_dump(whole)).place("/experts/0/density").key == "models[0].parameters.density"
