"""Rows in templates: what is written as transformers writes it, and exactly what is in the loss."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from harness.data.instructions import Example, label_runs, shown_tokens, tokenize
from harness.data.jinja import DATE_STRING
from harness.data.rows import Completion, Conversation, Instruction, Row, Text, Turn
from harness.data.templates import render
from harness.errors import DataError, ModelError
from tests.fixtures.chat_models import CHAT_KINDS, chat_tokenizer

KINDS = list(CHAT_KINDS)
ENDS = {kind: CHAT_KINDS[kind].eos for kind in KINDS}


def chat(*contents: str, system: str | None = None) -> Conversation:
    roles = ("user", "assistant") * len(contents)
    turns = [Turn(role, text) for role, text in zip(roles, contents, strict=False)]
    return Conversation(tuple([Turn("system", system)] * (system is not None) + turns))


ROWS = [
    chat("How many apples are left?", "There were 12, so 7 are left."),
    chat("Hi", "Hello.", "More, please", "Here it is: é 🙂 中", "Thanks", "You are welcome."),
    chat("Write  two lines ", " first\n\nsecond\n", "again\n", "\n\tthird "),
    chat("Say nothing.", "", "Again.", "x"),
]


def learned(example: Example, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [tokenizer.decode(example.token_ids[a:b]) for a, b in label_runs(example)]


def one(row: Row, kind: str, **options: str | None) -> Example:
    (example,) = tokenize([row], chat_tokenizer(kind), 4096, **options)
    return example


def messages(row: Conversation) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in row.turns]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", ROWS)
def test_tokens_are_those_of_transformers(kind: str, row: Conversation) -> None:
    tokenizer = chat_tokenizer(kind)
    own = tokenizer.apply_chat_template(messages(row), date_string=DATE_STRING)["input_ids"]
    example = one(row, kind)
    size = len(example.token_ids)
    assert list(example.token_ids) == own[:size]
    assert tokenizer.decode(own[size:]).strip() == ""  # what follows the last end of turn
    assert example.token_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", ROWS)
def test_in_the_loss_is_what_the_assistant_says_and_the_end_of_turn(
    kind: str, row: Conversation
) -> None:
    trims = kind in ("llama3", "gemma")
    before = {"qwen3": "<think>\n\n</think>\n\n"}.get(kind, "")
    said = [turn.content.strip() if trims else turn.content for turn in row.turns[1::2]]
    expected = [f"{' ' * (kind == 'mistral')}{text}{ENDS[kind]}" for text in said]
    expected[-1] = before + expected[-1]  # Qwen3 leaves thoughts out of the earlier turns
    assert learned(one(row, kind), chat_tokenizer(kind)) == expected


def test_marks_of_a_template_give_the_mask_of_transformers() -> None:
    tokenizer = chat_tokenizer("chatml-marked")
    for row in ROWS[:2]:
        own = tokenizer.apply_chat_template(messages(row), return_assistant_tokens_mask=True)
        example = one(row, "chatml-marked")
        found = {place for a, b in label_runs(example) for place in range(a, b)}
        assert found == {place for place, bit in enumerate(own["assistant_masks"]) if bit}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_loss_begins_where_generation_begins(kind: str) -> None:
    tokenizer = chat_tokenizer(kind)
    for row in ROWS:
        asked = tokenizer.apply_chat_template(
            messages(row)[:-1], add_generation_prompt=True, date_string=DATE_STRING
        )["input_ids"]
        example = one(row, kind)
        (start, _) = list(label_runs(example))[-1]
        assert list(example.token_ids[:start]) == asked


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_text_stay_letters(kind: str) -> None:
    tokenizer, end = chat_tokenizer(kind), ENDS[kind]
    plain = one(chat("Close it.", "So: END.", "And END", "ENDEND now"), kind)
    row = chat("Close it.", f"So: {end}.", f"And {end}", f"{end}{end} now")
    example = one(row, kind)
    special = set(tokenizer.all_special_ids)
    count = [number in special for number in example.token_ids].count(True)
    assert count == [number in special for number in plain.token_ids].count(True)
    text = tokenizer.decode(example.token_ids)
    assert text == tokenizer.decode(plain.token_ids).replace("END", end)
    assert [piece.replace("END", end) for piece in learned(plain, tokenizer)] == learned(
        example, tokenizer
    )


def test_thoughts_are_tokens_where_the_template_writes_them() -> None:
    row = chat("Hi", "<think>\nold\n</think>\n\nHello.", "More", "<think>\nnew\n</think>\n\nHere.")
    example, tokenizer = one(row, "qwen3"), chat_tokenizer("qwen3")
    assert learned(example, tokenizer) == [
        "Hello.<|im_end|>",
        "<think>\nnew\n</think>\n\nHere.<|im_end|>",
    ]
    assert tokenizer.convert_tokens_to_ids("<think>") in example.token_ids


def test_bos_is_there_once() -> None:
    for kind in ("llama3", "mistral", "gemma"):
        tokenizer = chat_tokenizer(kind)
        for row, template in ((ROWS[0], "chat"), (Instruction("a", "", "b"), None)):
            ids = one(row, kind, template=template).token_ids
            assert ids.count(tokenizer.bos_token_id) == 1
            assert ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    ("row", "asked"),
    [(Instruction("Add.", "1 2", "3"), "Add.\n\n1 2"), (Instruction("Add.", "", "3"), "Add."),
     (Completion("Add.", "3"), "Add.")],
)  # fmt: skip
def test_other_forms_become_one_question_and_answer(row: Row, asked: str) -> None:
    assert one(row, "qwen3", template="chat") == one(chat(asked, "3"), "qwen3")


def test_a_system_text_is_for_rows_without_one() -> None:
    own, given = chat("a", "b", system="Own."), chat("a", "b")
    assert one(own, "llama3", system="Given.") == one(own, "llama3")
    assert one(given, "llama3", system="Given.") == one(chat("a", "b", system="Given."), "llama3")


def test_what_follows_the_last_answer_is_left_out() -> None:
    assert one(chat("a", "b", "c"), "qwen3") == one(chat("a", "b"), "qwen3")


def test_an_assistant_that_begins_is_in_the_loss_too() -> None:
    row = Conversation((Turn("assistant", "Welcome."), *chat("a", "b").turns))
    found = learned(one(row, "chatml"), chat_tokenizer("chatml"))
    assert found == ["Welcome.<|im_end|>", "b<|im_end|>"]


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("mistral", Conversation(chat("a", "b").turns[1:]), "Roles must alternate"),
        ("gemma", chat("a", "b", system="c"), "System role not supported"),
        ("qwen3", Text("a"), "a plain text has no turns"),
        ("qwen3", chat("a\U000ff1a3", "b"), "private use"),
    ],
)
def test_a_row_that_does_not_go_in_is_told_by_its_number(kind: str, row: Row, said: str) -> None:
    good = Text("x") if isinstance(row, Text) else chat("a", "b")
    with pytest.raises(DataError, match=rf"^data: row 7 \(the first is 0\): .*{said}") as fault:
        tokenize(
            [row, good], chat_tokenizer(kind), 99, template="chat", number_of=[7, 3].__getitem__
        )
    assert "\n" not in str(fault.value)


def test_a_tokenizer_without_chat_template_is_told() -> None:
    tokenizer = chat_tokenizer("qwen3")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        tokenize(ROWS, tokenizer, 99)
    tokenizer.chat_template = {"rag": "a", "tool_use": "b"}
    with pytest.raises(ModelError, match=r"none is `default`.*rag, tool_use"):
        tokenize(ROWS, tokenizer, 99)
    tokenizer.chat_template = {"rag": "a", "default": CHAT_KINDS["qwen3"].template}
    assert tokenize(ROWS[:1], tokenizer, 4096) == [one(ROWS[0], "qwen3")]


def test_templates_for_other_forms_are_refused() -> None:
    for row, options, said in (
        (Completion("a", "b"), {"template": "alpaca"}, "say `chat`"),
        (Instruction("a", "", "b"), {"system": "c"}, "no place in this template"),
        (Instruction("a", "", "b"), {"template": "{{ question }}"}, "names question"),
        (Text("a"), {"template": "just this"}, "names nothing of it"),
        (chat("a", "b"), {"template": "{{ messages[0].content | upper }}"}, "not what the assist"),
        (chat("a", "b"), {"template": "{% for m in messages %}{{ m.content|upper }}{% endfor %}"},
         "not what the assistant says"),
        (Instruction("a", "", "b"), {"template": "{% if %}{{ output }}"}, "line 1 of the template"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            one(row, "qwen3", **options)


def test_an_end_of_turn_that_is_no_token_is_in_the_loss_and_eos_too() -> None:
    tokenizer = chat_tokenizer("llama3")
    tokenizer.chat_template = CHAT_KINDS["chatml"].template  # whose tokens it does not have
    (example,) = tokenize([ROWS[1]], tokenizer, 4096)
    assert learned(example, tokenizer) == [
        "Hello.<|im_end|>",
        "Here it is: é 🙂 中<|im_end|>",
        "You are welcome.<|im_end|><|eot_id|>",
    ]


THINKS = """\
{%- for m in messages if m.role != 'system' -%}
{{ '<|im_start|>' + m.role[0] + m.content.split('</think>')[-1] + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>a<think>\\n' }}{%- endif -%}
"""
"""Opens a thought where it asks, as reasoning models' templates do, and writes none; nor a system
text."""


def test_a_generation_prompt_may_open_a_thought_that_no_turn_has() -> None:
    tokenizer = chat_tokenizer("qwen3")
    tokenizer.chat_template = THINKS.replace("<|im_start|>a", "<|im_start|>").replace(
        "m.role[0] + ", ""
    )
    row = chat("Hi", "<think>Why?</think>Hello.", "More", "<t is less")
    (example,) = tokenize([row], tokenizer, 4096)
    assert learned(example, tokenizer) == ["Hello.<|im_end|>", "<t is less<|im_end|>"]


def test_a_system_text_that_a_template_leaves_out_is_told() -> None:
    tokenizer = chat_tokenizer("qwen3")
    tokenizer.chat_template = THINKS
    with pytest.raises(DataError, match="leaves the system text out"):
        tokenize([chat("Hi", "Hello.")], tokenizer, 4096, system="Be brief.")
    own = Conversation((Turn("system", "Be brief."), *chat("Hi", "Hello.").turns))
    with pytest.raises(DataError, match="leaves the system text out"):
        tokenize([own], tokenizer, 4096)


QUESTION = (
    "Question: {{ instruction }}\n\nAnswer:"
    "{% if not add_generation_prompt %} {{ output }}{% endif %}"
)
MARKED = "Q: {{ instruction }}\n\nA:{% generation %} {{ output }}{% endgeneration %}"


@pytest.mark.parametrize("kind", ["qwen3", "llama3"])
@pytest.mark.parametrize("template", [QUESTION, MARKED])
@pytest.mark.parametrize("answer", ["7", "", " 7 "])
def test_a_jinja_file_names_columns(kind: str, template: str, answer: str) -> None:
    row, tokenizer = Instruction("How many?", "", answer), chat_tokenizer(kind)
    example = one(row, kind, template=template)
    head = "Question: How many?\n\nAnswer:" if template == QUESTION else "Q: How many?\n\nA:"
    bos = tokenizer.bos_token or ""
    assert tokenizer.decode(example.token_ids) == f"{bos}{head} {answer}{tokenizer.eos_token}"
    assert learned(example, tokenizer) == [f" {answer}{tokenizer.eos_token}"]


def test_a_jinja_file_of_text_is_all_in_the_loss() -> None:
    example = one(Text("abc"), "llama3", template="# {{ text }}")
    assert learned(example, chat_tokenizer("llama3")) == ["# abc<|eot_id|>"]


def test_a_template_that_marks_the_question_is_refused() -> None:
    template = "{% generation %}{{ instruction }} {{ output }}{% endgeneration %}"
    with pytest.raises(DataError, match="marks more than what the assistant says"):
        one(Instruction("How many?", "", "7"), "qwen3", template=template)


def test_a_template_is_in_a_sandbox() -> None:
    for attack in ("{{ messages.__class__ }}{{ messages.append(1) }}",
                   "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages }}"):  # fmt: skip
        with pytest.raises(DataError, match="refuses it"):
            one(chat("a", "b"), "qwen3", template=attack)


def test_plain_text_is_all_in_the_loss_but_a_first_token_that_nothing_predicts() -> None:
    llama, qwen = one(Text("apples are"), "llama3"), one(Text("apples are"), "qwen3")
    assert learned(llama, chat_tokenizer("llama3")) == ["apples are<|eot_id|>"]
    assert qwen.num_prompt_tokens == 1
    assert qwen.num_labels == len(qwen.token_ids) - 1
    assert one(Text(""), "qwen3").num_labels == 0


def test_a_completion_stays_as_it_is() -> None:
    example, tokenizer = one(Completion("1 + 1 =", " 2"), "qwen3"), chat_tokenizer("qwen3")
    assert tokenizer.decode(example.token_ids) == "1 + 1 = 2<|im_end|>"
    assert learned(example, tokenizer) == [" 2<|im_end|>"]


@pytest.mark.parametrize("length", range(1, 60))
def test_a_cut_row_ends_with_a_label(length: int) -> None:
    whole = one(ROWS[1], "chatml")
    (example,) = tokenize([ROWS[1]], chat_tokenizer("chatml"), length)
    assert len(example.token_ids) <= length
    assert example.token_ids == whole.token_ids[: len(example.token_ids)]
    expected = [place for a, b in label_runs(whole) for place in range(a, b) if place < length]
    assert [place for a, b in label_runs(example) for place in range(a, b)] == expected
    assert example.is_cut == (len(expected) < whole.num_labels)
    if expected:
        assert len(example.token_ids) == expected[-1] + 1


@pytest.mark.parametrize("template", [None, "chat"])
def test_a_row_is_shown_as_it_is_trained_on(template: str | None) -> None:
    tokenizer = chat_tokenizer("llama3")
    for row in (Instruction("Say é 🙂.", "x", "ü 🙂 <|eot_id|>"), ROWS[1]):
        example = one(row, "llama3", template=template)
        shown = shown_tokens(row, tokenizer, template=template)
        assert tuple(token.id for token in shown) == example.token_ids
        assert sum(token.in_loss for token in shown) == example.num_labels
        texts = ["".join(token.text for token in shown if token.in_loss is loss)
                 .replace("\ufffd", "") for loss in (True, False)]  # fmt: skip
        pieces = render(row, template, tokenizer)
        assert texts == ["".join(piece.text for piece in pieces if piece.in_loss is loss)
                         for loss in (True, False)]  # fmt: skip
