"""All scores, protocols, costs, cells and anchors as tables."""

from __future__ import annotations

from harness.report.costs import cell_table, cost_table, environment_table, failure_table
from harness.report.listings import anchor_table, protocol_tables, published_tables, score_table


def texts(table) -> list[list[str]]:
    return [[entry.text for entry in row.entries] for row in table.rows]


def test_every_score_is_listed_with_its_deviation_beside_it(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy"]), note="a deviation")
    results.add("full", 0, answer("1110", ["truthfulqa_mc2"]))
    (table,) = score_table(results.findings())
    lora, full = texts(table)
    assert lora[5:] == ["arc_easy", "acc", "50.00", "28.87", "4", "0", "", "1"]
    assert full[5:] == ["truthfulqa_mc2", "acc", "75.00", "25.00", "4", "0", "", ""]
    assert table.notes == ("Note 1: a deviation.",)


def test_protocol_warns_of_mixed_precision(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy"]))
    results.add("full", 0, answer("1100", ["arc_easy"]), precision="bf16")
    (table,) = protocol_tables(results.findings())
    assert texts(table)[0][:4] == ["ARC-e", "arc_easy", "lm-eval", "acc"]
    assert any("more than one precision: bf16, fp32" in note for note in table.notes)


def test_costs_are_means_over_what_is_done(results, answer) -> None:
    for seed in (0, 1):
        results.add("lora", seed, answer("1100"))
        results.cells[-1]["seconds"] = 100.0 + 100 * seed
    results.add("lora", 2, status="failed", error="boom")
    (row,) = texts(cost_table(results.findings())[0])
    assert row[3] == "2 of 3"
    assert row[7] == "2.5 min"


def test_costs_set_what_was_expected_beside_what_was_measured(results, answer) -> None:
    for seed, seconds in ((0, 100.0), (1, 200.0)):
        results.add("lora", seed, answer("1100"))
        results.cells[-1] |= {"seconds": seconds, "evaluation_seconds": 20.0}
        results.cells[-1] |= {"expected_training_seconds": 90.0, "expected_scoring_seconds": 10.0}
    results.add("full", 0, answer("1100"))
    lora, full = texts(cost_table(results.findings())[0])
    assert lora[9:11] == ["100 s", "1.70"]  # (120 + 220) / (100 + 100)
    assert full[9:11] == ["–", "–"]


def test_cells_show_status_and_the_error_in_one_line(small_grid) -> None:
    rows = {row[0]: row for row in texts(cell_table(small_grid.findings())[0])}
    failed = rows["tiny-zero-init-linear-1.0-2"]
    assert failed[2] == "failed"
    assert failed[5] == "TrainingError: step 3: <nan> more"
    (failure,) = texts(failure_table(small_grid.findings())[0])
    assert failure == ["tiny-zero-init-linear-1.0-2", "TrainingError: step 3: <nan> more"]


def test_environment_is_flat_and_skips_what_is_unknown(small_grid) -> None:
    known = {"versions": {"torch": "2.13"}, "gpu": None, "hosts": ["a", "b"]}
    (table,) = environment_table(small_grid.findings(environment=known))
    assert texts(table) == [["versions.torch", "2.13"], ["hosts", "a, b"]]


def test_published_rows_stand_apart_and_only_for_their_models(results, answer, small_grid) -> None:
    results.add("lora", 0, answer("1100"), model="llama-7b")
    one, two = published_tables(results.findings())
    assert len(one.rows) == 2
    assert texts(two)[1][:4] == ["llama-7b", "LoRA", "4.2M", "61.91"]
    assert published_tables(small_grid.findings()) == []


def test_anchors_stand_beside_the_base_model_measured_alike(results, answer) -> None:
    results.add("base", None, answer("1110", ["arc_easy", "hellaswag"]), model="llama-7b")
    (table,) = anchor_table(results.findings())
    # HellaSwag's anchors are 0-shot, ours is 10-shot.
    assert texts(table) == [["llama-7b", "arc_easy", "acc", "75.0", "67.4", "+7.6"]]
    results.scores[0]["limit"] = 4
    assert anchor_table(results.findings()) == []
