"""What the page says in words follows from the data."""

from __future__ import annotations

from dataclasses import replace

from harness.grid.questions import ClaimSpec
from harness.grid.seed_sd import SeedSd, SeedSds
from harness.report.comparisons import comparison_tables
from harness.report.reading import caution_sentences, headline_sentences, status_line
from harness.report.verdicts import told_claims
from tests.report.test_tuning import tuning


def cautions_of(results) -> str:
    return "\n".join(caution_sentences(results.findings()))


def test_status_counts_every_planned_cell(small_grid) -> None:
    assert status_line(small_grid.input()) == "15 of 17 cells done, 1 failed, 1 missing"


def test_status_tells_of_trials_while_they_go_on(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    begun = replace(tuning(), trials=tuning().trials[:3], chosen=None)
    assert status_line(results.input(tunings=(begun, tuning("full")))) == (
        "1 of 1 cells done, 7 of 8 trials have ended"
    )
    assert status_line(results.input(tunings=(tuning(),))) == "1 of 1 cells done"


def test_headlines_name_what_is_compared_with_interval_and_seeds(small_grid, answer) -> None:
    asked = {"claims": (), "compare": "random-init"}
    first, *_, last = headline_sentences(small_grid.findings(**asked))
    assert first.startswith("tiny: Full fine-tuning − Random-init, Average: ")
    assert last.startswith("tiny: Zero-init + non-linear − Random-init, Average: ")
    assert "95% interval" in last
    assert "2 seeds" in last
    assert "lm-eval protocol" not in first
    small_grid.add("full", 1, answer("11"), limit=2)
    assert "lm-eval protocol" in headline_sentences(small_grid.findings(**asked))[0]


def test_claims_have_verdicts_and_no_headline(small_grid) -> None:
    findings = small_grid.findings()
    assert len(findings.claims) == 2
    assert headline_sentences(findings) == []


def test_without_an_average_the_arc_average_is_named(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1100", ["arc_easy", "arc_challenge"]))
    results.add("random-init", 0, answer("1000", ["arc_easy", "arc_challenge"]))
    # The paper's claims are on the Average, which is not measured.
    assert all(one.comparison.estimate is None for one in results.findings().claims)
    claim = ClaimSpec(better="zero-init-linear", than="random-init")
    (found,) = results.findings(claims=(claim,)).claims
    assert found.comparison.column == "ARC avg"
    (line,) = headline_sentences(results.findings(claims=(), compare="random-init"))
    assert "ARC avg: +25.00 points" in line
    assert "not the methods, 1 seed)" in line


def test_one_seed_is_said_to_be_one(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    results.add("lora", 1, status="missing")
    assert "One seed per method" in cautions_of(results)
    results.add("full", 0, answer("1100"))
    results.add("full", 1, answer("1100"))
    assert "1–2 seeds per method" in cautions_of(results)


def test_a_method_that_scatters_more_than_the_pool_is_named(results, answer) -> None:
    right = {"lora": (20, 21, 20, 22), "oft": (19, 20, 18, 19), "ia3": (18, 19, 19, 18)}
    for method, counts in {**right, "full": (2, 30, 4, 39)}.items():
        for seed, count in enumerate(counts):
            results.add(method, seed, answer("1" * count + "0" * (40 - count), ["arc_easy"]))
    asked = {"claims": (), "compare": "all"}
    lines = [one for one in caution_sentences(results.findings(**asked)) if "scatters" in one]
    assert len(lines) == 1
    assert "ARC-e" in lines[0]
    assert "Full fine-tuning scatters more over the seeds" in lines[0]
    # A verdict on it says so; one on other methods does not.
    claims = (ClaimSpec(better="oft", than="full"), ClaimSpec(better="oft", than="ia3"))
    first, second = told_claims(results.findings(claims=claims))
    assert "Full fine-tuning scatters more over the seeds" in first.sentence
    assert "scatters" not in second.sentence


def test_seeds_that_are_pooled_are_said_to_be(results, answer) -> None:
    for method, counts in {"lora": (20, 21), "oft": (19, 20), "ia3": (18, 19)}.items():
        for seed, count in enumerate(counts):
            results.add(method, seed, answer("1" * count + "0" * (40 - count), ["arc_easy"]))
    lines = caution_sentences(results.findings(claims=(), compare="all"))
    assert "pool what theirs tell" in lines[0]


def test_one_seed_with_a_stated_spread_names_what_it_rests_on(results, answer) -> None:
    for method in ("lora", "oft"):
        results.add(method, 0, answer("1100"))
    stated = SeedSds(every=SeedSd(points=1.2, source="somewhere"))
    findings = results.findings(claims=(), compare="all", seed_sd=stated)
    assert "it is the grid's `seed_sd`" in caution_sentences(findings)[0]
    (table,) = comparison_tables(findings)
    assert "SD over re-trainings is 1.2 points (somewhere)" in table.caption[1]


def test_a_claim_that_cannot_be_tested_yet_is_named(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1100"))
    results.add("random-init", 0, status="missing")
    said = "tiny: Zero-init + linear − Random-init, Average: the grid's claim is not tested"
    assert cautions_of(results).count(said) == 1


def test_limits_the_embedded_world_and_open_cells_are_told(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["demo_arc_easy"]), limit=4)
    results.add("full", 0, status="missing")
    text = cautions_of(results)
    assert "invented world" in text
    assert "Scores with a limit" in text
    assert "1 of 2 cells are not done" in text


def test_real_benchmarks_are_not_called_an_invented_world(small_grid) -> None:
    text = cautions_of(small_grid)
    assert "invented world" not in text
    assert "with a limit" not in text


def test_a_column_at_chance_is_said_to_be(results, answer) -> None:
    results.add("base", None, answer("1000" * 5, ["mmlu"]) | answer("1111" * 5, ["arc_easy"]))
    results.add("lora", 0, answer("0100" * 5, ["mmlu"]) | answer("1110" * 5, ["arc_easy"]))
    lines = [line for line in cautions_of(results).splitlines() if "of chance" in line]
    assert len(lines) == 1
    assert lines[0].startswith("MMLU (tiny")


def test_a_published_model_gets_the_word_on_protocols(results, answer) -> None:
    results.add("lora", 0, answer("1100"), model="llama-7b")
    assert "free generation" in cautions_of(results)


def test_tuned_rows_are_told_from_those_of_their_own_recipes(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    assert "at equal cost" in cautions_of(results)
    tunings = (tuning(), tuning("full"))
    said = caution_sentences(results.findings(tunings=tunings))[-1]
    assert said.startswith("Only the rows lora[tuned], full[tuned] are tuned, with 4 trials each")
    unequal = (tuning(), tuning("full", num_trials=9))
    assert "unequal numbers" in caution_sentences(results.findings(tunings=unequal))[-1]
