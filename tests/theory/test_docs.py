"""docs/theory.md: its blocks of Python run, and its claims carry their conditions."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "theory.md"


def test_the_blocks_of_python_run_one_after_the_other() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert sum("assert" in block for block in blocks) >= 3


def test_joint_attention_is_called_slow_only_where_it_is_denied_or_conditioned() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    said = re.findall(r"[^.;:]*\b(?:slow|slower|fails)\b[^.;:]*", text)
    assert said
    for sentence in said:
        assert re.search(r"fixed truth|copies", sentence), sentence
