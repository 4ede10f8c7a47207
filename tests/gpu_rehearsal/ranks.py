# ruff: noqa: E501, E402, PT008
"""Full fine-tuning divided among several cards (FSDP2), seen from rank 0; no other rank exists.

    python ranks.py --size 7b --cards 4 [--card a100-80]

For `full` alone: adapters go through DDP, whose C++ part reads what collectives give back, and
crashes on a fake group. torch's `fake` process group answers every collective at once. zbench's own `Parallel`, `Ranks` and
`fit` run. What comes back of a collective has no numbers; the sizes are those of a real group.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import os
import time
from typing import Any
from unittest import mock

import torch

from harness.training import loop, parallel
from harness.training import step as step_code
from harness.training.process_group import RankInfo
from tests.gpu_rehearsal import card as fakecuda
from tests.gpu_rehearsal import stage


def measure(
    method: str, *, size: str, layers: int | None, cards: int, card_name: str, precision: str,
    steps: int = 2,
) -> dict[str, Any]:  # fmt: skip
    from torch.testing._internal.distributed.fake_pg import FakeStore

    shape = stage.shape_of(size, layers)
    spec = stage.train_spec(method, precision=precision)
    examples = stage.examples(spec.batch_size * steps, spec.max_length)
    found: dict[str, Any] = {"steps": []}
    os.environ.update(RankInfo(0, cards).environment)  # as zbench starts a rank
    torch.distributed.init_process_group("fake", rank=0, world_size=cards, store=FakeStore())
    try:
        with fakecuda.rehearsal(card_name, num_cards=1) as card:
            model, entry, hook = stage.apply(method, stage.base_model(shape, precision), shape)
            found["loaded_peak_gb"] = card.peak / 1e9
            card.reset()
            gradients, update = step_code.TrainStep.backward, step_code.TrainStep.update

            def counted_gradients(self: Any, *args: Any) -> Any:
                found.setdefault("sharding_peak_gb", card.peak_before / 1e9)
                found.setdefault("sharded_gb", card.live / 1e9)
                card.reset()
                found["wrapped"] = type(self.module).__name__
                totals = gradients(self, *args)
                found["steps"].append([totals.num_tokens, card.counts])
                return totals

            def counted_update(self: Any, rate: float, **kwargs: Any) -> None:
                update(self, rate, **kwargs)
                counts = found["steps"][-1].pop()
                found["steps"][-1] += [counts.kernels, counts.ops, counts.syncs, card.peak / 1e9]
                found["at_peak"] = [
                    (site, size / 1e9) for site, size in card.at_peak.most_common(8)
                ]
                if len(found["steps"]) == 1:
                    found["at_peak_first"] = found["at_peak"]

            with (
                mock.patch.object(step_code.TrainStep, "backward", counted_gradients),
                mock.patch.object(step_code.TrainStep, "update", counted_update),
            ):
                loop.fit(
                    model, examples, spec, seed=0, device="cuda", precision=precision,
                    pad_token_id=0, data_sha256="", hook=hook, callbacks=stage.callbacks(model, entry, hook),
                )  # fmt: skip
            card.reset()
            parallel.gather_trained(model)
            found["gathering_peak_gb"] = card.peak / 1e9
    finally:
        torch.distributed.destroy_process_group()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="full", choices=["full"])
    parser.add_argument("--size", default="7b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--cards", type=int, default=4)
    parser.add_argument("--card", default="a100-80")
    parser.add_argument("--precision", default="bf16")
    given = parser.parse_args()
    begun = time.perf_counter()
    found = measure(
        given.method, size=given.size, layers=given.layers, cards=given.cards,
        card_name=given.card, precision=given.precision,
    )  # fmt: skip
    print(f"{given.method} {given.size} on {given.cards} cards ({found['wrapped']}), rank 0:")
    for name, value in found.items():
        if isinstance(value, float):
            print(f"   {name} {value:.1f}")
    for tokens, kernels, ops, syncs, peak in found["steps"]:
        print(
            f"   step: {tokens:,} tokens (all ranks), {kernels:,} kernels, {ops:,} ops, {syncs} syncs, peak {peak:.1f} GB"
        )
    for name in ("at_peak_first", "at_peak"):
        print(
            f"   {name}:", *(f"{size:.1f} GB {site}" for site, size in found[name]), sep="\n      "
        )
    print(f"   {time.perf_counter() - begun:.0f} s here")


if __name__ == "__main__":
    main()
