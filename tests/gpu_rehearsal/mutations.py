"""Breakages that only a card shows, each made in a copy of zbench, and what the rehearsal says.

    python -m tests.gpu_rehearsal.mutations              # all
    python -m tests.gpu_rehearsal.mutations 3 5          # by number

Exit code 1 where one is not caught, or where zbench's text has changed so that it cannot be made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """One breakage, and where it is looked for."""

    title: str
    file: str
    """In harness/."""
    old: str
    """Text that stands there once."""
    new: str
    method: str
    pair: str
    stages: str
    """Of the matrix, with a comma."""
    caught_by: str
    """Part of a line that tells of it."""


MUTATIONS = (
    Mutation(
        "labels left on the CPU",
        "training/packing.py",
        "labels=to_device(np.array(labels), device)",
        "labels=torch.from_numpy(np.array(labels))",
        *("zero-init-linear", "h200", "train", "device"),
    ),
    Mutation(
        "no autocast in scoring",
        "evaluation/lm_eval_session.py",
        "enabled=self.mixed_precision_dtype is not None",
        "enabled=False",
        *("adaption-prompt", "v100-32", "score", "same dtype"),
    ),
    Mutation(
        "no autocast in training",
        "training/step.py",
        "enabled=self.compute_dtype is not None",
        "enabled=False",
        *("full", "v100-32", "train", "train/attention: was ['efficient float16']"),
    ),
    Mutation(
        "a wait for each micro-batch",
        "training/step.py",
        "losses.append(weight * loss.detach())",
        "losses.append(torch.tensor(weight * loss.item(), device=self.device))",
        *("zero-init-linear", "h200", "train", "train/syncs: was 1, is 2"),
    ),
    Mutation(
        "queries, keys and values in fp32",
        "models/packed_attention.py",
        "        return x.index_select(0, rows)",
        "        return x.float().index_select(0, rows)",
        *("zero-init-linear", "v100-32", "train", "train/launches"),
    ),
    Mutation(
        "all logits in one chunk",
        "training/cross_entropy.py",
        '"cuda": 2**26}',
        '"cuda": 2**33}',
        *("zero-init-linear", "h200", "train a full batch", "train a full batch/peak_gb"),
    ),
    Mutation(
        "a mask for causal buckets",
        "models/packed_attention.py",
        "    if causal and length <= window:\n        return None",
        "    if causal and length <= window and device.type == 'cpu':\n        return None",
        *("zero-init-linear", "v100-32", "train", "train/launches"),
    ),
    Mutation(
        "optimizer state on the CPU after a resume",
        "training/step.py",
        "own.to(device, copy=True)",
        "own.clone()",
        *("zero-init-linear", "h200", "train,resume", "same device"),
    ),
    Mutation(
        "the varlen kernel is not taken",
        "models/varlen_attention.py",
        "    if capability < (8, 0):\n",
        "    if capability < (9, 1):\n",
        *("lora", "h200", "train", "train/attention: was ['varlen bfloat16']"),
    ),
    Mutation(
        "dropout without its kernel",
        "methods/dropout_kernel.py",
        "return x.is_cuda and x.dtype in DTYPES",
        "return x.is_cpu and x.dtype in DTYPES",
        *("lora", "h200", "train", "train/gb_moved"),
    ),
    Mutation(
        "tokens are drawn on the card",
        "evaluation/paper/sampling.py",
        'if scores_BV.device.type != "cpu":',
        'if scores_BV.device.type == "meta":',
        *("base", "h200", "generate", "device"),
    ),
    Mutation(
        "a wait for each answer's log-likelihood",
        "evaluation/prefix_trie/scoring.py",
        "found_2M = torch.cat(parts, dim=1).cpu().numpy()",
        "found_2M = np.array([[float(x) for x in row] for row in torch.cat(parts, dim=1)])",
        *("base", "h200", "score", "score/syncs"),
    ),
)


def broken_text(mutation: Mutation) -> str | None:
    """The file's text with the breakage; None where it has changed, so that it cannot be made."""
    file = ROOT / "harness" / mutation.file
    text = file.read_text() if file.is_file() else ""
    if text.count(mutation.old) != 1:
        return None
    return text.replace(mutation.old, mutation.new)


def fault(mutation: Mutation) -> str | None:
    """Why a breakage is not caught; None where it is."""
    if (text := broken_text(mutation)) is None:
        return f"harness/{mutation.file} has changed: adapt the mutation"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "harness"
        shutil.copytree(ROOT / "harness", copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / mutation.file).write_text(text)
        path = os.pathsep.join([folder, str(ROOT)])
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "tests.gpu_rehearsal.matrix"),
                *("--methods", mutation.method, "--pairs", mutation.pair),
                *("--stages", mutation.stages),
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("      ")]
    if done.returncode == 1 and any(mutation.caught_by in line for line in lines):
        return None
    found = lines or (done.stdout + done.stderr).splitlines()[-3:]
    return f"not caught by '{mutation.caught_by}': {'; '.join(found) or 'nothing differs'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, default=range(1, len(MUTATIONS) + 1))
    given = parser.parse_args()
    failed = 0
    for number in given.numbers:
        mutation = MUTATIONS[number - 1]
        reason = fault(mutation)
        failed += reason is not None
        print(f"{number:2} {mutation.title}: {reason or 'caught'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
