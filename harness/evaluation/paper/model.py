"""lm-eval's model class over a model object, for generation as the paper's protocol has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.errors import EvaluationError
from harness.evaluation.benchmark import Decoding
from harness.evaluation.lm_eval_session import InMemoryHFLM, OnProgress
from harness.evaluation.paper.cache_check import reason_against_cache
from harness.evaluation.paper.generator import Generator, OnDone, Prompt, Response
from harness.evaluation.pictures import EncodePictures
from harness.evaluation.tasks import DEFAULT_NUM_ROWS
from harness.models.kept import weights_stay

TAIL = 16
"""Tokens of the prompt that a response is decoded with: alone, it would lose its first space."""

PLAIN_ROWS = 8
"""Responses side by side where keys and values are not kept."""


class GeneratingModel(InMemoryHFLM):
    """lm-eval's model class; responses are generated in a pool, each by its own random numbers.

    Other than `HFLM` it puts BOS before every prompt, whatever the tokenizer does, and reads a text
    that spells a special token as letters.

    Args, beside those of `InMemoryHFLM`:
        decoding: of all requests; what they say themselves is not used.
        encode_pictures: gives features of distinct pictures; None: the model is shown none.

    Attributes:
        decoding: as asked for, with at most half of the model's positions for new tokens.
        longest_prompt: tokens of a prompt that leave room for the response.
        responses: by task and number of the item.
    """

    unit, fallback_note = "responses", "generated without kept keys and values"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        decoding: Decoding,
        precision: str = "fp32",
        num_rows: int = DEFAULT_NUM_ROWS,
        on_progress: OnProgress | None = None,
        encode_pictures: EncodePictures | None = None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise EvaluationError(
                f"{tokenizer.name_or_path}: the tokenizer has no EOS token, so that no response "
                "would end; set eos_token in its tokenizer_config.json"
            )
        super().__init__(
            model,
            tokenizer,
            precision=precision,
            batch_setting=num_rows,
            on_progress=on_progress,
            encode_pictures=encode_pictures,
        )
        most = min(decoding.max_new_tokens, self.max_length // 2)
        self.decoding = replace(decoding, max_new_tokens=most)
        self.longest_prompt = self.max_length - most
        self.responses: dict[tuple[str, int], Response] = {}

    @property
    def room(self) -> str:
        """What prompts that lost their beginning are longer than."""
        return f"the {self.longest_prompt} of {super().room} that the response leaves"

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """BOS and the text's tokens; no BOS where the tokenizer has none."""
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        bos = self.tokenizer.bos_token_id
        return tuple(token for token in (bos, *encoded["input_ids"]) if token is not None)

    def decode_response(self, prompt: tuple[int, ...], response: tuple[int, ...]) -> str:
        """The text that a response adds to the prompt's."""
        tail = prompt[-TAIL:]
        before, whole = self.tokenizer.batch_decode(
            [tail, tail + response], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(whole)[len(before) :]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Returns the response to each request."""
        pictures = self.pictures.names(requests)
        prompts = list(map(self._prompt, requests, pictures))
        texts = [""] * len(requests)

        def on_done(number: int, response: Response) -> None:
            texts[number] = self.decode_response(prompts[number].tokens, response.tokens)
            name, doc_id = requests[number].task_name or "", requests[number].doc_id
            self.responses[name, int(doc_id or 0)] = response
            self.count_done(len(requests))

        self.respond(prompts, on_done)
        return texts

    def respond(
        self,
        prompts: Sequence[Prompt],
        on_done: OnDone,
        end_tokens: frozenset[int] = frozenset(),
    ) -> None:
        """Generates a response to each prompt; `end_tokens` end it too, beside EOS.

        Raises:
            EvaluationError: the memory is too small for one response, or the model's logits are
                not numbers.
        """
        # One context for all: it keeps what it makes of weights in fp32.
        with self.autocast(), weights_stay():
            tokens = [prompt.tokens for prompt in prompts]
            refusal = reason_against_cache(
                self.model,
                tokens,
                self.mixed_precision_dtype,
                max_new_tokens=self.decoding.max_new_tokens,
                pictures=[prompt.picture for prompt in prompts],
                pictures_of=self.pictures.of_rows,
            )
            generator = Generator(
                self.model,
                self.decoding,
                end_tokens=end_tokens | {int(self.tokenizer.eos_token_id)},
                num_rows=PLAIN_ROWS if refusal else self.batching.setting,
                reason_against_cache=refusal,
                pictures_of=self.pictures.of_rows,
            )
            generator.generate(prompts, on_done)
        effective = self.batching.setting if refusal else generator.num_rows
        self.batching = replace(self.batching, effective=effective, fallback=refusal)

    def fitted(self, tokens: tuple[int, ...], key: str, group: str) -> Prompt:
        """A prompt without the beginning that the model has no room for; counts those cut."""
        cut = len(tokens) > self.longest_prompt
        self.truncated[group] += cut
        # A prompt that lost its beginning shares none with the others.
        return Prompt(tokens[-self.longest_prompt :], key, f"{group} (cut)" if cut else group)

    def _prompt(self, request: Instance, picture: str | None) -> Prompt:
        text = request.args[0]
        prompt = self.fitted(self.encode_prompt(text), text, request.task_name or "")
        return replace(prompt, picture=picture)
