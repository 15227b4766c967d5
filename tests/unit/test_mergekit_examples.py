"""The shapes of configuration that mergekit's README, documentation and examples show: each is taken with its meaning,
or refused with its line and key."""

import pytest

from app.errors import Code, SpearError
from app.recipes import Target, parse_recipe
from app.recipes.mergekit import MergekitForm, translate, written

TAKEN = {
    "weighted mean": ("linear", """\
models:
  - model: org/a
    parameters:
      weight: 1.0
  - model: org/b
    parameters:
      weight: 0.3
merge_method: linear
dtype: float16
"""),
    "slerp over depth, in one slice": ("slerp", """\
slices:
  - sources:
      - model: org/a
        layer_range: [0, 40]
      - model: org/b
        layer_range: [0, 40]
merge_method: slerp
base_model: org/a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for the rest
dtype: float16
"""),
    "slerp of whole models": ("slerp", """\
models:
  - model: org/a
  - model: org/b
merge_method: slerp
base_model: org/a
parameters:
  t: 0.5
dtype: bfloat16
"""),
    "ties with gradients": ("ties", """\
models:
  - model: org/a
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: org/b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: org/c
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: org/base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
"""),
    "ties beside its base, by path and revision": ("ties", """\
models:
  - {model: {model: {path: org/base, revision: v1.0}}}
  - {model: org/a, parameters: {density: 0.5, weight: 0.5}}
  - {model: org/b, parameters: {density: 0.5, weight: 0.3}}
merge_method: ties
base_model: {model: {path: org/base, revision: v1.0}}
parameters: {normalize: false}
"""),
    "dare_ties": ("dare_ties", """\
models:
  - model: org/base
    # no parameters for the base
  - model: org/a
    parameters: {density: 0.53, weight: 0.4}
  - model: org/b
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_ties
base_model: org/base
parameters:
  int8_mask: true
dtype: bfloat16
"""),
    "della with lambda": ("della", """\
models:
  - model: org/a
    parameters: {weight: 1.0, density: 0.5, epsilon: 0.15}
  - model: org/b
    parameters: {weight: 0.5, density: 0.5, epsilon: 0.1}
merge_method: della
base_model: org/base
parameters: {lambda: 1.0}
"""),
    "breadcrumbs": ("breadcrumbs_ties", """\
models:
  - model: org/a
    parameters: {weight: 0.6, density: 0.9, gamma: 0.01}
  - model: org/b
    parameters: {weight: 0.4, density: 0.9, gamma: 0.01}
merge_method: breadcrumbs_ties
base_model: org/base
"""),
    "task arithmetic, parameters null": ("task_arithmetic", """\
models:
  - model: org/a
    parameters: {weight: 1}
merge_method: task_arithmetic
base_model: org/base
parameters:
"""),
    "model stock": ("model_stock", """\
models:
  - model: org/a
  - model: org/b
merge_method: model_stock
base_model: org/base
parameters: {filter_wise: false}
"""),
    "sce": ("sce", """\
models: [{model: org/a}, {model: org/b}]
merge_method: sce
base_model: org/base
parameters: {select_topk: 0.1}
"""),
    "karcher": ("karcher", """\
models: [{model: org/a}, {model: org/b}, {model: org/c}]
merge_method: karcher
parameters: {max_iter: 10, tol: 1e-5}
dtype: bfloat16
"""),
    "multislerp": ("multislerp", """\
models:
  - {model: org/a, parameters: {weight: 0.5}}
  - {model: org/b, parameters: {weight: 0.5}}
merge_method: multislerp
"""),
    "nuslerp": ("nuslerp", """\
models:
  - {model: org/a, parameters: {weight: 0.5}}
  - {model: org/b, parameters: {weight: 0.5}}
merge_method: nuslerp
parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}
"""),
    "nearswap": ("nearswap", """\
models: [{model: org/base}, {model: org/a}]
merge_method: nearswap
base_model: org/base
parameters: {t: 0.0001}
"""),
    "arcee_fusion": ("arcee_fusion", """\
models: [{model: org/base}, {model: org/a}]
merge_method: arcee_fusion
base_model: org/base
dtype: bfloat16
"""),
    "an adapter merged into its base": ("passthrough", """\
models:
  - model: org/base+org/lora
merge_method: passthrough
dtype: bfloat16
"""),
    "tokenizer of the base": ("linear", """\
models:
  - {model: org/a, parameters: {weight: 0.5}}
  - {model: org/b, parameters: {weight: 0.5}}
base_model: org/a
merge_method: linear
tokenizer: {source: base}
chat_template: auto
"""),
}  # fmt: skip
HEAD = "models:\n  - {model: org/a, parameters: {weight: 1}}\n  - {model: org/b, parameters: {weight: 1}}\n"
REFUSED = {
    "the old word for a filter": (6, "parameters.t[0].pattern", """\
models: [{model: org/a}, {model: org/b}]
merge_method: slerp
base_model: org/a
parameters:
  t:
    - pattern: self_attn
      value: 0.3
    - value: 0.5
"""),
    "layers stacked": (6, "slices[1].sources[0].layer_range", """\
slices:
  - sources:
    - {model: org/a, layer_range: [0, 24]}
  - sources:
    - model: org/a
      layer_range: [20, 40]
merge_method: passthrough
"""),
    "layers of two models in turn": (4, "slices[1]", """\
slices:
  - sources:
    - {model: org/a, layer_range: [0, 24]}
  - sources:
    - {model: org/b, layer_range: [24, 40]}
merge_method: passthrough
"""),
    "several documents": (4, "", HEAD + "---\nmerge_method: linear\n"),
    "a path for the output": (5, "out_path", HEAD + "merge_method: linear\nout_path: ./models/x\n"),
    "a folder": (2, "models[0].model", "models:\n  - model: ./models/gradient-slerp\nmerge_method: passthrough\n"),
    "a model without an owner": (2, "models[0].model", "models:\n  - model: gpt2\nmerge_method: passthrough\n"),
    "another method": (4, "merge_method", HEAD + "merge_method: ranked_ties\nbase_model: org/base\n"),
    "a union of tokens": (5, "tokenizer_source", HEAD + "merge_method: linear\ntokenizer_source: union\n"),
    "tokens by hand": (7, "tokenizer.tokens", HEAD + """\
merge_method: linear
tokenizer:
  source: org/a
  tokens: {"<|im_start|>": {source: org/a}}
"""),
    "padding": (5, "tokenizer.pad_to_multiple_of", HEAD
                + "merge_method: linear\ntokenizer: {source: org/a, pad_to_multiple_of: 64}\n"),
    "a template by name": (5, "chat_template", HEAD + "merge_method: linear\nchat_template: chatml\n"),
    "a mixture of experts": (3, "gate_mode", """\
merge_method: linear
base_model: org/base
gate_mode: hidden
experts: [{source_model: org/a, positive_prompts: [x]}]
"""),
    "an evolution": (1, "genome", "genome:\n  models: [org/a, org/b]\n  merge_method: ties\ntasks: []\n"),
    "models of several parts": (2, "modules", "merge_method: linear\nmodules: {encoder: {models: []}}\n"),
    "no weight": (3, "models[1].model", """\
models:
  - {model: org/a, parameters: {weight: 1}}
  - {model: org/b}
merge_method: linear
"""),
    "no base": (4, "merge_method", HEAD + "merge_method: ties\n"),
    "a density beyond 1": (5, "models[0].parameters.density", """\
merge_method: ties
base_model: org/base
models:
  - model: org/a
    parameters: {weight: 1, density: 1.5}
"""),
}  # fmt: skip


@pytest.mark.parametrize("example", TAKEN)
def test_an_example_is_taken(example):
    name, text = TAKEN[example]
    recipe = parse_recipe(translate(text).body | {"target": {"repo": "org/out"}})
    assert recipe.method.method_name() == name


@pytest.mark.parametrize("example", REFUSED)
def test_an_example_is_refused_with_its_line_and_key(example):
    line, key, text = REFUSED[example]
    with pytest.raises(SpearError) as caught, written(MergekitForm(mergekit=text, target=Target(repo="org/out"))):
        pass
    assert caught.value.code is Code.INVALID_RECIPE
    assert (caught.value.names["line"], caught.value.names["key"]) == (line, key), caught.value.message
    assert caught.value.message.startswith(f"line {line}: ")


def test_a_bad_expert_is_one_error_not_two():
    with pytest.raises(SpearError) as caught:
        parse_recipe({
            "base": {"repo": "org/base"}, "experts": [{"repo": "no-owner"}], "method": {"name": "linear"},
            "target": {"repo": "org/out"},
        })  # fmt: skip
    assert [error["pointer"] for error in caught.value.names["errors"]] == ["/experts/0/repo"]
    with pytest.raises(SpearError, match="at least 1"):
        parse_recipe({
            "base": {"repo": "org/base"}, "experts": [], "method": {"name": "linear"}, "target": {"repo": "org/out"}
        })  # fmt: skip
