"""What fine-tuning forgets: bits per byte after minus before, by the definition, with its error."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.analysis.forgetting import Forgetting, forgettings
from harness.evaluation.benchmark import Benchmark
from harness.evaluation.tasks import TaskSpec
from tests.fixtures.results import GridResults

BENCHMARK: dict[str, Benchmark] = {"forgetting": TaskSpec(name="forgetting").benchmark}


def add(
    grid: GridResults, method: str, seed: int | None, nats: list[float], sizes: list[int]
) -> None:
    """Adds a cell with the log-likelihood of each document, and its records."""
    cell_id = grid.add(method, seed)
    head = grid.cells[-1]
    bits = -sum(nats) / sum(sizes) / math.log(2)
    identity = ("cell_id", "label", "model", "method", "method_name", "method_title", "fraction",
                "seed")  # fmt: skip
    grid.score(
        {name: head[name] for name in identity}, "forgetting", nats, metric="bits_per_byte",
        unit="bits_per_byte", higher_is_better=False,
    )  # fmt: skip
    grid.scores[-1] |= {"value": bits, "stderr": None}
    grid.items[cell_id, "forgetting"] = pd.DataFrame(
        {
            "task": "forgetting",
            "doc_id": range(len(nats)),
            "question_id": [f"q{n}-{size}" for n, size in enumerate(sizes)],
            "loglikelihood": nats,
            "num_bytes": sizes,
        }
    )


def found_in(grid: GridResults) -> list[Forgetting]:
    return list(forgettings(grid.findings(BENCHMARK, tables=()).measured))


def drawn(seed: int, number: int = 30) -> tuple[list[float], list[int]]:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(200, 900, size=number)
    return list(-0.7 * sizes * generator.uniform(0.8, 1.2, size=number)), [int(n) for n in sizes]


def test_forgetting_is_the_rise_of_the_bits_of_all_documents_over_all_bytes(results) -> None:
    nats, sizes = drawn(0)
    add(results, "base", None, nats, sizes)
    for seed, loss in enumerate((0.02, 0.03)):
        after = [n - loss * size for n, size in zip(nats, sizes, strict=True)]
        add(results, "lora", seed, after, sizes)
    (found,) = found_in(results)
    assert found.before is not None
    assert found.before.value == pytest.approx(-sum(nats) / sum(sizes) / math.log(2))
    (change,) = found.changes
    assert change.change.value == pytest.approx(0.025 / math.log(2))
    assert change.after.value == pytest.approx(found.before.value + change.change.value)
    assert change.change.num_seeds == 2
    assert found.missing is None


def test_nothing_changed_is_nothing_forgotten(results) -> None:
    nats, sizes = drawn(1)
    for method, seed in (("base", None), ("lora", 0), ("lora", 1)):
        add(results, method, seed, nats, sizes)
    ((change,),) = (found.changes for found in found_in(results))
    assert change.change.value == 0
    assert change.change.stderr == 0


def test_the_sign_turns_with_the_direction(results) -> None:
    nats, sizes = drawn(2)
    better = [0.9 * n for n in nats]
    add(results, "base", None, nats, sizes)
    add(results, "lora", 0, better, sizes)
    add(results, "full", 0, [1.1 * n for n in nats], sizes)
    changes = {c.variant.method: c.change.value for f in found_in(results) for c in f.changes}
    assert changes["lora"] < 0 < changes["full"]
    assert changes["lora"] == pytest.approx(-changes["full"])


def test_the_error_over_documents_is_that_of_a_bootstrap_of_them(results) -> None:
    nats, sizes = drawn(3, 60)
    generator = np.random.default_rng(5)
    after = [n - size * generator.normal(0.03, 0.02) for n, size in zip(nats, sizes, strict=True)]
    add(results, "base", None, nats, sizes)
    add(results, "lora", 0, after, sizes)
    ((change,),) = (found.changes for found in found_in(results))
    rise, size = (np.array(nats) - np.array(after)) / math.log(2), np.array(sizes)
    chosen = generator.integers(60, size=(20_000, 60))
    ratios = rise[chosen].sum(axis=1) / size[chosen].sum(axis=1)
    assert change.change.stderr == pytest.approx(ratios.std(), rel=0.05)
    # Of one seed it speaks of this trained model alone.
    assert change.change.scope == "models"


def test_seeds_of_several_methods_know_their_spread_together(results) -> None:
    nats, sizes = drawn(4)
    generator = np.random.default_rng(6)
    add(results, "base", None, nats, sizes)
    for method in ("lora", "full", "random-init"):
        for seed in (0, 1):
            shift = generator.normal(0.02, 0.005)
            add(results, method, seed, [n - shift * s for n, s in zip(nats, sizes, strict=True)],
                sizes)  # fmt: skip
    changes = [change.change for found in found_in(results) for change in found.changes]
    assert {change.basis for change in changes} == {"pooled"}
    assert all(change.df > 1 for change in changes)


def test_without_a_base_model_it_is_said_what_lacks(results) -> None:
    add(results, "lora", 0, *drawn(5))
    (found,) = found_in(results)
    assert found.changes == ()
    assert "add `base` to the grid's methods" in str(found.missing)


def test_other_documents_than_the_base_models_are_not_compared(results) -> None:
    nats, sizes = drawn(6)
    add(results, "base", None, nats, sizes)
    add(results, "lora", 0, nats, sizes)
    add(results, "full", 0, nats, [size + 1 for size in sizes])
    (found,) = found_in(results)
    assert [change.variant.method for change in found.changes] == ["lora"]
    assert "of full the records" in str(found.missing)


def test_without_records_by_document_it_is_said_what_lacks(results) -> None:
    add(results, "base", None, *drawn(7))
    add(results, "lora", 0, *drawn(7))
    results.items.clear()
    (found,) = found_in(results)
    assert found.changes == ()
    assert "by document are missing" in str(found.missing)


def test_a_grid_without_texts_has_none(small_grid) -> None:
    assert list(forgettings(small_grid.findings().measured)) == []


def test_the_tables_and_comparisons_say_the_same_of_the_text(results) -> None:
    nats, sizes = drawn(8)
    generator = np.random.default_rng(9)
    add(results, "base", None, nats, sizes)
    for method, seeds in (("lora", 3), ("full", 3), ("random-init", 1)):
        for seed in range(seeds):
            shift = generator.normal(0.02, 0.01, size=len(sizes)) * sizes
            add(results, method, seed, list(np.array(nats) - shift), sizes)
    measured = results.findings(BENCHMARK, tables=()).measured
    (found,) = forgettings(measured)
    assert len(found.changes) == 3
    for change in found.changes:
        estimate = measured.estimate(change.variant, found.group, found.column)
        difference = measured.difference(change.variant, found.base, found.group, found.column)
        assert (change.after, change.change) == (estimate, difference.estimate)
        assert not change.change.seeds_alone
        assert change.change.interval is not None


def test_of_a_text_with_another_primary_metric_the_bits_are_compared(results) -> None:
    nats, sizes = drawn(10)
    add(results, "base", None, nats, sizes)
    add(results, "lora", 0, [n - 0.02 * s for n, s in zip(nats, sizes, strict=True)], sizes)
    for score in list(results.scores):
        results.scores.append(
            score | {"metric": "word_perplexity", "unit": "word_perplexity", "value": 40.0}
        )
    known = {"forgetting": replace(BENCHMARK["forgetting"], primary_metric="word_perplexity")}
    (found,) = forgettings(results.findings(known, tables=()).measured)
    assert found.before.value == pytest.approx(-sum(nats) / sum(sizes) / math.log(2))
    ((change),) = found.changes
    assert change.change.value == pytest.approx(0.02 / math.log(2))
