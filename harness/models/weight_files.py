"""The weight files of a checkpoint, by their headers: there, whole, and those of its config.json.

Needs neither torch nor transformers.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from harness.errors import printable
from harness.models.advice import Cause, fault_line, model_error
from harness.models.shape import ModelShape
from harness.readers.files import Unreadable, check_file
from harness.readers.json_files import parse_json, read_json_object
from harness.readers.tensor_files import WEIGHT_TYPES, Header, tensor_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
HEADS = ("lm_head.weight", "embed_out.weight")
EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight")
BUFFERS = ("rotary_emb.inv_freq", "attention.bias", "attention.masked_bias")
"""Early conversions store them; they follow from the configuration and are not read."""
LAYER = re.compile(r"^(?:model\.|gpt_neox\.)?layers\.(\d{1,6})\.(.+)$")
NORM = re.compile(r"(?:^|\.)(?:norm|ln_f|final_layer_norm|final_layernorm)\.(?:weight|bias)$")
QUANTISED = re.compile(
    r"\.(qweight|qzeros|weight_packed|weight_scale(_inv)?|weight_shape|scales|absmax|SCB"
    r"|quant_map|quant_state\..*|W_q)$"
)
"""Names that only quantised weights have."""
CHUNK = 8 * 2**20


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights, as transformers chooses them; all are there.

    Raises:
        ModelError: one is missing, or there is none.
        Unreadable: the index is damaged.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.exists() or single.is_symlink():
        return [single]
    if not index.exists():
        raise _no_weights(folder)
    parts = read_json_object(index).get("weight_map")
    names = set(parts.values()) if isinstance(parts, dict) and _are_names(parts.values()) else set()
    if not names:
        raise model_error(
            index, "index", "has no weight_map of tensors' names to files of the folder"
        )
    missing = sorted(name for name in names if not (folder / name).exists())
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        listed = ", ".join(map(printable, missing[:3]))
        found = f"names {listed}{more}, which {'are' if missing[1:] else 'is'} missing"
        raise model_error(index, "shard missing", f"{found} ({len(missing)} of {len(names)} files)")
    return [folder / name for name in sorted(names)]


def _are_names(values: Iterable[object]) -> bool:
    """Whether all are plain names of safetensors files."""
    return all(
        isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")
        for name in values
    )


def _no_weights(folder: Path) -> Exception:
    """Why there are no weights that can be read: as what else they may be there."""
    names = sorted(path.name for path in folder.iterdir())
    pickled = [n for n in names if n.endswith((".bin", ".pt")) and n != "training_args.bin"]
    for name in names:
        if name.endswith((".bin", ".pt", ".pth", ".gguf")):
            try:
                check_file(folder / name)
            except Unreadable as fault:  # no conversion makes weights of it
                return fault
    if pickled:
        return model_error(
            folder,
            "pickled",
            f"its weights are pickled ({printable(pickled[0])}), which can run code",
        )
    if any(name.endswith(".pth") for name in names):
        return model_error(folder, "meta", "its weights are a .pth, Meta's own format")
    if any(name.endswith(".gguf") for name in names):
        return model_error(folder, "gguf", "its weights are a GGUF file, llama.cpp's format")
    others = [n for n in names if n.endswith(".safetensors") and not n.startswith("adapter_")]
    if len(others) == 1:
        return model_error(
            folder / SINGLE, "other name", f"missing, and {printable(others[0])} is not read"
        )
    if others:
        return model_error(
            folder / INDEX,
            "shard missing",
            f"missing, and without it {len(others)} parts are not read",
        )
    return model_error(folder / SINGLE, "no weights", "missing")


def read_headers(files: list[Path]) -> tuple[dict[Path, Header], list[str]]:
    """The headers of weight files, each of them whole, and a line for each that is not."""
    headers, faults = {}, []
    for file in files:
        try:
            headers[file] = tensor_header(file)
        except Unreadable as fault:
            faults.append(str(fault))
    return headers, faults


def tensor_faults(folder: Path, headers: Mapping[Path, Header], shape: ModelShape) -> Iterator[str]:
    """Yields how the tensors of a checkpoint's files are not those of a model of a shape."""
    index = folder / INDEX
    if len(headers) > 1:
        twice = [
            n for n, count in Counter(n for h in headers.values() for n in h).items() if count > 1
        ]
        if twice:
            found = f"{printable(twice[0])} is in two of the files that it names"
            yield fault_line(index, "index", found)
    tensors = {name: entry for header in headers.values() for name, entry in header.items()}
    tensors = {name: entry for name, entry in tensors.items() if not name.endswith(BUFFERS)}
    place = next(iter(headers)) if len(headers) == 1 else folder
    if (quantised := next((name for name in tensors if QUANTISED.search(name)), None)) is not None:
        found = f"its weights are stored quantised ({printable(quantised)})"
        yield fault_line(place, "quantised", found)
        return
    other = [name for name, (kind, _) in tensors.items() if kind not in WEIGHT_TYPES]
    if other:
        kind = tensors[other[0]][0]
        cause: Cause = "quantised" if kind.startswith("F") else "no floats"
        found = f"{printable(other[0])} is of type {kind}"
        yield fault_line(place, cause, found + _more(other))
        return
    yield from _misfits(place, {name: size for name, (_, size) in tensors.items()}, shape)
    if shape.tie_word_embeddings:
        yield from _two_heads(place, headers)


def _uncounted(
    place: Path, sizes: Mapping[str, tuple[int, ...]], shape: ModelShape
) -> Iterator[str]:
    """Yields how the number of parameters differs from the shape's."""
    tied, expected = shape.tie_word_embeddings, shape.num_parameters
    counted = sum(math.prod(n) for name, n in sizes.items() if not (tied and name.endswith(HEADS)))
    if counted != expected:
        said = f"has {counted:,} parameters, a {shape.model_type} of this shape has {expected:,}"
        yield fault_line(place, "parameters" if counted > expected else "tensor missing", said)


def _misfits(place: Path, sizes: Mapping[str, tuple[int, ...]], shape: ModelShape) -> Iterator[str]:
    """Yields where layers differ from each other or are not as many as stated, and other sizes."""
    layers: dict[int, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, size in sizes.items():
        if match := LAYER.search(name):
            layers[int(match[1])][match[2]] = size
    count = shape.num_hidden_layers
    if sorted(layers) != list(range(count)):
        missing = sorted(set(range(count)) - set(layers))
        surplus = sorted(set(layers) - set(range(count)))
        found = f"layer {missing[0]} is missing" if missing else f"it has a layer {surplus[0]}"
        if not layers and sizes:
            found = f"no tensor is named as those of a layer (the first is {printable(min(sizes))})"
        yield fault_line(
            place,
            "layers",
            f"{found}, config.json says num_hidden_layers {count} (0 to {count - 1})",
        )
        return
    usual: dict[str, tuple[int, ...]] = {}
    for name in dict.fromkeys(name for layer in layers.values() for name in layer):
        found_sizes = Counter(layer[name] for layer in layers.values() if name in layer)
        (size, times) = found_sizes.most_common(1)[0]
        if times * 2 >= count:
            usual[name] = size
    missing_ones = [
        f"layer {number}: {printable(name)} is missing, in others it is {_dimensions(size)}"
        for number, layer in sorted(layers.items())
        for name, size in sorted(usual.items())
        if name not in layer
    ]
    if missing_ones:
        yield fault_line(place, "tensor missing", missing_ones[0] + _more(missing_ones))
    odd_ones = [
        f"layer {number}: {printable(name)} is {_dimensions(size)}, in others "
        f"{_dimensions(usual.get(name))}"
        for number, layer in sorted(layers.items())
        for name, size in sorted(layer.items())
        if size != usual.get(name)
    ]
    if odd_ones:
        yield fault_line(place, "tensor missing", odd_ones[0] + _more(odd_ones))
    odd = _wrong_sizes(usual, sizes, shape)
    if odd:
        yield fault_line(place, "weights", odd[0] + _more(odd))
    heads = [name for name in sizes if name.endswith(HEADS)]
    if not heads and not shape.tie_word_embeddings:
        yield fault_line(
            place, "no head", "has no output matrix (lm_head.weight), and config.json ties none"
        )
    elif not (odd or odd_ones or missing_ones):
        yield from _uncounted(place, sizes, shape)


def _wrong_sizes(
    layer: Mapping[str, tuple[int, ...]], sizes: Mapping[str, tuple[int, ...]], shape: ModelShape
) -> list[str]:
    """The linear layers and embeddings whose size is not the shape's."""
    odd = []
    for linear, (inputs, outputs) in shape.linear_layers.items():
        own = [one for one in layer if one.endswith(f".{linear}.weight")]
        found = layer[own[0]] if own else None
        if found != (outputs, inputs):
            said = f"{linear} is {_dimensions(found)} in its layers"
            odd.append(f"{said}, config.json says {outputs}x{inputs}")
    matrix = (shape.vocab_size, shape.hidden_size)
    outside = {name: size for name, size in sizes.items() if not LAYER.search(name)}
    for name, size in outside.items():
        if name.endswith((*EMBEDDINGS, *HEADS)):
            wanted: tuple[int, ...] | None = matrix
        else:
            wanted = (shape.hidden_size,) if NORM.search(name) else None
        if size != wanted:
            said = f"{printable(name)} is {_dimensions(size)}, config.json says "
            odd.append(said + (_dimensions(wanted) if wanted else "nothing of it"))
    if not any(name.endswith(EMBEDDINGS) for name in outside):
        odd.append("it has no embedding (embed_tokens.weight)")
    return odd


def _two_heads(place: Path, headers: Mapping[Path, Header]) -> Iterator[str]:
    """Yields a fault where tied embeddings are stored twice, and not as equal copies."""
    found = {}
    for file, header in headers.items():
        for name in header:
            for kind, names in (("head", HEADS), ("embedding", EMBEDDINGS)):
                if name.endswith(names) and not LAYER.search(name):
                    found[kind] = file, name
    if len(found) < 2:
        return
    (file, head), (other_file, embedding) = found["head"], found["embedding"]
    same_form = headers[file][head] == headers[other_file][embedding]
    if same_form and _same_bytes(file, head, other_file, embedding):
        return
    yield fault_line(
        place,
        "two heads",
        f"config.json ties the embeddings (tie_word_embeddings), yet {printable(head)} and "
        f"{printable(embedding)} differ: it is not said which is the output matrix",
    )


def _same_bytes(file: Path, name: str, other_file: Path, other_name: str) -> bool:
    """Whether two tensors of one type and shape are equal to the bit."""
    with file.open("rb") as one, other_file.open("rb") as two:
        left = _seek(one, file, name)
        _seek(two, other_file, other_name)
        while left > 0:
            size = min(CHUNK, left)
            if one.read(size) != two.read(size):
                return False
            left -= size
    return True


def _seek(opened: BinaryIO, path: Path, name: str) -> int:
    """Goes to where a tensor begins in a file whose header is checked; returns its bytes."""
    length = int.from_bytes(opened.read(8), "little")
    begin, end = parse_json(opened.read(length).decode(), path)[name]["data_offsets"]
    opened.seek(8 + length + begin)
    return int(end - begin)


def _dimensions(size: tuple[int, ...] | None) -> str:
    return "missing" if size is None else "x".join(map(str, size)) or "a scalar"


def _more(found: list[str]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
