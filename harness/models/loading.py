"""Base models and their tokenizers: loaded and identified; trained tensors counted, saved, loaded.

Everything is checked before it is used: a checkpoint that is missing, truncated, of another shape,
or that lacks a tensor is refused in one line, never completed with random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import one_line, plain_message
from harness.models.adapter_folder import (
    dimensions,
    first_faults,
    load_adapter,
    load_tensors,
    save_adapter,
)
from harness.models.advice import model_error
from harness.models.checkpoint import (
    check_checkpoint,
    check_shape,
    find_checkpoint,
    local_folder,
    read_config,
)
from harness.models.devices import DTYPES, Precision, is_out_of_memory
from harness.models.families import FAMILIES
from harness.models.numbers import check_numbers
from harness.models.positions import forget_longer_passes
from harness.models.quantization import Quantization, quantization_config, settle_quantised
from harness.models.shape import shape_of
from harness.models.tokenizer_files import load_tokenizer
from harness.models.trained_files import TRAIN_AGAIN, TRAINED_FILE
from harness.models.weight_files import weight_files
from harness.records.files import atomic_file, save_tensors, sha256_of_files

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import (
        BitsAndBytesConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from harness.models.checkpoint import ModelSpec


@dataclass(frozen=True)
class Base:
    """A base model with its tokenizer, and what says exactly which one it is."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: dict[str, Any]
    """source, revision, commit, weights_sha256, tokenizer_sha256, precision, num_parameters."""
    notes: tuple[str, ...] = ()
    """What its user must know, such as how its tokenizer begins a text."""


def load_base(
    spec: ModelSpec,
    *,
    data_root: Path | None,
    device: str,
    precision: Precision,
    quantization: Quantization | None = None,
) -> Base:
    """Loads a model and its tokenizer from a folder, or from the hub (or its local cache).

    Args:
        spec: which one, and the shape that it must have.
        data_root: what a relative `spec.path` is relative to.
        device: such as `cpu` or `cuda:0`.
        precision: of the weights; what quantised ones are multiplied in.
        quantization: of the weight matrices.

    Raises:
        ModelError: the checkpoint is missing, damaged, or of another shape; or it cannot be
            quantised here.
    """
    quantised = quantization_config(quantization, DTYPES[precision], device)
    with quiet_libraries():
        folder = find_checkpoint(spec, data_root)
        notes = check_checkpoint(spec, folder)
        config = read_config(folder)
        check_shape(folder, shape_of(config), spec.shape)
        weights = weight_files(folder)
        tokenizer = load_tokenizer(folder, spec.shape.vocab_size)
        # Read before use: it holds the state of truncation and padding.
        tokenizer_text = tokenizer.backend_tokenizer.to_str()
        model = _load_weights(folder, config, precision, device, quantised)
    if quantised is not None:
        settle_quantised(model)
    found, counted = model.num_parameters(), spec.shape.num_parameters
    if found != counted:  # biases of its projections, say
        family = spec.shape.model_type
        said = f"has {found:,} parameters, a {family} of this shape has {counted:,}"
        raise model_error(folder, "parameters", said)
    check_numbers(model, weights, folder)
    forget_longer_passes(model)
    local = local_folder(spec, data_root) is not None
    identity: dict[str, Any] = {
        "source": spec.source or folder.name,
        "revision": None if local else spec.revision,
        "commit": None if local else folder.name,
        "weights_sha256": sha256_of_files(weights) if local else None,
        "tokenizer_sha256": hashlib.sha256(tokenizer_text.encode()).hexdigest(),
        "precision": precision,
        "num_parameters": found,
    }
    if quantization is not None:
        identity["quantization"] = quantization
    return Base(model, tokenizer, identity, tuple(notes))


def _load_weights(
    folder: Path,
    config: PreTrainedConfig,
    precision: Precision,
    device: str,
    quantised: BitsAndBytesConfig | None,
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    from harness.models.grouped_heads import repeat_grouped_heads

    repeat_grouped_heads()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[precision],
            quantization_config=quantised,
            # SDPA has no soft caps; every other family runs on it.
            attn_implementation="eager" if FAMILIES[config.model_type].soft_capped else "sdpa",
            use_safetensors=True,
            local_files_only=True,
            # Straight to the device: one process per GPU would else hold the model in host memory.
            device_map=None if device == "cpu" else {"": device},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as fault:  # transformers raises many kinds for a value out of place
        if is_out_of_memory(fault) or "CUDA" in str(fault):
            raise  # the machine's
        found = f"refused by transformers ({plain_message(fault)})"
        raise model_error(folder / "config.json", "config", found) from fault
    model, report = loaded
    faults = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    for name, found, expected in sorted(report["mismatched_keys"]):
        faults.append(f"{name} is {dimensions(found)}, config.json says {dimensions(expected)}")
    # Early conversions of LLaMA store the rotary frequencies, which the configuration gives.
    surplus = sorted(n for n in report["unexpected_keys"] if not n.endswith("rotary_emb.inv_freq"))
    faults += [f"{name} is not part of the model that config.json describes" for name in surplus]
    faults += [one_line(message) for message in report.get("error_msgs") or ()]
    if faults:
        found = f"weights and config.json do not fit: {first_faults(faults)}"
        raise model_error(folder, "weights", found)
    return model.eval()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the libraries' progress bars and reports off the terminal, and restores them."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # the hub's too
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name; a shared one once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """The numbers of trained and of all parameters; a shared one counts once."""
    trained = sum(value.numel() for value in trained_parameters(model).values())
    return trained, sum(value.numel() for value in model.parameters())


def save_trained(
    model: nn.Module,
    folder: Path,
    *,
    base_name: str | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes what is trained to `folder`, whole or not at all.

    An adapter of PEFT is written in PEFT's own format, anything else as the trained tensors.

    Args:
        base_name: the base model's name on the hub or path, for an adapter's configuration.
        tensors: the trained tensors, where the model holds only a part of them.

    Raises:
        StorageError: a file cannot be written.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        save_adapter(model, folder, base_name=base_name)
    else:
        with atomic_file(folder / TRAINED_FILE) as temporary:
            save_tensors(temporary, trained_parameters(model) if tensors is None else tensors)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Reads what was trained into a model to which the same method has been applied.

    Nothing is changed unless names and shapes agree exactly, and an adapter's settings too.

    Raises:
        ModelError: a file is missing or damaged, or holds another method's or model's tensors.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        load_adapter(model, folder, advice=TRAIN_AGAIN)
    else:
        load_tensors(folder / TRAINED_FILE, trained_parameters(model), advice=TRAIN_AGAIN)
