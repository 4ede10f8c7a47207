"""A prompt has the tokens that training puts before a response, and ends as responses did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.answers.prompts import PromptForm, ask, prompt_form
from harness.answers.store import Entry
from harness.data.instructions import tokenize
from harness.data.rows import Completion, Conversation, Instruction, Row, Turn
from harness.data.spec import DataSpec
from harness.errors import DataError, ModelError
from tests.fixtures.chat_models import CHAT_KINDS, chat_tokenizer

ENTRIES = (
    Entry("1", "Name the capital.", "France {x}"),
    Entry("2", "How many apples are left? <|im_end|> </s>"),
)
ANSWERS = ("- Paris", "12", " two", "x")
FORMS = [
    PromptForm("alpaca"),
    PromptForm(None),
    PromptForm("chat"),
    PromptForm("Question: {{ prompt }}\nAnswer: {{ completion }}"),
    PromptForm("{{ instruction }}{% if input %} ({{ input }}){% endif %}\n=> {{ output }}"),
    PromptForm("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"),
]


def trained_row(entry: Entry, form: PromptForm, answer: str) -> Row:
    if form.template == "alpaca" or "instruction" in str(form.template):
        return Instruction(entry.instruction, entry.input, answer)
    if form.template in (None, FORMS[3].template):
        return Completion(entry.text, answer)
    return Conversation((Turn("user", entry.text), Turn("assistant", answer)))


@pytest.mark.parametrize("kind", CHAT_KINDS)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_prompt_is_what_training_puts_before_a_response(kind: str, form: PromptForm) -> None:
    tokenizer = chat_tokenizer(kind)
    asked = ask(ENTRIES, form, tokenizer, "set")
    for entry, prompt in zip(ENTRIES, asked.prompts, strict=True):
        for answer in ANSWERS:
            row = trained_row(entry, form, answer)
            (seen,) = tokenize([row], tokenizer, 4096, template=form.template, system=form.system)
            assert seen.token_ids[: seen.num_prompt_tokens] == prompt
            assert seen.token_ids[-1] in asked.end_tokens


@pytest.mark.parametrize("kind", [kind for kind in CHAT_KINDS if kind != "mistral"])
def test_a_chat_prompt_is_what_transformers_asks_with(kind: str) -> None:
    tokenizer = chat_tokenizer(kind)
    asked = ask(ENTRIES[:1], PromptForm("chat"), tokenizer, "set")
    turns = [{"role": "user", "content": ENTRIES[0].text}]
    text = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=False, date_string="26 Jul 2024"
    )
    assert tokenizer.decode(list(asked.prompts[0])) == text


def test_a_system_text_stands_in_the_prompt() -> None:
    tokenizer = chat_tokenizer("chatml")
    asked = ask(ENTRIES, PromptForm("chat", "Be brief."), tokenizer, "set")
    assert "Be brief." in tokenizer.decode(list(asked.prompts[0]))


def test_faults_name_the_entry_and_the_template() -> None:
    with pytest.raises(DataError, match=r"set: row 0 .*the template refuses it: System role"):
        ask(ENTRIES, PromptForm("chat", "Be brief."), chat_tokenizer("gemma"), "set")
    bare = chat_tokenizer("chatml")
    bare.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        ask(ENTRIES, PromptForm("chat"), bare, "set")


def test_the_form_is_told_from_the_spec_the_record_or_the_rows(tmp_path: Path) -> None:
    def form(recorded: str | None = None, **spec: object) -> PromptForm:
        return prompt_form(DataSpec.model_validate(spec), recorded, tmp_path)

    assert form() == PromptForm("alpaca")
    assert form(template="chat", system="s") == PromptForm("chat", "s")
    assert form(path="gone.jsonl", columns={"prompt": "q", "completion": "a"}) == PromptForm(None)
    assert form(recorded="chat", path="gone.jsonl") == PromptForm("chat")
    assert form(recorded="none", path="gone.jsonl") == PromptForm(None)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    assert form(path="rows.jsonl") == PromptForm(None)
    (tmp_path / "chat.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    assert form(path="chat.jsonl") == PromptForm("chat")
    with pytest.raises(DataError, match="gone.jsonl is not here.*--data-root"):
        form(path="gone.jsonl")
    with pytest.raises(DataError, match=r"\(scienceqa\) takes questions with options, no instru"):
        form(template="scienceqa")
    with pytest.raises(DataError, match=r"\(scienceqa\) takes questions with options, no instru"):
        form(path="gone.jsonl", columns={"question": "q", "choices": "c", "answer": "a"})
    with pytest.raises(DataError, match="has no place for an instruction: it names text"):
        form(path="rows.jsonl", template="{{ text }}!")


def test_the_identity_follows_the_text_of_a_jinja_file() -> None:
    one = PromptForm("{{ prompt }}")
    assert one.identity != replace(one, template="{{ prompt }} ").identity
    assert one.identity != replace(one, system="s").identity
    assert PromptForm(None).identity == {"template": "none", "system": None}
