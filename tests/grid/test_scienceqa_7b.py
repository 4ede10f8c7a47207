"""The shipped grid of ScienceQA: its cells, their recipe, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.estimate.tokens import token_counter
from harness.grid.loader import load_grid
from harness.grid.schema import expand
from harness.methods import METHODS

PUBLISHED = {"pictures-10": 0.97, "pictures-20": 1.37, "pictures": 1.79, "text-only": 1.23}
"""Millions of trained parameters, as printed (32 layers: 1.83, which contradicts the others)."""


@pytest.fixture(scope="module")
def cells():
    return expand(load_grid("scienceqa-7b"))


def test_its_cells_have_the_published_sizes_and_recipe(cells) -> None:
    assert len(cells) == 1 + 6 * 3
    found = {}
    for cell in cells:
        if cell.train is not None:
            found[cell.method_label] = METHODS[cell.method].count_parameters(
                cell.model.shape, cell.options
            )
            train = cell.train
            assert (train.epochs, train.batch_size, train.max_length) == (30, 64, 512)
            assert train.peak_learning_rate == pytest.approx(2.25e-3)
            assert (train.warmup_epochs, train.weight_decay) == (2.0, 0.02)
            assert cell.options.prompt_length == 10
    assert found["pictures"] == 1_786_816
    for label, millions in PUBLISHED.items():
        assert found[label] / 1e6 == pytest.approx(millions, abs=0.01)


def test_an_epoch_is_a_million_tokens_as_far_as_a_sample_tells(cells, tmp_path: Path) -> None:
    count = token_counter(runs_dir=tmp_path, data_root=None, num_rows={None: 12_726})
    tokens = count(cells[1])
    assert tokens is not None
    assert 30 * tokens.tokens == pytest.approx(33.2e6, rel=0.01)
    assert tokens.source == "estimated"
