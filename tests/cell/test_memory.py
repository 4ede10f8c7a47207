"""What a cell needs; out of memory, the budget is halved down to one sequence, and kept."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
import yaml

from harness.cell.memory import (
    BUDGETS_FILE,
    SmallerBudget,
    budget_key,
    effective_budget,
    fitting_budget,
    smaller_budget,
    store_budget,
    stored_budgets,
)
from harness.cell.memory_model import CONTEXT_BYTES, TokenPass
from harness.cell.run import run_cell
from harness.cell.settings import CellContext, RunSettings
from harness.data.instructions import Example
from harness.demo.world import write_world
from harness.errors import TrainingError
from harness.execution.plan import RunPlan
from harness.execution.run_grid import run_grid
from harness.grid.folders import cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.records.events import CellEnded, CellStarted, Event, StepDone, Warned
from harness.records.results import read_result
from tests.cell.test_memory_model import training_of
from tests.integration.test_end_to_end import grid_text
from tests.integration.test_survival import children


def one_cell(
    settings: str = "epochs: 1, batch_size: 4096, token_budget: 12500, warmup_ratio: 0",
) -> Cell:
    """Returns a cell of one step, whose one pass needs far more memory than later imports; it is
    not scored.
    """
    text = grid_text().replace("epochs: 2, batch_size: 8", settings)
    text = text.replace("fractions: [0.1]", "fractions: [1.0]")
    (cell,) = [
        cell for cell in expand(resolve_grid(yaml.safe_load(text), place="g.yaml")) if cell.train
    ]
    return cell.model_copy(update={"tasks": ()})


def halvings(told: list[Event]) -> list[Warned]:
    """Returns the warnings that restart a cell; others say what its one small step changed."""
    return [event for event in told if isinstance(event, Warned) and event.restarts]


def virtual_bytes(process: int) -> int:
    pages = Path(f"/proc/{process}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def test_budgets_are_halved_down_to_one_sequence_and_kept(tmp_path: Path) -> None:
    cell, tried = one_cell(), []
    context = CellContext(
        cell, RunSettings(tmp_path, None), cell_folder(tmp_path, cell), lambda event: None
    )
    used = 1000
    while isinstance(fault := smaller_budget(context, used=used, longest=120), SmallerBudget):
        tried.append(used)
        assert "\n" not in str(fault)
        found = stored_budgets(tmp_path).get(budget_key(cell, "cpu"))
        assert found is not None
        used = found
    assert tried == [1000, 500, 250, 125]
    assert used == 120
    assert isinstance(fault, TrainingError)
    assert "out of memory with one sequence of 120 tokens at a time" in str(fault)


def test_a_budget_does_not_bind_cells_that_take_less_memory() -> None:
    cell = one_cell()
    assert cell.train is not None
    key = budget_key(cell, "cpu")
    less = {"base_quantization": "nf4", "gradient_checkpointing": True}
    changed = cell.model_copy(
        update={"gpus_per_cell": 2, "train": cell.train.model_copy(update=less)}
    )
    assert budget_key(changed, "cpu") == f"{key} | 2 GPUs | nf4 | gradient checkpointing"


def test_budgets_of_other_methods_stay_and_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    store_budget(tmp_path, "a | lora | cpu", 10)
    store_budget(tmp_path, "a | full | cpu", 20)
    assert stored_budgets(tmp_path).get("a | lora | cpu") == 10
    (tmp_path / BUDGETS_FILE).write_text("{")
    assert stored_budgets(tmp_path).get("a | lora | cpu") is None
    store_budget(tmp_path, "a | lora | cpu", 5)
    assert json.loads((tmp_path / BUDGETS_FILE).read_text()) == {"a | lora | cpu": 5}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("run_next", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cell_out_of_memory_resumes_in_a_fresh_process_with_the_budget_that_holds(
    run_next: bool, tmp_path: Path
) -> None:
    cell, root = one_cell(), write_world(tmp_path / "world")

    def run(runs_dir: Path, more_bytes: int) -> list[Event]:
        """Runs the cell; until its last step, its workers get so much more address space."""
        told: list[Event] = []
        workers: set[int] = set()
        unlimited = resource.RLIM_INFINITY

        def listen(event: Event) -> None:
            told.append(event)
            if isinstance(event, CellStarted):
                (worker,) = children(os.getpid())
                workers.add(worker)
                limit = virtual_bytes(worker) + more_bytes
                resource.prlimit(worker, resource.RLIMIT_AS, (limit, unlimited))
            elif isinstance(event, StepDone):  # what scoring imports is no matter of training
                (worker,) = children(os.getpid())
                resource.prlimit(worker, resource.RLIMIT_AS, (unlimited, unlimited))

        states = read_states([cell], runs_dir=runs_dir, data_root=root)
        plan = RunPlan(RunSettings(runs_dir=runs_dir, data_root=root), devices=("cpu",))
        outcome = run_grid(states, plan, [listen])
        assert outcome.done == (cell.id,), told
        assert len(workers) == len([e for e in told if isinstance(e, CellStarted)])
        return told

    free, limited = tmp_path / "free", tmp_path / "limited"
    without: list[Event] = []
    run_cell(cell, RunSettings(runs_dir=free, data_root=root), without.append)
    assert not halvings(without)
    told = run(limited, 400_000_000)
    warned = halvings(told)
    assert warned
    assert all(event.restarts for event in warned)
    assert all("out of memory with" in event.message for event in warned)
    assert len([event for event in told if isinstance(event, CellStarted)]) == 1 + len(warned)
    assert len([event for event in told if isinstance(event, CellEnded)]) == 1
    results = [read_result(cell_folder(place, cell)) for place in (free, limited)]
    losses = [result.train.epoch_losses for result in results if result and result.train]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    steps = [event.step for event in told if isinstance(event, StepDone)]
    assert steps == list(range(1, len(steps) + 1))
    # The next cell of the same model and method begins with what held.
    held = stored_budgets(limited).get(budget_key(cell, "cpu"))
    assert held is not None
    assert f"resumes with {held} in" in warned[-1].message
    settings, examples = RunSettings(limited, root), [Example((0,) * 120, 2)]
    context = CellContext(cell, settings, cell_folder(limited, cell), told.append)
    assert effective_budget(context, examples) == held
    if run_next:
        (folder := cell_folder(limited, cell)).rename(tmp_path / "first")
        assert not folder.exists()
        assert not halvings(run(limited, 400_000_000))


def test_a_budget_is_halved_from_what_was_in_the_largest_pass(tmp_path: Path) -> None:
    cell = one_cell()
    settings = RunSettings(tmp_path, None)
    context = CellContext(cell, settings, cell_folder(tmp_path, cell), lambda event: None)
    fault = smaller_budget(context, used=8192, longest=120, largest_pass=2000)
    assert "out of memory with 2000 tokens in a forward pass; resumes with 1000" in str(fault)
    assert list(stored_budgets(tmp_path).values()) == [1000]
    # A pass of fewer tokens than the longest sequence cannot be made smaller by a budget.
    fault = smaller_budget(context, used=8192, longest=120, largest_pass=100)
    assert not isinstance(fault, SmallerBudget)


@pytest.mark.parametrize("room", [40e9, 80e9, 14e9])
def test_a_default_budget_is_what_the_gpu_holds(room: float) -> None:
    training = training_of("lora")
    found = fitting_budget(training, [Example((0,) * 128, 64)] * 8, room)
    assert (found > 0) == (training.least_bytes() + CONTEXT_BYTES < room)
    if found:
        held, more = (TokenPass(n, n, n / 2, n / 128) for n in (found, found + 2))
        assert training.peak_bytes(held) <= room < training.peak_bytes(more)


def test_virtual_tokens_take_memory_but_no_budget() -> None:
    training = training_of("prompt-tuning")
    examples = [Example((0,) * 128, 64)] * 8
    budget = fitting_budget(training, examples, 40e9)
    nodes = budget * (1 + 100 / 128)
    assert training.peak_bytes(TokenPass(nodes, nodes, budget / 2, budget / 128)) <= 40e9
    assert budget < fitting_budget(training_of("prefix-tuning"), examples, 40e9)
