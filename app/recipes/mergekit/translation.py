"""A mergekit configuration as a recipe of ours: the same inputs, method, parameters and results."""

from dataclasses import dataclass, field
from typing import Any

from app.recipes.mergekit.contracts import CONTRACTS, REQUIRED, WITHOUT_EFFECT, Contract
from app.recipes.mergekit.document import Entry, read
from app.recipes.mergekit.inputs import read_inputs
from app.recipes.mergekit.models import Inputs, Model, Settings, Source, fields, read_model, settings
from app.recipes.mergekit.places import Translation
from app.recipes.mergekit.settings import combine
from app.recipes.mergekit.slices import refuse_gradients
from app.recipes.recipe import METHODS, Expert

KEYS = (
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer", "chat_template",
)  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16")


def translate(text: str) -> Translation:
    """Reads a mergekit YAML; raises `SpearError(invalid_recipe)` naming the line and the key not supported."""
    document = read(text)
    _refuse_modules(document)
    root = fields(document, known=KEYS)
    if "merge_method" not in root:
        raise document.refuse("there is no merge_method")
    made = _Translator(root)
    made.run()
    return Translation(made.body, {"": root["merge_method"], **made.places})


def _refuse_modules(document: Entry) -> None:
    found = document.value.get("modules") if isinstance(document.value, dict) else None
    if found is not None and found.value is not None:
        raise found.refuse("models of several modules are not supported")


@dataclass
class _Translator:
    root: dict[str, Entry]
    body: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Entry] = field(default_factory=dict)

    def run(self) -> None:
        name = _method(self.root["merge_method"])
        contract = CONTRACTS[name]
        base = read_model(self.root["base_model"]) if "base_model" in self.root else None
        if base and base.adapter:
            raise base.entry.refuse("the base cannot be an adapter on another model")
        inputs = read_inputs(self.root, base=base)
        self.body["method"] = {"name": name}
        self.places |= {"/method": self.root["merge_method"], "/experts": inputs.entry}
        experts = self._roles(contract, inputs, base)
        shared = settings(self.root.get("parameters"))
        for given in (shared, inputs.parameters, *(source.parameters for source in inputs.sources)):
            if inputs.stacked:
                refuse_gradients(given)
        self._method(contract, [inputs.parameters, shared], experts)
        for number, source in enumerate(experts):
            self._expert(number, source, contract, [source.parameters, inputs.parameters, shared])
        self._layers(inputs)
        self._dtypes()
        self._tokenizer(experts)

    def _roles(self, contract: Contract, inputs: Inputs, base: Model | None) -> list[Source]:
        """Sets the recipe's base; gives its experts. An input that is the base and nothing else is no expert."""
        sources = list(inputs.sources)
        if base and base not in [source.model for source in sources]:
            if inputs.layers is None:  # mergekit adds the base to `models`, at their end; to slices it does not
                sources.append(Source(base, {}))
            elif contract.base != "ignored":
                raise base.entry.refuse("the base is not among the sources of the slices")
        _check_count(contract, len(sources), self.root["merge_method"], inputs)
        if contract.base == "required" and base is None:
            raise self.root["merge_method"].refuse("this method needs a base_model")
        apart = contract.base != "ignored" and base is not None
        chosen = base or sources[0].model.plain
        self.body["base"] = {"repo": chosen.repo, "revision": chosen.revision}
        self.places["/base"] = chosen.entry
        if apart:
            self._with_base(contract, sources, chosen)
        return [source for source in sources if not (apart and source.model == chosen)]

    def _with_base(self, contract: Contract, sources: list[Source], base: Model) -> None:
        self.body["method"] |= contract.with_base
        for source in sources:
            for entry in source.parameters.values() if source.model == base else ():
                raise entry.refuse("has no effect on the base model, in mergekit either: leave it out")

    def _method(self, contract: Contract, scopes: list[Settings], experts: list[Source]) -> None:
        """The parameters of the whole merge, and those of every input that stand for all of them."""
        defaults = {**contract.shared, **contract.own}
        known = {*_fields(self.body["method"]["name"]), *(n for n in contract.own if n in Expert.model_fields)}
        for name, entry in (pair for scope in scopes for pair in scope.items()):
            if name not in WITHOUT_EFFECT and not (name in defaults and name in known):
                raise entry.refuse(f"{self.root['merge_method'].value} takes no {name}")
        for name, default in defaults.items():
            if name in Expert.model_fields and all(name in source.parameters for source in experts):
                continue  # each has its own: what stands for all counts for none
            own = [source.parameters for source in experts] if name not in Expert.model_fields else []
            places = [scope[name] for scope in (*(own if name in contract.own else []), *scopes) if name in scope]
            value = combine(places, default=default)
            if value is not REQUIRED:
                self.body["method"][name] = value
                self.places[f"/method/{name}"] = places[0]
            elif default is REQUIRED and name in contract.shared:
                raise self.root["merge_method"].refuse(f"the parameter {name} is missing")

    def _expert(self, number: int, source: Source, contract: Contract, scopes: list[Settings]) -> None:
        model = source.model
        if model.adapter and (model.repo, model.revision) != tuple(self.body["base"].values()):
            raise model.entry.refuse("an adapter can only stand on the base model")
        repo, revision = model.adapter or (model.repo, model.revision)
        expert: dict[str, Any] = {"repo": repo, "revision": revision}
        self.places[f"/experts/{number}"] = model.entry
        for name, entry in source.parameters.items():
            if name not in contract.own and name not in WITHOUT_EFFECT:
                where = "is a parameter of the whole merge" if name in contract.shared else "is no parameter"
                raise entry.refuse(f"{name} {where} of {self.root['merge_method'].value}, not one of a single model")
        for name, default in contract.own.items():
            places = [scope[name] for scope in scopes if name in scope]
            if default is REQUIRED and not places:
                raise model.entry.refuse(f"{self.root['merge_method'].value} needs a {name} for this model")
            if name in source.parameters and name in Expert.model_fields:
                expert[name] = combine(places, default=default)
                self.places[f"/experts/{number}/{name}"] = places[0]
        self.body.setdefault("experts", []).append(expert)

    def _layers(self, inputs: Inputs) -> None:
        if inputs.layers is not None:
            self.body["layers"] = inputs.layers
            self.places["/layers"] = inputs.entry

    def _dtypes(self) -> None:
        """`dtype` is that of compat mode's arithmetic, and of the output unless `out_dtype` says otherwise."""
        for key in ("dtype", "out_dtype"):
            if key not in self.root:
                continue
            entry = self.root[key]
            value = entry.value.removeprefix("torch.") if isinstance(entry.value, str) else entry.value
            if value not in DTYPES:
                raise entry.refuse(f"must be one of {', '.join(DTYPES)}")
            if key == "dtype" and "dtype" in _fields(self.body["method"]["name"]):
                self.body["method"]["dtype"] = value
                self.places["/method/dtype"] = entry
            else:
                self.body["output"] = {"dtype": value}
                self.places["/output/dtype"] = entry

    def _tokenizer(self, experts: list[Source]) -> None:
        template = self.root.get("chat_template")
        if template and template.value != "auto":
            raise template.refuse("is not supported, but for auto: the template comes with the tokenizer")
        entry = _tokenizer_source(self.root)
        if entry is None:
            return
        self.body["tokenizer_source"] = "base"
        self.places["/tokenizer_source"] = entry
        if entry.value == "base":
            return
        if entry.value == "union":
            raise entry.refuse("union is not supported: take base or one of the models")
        model = read_model(entry)
        if (model.repo, model.revision) == tuple(self.body["base"].values()) and not model.adapter:
            return
        if model not in [source.model for source in experts]:
            raise entry.refuse("is neither the base nor one of the models")
        self.body["tokenizer_source"] = model.adapter[0] if model.adapter else model.repo


def _method(entry: Entry) -> str:
    name = entry.value
    if not isinstance(name, str) or name not in CONTRACTS or name not in METHODS:
        offered = ", ".join(sorted(set(CONTRACTS) & set(METHODS)))
        asked = str(entry.plain)[:80]
        raise entry.refuse(f"the method {asked} is not offered for mergekit recipes; offered are {offered}")
    return name


def _check_count(contract: Contract, count: int, method: Entry, inputs: Inputs) -> None:
    if count < contract.least or (contract.most is not None and count > contract.most):
        span = f"{contract.least} to {contract.most or 'many'}"
        wanted = str(contract.least) if contract.least == contract.most else span
        raise inputs.entry.refuse(f"{method.value} takes {wanted} models, the base among them, not {count}")


def _fields(method: str) -> set[str]:
    """The parameters of our method, as recipes spell them."""
    return {found.alias or name for name, found in METHODS[method].model_fields.items()} - {"name"}


def _tokenizer_source(root: dict[str, Entry]) -> Entry | None:
    source, section = root.get("tokenizer_source"), root.get("tokenizer")
    if source and section:
        raise section.refuse("give either tokenizer or tokenizer_source")
    if section is None:
        return source
    parts = fields(section, known=("source", "tokens", "pad_to_multiple_of"))
    for name in ("tokens", "pad_to_multiple_of"):
        if name in parts:
            raise parts[name].refuse("is not supported")
    if "source" not in parts:
        raise section.refuse("names no source, which is union in mergekit: that is not supported")
    return parts["source"]
