"""Every fault of a checkpoint folder is found by its small files and headers, said in one line, and
cured by what the line advises."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.activations import ACT2FN

from harness.errors import ModelError
from harness.models.advice import ADVICE, Cause
from harness.models.checkpoint import ModelSpec, check_checkpoint
from harness.models.checkpoint_folder import UNSTATED, stated_shape
from harness.models.families import FAMILIES
from harness.models.settings_types import ACTIVATIONS
from harness.models.shape import shape_of
from harness.models.tokenizer_files import _CONFIG_BOS
from harness.readers.files import ADVICE as FILE_ADVICE
from harness.testing import tiny_model as tiny_family
from tests.fixtures.tiny_checkpoint import edit_json, write_checkpoint
from tests.fixtures.tiny_models import shape

WEIGHTS, CONFIG = "model.safetensors", "config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
HIDDEN = 32


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_checkpoint(folder)
    edit_json(folder / CONFIG, bos_token_id=None)
    tokenizer = json.loads((folder / TOKENIZER).read_text())
    tokenizer["post_processor"] = template("<s>", "TEXT")
    (folder / TOKENIZER).write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "tiny"))


def checked(folder: Path, **stated: Any) -> list[str]:
    return check_checkpoint(
        ModelSpec(path=str(folder), shape=shape().model_copy(update=stated)), folder
    )


def refused(folder: Path, **stated: Any) -> list[str]:
    """The lines with which a folder is refused."""
    with pytest.raises(ModelError) as caught:
        checked(folder, **stated)
    return str(caught.value).split("\n")


def template(*pieces: str) -> dict[str, Any]:
    """A post-processor of tokenizer.json that puts these tokens around a TEXT."""
    numbers = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "word0": 4, "far": 700}
    single = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if piece == "TEXT"
        else {"SpecialToken": {"id": piece, "type_id": 0}}
        for piece in pieces
    ]
    special = {
        piece: {"id": piece, "ids": [numbers[piece]], "tokens": [piece]}
        for piece in pieces
        if piece != "TEXT"
    }
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": special,
    }


def change_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / TOKENIZER).read_text())
    change(content)
    (folder / TOKENIZER).write_text(json.dumps(content))


def post_processor(*processors: dict[str, Any]) -> Callable[[Path], object]:
    """Puts a post-processor, or a sequence of them, in place of the tokenizer's."""
    one = processors[0]
    if len(processors) > 1:
        one = {"type": "Sequence", "processors": list(processors)}
    return lambda folder: change_tokenizer(folder, lambda t: t.update(post_processor=one))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def tie(folder: Path, *, equal: bool) -> None:
    edit_json(folder / CONFIG, tie_word_embeddings=True)
    change_weights(
        folder,
        lambda t: t.update(
            {"lm_head.weight": t["model.embed_tokens.weight"] + (0 if equal else 1)}
        ),
    )


def untie(folder: Path) -> None:
    edit_json(folder / CONFIG, tie_word_embeddings=False)


def shard(folder: Path) -> None:
    """Puts the weights in two files with an index."""
    tensors = load_file(folder / WEIGHTS)
    parts: list[dict[str, torch.Tensor]] = [{}, {}]
    for number, (name, value) in enumerate(tensors.items()):
        parts[number % 2][name] = value
    index = {}
    for number, part in enumerate(parts):
        save_file(part, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
        index |= dict.fromkeys(part, f"model-{number}.safetensors")
    (folder / WEIGHTS).unlink()
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def convert(folder: Path) -> None:
    """Runs the command that the advice for pickled weights gives."""
    command = ADVICE["pickled"].partition("python -c ")[2].strip('"').replace("FOLDER", str(folder))
    code = compile(command.replace('\\"', '"'), "advice", "exec")
    exec(code, {})  # the advice itself


def as_type(kind: torch.dtype) -> Callable[[Path], object]:
    return lambda folder: change_weights(
        folder, lambda t: t.update({n: v.to(kind) for n, v in t.items() if v.ndim == 2})
    )


def copied(name: str) -> Callable[[Path, Path], object]:
    """The cure that brings the model's own file back."""
    return lambda folder, whole: shutil.copy(whole / name, folder / name)


def alone(folder: Path, *names: str) -> None:
    """Leaves these files in a folder and no other."""
    for path in folder.iterdir():
        path.unlink()
    for name in names:
        (folder / name).write_text("{}")


def name_token(key: str, value: object) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / TOKENIZER_CONFIG, **{key: value})


def add_word(folder: Path, name: str = "word57", *, special: bool = False) -> None:
    """Adds a token behind the model's vocabulary."""
    entry = {"id": 61, "content": name, "single_word": False, "lstrip": False, "rstrip": False}
    entry |= {"normalized": False, "special": special}
    change_tokenizer(folder, lambda t: t["added_tokens"].append(entry))


def unknown_ends(folder: Path) -> None:
    change_tokenizer(folder, lambda t: t["model"].update(unk_token="</s>"))


@dataclass(frozen=True)
class Fault:
    """A cause, how a good folder comes to have it, what is said, and its cure."""

    cause: Cause
    spoil: Callable[[Path], object]
    said: str
    cure: Callable[[Path, Path], object]
    """Of the spoilt folder, given the whole one."""
    stated: tuple[tuple[str, Any], ...] = ()
    """The shape that a grid states for the spoilt folder, where it is not the whole one's."""
    cured_as: tuple[tuple[str, Any], ...] = ()
    """The same of the cured one."""


TIED = (("tie_word_embeddings", True),)
WHOLE_WEIGHTS, WHOLE_CONFIG = copied(WEIGHTS), copied(CONFIG)
WHOLE_TOKENIZER, WHOLE_NAMES = copied(TOKENIZER), copied(TOKENIZER_CONFIG)


def whole(folder: Path, other: Path) -> None:
    shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)
    shutil.copytree(other, folder)


def quantised(**settings: Any) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / CONFIG, quantization_config=settings)


def as_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("weights")


def nest(folder: Path) -> None:
    inner = folder / "snapshots" / "abc"
    inner.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file():
            path.rename(inner / path.name)


def unnest(folder: Path, _: Path) -> None:
    for path in (folder / "snapshots" / "abc").iterdir():
        path.rename(folder / path.name)


def open_end(folder: Path, _: Path) -> None:
    """Takes what closes a text out of the post-processor."""
    post_processor(template("<s>", "TEXT"))(folder)


BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": False,
    "use_regex": True,
}

FAULTS: list[Fault] = [
    Fault("file for folder", as_file, "is a file, not a checkpoint's", whole),
    Fault("no folder", shutil.rmtree, "no such folder", whole),
    Fault("adapter", lambda f: alone(f, "adapter_config.json"), "is a PEFT adapter", whole),
    Fault("data set", lambda f: alone(f, "train.parquet"), r"a data set \(train.parquet\)", whole),
    Fault("nested", nest, "folders of some: snapshots/abc", unnest),
    Fault("no checkpoint", lambda f: alone(f, "notes"), "missing, it holds notes", whole),
    Fault("meta", lambda f: alone(f, "params.json", "a.pth"), "Meta's own format", whole),
    Fault("gguf", lambda f: alone(f, "x.gguf"), "GGUF file", whole),
    Fault("family", lambda f: edit_json(f / CONFIG, model_type="gpt2"), "'gpt2' is", WHOLE_CONFIG),
    Fault("family", lambda f: edit_json(f / CONFIG, model_type=None), "None is not", WHOLE_CONFIG),
    Fault("shape", lambda f: edit_json(f / CONFIG, vocab_size=60), "grid states 61", WHOLE_CONFIG),
    *(
        Fault("config", lambda f, n=n, v=v: edit_json(f / CONFIG, **{n: v}), n, WHOLE_CONFIG)
        for n, v in (
            ("rms_norm_eps", math.nan),
            ("attention_dropout", 2),
            ("use_cache", "yes"),
            ("mlp_bias", "no"),
            ("pretraining_tp", "one"),
            ("id2label", 5),
        )
    ),
    Fault("config", lambda f: edit_json(f / CONFIG, hidden_size=[3]), "hidden_size", WHOLE_CONFIG),
    Fault(
        "config", lambda f: edit_json(f / CONFIG, hidden_act="magic"), "'magic', w", WHOLE_CONFIG
    ),
    Fault(
        "config", lambda f: edit_json(f / CONFIG, eos_token_id="2"), "eos_token_id", WHOLE_CONFIG
    ),
    Fault(
        "adapter beside",
        lambda f: (f / "adapter_config.json").write_text("{}"),
        "holds an adapter too",
        lambda f, _: (f / "adapter_config.json").unlink(),
    ),
    Fault(
        "pad outside",
        lambda f: edit_json(f / CONFIG, pad_token_id=61),
        "pad_token_id is 61, but the model has 61 tokens",
        lambda f, _: edit_json(f / CONFIG, pad_token_id=None),
    ),
    Fault(
        "parameters",
        lambda f: edit_json(f / CONFIG, attention_bias=True),
        "attention_bias is true",
        WHOLE_CONFIG,
    ),
    Fault(
        "rope",
        lambda f: edit_json(f / CONFIG, rope_parameters={"rope_type": "magic"}),
        "unknown rope_type 'magic'",
        WHOLE_CONFIG,
    ),
    Fault(
        "rope",
        lambda f: edit_json(f / CONFIG, rope_parameters={"rope_type": "longrope"}),
        "longrope without a usable short_factor",
        WHOLE_CONFIG,
    ),
    Fault("quantised", quantised(quant_method="gptq", bits=4), "gptq, 4 bits", WHOLE_CONFIG),
    Fault("quantised", quantised(quant_method="awq"), r"quantised \(awq\)", WHOLE_CONFIG),
    Fault("quantised", quantised(load_in_8bit=True), "bitsandbytes", WHOLE_CONFIG),
    Fault("quantised", quantised(format="pack-quantized"), "pack-quantized", WHOLE_CONFIG),
    Fault("quantised", quantised(), "an unnamed kind", WHOLE_CONFIG),
    Fault("quantised", as_type(torch.float8_e4m3fn), "type F8_E4M3", WHOLE_WEIGHTS),
    Fault(
        "quantised",
        lambda f: change_weights(
            f,
            lambda t: t.update({"model.layers.0.mlp.up_proj.qweight": torch.ones(2, 2).int()}),
        ),
        "up_proj.qweight",
        WHOLE_WEIGHTS,
    ),
    Fault(
        "quantised",
        lambda f: (f / "quantize_config.json").write_text("{}"),
        r"quantised \(gptq\)",
        lambda f, _: (f / "quantize_config.json").unlink(),
    ),
    Fault("no floats", as_type(torch.int32), "is of type I32", WHOLE_WEIGHTS),
    Fault("pickled", pickle_weights, "pytorch_model.bin", lambda f, _: convert(f)),
    Fault(
        "other name",
        lambda f: (f / WEIGHTS).rename(f / "weights.safetensors"),
        "weights.safetensors is not read",
        lambda f, _: (f / "weights.safetensors").rename(f / WEIGHTS),
    ),
    Fault("no weights", lambda f: (f / WEIGHTS).unlink(), "missing", WHOLE_WEIGHTS),
    Fault(
        "layers",
        lambda f: edit_json(f / CONFIG, num_hidden_layers=5),
        "layer 4 is missing",
        WHOLE_CONFIG,
        (("num_hidden_layers", 5),),
    ),
    Fault(
        "tensor missing",
        lambda f: change_weights(f, lambda t: t.pop("model.layers.1.mlp.up_proj.weight")),
        "layer 1: mlp.up_proj.weight is missing",
        WHOLE_WEIGHTS,
    ),
    Fault(
        "weights",
        lambda f: edit_json(f / CONFIG, intermediate_size=40),
        "gate_proj is 48x32 in its layers, config.json says 40x32",
        WHOLE_CONFIG,
        (("intermediate_size", 40),),
    ),
    Fault(
        "parameters",
        lambda f: change_weights(
            f,
            lambda t: t.update(
                {f"model.layers.{n}.self_attn.q_proj.bias": torch.ones(HIDDEN) for n in range(4)}
            ),
        ),
        r"has [\d,]+ parameters, a llama of this shape has",
        WHOLE_WEIGHTS,
    ),
    Fault(
        "two heads",
        lambda f: tie(f, equal=False),
        "lm_head.weight and model.embed_tokens.weight differ",
        lambda f, _: untie(f),
        TIED,
    ),
    Fault(
        "two heads",
        lambda f: tie(f, equal=False),
        "tie_word_embeddings",
        lambda f, _: change_weights(f, lambda t: t.pop("lm_head.weight")),
        TIED,
        TIED,
    ),
    Fault(
        "no head",
        lambda f: change_weights(f, lambda t: t.pop("lm_head.weight")),
        "has no output matrix",
        lambda f, _: edit_json(f / CONFIG, tie_word_embeddings=True),
        cured_as=TIED,
    ),
    Fault(
        "tensor missing",
        lambda f: change_weights(
            f,
            lambda t: [t.pop(n) for n in list(t) if "input_layernorm" in n],
        ),
        r"has [\d,]+ parameters, a llama of this shape has",
        WHOLE_WEIGHTS,
    ),
    Fault(
        "layers",
        lambda f: change_weights(
            f, lambda t: [t.update({f"base_model.{n}": t.pop(n)}) for n in list(t)]
        ),
        r"no tensor is named as those of a layer \(the first is base_model.lm_head.weight\)",
        WHOLE_WEIGHTS,
    ),
    Fault("tokenizer settings", name_token("pad_token", ["<pad>"]), "pad_token is", WHOLE_NAMES),
    Fault("tokenizer settings", name_token("padding_side", "up"), "is 'up'", WHOLE_NAMES),
    Fault("no tokenizer", lambda f: (f / TOKENIZER).unlink(), "missing", WHOLE_TOKENIZER),
    Fault(
        "tokenizer.model",
        lambda f: (f / TOKENIZER).rename(f / "tokenizer.model"),
        "only tokenizer.model",
        WHOLE_TOKENIZER,
    ),
    Fault("tokenizer", lambda f: (f / TOKENIZER).write_text("{}"), "cannot be r", WHOLE_TOKENIZER),
    Fault("no eos", name_token("eos_token", None), "names no eos_token", WHOLE_NAMES),
    Fault("no eos", name_token("eos_token", ""), "its eos_token is an empty text", WHOLE_NAMES),
    Fault("tokenizer settings", name_token("eos_token", 3), "eos_token is 3", WHOLE_NAMES),
    Fault("unknown token", name_token("bos_token", ""), "bos_token is an empty", WHOLE_NAMES),
    Fault("unknown token", name_token("eos_token", "<end>"), "'<end>' is not in", WHOLE_NAMES),
    Fault("token outside", add_word, "62 tokens, but the model has 61", WHOLE_TOKENIZER),
    Fault("closing", post_processor(template("<s>", "TEXT", "</s>")), "appends EOS", open_end),
    Fault(
        "closing", post_processor(template("TEXT", "word0", "</s>")), "text word0 </s>", open_end
    ),
    Fault("closing", post_processor(template("<s>", "TEXT", "<unk>")), "text <unk>'", open_end),
    Fault(
        "closing",
        post_processor(BYTE_LEVEL, template("<s>", "TEXT", "</s>")),
        "'<s> text </s>'",
        open_end,
    ),
    Fault(
        "closing",
        post_processor({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}),
        "'<s> text </s>'",
        open_end,
    ),
    Fault("token outside", post_processor(template("far", "TEXT")), "token 700", open_end),
    Fault("irregular", post_processor(template("<s>")), "makes no tokens of a text", open_end),
    Fault("unk is eos", unknown_ends, "does not know becomes EOS", WHOLE_TOKENIZER),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.cause}: {fault.said}")
def test_a_fault_is_one_line_and_its_advice_cures_it(
    fault: Fault, folder: Path, written: Path
) -> None:
    fault.spoil(folder)
    (line,) = refused(folder, **dict(fault.stated))
    assert re.search(fault.said, line), line
    assert line.endswith(f"; {ADVICE[fault.cause]}")
    assert len(line) < 700
    fault.cure(folder, written)
    checked(folder, **dict(fault.cured_as))


def test_every_cause_has_advice_that_is_tried() -> None:
    elsewhere = {
        *("index", "shard missing", "opening"),
        *(
            "not finite",
            "fp16",
            "activations",
            "activations of fp16",
            "activations of adapter",
            "diverged",
        ),
    }
    assert {fault.cause for fault in FAULTS} | elsewhere == set(ADVICE)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG])
def test_a_pointer_of_git_lfs_is_told_as_one(name: str, folder: Path, written: Path) -> None:
    (folder / name).write_text(POINTER)
    (line,) = refused(folder)
    assert (
        line
        == f"{folder / name}: is a Git LFS pointer, not the file itself; "
        + (FILE_ADVICE["lfs pointer"])
    )
    copied(name)(folder, written)  # as 'git lfs pull' does
    checked(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model-q4.gguf"])
def test_no_conversion_is_advised_of_a_pointer(name: str, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_text(POINTER)
    (line,) = refused(folder)
    assert line.startswith(f"{folder / name}: is a Git LFS pointer")
    assert "git lfs pull" in line


def test_an_empty_token_with_its_settings_is_one_line(folder: Path) -> None:
    for key in ("eos_token", "bos_token", "unk_token"):
        edit_json(folder / TOKENIZER_CONFIG, **{key: {"content": ""}})
        (line,) = refused(folder)
        assert f"{key} is {{'content': ''}}, which transformers does not take" in line
        edit_json(folder / TOKENIZER_CONFIG, **{key: "</s>" if key == "eos_token" else "<s>"})


def test_parts_of_the_weights_that_are_missing_or_cut_are_named(folder: Path) -> None:
    shard(folder)
    checked(folder)
    part = folder / "model-1.safetensors"
    content = part.read_bytes()
    part.write_bytes(content[:-100])
    (line,) = refused(folder)
    assert "model-1.safetensors: has " in line
    assert line.endswith(FILE_ADVICE["cut off"])
    part.unlink()
    (line,) = refused(folder)
    assert "names model-1.safetensors, which is missing (1 of 2 files)" in line
    assert line.endswith(ADVICE["shard missing"])
    part.write_bytes(content)
    index = folder / f"{WEIGHTS}.index.json"
    for broken in ('{"weight_map": 3}', "{}", '{"weight_map": {"a": "../b.safetensors"}}'):
        index.write_text(broken)
        (line,) = refused(folder)
        assert line.endswith(ADVICE["index"])
    index.unlink()
    (line,) = refused(folder)
    assert line.endswith(ADVICE["shard missing"])


def test_the_single_file_is_read_where_there_is_an_index_too(folder: Path) -> None:
    """As transformers does: the index may be left from before a merge."""
    (folder / f"{WEIGHTS}.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    assert checked(folder) == []


def test_equal_copies_of_a_tied_matrix_are_accepted(folder: Path) -> None:
    tie(folder, equal=True)
    assert checked(folder, tie_word_embeddings=True) == []
    shard(folder)
    assert checked(folder, tie_word_embeddings=True) == []


def test_buffers_of_early_conversions_do_no_harm(folder: Path) -> None:
    change_weights(
        folder,
        lambda t: t.update(
            {
                "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
                "model.layers.0.attention.masked_bias": torch.ones(4, dtype=torch.int8),
            }
        ),
    )
    assert checked(folder) == []


def test_all_faults_of_a_folder_come_at_once(folder: Path) -> None:
    edit_json(folder / CONFIG, vocab_size=60)
    (folder / WEIGHTS).write_text(POINTER)
    name_token("eos_token", "")(folder)
    lines = refused(folder)
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == [
        CONFIG,
        WEIGHTS,
        TOKENIZER_CONFIG,
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_config_json_leaves_out_is_what_transformers_takes(family: str) -> None:
    config = AutoConfig.for_model(family)
    settings = {k: v for k, v in config.to_dict().items() if k not in UNSTATED.get(family, {})}
    settings.pop("tie_word_embeddings", None)
    left_out = shape_of(config)
    assert stated_shape(settings).differences(left_out) == {}
    default = config.bos_token_id
    assert _CONFIG_BOS.get(family) == default


def test_names_of_activations_are_those_of_transformers() -> None:
    assert set(ACT2FN) == ACTIVATIONS


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_writes_is_accepted(family: str, tmp_path: Path) -> None:
    """Every family's own checkpoint, as transformers 5 saves it, has no fault."""
    spec = write_checkpoint(tmp_path, model=tiny_family(family))
    check_checkpoint(spec, tmp_path)


def test_a_check_imports_nothing_heavy(written: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from harness.models.checkpoint import ModelSpec, check_checkpoint\n"
        "from harness.models.shape import ModelShape\n"
        f"shape = ModelShape.model_validate({shape().model_dump()!r})\n"
        f"spec = ModelSpec(path={str(written)!r}, shape=shape)\n"
        f"check_checkpoint(spec, Path({str(written)!r}))\n"
        "print([n for n in ('torch', 'transformers', 'peft', 'safetensors') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_quantised_model_stops_no_other_before_a_run(tmp_path: Path) -> None:
    spec = write_checkpoint(tmp_path / "model")
    quantised(quant_method="awq")(tmp_path / "model")
    note, *_ = check_checkpoint(spec, tmp_path / "model", before_run=True)
    assert "stored quantised (awq)" in note
    assert note.endswith("its cells will fail")
