"""Which of a cell's scores are shown, where it was scored on several versions of the items.

Scores of one request on other items stand side by side in a result. Shown are those of the data
root's items where it has them; else those of the pinned version, else the first, with a note.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.data.pins import pins
from harness.errors import ZbenchError
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.data_versions import local_contents, pinned_content, task_content_sha256
from harness.evaluation.task_data import data_fingerprint
from harness.evaluation.tasks import TaskSpec
from harness.records.results import CellResult
from harness.records.scores import TaskScore, evaluations

NOT_SHOWN = "a picture that the model was not shown: it has no image encoder"
"""How the note ends of a score on items with pictures of a method that takes none. That is no
deviation: the benchmark asks it the same."""
OTHER_ITEMS = "scored on other items too"
"""How the note of a score begins that stands for several."""


@dataclass
class Items:
    """The items that a data root holds for a task; what they are is found out when asked."""

    task: TaskSpec
    data_root: Path | None
    file_sha256: str
    _content: str | None = None

    @property
    def content_sha256(self) -> str:
        """The identity of their content; the empty text where the files cannot be read."""
        if self._content is None:
            try:
                self._content = task_content_sha256(local_contents(self.task, self.data_root))
            except ZbenchError:
                self._content = ""
        return self._content

    def answer(self, score: TaskScore) -> bool:
        """Whether a score was made on these items: of the same file, or the same content."""
        if score.data_sha256 == self.file_sha256:
            return True
        return score.content_sha256 is not None and score.content_sha256 == self.content_sha256


def items_under(task: TaskSpec, data_root: Path | None) -> Items | None:
    """The items of a task under a data root; None where it holds none."""
    try:
        sha256 = data_fingerprint(task, data_root)
    except (ZbenchError, OSError):  # the run itself tells what is wrong with them
        return None
    return None if sha256 is None else Items(task, data_root, sha256)


ItemsOf = Callable[[TaskSpec], Items | None]


def shown_result(
    result: CellResult, tasks: Sequence[TaskSpec] = (), items_of: ItemsOf = lambda _task: None
) -> CellResult:
    """The result with one evaluation of each request: see this module.

    Args:
        result: with all that was measured.
        tasks: what a grid asks for; of those `items_of` gives the data root's items.
        items_of: the items of a task that are here.
    """
    asked = {task.name: task for task in tasks}
    requests: dict[tuple[str, str], list[tuple[TaskScore, ...]]] = {}
    for scores in evaluations(result.scores):
        requests.setdefault((scores[0].benchmark, scores[0].key), []).append(scores)
    shown: list[TaskScore] = []
    for (benchmark, _), found in requests.items():
        task = asked.get(benchmark)
        items = None if task is None else items_of(_like(task, found[0][0]))
        if items is not None:
            shown += next((scores for scores in found if items.answer(scores[0])), ())
        elif len(found) == 1:
            shown += found[0]
        else:
            shown += _chosen(found)
    return result if len(shown) == len(result.scores) else replace(result, scores=tuple(shown))


def _like(task: TaskSpec, score: TaskScore) -> TaskSpec:
    """The task with the shots of a score, on which depends which files are read."""
    return task if task.num_shots == score.shots else task.model_copy(update={"shots": score.shots})


def _chosen(found: Sequence[tuple[TaskScore, ...]]) -> tuple[TaskScore, ...]:
    """The evaluation on the pinned items, else the first, with a note that there are others."""
    chosen = next((scores for scores in found if is_pinned(scores[0])), found[0])
    others = ", ".join(items_name(scores[0]) for scores in found if scores is not chosen)
    which = "the pinned ones" if is_pinned(chosen[0]) else f"the first, {items_name(chosen[0])}"
    note = f"{OTHER_ITEMS} ({others}); these are {which}: --data-root chooses"
    return tuple(
        replace(score, note=f"{score.note}; {note}" if score.note else note) for score in chosen
    )


def items_name(score: TaskScore) -> str:
    """The items of a score by the first digits of their SHA-256."""
    return str(score.content_sha256 or score.data_sha256)[:12]


def is_pinned(score: TaskScore) -> bool:
    """Whether a score was made on the pinned version of its items."""
    benchmark = BENCHMARKS.get(score.benchmark)  # no other has a pin
    if benchmark is None or benchmark.hub is None:
        return False
    if score.content_sha256 is not None:
        return score.content_sha256 == pinned_content(benchmark, score.shots)
    files = list(benchmark.split_files(score.shots).values())  # of an older version
    pin = pins().get(files[0]) if len(files) == 1 else None
    return pin is not None and score.data_sha256 == pin.file_sha256
