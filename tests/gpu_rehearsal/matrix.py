"""Every method on four kinds of card: trained, resumed, saved, loaded, scored, generating.

    python -m tests.gpu_rehearsal.matrix                               # all, against expected.json
    python -m tests.gpu_rehearsal.matrix --methods lora,full --pairs h200
    python -m tests.gpu_rehearsal.matrix --methods mine                # a plug-in's, by its name
    python -m tests.gpu_rehearsal.matrix --deterministic               # as ZBENCH_DETERMINISTIC=1
    python -m tests.gpu_rehearsal.matrix --methods lora --write        # renews expected.json

The model has two layers of LLaMA-7B's width. A plug-in's method, which expected.json does not know,
must raise nothing. Exit code 1 where anything has gone wrong or differs from what is expected.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch

from harness.methods import METHODS
from harness.models.loading import load_trained, save_trained
from harness.records import environment
from harness.training import loop
from harness.training.checkpoint import Checkpoints
from harness.training.spec import TrainSpec
from tests.gpu_rehearsal import expectations, stage
from tests.gpu_rehearsal.card import Card, rehearsal
from tests.gpu_rehearsal.score import score, score_figures, without_sharing
from tests.gpu_rehearsal.steps import RecordedSteps, recorded_steps

PAIRS = {"h200": "bf16", "a100-80": "bf16", "v100-32": "fp16", "a100-80 fp32": "fp32"}
"""Precision of each card; the name's first word is the card's."""
LAYERS, STEPS, SEQUENCES = 2, 2, 8
"""Layers of the model, optimizer steps of a training, sequences of a step."""
FULL_BATCH = "zero-init-linear"
"""The method that is also trained for a step of its recipe's batch: whose labels are more than one
chunk of logits."""
TASK, ITEMS = "arc_easy", 3
SPOKEN_TASK, RESPONSES, NEW_TOKENS = "paper_arc_easy", 2, 3


class Rehearsal:
    """One method on one card, stage by stage.

    `stages` has the figures of each stage that ran, and of each other one the error in a line.
    """

    def __init__(
        self, method: str, card: Card, precision: str, folder: Path, only: Container[str] | None
    ) -> None:
        self.method, self.card, self.precision, self.folder = method, card, precision, folder
        self.only = only
        self.entry = METHODS[method]
        self.shape = stage.shape_of("7b", LAYERS)
        self.stages: dict[str, Any] = {}
        card.memory.keep_sites = False

    def run(self) -> dict[str, Any]:
        """Runs all stages that the method has."""
        if self.entry.trains:
            self._attempt("train", lambda: self._fit(resume=False))
            if self.method == FULL_BATCH:
                self._attempt("train a full batch", self._fit_a_full_batch)
            # All weights are trained: a checkpoint would be gigabytes of zeros. A sharded model's
            # is rehearsed by `ranks`.
            if self.method != "full":
                if self._trained:
                    self._attempt("resume", lambda: self._fit(resume=True))
                self._attempt("save", self._save)
                self._attempt("load", self._load)
        model = self._fresh()[0].eval()
        self._attempt("score", lambda: self._score(model, TASK, ITEMS))
        with without_sharing():
            self._attempt("score plainly", lambda: self._score(model, TASK, ITEMS))
        self._attempt("generate", lambda: self._score(model, SPOKEN_TASK, RESPONSES))
        return self.stages

    @property
    def _trained(self) -> bool:
        """Whether there are checkpoints to resume from."""
        return (self.folder / "checkpoints").exists()

    def _attempt(self, name: str, action: Callable[[], Any]) -> None:
        if self.only is not None and name not in self.only:
            return
        try:
            self.stages[name] = action()
        except Exception as fault:  # of any kind: it is what a rehearsal looks for
            self.stages[name] = _error_line(fault)

    def _fresh(self) -> tuple[Any, Any, Any]:
        options = {}
        if self.method == "adapter":
            options = {"adapter": str(self._adapter_of_lora())}
        base = stage.base_model(self.shape, self.precision)
        return stage.apply(self.method, base, self.shape, **options)

    def _adapter_of_lora(self) -> Path:
        folder = self.folder / "lora"
        if not folder.exists():
            base = stage.base_model(self.shape, self.precision)
            model = stage.apply("lora", base, self.shape)[0]
            save_trained(model, folder, base_name="base")
        return folder

    def _fit(self, *, resume: bool) -> dict[str, Any]:
        checkpoints = None
        if self.method != "full":
            folder = self.folder / "checkpoints"
            if resume:  # from the step before the last, so that one is left to take
                shutil.rmtree(max(folder.glob("step-*")))
            checkpoints = Checkpoints(folder, {"cell": "rehearsal"}, minutes=0)
        spec = stage.train_spec(self.method, precision=self.precision, batch_size=SEQUENCES)
        recorded = self._fit_steps(spec, STEPS, checkpoints, resume=resume)
        taken, expected = len(recorded.steps), 1 if resume else STEPS
        assert taken == expected, f"{taken} steps were taken instead of {expected}"
        return _step_figures(recorded)

    def _fit_a_full_batch(self) -> dict[str, Any]:
        spec = stage.train_spec(self.method, precision=self.precision)
        return _step_figures(self._fit_steps(spec, 1))

    def _fit_steps(
        self, spec: TrainSpec, steps: int, checkpoints: Any = None, *, resume: bool = False
    ) -> RecordedSteps:
        model, entry, hook = self._fresh()
        with recorded_steps(self.card) as recorded:
            loop.fit(
                *(model, stage.examples(spec.batch_size * steps, spec.max_length), spec),
                seed=0,
                device="cuda",
                precision=self.precision,
                pad_token_id=0,
                data_sha256="",
                hook=hook,
                callbacks=stage.callbacks(model, entry, hook, checkpoints),
                resume=checkpoints.latest() if resume else None,
            )
        return recorded

    def _save(self) -> str:
        save_trained(self._fresh()[0], self.folder / "adapter", base_name="base")
        return "ok"

    def _load(self) -> str:
        load_trained(self._fresh()[0], self.folder / "adapter")
        return "ok"

    def _score(self, model: Any, task: str, limit: int) -> dict[str, Any]:
        self.card.reset()
        outcome = score(model, self.precision, task, limit=limit, new_tokens=NEW_TOKENS)
        return score_figures(self.card, outcome)


def _step_figures(recorded: RecordedSteps) -> dict[str, Any]:
    """Those of the last step: the first makes the optimizer's state, which the others have."""
    figures = recorded.steps[-1].figures()
    return figures | {"ops_around": recorded.around.ops, "syncs_around": recorded.around.syncs}


def _error_line(fault: Exception) -> str:
    """Type, message, and the last line of zbench or another package that it passed."""
    text = (str(fault).strip().splitlines() or ["no message"])[0][:160]
    frames = traceback.extract_tb(fault.__traceback__)
    own = [one for one in frames if not re.search("/torch/|gpu_rehearsal", one.filename)]
    last = (own or frames)[-1]
    place = "/".join(last.filename.split("/")[-2:])
    return f"{type(fault).__name__}: {text} [{place}:{last.lineno}]"


def rehearse(method: str, pair: str, only: Container[str] | None = None) -> dict[str, Any]:
    """What each stage of a method gives on a card of `PAIRS`: its figures, or its error.

    Args:
        only: the stages that are run; None for all. To resume needs the training before it.
    """
    with rehearsal(pair.split()[0]) as card, tempfile.TemporaryDirectory() as folder:
        return Rehearsal(method, card, PAIRS[pair], Path(folder), only).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--pairs", help=", ".join(PAIRS))
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--write", action="store_true", help="renew these entries' expected values")
    parser.add_argument("--stages", help="of each rehearsal, such as train,resume")
    given = parser.parse_args()
    only = given.stages.split(",") if given.stages else None
    if only and given.write:
        parser.error("--write: renews whole entries; leave out --stages")
    logging.getLogger("harness").setLevel(logging.ERROR)  # a training of two steps warns of much
    pairs = given.pairs.split(",") if given.pairs else list(PAIRS)
    if given.deterministic:
        pairs = given.pairs.split(",") if given.pairs else ["h200"]
        os.environ[environment.DETERMINISTIC] = "1"
        environment.prepare_torch(torch.get_num_threads())
    found, failed = {}, 0
    for pair in pairs:
        for method in given.methods.split(","):
            begun = time.perf_counter()
            name = f"{method} | {pair} {PAIRS[pair]}"
            name += " | deterministic" if given.deterministic else ""
            found[name] = rehearse(method, pair, only)
            if given.write:
                expectations.write({name: found[name]})
            known = method in METHODS.own and not given.write
            faults = expectations.faults(name, found[name], known=known, only=only)
            failed += bool(faults)
            outcome = "FAULT" if faults else "ok"
            print(f"{name:48} {outcome} ({time.perf_counter() - begun:.1f} s)")
            print("".join(f"      {fault}\n" for fault in faults), end="", flush=True)
    print(f"{len(found)} rehearsed, {failed} with faults")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
