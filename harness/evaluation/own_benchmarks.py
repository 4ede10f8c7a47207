"""Benchmarks known by lm-eval's YAML alone: any task or group of the installed lm-eval, or of a
folder of one's own. Imports nothing of lm-eval, so that planning stays quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

from harness.evaluation.benchmark import Benchmark, Decoding, Member, Source
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.metric_kinds import DEFAULT_METRICS, MetricKind, kind_of, metric_name
from harness.evaluation.protocols import LM_EVAL
from harness.evaluation.task_files import Function, files_of
from harness.evaluation.task_index import FORGETTING, find_definition, index_of_folder
from harness.evaluation.task_tree import GROUP_KEYS, Leaf, Tree, TreeFault, tree_of
from harness.records.files import sha256_of_file

SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
LOADERS = ("json", "csv", "parquet", "text", "arrow", "pandas")
"""Values of `dataset_path` that read the files of `dataset_kwargs`."""
DEFAULT_NEW_TOKENS = 256
"""lm-eval's, of a task that does not say how long its answers may be."""
DATA_BY_CODE = "its data are made by a function of its own (custom_dataset): give local_data"
NO_DATA_SET = "its YAML names no data set (dataset_path): give local_data"


@cache
def find_benchmark(name: str, include: str | None = None) -> Benchmark | None:
    """The benchmark of a name: one with an entry here, else lm-eval's task or group; else None.

    A tag is none: its members are. `include` is a folder of one's own tasks.

    Raises:
        TreeFault: its definition is at fault, or needs what zbench does not do; in one line.
        Unreadable: a YAML file is at fault.
    """
    if name in BENCHMARKS:
        if include is not None and name in index_of_folder(Path(include)):
            raise TreeFault(
                f"'{name}' of {include} has the name of a benchmark of zbench: give it another one"
            )
        return BENCHMARKS[name]
    found = find_definition(name, include)
    if found is None or found.path is None:
        return None
    tree = tree_of(name, include)
    if not tree.leaves:
        raise TreeFault(f"the group '{name}' has no tasks")
    members = tuple(_member(leaf) for leaf in tree.leaves)
    kinds = _kinds(tree)
    if not kinds:
        raise TreeFault(f"'{name}' names no metric: give its YAML a metric_list")
    own = include is not None and name in index_of_folder(Path(include))
    shots = [member.num_shots(None) for member in members]
    first = members[0]
    decoding = [_decoding(leaf.config) for leaf in tree.leaves]
    return Benchmark(
        name=name,
        title=name if own else FORGETTING.get(name, name),
        column=None,
        task_folder=include if own and include else "lm_eval:tasks",
        shots=max(shots),
        metrics=tuple(kinds),
        splits=tuple(dict.fromkeys(filter(None, (first.eval_split, first.few_shot_split)))),
        eval_split=first.eval_split,
        data_folder=name,
        columns=(),
        form=None,
        hub=first.hub,
        # In a group, that of the first task that takes examples.
        few_shot_split=next((one.few_shot_split for one in members if takes_examples(one)), None),
        primary_metric=next(iter(kinds)),
        higher_is_better=next(iter(kinds.values())).higher_is_better,
        protocol=LM_EVAL,
        decoding=next(filter(None, decoding), None),
        kinds=kinds,
        members=members,
        is_group=tree.group is not None,
        unsafe_code=any(leaf.config.get("unsafe_code") for leaf in tree.leaves),
        definition=_definition(tree, include),
    )


def takes_examples(member: Member) -> bool:
    """Whether a task's few-shot examples are not fixed, as `num_fewshot: 0` fixes them."""
    return member.shots != 0


def members_of(name: str, include: str | None) -> list[str] | None:
    """The benchmarks that a name stands for which has no score of its own; None where it has one.

    They are the tasks of a tag, and the members of a group that aggregates nothing, or nothing that
    its tasks measure.

    Raises:
        TreeFault: a group sets something for its members: it has to be named by them.
    """
    found = None if name in BENCHMARKS else find_definition(name, include)
    if found is None or (found.path is not None and found.kind == "task"):
        return None
    if found.path is None:
        return list(found.members)
    tree = tree_of(name, include)
    assert tree.group is not None
    if _kinds(tree):
        return None
    return list(_listed_by(name, tree.group.get("task"), include))


def _listed_by(name: str, listed: Any, include: str | None) -> Iterator[str]:
    """Yields what a group without a score lists, groups within its YAML followed."""
    for entry in listed if isinstance(listed, list) else [listed]:
        if isinstance(entry, str):
            yield from members_of(entry, include) or [entry]
        elif isinstance(entry, Mapping) and "group" in entry and set(entry) <= {*GROUP_KEYS}:
            yield from _listed_by(name, entry.get("task"), include)
        else:
            raise TreeFault(
                f"the group '{name}' has no score of its own (no aggregate_metric_list) and sets "
                "its members otherwise; name its members"
            )


def _member(leaf: Leaf) -> Member:
    config = leaf.config
    if (reason := _refusal(config)) is not None:
        raise TreeFault(f"'{leaf.name}' {reason}")
    path, examples = config.get("dataset_path"), config.get("fewshot_config") or {}
    listed = isinstance(examples, Mapping) and examples.get("samples") is not None
    split = examples.get("split") if isinstance(examples, Mapping) else None
    split = split or config.get("fewshot_split")
    if split is None and not listed:  # lm-eval's preconfigured rule
        split = next((config[kind] for kind in SPLITS if config.get(kind)), None)
    shots = config.get("num_fewshot")
    local = path in LOADERS or not isinstance(path, str) or Path(path).is_dir()
    configuration = config.get("dataset_name")
    eval_split = config.get("test_split") or config["validation_split"]
    return Member(
        name=leaf.name,
        output_type=config.get("output_type", "generate_until"),
        shots=None if shots is None else int(shots),
        eval_split=eval_split,
        few_shot_split=None if shots == 0 else split,
        hub=None if local else (str(path), configuration and str(configuration)),
        columns=_columns(config),
        needs_files=DATA_BY_CODE
        if isinstance(config.get("custom_dataset"), Function)
        else (NO_DATA_SET if path is None else None),
        files=tuple(_places_of_rows(config)),
        sources=tuple(_sources(config, eval_split.partition("[")[0])),
    )


def _refusal(config: Mapping[str, Any]) -> str | None:
    """What zbench does not do of a task, as the end of a sentence; None where it does all."""
    output = config.get("output_type", "generate_until")
    if "class" in config:
        return "is a Python class of its own, not a YAML task: zbench does not run those"
    if config.get("doc_to_audio"):
        return "plays sound to a model (doc_to_audio): zbench scores texts and pictures"
    if output not in DEFAULT_METRICS:
        known = ", ".join(DEFAULT_METRICS)
        return f"has the output type '{output}', which zbench does not run (it runs {known})"
    if config.get("use_prompt"):
        return "takes its prompt from promptsource (use_prompt), which zbench does not read"
    if not config.get("test_split") and not config.get("validation_split"):
        return "has neither a test_split nor a validation_split, so that nothing can be asked"
    for key in ("doc_to_text", "doc_to_target"):
        if config.get(key) is None and not (key == "doc_to_text" and output.endswith("rolling")):
            return f"has no {key}: add it to its YAML"
    if output == "multiple_choice" and config.get("doc_to_choice") is None:
        return "has no doc_to_choice: add it to its YAML"
    return None


def _kinds(tree: Tree) -> dict[str, MetricKind]:
    """The metrics of what a name stands for, by their key: those of its group, if it is one."""
    of_tasks: dict[str, MetricKind] = {}
    for leaf in tree.leaves:
        for key, kind in _metrics(leaf.config):
            of_tasks.setdefault(key, kind)
    if tree.group is None:
        return of_tasks
    found: dict[str, MetricKind] = {}
    aggregates: Any = tree.group.get("aggregate_metric_list") or []
    for entry in aggregates if isinstance(aggregates, list) else [aggregates]:
        name, filters = str(entry["metric"]), entry.get("filter_list")
        if filters is None:
            keys = [key for key in of_tasks if key.partition(",")[0] == name]
        else:
            listed = filters if isinstance(filters, list) else [filters]
            keys = [metric_key(name, str(one)) for one in listed]
        found |= {key: of_tasks.get(key, MetricKind()) for key in keys}
    return found


def _metrics(config: Mapping[str, Any]) -> Iterator[tuple[str, MetricKind]]:
    """Yields each metric of a task under each of its filters, as lm-eval orders its results."""
    output = config.get("output_type", "generate_until")
    listed: Sequence[Mapping[str, Any]] = config.get("metric_list") or [
        {"metric": name, "aggregation": "mean" if name.startswith(("acc", "exact")) else name}
        for name in DEFAULT_METRICS[output]
    ]
    filters = [str(one["name"]) for one in config.get("filter_list") or ()] or ["none"]
    for name in filters:
        for entry in listed:
            yield metric_key(metric_name(entry), name), kind_of(entry)


def metric_key(metric: str, filter_name: str) -> str:
    """A metric's name here: with its filter, unless that is lm-eval's `none`."""
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _decoding(config: Mapping[str, Any]) -> Decoding | None:
    """How a task generates by its YAML; None of one that scores log-likelihoods."""
    if config.get("output_type", "generate_until") != "generate_until":
        return None
    given = config.get("generation_kwargs") or {}
    sizes = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    most = next((given[name] for name in sizes if given.get(name) is not None), DEFAULT_NEW_TOKENS)
    temperature = float(given.get("temperature") or 0.0)
    if given.get("do_sample") is False:
        temperature = 0.0
    return Decoding(temperature, float(given.get("top_p") or 1.0), int(most))


def _columns(config: Mapping[str, Any]) -> frozenset[str]:
    """The columns that a task's templates name; none where its code makes rows of other columns."""
    if config.get("process_docs") is not None:
        return frozenset()
    texts = [config.get(name) for name in TEMPLATES]
    plain = [text for text in texts if isinstance(text, str) and not isinstance(text, Function)]
    if not any("{{" in text or "{%" in text for text in plain):
        return frozenset()
    import jinja2
    from jinja2 import meta

    found: set[str] = set()
    for text in plain:
        try:
            found |= meta.find_undeclared_variables(jinja2.Environment().parse(text))
        except jinja2.TemplateSyntaxError as fault:
            raise TreeFault(
                f"'{config.get('task')}' has a template that is no Jinja ({fault.message}): "
                f"{text[:60]!r}"
            ) from fault
    return frozenset(found - {"range", "dict", "lipsum", "cycler", "joiner", "namespace"})


def _definition(tree: Tree, include: str | None) -> str | None:
    """The SHA-256 of all that defines tasks of one's own: their YAML, the code beside it, and the
    files of rows that they name. None where every task is lm-eval's.
    """
    own = [path for path in tree.files if include is not None and path.is_relative_to(include)]
    if not own:
        return None
    files = {one for path in own for one in files_of(path)}
    files |= {one for path in files for one in path.parent.glob("*.py")}
    files |= {
        one
        for leaf in tree.leaves
        for place in [*_places_of_rows(leaf.config), leaf.config.get("dataset_path")]
        for one in files_at(str(place))
    }
    lines = sorted(f"{one.name} {sha256_of_file(one)}\n" for one in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _places_of_rows(config: Mapping[str, Any], split: str | None = None) -> Iterator[str]:
    """Yields the local files and folders that a task's YAML names in `dataset_kwargs`, those of a
    split alone where it names files by split."""
    settings = config.get("dataset_kwargs")
    if config.get("dataset_path") not in LOADERS or not isinstance(settings, Mapping):
        return
    folder, named = str(settings.get("data_dir") or ""), settings.get("data_files") or ""
    if isinstance(named, Mapping) and split in named:
        named = named[split]
    for listed in named.values() if isinstance(named, Mapping) else [named]:
        for place in listed if isinstance(listed, list) else [listed]:
            if "://" not in f"{folder}{place}" and f"{folder}{place}":
                yield str(Path(folder, str(place)))


def _sources(config: Mapping[str, Any], split: str) -> Iterator[Source]:
    """Yields where the rows of a task's split come from."""
    path, part = config.get("dataset_path"), config.get("dataset_name")
    if path in LOADERS:
        for place in _places_of_rows(config, split):
            files = files_at(place) or [Path(place)]
            yield from ((str(one.expanduser().absolute()), None, None) for one in files)
    elif isinstance(path, str):
        place = str(Path(path).absolute()) if Path(path).is_dir() else path
        yield place, None if part in (None, "all", "default") else str(part), split


def files_at(place: str) -> list[Path]:
    """The files that a place names: a file, a folder's, or those of a pattern with `*`."""
    path = Path(place).expanduser()
    if path.is_dir():
        return sorted(one for one in path.rglob("*") if one.is_file())
    if "*" in place:
        return sorted(Path(one) for one in glob(str(path), recursive=True) if Path(one).is_file())
    return [path] if path.is_file() else []
