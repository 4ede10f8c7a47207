"""Printing never raises, whatever the encoding of a terminal, a pipe or a log."""

from __future__ import annotations

import io
import sys

import pytest

from harness.terminal import print_in_any_encoding


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "5 x 3 - ~ ... caf\\xe9 \\u6a21 \\udcff"),
        ("latin-1", "5 × 3 - ~ ... café \\u6a21 \\udcff"),
        ("cp1252", "5 × 3 – ~ … café \\u6a21 \\udcff"),
        ("utf-8", "5 × 3 – ≈ … café 模 \\udcff"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)
    print_in_any_encoding()
    for stream in (out, errors):
        print("5 × 3 – ≈ … café 模 \udcff", file=stream, end="", flush=True)
        assert stream.buffer.getvalue().decode(encoding) == shown  # type: ignore[attr-defined]


def test_a_stream_that_cannot_be_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    print_in_any_encoding()
    print("café 模")
    assert sys.stdout is stream
    assert stream.getvalue() == "café 模\n"
