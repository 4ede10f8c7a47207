"""Reading a data set of the hub: one of its splits, and the commit that it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError, one_line
from harness.readers.arrow_files import rows_at_once
from harness.readers.column_types import plain_type

if TYPE_CHECKING:
    import pyarrow


INSTEAD = "or give its parquet file as data.path"


class NotHere(DataError):
    """A set of the hub is not on this machine, and the network is switched off.

    Attributes:
        what: the set, in words.
    """

    def __init__(self, message: str, what: str) -> None:
        self.what = what
        super().__init__(message)


def is_cached(source: str) -> bool:
    """Whether the hub's cache holds something of a repository of data."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source, repo_type="dataset")
    return any((cache / "snapshots").glob("*/*"))


def check_reachable(source: str, revision: str) -> None:
    """Refuses a data set that cannot be had: the network is switched off, and it is not here.

    Raises:
        NotHere: so it is.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline and not is_cached(source):
        raise _no_network(source, revision)


def read_hub(
    source: str, revision: str, subset: str | None = None, split: str = "train"
) -> tuple[pyarrow.Table, str]:
    """A split of a hub data set, and the commit that `revision` means.

    The snapshot is fetched first and read from its folder: `datasets` alone would take whatever
    revision it finds in its own cache when there is no network.

    Raises:
        DataError: there is no such data set, or no network, or no right to read it.
    """
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    place = f"{source}@{revision}"
    try:
        folder = huggingface_hub.snapshot_download(source, revision=revision, repo_type="dataset")
    except LocalEntryNotFoundError as fault:
        raise _no_network(source, revision) from fault
    except GatedRepoError as fault:
        raise DataError(
            f"{place}: the hub asks for access rights; accept its terms there and set HF_TOKEN"
        ) from fault
    except (HfHubHTTPError, OSError, ValueError) as fault:
        raise DataError(
            f"{place}: not readable on the hub ({one_line(fault)}); check source and revision, "
            f"{INSTEAD}"
        ) from fault
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(folder, subset, split=split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as fault:
        raise DataError(
            f"{place}: has no readable {split} split ({one_line(fault)}); name another subset or "
            f"split, {INSTEAD}"
        ) from fault
    finally:
        if bars:
            datasets.enable_progress_bars()
    return found.data.table, Path(folder).name


def text_batches(table: pyarrow.Table, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    """Yields some columns of a table, texts as plain strings, in batches that are small."""
    import pyarrow

    chosen = table.select(list(columns))
    fields = [(one.name, plain_type(one.type)) for one in chosen.schema]
    for batch in chosen.to_batches(rows_at_once(chosen.schema)):
        yield batch.cast(pyarrow.schema(fields))


def _no_network(source: str, revision: str) -> NotHere:
    return NotHere(
        f"{source}@{revision}: no network and no copy in the hub cache; fetch it where there is "
        f"network (`zbench prefetch GRID --to DIR`) and give --data-root DIR, {INSTEAD}",
        f"data {source}@{revision}",
    )
