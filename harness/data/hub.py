"""Reading a data set of the hub: its train split, and the commit that it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError, one_line
from harness.readers.column_types import is_text

if TYPE_CHECKING:
    import pyarrow


INSTEAD = "or give its parquet file as data.path"


def is_cached(source: str) -> bool:
    """Whether the hub's cache holds something of a repository of data."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source, repo_type="dataset")
    return any((cache / "snapshots").glob("*/*"))


def check_reachable(source: str, revision: str) -> None:
    """Refuses a data set that cannot be had: the network is switched off, and it is not here.

    Raises:
        DataError: so it is.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline and not is_cached(source):
        raise _no_network(source, revision)


def read_hub(source: str, revision: str) -> tuple[pyarrow.Table, str]:
    """The train split of a hub data set, and the commit that `revision` means.

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
        split = datasets.load_dataset(folder, split="train")
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as fault:
        raise DataError(
            f"{place}: has no readable train split ({one_line(fault)}); {INSTEAD}"
        ) from fault
    finally:
        if bars:
            datasets.enable_progress_bars()
    return split.data.table, Path(folder).name


def text_batches(
    table: pyarrow.Table, columns: Sequence[str], place: str
) -> Iterator[pyarrow.RecordBatch]:
    """Yields the columns of a table that hold text.

    Raises:
        DataError: it lacks one, or one holds something else.
    """
    import pyarrow

    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError(
            f"{place}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"(it has {', '.join(table.column_names)}); name a data set in Alpaca's form"
        )
    for name in columns:
        if not is_text(kind := table.schema.field(name).type):
            raise DataError(
                f"{place}: column {name} holds {kind}, not text; name a data set in Alpaca's form"
            )
    schema = pyarrow.schema([(name, pyarrow.string()) for name in columns])
    for batch in table.select(list(columns)).to_batches():
        yield batch.cast(schema)


def _no_network(source: str, revision: str) -> DataError:
    return DataError(
        f"{source}@{revision}: no network and no copy in the hub cache; fetch it where there is "
        f"network (`hf download --repo-type dataset {source}`), {INSTEAD}"
    )
