"""The image encoders of a grid's methods: which they are, and the content of those on no hub.

Their content is part of a cell's id. It is found where a folder lies; where it is not here, what
the runs folder's cells were trained with under the same path says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.demo.world import readable_root
from harness.errors import UsageError, ZbenchError, one_line
from harness.grid.folders import Runs, runs_folders, runs_text, stored_cells
from harness.grid.schema import Cell, GridSpec, MethodChoice
from harness.methods.method import Method, MethodOptions
from harness.methods.zero_init.options import PROMPT_METHODS, image_encoder_of
from harness.models.checkpoint import local_folder
from harness.models.encoder_files import check_encoder_folder, encoder_sha256
from harness.models.image_encoder import ImageEncoderSpec
from harness.readers.files import instead_of
from harness.spec import Faults

OPTION = "image_encoder"
_PLACE = (
    "--data-root (or ZBENCH_DATA_ROOT) names the folder that it is in, or put it beside the grid "
    "file"
)


def image_encoders(options: Iterable[MethodOptions]) -> list[ImageEncoderSpec]:
    """The image encoders of methods, each once."""
    found = (image_encoder_of(one) for one in options)
    return list(dict.fromkeys(one for one in found if one is not None))


def check_entry(raw: Mapping[str, Any], method: Method, faults: Faults) -> dict[str, Any]:
    """A method's keys, without an image encoder that cannot be: that is a fault."""
    kept, said = dict(raw), None
    stated = raw.get(OPTION)
    if stated is not None and OPTION not in method.options.model_fields:
        said = f"'{method.name}' takes no pictures; it is an option of {', '.join(PROMPT_METHODS)}"
    elif isinstance(stated, Mapping) and "sha256" in stated:
        said = "sha256 is found with the files; leave it out"
    if said is not None:
        faults.add(said, OPTION)
        del kept[OPTION]
    return kept


def beside_grid(options: MethodOptions, folder: Path | None) -> MethodOptions:
    """A method's options, whose image encoder may lie in the folder of the grid file."""
    encoder = image_encoder_of(options)
    if encoder is None or folder is None or OPTION not in type(options).model_fields:
        return options
    return options.model_copy(update={OPTION: encoder.beside(folder)})


def check_encoder_input(encoder: ImageEncoderSpec, data_root: Path | None) -> None:
    """Looks at an encoder that is not the hub's by its small files.

    Raises:
        ZbenchError: it is not there, or not as the grid states.
    """
    folder = local_folder(encoder, data_root)
    if folder is None:
        if encoder.source is None:
            raise UsageError(f"image_encoder.path: {encoder.path} is relative; {_PLACE}")
        return  # the hub is read
    if not folder.exists():
        raise UsageError(f"image_encoder.path: no folder {folder}{instead_of(folder)}")
    check_encoder_folder(
        folder, width=encoder.width, scales=encoder.scales, pretrained=encoder.pretrained
    )


@dataclass
class OwnEncoders:
    """What is known of the image encoders that are on no hub."""

    contents: dict[ImageEncoderSpec, str] = field(default_factory=dict)
    """SHA-256 of their files."""
    faults: dict[ImageEncoderSpec, str] = field(default_factory=dict)
    """Why the content is not known, in one line."""

    def settle(self, grid: GridSpec) -> GridSpec:
        """The grid, whose methods name the content of their encoders."""
        if not self.contents:
            return grid
        blocks = [
            block.model_copy(update={"methods": tuple(map(self._settled, block.methods))})
            for block in grid.blocks
        ]
        return grid.model_copy(update={"blocks": tuple(blocks)})

    def _settled(self, choice: MethodChoice) -> MethodChoice:
        encoder = image_encoder_of(choice.options)
        stated = OPTION in type(choice.options).model_fields  # an imported adapter's are its own
        if not stated or encoder is None or encoder not in self.contents:
            return choice
        named = encoder.model_copy(update={"sha256": self.contents[encoder]})
        options = choice.options.model_copy(update={OPTION: named})
        return choice.model_copy(update={"options": options})

    def fault_of(self, cells: Iterable[Cell]) -> str | None:
        """Why it is not known what pictures of some of the cells are encoded with."""
        if not self.faults:
            return None
        own = (cell.options for cell in cells if OPTION in type(cell.options).model_fields)
        return next((self.faults[one] for one in image_encoders(own) if one in self.faults), None)


def find_own_encoders(grid: GridSpec, data_root: Path | None, runs: Runs) -> OwnEncoders:
    """The content of a grid's image encoders, as far as they are on no hub."""
    found = OwnEncoders()
    for folder in runs_folders(runs):
        data_root = readable_root(folder, data_root)
    own = (one.options for one in grid.choices if OPTION in type(one.options).model_fields)
    for spec in image_encoders(own):
        if spec.source is None:
            try:
                found.contents[spec] = _content(spec, data_root, runs)
            except UsageError as fault:
                found.faults[spec] = f"{OPTION}.path: {fault}"
    return found


def _content(spec: ImageEncoderSpec, data_root: Path | None, runs: Runs) -> str:
    """The content of an encoder's files.

    Raises:
        UsageError: it is not known.
    """
    folder = local_folder(spec, data_root)
    if folder is not None and folder.exists():
        try:
            return encoder_sha256(folder, pretrained=spec.pretrained)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read ({one_line(error)})") from error
        except ZbenchError as error:
            raise UsageError(str(error)) from error
    known = set(_trained_with(spec, runs))
    if len(known) == 1:
        return known.pop()
    if known:
        listed = ", ".join(sorted(sha256[:12] for sha256 in known))
        raise UsageError(
            f"{spec.path}: {len(known)} encoders of this name were trained with in "
            f"{runs_text(runs)} ({listed}); {_PLACE}"
        )
    if folder is not None:
        raise UsageError(f"no folder {folder}; put the encoder there, or correct the path")
    raise UsageError(f"{spec.path}: is relative; {_PLACE}")


def _trained_with(spec: ImageEncoderSpec, runs: Runs) -> Iterator[str]:
    """Yields the content of every encoder that stored cells have under a path."""
    for _, cell in stored_cells(runs):
        stored: Any = cell.get("options")
        stated = stored.get(OPTION) if isinstance(stored, dict) else None
        if not isinstance(stated, dict) or not isinstance(stated.get("sha256"), str):
            continue
        path, pretrained = str(stated.get("path")), stated.get("pretrained", True)
        same = path == spec.path or path.endswith(f"/{spec.path}")
        if same and pretrained == spec.pretrained:
            yield stated["sha256"]
