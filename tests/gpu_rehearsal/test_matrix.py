"""Methods on cards that are not there, against `expected.json`; see docs/gpu-rehearsal.md."""

from __future__ import annotations

import pytest

from harness.methods import METHODS
from tests.gpu_rehearsal import expectations
from tests.gpu_rehearsal.conftest import Run

PAIRS = ("h200", "a100-80", "v100-32", "a100-80 fp32")
QUICK_METHODS, QUICK_PAIRS = ("full", "lora", "zero-init-linear"), ("h200", "v100-32")
"""What `make test` rehearses."""


def faults(run: Run, methods: tuple[str, ...], *more: str) -> str:
    """What is said where a figure is not as expected; empty where all are."""
    done = run("-m", "tests.gpu_rehearsal.matrix", "--methods", ",".join(methods), *more)
    return done.stdout + done.stderr[-4000:] if done.returncode else ""


def test_three_methods_on_two_cards(run: Run) -> None:
    assert faults(run, QUICK_METHODS, "--pairs", ",".join(QUICK_PAIRS)) == ""


@pytest.mark.rehearsal
@pytest.mark.parametrize("pair", QUICK_PAIRS)
def test_every_other_method(run: Run, pair: str) -> None:
    others = tuple(name for name in METHODS.own if name not in QUICK_METHODS)
    assert faults(run, others, "--pairs", pair) == ""


@pytest.mark.rehearsal
@pytest.mark.parametrize("more", [("--pairs", "a100-80 fp32"), ("--deterministic",)])
def test_some_methods(run: Run, more: tuple[str, ...]) -> None:
    assert faults(run, (*QUICK_METHODS, "random-init"), *more) == ""


@pytest.mark.rehearsal
@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [("--pairs", "a100-80,a100-80 fp32"), ("--deterministic",)], ids=["a100", "determined"]
)
def test_all_methods(run: Run, more: tuple[str, ...]) -> None:
    assert faults(run, tuple(METHODS.own), *more) == ""


def test_every_method_has_expected_values() -> None:
    precisions = dict(zip(PAIRS, ("bf16", "bf16", "fp16", "fp32"), strict=True))
    names = {f"{name} | {pair} {precisions[pair]}" for name in METHODS.own for pair in PAIRS}
    names |= {f"{name} | h200 bf16 | deterministic" for name in METHODS.own}
    entries = expectations.read()
    assert set(entries) == names
    faults = {name: expectations.faults(name, entries[name], known=False) for name in names}
    assert {name: lines for name, lines in faults.items() if lines} == {}
