"""The validation rows of a cell: read, followed in its events, and told in its result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.cell.examples import cell_examples
from harness.cell.settings import CellContext
from harness.data.places import data_files, sha256_of_data
from harness.data.sets import Instructions, rows_sha256
from harness.data.validation import read_validation, validation_set
from harness.errors import DataError
from harness.grid.folders import CHECKPOINTS_FOLDER
from harness.grid.names import data_place
from harness.records.events import EpochValidated
from harness.training.validation import Validation

if TYPE_CHECKING:
    from harness.models.loading import Base


class CellValidation(Validation):
    """Measures the loss on a cell's validation rows, and emits an event for each epoch."""

    def __init__(self, context: CellContext, base: Base, data: Instructions) -> None:
        train = context.cell.train
        assert train is not None
        self._context, self.rows_sha256 = context, rows_sha256(data.rows)
        super().__init__(
            cell_examples(
                context.cell,
                data.rows,
                base.tokenizer,
                context.settings.data_root,
                of=validation_set(context.cell.data),
            ),
            keep=context.folder / CHECKPOINTS_FOLDER if train.keep == "best" else None,
            on_loss=self._emit,
        )

    @classmethod
    def of(cls, context: CellContext, base: Base) -> CellValidation | None:
        """That of a cell whose data has validation rows.

        Raises:
            ZbenchError: they cannot be read.
        """
        spec, root = context.cell.data, context.settings.data_root
        if (data := read_validation(spec, root)) is None:
            return None
        stated = spec.validation and spec.validation.sha256
        if stated and sha256_of_data(data_files(validation_set(spec), root)) != stated:
            raise DataError(
                f"{data_place(context.cell.data_name)}.validation: its rows have changed since the "
                "grid was read; run the same command again"
            )
        return cls(context, base, data)

    def _emit(self, epoch: int, loss: float, restored: bool) -> None:
        now = time.time_ns() // 1_000_000
        self._context.emit(EpochValidated(self._context.cell.id, epoch, loss, now, restored))

    def facts(self, losses: Sequence[float]) -> dict[str, Any]:
        """What the result says of it, beside the losses."""
        return {
            "validation_examples": sum(one.num_labels > 0 for one in self.examples),
            "validation_sha256": self.rows_sha256,
            "kept_epoch": None if self.keep is None else losses.index(min(losses)),
        }
