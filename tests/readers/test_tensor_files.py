"""Tensors from outside: what a file claims is held against its size, and told in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from harness.errors import printable
from harness.readers.files import ADVICE, Unreadable
from harness.readers.tensor_files import check_finite, check_weight_types, read_pth, tensor_header

GOOD = {"a.weight": np.ones((2, 3), "float32"), "b": np.zeros((), "float16")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(GOOD, tmp_path / "a.safetensors", metadata={"format": "pt"})
    return tmp_path / "a.safetensors"


def refused(read: Callable[[Path], object], file: Path, cause: str, line: str) -> None:
    """Checks that a file is refused in one printable line that names it and says what to do."""
    with pytest.raises(Unreadable, match=line) as caught:
        read(file)
    said = str(caught.value)
    assert caught.value.cause == cause
    assert said.startswith(f"{file}: ")
    assert said.endswith(ADVICE[caught.value.cause])
    assert "\n" not in said
    assert printable(said) == said
    assert len(said) < 600


def raw(file: Path, header: object, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(kind: object = "F32", shape: object = (1,), place: object = (0, 4)) -> object:
    return {"dtype": kind, "shape": shape, "data_offsets": place}


def test_a_header_gives_types_and_shapes(file: Path) -> None:
    assert tensor_header(file) == {"a.weight": ("F32", (2, 3)), "b": ("F16", ())}


@pytest.mark.parametrize(
    ("kept", "line"), [(-1, "bytes, its header says"), (40, "its header says"), (0, "is empty")]
)
def test_a_file_that_is_cut_off_is_told(file: Path, kept: int, line: str) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    refused(tensor_header, file, "cut off" if kept else "empty", line)
    file.write_bytes(whole)  # the advice
    assert tensor_header(file)


@pytest.mark.parametrize(
    ("header", "data", "line"),
    [
        (b"{", b"", "is no JSON"),
        (b"\xff\xff", b"", "is no JSON"),
        (b"[]", b"", "no JSON object"),
        (b"[" * 500, b"", "is no JSON"),
        ({"a": 3}, b"", "says of a: 3"),
        ({"a": entry(kind=4)}, b"1234", "says of a"),
        ({"a": entry(shape=[-1])}, b"1234", "says of a"),
        ({"a": entry(shape=[1.0])}, b"1234", "says of a"),
        ({"a": entry(shape=[True])}, b"1234", "says of a"),
        ({"a": entry(shape=[2**61] * 100_000)}, b"1234", "says of a"),
        ({"a": entry(place=[0])}, b"1234", "says of a"),
        ({"a": entry(kind="F31")}, b"1234", "of an unknown type, F31"),
        ({"a": entry(shape=[10**12])}, b"1234", "a has 4 bytes, which is no 1000000000000 of F32"),
        ({"a": entry(place=[4, 8])}, b"12345678", "begins at byte 4 of the data, not at 0"),
        ({"a": entry(), "b": entry()}, b"1234", "b begins at byte 0 of the data, not at 4"),
        ({"a": entry()}, b"12345", "has 1 bytes more"),
        ({"x\x1b[31m" * 99: 1}, b"", r"says of x\\x1b\[31m"),
    ],
)
def test_a_header_that_cannot_be_is_told(
    file: Path, header: object, data: bytes, line: str
) -> None:
    raw(file, header, data)
    before = file.read_bytes()
    refused(tensor_header, file, "damaged", line)
    assert file.read_bytes() == before


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_reads_as_a_pickle_is_read(file: Path, length: int) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    raw(file, header.ljust(length), bytes(4))
    assert file.read_bytes().startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
    assert tensor_header(file) == {"a": ("F32", (1,))}


def test_other_files_in_its_place_are_told(file: Path) -> None:
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
    refused(tensor_header, file, "damaged", "is no safetensors file")
    file.write_text("<!DOCTYPE html><html>not found</html>")
    refused(tensor_header, file, "damaged", "is no safetensors file")
    torch.save({"a": torch.ones(2)}, file)
    refused(tensor_header, file, "other format", "is a file of PyTorch")
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=False)
    refused(tensor_header, file, "other format", "is a file of PyTorch")
    file.unlink()
    os.mkfifo(file)
    refused(tensor_header, file, "special", "is no regular file")
    assert file.is_fifo()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (np.ones(3, "int32"), "a is of type I32; weights are"),
        (np.ones(3, "bool"), "a is of type BOOL"),
        (np.array([1, np.nan, np.inf], "float32"), r"NaN or infinite numbers \(2 of 3\)"),
        (np.array(np.nan, "float16"), r"NaN or infinite numbers \(the only number\)"),
    ],
)
def test_numbers_that_are_no_weights_are_told(file: Path, value: np.ndarray, line: str) -> None:
    def check(path: Path) -> None:
        check_weight_types(path, tensor_header(path))
        check_finite(path, load_file(path))

    save_file({"a": value}, file)
    refused(check, file, "no weights", line)


def test_headers_are_read_without_torch(file: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from harness.readers.tensor_files import tensor_header\n"
        f"print(len(tensor_header(Path({str(file)!r}))))\n"
        "print([name for name in ('torch', 'numpy', 'safetensors') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2", "[]"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_gives_its_tensors(tmp_path: Path, zipped: bool) -> None:
    file, rows = tmp_path / "a.pth", torch.arange(6.0).reshape(2, 3)
    views = {"x": rows[0], "y": rows[1], "z": torch.nn.Parameter(torch.ones(1))}
    torch.save(views, file, _use_new_zipfile_serialization=zipped)
    found = read_pth(file)
    assert found["y"].tolist() == [3.0, 4.0, 5.0]
    assert not found["z"].requires_grad


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "cause", "line"),
    [
        ({"a": torch.zeros(1, 1).expand(10**7, 1000)}, "no weights", "a, 10000000x1000"),
        ({"a": torch.empty(50, device="meta")}, "no weights", "a has no values .*meta"),
        ({"a": torch.ones(3, dtype=torch.int64)}, "no weights", "a is of type torch.int64"),
        ({"a": torch.ones(2).to_sparse()}, "no weights", "a is sparse"),
        ({"a": torch.tensor([torch.nan])}, "no weights", "the only number"),
        ({"a": 3}, "content", "holds no dictionary of tensors"),
        ({3: torch.ones(1)}, "content", "holds no dictionary of tensors"),
        ({}, "content", "holds no dictionary of tensors"),
        ([torch.ones(1)], "content", "holds no dictionary of tensors"),
        ({"a": Code()}, "damaged", "unpickling can run code"),
    ],
)
def test_a_pth_of_anything_else_is_told(
    tmp_path: Path, content: object, cause: str, line: str, zipped: bool, capfd: object
) -> None:
    file = tmp_path / "a.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    refused(read_pth, file, cause, line)
    assert capfd.readouterr() == ("", "")  # type: ignore[attr-defined]  # nothing was executed


def test_a_pth_that_is_damaged_or_unpacks_to_too_much_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.pth"
    torch.save({"a": torch.ones(1000)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-300])
    refused(read_pth, file, "damaged", "begins as an archive of torch.save and is none")
    file.write_bytes(b"nothing of the kind")
    refused(read_pth, file, "damaged", "unpickling can run code")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"0" * 2**20)
    monkeypatch.setattr("harness.readers.tensor_files.MAX_PTH_BYTES", 2**19)
    refused(read_pth, file, "too large", "unpacks to 1 MiB")
    file.write_bytes(whole)
    assert read_pth(file)["a"].sum() == 1000
