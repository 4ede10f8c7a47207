"""Makes the tokenizer and the checkpoint of the embedded world: `python -m scripts.pretrain_demo`.

About ten minutes on one core. The checkpoint that ships with the package was made by this script
with its defaults; the last bits of the weights depend on the processor and on torch's version.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.demo_world.corpus import TEMPLATE_PIECES, documents
from scripts.demo_world.people import World, build_world

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

BOS, EOS = "<s>", "</s>"
NUM_MERGED_TOKENS = 920
"""Bytes and merged tokens; names, values, BOS and EOS come on top."""
TOKENIZER_DOCUMENTS = 4000
NUM_STEPS = 2400
BATCH_SIZE, ROW_LENGTH = 16, 128
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 100


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer: byte-level BPE in which every name and value is one token.

    Names and values are the same token with and without a space before them: a response that
    follows `### Response:` directly begins with the token that the corpus has after a space. So
    are the fixed wordings of the Alpaca template, which makes its examples three times shorter.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=NUM_MERGED_TOKENS,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_plain_texts(world), trainer)
    tokenizer.add_tokens([AddedToken(piece) for piece in TEMPLATE_PIECES])
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in world.single_tokens()])
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def _plain_texts(world: World) -> Iterator[str]:
    """Yields documents without names, values and template pieces, which need no merges."""
    names = set(world.single_tokens())
    for document in itertools.islice(documents(world), TOKENIZER_DOCUMENTS):
        for piece in TEMPLATE_PIECES:
            document = document.replace(piece, "\n")
        lines = document.replace(".", " .").replace("?", " ?").split("\n")
        words = [[w for w in line.split(" ") if w not in names] for line in lines]
        yield "\n".join(" ".join(line) for line in words).replace(" .", ".").replace(" ?", "?")


def token_rows(
    world: World, tokenizer: PreTrainedTokenizerFast, length: int
) -> Iterator[list[int]]:
    """Yields rows of `length` tokens: documents end to end, each between BOS and EOS."""
    eos_id = tokenizer.eos_token_id
    pending: list[int] = []
    stream = documents(world)
    while True:
        texts = list(itertools.islice(stream, 256))
        for ids in tokenizer(texts)["input_ids"]:
            pending += [*ids, eos_id]
        while len(pending) >= length:
            yield pending[:length]
            pending = pending[length:]


def build_model(world: World, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained LLaMA of about 1.1M parameters, its weights drawn from the seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        return LlamaForCausalLM(config)


def train_model(
    model: LlamaForCausalLM, rows: Iterator[list[int]], *, num_steps: int, batch_size: int
) -> list[float]:
    """Trains the model in place on the next rows.

    Returns:
        The loss of each step, in nats per token.
    """
    import torch

    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98))
    model.train()
    losses = []
    started = time.monotonic()
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LEARNING_RATE * _rate_ratio(step, num_steps)
        tokens = torch.tensor(list(itertools.islice(rows, batch_size)))
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == num_steps:
            _log_progress(step + 1, num_steps, losses, time.monotonic() - started)
    return losses


def _rate_ratio(step: int, num_steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / num_steps)))


def _log_progress(step: int, num_steps: int, losses: list[float], seconds: float) -> None:
    recent = losses[-50:]
    left = seconds / step * (num_steps - step)
    logger.info(
        "step %d of %d: loss %.3f, %.0f s elapsed, %.0f s left",
        step, num_steps, sum(recent) / len(recent), seconds, left,
    )  # fmt: skip


def save_checkpoint(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Writes the model in bfloat16 and the tokenizer; the model is rounded in place."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def pretrain(folder: Path, *, num_steps: int = NUM_STEPS) -> None:
    """Makes tokenizer and checkpoint from the seed and writes them into the folder."""
    world = build_world()
    tokenizer = build_tokenizer(world)
    model = build_model(world, tokenizer)
    logger.info("%d tokens, %d parameters", len(tokenizer), model.num_parameters())
    rows = token_rows(world, tokenizer, ROW_LENGTH)
    train_model(model, rows, num_steps=num_steps, batch_size=BATCH_SIZE)
    save_checkpoint(model, tokenizer, folder)


def main() -> None:
    """Reads the command line."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m scripts.pretrain_demo", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="training steps")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    pretrain(arguments.output, num_steps=arguments.steps)


if __name__ == "__main__":
    main()
