"""A plug-in's method is rehearsed by its name; what a card would refuse is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gpu_rehearsal.conftest import ROOT, Run

CODE = re.search(
    r"```python\n(.*?)```", (ROOT / "docs/adding-a-method.md").read_text(encoding="utf-8"), re.S
)
MADE_ON_THE_CPU = ("self.shift.to(output.dtype)", "torch.zeros(output.shape[-1])")


@pytest.mark.rehearsal
@pytest.mark.parametrize("broken", [False, True])
def test_the_documented_method(run: Run, tmp_path: Path, broken: bool) -> None:
    assert CODE is not None
    code = CODE[1].replace(*MADE_ON_THE_CPU) if broken else CODE[1]
    (tmp_path / "shift.py").write_text(code)
    folder = tmp_path / "mymethods-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mymethods\nVersion: 1.0\n")
    points = "[zbench.methods]\nattention-shift = shift:SHIFT\n"
    (folder / "entry_points.txt").write_text(points)
    module = ("-m", "tests.gpu_rehearsal.matrix", "--methods", "attention-shift")
    done = run(*module, "--pairs", "h200", package=tmp_path)
    assert done.returncode == broken, done.stdout + done.stderr[-4000:]
    assert ("train: " in done.stdout and "device" in done.stdout) == broken
