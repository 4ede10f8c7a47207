"""Rows that are one method's tuning: their trials, and what the best of them is told by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.analysis.gathered import gathered_tunings
from harness.analysis.tuning import Tuning
from harness.analysis.tuning_curves import edges, response
from harness.evaluation.tasks import TaskSpec, request_key
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.status import CellState
from harness.records.results import CellResult, TrainResult
from harness.records.scores import TaskScore
from harness.report.tuning import gathered_sentences

SHAPE = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32,
         "num_attention_heads": 2, "vocab_size": 50}  # fmt: skip
RATES = {"low": 1e-4, "middle": 1e-3, "high": 1e-2}
TRAINED = TrainResult(
    steps=1, examples=1, tokens=1, epoch_losses=(1.0,), trainable_parameters=1, total_parameters=2,
    seconds=3.0, tokens_per_second=1.0, peak_memory_bytes=1, peak_learning_rate=1e-3,
    precision="fp32", device="cpu", data_sha256="ab",
)  # fmt: skip


def tuning(
    losses: dict[tuple[str, int], float],
    *,
    held_out: bool = True,
    scores: bool = False,
    **keys: Any,
) -> Tuning:
    """What is gathered of three rows with two seeds, of which those in `losses` are done."""
    data: dict[str, Any] = {"source": "x/rows"}
    raw = {
        "name": "mine",
        "models": {"small": {"source": "x/small", "shape": SHAPE}},
        "data": data | ({"validation": {"fraction": 0.1}} if held_out else {}),
        "tasks": ["arc_easy"],
        "methods": {
            label: {"method": "ia3", "train": {"learning_rate": rate}}
            for label, rate in RATES.items()
        },
        "gather": {"IA3": list(RATES)},
        "blocks": [{"methods": list(RATES), "seeds": [0, 1]}],
    }
    spec = resolve_grid(raw | keys, place="mine.yaml")
    states = []
    for cell in expand(spec):
        loss = 0.0 if cell.is_noise else losses.get((cell.method_label, cell.seed or 0))
        result = None
        if loss is not None:
            train = replace(TRAINED, validation_losses=(9.0, loss))
            result = CellResult(
                {}, cell.id, train, scores=(_score(cell.tasks[0], loss),) if scores else ()
            )
        status = "to do" if result is None else "done"
        states.append(CellState(cell, Path(), result, status, ()))
    (found,) = gathered_tunings(SimpleNamespace(spec=spec, states=states))  # type: ignore[arg-type]
    return found


def _score(task: TaskSpec, value: float) -> TaskScore:
    return TaskScore(
        key=request_key(task), protocol="lm-eval", benchmark="arc_easy", task="arc_easy",
        metric="acc",
        value=value, stderr=None, n=1, shots=0, limit=None, task_version="1", lm_eval_version="1",
        data_source="x", data_sha256=None, tokenizer_sha256="x", precision="fp32",
    )  # fmt: skip


ALL = {("low", 0): 1.0, ("low", 1): 1.2, ("middle", 0): 0.5, ("middle", 1): 0.7,
       ("high", 0): 0.2, ("high", 1): 3.0}  # fmt: skip


def test_rows_are_trials_and_the_lowest_mean_loss_is_chosen() -> None:
    found = tuning(ALL)
    assert [trial.settings for trial in found.trials] == [
        {"learning_rate": rate} for rate in RATES.values()
    ]
    assert [trial.value for trial in found.trials] == pytest.approx([1.1, 0.6, 1.6])
    assert (found.chosen, found.winner, found.on) == (1, "middle", "validation loss")
    assert found.lower_is_better
    assert found.trials[0].seconds == 6.0
    assert found.gathered == tuple(RATES)


def test_nothing_is_chosen_until_all_are_done() -> None:
    found = tuning({key: loss for key, loss in ALL.items() if key != ("high", 1)})
    assert (found.chosen, found.trials[2].status, found.trials[2].value) == (None, "to do", None)
    assert found.winner == "IA3"


def test_without_held_out_rows_the_choice_is_by_test_items_and_told_as_biased() -> None:
    shares = {key: loss / 10 for key, loss in ALL.items()}
    found = tuning(shares, held_out=False, scores=True)
    assert (found.on, found.lower_is_better, found.chosen) == ("arc_easy acc", False, 2)
    assert "biased upwards" in gathered_sentences([found])[1]
    assert len(gathered_sentences([tuning(ALL)])) == 1


def test_repeats_for_the_noise_floor_are_no_trials() -> None:
    found = tuning(ALL, noise={"method": "high", "repeats": 2})
    assert [trial.value for trial in found.trials] == pytest.approx([1.1, 0.6, 1.6])


def test_more_seeds_of_one_row_are_no_tuning_of_their_own() -> None:
    blocks = [{"methods": list(RATES), "seeds": [0, 1]}, {"methods": ["high", "low"], "seeds": [2]}]
    assert tuning(ALL, blocks=blocks).chosen == 1


def test_one_of_two_values_is_no_edge_of_rows_that_differ_in_more() -> None:
    two = [*RATES][:2]
    found = tuning(ALL, gather={"IA3": two}, blocks=[{"methods": two, "seeds": [0, 1]}])
    assert (found.winner, edges(found)) == ("middle", [])
    (edge,) = edges(tuning(ALL | {("high", 1): 0.1}))
    assert edge.is_highest


@pytest.mark.parametrize("held_out", [True, False])
def test_of_equal_rows_the_first_is_chosen(held_out: bool) -> None:
    assert tuning(dict.fromkeys(ALL, 0.5), held_out=held_out, scores=True).chosen == 0


def test_the_response_is_drawn_against_the_rate() -> None:
    found = response(tuning(ALL))
    assert found is not None
    assert (found.setting, found.is_log) == ("learning_rate", True)
