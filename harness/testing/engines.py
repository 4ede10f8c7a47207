"""What the laws of executors know of one: how a grid is run with it, and what can be done to it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.grid.folders import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, cell_folders
from harness.grid.locks import holder_identity
from harness.records.checkpoints import checkpoint_folders, step_of
from harness.records.event_file import EventReader
from harness.records.events import Event, StepDone
from harness.records.results import RESULT_FILE

MODEL = """
  tiny-llama:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344,
            num_attention_heads: 4, vocab_size: 1688, tie_word_embeddings: true}
"""
SHORT_GRID = f"""
name: laws
world: demo
models: {MODEL}
data: {{source: null, path: alpaca/train.parquet, num_rows: 600}}
tasks: [{{name: demo_arc_easy, limit: 12}}]
train: {{epochs: 2, batch_size: 8}}
methods:
  zero-init-linear: {{num_layers: 5, train: {{learning_rate: 1e-2}}}}
  lora: {{train: {{learning_rate: 3e-3, warmup_epochs: 1}}}}
  broken: {{method: full, train: {{learning_rate: 1e30}}}}
blocks:
  - methods: [base, zero-init-linear, broken]
    fractions: [0.1]
  - methods: [lora]
    fractions: [0.1]
    gpus_per_cell: 2
"""
"""Four cells of seconds: one is scored alone, one fails in its third step, one has two devices."""
LONG_GRID = f"""
name: laws-long
world: demo
models: {MODEL}
data: {{source: null, path: alpaca/train.parquet, num_rows: 600}}
tasks: [{{name: demo_arc_easy, limit: 12}}]
train: {{epochs: 12, batch_size: 8, checkpoint_minutes: %s}}
methods:
  zero-init-linear: {{num_layers: 5, train: {{learning_rate: 1e-2}}}}
blocks:
  - methods: [zero-init-linear]
    fractions: [0.5]
"""
"""One cell of 456 steps; how often it writes a checkpoint is to be put in."""


@dataclass(frozen=True)
class CellAtWork:
    """A cell whose training is under way, as an engine's hooks get it."""

    cell_id: str
    folder: Path
    command: subprocess.Popen[str]
    """The `zbench run-grid` that has it run."""

    @property
    def process(self) -> int | None:
        """Id of the process that holds the cell's lock, which trains it; None without any."""
        parts = holder_identity(self.folder).rsplit(":", 5)
        return int(parts[1]) if len(parts) == 6 else None

    @property
    def step(self) -> int:
        """The last step that it told."""
        steps = [event.step for event in events_of(self.folder) if isinstance(event, StepDone)]
        return max(steps, default=0)

    @property
    def checkpoint(self) -> int:
        """The step of its newest checkpoint; 0 without any."""
        found = checkpoint_folders(self.folder / CHECKPOINTS_FOLDER)
        return step_of(found[0]) if found else 0


Hook = Callable[[CellAtWork], None]


@dataclass(frozen=True)
class Engine:
    """An executor under test. A hook that is None skips the laws that need it."""

    arguments: tuple[str, ...]
    """Of every `zbench run-grid`, which then ends when its cells have: `--executor ray`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to that of the command."""
    kill_node_of: Hook | None = None
    """Takes away what runs the cell as the loss of its machine does, without a word (SIGKILL)."""
    preempt: Hook | None = None
    """Has the engine take the cell's place away, with its usual warning."""
    cancel: Hook | None = None
    """Ends the cell's job as its user does: it is not to be brought back."""
    queue: Callable[[], Collection[str]] | None = None
    """What waits or runs in the engine now, by whatever name."""
    repair: Callable[[], None] = lambda: None
    """Brings back nodes that a hook took away; called after each law."""
    outlives_command: bool = False
    """Whether its work goes on when the command is killed."""
    command_outlives_node: bool = True
    """Whether the command goes on by itself where a node is lost, or a cell is preempted."""
    submit: tuple[str, ...] | None = None
    """Arguments with which the command returns while jobs wait; None where it never does."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why a hook is None, by its name: what the skipped law says."""


@dataclass(frozen=True)
class Trial:
    """A folder with the two grids, in which an engine runs them."""

    folder: Path
    engine: Engine

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "short.yaml").write_text(SHORT_GRID, encoding="utf-8")
        (self.folder / "long.yaml").write_text(LONG_GRID % 0.01, encoding="utf-8")
        (self.folder / "seldom.yaml").write_text(LONG_GRID % 1000, encoding="utf-8")

    @property
    def runs_dir(self) -> Path:
        """The runs folder."""
        return self.folder / "runs"

    def cells(self) -> dict[str, Path]:
        """The folders of the cells that were begun, by the method in their names."""
        return {
            path.name.rpartition("--")[0]: path for path in cell_folders(self.runs_dir).values()
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a zbench command in the folder; its output goes into pipes."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments],
            cwd=self.folder, env=self._environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def start_grid(self, grid: str, *arguments: str) -> subprocess.Popen[str]:
        """Starts a grid with the engine."""
        return self.start("run-grid", grid, *self.engine.arguments, *arguments)

    def zbench(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Runs a zbench command to its end."""
        return finish(self.start(*arguments), timeout)

    def run_grid(
        self, grid: str, *arguments: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs a grid with the engine, until its cells have ended."""
        return finish(self.start_grid(grid, *arguments), timeout)

    def _environment(self) -> dict[str, str]:
        # MLflow leaves its last address in the environment of a process that has used it.
        own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        package = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [package, own.get("PYTHONPATH")]))
        extra = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return {**own, **extra, **self.engine.environment}

    def wait_for_cell(self, command: subprocess.Popen[str], timeout: float) -> CellAtWork:
        """Waits until the long cell's training is well under way, past its first checkpoint."""
        return self.wait_until(command, lambda cell: cell.step >= 30, timeout)

    def wait_until(
        self, command: subprocess.Popen[str], reached: Callable[[CellAtWork], bool], timeout: float
    ) -> CellAtWork:
        """Waits until the one cell has come so far; the command must not end meanwhile."""
        end = time.monotonic() + timeout
        while True:
            for cell_id, folder in cell_folders(self.runs_dir).items():
                if reached(cell := CellAtWork(cell_id, folder, command)):
                    return cell
            assert command.poll() is None, command.communicate()
            assert time.monotonic() < end, f"nothing came in {timeout:.0f} s"
            time.sleep(0.05)


def finish(command: subprocess.Popen[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Waits for a command's end."""
    try:
        out, err = command.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        command.kill()
        out, err = command.communicate()
        raise AssertionError(f"it did not end in {timeout:.0f} s: {out[-2000:]}{err}") from None
    return subprocess.CompletedProcess(command.args, command.returncode, out, err)


def events_of(folder: Path) -> list[Event]:
    """The events that the last process of a cell left in its folder."""
    return list(EventReader(folder).new_events())


def measured(folder: Path) -> dict[str, Any]:
    """All that a cell's folder holds of what was measured: hashes, losses and scores."""
    result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    files = [*folder.glob(f"{ADAPTER_FOLDER}/*.safetensors"), *folder.glob("items/*.parquet")]
    train = result["train"] or {}
    times = ("seconds", "tokens_per_second", "peak_memory_bytes")
    return {
        "id": result["cell_id"],
        "cell": result["cell"],
        "base": result["base"],
        "train": {key: value for key, value in train.items() if key not in times},
        "scores": result["scores"],
        "error": result["error"],
        "files": {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
    }


def logged_metrics(trial: Trial) -> dict[str, tuple[str, int, int]]:
    """By run in MLflow that has its cell's result: its status, and how many points it holds."""
    query = (
        "select name, status, (select count(*) from metrics m where m.run_uuid = r.run_uuid), "
        "(select count(distinct key || step) from metrics m where m.run_uuid = r.run_uuid) "
        "from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'zbench.content' "
        "where lifecycle_stage = 'active'"
    )
    with contextlib.closing(sqlite3.connect(trial.runs_dir / "mlflow.db")) as database:
        rows = database.execute(query).fetchall()
    assert len({name for name, *_ in rows}) == len(rows), rows
    return {name: (status, points, distinct) for name, status, points, distinct in rows}


def open_runs(trial: Trial) -> Sequence[str]:
    """Names of the runs in MLflow that are said to be running."""
    with contextlib.closing(sqlite3.connect(trial.runs_dir / "mlflow.db")) as database:
        query = "select name from runs where status = 'RUNNING' and lifecycle_stage = 'active'"
        return [name for (name,) in database.execute(query)]


def processes_in(folder: Path) -> dict[int, str]:
    """The processes of this machine that work in a folder or hold a file of it, by their ids."""
    found, inside = {}, f"{folder.resolve()}/"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = [process / "cwd", *(process / "fd").iterdir()]
            places = []
            for link in links:
                with contextlib.suppress(OSError):
                    places.append(f"{os.readlink(link)}/")
            if int(process.name) != os.getpid() and any(p.startswith(inside) for p in places):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(process.name)] = line.decode(errors="replace")
    return found


def wait_until(
    reached: Callable[[], bool], shown: Callable[[], object], seconds: float = 60.0
) -> None:
    """Waits for what an engine does a moment after the command has ended."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, shown()
        time.sleep(0.2)


@contextlib.contextmanager
def two_mounts(folder: Path) -> Iterator[tuple[Path, Path]]:
    """One folder through two mounts, each of which knows its own locks alone.

    The test is skipped where nothing can be mounted.
    """
    if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no bindfs, or no /dev/fuse: one folder cannot be mounted twice")
    disk, places = folder / "disk", (folder / "one", folder / "other")
    try:
        for place in (disk, *places):
            place.mkdir()
        for place in places:
            command = ["bindfs", "--no-allow-other", str(disk), str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"bindfs mounts nothing here: {done.stderr.strip()}")
        yield places
    finally:
        for place in places:
            if os.path.ismount(place):
                subprocess.run(["fusermount", "-uz", str(place)], check=False)
