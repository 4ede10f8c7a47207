"""Templates in a grid: what they are part of, and what is refused before anything runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.data.jinja import DATE_STRING
from harness.data.spec import DataSpec
from harness.errors import DataError, GridError, ModelError, UsageError
from harness.estimate.lengths import known_losses
from harness.estimate.tokens import token_counter
from harness.grid.inputs import DataInput
from harness.grid.loader import load_grid
from harness.grid.schema import Cell
from harness.grid.status import read_states
from harness.grid.text_checks import check_rows
from harness.grid.workspace import OpenGrid, open_grid, open_to_run
from harness.records.events import Event, Warned
from harness.records.results import CellResult
from tests.fixtures.chat_models import write_chat_model
from tests.fixtures.picture_files import PNG

CHATS = [
    [["user", f"What is {n}?"], ["assistant", f"It is {n}."], ["user", "And then?"],
     ["assistant", f"Then {n + 1}, " * (n + 1)]]
    for n in range(12)
]  # fmt: skip
TABLE = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}!"} for n in range(12)]


def write_lines(path: Path, rows: list[object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def messages(turns: list[list[str]]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for kind in ("qwen3", "llama3", "mistral"):
        write_chat_model(tmp_path / kind, kind)
    write_lines(tmp_path / "chats.jsonl", [messages(turns) for turns in CHATS])
    write_lines(tmp_path / "table.jsonl", list(TABLE))
    (tmp_path / "q.jinja").write_text("Q: {{ instruction }}\n\nA:{% generation %} {{ output }}"
                                      "{% endgeneration %}")  # fmt: skip
    return tmp_path


def write_grid(root: Path, kind: str = "qwen3", max_length: int = 512, **data: object) -> str:
    sizes = json.loads((root / kind / "config.json").read_text())
    names = ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size",
             "num_attention_heads", "num_key_value_heads", "head_dim")  # fmt: skip
    grid = {
        "name": "study",
        "models": {"m": {"path": str(root / kind), "shape": {key: sizes[key] for key in names}}},
        "data": {"path": str(root / "chats.jsonl"), **data},
        "train": {"epochs": 1, "batch_size": 4, "max_length": max_length, "learning_rate": 1e-3,
                  "warmup_steps": 0},
        "tasks": ["arc_easy"],
        "blocks": [{"methods": [{"method": "lora", "rank": 2}]}],
    }  # fmt: skip
    (root / "g.yaml").write_text(yaml.safe_dump(grid))
    return str(root / "g.yaml")


def opened(root: Path, kind: str = "qwen3", **data: object) -> OpenGrid:
    return open_to_run(write_grid(root, kind, **data), root / "runs", None, None)


def cell_in(root: Path, kind: str = "qwen3", **data: object) -> Cell:
    (cell,) = open_grid(write_grid(root, kind, **data), root / "runs", None, None).cells
    return cell


def test_template_and_system_are_in_the_id_where_they_are_stated(study: Path) -> None:
    table = str(study / "table.jsonl")
    plain = cell_in(study, path=table)
    assert not {"template", "system"} & set(plain.data.model_dump())
    assert cell_in(study, path=table, template="alpaca").id == plain.id
    others = [
        cell_in(study, path=table, **stated)
        for stated in (
            {"template": "chat"},
            {"template": "q.jinja"},
            {"template": "chat", "system": "Be brief."},
        )
    ]
    assert len({plain.id, *(cell.id for cell in others)}) == 4
    assert plain.former_ids
    assert not others[0].former_ids


def test_a_jinja_file_is_its_content_and_not_its_path(study: Path) -> None:
    table = str(study / "table.jsonl")
    cell = cell_in(study, path=table, template="q.jinja")
    (study / "other").mkdir()
    (study / "q.jinja").rename(study / "other" / "moved.txt")
    moved = cell_in(study, path=table, template="other/moved.txt")
    assert moved.id == cell.id
    stored = Cell.model_validate_json(cell.model_dump_json(serialize_as_any=True))
    assert (stored.id, stored.data.template) == (cell.id, cell.data.template)
    (study / "q.jinja").write_text("{{ instruction }} {{ output }}")
    assert cell_in(study, path=table, template="q.jinja").id != cell.id


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"template": "chatt"}, r"g\.yaml: data\.template: .*did you mean 'chat'"),
        ({"template": "chats.jsonl"}, r"data\.template: .*holds no \{\{ \}\}"),
        ({"template": "{% if %}"}, r"data\.template: line 1 of the template"),
        ({"template": "alpaca", "system": "a"}, "system has no place in template alpaca"),
    ],
)
def test_a_template_with_a_fault_is_one_line(study: Path, data: dict[str, str], said: str) -> None:
    with pytest.raises(GridError, match=said) as fault:
        load_grid(write_grid(study, **data))
    assert len(fault.value.faults) == 1


def test_a_model_without_chat_template_is_told_before_anything_runs(study: Path) -> None:
    (study / "qwen3" / "chat_template.jinja").unlink()
    for data in ({}, {"path": str(study / "table.jsonl"), "template": "chat"}):
        with pytest.raises(UsageError, match=r"models\.m: .*no chat template") as fault:
            opened(study, **data)
        assert "\n" not in str(fault.value)
    assert opened(study, path=str(study / "table.jsonl")).cells


@pytest.mark.parametrize(
    ("kind", "turns", "said"),
    [
        ("mistral", [["system", "a"], ["user", "b"], ["assistant", "c"]], "Roles must alternate"),
        ("qwen3", [["user", "b\U000ff1a4"], ["assistant", "c"]], "private use"),
    ],
)
def test_a_row_that_a_template_refuses_is_told_before_anything_runs(
    study: Path, kind: str, turns: list[list[str]], said: str
) -> None:
    rows = [messages(one) for one in (*CHATS[:5], turns, *CHATS[5:])]
    write_lines(study / "chats.jsonl", list(rows))
    with pytest.raises(UsageError, match=rf"data: row 5 \(the first is 0\): .*{said}") as fault:
        opened(study, kind)
    assert "\n" not in str(fault.value)
    said = r"data \(rows that are left out or dropped are not counted\): row 4 \(the first is 0\): "
    with pytest.raises(UsageError, match=said):
        opened(study, kind, where=f"messages[0].content != {CHATS[0][0][1]!r}")


def test_the_date_of_a_template_is_told(study: Path) -> None:
    assert any(DATE_STRING in note for note in opened(study, "llama3").inputs.notes)
    assert not opened(study, "qwen3").inputs.notes


@pytest.mark.parametrize("kind", ["qwen3", "llama3"])
def test_conversations_train_and_what_is_cut_is_counted(
    study: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cell.run.score_cell", lambda *given: given[-1])
    cell = cell_in(study, kind, max_length=120)
    counted = token_counter(runs_dir=study / "runs", data_root=None, num_rows={None: 12})(cell)
    assert counted is not None
    note = known_losses(study / "runs", None)(cell)
    events: list[Event] = []
    settings = RunSettings(runs_dir=study / "runs", data_root=study)
    result = run_cell(cell, settings, events.append)
    assert result.train is not None
    assert result.train.cut_examples == counted.cut > 0
    assert f"{counted.cut} of 12 examples are cut" in str(note)
    assert note in str(result.train.note)
    assert result.train.tokens == counted.tokens
    assert len(str(result.train.chat_template_sha256)) == 64
    assert [
        state.status for state in read_states([cell], runs_dir=study / "runs", data_root=None)
    ] == ["to do"]  # scores are lacking
    file = study / kind / "chat_template.jinja"
    file.write_text(file.read_text() + "{# other #}")
    (state,) = read_states([cell], runs_dir=study / "runs", data_root=None)
    assert state.status == "stale"
    assert "the chat template in" in str(state.fault)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert any(DATE_STRING in message for message in told) == (kind == "llama3")


def test_a_model_without_chat_template_is_told_when_it_is_loaded(study: Path) -> None:
    cell = cell_in(study)
    (study / "qwen3" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        run_cell(cell, RunSettings(runs_dir=study / "runs", data_root=study), lambda event: None)


def test_counting_in_a_plan_needs_no_transformers(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = cell_in(study, max_length=120)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "are cut" in str(known_losses(study / "runs", None)(cell))


@pytest.mark.parametrize("kind", ["qwen3", "llama3"])
def test_rows_that_are_cut_are_kept_dropped_or_refused_as_stated(
    study: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cell.run.score_cell", lambda *given: given[-1])

    def trained(policy: str | None) -> tuple[str, CellResult]:
        stated = {} if policy is None else {"on_bad_rows": policy}
        cell = cell_in(study, kind, max_length=120, **stated)
        settings = RunSettings(runs_dir=study / "runs" / str(policy), data_root=study)
        return cell.id, run_cell(cell, settings, lambda event: None)

    (kept, whole), (dropped, short) = trained(None), trained("drop")
    assert whole.train is not None
    assert short.train is not None
    assert kept != dropped
    assert cell_in(study, kind, max_length=120, on_bad_rows="keep").id == kept
    assert (
        cell_in(study, kind, max_length=4096, on_bad_rows="drop").id
        == cell_in(study, kind, max_length=4096).id
    )
    cut = whole.train.cut_examples
    assert (short.train.lost_examples, short.train.cut_examples) == (cut, 0)
    assert f"{cut} of 12 examples are longer than max_length and dropped" == short.train.note
    assert short.train.examples == whole.train.examples - cut > 0
    assert short.train.weights_sha256 != whole.train.weights_sha256
    with pytest.raises(DataError, match=rf"data: {cut} of 12 rows are cut .*\(rows \d+, \d+"):
        trained("fail")
    assert cell_in(study, kind, max_length=120, on_bad_rows="fail").id == kept


QUESTION = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": ""}


@pytest.mark.parametrize(
    ("image", "columns", "takes", "said"),
    [
        (PNG, None, True, []),
        (PNG, None, False,
         ["data: 1 of 2 rows have a picture, and no method has an `image_encoder`: the texts alone "
          "are trained on"]),
        (None, None, False, []),
        (None, None, True, ["data: a method has an `image_encoder`, and no row has a picture"]),
        (None, {"question": "question"}, True,
         ["data: a method has an `image_encoder`, and no row has a picture; map it by `columns: "
          "{image: ...}`"]),
    ],
)  # fmt: skip
def test_pictures_that_nothing_looks_at_are_told_and_those_that_are_not_there(
    tmp_path: Path, image: object, columns: object, takes: bool, said: list[str]
) -> None:
    write_lines(tmp_path / "rows.jsonl", [QUESTION, QUESTION | {"image": image}])
    spec = DataSpec.model_validate({"path": str(tmp_path / "rows.jsonl"), "columns": columns})
    assert check_rows(DataInput(None, spec, [1.0], ["m"], takes), None) == said


@pytest.mark.parametrize(
    ("template", "row", "said"),
    [
        (
            "alpaca",
            QUESTION,
            "template alpaca is for rows of the form instruction, and these are o",
        ),
        ("scienceqa", TABLE[0], "template scienceqa is for rows of the form scienceqa, and these"),
        ("scienceqa-qcm-ale", TABLE[0], "template scienceqa-qcm-ale is for rows of the form scie"),
    ],
)
def test_a_template_of_another_form_is_refused_before_anything_runs(
    study: Path, template: str, row: object, said: str
) -> None:
    write_lines(study / "rows.jsonl", [row])
    with pytest.raises(UsageError, match=f"data: {said}"):
        open_to_run(
            write_grid(study, path=str(study / "rows.jsonl"), template=template),
            study / "runs", None, None,
        )  # fmt: skip
