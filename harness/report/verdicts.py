"""The verdicts of a grid's claims: the box on the page, the terminal, a table, JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from harness.analysis.claims import ClaimFinding
from harness.analysis.earlier_verdicts import VERDICTS_FILE, with_verdict
from harness.analysis.findings import Findings
from harness.analysis.scatter import Scattered, scattered
from harness.analysis.variants import name_of
from harness.analysis.verdicts import ALPHA
from harness.errors import printable
from harness.report.numbers import MISSING, interval_text, p_text, scaled, signed
from harness.report.page import html
from harness.report.power_words import reach_record
from harness.report.render import Table, blocks
from harness.report.verdict_words import (
    PUBLISHED_RULE,
    Told,
    claimed_interval,
    rule_text,
    scale_for,
    tell,
    unit_of,
)


def told_claims(findings: Findings) -> list[Told]:
    """Every verdict in words, in the order of the claims."""
    places = {_place(one, findings) for one in findings.claims}
    entries = (entry for found in findings.comparisons.values() for entry in found)
    apart = scattered(findings.measured, entries)
    return [
        tell(
            one,
            findings.data.earlier_verdicts,
            place=_place(one, findings) if len(places) > 1 else "",
            num_claims=len(findings.claims),
            scattered=_scattered(one, apart),
        )
        for one in findings.claims
    ]


def _scattered(finding: ClaimFinding, apart: Sequence[Scattered]) -> str:
    """The side of a claim whose seeds scatter more than those that it is pooled with; or empty."""
    entry = finding.comparison
    names = (
        name_of(one.variant)
        for one in apart
        if (one.model, one.group, one.column) == (entry.model, entry.group, entry.column)
    )
    return next((name for name in names if name in (entry.left, entry.right)), "")


def _place(finding: ClaimFinding, findings: Findings) -> str:
    """The model and the protocol, as far as there are several of either."""
    entry = finding.comparison
    groups = {one.comparison.group.title for one in findings.claims}
    models = {one.comparison.model for one in findings.claims}
    parts = [entry.model] * (len(models) > 1) + [entry.group.title] * (len(groups) > 1)
    return " · ".join(parts)


def _rules(findings: Findings) -> list[str]:
    rules = [rule_text(len(findings.claims))]
    return rules + [PUBLISHED_RULE] * any(one.published for one in findings.claims)


def verdict_box(findings: Findings) -> str:
    """The box at the top of the page, as HTML; empty for a grid without claims."""
    told = told_claims(findings)
    if not told and not findings.untested:
        return ""
    return html("verdicts", told, findings.untested, _rules(findings) if told else [])


def verdict_text(findings: Findings, width: int) -> str:
    """What the terminal shows first: each verdict with its sentence, then the rule."""
    lines: list[str] = []
    place = ""
    for one in told_claims(findings):
        if one.place != place:
            lines += _wrapped(one.place, width, "", "")
            place = one.place
        head = f"{one.mark} {one.kind.upper()}: {one.claim}"
        body = " ".join(filter(None, (one.sentence, one.power, one.published, *one.history)))
        lines += [*_wrapped(head, width, "", "  "), *_wrapped(body, width, "  ", "  ")]
    for text in findings.untested:
        lines += _wrapped(f"{MISSING} NOT TESTED: {text}", width, "", "  ")
    rules = _rules(findings) if findings.claims else []
    lines += [line for rule in rules for line in _wrapped(rule, width, "", "")]
    return "".join(f"{line}\n" for line in lines)


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        printable(text), width, initial_indent=first, subsequent_indent=rest,
        break_on_hyphens=False,
    )  # fmt: skip


def _readable(record: Any) -> Any:
    """A record without characters that steer a terminal or turn the direction of writing."""
    if isinstance(record, dict):
        return {name: _readable(value) for name, value in record.items()}
    if isinstance(record, list):
        return [_readable(value) for value in record]
    return printable(record) if isinstance(record, str) else record


OF_PUBLISHED = ("Published", "Verdict of it")
"""Columns of a published difference, where there is one."""


def verdict_table(findings: Findings) -> list[Table]:
    """Every verdict with its numbers."""
    if not findings.claims:
        return []
    told = told_claims(findings)
    published = any(one.published is not None for one in findings.claims)
    lines = [
        _line(one, words)[: None if published else -len(OF_PUBLISHED)]
        for one, words in zip(findings.claims, told, strict=True)
    ]
    history = dict.fromkeys(f"{words.claim}: {text}" for words in told for text in words.history)
    return [
        Table(
            name="verdicts",
            title="Verdicts of the claims",
            header=(
                *("Model", "Protocol", "Claim", "Verdict"),
                *("Points", "95% interval", "Margin", "p", "p (margin)", "Seeds", "Detects"),
                *OF_PUBLISHED * published,
            ),
            rows=blocks(lines, 2),
            notes=tuple(history),
            caption=(
                *_rules(findings),
                "Points: as claimed, in points or in the metric's own unit. p: adjusted. p "
                "(margin): the larger of the two one-sided ones, adjusted. Detects: the smallest "
                "difference that these seeds and items detect in 80% of cases.",
            ),
            num_text_columns=4,
        )
    ]


def _line(finding: ClaimFinding, words: Told) -> list[str]:
    entry, verdict, scale = finding.comparison, finding.verdict, scale_for(finding)
    value = None if finding.difference is None else finding.difference.value
    smallest = None if finding.reach is None else finding.reach.smallest
    published, unknown = finding.published, smallest is None or math.isinf(smallest)
    return [
        entry.model,
        entry.group.title,
        words.claim,
        verdict.kind,
        signed(value, scale),
        interval_text(claimed_interval(finding), scale=scale),
        MISSING if finding.margin is None else f"±{scale.factor * finding.margin:g}",
        p_text(verdict.p_zero),
        p_text(verdict.p_margin),
        str(len(finding.seeds)),
        scaled(None if unknown else smallest, scale),
        MISSING if published is None else signed(published.difference, scale),
        MISSING if published is None else published.verdict.kind,
    ]


def verdict_records(findings: Findings) -> list[dict[str, object]]:
    """One flat record for each verdict, for the CSV; numbers in points or the metric's own unit."""
    return [
        {
            name: value
            for name, value in record.items()
            if name not in ("published", "power") and not isinstance(value, list)
        }
        | {f"published_{name}": value for name, value in (record["published"] or {}).items()}
        | {f"detects_{name}": value for name, value in (record["power"] or {}).items()}
        for record in claim_records(findings)
    ]


def claim_records(findings: Findings) -> Iterator[dict[str, Any]]:
    """Yields each verdict for a machine, in the order of the claims."""
    for finding, words in zip(findings.claims, told_claims(findings), strict=True):
        yield claim_record(finding, words)


def claim_record(finding: ClaimFinding, words: Told) -> dict[str, Any]:
    """A verdict for a machine; numbers in points, or in the metric's own unit."""
    entry, verdict = finding.comparison, finding.verdict
    factor = scale_for(finding).factor
    interval = claimed_interval(finding) or (None, None)
    estimate = finding.difference

    def in_unit(value: float | None) -> float | None:
        return None if value is None or math.isinf(value) else round(factor * value, 6)

    published = finding.published and {
        "verdict": finding.published.verdict.kind,
        "difference": in_unit(finding.published.difference),
        "stderr": in_unit(finding.published.stderr),
        "p_difference": finding.published.verdict.p_between,
        **({"split": finding.published.split} if finding.published.split else {}),
    }
    return {
        "key": finding.key,
        "model": entry.model,
        "protocol": entry.group.protocol,
        "measured": entry.group.title,
        "better": entry.left,
        "than": entry.right,
        "column": entry.column,
        "unit": unit_of(finding),
        "verdict": verdict.kind,
        "reason": verdict.reason or None,
        "difference": in_unit(estimate.value if estimate else None),
        "stderr": in_unit(estimate.stderr if estimate else None),
        "low": in_unit(interval[0]),
        "high": in_unit(interval[1]),
        "margin": in_unit(finding.margin),
        "p": verdict.p_zero,
        "p_margin": verdict.p_margin,
        "speaks_of": estimate.scope if estimate else None,
        "seed_variance": estimate.basis if estimate else None,
        "num_items": estimate.num_items if estimate else None,
        "seeds": list(finding.seeds),
        "planned": list(finding.planned),
        "power": finding.reach and reach_record(finding.reach, factor),
        "published": published,
        "sentence": words.sentence,
        "told": list(words.history),
    }


def verdict_json(findings: Findings) -> dict[str, object]:
    """What `verdicts.json` holds: the rule, each verdict, and what was said of it so far."""
    found = []
    for finding, record in zip(findings.claims, claim_records(findings), strict=True):
        earlier = findings.data.earlier_verdicts.get(finding.key, ())
        history = with_verdict(earlier, finding.as_reported(findings.data.date))
        found.append(record | {"history": [asdict(one) for one in history]})
    present = {finding.key for finding in findings.claims}
    gone = [
        {"key": key, "history": [asdict(one) for one in history]}
        for key, history in findings.data.earlier_verdicts.items()
        if key not in present
    ]
    return {
        "grid": findings.data.grid_name,
        "level": ALPHA,
        "rule": _rules(findings),
        "verdicts": found,
        "not_tested": list(findings.untested),
        "no_longer_claimed": gone,
    }


def verdict_files(findings: Findings) -> Iterator[tuple[str, str]]:
    """Yields the name and text of the file that keeps the verdicts, of a grid that claims."""
    if findings.claims or findings.untested:
        record = _readable(verdict_json(findings))
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        yield VERDICTS_FILE, f"{text}\n"
