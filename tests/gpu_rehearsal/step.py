"""Optimizer steps of a method at full size, by zbench's own `fit`, with their figures.

python -m tests.gpu_rehearsal.step zero-init-linear lora --size 7b --card h200 --top 15
python -m tests.gpu_rehearsal.step full --layers 2 --steps 2 --token-budget 2048
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ZbenchError
from tests.gpu_rehearsal import stage
from tests.gpu_rehearsal.card import rehearsal
from tests.gpu_rehearsal.cards import CARDS
from tests.gpu_rehearsal.counting import Counts
from tests.gpu_rehearsal.steps import Step, figures_of, recorded_steps


@dataclass(frozen=True)
class Training:
    """The steps of a rehearsed training."""

    steps: list[Step]
    around: Counts
    """What ran around the steps."""
    weights_bytes: int
    """Of the base model on the card."""
    fit_peak_bytes: int
    """The peak that `fit` reports."""


def measure(
    method: str,
    *,
    size: str = "7b",
    layers: int | None = None,
    card_name: str = "h200",
    precision: str = "bf16",
    steps: int = 1,
    limit_bytes: float | None = None,
    sites: bool = True,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Training:
    """Trains for some steps on the first batches of Alpaca.

    Args:
        limit_bytes: above it an allocation raises OutOfMemoryError; None for never.
        sites: whether call sites are kept, at a cost in time.
        options: of the method, beside its defaults.
        settings: of the training, beside the method's recipe, such as `token_budget`.
    """
    shape = stage.shape_of(size, layers)
    spec = stage.train_spec(method, precision=precision, **settings)
    examples = stage.examples(spec.batch_size * steps, spec.max_length)
    with rehearsal(card_name, limit_bytes=limit_bytes) as card:
        card.memory.keep_sites = sites
        model = stage.base_model(shape, precision)
        weights = card.live
        model, entry, hook = stage.apply(method, model, shape, **(options or {}))
        with recorded_steps(card) as recorded:
            result = stage.fit(model, entry, hook, examples, spec, precision)
    return Training(recorded.steps, recorded.around, weights, int(result.peak_memory_bytes or 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--size", default="7b", choices=stage.SIZES)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--card", default="h200", choices=CARDS)
    parser.add_argument("--precision", default="bf16", choices=stage.DTYPES)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--sequences", type=int, help="of an optimizer batch")
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--limit-gb", type=float)
    parser.add_argument("--top", type=int, default=0, help="call sites to print")
    parser.add_argument("--json", type=Path, help="file for all counts")
    given = parser.parse_args()
    chosen = {
        "batch_size": given.sequences,
        "token_budget": given.token_budget,
        "gradient_checkpointing": given.gradient_checkpointing or None,
    }
    settings = {name: value for name, value in chosen.items() if value is not None}
    stored = []
    for method in given.methods:
        begun = time.perf_counter()
        try:
            training = measure(
                method,
                size=given.size,
                layers=given.layers,
                card_name=given.card,
                precision=given.precision,
                steps=given.steps,
                limit_bytes=given.limit_gb and given.limit_gb * 1e9,
                **settings,
            )
        except ZbenchError as fault:
            print(f"{method}: {type(fault).__name__}: {fault}")
            continue
        for number, step in enumerate(training.steps, 1):
            print(f"{method} step {number}: {_described(step, training)}", flush=True)
            if given.top:
                _print_sites(step.counts, given.top)
            stored.append(_stored(method, step))
        around, peak = training.around, training.fit_peak_bytes
        print(
            f"   around the steps: {around.ops:,} ops, {around.syncs} syncs "
            f"{dict(around.syncs_by_site)}; fit says {peak / 1e9:.1f} GB; "
            f"rehearsed in {time.perf_counter() - begun:.0f} s"
        )
    if given.json:
        given.json.write_text(json.dumps(stored, indent=1))


def _described(step: Step, training: Training) -> str:
    counts = step.counts
    return (
        f"{step.num_tokens:,} tokens, {counts.launches:,} launches, {counts.ops:,} ops, "
        f"peak {step.peak_bytes / 1e9:.1f} GB (weights {training.weights_bytes / 1e9:.1f}), "
        f"{counts.flops / 1e12:.0f} TFLOP, {counts.bytes_moved / 1e9:.0f} GB moved, "
        f"{counts.syncs} syncs, attention {' '.join(counts.attention_kernels) or 'none'} in "
        f"{len(counts.attention)} shapes; positions and buckets of each pass {step.passes}"
    )


def _print_sites(counts: Counts, top: int) -> None:
    for site, ops in counts.ops_by_site.most_common(top):
        moved = counts.bytes_by_site[site] / 1e9
        print(
            f"   {ops:6,} ops {counts.launches_by_site[site]:6,} launches {moved:6.1f} GB  {site}"
        )
    print("   by op:", dict(counts.ops_by_name.most_common(30)))
    moved = {name: round(size / 1e9, 1) for name, size in counts.bytes_by_name.most_common(14)}
    print("   GB moved by op:", moved)
    print("   syncs:", dict(counts.syncs_by_site))


def _stored(method: str, step: Step) -> dict[str, Any]:
    counts = step.counts
    return {
        "method": method,
        "num_tokens": step.num_tokens,
        "passes": step.passes,
        **figures_of(counts),
        "peak_gb": step.peak_bytes / 1e9,
        "sites": {
            site: [ops, counts.launches_by_site[site], round(counts.bytes_by_site[site] / 1e9, 2)]
            for site, ops in counts.ops_by_site.most_common(80)
        },
        "ops_by_name": counts.ops_by_name,
        "bytes_by_name": counts.bytes_by_name,
        "syncs_by_site": counts.syncs_by_site,
        "at_peak_gb": {site: round(size / 1e9, 2) for site, size in step.at_peak},
    }


if __name__ == "__main__":
    main()
