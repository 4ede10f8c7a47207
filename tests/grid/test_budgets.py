"""`match` in a grid: the cells that it makes, and what is told of budgets."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import GridError
from harness.grid.budgets import budget_notes
from harness.grid.loader import load_grid
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, GridSpec, expand
from harness.methods import METHODS

SHAPES = {
    "small": {"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128,
              "num_attention_heads": 4, "vocab_size": 61},
    "large": {"num_hidden_layers": 8, "hidden_size": 256, "intermediate_size": 512,
              "num_attention_heads": 4, "vocab_size": 61},
}  # fmt: skip


def grid(methods: dict[str, Any], **keys: Any) -> GridSpec:
    raw = {
        "name": "mine",
        "models": {name: {"source": f"x/{name}", "shape": shape} for name, shape in SHAPES.items()},
        "data": {"source": "tatsu-lab/alpaca", "num_rows": 52002},
        "tasks": ["arc_easy"],
        "methods": methods,
        "blocks": [{"methods": ["lora", *(name for name in methods if name != "lora")]}],
    }
    return resolve_grid(raw | keys, place="mine.yaml")


def test_each_model_gets_its_own_size_and_the_id_of_one_written_by_hand() -> None:
    matched = expand(grid({"vera": {"match": {"params": "lora"}}}))
    ranks = {cell.model_name: cell.options.rank for cell in matched if cell.method == "vera"}  # type: ignore[attr-defined]
    assert ranks["small"] != ranks["large"]
    by_hand = {
        cell.model_name: cell.id
        for model in SHAPES
        for cell in expand(grid({"vera": {"rank": ranks[model]}}))
        if cell.method == "vera" and cell.model_name == model
    }
    assert {cell.model_name: cell.id for cell in matched if cell.method == "vera"} == by_hand


def test_what_was_chosen_is_told() -> None:
    notes = budget_notes(grid({"lora": {}, "vera": {"match": {"params": "lora"}}}))
    assert notes[0].startswith("small/vera: matched to rank ")
    assert notes[0].endswith(" than 8,192")
    assert notes[1].startswith("large/vera: matched to rank ")


def test_unequal_budgets_are_told_where_the_grid_asks() -> None:
    methods = {"prompt-tuning": {}, "dora": {"rank": 4}}
    assert budget_notes(grid(methods)) == []
    small, _, training = budget_notes(grid(methods, budgets=True))
    assert small == (
        "Budgets on small: 6,400 trained parameters (prompt-tuning) to 19,712 (dora), 3.08 times "
        "as many"
    )
    assert training == (
        "Training is not the same for all methods: epochs 1 (dora), 3 (lora), 5 (prompt-tuning); "
        "batch 16 (dora), 64 (prompt-tuning), 128 (lora); longest sequence 256 (lora), 512 "
        "(prompt-tuning, dora)"
    )
    alike = {"epochs": 1, "batch_size": 8, "max_length": 256}
    *_, training = budget_notes(grid(methods, budgets=True, train=alike))
    assert training.startswith("Training is the same for all methods")


def test_a_length_in_steps_stands_beside_those_in_epochs() -> None:
    methods = {"dora": {"train": {"max_steps": 10}}, "lora": {}}
    *_, training = budget_notes(grid(methods, budgets=True))
    assert "epochs 3 (lora), max_steps 10 (dora)" in training
    *_, training = budget_notes(
        grid(
            {"dora": {}}, budgets=True, train={"max_steps": 10, "batch_size": 8, "max_length": 256}
        )
    )
    assert training.startswith("Training is the same for all methods")


def test_a_length_in_steps_replaces_the_recipes_epochs_and_is_in_the_id() -> None:
    def cell(**keys: Any) -> Cell:
        found = grid(**{"methods": {"lora": {}}} | keys)
        return next(one for one in expand(found) if one.model_name == "small")

    steps = cell(train={"max_steps": 10})
    assert steps.train is not None
    assert (steps.train.epochs, steps.train.max_steps) == (None, 10)
    assert steps.record()["train"]["max_steps"] == 10
    assert len({steps.id, cell().id, cell(train={"max_steps": 11}).id}) == 3
    assert "max_steps" not in cell().record()["train"]
    own = cell(train={"max_steps": 10}, methods={"lora": {"train": {"epochs": 3}}})
    assert own.id == cell().id
    assert Cell.model_validate(steps.model_dump()).id == steps.id


def test_both_lengths_are_one_line() -> None:
    with pytest.raises(GridError, match="train: set exactly one of epochs and max_steps"):
        grid({"lora": {}}, train={"epochs": 2, "max_steps": 10})
    with pytest.raises(GridError, match="train.max_steps: must be at least 1"):
        grid({"lora": {}}, train={"max_steps": 0})


@pytest.mark.parametrize(
    ("methods", "line"),
    [
        ({"ia3": {"match": {"params": "1M"}}}, "small with ia3: match: 'ia3' has no option of si"),
        ({"dora": {"match": {"params": "lroa"}}}, "small with dora: match.params: no method 'lroa' "
         "in the grid's blocks; did you mean 'lora'?"),
        ({"dora": {"match": {"params": "vera"}}, "vera": {"match": {"params": "dora"}}},
         "small with dora: match.params: dora -> vera -> dora is a circle"),
        ({"dora": {"match": {"parms": "1M"}}}, "methods.dora.match.parms: unknown key; did you"),
        ({"dora": {"match": {"params": "4Q"}}}, "methods.dora.match.params: must be a number of"),
        ({"dora": {"match": {"params": "90M"}}}, "small with dora: match: no size of 'dora'"),
    ],
)  # fmt: skip
def test_a_match_that_cannot_be_is_one_line(methods: dict[str, Any], line: str) -> None:
    with pytest.raises(GridError) as found:
        grid(methods)
    assert any(fault.startswith(f"mine.yaml: {line}") for fault in str(found.value).splitlines())


def test_a_match_that_chooses_another_entry_is_told() -> None:
    """Else the two were one cell, and one name missing in every table."""
    methods = {"lora": {"rank": 8}, "twin": {"method": "lora", "match": {"params": "lora"}}}
    with pytest.raises(GridError) as found:
        grid(methods)
    assert found.value.faults == tuple(
        f"mine.yaml: methods 'lora' and 'twin' are one cell on {model}: `match` chose what the "
        "other has; keep one"
        for model in SHAPES
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"peft_type": "LOHA"}, "LOHA reads the base's weights"),
        ({"peft_type": "LORA", "init_lora_weights": "pissa"}, "init_lora_weights: pissa reads the"),
        ({"peft_type": "LORA"}, None),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 4}, None),
    ],
)
def test_a_type_that_reads_weights_is_refused_on_a_quantised_base(
    entry: dict[str, Any], said: str | None
) -> None:
    methods = {"lora": {}, "mine": {"peft": entry, "train": {"base_quantization": "nf4"}}}
    if said is None:
        assert grid(methods)
        return
    with pytest.raises(GridError) as found:
        grid(methods)
    assert len(found.value.faults) == len(SHAPES)
    assert all(f"with mine: train.base_quantization: {said}" in one for one in found.value.faults)


def test_both_parts_of_muon_are_counted() -> None:
    methods = {"dora": {"rank": 4, "train": {"optimizer": "muon"}}}
    small, large = budget_notes(grid(methods))
    assert small == "small/dora: Muon trains 17,408 parameters (matrices), AdamW 2,304"
    assert large.startswith("large/dora: Muon trains ")


def test_an_optimizer_that_cannot_be_sharded_is_refused() -> None:
    methods = {"full": {"train": {"optimizer": "muon"}}}
    with pytest.raises(GridError, match="full: train.optimizer: Muon needs whole matrices, which"):
        grid(methods, gpus_per_cell=2)
    assert grid({"full": {"train": {"optimizer": "sgd"}}}, gpus_per_cell=2)


def test_an_optimizer_and_wsd_are_in_the_id_where_they_are_stated() -> None:
    def ids(**train: Any) -> set[str]:
        return {cell.id for cell in expand(grid({"lora": {"train": train}}))}

    assert ids(optimizer="adamw") == ids()
    assert ids(optimizer="muon") == ids(optimizer={"name": "Muon", "momentum": 0.95})
    assert not ids(optimizer="muon") & ids()
    assert not ids(schedule="wsd") & ids(schedule="wsd", decay_ratio=0.2)


def test_all_faults_of_an_optimizer_have_their_places() -> None:
    with pytest.raises(GridError) as found:
        grid({"lora": {"train": {"optimizer": {"name": "sgd", "momentun": 0.9, "lr": 1}}}})
    lines = str(found.value).splitlines()
    begins = "mine.yaml: methods.lora.train.optimizer"
    assert any(line.startswith(f"{begins}.momentun: SGD has no such option") for line in lines)
    assert any(line.startswith(f"{begins}.lr: set train.learning_rate") for line in lines)


def test_neighbours_fair_is_fair() -> None:
    fair = load_grid("neighbours-fair")
    cells = [cell for cell in expand(fair) if cell.train is not None]
    counts = {
        METHODS[cell.method].count_parameters(cell.model.shape, cell.options) for cell in cells
    }
    assert max(counts) <= 1.1 * min(counts)
    assert all(abs(count / 4_194_304 - 1) <= 0.1 for count in counts)
    same = {(cell.train.epochs, cell.train.batch_size, cell.train.max_length) for cell in cells
            if cell.train is not None}  # fmt: skip
    assert same == {(5, 64, 512)}
    assert {cell.seed for cell in cells} == {0, 1, 2}
    assert budget_notes(fair)[-1].startswith("Training is the same for all methods")


def test_neighbours_says_how_unequal_its_recipes_are() -> None:
    parameters, training = budget_notes(load_grid("neighbours"))
    assert parameters == (
        "Budgets on llama-7b: 409,600 trained parameters (prompt-tuning) to 6,738,415,616 (full), "
        "16,451.21 times as many"
    )
    assert "epochs 1 (dora, vera), 3 (full, lora, ia3), 5 (prefix-tuning, " in training


def test_the_title_of_a_type_of_peft_names_it() -> None:
    cells = expand(grid({"mine": {"peft": {"peft_type": "IA3"}}}))
    assert {cell.method_label: cell.method_title for cell in cells} == {
        "lora": "LoRA",
        "mine": "PEFT IA3",
    }
