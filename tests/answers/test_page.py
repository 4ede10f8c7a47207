"""The page of answers: all of them, escaped, with nothing from outside, and of a sane size."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from harness.answers.columns import Answer, Column, Member
from harness.answers.page import LONGEST, MOST_ANSWERS, PageInput, answers_page, lengths_table
from harness.answers.store import GREEDY, Entry, InstructionSet

EVIL = "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202etxet"


def column(title: str, num: int, *, seeds: int = 1, text: str = "so", **more: object) -> Column:
    members = tuple(
        Member(
            f"seed {seed}" * (seeds > 1),
            {str(n): Answer(f"{text} {n}", 3, True) for n in range(num)},
        )
        for seed in range(seeds)
    )
    return Column(title, members, "alpaca", **more)  # type: ignore[arg-type]


def page(columns: list[Column], num: int = 3, **more: object) -> str:
    entries = [Entry(str(n), f"ask {n}", "an input" * (n == 1), "writing") for n in range(num)]
    given = {"decoding": GREEDY, "notes": ["told"]} | more
    chosen = InstructionSet.of("mine", entries, "A note of the set.")
    return answers_page(PageInput("demo", chosen, columns, **given))  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Collects tags and what refers to something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(v) for name, v in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_every_answer_stands_in_a_plain_table() -> None:
    html = page([column("base", 3, is_trained=False), column("lora", 3, seeds=2)])
    found = Reader(html)
    assert found.tags.count("tr") == 1 + 3 + 1 + 2  # prompts, lengths, each with its head
    assert html.count('<div class="text">so ') == 9
    assert html.count("<details") == 6
    assert html.count('<details data-seed="seed 0" open>') == 3
    for text in ("an input", "writing", "A note of the set.", "told", "3 tokens"):
        assert text in html
    assert "so is base, trained on none" in html


def test_what_models_write_steers_nothing() -> None:
    answers = {"0": Answer(EVIL, 1, False)}
    html = page(
        [Column(EVIL, (Member(EVIL, answers), Member("b", answers)), EVIL)], 1, notes=[EVIL]
    )
    found = Reader(html)
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert found.handlers == []
    assert all(address.startswith("#") for address in found.addresses)
    assert not re.search("[\x1b\u202e]", html)
    assert "at the limit" in html


def test_the_page_loads_nothing() -> None:
    html = page([column("lora", 3)])
    assert "http" not in html
    assert not re.search(r"@import|url\(", html)


def test_a_long_text_is_cut_and_a_large_set_shows_its_first_prompts() -> None:
    html = page([column("lora", 3, text="x" * (LONGEST + 100))])
    assert "x" * LONGEST in html
    assert "x" * (LONGEST + 1) not in html
    assert "more characters" in html
    number = MOST_ANSWERS // 20 + 5
    html = page([column("lora", number, seeds=20)], number)
    assert html.count('<th scope="row">') == MOST_ANSWERS // 20
    assert f"The first {MOST_ANSWERS // 20} of {number} prompts stand here" in html


def test_eighty_prompts_and_ten_methods_make_a_page_of_a_few_megabytes() -> None:
    html = page([column(f"m{n}", 80, text="word " * 400) for n in range(10)], 80)
    assert len(html) < 3e6


def test_the_sampling_is_told() -> None:
    from dataclasses import replace

    html = page(
        [column("lora", 1)], 1, decoding=replace(GREEDY, temperature=0.7, top_p=0.9, seed=3)
    )
    assert "drawn at temperature 0.7, top-p 0.9, seed 3, at most 512 new tokens" in html


def test_lengths_have_dashes_where_nothing_is_known() -> None:
    beside = Column("gpt", (Member("", {"0": Answer("abcd"), "1": Answer("")}),), is_beside=True)
    mine = Column(
        "lora", (Member("", {"0": Answer("ab", 4, False), "1": Answer("", 0, True)}),), "t"
    )
    rows = [[entry.text for entry in line.entries] for line in lengths_table([mine, beside]).rows]
    assert rows == [
        ["lora", "t", "2", "2.0", "1.0", "50%", "50%", "50%"],
        ["gpt", "–", "2", "–", "2.0", "–", "–", "50%"],
    ]


@pytest.mark.parametrize("missing", [{}, {"0": Answer("a", 1, True)}])
def test_a_prompt_without_an_answer_has_a_dash(missing: dict[str, Answer]) -> None:
    html = page([Column("lora", (Member("", missing),), "alpaca")], 2)
    assert html.count('<p class="none">–</p>') == 2 - len(missing)
