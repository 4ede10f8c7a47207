# ruff: noqa: E501, E402, PT008
"""Breakages that only a card shows, made in copies of zbench; what `matrix.py` says of each.

python mutate.py [NUMBER ...]       # needs expected.json; about 10 s of CPU each
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MUTATIONS = [
    ("labels left on the CPU", "packing/layout.py",
     "        labels=_tensor(np.array(labels), device),",
     "        labels=torch.from_numpy(np.array(labels)),", "zero-init-linear,full", "h200"),
    ("gated values stay fp32", "methods/zero_init_attention.py",
     "    gated_HLd = (strength_H11 * value_HLd).to(value_HLd.dtype)",
     "    gated_HLd = strength_H11 * value_HLd", "zero-init-linear", "h200,v100-32"),
    ("no autocast in training", "optimizer.py",
     "enabled=self.compute_dtype is not None", "enabled=False", "zero-init-linear,full,lora", "h200"),
    ("a wait per micro-batch", "optimizer.py",
     "            losses.append(weight * loss.detach())",
     "            losses.append(torch.tensor(weight * loss.item(), device=self.device))",
     "zero-init-linear", "h200"),
    ("queries, keys and values in fp32", "packing/attention.py",
     "        return x.index_select(0, rows)", "        return x.float().index_select(0, rows)",
     "zero-init-linear", "h200"),
    ("all logits in one chunk", "packing/loss.py",
     '"cuda": 2**26}', '"cuda": 2**33}', "zero-init-linear", "h200"),
    ("a mask for causal buckets", "packing/attention.py",
     "    if window is None and not additive:\n        return None",
     "    if window is None and not additive and query_BHTd.device.type == 'cpu':\n        return None",
     "zero-init-linear", "h200"),
    ("optimizer state on the CPU after resume", "optimizer.py",
     "own.to(self.device, copy=True)", "own.clone()", "zero-init-linear", "h200"),
]  # fmt: skip


def main() -> None:
    spec = importlib.util.find_spec("harness")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent
    for number, (title, file, old, new, methods, pairs) in enumerate(MUTATIONS, 1):
        if sys.argv[1:] and str(number) not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "harness"
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            text = (copy / file).read_text()
            if text.count(old) != 1:
                print(f"{number} {title}: {file} has changed, adapt the mutation")
                continue
            (copy / file).write_text(text.replace(old, new))
            done = subprocess.run(
                [sys.executable, str(HERE / "matrix.py"), "--methods", methods, "--pairs", pairs,
                 "--expect", str(HERE / "expected.json")],
                env=os.environ | {"PYTHONPATH": folder}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            print(f"{number} {title}: {'caught' if done.returncode else 'NOT caught'}")
            for line in done.stdout.splitlines():
                if line.startswith("      "):
                    print(f"   {line.strip()[:180]}", flush=True)


if __name__ == "__main__":
    main()
