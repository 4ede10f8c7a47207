from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from harness.errors import StorageError, UsageError
from harness.prepare import listing
from harness.prepare.prefetch import (
    PrefetchPlan,
    Told,
    alone_in,
    fetch_all,
    manifest_of,
    plan_prefetch,
)
from harness.prepare.wants import Copy, Repository, Wants
from harness.records.prefetched import cached_snapshot, is_prefetched
from tests.fixtures.hub_server import TOKEN, Hub

MODEL = Repository("model", "lab/tiny", "main", "model")
ROWS = Repository("dataset", "lab/rows", "main", "data")
WEIGHTS = "model.safetensors"


def plan_for(folder: Path, *wanted: Repository, update: bool = False) -> PrefetchPlan:
    return plan_prefetch(Wants(wanted, (), ()), folder, update=update)


def fetch(folder: Path, *wanted: Repository, update: bool = False) -> list[str]:
    """Fetches repositories; returns all faults."""
    plan = plan_for(folder, *wanted, update=update)
    quiet = Told(came=lambda size: None, whole=lambda name, size: None)
    return [*plan.faults, *fetch_all(plan, folder, quiet, "grid.yaml")]


def snapshot(folder: Path, repository: Repository = MODEL) -> Path:
    found = cached_snapshot(folder / "hub", repository.kind, repository.name)
    assert found is not None
    return found


def test_only_what_is_loaded_of_a_model_is_fetched(hub: Hub, tmp_path: Path) -> None:
    assert fetch(tmp_path / "to", MODEL, ROWS) == []
    names = sorted(path.name for path in snapshot(tmp_path / "to").iterdir())
    assert names == ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"]
    served = hub.root / "models/lab/tiny" / WEIGHTS
    assert (snapshot(tmp_path / "to") / WEIGHTS).read_bytes() == served.read_bytes()
    assert not any(path.is_symlink() for path in (tmp_path / "to").rglob("*"))


def test_the_plan_tells_size_licence_and_commit_before_anything_is_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    plan = plan_for(tmp_path / "to", MODEL)
    found = plan.listings[0]
    assert (found.licence, found.gate, found.commit) == ("mit", None, hub.commit("lab/tiny"))
    sizes = [(hub.root / "models/lab/tiny" / file.name).stat().st_size for file in found.files]
    assert plan.bytes == sum(sizes) == found.size
    assert not (tmp_path / "to").exists()


def test_an_interrupted_download_continues_where_it_stopped(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "TRIES", 1)
    hub.cut[WEIGHTS] = 1_000_000
    (fault,) = fetch(tmp_path / "to", MODEL)
    assert "does not answer" in fault
    assert WEIGHTS in fault
    assert cached_snapshot(tmp_path / "to" / "hub", "model", "lab/tiny") is None
    assert not manifest_of(tmp_path / "to")["repositories"][MODEL.title]["complete"]
    hub.asked.clear()
    assert fetch(tmp_path / "to", MODEL) == []
    ranges = [line for line in hub.asked if "bytes=" in line]
    assert ranges
    assert all("bytes=1000000-" in line for line in ranges)
    served = (hub.root / "models/lab/tiny" / WEIGHTS).read_bytes()
    assert (snapshot(tmp_path / "to") / WEIGHTS).read_bytes() == served


def test_a_broken_connection_and_errors_of_the_server_are_waited_out(
    hub: Hub, tmp_path: Path
) -> None:
    hub.cut[WEIGHTS] = 500_000
    hub.failing.update({"config.json": 2, "/revision/main": 1})
    assert fetch(tmp_path / "to", MODEL) == []
    assert any("bytes=500000-" in line for line in hub.asked)


def test_what_is_whole_is_not_fetched_again_and_what_is_damaged_is(
    hub: Hub, tmp_path: Path
) -> None:
    assert fetch(tmp_path / "to", MODEL) == []
    damaged = snapshot(tmp_path / "to") / WEIGHTS
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + b"\0")
    hub.asked.clear()
    assert fetch(tmp_path / "to", MODEL) == []
    assert damaged.read_bytes() == content
    assert not [line for line in hub.asked if "config.json" in line]


def test_other_content_than_the_hub_lists_is_asked_for_once_more(hub: Hub, tmp_path: Path) -> None:
    hub.wrong[WEIGHTS] = 1
    assert fetch(tmp_path / "to", MODEL) == []
    hub.wrong["rows/train.parquet"] = 2
    (fault,) = fetch(tmp_path / "to", ROWS)
    assert "train.parquet came twice with other content than the hub lists" in fault


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Repository("model", "lab/none", "main", "model"), "no such model, or a private one"),
        (Repository("model", "lab/tiny", "v9", "model"), "no such revision"),
        (Repository("dataset", "allenai/ai2_arc", "main", "data"), "gated; accept its terms at"),
        (Repository("model", "lab/pickled", "main", "model"), "has no weights as safetensors"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_the_rest_is_fetched(
    hub: Hub, tmp_path: Path, wanted: Repository, said: str
) -> None:
    hub.gated.add("allenai/ai2_arc")
    pickled = hub.root / "models/lab/pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    (fault,) = fetch(tmp_path / "to", wanted, ROWS)
    assert fault.startswith(f"{wanted.title}: ")
    assert said in fault
    assert "\n" not in fault
    assert (snapshot(tmp_path / "to", ROWS) / "train.parquet").is_file()


def test_a_gated_repository_is_fetched_with_a_token_that_may(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add("lab/tiny")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    plan = plan_for(tmp_path / "to", MODEL)
    assert plan.listings[0].gate == "gated; your token has access"
    assert fetch(tmp_path / "to", MODEL) == []
    assert TOKEN not in (tmp_path / "to" / "zbench-prefetch.json").read_text()


def test_a_hub_that_does_not_answer_is_one_line_each(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(listing, "TRIES", 2)
    faults = fetch(tmp_path / "to", MODEL, ROWS)
    assert len(faults) == 2
    assert all("http://127.0.0.1:9 does not answer" in fault for fault in faults)


def test_a_commit_is_kept_until_an_update_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    assert fetch(tmp_path / "to", ROWS) == []
    first = snapshot(tmp_path / "to", ROWS).name
    hub.commits["lab/rows"] = hashlib.sha1(b"newer").hexdigest()
    with pytest.MonkeyPatch.context() as patched:  # the hub still has the older commit
        patched.setattr(Hub, "commit", lambda self, name: first)
        assert fetch(tmp_path / "to", ROWS) == []
    assert snapshot(tmp_path / "to", ROWS).name == first
    assert fetch(tmp_path / "to", ROWS, update=True) == []
    assert snapshot(tmp_path / "to", ROWS).name == hub.commits["lab/rows"]


def test_a_name_that_leads_out_of_the_folder_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "to", ROWS)
    bad = listing.HubFile("../../../../escaped", 1, None, "0" * 40)
    one = listing.Listing(ROWS, plan.listings[0].commit, (bad,), None, None)
    plan = PrefetchPlan((one,), (), (), {ROWS.title: 1}, plan.free)
    quiet = Told(came=lambda size: None, whole=lambda name, size: None)
    (fault,) = fetch_all(plan, tmp_path / "to", quiet, "grid")
    assert "not fetched" in fault
    assert not list(tmp_path.rglob("escaped"))


def test_one_folder_is_filled_by_one_prefetch_at_a_time(tmp_path: Path) -> None:
    with alone_in(tmp_path / "to"), pytest.raises(UsageError, match="another prefetch fills it"):
        alone_in(tmp_path / "to").__enter__()
    with alone_in(tmp_path / "to"):
        assert (tmp_path / "to").is_dir()


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "zbench-prefetch.json").write_text("{")
    with pytest.raises(StorageError, match="remove it: what is whole is not fetched again"):
        manifest_of(tmp_path)


def test_files_of_ones_own_that_are_there_are_not_to_be_copied(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("{}\n")
    wants = Wants((), (Copy(tmp_path / "mine.jsonl", "data/mine.jsonl"),), ())
    plan = plan_prefetch(wants, tmp_path / "to", update=False)
    assert (plan.bytes, plan.disk_bytes) == (3, 3)
    fetch_all(plan, tmp_path / "to", Told(lambda size: None, lambda name, size: None), "g.yaml")
    plan = plan_prefetch(wants, tmp_path / "to", update=False)
    assert (plan.bytes, plan.disk_bytes) == (0, 0)


def test_too_small_a_disk_is_told_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.commands.prefetch import prefetch_command
    from tests.fixtures.hub_study import GRID

    (tmp_path / "away.yaml").write_text(GRID)
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="are needed and"):
        prefetch_command(
            str(tmp_path / "away.yaml"),
            tmp_path / "to",
            data_root=None,
            update=False,
            as_json=False,
        )
    assert not is_prefetched(tmp_path / "to")
