# ruff: noqa: E501, E402, PT008
"""Every method on four kinds of card: trains, stops, goes on, is saved, loaded, scored, generates.

    python matrix.py [--layers 2] [--methods lora,full] [--pairs h200,v100-32]
    python matrix.py --write expected.json      # the figures of this version
    python matrix.py --expect expected.json     # fails where a figure has changed

A few layers of LLaMA-7B's width. What is compared: waits per step and kernels exactly up to 2 %,
peak memory up to 3 %, the attention kernels by name, the dtypes that attention runs in.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from harness.methods import METHODS
from harness.models import loading as models
from harness.training import loop
from harness.training import step as step_code
from harness.training.checkpoint import Checkpoints
from tests.gpu_rehearsal import card as fakecuda
from tests.gpu_rehearsal import score, stage

TRAINED = [name for name, method in METHODS.items() if method.trains and name != "adapter"]
STEPS = 2
SEQUENCES = 8


@contextlib.contextmanager
def _steps_counted(card: fakecuda.Card, found: list[dict[str, Any]]) -> Any:
    gradients, update = step_code.TrainStep.backward, step_code.TrainStep.update

    def counted_gradients(self: Any, *args: Any) -> Any:
        card.reset()
        totals = gradients(self, *args)
        found.append({"counts": card.counts})
        card.counts = fakecuda.Counts()
        return totals

    def counted_update(self: Any, rate: float, **kwargs: Any) -> None:
        counts = card.counts = found[-1].pop("counts")
        update(self, rate, **kwargs)
        found[-1].update(
            kernels=counts.kernels, ops=counts.ops, syncs=counts.syncs,
            peak_gb=round(card.peak / 1e9, 3), tflop=round(counts.flops / 1e12, 3),
            attention=sorted({f"{key[0]} {key[3]}" for key in counts.attention}),
        )  # fmt: skip
        card.counts = fakecuda.Counts()

    with (
        mock.patch.object(step_code.TrainStep, "backward", counted_gradients),
        mock.patch.object(step_code.TrainStep, "update", counted_update),
    ):
        yield


def rehearse(method: str, card_name: str, precision: str, layers: int) -> dict[str, Any]:
    """Returns a line for each stage: `ok`, or the error; and the figures of the second step."""
    lines: dict[str, Any] = {}
    shape = stage.shape_of("7b", layers)
    recipe = method if METHODS[method].trains else "lora"
    spec = stage.train_spec(recipe, precision=precision, batch_size=SEQUENCES)
    examples = stage.examples(SEQUENCES * STEPS, spec.max_length)
    steps: list[dict[str, Any]] = []

    def attempt(name: str, stage_: Callable[[], Any]) -> Any:
        try:
            with _steps_counted(card, steps):
                result = stage_()
            lines[name] = "ok"
            return result
        except Exception as fault:
            text = str(fault).strip().splitlines() or ["no message"]
            where = [
                f for f in traceback.extract_tb(fault.__traceback__) if "/fake" not in f.filename
            ]
            last = next((f for f in reversed(where) if "torch/" not in f.filename), where[-1])
            lines[name] = (
                f"{type(fault).__name__}: {text[0][:160]} "
                f"[{'/'.join(last.filename.split('/')[-2:])}:{last.lineno}]"
            )
            return None

    with fakecuda.rehearsal(card_name) as card, tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def fresh() -> tuple[Any, Any, Any]:
            return stage.apply(method, stage.base_model(shape, precision), shape)

        def fitted(resume: bool) -> Any:
            model, entry, hook = fresh()
            # All of `full` is trained: its checkpoint would be gigabytes of zeros.
            kept = None
            if method != "full":
                if resume:  # from the step before the last, so that one is left to take
                    shutil.rmtree(max((place / "checkpoints").glob("step-*")))
                kept = Checkpoints(place / "checkpoints", {"cell": "rehearsal"}, minutes=0)
            loop.fit(
                model, examples, spec, seed=0, device="cuda", precision=precision, pad_token_id=0,
                data_sha256="", hook=hook, callbacks=stage.callbacks(model, entry, hook, kept),
                resume=kept.latest() if kept and resume else None,
            )  # fmt: skip
            return model

        if METHODS[method].trains:
            model = attempt("train", lambda: fitted(False))
            if steps and "kernels" in steps[-1]:
                lines["figures"] = steps[-1]
            if method != "full":
                attempt("resume", lambda: fitted(True))
            if model is not None and method != "full":
                attempt(
                    "save", lambda: models.save_trained(model, place / "adapter", base_name="base")
                )
                del model

                def loaded() -> Any:
                    again = fresh()[0]
                    models.load_trained(again, place / "adapter")
                    return again

                attempt("load", loaded)
        model = fresh()[0].eval()
        card.reset()
        outcome = attempt("score", lambda: score.score(model, precision, "arc_easy", limit=3))
        if outcome is not None:
            lines["score figures"] = {
                "attention": sorted({f"{k[0]} {k[3]}" for k in card.counts.attention}),
                "fallback": outcome.batching.fallback, "syncs": card.counts.syncs,
            }  # fmt: skip
        card.reset()
        outcome = attempt(
            "generate",
            lambda: score.score(model, precision, "paper_arc_easy", limit=2, new_tokens=3),
        )
        if outcome is not None:
            lines["generate figures"] = {
                "attention": sorted({f"{k[0]} {k[3]}" for k in card.counts.attention}),
                "fallback": outcome.batching.fallback, "syncs": card.counts.syncs,
            }  # fmt: skip
    return lines


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Returns what has changed."""
    faults = []
    for key, then in expected.items():
        now = found.get(key)
        if isinstance(then, dict) and isinstance(now, dict):
            for name, value in then.items():
                new = now.get(name)
                if isinstance(value, (int, float)) and isinstance(new, (int, float)):
                    share = {"syncs": 0.0, "peak_gb": 0.03}.get(name, 0.02)
                    if abs(new - value) > share * max(abs(value), 1e-9):
                        faults.append(f"{key}/{name}: was {value}, is {new}")
                elif new != value:
                    faults.append(f"{key}/{name}: was {value}, is {new}")
        elif now != then:
            faults.append(f"{key}: was {then}, is {now}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--methods")
    parser.add_argument("--pairs", default=",".join(stage.PAIRS))
    parser.add_argument("--write")
    parser.add_argument("--expect")
    given = parser.parse_args()
    chosen = given.methods.split(",") if given.methods else ["base", *TRAINED]
    expected = json.loads(Path(given.expect).read_text()) if given.expect else {}
    stored: dict[str, Any] = {}
    failed = 0
    for pair in given.pairs.split(","):
        precision = stage.PAIRS[pair]
        for method in chosen:
            begun = time.perf_counter()
            lines = rehearse(method, pair.split()[0], precision, given.layers)
            key = f"{method} | {pair} {precision}"
            stored[key] = lines
            faults = [f"{n}: {t}" for n, t in lines.items() if isinstance(t, str) and t != "ok"]
            if key in expected:
                faults = differences(expected[key], lines)
            failed += bool(faults)
            figures = lines.get("figures", {})
            shown = ", ".join(f"{k} {v}" for k, v in figures.items())
            print(
                f"{key:42} {'ok' if not faults else 'FAULT'}  {shown} ({time.perf_counter() - begun:.1f} s)"
            )
            for fault in faults:
                print(f"      {fault}")
            sys.stdout.flush()
    if given.write:
        Path(given.write).write_text(json.dumps(stored, indent=1))
    print(f"{len(stored)} rehearsed, {failed} with faults")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
