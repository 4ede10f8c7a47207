"""What differs between two results that can move a score: pure functions of their records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.records.results import CellResult
from harness.records.scores import TaskScore, evaluations

NOT_RECORDED = "not recorded"
SHOWN_DIGITS = 12
"""Digits of a SHA-256 or commit that are shown."""

Moves = Literal["score", "low bits"]
"""What a difference can do: move a score, or only the low bits of log-likelihoods, which turns an
item over where two answers are all but equal."""
Part = Literal["cell", "base model", "training", "evaluation"]

FIELDS = {
    "protocol": "protocol",
    "task_version": "task version",
    "shots": "shots",
    "limit": "limit",
    "form": "form of the prompts",
    "definition": "definition of the task",
    "prompts_sha256": "prompts",
    "tokenizer_sha256": "tokenizer",
    "bos": "BOS",
    "temperature": "temperature",
    "precision": "precision",
    "token_budget": "token budget",
    "fallback": "not over the trie, because",
    "scored_with": "scored together with",
    "lm_eval_version": "lm-eval",
    "note": "note",
}
"""What counts of a score: its fields, and what they are called."""
ENVIRONMENT = ("transformers", "tokenizers", "peft", "torch", "device")
"""What counts of an environment; a score has its own version of lm-eval."""
LOW_BITS = {FIELDS[name] for name in ("token_budget", "fallback", "scored_with")}
LOW_BITS |= {"torch", "device"}
"""What moves low bits alone."""
NONE_MEANS_NONE = {
    "limit": "all items",
    "fallback": "nothing",
    "note": "nothing",
    "temperature": "nothing is drawn",
    "form": "plain",
    "definition": "lm-eval's",
}
"""Fields that hold None where there is nothing, not where nothing was recorded."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in both."""

    part: Part
    what: str
    first: str
    second: str
    moves: Moves = "score"
    benchmarks: tuple[str, ...] = ()
    """Benchmarks whose scores an evaluation's difference concerns."""
    pairs: str = ""
    """How many of several pairs of results it concerns, where it does not concern all."""


@dataclass(frozen=True)
class Request:
    """The scores of one evaluation of one benchmark, and what it was made with."""

    key: str
    scores: tuple[TaskScore, ...]
    environment: Mapping[str, Any]

    @property
    def evaluation(self) -> str:
        """Its name: the request's key, and which items were asked."""
        return self.scores[0].evaluation

    @property
    def benchmark(self) -> str:
        """The name in the grid."""
        return self.scores[0].benchmark

    def score(self, metric: str) -> TaskScore | None:
        """The benchmark's own score by a metric."""
        wanted = (self.benchmark, metric)
        return next((one for one in self.scores if (one.task, one.metric) == wanted), None)


def requests_of(result: CellResult) -> list[Request]:
    """Evaluations of a result, in order."""
    # Scores of an untrained model may be older than the record of each evaluation's own.
    made_in, default = result.evaluation_environments, {} if result.train else result.environment
    return [
        Request(scores[0].key, scores, made_in.get(scores[0].evaluation, default))
        for scores in evaluations(result.scores)
    ]


def pair_requests(
    first: Sequence[Request], second: Sequence[Request]
) -> tuple[list[tuple[Request, Request]], list[Request], list[Request]]:
    """Evaluations that answer each other, and those that only one has.

    Of one benchmark the very same request on the same items comes first, then on others, then one
    of the same protocol, shots and limit, then any.
    """
    rules = (
        lambda a, b: a.key == b.key and a.scores[0].same_items(b.scores[0]),
        lambda a, b: a.key == b.key,
        lambda a, b: _settings(a) == _settings(b),
        lambda a, b: True,
    )
    left, right = list(first), list(second)
    pairs = []
    for rule in rules:
        for one in list(left):
            for other in reversed(right):  # the last one made
                if one.benchmark == other.benchmark and rule(one, other):
                    pairs.append((one, other))
                    left.remove(one)
                    right.remove(other)
                    break
    pairs.sort(key=lambda pair: first.index(pair[0]))
    return pairs, left, right


def _settings(request: Request) -> tuple[str, int, int | None]:
    score = request.scores[0]
    return score.protocol, score.shots, score.limit


def _differ(
    part: Part, what: str, first: Any, second: Any, none: str = NOT_RECORDED
) -> list[Difference]:
    """The difference between two values, if there is one."""
    if first == second:
        return []
    moves: Moves = "low bits" if what in LOW_BITS else "score"
    return [Difference(part, what, _text(first, none), _text(second, none), moves)]


def cell_differences(first: CellResult, second: CellResult) -> list[Difference]:
    """What differs between two cells as such: what was trained, on what, and with what."""
    contents = [each.train and each.train.data_content_sha256 for each in (first, second)]
    # Where both recorded the rows' content, that is compared, and not how their ids name it.
    skipped = {"data.path", "data.sha256"} if None not in contents else set()
    found = _record_differences(first.cell, second.cell, skipped)
    found += _differ("base model", "weights", _weights(first.base), _weights(second.base))
    for key, what in (("tokenizer_sha256", "tokenizer"), ("precision", "precision")):
        found += _differ("base model", what, first.base.get(key), second.base.get(key))
    one, other = first.train, second.train
    if one is None or other is None:
        return found
    drawn_alike = all(first.cell.get(key) == second.cell.get(key) for key in ("fraction", "seed"))
    if drawn_alike and one.data_sha256 != other.data_sha256:
        found += _differ("training", "rows trained on", one.data_sha256, other.data_sha256)
    else:
        found += _differ("training", "data", one.data_content_sha256, other.data_content_sha256)
    found += _differ("training", "precision", one.precision, other.precision)
    for name in ENVIRONMENT:
        if name != "tokenizers":
            one_value, other_value = first.environment.get(name), second.environment.get(name)
            found += _differ("training", name, one_value, other_value)
    return found


def _record_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], skipped: set[str]
) -> list[Difference]:
    found = []
    one, other = dict(flatten(first)), dict(flatten(second))
    for name in dict.fromkeys([*one, *other]):
        section = name.partition(".")[0]
        if name in skipped:
            continue
        if section in ("train", "data") and None in (first.get(section), second.get(section)):
            continue  # one of the two is not trained, which its method says
        if section == "options" and first.get("method") != second.get("method"):
            continue  # another method's
        what = name.removeprefix("options.")
        found += _differ("cell", what, one.get(name), other.get(name), none="none")
    return found


def flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a nested record, each with its dotted name."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _weights(base: Mapping[str, Any]) -> str | None:
    for key, kind in (("weights_sha256", "SHA-256"), ("commit", "commit")):
        if base.get(key):
            return f"{kind} {_text(base[key])}"
    return None


def request_differences(pair: tuple[Request, Request]) -> list[Difference]:
    """What differs between two evaluations of one benchmark."""
    one, other = (request.scores[0] for request in pair)
    found: list[Difference] = []
    for field, what in FIELDS.items():
        none = NONE_MEANS_NONE.get(field, NOT_RECORDED)
        found += _differ("evaluation", what, getattr(one, field), getattr(other, field), none)
    found += _data_differences(one, other)
    metrics = [list(dict.fromkeys(score.metric for score in request.scores)) for request in pair]
    if set(metrics[0]) != set(metrics[1]):
        found += _differ("evaluation", "metrics", metrics[0], metrics[1])
    for name in ENVIRONMENT:
        one_value, other_value = (request.environment.get(name) for request in pair)
        found += _differ("evaluation", name, one_value, other_value)
    # What makes another request key.
    in_key = {"protocol", "shots", "limit", "metrics", "token budget", "temperature", "lm-eval"}
    in_key |= {FIELDS["form"], FIELDS["definition"]}
    if not any(difference.what in in_key for difference in found):
        what = "zbench's evaluation recipe (request key)"
        found += _differ("evaluation", what, pair[0].key, pair[1].key)
    return [replace(entry, benchmarks=(pair[0].benchmark,)) for entry in found]


def _data_differences(one: TaskScore, other: TaskScore) -> list[Difference]:
    """Content decides where it is known; a file's own SHA-256 tells copies apart that are equal."""
    a, b = one.content_sha256, other.content_sha256
    if None in (a, b):
        a, b = one.data_sha256, other.data_sha256
    if a == b:
        return []
    sources = f"{one.data_source}: {_text(a)}", f"{other.data_source}: {_text(b)}"
    return _differ("evaluation", "data", *sources)


def merge(differences: Sequence[Difference]) -> list[Difference]:
    """Differences, with those that several benchmarks share given once."""
    merged: dict[Difference, dict[str, None]] = {}
    for difference in differences:
        names = merged.setdefault(replace(difference, benchmarks=()), {})
        names |= dict.fromkeys(difference.benchmarks)
    return [replace(entry, benchmarks=tuple(names)) for entry, names in merged.items()]


MOST_VALUES = 4
"""Values of one field that are told of the results of a group."""


def merge_pairs(found: Sequence[Sequence[Difference]]) -> list[Difference]:
    """Differences of several pairs of results, each told once, with all values that a side has."""
    if len(found) == 1:
        return list(found[0])
    merged: dict[tuple[str, str, tuple[str, ...]], list[Difference]] = {}
    for differences in found:
        for one in differences:
            merged.setdefault((one.part, one.what, one.benchmarks), []).append(one)
    return [
        replace(
            same[0],
            first=_values(one.first for one in same),
            second=_values(one.second for one in same),
            pairs="" if len(same) == len(found) else f"{len(same)} of {len(found)} pairs",
        )
        for same in merged.values()
    ]


def _values(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(texts))
    more = f" and {len(found) - MOST_VALUES} more" if len(found) > MOST_VALUES else ""
    return ", ".join(found[:MOST_VALUES]) + more


def unknown_of(pairs: Sequence[tuple[Request, Request]]) -> list[str]:
    """What neither of two results recorded, so that nothing can be said of it."""
    found: list[str] = []
    for pair in pairs:
        one, other = (request.scores[0] for request in pair)
        # Responses are generated without a budget of tokens.
        without = {"token_budget"} if one.temperature is not None else set()
        found += [
            what
            for field, what in FIELDS.items()
            if field not in NONE_MEANS_NONE.keys() | without
            and getattr(one, field) is None is getattr(other, field)
        ]
        made_in = [request.environment for request in pair]
        found += [key for key in ENVIRONMENT if all(each.get(key) is None for each in made_in)]
    return list(dict.fromkeys(found))


def _text(value: Any, none: str = NOT_RECORDED) -> str:
    if value is None:
        return none
    if isinstance(value, tuple | list):
        return " + ".join(map(str, value)) or "nothing"
    text = str(value)
    is_digest = len(text) in (40, 64) and all(digit in "0123456789abcdef" for digit in text)
    return text[:SHOWN_DIGITS] if is_digest else text
