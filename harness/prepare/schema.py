"""The JSON schemas of grid files and of site files, from which editors complete and check them.

They are made of the specs themselves; descriptions are the docstrings of the specs' fields. A
schema knows keys, kinds and bounds; what depends on other keys, or on files, `zbench plan` tells.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from harness.errors import UsageError, did_you_mean
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.task_index import FORGETTING
from harness.execution.site import Site
from harness.grid.choices import Label
from harness.grid.names import model_name_pattern
from harness.grid.resolver import GridFile
from harness.grid.tuning import Range
from harness.methods import METHODS
from harness.methods.matching import MatchSpec
from harness.methods.method import Method
from harness.methods.pass_through import PeftOptions
from harness.models.adapter_settings import ZERO_INIT_PROMPT, known_types
from harness.models.families import FAMILIES
from harness.spec import Spec
from harness.training.optimizer_options import known_optimizers
from harness.training.spec import TrainSpec

DRAFT = "http://json-schema.org/draft-07/schema#"
NUMBER_AS_TEXT = r"^\s*[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
"""What is read as a number though it is text: `1e-4` is that in YAML 1.1."""
NAMES_THE_METHOD = ("method", "peft", "adapter")
"""Keys that say which method an entry means, the first of them by its name."""


class Entry(Spec):
    """A method of a grid, with its options."""

    method: str
    """A method's name; in the grid's `methods` the entry's own name where absent."""
    label: Label
    """The name of its rows in tables and figures."""
    train: TrainSpec
    """Training settings of this method alone; they take precedence over the grid's."""
    match: MatchSpec
    """How many parameters it is to train: its size is chosen for each model."""


SHIPPED = {"grid": "grid.schema.json", "site": "site.schema.json"}
"""The files of both, beside the grids that ship."""


def schema_text(kind: str) -> str:
    """The schema as its file holds it.

    Raises:
        UsageError: there is none of this kind.
    """
    return json.dumps(schema_of(kind), indent=1, ensure_ascii=False) + "\n"


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON schema of `grid` files or of `site` files.

    Raises:
        UsageError: there is none of this kind.
    """
    if kind == "grid":
        return _grid_schema()
    if kind == "site":
        return _documented([Site], Site, "A site file of zbench: where its cells are placed")
    raise UsageError(f"{kind}: no such kind of file{did_you_mean(kind, SHIPPED)}")


class _Documented(GenerateJsonSchema):
    """Fields with their docstrings; numbers that may be text; no title that repeats a name."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        docs = field_docs(schema["cls"])
        for name, entry in found.get("properties", {}).items():
            if name in docs:
                entry["description"] = docs[name]
            if schema["cls"] is TrainSpec or not isinstance(
                entry.get("default"), str | int | float
            ):
                entry.pop("default", None)  # a method's recipe has another, or it is none
        found["description"] = textwrap.dedent(schema["cls"].__doc__ or "").strip()
        found.pop("title", None)
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_text(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_text(super().float_schema(schema))


def _or_text(number: JsonSchemaValue) -> JsonSchemaValue:
    return {**number, "type": [number["type"], "string"], "pattern": NUMBER_AS_TEXT}


def field_docs(spec: type[BaseModel]) -> dict[str, str]:
    """The docstrings under the fields of a spec and of those that it extends."""
    found: dict[str, str] = {}
    for parent in reversed(spec.__mro__):
        if not issubclass(parent, Spec) or parent is Spec:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            name = field.target if isinstance(field, ast.AnnAssign) else None
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(name, ast.Name) and isinstance(text, ast.Constant):
                found[name.id] = " ".join(str(text.value).split())
    return found


def _documented(specs: Iterable[type[BaseModel]], root: type[BaseModel], title: str) -> Any:
    _, whole = models_json_schema(
        [(spec, "validation") for spec in specs], schema_generator=_Documented
    )
    defs = whole["$defs"]
    return {"$schema": DRAFT, "title": title, **defs.pop(root.__name__), "$defs": defs}


def _grid_schema() -> dict[str, Any]:
    methods = METHODS.own
    options = dict.fromkeys(method.options for method in methods.values())
    schema = _documented(
        [GridFile, Entry, Range, *options], GridFile, "A grid of zbench: what is trained and scored"
    )
    defs, grid = schema["$defs"], schema["properties"]
    entry = defs.pop("Entry")["properties"]
    for method in methods.values():
        defs[f"method.{method.name}"] = _keys_of(method, defs, entry)
    for spec in options:
        defs.pop(spec.__name__)
    defs["Method"] = _any_method(methods, entry)
    named = [{"required": [key]} for key in (*NAMES_THE_METHOD, "label")]
    listed = {**suggested(methods), "description": "A method, or a label of the grid's `methods`."}
    block = defs["BlockFile"]["properties"]
    block["methods"]["items"] = {"anyOf": [listed, {"allOf": [ref("Method"), {"anyOf": named}]}]}
    grid["methods"] |= {
        "properties": {name: _named_as(name) for name in methods},
        "additionalProperties": ref("Method"),
    }
    grid["train"] = {"description": grid["train"]["description"], "allOf": [ref("TrainSpec")]}
    grid["models"]["propertyNames"] = {"pattern": model_name_pattern()}
    _tasks(defs, grid["tasks"], *block["tasks"]["anyOf"])
    _suggest_names(defs)
    defs["TuneFile"]["properties"] |= _tune(defs)
    used = _used({key: part for key, part in schema.items() if key != "$defs"}, defs)
    return {**schema, "$defs": {name: part for name, part in defs.items() if name in used}}


def _used(part: Any, defs: Mapping[str, Any]) -> set[str]:
    """The definitions that a part of a schema needs; the others are what keys become when read."""
    found: set[str] = set()
    left = [part]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            name = str(one.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                left.append(defs[name])
            left += one.values()
        elif isinstance(one, list):
            left += one
    return found


def ref(name: str) -> dict[str, str]:
    """A reference to a definition."""
    return {"$ref": f"#/$defs/{name}"}


def suggested(names: Iterable[str]) -> dict[str, Any]:
    """A text that editors complete to one of these names, and that may be another."""
    return {"anyOf": [{"enum": list(names)}, {"type": "string"}]}


def _keys_of(method: Method, defs: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an entry that means this method."""
    options = defs[method.options.__name__]
    own = dict(options.get("properties", {}))
    shared = {
        key: value for key, value in entry.items() if method.trains or key not in ("train", "match")
    }
    return {
        "type": "object",
        "description": method.title,
        "properties": {**own, **shared},
        "required": ["peft"] if method.options is PeftOptions else options.get("required", []),
        "additionalProperties": False,
    }


def _any_method(methods: Iterable[str], entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry whose keys are those of the method that it names; others may have any."""
    unnamed = {"not": {"anyOf": [{"required": [key]} for key in NAMES_THE_METHOD]}}
    rules = []
    for name in methods:
        said = {"required": ["method"], "properties": {"method": {"const": name}}}
        labelled = {**unnamed, "required": ["label"], "properties": {"label": {"const": name}}}
        rules.append({"if": {"anyOf": [said, labelled]}, "then": ref(f"method.{name}")})
    for key in ("peft", "adapter"):
        said = {"required": [key], "not": {"required": ["method"]}}
        rules.append({"if": said, "then": ref(f"method.{key}")})
    named = {**suggested(methods), "description": entry["method"]["description"]}
    return {
        "type": "object",
        "properties": {"method": named, "label": entry["label"]},
        "allOf": rules,
    }


def _named_as(name: str) -> dict[str, Any]:
    """An entry of the grid's `methods` under a method's own name."""
    said = {"anyOf": [{"required": [key]} for key in NAMES_THE_METHOD]}
    return {"if": said, "then": ref("Method"), "else": ref(f"method.{name}")}


def _tasks(defs: Mapping[str, Any], *lists: dict[str, Any]) -> None:
    """Benchmarks are offered by name; of lm-eval's 14,000 any may stand there."""
    names = suggested([*BENCHMARKS, *FORGETTING])
    defs["TaskSpec"]["properties"]["name"] |= names
    defs["TaskSpec"]["properties"]["name"].pop("type", None)
    for one in lists:
        if "items" in one:
            one["items"] = {"anyOf": [*names["anyOf"], ref("TaskSpec")]}


def _suggest_names(defs: Mapping[str, Any]) -> None:
    """Names that are known, of families, optimizers and types of PEFT."""
    family = defs["ModelShape"]["properties"]["model_type"]
    family["enum"] = list(FAMILIES)
    named = suggested(known_optimizers())
    settings = {"type": "object", "properties": {"name": named}, "required": ["name"]}
    optimizer = defs["TrainSpec"]["properties"]["optimizer"]
    optimizer["anyOf"] = [named, settings, {"type": "null"}]
    kinds = suggested(name for name in known_types() if name != ZERO_INIT_PROMPT)
    peft = defs["method.peft"]["properties"]["peft"]
    peft |= {"type": "object", "properties": {"peft_type": kinds}, "required": ["peft_type"]}


def _tune(defs: Mapping[str, Any]) -> dict[str, Any]:
    """What `tune` holds of its block: a benchmark, and the spaces of methods."""
    keys = defs["TuneFile"]["properties"]
    task = {key: value for key, value in defs["TaskSpec"]["properties"].items() if key != "name"}
    benchmark = {
        "type": "object",
        "properties": {"benchmark": {"type": "string"}, "metric": {"type": "string"}, **task},
        "required": ["benchmark"],
        "additionalProperties": False,
    }
    values = {"anyOf": [{"type": "array", "minItems": 1}, ref("Range")]}
    space = {"type": "object", "minProperties": 1, "additionalProperties": values}
    return {
        "on": {**keys["on"], "anyOf": [*suggested(["validation"])["anyOf"], benchmark]},
        "space": {**keys["space"], "additionalProperties": space},
    }
