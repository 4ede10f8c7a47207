"""Mutants: values, documents, bytes and tables as nobody means them, each drawn by hypothesis."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

ODD_TEXTS = [
    "", " ", "\0", "a\0b", "\x1b[31m", "\ud800", "[/x]", "[red]x", "..", "/", "~nobody/x", "~",
    "%2F", "a/b", "x" * 300, "x" * 5000, "9" * 5000, "1e999", "nan", "-inf", "true", "010", "ä",
    "\u202e", "${x}", "{{ x }}", "<<", "*a", "&a", "!!int x", "2020-99-99", "0x", "\\", "'", '"',
    "#", "?", "null",
]  # fmt: skip
ODD_NUMBERS = [
    0, -1, 1, 2**31, 2**63, 10**30, 10**400, -(10**30), 0.5, 1e-320, 1e308, float("inf"),
    float("nan"), True, False,
]  # fmt: skip
CONTAINERS: list[Any] = [None, [], {}, [[]], [None], {"a": {}}, [{}], {"": ""}]
ODD_VALUES: list[Any] = [*CONTAINERS, *ODD_TEXTS, *ODD_NUMBERS]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the keys that lead to every value inside a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in inside:
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))


@st.composite
def documents(draw: st.DrawFn, good: dict[str, Any]) -> dict[str, Any]:
    """A good document with one to three values changed, taken out, doubled, renamed or wrapped."""
    mutant = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(mutant))
        if not found:
            return mutant
        *steps, last = draw(st.sampled_from(found))
        holder: Any = mutant
        for step in steps:
            holder = holder[step]
        change = draw(
            st.sampled_from(["put", "put", "put", "drop", "rename", "wrap", "swap", "more"])
        )
        if change == "put":
            holder[last] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
        elif change == "drop":
            del holder[last]
        elif change == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from([text for text in ODD_TEXTS if text != last]))] = (
                holder.pop(last)
            )
        elif change == "wrap":
            holder[last] = draw(
                st.sampled_from([[holder[last]], {"a": holder[last]}, [holder[last]] * 2])
            )
        elif change == "swap":
            other = draw(st.sampled_from(found))
            taken: Any = mutant
            for step in other:
                taken = taken[step] if isinstance(taken, dict | list) else None
            holder[last] = copy.deepcopy(taken)
        elif isinstance(holder, list):
            holder.extend(copy.deepcopy(holder))
        else:
            holder[draw(st.sampled_from(ODD_TEXTS))] = copy.deepcopy(
                draw(st.sampled_from(ODD_VALUES))
            )
    return mutant


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes that were cut, flipped, doubled, or are another file's altogether."""
    change = draw(st.sampled_from(["cut", "flip", "flip", "zeros", "double", "insert", "other"]))
    at = draw(st.integers(0, max(len(good) - 1, 0)))
    if change == "cut":
        return good[:at]
    if change == "flip":
        content = bytearray(good)
        for place in draw(st.lists(st.integers(0, max(len(good) - 1, 0)), max_size=8)):
            content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        return bytes(content)
    if change == "zeros":
        return good[:at] + bytes(min(64, len(good) - at)) + good[at + 64 :]
    if change == "double":
        return good + good
    if change == "insert":
        return good[:at] + draw(st.binary(max_size=16)) + good[at:]
    return draw(
        st.sampled_from(
            [
                b"",
                b"\0" * 4096,
                b"PK\x03\x04" + good,
                b"{}",
                b"[]",
                b"null",
                b"[" * 100_000,
                b"PAR1PAR1",
                b"\xff" * 64,
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
                b"<!DOCTYPE html><html></html>",
                b"\x1f\x8b\x08\0",
                b"\xef\xbb\xbf{}",
                b'{"a": NaN}',
            ]
        )  # fmt: skip
    )


@st.composite
def texts_of(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """A mutant as a file: JSON (which is YAML too), or the good one's bytes damaged."""
    if draw(st.booleans()):
        return json.dumps(draw(documents(good)), indent=1).encode("utf-8", "surrogatepass")
    return draw(damaged(json.dumps(good, indent=1).encode()))


@st.composite
def typos(draw: st.DrawFn, good: str) -> bytes:
    """A text with some characters changed, taken out or added."""
    text = list(good)
    odd = st.sampled_from([*"[]{}:,&*!|>%@`'\"#- \t\n\r\x00\x1b~019eE.<", "<<: *a", "!!int "])
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(text) - 1))
        text[at : at + draw(st.integers(0, 1))] = draw(st.lists(odd, max_size=1))
    return "".join(text).encode()


COLUMN_VALUES: dict[str, Any] = {
    "bytes": lambda n: pa.array([b"\xff"] * n),
    "times": lambda n: pa.array(range(n), pa.timestamp("ns")),
    "decimals": lambda n: pa.array(range(n), pa.int64()).cast(pa.decimal128(30, 2)),
    "nulls": pa.nulls,
    "null texts": lambda n: pa.array([None] * n, pa.string()),
    "one null": lambda n: pa.array(["x"] * (n - 1) + [None]),
    "numbers": lambda n: pa.array(range(n)),
    "floats": lambda n: pa.array([float("nan")] * n),
    "booleans": lambda n: pa.array([True] * n),
    "lists": lambda n: pa.array([["x", "y"]] * n),
    "empty lists": lambda n: pa.array([[]] * n, pa.list_(pa.string())),
    "structs": lambda n: pa.array([{"a": 1}] * n),
    "maps": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    "dictionaries": lambda n: pa.array(["x"] * n).dictionary_encode(),
    "large texts": lambda n: pa.array(["x"] * n, pa.large_string()),
    "views": lambda n: pa.array(["x"] * n).cast(pa.string_view()),
    "empty texts": lambda n: pa.array([""] * n),
    "odd texts": lambda n: pa.array([["\0", "\x1b[31m", "[/x]"][i % 3] for i in range(n)]),
    "long texts": lambda n: pa.array(["word " * 20_000] * n),
}


@st.composite
def tables(draw: st.DrawFn, good: pa.Table) -> pa.Table:
    """A table with columns of other kinds, other names, doubled, gone, or with fewer rows."""
    table = good
    for _ in range(draw(st.integers(1, 2))):
        if not table.num_columns:
            return table
        column = draw(st.integers(0, table.num_columns - 1))
        name = table.column_names[column]
        change = draw(st.sampled_from(["kind", "kind", "kind", "name", "drop", "double", "rows"]))
        if change == "kind":
            kind = draw(st.sampled_from(sorted(COLUMN_VALUES)))
            table = table.set_column(column, name, COLUMN_VALUES[kind](table.num_rows))
        elif change == "name":
            usable = [text for text in ODD_TEXTS if "\ud800" not in text]
            table = table.rename_columns({name: draw(st.sampled_from(usable))})
        elif change == "drop":
            table = table.remove_column(column)
        elif change == "double":
            table = table.append_column(name, table.column(column))
        else:
            table = table.slice(0, draw(st.sampled_from([0, 1, 2])))
    return table


@st.composite
def arrays(draw: st.DrawFn, good: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of which one or two have another type, shape, value or name."""
    mutant = dict(good)
    for _ in range(draw(st.integers(1, 2))):
        if not mutant:
            return mutant
        name = draw(st.sampled_from(sorted(mutant)))
        change = draw(st.sampled_from(["type", "value", "shape", "name", "drop", "more"]))
        tensor = mutant[name]
        if change == "type":
            kind = draw(st.sampled_from(["int8", "int64", "bool", "float16", "float64", "uint8"]))
            mutant[name] = tensor.astype(kind)
        elif change == "value":
            odd = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e38, 0.0]))
            mutant[name] = np.full_like(tensor, odd)
        elif change == "shape":
            shapes = [(-1,), (1, *tensor.shape), tensor.shape[::-1]]
            mutant[name] = tensor.reshape(draw(st.sampled_from(shapes)))
        elif change == "name":
            mutant[draw(st.sampled_from(["x", "", "x\x1b[31m", "y" * 300, name + ".weight"]))] = (
                mutant.pop(name)
            )
        elif change == "drop":
            del mutant[name]
        else:
            mutant["base_model.more"] = np.zeros(3, "float32")
    return mutant
