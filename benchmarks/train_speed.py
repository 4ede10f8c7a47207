"""Measures zbench's training step against the field's loops, on real Alpaca.

    ZBENCH_DATA_ROOT=... OMP_NUM_THREADS=1 python benchmarks/train_speed.py [--quick] [--json]

A unit of work is one optimizer batch of 64 sequences, whole: gradients and AdamW's step. zbench and
a peer train on the same batches in one process, in turn; a ratio is the median over the batches of
the peer's time over ours (transformers' Trainer runs through all of them at once: there it is the
ratio of the sums). The models are random LLaMAs with LLaMA's tokenizer of 32,000 pieces: no time
depends on what the weights are. On a CPU use one thread: then times are the processor's, and other
work on the machine does not count.

The peers: (a) our method in a plain loop that pads every sequence to 512 tokens, as the paper's
authors do; (b) PEFT's AdaptionPrompt in a plain loop, (c) in the Trainer; (d) PEFT's LoRA in both;
(e) full fine-tuning in the Trainer; (f) TRL's SFTTrainer with packing (`trl_runs` says what it
computes), left out where it is not installed. Plain loops pad to a micro-batch's longest sequence
and compute all logits.

With a GPU: LLaMA-7B's shape in bf16, our methods alone; the time for 5 epochs is projected.

Gradients are compared with those of one sequence at a time, without dropout: the largest relative
distance of any trained tensor. Peak memory is what a process needs beyond the model and what is
imported: on a CPU the growth of its resident set, each run in a fork of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import trl_runs
from benchmarks.measuring import clock, print_line
from benchmarks.training_runs import (
    MAX_LENGTH,
    Batches,
    Run,
    adapt,
    alpaca_batches,
    matrix_peak,
    operations,
    plain_gradients,
    runner,
)
from harness.models.loading import trained_parameters
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep

ADAPTION = "adaption-prompt"
PEERS: dict[str, tuple[str, Run]] = {
    "pad-512": ("zero-init-linear", Run("zero-init-linear", "plain", pad_to=MAX_LENGTH)),
    "peft-adaption-4": ("zero-init-linear", Run(ADAPTION, "plain", 4)),
    "peft-adaption-16": ("zero-init-linear", Run(ADAPTION, "plain", 16)),
    "trainer-adaption": ("zero-init-linear", Run(ADAPTION, "trainer", 4)),
    "trainer-adaption-grouped": (
        "zero-init-linear",
        Run(ADAPTION, "trainer", 4, grouped=True),
    ),
    "nonlinear:peft-adaption-4": ("zero-init-nonlinear", Run(ADAPTION, "plain", 4)),
    "peft-lora-4": ("lora", Run("lora", "plain", 4)),
    "trainer-lora": ("lora", Run("lora", "trainer", 4)),
    "trainer-lora-grouped": ("lora", Run("lora", "trainer", 4, grouped=True)),
    "trainer-full": ("full", Run("full", "trainer", 4)),
    "trainer-full-grouped": ("full", Run("full", "trainer", 4, grouped=True)),
    "trl-lora": ("lora", Run("lora", "trl", 1)),
    "trl-lora-4": ("lora", Run("lora", "trl", 4)),
    "trl-full": ("full", Run("full", "trl", 1)),
}
"""By name: our method, and what it is measured against."""
QUICK = ("pad-512", "peft-adaption-4", "peft-adaption-16", "peft-lora-4", "trainer-full-grouped")
ON_A_CARD = ("zero-init-linear", "zero-init-nonlinear", "random-init", "lora")
EPOCH_TOKENS = 6_600_000
"""Of Alpaca with LLaMA's tokenizer."""


@dataclass(frozen=True)
class Measured:
    """One peer with one model."""

    peer: str
    model: str
    method: str
    seconds: float
    """Ours, per optimizer batch."""
    peer_seconds: float
    ratio: float
    """The peer's time over ours."""
    max_relative_gradient_difference: float | None
    peak_memory_ratio: float | None
    """Our peak over the peer's."""
    tokens_per_second: float
    """Ours; real tokens, each sequence's counted whole."""
    matrix_peak_share: float
    """Operations of our linear layers and head, over what one large product reaches."""


def timed(train: Any, batches: Batches) -> float:
    """Returns the seconds of training on batches; a loop that takes its own time is believed."""
    start = clock()
    seconds = train(batches)
    return clock() - start if seconds is None else seconds


def measure(peer: str, size: str, batches: Batches, arguments: argparse.Namespace) -> Measured:
    """Measures one peer with one model."""
    method, run = PEERS[peer]
    budget = arguments.token_budget
    model = adapt(method, size)
    ours = runner(Run(method, "zbench"), model, token_budget=budget)
    theirs = runner(run, adapt(run.method, size))
    ours([batches[0][:4]])
    theirs([batches[0][:4]])
    if run.loop == "trainer":
        own = [timed(ours, [batch]) for batch in batches]
        total = timed(theirs, batches)
        seconds, peer_seconds = sum(own) / len(own), total / len(own)
        ratio = total / sum(own)
    else:
        pairs = [(timed(ours, [batch]), timed(theirs, [batch])) for batch in batches]
        seconds, peer_seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(other / own for own, other in pairs)
    tokens = sum(len(example.token_ids) for batch in batches for example in batch) / len(batches)
    speed = statistics.mean(operations(model, batch, budget) for batch in batches) / seconds
    return Measured(
        peer=peer,
        model=size,
        method=method,
        seconds=seconds,
        peer_seconds=peer_seconds,
        ratio=ratio,
        max_relative_gradient_difference=None,
        peak_memory_ratio=None,
        tokens_per_second=tokens / seconds,
        matrix_peak_share=speed / matrix_peak(),
    )


def print_gpu(arguments: argparse.Namespace, batches: Batches) -> None:
    """Prints what our own training of LLaMA-7B reaches on this GPU, method by method."""
    found = {}
    for method in ON_A_CARD:
        model = adapt(method, "7B")
        train = runner(Run(method, "zbench"), model, token_budget=arguments.token_budget)
        train(batches[:1])
        torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(timed(train, [batch]) for batch in batches)
        tokens = sum(len(one.token_ids) for batch in batches for one in batch) / len(batches)
        work = statistics.mean(
            operations(model, batch, arguments.token_budget) for batch in batches
        )
        found[method] = {
            "model": "7B",
            "tokens_per_second": tokens / seconds,
            "matrix_peak_share": work / seconds / matrix_peak(),
            "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
            "minutes_for_5_epochs": 5 * EPOCH_TOKENS / tokens * seconds / 60,
        }
        if not arguments.json:
            figures = found[method].items()
            print(method, *(f"{key} {value:.3g}" for key, value in figures if key != "model"))
        del model, train
        torch.cuda.empty_cache()
    if arguments.json:
        print(json.dumps(found, indent=1))


def gradient_difference(method: str, size: str, examples: Sequence[Any]) -> float:
    """Returns the largest relative distance of our gradients from one sequence at a time's."""
    model = adapt(method, size, moved=True)
    device = next(model.parameters()).device
    parameters = trained_parameters(model)
    plain_gradients(model, examples, 1)
    expected = {name: value.grad for name, value in parameters.items()}
    model.zero_grad(set_to_none=True)
    train_step = TrainStep(
        model, TrainSpec(learning_rate=1e-4), device=device, precision="fp32", pad_token_id=0
    )
    train_step.backward(examples, 1)
    return max(
        ((value.grad - expected[name]).norm() / expected[name].norm()).item()
        for name, value in parameters.items()
        if expected[name] is not None and expected[name].any()
    )


def peaks(arguments: argparse.Namespace, size: str) -> dict[str, float]:
    """Returns the ratios of peak memory by peer, from a process that does nothing else."""
    command = [sys.executable, __file__, "--models", size, "--peaks", "--peers", *arguments.peers]
    command += ["--data-root", str(arguments.data_root), "--batches", "1"]
    command += ["--sequences", str(arguments.sequences)]
    if arguments.token_budget:
        command += ["--token-budget", str(arguments.token_budget)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_peaks(arguments: argparse.Namespace) -> None:
    """Prints the ratios of `peaks`; each run in a fork of this process."""
    batches = alpaca_batches(arguments.data_root, 1, arguments.sequences)
    known: dict[Run, int] = {}
    ratios = {}
    for peer in arguments.peers:
        method, run = PEERS[peer]
        for one in (Run(method, "zbench"), run):
            if one not in known:
                known[one] = peak_in_fork(one, arguments, batches)
        ratios[peer] = known[Run(method, "zbench")] / known[run]
        print(peer, known[Run(method, "zbench")] >> 20, known[run] >> 20, "MiB", file=sys.stderr)
    print(json.dumps(ratios))


def peak_in_fork(run: Run, arguments: argparse.Namespace, batches: Batches) -> int:
    """Returns the bytes that training on one batch takes beyond the loaded model."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nowhere:  # the Trainer prints
            os.dup2(nowhere.fileno(), 1)
            os.write(writing, str(peak(run, arguments, batches)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as result:
        text = result.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit(f"{run}: the process whose memory is measured has died")
    return int(text)


def peak(run: Run, arguments: argparse.Namespace, batches: Batches) -> int:
    """Trains on the batches in this process; returns the growth of its peak memory in bytes."""
    model = adapt(run.method, arguments.models[0])
    train = runner(run, model, token_budget=arguments.token_budget)
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        train(batches)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak is what is there now
    before = _resident("VmRSS")
    train(batches)
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise SystemExit("peak memory is read from /proc, which is Linux's; leave it out: --no-memory")


COLUMNS = "{:26} {:>5} {:20} {:>8} {:>8} {:>6} {:>9} {:>7} {:>9} {:>6}"


def read_arguments() -> argparse.Namespace:
    """Returns the command line's arguments."""
    parser = argparse.ArgumentParser(description="Speed of training against the field's loops.")
    parser.add_argument("--quick", action="store_true", help="few peers; within 5 minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--models", nargs="+", choices=["15M", "110M", "7B"])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS))
    parser.add_argument("--batches", type=int, help="optimizer batches; 1 if quick, else 3")
    parser.add_argument("--sequences", type=int, help="of a batch; 32 if quick, else 64")
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument(
        "--data-root", type=Path, default=os.environ.get("ZBENCH_DATA_ROOT"), help="local data"
    )
    parser.add_argument("--peaks", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data_root is None:
        parser.error("name the folder of the data with --data-root or ZBENCH_DATA_ROOT")
    quick = arguments.quick
    if arguments.models is None:
        arguments.models = ["15M"] if quick else ["15M", "110M"]
        arguments.models = ["7B"] if torch.cuda.is_available() else arguments.models
    if "7B" in arguments.models and not torch.cuda.is_available():
        parser.error("7B is for a GPU, and there is none; give --models 15M 110M")
    arguments.peers = arguments.peers or list(QUICK if quick else PEERS)
    if (reason := trl_runs.why_not()) is not None:
        left_out = [peer for peer in arguments.peers if PEERS[peer][1].loop == "trl"]
        arguments.peers = [peer for peer in arguments.peers if peer not in left_out]
        if left_out:
            print(f"left out: {', '.join(left_out)}: {reason}", file=sys.stderr)
    arguments.batches = arguments.batches or (1 if quick else 3)
    arguments.sequences = arguments.sequences or (32 if quick else 64)
    return arguments


def main() -> None:
    """Measures and prints."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    arguments = read_arguments()
    if arguments.peaks:
        print_peaks(arguments)
        return
    batches = alpaca_batches(arguments.data_root, arguments.batches, arguments.sequences)
    if arguments.models == ["7B"]:
        print_gpu(arguments, batches)
        return
    keys = ("peer", "model", "method", "peer_seconds", "seconds", "ratio", "tokens_per_second")
    keys += ("matrix_peak_share", "max_relative_gradient_difference", "peak_memory_ratio")
    if not arguments.json:
        print(f"{torch.get_num_threads()} CPU threads, batches of {arguments.sequences} sequences")
        titles = ("peer", "model", "method", "peer s", "zbench s", "ratio", "tokens/s", "peak")
        print_line(COLUMNS, (*titles, "max |dg|", "memory"))
    found: dict[str, Any] = {}
    for size in arguments.models:
        memory = {} if arguments.no_memory else peaks(arguments, size)
        differences: dict[str, float] = {}
        for peer in arguments.peers:
            method = PEERS[peer][0]
            if method not in differences:
                differences[method] = gradient_difference(method, size, batches[0][:16])
            row = asdict(measure(peer, size, batches, arguments))
            row["max_relative_gradient_difference"] = differences[method]
            row["peak_memory_ratio"] = memory.get(peer)
            several = len(arguments.models) > 1
            found[f"{peer}/{size}" if several else peer] = row
            if not arguments.json:
                print_line(COLUMNS, [row[key] for key in keys])
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
