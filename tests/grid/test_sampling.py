"""Draws are the same in every process, differ from each other, and lie in their space."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness.grid.sampling import draw
from harness.grid.tuning import Range, TuneSpec

SPACES = {
    "lists": {
        "rank": (2, 4, 8, 16),
        "targets": (("q_proj",), ("q_proj", "v_proj")),
        "x": (1, None),
    },
    "mixed": {"rate": Range(low=1e-4, high=1e-1, log=True), "rank": (4, 8)},
    "large": {name: tuple(range(40)) for name in "abcdef"},
    "whole": {"rank": Range(low=1, high=9)},
    "narrow": {"rate": Range(low=1.0, high=1.008)},
}


def spec_of(space: dict, sampler: str, trials: int = 9, **fields: object) -> TuneSpec:
    return TuneSpec(trials=trials, sampler=sampler, space={"lora": space}, **fields)


def drawn(space: dict, sampler: str, trials: int = 9) -> list[dict]:
    spec = spec_of(space, sampler, trials)
    found: list[dict] = []
    while len(found) < trials:
        found += draw(spec, space, [(one, float(len(str(one)))) for one in found])
    return found


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        (name, sampler)
        for name in SPACES
        for sampler in ("grid", "random", "qmc", "tpe")
        if (name, sampler) != ("large", "grid")  # refused as it is read
    ],
)
def test_trials_differ_lie_in_their_space_and_are_the_same_again(name: str, sampler: str) -> None:
    space = SPACES[name]
    found = drawn(space, sampler)
    assert len(found) == 9
    assert len({json.dumps(one) for one in found}) == 9
    for settings in found:
        for key, values in space.items():
            if isinstance(values, Range):
                assert values.low <= settings[key] <= values.high
                assert isinstance(settings[key], int) == values.is_whole
            else:
                assert settings[key] in values
    assert drawn(space, sampler) == found


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_more_trials_keep_the_first_ones(sampler: str) -> None:
    assert drawn(SPACES["mixed"], sampler, 12)[:5] == drawn(SPACES["mixed"], sampler, 5)


def test_a_grid_is_tried_whole_in_order_without_optuna() -> None:
    code = (
        "import sys\n"
        "from harness.grid.sampling import draw\n"
        "from harness.grid.tuning import TuneSpec\n"
        "space = {'rank': (2, 4), 'rate': (0.1, 0.2)}\n"
        "spec = TuneSpec(trials=4, space={'lora': space})\n"
        "print([list(one.values()) for one in draw(spec, space)], 'optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[[2, 0.1], [2, 0.2], [4, 0.1], [4, 0.2]] False\n"


def test_tpe_learns_of_results_and_of_nothing_else() -> None:
    space = {"rate": Range(low=0.0, high=1.0)}
    spec = spec_of(space, "tpe", trials=40, batch=8)
    histories = {}
    for best in (0.1, 0.9):
        history: list[tuple[dict, float | None]] = []
        while len(history) < 40:
            found = draw(spec, space, history)
            history += [(one, abs(one["rate"] - best)) for one in found]
        histories[best] = [one["rate"] for one, _ in history]
    low, high = histories[0.1], histories[0.9]
    assert low[:8] == high[:8]  # the first round knows nothing
    assert sum(low[16:]) / 24 < 0.4 < 0.6 < sum(high[16:]) / 24
    known = [({"rate": rate}, None) for rate in low[:8]]  # failures are the worst, not unknown
    assert draw(spec, space, known) == draw(spec, space, known)
