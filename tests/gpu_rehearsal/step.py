# ruff: noqa: E501, E402, PT008
"""One optimizer step of a method at full size, through zbench's own `fit`, on a card that is not there.

python step.py zero-init-linear --size 7b --card h200 --precision bf16 [--layers 4] [--steps 1]
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

from harness.errors import ZbenchError
from harness.training import loop
from harness.training import step as step_code
from harness.training.loss import ResponseLoss
from tests.gpu_rehearsal import card as fakecuda
from tests.gpu_rehearsal import stage


def measure(
    method: str,
    *,
    size: str = "7b",
    layers: int | None = None,
    card_name: str = "h200",
    precision: str = "bf16",
    steps: int = 1,
    sequences: int | None = None,
    token_budget: int | None = None,
    gradient_checkpointing: bool = False,
    limit_bytes: float | None = None,
    sites: bool = True,
) -> list[dict[str, Any]]:
    """Trains for some steps, and returns what each took: `Trainer.gradients` and `.update`.

    What `fit` does around a step (probes, statistics) is in the last row, "around".
    """
    shape = stage.shape_of(size, layers)
    spec = stage.train_spec(method, precision=precision)
    count = sequences or spec.batch_size
    changes = {"batch_size": count, "token_budget": token_budget}
    changes["gradient_checkpointing"] = gradient_checkpointing
    spec = spec.model_copy(update=changes)
    examples = stage.examples(count * steps, spec.max_length)
    found: list[dict[str, Any]] = []
    with fakecuda.rehearsal(card_name, limit_bytes=limit_bytes) as card:
        card.keep_sites = sites
        model = stage.base_model(shape, precision)
        weights = card.live
        model, entry, hook = stage.apply(method, model, shape)
        around = fakecuda.Counts()
        gradients, update = step_code.TrainStep.backward, step_code.TrainStep.update
        open_step: dict[str, Any] = {}

        def add(counts: fakecuda.Counts) -> None:
            around.ops += counts.ops
            around.kernels += counts.kernels
            around.syncs += counts.syncs
            around.sync_sites.update(counts.sync_sites)

        split = ResponseLoss.micro_batches

        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            batches = list(split(self, *args, **kwargs))
            open_step["rows"] = [
                batch.num_tokens if hasattr(batch, "num_tokens") else batch.input_ids_BT.numel()
                for batch in batches
            ]
            open_step["buckets"] = [
                len(batch.packing.buckets) if hasattr(batch, "packing") else 1 for batch in batches
            ]
            return batches

        def timed_gradients(self: Any, chosen: Any, key: int) -> Any:
            add(card.counts)
            card.reset()
            open_step["begun"] = time.perf_counter()
            totals = gradients(self, chosen, key)
            open_step["tokens"] = totals.num_tokens
            open_step["first"] = card.counts
            open_step["peak_forward"] = card.peak
            card.counts = fakecuda.Counts()
            return totals

        def timed_update(self: Any, rate: float, **kwargs: Any) -> None:
            add(card.counts)  # the trace's look at the gradients
            card.counts = open_step["first"]
            update(self, rate, **kwargs)
            counts = card.counts
            found.append(
                {
                    "method": method, "tokens": open_step["tokens"], "kernels": counts.kernels,
                    "ops": counts.ops, "peak_gb": card.peak / 1e9, "tflop": counts.flops / 1e12,
                    "syncs": counts.syncs, "live_gb": card.live / 1e9,
                    "weights_gb": weights / 1e9, "rows": open_step["rows"],
                    "buckets": open_step["buckets"], "gb_moved": counts.bytes_moved / 1e9,
                    "attention_shapes": len(counts.attention),
                    "attention_calls": sum(counts.attention.values()),
                    "backends": sorted({key[0] for key in counts.attention}),
                    "rehearsal_seconds": time.perf_counter() - open_step["begun"],
                    "counts": counts,
                }
            )  # fmt: skip
            card.counts = fakecuda.Counts()

        with (
            mock.patch.object(step_code.TrainStep, "backward", timed_gradients),
            mock.patch.object(step_code.TrainStep, "update", timed_update),
            mock.patch.object(ResponseLoss, "micro_batches", noted),
        ):
            result = loop.fit(
                model, examples, spec, seed=0, device="cuda", precision=precision,
                pad_token_id=0, data_sha256="", hook=hook, callbacks=stage.callbacks(model, entry, hook),
            )  # fmt: skip
        add(card.counts)
        found.append(
            {"around": True, "ops": around.ops, "kernels": around.kernels, "syncs": around.syncs,
             "sync_sites": around.sync_sites, "fit_peak_gb": result.peak_memory_bytes / 1e9}
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--size", default="7b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--card", default="h200")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--sequences", type=int)
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--limit-gb", type=float)
    parser.add_argument("--top", type=int, default=0, help="call sites to print")
    parser.add_argument("--json")
    given = parser.parse_args()
    stored = []
    for method in given.methods:
        try:
            *steps, around = measure(
                method, size=given.size, layers=given.layers, card_name=given.card,
                precision=given.precision, steps=given.steps, sequences=given.sequences,
                token_budget=given.token_budget,
                gradient_checkpointing=given.gradient_checkpointing,
                limit_bytes=given.limit_gb and given.limit_gb * 1e9,
            )  # fmt: skip
        except ZbenchError as fault:
            print(f"{method}: {type(fault).__name__}: {fault}")
            continue
        for number, row in enumerate(steps, 1):
            counts = row.pop("counts")
            print(
                f"{method} step {number}: {row['tokens']:,} tokens, {row['kernels']:,} kernels, "
                f"{row['ops']:,} ops, peak {row['peak_gb']:.1f} GB (weights {row['weights_gb']:.1f}), "
                f"{row['tflop']:.0f} TFLOP, {row['gb_moved']:.0f} GB moved, {row['syncs']} syncs, {row['attention_shapes']} attention "
                f"shapes on {'/'.join(row['backends']) or 'none'}, {row['rehearsal_seconds']:.0f} s here; "
                f"rows {row['rows']} in {row['buckets']} buckets",
                flush=True,
            )
            if given.top:
                for site, ops in counts.by_site.most_common(given.top):
                    print(f"   {ops:6,} ops {counts.by_site_kernels[site]:6,} kernels  {site}")
                print("   by op:", dict(counts.by_op.most_common(30)))
                moved = {k: round(v / 1e9, 1) for k, v in counts.bytes_by_op.most_common(14)}
                print("   GB moved by op:", moved)
                print("   syncs:", dict(counts.sync_sites))
            row["by_site"] = counts.by_site.most_common(40)
            row["by_site_kernels"] = counts.by_site_kernels.most_common(40)
            row["by_op"] = counts.by_op.most_common(60)
            row["sync_sites"] = counts.sync_sites.most_common(20)
            row["attention"] = [[list(map(str, k)), v] for k, v in counts.attention.most_common(60)]
            stored.append(row)
        print(
            f"   around the steps: {around['ops']:,} ops, {around['syncs']} syncs; "
            f"fit says {around['fit_peak_gb']:.1f} GB"
        )
        if given.top:
            print("   around syncs:", dict(around["sync_sites"]))
    if given.json:
        Path(given.json).write_text(json.dumps(stored, indent=1))


if __name__ == "__main__":
    main()
