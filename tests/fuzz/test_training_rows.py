"""Mutants of training data of every format: what cannot be read is one line, with its file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
from hypothesis import given
from hypothesis import strategies as st

from harness.data.sets import read_instructions
from harness.data.spec import DataSpec
from harness.errors import ZbenchError
from tests.data.test_formats import FORMATS
from tests.fuzz.conftest import Watch, mutants
from tests.fuzz.mutants import damaged, documents

TABLE = [
    {"instruction": f'Say "{i}",\nnow', "input": "", "output": f"It is {i}."} for i in range(9)
]
CHATS = [
    {
        "messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "x"}],
        "tools": None,
    }
    for i in range(5)
]
TEXTS = ("csv", "tsv", "semicolons")
SETTINGS: list[Mapping[str, Any]] = [
    {},
    {"on_bad_rows": "drop"},
    {"on_bad_rows": "keep"},
    {"where": "output|length < 50 or instruction"},
    {"where": {"max_characters": 20}},
]


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of rows of which something is changed: its values, or its bytes, packed or not."""
    rows = draw(st.sampled_from([TABLE, CHATS]))
    names = [name for name in FORMATS if rows is TABLE or name not in TEXTS]
    if draw(st.booleans()):  # values
        content = draw(documents({"rows": rows})).get("rows")
        lines = content if isinstance(content, list) else [content]
        texts = [json.dumps(line, default=str) for line in lines]
        form = draw(st.sampled_from(["[%s]", "%s"]))
        good = (form % (", " if form[0] == "[" else "\n").join(texts)).encode()
    else:
        good = draw(damaged(FORMATS[draw(st.sampled_from(names))](rows)))
    packed = draw(st.integers(0, 3))
    if packed == 1:
        good = draw(damaged(gzip.compress(good)))
    elif packed == 2:
        good = draw(damaged(pyarrow.compress(good, codec="zstd", asbytes=True)))
    return good


def test_mutants_of_training_rows(watch: Watch, tmp_path: Path) -> None:
    path = tmp_path / "rows"

    @mutants(quick=150, long=5000)
    @given(files(), st.sampled_from(SETTINGS))
    def try_one(content: bytes, settings: Mapping[str, Any]) -> None:
        path.write_bytes(content)
        spec = DataSpec.model_validate({"path": str(path), **settings})
        with watch.trial("training rows") as found:
            said = None
            try:
                data = read_instructions(spec, data_root=None)
                assert len(data.rows) == data.report.rows
            except ZbenchError as fault:
                found.refused += 1
                said = str(fault)
            assert said is None or len(said.splitlines()) == 1
            assert said is None or said.startswith(str(path))

    try_one()
