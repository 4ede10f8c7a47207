"""A grid on a simulated cluster that loses nodes: all cells end once, and little time is lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.simulated_cluster import paper_like_states, simulate
from harness.cell.settings import RunSettings
from harness.errors import UsageError
from harness.execution.plan import Place, RunPlan
from harness.execution.run_grid import run_grid
from harness.execution.site import Site
from harness.grid.schema import is_base
from harness.records.events import CellEnded, CellStarted, Event, Warned
from harness.testing.simulated_cluster import CellTimes, Losses, Placement, SimulatedCluster

HOUR = 3600.0


def plan_of(**site: int) -> RunPlan:
    settings = RunSettings(runs_dir=Path("runs"), data_root=None)
    return RunPlan(settings, place=Place(site=Site(**site)))


def check_no_overlap(placements: list[Placement]) -> None:
    """No cell is on two places at once, no GPU has two cells, and no cell that is done comes
    again."""
    by_cell, by_gpu = defaultdict(list), defaultdict(list)
    for one in placements:
        by_cell[one.cell_id].append(one)
        for gpu in one.gpus:
            by_gpu[one.node, gpu].append(one)
    for held in (*by_cell.values(), *by_gpu.values()):
        held.sort(key=lambda one: (one.start, one.end))
        assert all(first.end <= second.start for first, second in pairwise(held))
    for jobs in by_cell.values():
        assert [job.done for job in jobs] == [False] * (len(jobs) - 1) + [True]


def test_of_a_thousand_cells_on_a_cluster_that_loses_nodes_95_percent_is_useful() -> None:
    states = paper_like_states()
    assert len(states) == 1000
    cluster, outcome = simulate(states)
    usage = cluster.usage
    assert sorted(outcome.done) == sorted(state.cell.id for state in states)
    assert cluster.num_losses >= 20
    check_no_overlap(cluster.placements)
    assert usage.share >= 0.95
    spent = usage.useful + usage.lost + usage.loading + usage.held
    placed = sum((one.end - one.start) * len(one.gpus) for one in cluster.placements)
    assert spent == pytest.approx(placed, rel=1e-9), "every second of a job is accounted for once"
    times = cluster.times
    wanted = sum(
        state.cell.gpus_per_cell * times[state.cell.id].training
        + sum(times[state.cell.id].benchmarks)
        for state in states
    )
    assert usage.useful == pytest.approx(wanted, rel=1e-9), "nothing is computed twice and counted"
    assert usage.tail < 0.05 * (spent + usage.idle), "the longest begin first"


def test_untrained_base_models_come_first_and_the_events_are_those_of_an_executor() -> None:
    states = paper_like_states(seeds=2, full_seeds=1)
    events: list[Event] = []
    times = {s.cell.id: CellTimes(30, HOUR, 600, (300,)) for s in states}
    cluster = SimulatedCluster(times, num_nodes=2)
    outcome = run_grid(states, plan_of(), [events.append], cluster)
    assert len(outcome.done) == len(states)
    first = next(event for event in events if isinstance(event, CellStarted))
    assert first.cell_id == next(state.cell.id for state in states if is_base(state.cell))
    ended = Counter(event.cell_id for event in events if isinstance(event, CellEnded))
    assert set(ended.values()) == {1}
    began = Counter(event.cell_id for event in events if isinstance(event, CellStarted))
    lost = Counter(event.cell_id for event in events if isinstance(event, Warned))
    assert lost
    assert all(began[key] == lost[key] + 1 for key in ended)


def test_a_loss_costs_what_is_after_the_last_checkpoint_and_a_warning_nothing() -> None:
    (state,) = [s for s in paper_like_states(seeds=1, full_seeds=1) if s.cell.gpus_per_cell == 4]
    times = {state.cell.id: CellTimes(100, HOUR, 600, (300.0,))}
    cluster = SimulatedCluster(times, num_nodes=1, losses=Losses(1050.0, 10.0, requeue=0.0))
    run_grid([state], plan_of(), [], cluster)
    check_no_overlap(cluster.placements)
    ends = [one.end for one in cluster.placements]
    assert ends == pytest.approx([1050, 2100, 3150, 4200, 5160])
    # Of 950 s of work 600 are stored, then all of 925 but 15 s for the checkpoint; again so; then
    # the last 550 s and the benchmark.
    assert cluster.usage.lost == pytest.approx(4 * (350 + 340))
    assert cluster.usage.loading == pytest.approx(4 * (5 * 100 + 2 * 15))
    assert cluster.usage.useful == pytest.approx(4 * HOUR + 300)
    assert cluster.usage.held == pytest.approx(3 * 300)


def test_losses_without_progress_are_bounded_and_too_large_a_cell_is_refused() -> None:
    states = [s for s in paper_like_states(seeds=1, full_seeds=1) if s.cell.gpus_per_cell == 1][:2]
    times = {state.cell.id: CellTimes(30, HOUR, 2000, (60.0,)) for state in states}
    losses = Losses(every=300.0, back_after=10.0, stopping=300.0, requeue=0.0)
    cluster = SimulatedCluster(times, num_nodes=1, losses=losses)
    outcome = run_grid(states, plan_of(max_requeues=3), [], cluster)
    assert sorted(outcome.failed) == sorted(state.cell.id for state in states)
    assert set(Counter(one.cell_id for one in cluster.placements).values()) == {4}
    large = paper_like_states(seeds=1, full_seeds=1)
    with pytest.raises(UsageError, match="a node of the cluster gives 2"):
        SimulatedCluster({}, gpus_per_node=2).prepare(large, plan_of())


def test_no_more_cells_run_at_once_than_the_site_allows() -> None:
    states = paper_like_states(seeds=4, full_seeds=1)
    cluster = SimulatedCluster({s.cell.id: CellTimes(30, HOUR, 600, (300,)) for s in states})
    run_grid(states, plan_of(max_parallel=5), [], cluster)
    edges = [(one.start, 1) for one in cluster.placements]
    edges += [(one.end, -1) for one in cluster.placements]
    running = most = 0
    for _, change in sorted(edges):
        running += change
        most = max(most, running)
    assert most == 5
