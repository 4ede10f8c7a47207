"""The events of a cell in its folder: written by who runs it, read while they come."""

from __future__ import annotations

from pathlib import Path

from harness.records.event_file import EVENTS_FILE, EventFiles, EventReader
from harness.records.events import CellEnded, CellStarted, Event, StepDone

STARTED = CellStarted("a", "model/lora/1/0", 2, 1)
STEPS = [StepDone("a", step, 0, 1.5, 1e-4, 10.0, step, {"gate": 0.5}) for step in (1, 2)]
ENDED = CellEnded("a", "folder", 1.0)


def test_events_come_back_as_they_were_also_bit_by_bit(tmp_path: Path) -> None:
    reader, read = EventReader(tmp_path), list[Event]()
    with EventFiles({"a": tmp_path}) as files:
        for event in (STARTED, *STEPS, ENDED):
            files.write(event)
            read += reader.new_events()
    assert read == [STARTED, *STEPS, ENDED]


def test_a_line_that_is_not_whole_waits_for_its_rest(tmp_path: Path) -> None:
    with EventFiles({"a": tmp_path}) as files:
        files.write(STARTED)
        files.write(STEPS[0])
    file, reader = tmp_path / EVENTS_FILE, EventReader(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert [*reader.new_events()] == [STARTED]
    with file.open("ab") as rest:
        rest.write(whole[-5:] + b"no event\n")
    assert [*reader.new_events()] == [STEPS[0]]


def test_a_cell_that_begins_again_begins_its_file_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with EventFiles({"a": tmp_path}) as files:
            files.write(STARTED)
    reader = EventReader(tmp_path, from_end=True)
    assert [*reader.new_events()] == []
    with EventFiles({"a": tmp_path}) as files:
        files.write(STARTED)
        files.write(STEPS[0])
    assert [*reader.new_events()] == [STARTED, STEPS[0]]
    assert [path.name for path in tmp_path.iterdir()] == [EVENTS_FILE]


def test_a_cell_that_another_process_runs_keeps_its_file(tmp_path: Path) -> None:
    with EventFiles({"a": tmp_path}) as files:
        files.write(STARTED)
    with EventFiles({"a": tmp_path}) as files:
        files.write(CellEnded("a", "folder", 0.0, elsewhere=True))
    assert [*EventReader(tmp_path).new_events()] == [STARTED]
