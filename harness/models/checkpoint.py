"""Checkpoint folders: find one, on disk or on the hub, and check what is in it.

A checkpoint that is missing, truncated or of another shape is refused in one line, before any of
its weights are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from pydantic import PrivateAttr, model_validator

from harness.errors import ModelError, plain_message, shortened
from harness.models.advice import fault_line, model_error
from harness.models.checkpoint_folder import (
    CONFIG_FILE,
    check_folder,
    quantization_kind,
    read_settings,
    settings_shape,
    shape_differences,
    shape_faults,
)
from harness.models.positions import position_notes, rope_faults
from harness.models.settings_types import config_faults
from harness.models.shape import ModelShape
from harness.models.tokenizer_files import check_tokenizer
from harness.models.weight_files import read_headers, tensor_faults, weight_files
from harness.readers.files import Unreadable
from harness.records.prefetched import is_prefetched
from harness.spec import Faults, Spec, UserPath, is_hub_name, place_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Found = TypeVar("Found")
HUB_FILES = ("*.json", "model*.safetensors")
"""What is read of a model's repository on the hub."""


class Located(Protocol):
    """What a grid says of where a checkpoint is: a base model's, or an image encoder's."""

    @property
    def source(self) -> str | None: ...

    @property
    def path(self) -> str | None: ...

    @property
    def revision(self) -> str: ...

    @property
    def grid_folder(self) -> Path | None: ...


def local_folder(spec: Located, data_root: Path | None) -> Path | None:
    """The folder that a model's `path` names; None where the hub's copy is read.

    That is the one under the data root, or where there is none the one beside the grid file. Where
    neither is there, a prefetched data root has the hub's copy.
    """
    under = place_of(spec.path, data_root)
    if spec.path is None or (under is not None and under.exists()):
        return under
    if spec.grid_folder is not None and (beside := spec.grid_folder / spec.path).exists():
        return beside
    return None if spec.source is not None and is_prefetched(data_root) else under


def find_checkpoint(spec: ModelSpec, data_root: Path | None) -> Path:
    """The folder of a model, downloaded from the hub where it has to be.

    Raises:
        ModelError: it is missing, gated, or out of reach.
    """
    folder = local_folder(spec, data_root)
    if folder is None and spec.source is not None:
        return hub_snapshot(spec, HUB_FILES)
    if folder is None:
        raise ModelError(f"{spec.path}: {NOT_BESIDE}")
    check_folder(folder)
    return folder


NOT_BESIDE = (
    "this path is relative, and no such folder lies beside the grid file; --data-root names the "
    "folder that it is in"
)


def hub_snapshot(spec: Located, files: Sequence[str], what: str = "the model") -> Path:
    """The folder of a hub repository in the local cache; its name is the revision's commit.

    Args:
        files: patterns of those that are read.
        what: the entry of the grid that names it.

    Raises:
        ModelError: it is missing, gated, or out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    assert spec.source is not None
    name = f"{spec.source}@{spec.revision}"
    try:
        return Path(snapshot_download(spec.source, revision=spec.revision, allow_patterns=[*files]))
    except GatedRepoError as fault:
        raise ModelError(
            f"{name}: gated; accept its licence at https://huggingface.co/{spec.source}, then run "
            "'hf auth login'"
        ) from fault
    except RevisionNotFoundError as fault:
        raise ModelError(
            f"{name}: the model has no such revision; correct {what}'s revision"
        ) from fault
    except RepositoryNotFoundError as fault:
        raise ModelError(
            f"{name}: no such model on the hub, or a private one; correct {what}'s source, or "
            "run 'hf auth login'"
        ) from fault
    except HFValidationError as fault:
        raise ModelError(f"{name}: {plain_message(fault)}; correct {what}'s source") from fault
    except Exception as fault:  # no network, a proxy, a full disk: of many libraries' kinds
        raise ModelError(
            f"{name}: neither in the local cache nor to be had from the hub "
            f"({plain_message(fault)}); where there is a network, run 'zbench prefetch' and give "
            f"its folder as --data-root, or give a copy's folder as {what}'s path"
        ) from fault


STORED = "its weights are stored quantised ({})"


def check_checkpoint(
    spec: ModelSpec, folder: Path, *, max_length: int | None = None, before_run: bool = False
) -> list[str]:
    """Checks a checkpoint folder by its small files and its headers; loads no weights.

    Needs neither torch nor transformers.

    Args:
        max_length: tokens of the longest text that the model is to be trained on.
        before_run: whether a grid's other models shall run where this one is stored quantised,
            which is then told and fails its own cells alone.

    Returns:
        What whoever uses it must know, one line each.

    Raises:
        ModelError: what is wrong with it: each fault is a line.
    """
    check_folder(folder)
    faults = _Faults()
    settings = faults.of(read_settings, folder)
    if settings is None:
        raise ModelError("\n".join(faults.lines))
    shape = settings_shape(settings)
    misfits = list(shape_faults(folder, settings, spec.shape))
    faults.lines += misfits or config_faults(folder / CONFIG_FILE, settings)
    faults.lines += rope_faults(folder, settings)
    kind = quantization_kind(folder, settings)
    quantised = [] if kind is None else [fault_line(folder, "quantised", STORED.format(kind))]
    if not before_run:
        faults.lines += quantised
    files = faults.of(weight_files, folder) or []
    headers, cut = read_headers(files)
    faults.lines += cut
    if headers and not cut and kind is None and not misfits:
        faults.lines += tensor_faults(folder, headers, spec.shape)
    vocab_size = max(spec.shape.vocab_size, shape.vocab_size if shape else 0)
    wrong, notes = faults.of(check_tokenizer, folder, settings, vocab_size) or ([], [])
    faults.lines += wrong
    if faults.lines:
        raise ModelError("\n".join(dict.fromkeys(faults.lines)))
    quantised = [f"{line}; its cells will fail" for line in quantised]
    return [*quantised, *notes, *position_notes(settings, max_length)]


class _Faults:
    """Lines of faults, gathered over checks that each end with their first."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def of(self, check: Callable[..., Found], *arguments: object) -> Found | None:
        """What a check returns; None where it raises, and then its line is kept."""
        try:
            return check(*arguments)
        except (ModelError, Unreadable) as fault:
            self.lines.append(str(fault))
            return None


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a checkpoint of a supported family.

    Raises:
        ModelError: it is missing or damaged, or of another architecture.
        Unreadable: it cannot be read.
    """
    from transformers import AutoConfig

    check_folder(folder)
    read_settings(folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as fault:  # transformers raises many kinds for a value out of place
        found = f"refused by transformers ({plain_message(fault)})"
        raise model_error(folder / CONFIG_FILE, "config", found) from fault


def check_shape(folder: Path, found: ModelShape, stated: ModelShape) -> None:
    """Checks that a checkpoint has the shape that a grid states for it.

    Raises:
        ModelError: it has not; every field that differs is named.
    """
    if (differing := shape_differences(found, stated)) is not None:
        raise model_error(folder / CONFIG_FILE, "shape", differing)


class ModelSpec(Spec):
    """A base model: a hub repository, or a folder, or a folder that holds a copy of one."""

    source: str | None = None
    """Hub repository, such as `huggyllama/llama-7b`."""
    path: UserPath | None = None
    """Checkpoint folder: absolute, under the data root, or beside the grid file. It takes
    precedence over `source`."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository; the resolved commit stays with each result."""
    shape: ModelShape
    """Stated, so that parameters are counted without loading; checked when the model is loaded."""
    _beside: Path | None = PrivateAttr(default=None)
    """The folder of the grid file that states the path."""

    def beside(self, folder: Path) -> Self:
        """The same, of a grid file in this folder, which its path may be relative to."""
        copied = self.model_copy()
        copied._beside = folder
        return copied

    @property
    def grid_folder(self) -> Path | None:
        """The folder of the grid file that states the path, which a record of it does not hold."""
        return self._beside

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.source is None and self.path is None:
            raise ValueError("give `source` (a hub repository) or `path` (a folder)")
        if self.path is None and not is_hub_name(str(self.source)):
            faults = Faults()
            said = "must be a model of the hub, as owner/name; a folder of your own is `path`"
            faults.add(f"{said} (got '{shortened(str(self.source))}')", "source")
            faults.check()
        return self
