"""What `zbench plan` says of a grid's claims."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest

from harness.analysis.power import Spread, reach_of
from harness.cli import app
from harness.commands.plan_power import power_lines, power_record, short_line
from harness.estimate.power import ClaimPower, claim_powers, planned_claims
from harness.grid.loader import load_grid
from harness.grid.schema import expand
from tests.test_cli import zbench
from tests.test_imports import HEAVY, loaded_by


@pytest.fixture(scope="module")
def powers() -> list[ClaimPower]:
    grid = load_grid("paper-7b")
    return claim_powers(grid, planned_claims(grid, expand(grid), None), {})


def test_each_claim_has_a_line_with_what_its_seed_detects(powers) -> None:
    head, alike, *lines = power_lines(powers)
    assert "two-sided, 5% in all over 4 tests; spread by seed_sd 1.2 (huggingface/peft" in head
    assert len(lines) == 4
    mine = [line for line in lines if "paper: Zero-init + linear better than Random-init" in line]
    assert len(mine) == 1
    assert "1 seed and 28,449 items detect 6.2 points or more" in alike
    assert "one point: no number of seeds, but about 170,000 such items" in alike
    assert mine[0].endswith("Average; the published 3.77 points: 5 seeds")


def test_a_grid_that_cannot_detect_its_margins_says_so_in_one_line(powers) -> None:
    (line,) = short_line("paper-7b", powers)
    assert line.startswith("paper-7b: its seeds and items cannot detect the margin of any claim")
    # Were the two to agree on so many, endless seeds would detect the margin, and no less.
    (share,) = re.findall(r"(\d+)% of them or more", line)
    for more, is_enough in ((0, False), (1, True)):
        weights = [(w, n) for w, n in powers[0].planned.items]
        apart = 1 - (int(share) + more - 0.5) / 100
        error = sum(w**2 * apart / n for w, n in weights) ** 0.5
        z = [NormalDist().inv_cdf(p) for p in (1 - 0.05 / 8, 0.8)]
        assert (sum(z) * error < 0.02) == is_enough
    assert "\n" not in line
    spread = Spread(0.0001, 1e-6, 0.0, 10**6)
    reaches = (reach_of(spread, number, 0.02) for number in (1, 9))
    few, enough = (replace(powers[0], reach=reach) for reach in reaches)
    (line,) = short_line("mine", [few, enough])
    assert "of 1 of 2 claims; 3 seeds would do" in line
    assert short_line("mine", [enough]) == []
    assert short_line("mine", []) == []


def test_what_all_claims_lack_is_said_once(powers) -> None:
    unknown = [replace(one, reach=None, lacks="state it") for one in powers]
    assert list(power_lines(unknown)) == ["claims: what they could show is not known: state it"]
    assert list(power_lines([])) == []
    mixed = list(power_lines([powers[0], unknown[1]]))
    assert mixed[3] == "  state it"


def test_sources_that_differ_stand_with_each_claim(powers) -> None:
    other = replace(powers[0], reach=replace(powers[0].reach, source="finished cells"))
    head, first, _, second, _ = power_lines([other, powers[1]])
    assert "seed_sd" not in head
    assert first.endswith("; spread by finished cells")
    assert second.endswith("; items at worst, as if the two were unrelated and half right")


def test_the_record_is_in_points(powers) -> None:
    found = [power_record(one) for one in powers]
    json.dumps(found, allow_nan=False)
    mine = next(one for one in found if one["published"] and one["better"] == "zero-init-linear")
    assert mine["published"] == pytest.approx(3.77)
    assert mine["margin"] == 2
    assert mine["seeds"] == [0]
    assert mine["detects_margin"] is False
    assert mine["power"]["smallest"] == pytest.approx(6.17, abs=0.05)
    assert mine["power"]["seeds_for_published"] == 5
    assert mine["power"]["seeds_for_point"] is None


def test_plan_prints_and_writes_it(tmp_path: Path) -> None:
    done = zbench("plan", "paper-7b-seeds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the published 3.77 points: 5 seeds" in done.stdout
    assert "cannot detect the margin of any claim" in done.stdout + done.stderr
    told = json.loads(zbench("plan", "paper-7b-seeds", "--json", cwd=tmp_path).stdout)
    assert [one["seeds"] for one in told["claims"]] == [[0, 1, 2, 3, 4]] * 4
    assert any("cannot detect the margin of any" in line for line in told["warnings"])


def test_planning_claims_loads_nothing_heavy() -> None:
    code = (
        "from harness.grid.loader import load_grid\n"
        "from harness.grid.schema import expand\n"
        "from harness.commands.plan_power import power_lines\n"
        "from harness.estimate.power import claim_powers, planned_claims\n"
        "grid = load_grid('paper-7b')\n"
        "list(power_lines(claim_powers(grid, planned_claims(grid, expand(grid), None), {})))"
    )
    assert loaded_by(code, (*HEAVY, "pandas", "matplotlib", "jinja2")) == "[]"


def test_costs_stand_beside_what_they_buy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not app(["plan", "paper-7b", "--hardware", "h200"], standalone_mode=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "GPU hours" in printed
    assert "claims: what is found in 80% of cases" in printed
    assert "cannot detect the margin of any claim" in printed
    assert not app(["plan", "paper-7b", "--hardware", "h200", "--json"], standalone_mode=False)
    assert len(json.loads(capsys.readouterr().out)["claims"]) == 4
