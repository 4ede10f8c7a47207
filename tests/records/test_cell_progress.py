"""How far a cell is, by its events as they come and by the end of its event file."""

from __future__ import annotations

from pathlib import Path

from harness.records.cell_progress import CellProgress, format_seconds, stored_progress
from harness.records.event_file import EVENTS_FILE, TAIL_BYTES, EventFiles, last_events
from harness.records.events import CellStarted, Encoding, EpochValidated, Event, Scoring, StepDone

CELL = "0123"


def step(number: int, *, restored: bool = False) -> StepDone:
    """A step that took two seconds."""
    return StepDone(
        CELL, number, 0, 1.25, 1e-3, 1234.5, 1000 + 2000 * number, {"gate": 0.1}, restored=restored
    )


def after(*events: Event) -> CellProgress:
    progress = CellProgress()
    for event in events:
        progress = progress.after(event)
    return progress


def test_the_words_follow_the_events() -> None:
    started = CellStarted(CELL, "a", 40, 1000)
    assert str(after(started)) == "loading"
    one = "step 3 of 40, loss 1.250, 1,234 tokens/s"
    assert str(after(started, step(3))) == one
    steps = [step(number) for number in (3, 4, 10)]
    assert str(after(started, *steps)) == f"{one}, 60 s left of it".replace("3 of", "10 of")
    validated = after(started, *steps, EpochValidated(CELL, 0, 1.5, 0))
    assert "loss 1.250, validation loss 1.500 after epoch 1, 1,234 tokens/s" in str(validated)
    encoding = Encoding(CELL, 32, 120, 5000)
    assert str(after(started, encoding)) == "encoding pictures, 32 of 120"
    assert str(after(started, encoding, *steps)).startswith("step 10 of 40, loss 1.250")
    scoring = [Scoring(CELL, "arc_easy", done, 20, 10_000 * done) for done in (2, 4)]
    assert str(after(started, *steps, *scoring)) == "scoring arc_easy, 4 of 20, 3 min left of it"


def test_restored_steps_say_nothing_of_the_pace() -> None:
    started = CellStarted(CELL, "a", 40, 1000)
    far = after(started, step(19, restored=True), step(20, restored=True))
    assert str(far) == "step 20 of 40, loss 1.250"
    later = [step(21), step(22)]
    assert far.after(later[0]).seconds_left is None
    assert far.after(later[0]).after(later[1]).seconds_left == 36.0


def test_a_start_forgets_what_was_before() -> None:
    assert after(step(3), step(4), CellStarted(CELL, "a", 9, 5)) == after(
        CellStarted(CELL, "a", 9, 5)
    )


def test_the_end_of_a_long_file_tells_the_same(tmp_path: Path) -> None:
    events = [CellStarted(CELL, "a", 5000, 1000), *map(step, range(1, 3001))]
    with EventFiles({CELL: tmp_path}) as files:
        for event in events:
            files.write(event)
    size = (tmp_path / EVENTS_FILE).stat().st_size
    found = last_events(tmp_path)
    assert size > 5 * TAIL_BYTES
    assert found[0] == events[0]
    assert found[1:] == events[-len(found) + 1 :]
    assert 50 < len(found) < 1000
    stored, whole = stored_progress(tmp_path), after(*events)
    assert stored is not None
    assert str(stored) == str(whole) == "step 3000 of 5000, loss 1.250, 1,234 tokens/s, 67 min " \
        "left of it"  # fmt: skip
    assert stored.started_ms == 1000


def test_a_short_file_is_read_once_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    events = [CellStarted(CELL, "a", 40, 1000), step(1), step(2)]
    with EventFiles({CELL: tmp_path}) as files:
        for event in events:
            files.write(event)
    with (tmp_path / EVENTS_FILE).open("a") as file:
        file.write('{"kind": "StepDone", "cell_')
    assert last_events(tmp_path) == events


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert stored_progress(tmp_path) is None
    (tmp_path / EVENTS_FILE).write_bytes(b"\xff\x00 no event\n")
    assert stored_progress(tmp_path) is None


def test_seconds_are_told_as_a_reader_says_them() -> None:
    assert [format_seconds(each) for each in (45, 720, 12000)] == ["45 s", "12 min", "3 h 20 min"]
