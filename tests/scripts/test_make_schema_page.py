"""docs/results.md is what the code says, and says all that is logged."""

from __future__ import annotations

import re
from dataclasses import fields

import yaml

from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.records.events import StepDone
from harness.records.results import CellError, CellResult, TrainResult
from harness.records.scores import TaskScore
from harness.tracking.metrics import cell_params, result_metrics, step_metrics
from scripts.make_schema_page import METRICS, PAGE, PARAMS, ROOT, TAGS, fields_of, page
from tests.grid.test_loader import GRID
from tests.records.test_results import RESULT


def is_known(name: str, known: dict[str, str]) -> bool:
    """Whether a name is in a table; `*` stands for any text, `<...>` for any without a slash."""
    patterns = (re.sub(r"<[^>]*>", "[^/]+", one).replace("*", ".+") for one in known)
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_field_of_a_record_is_there_with_its_meaning() -> None:
    for record in (CellResult, TrainResult, TaskScore, CellError):
        file = record.__module__.removeprefix("harness.").replace(".", "/") + ".py"
        rows = list(fields_of(file, record.__name__))
        stored = [name.replace("response_flags", "pathologies") for name in names_of(record)]
        assert [name for name, _, _ in rows] == stored
        assert all(text for _, _, text in rows), rows
    rows = list(fields_of("grid/cells.py", "Cell"))
    assert [name for name, _, _ in rows] == list(Cell.model_fields)
    assert all(text for _, _, text in rows), rows


def names_of(record: type) -> list[str]:
    return [entry.name for entry in fields(record)]


def test_every_name_that_is_logged_is_on_the_page() -> None:
    cell = expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))[1]
    assert all(is_known(name, PARAMS) for name in cell_params(cell))
    assert not is_known("another", PARAMS)
    step = StepDone("", 1, 0, 1.0, 0.1, 5.0, 1, {"gate/mean_abs": 0.1, "prompt/gradient_norm": 0.1})
    metrics = [*result_metrics(RESULT), *step_metrics(step)]
    assert len(metrics) > 8
    for metric in metrics:
        assert is_known(metric.key.removesuffix("_stderr"), METRICS), metric.key


def test_every_tag_that_is_written_is_on_the_page() -> None:
    written = {
        f"{tag}*" if tag.endswith(".") else tag
        for path in (ROOT / "harness" / "tracking").glob("*.py")
        for tag in re.findall(r'"(zbench\.[a-z_.]+)"', path.read_text(encoding="utf-8"))
    }
    assert "zbench.cell_id" in written
    assert written <= set(TAGS)
