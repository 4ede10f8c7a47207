"""Optimizers by torch's names: their options, and what they keep in memory.

What a grid says is checked against the signature of torch's class, read from its source. Values
are tried on the class itself, once: the answer is kept, so that torch is not imported again.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import did_you_mean, plain_message, shortened
from harness.spec import Fault, Faults

_FILES = {
    "Adadelta": "adadelta",
    "Adafactor": "_adafactor",
    "Adagrad": "adagrad",
    "Adam": "adam",
    "AdamW": "adamw",
    "Adamax": "adamax",
    "ASGD": "asgd",
    "Muon": "_muon",
    "NAdam": "nadam",
    "RAdam": "radam",
    "RMSprop": "rmsprop",
    "SGD": "sgd",
}
"""The classes of torch.optim that zbench runs, by the files that hold them."""
_REFUSED = {
    "rprop": "keeps step sizes of its own, which no learning rate or schedule reaches",
    "lbfgs": "calls the loss again within a step",
    "sparseadam": "is for sparse gradients, which no method has",
    "lion": "is not in torch.optim; adamw and muon are",
}
_SET_HERE = {
    "lr": "set train.learning_rate",
    "weight_decay": "set train.weight_decay",
    **dict.fromkeys(
        ("foreach", "fused", "capturable", "differentiable", "maximize"),
        "zbench sets it; leave it out",
    ),
}
_ADAM = {"betas": "set train.beta1 and train.beta2", "eps": "set train.epsilon"}
REST_RATE = "adamw_learning_rate"
"""Muon's option of zbench: the peak rate of the tensors that AdamW takes, where it is another."""
UNSHARDED = ("Muon", "Adafactor")
"""Optimizers that need a whole matrix at once, where FSDP keeps a shard of it."""


def known_optimizers() -> tuple[str, ...]:
    """Torch's names of the optimizers that zbench runs."""
    return tuple(_FILES)


def checked_optimizer(raw: Any) -> dict[str, Any] | None:
    """The `optimizer` of training settings in canonical form: torch's name, and what differs from
    its defaults; None for AdamW with its defaults.

    Raises:
        Fault: it is no name of an optimizer, or no mapping.
        ValidationError: every fault of its options.
    """
    if raw is None:
        return None
    entry = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise Fault("must be an optimizer's name such as muon, or a mapping with its `name`")
    names = {name.lower(): name for name in _FILES}
    wanted = entry["name"].lower()
    if wanted in _REFUSED:
        raise Fault(f"{shortened(entry['name'])} {_REFUSED[wanted]}")
    if wanted not in names:
        said = shortened(entry["name"])
        raise Fault(f"torch.optim has no '{said}'{did_you_mean(wanted, names)}")
    name, faults, found = names[wanted], Faults(), {}
    defaults = signature(name)
    fixed = _SET_HERE | (_ADAM if "betas" in defaults else {})
    known = [option for option in defaults if option not in fixed]
    if name == "Muon":
        defaults = {**defaults, REST_RATE: None}
        known.append(REST_RATE)
    for option, value in entry.items():
        if option == "name":
            continue
        if option in fixed:
            faults.add(str(fixed[option]), str(option))
        elif option not in known:
            faults.add(f"{name} has no such option{did_you_mean(str(option), known)}", str(option))
        elif (fault := _value_fault(option, value, defaults[option])) is not None:
            faults.add(fault, str(option))
        else:
            plain = _plain(value, defaults[option])
            if plain != _plain(defaults[option], defaults[option]):
                found[str(option)] = plain
    if found and not faults and (refused := _remembered_refusal(name, found)):
        faults.add(refused)
    faults.check()
    return {"name": name, **dict(sorted(found.items()))} if name != "AdamW" or found else None


def _remembered_refusal(name: str, options: Mapping[str, Any]) -> str | None:
    """Why torch's class refuses options, in one line; None where it takes a step with them."""
    from harness.methods.peft_cache import remembered

    question = {"optimizer": name, "options": options, "torch": version("torch")}
    return remembered(question, lambda: _refusal(name, options))


def _refusal(name: str, options: Mapping[str, Any]) -> str | None:
    import torch

    settings = {key: tuple(value) if isinstance(value, list) else value
                for key, value in options.items() if key != REST_RATE}  # fmt: skip
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    matrix.grad = torch.ones(2, 2)
    try:
        getattr(torch.optim, name)([matrix], lr=1e-3, **settings).step()
    except Exception as fault:  # of any kind: torch compares unchecked
        return f"{name} refuses these options ({plain_message(fault)})"
    return None


def _value_fault(option: str, value: Any, default: Any) -> str | None:
    """What an option must be; its default tells of which kind it is."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"must be true or false (got {value})"
    if isinstance(default, tuple):
        whole = isinstance(value, list | tuple) and len(value) == len(default)
        if whole and all(type(one) in (int, float, type(known))
                         for one, known in zip(value, default, strict=True)):  # fmt: skip
            return None
        return f"must be a list of {len(default)} numbers (got {shortened(str(value))})"
    if option == "adjust_lr_fn":
        known = (None, "original", "match_rms_adamw")
        return None if value in known else f"must be one of original, match_rms_adamw (got {value})"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return f"must be a number (got {shortened(str(value))})"
    if isinstance(value, bool) or abs(number) > 1e10 or number != number:
        return f"must be a number within reason (got {value})"
    if number < 0 and option != "beta2_decay":
        return f"must be at least 0 (got {value})"
    if option == REST_RATE and number == 0:
        return "must be more than 0"
    if isinstance(default, int) and option == "ns_steps" and not 1 <= number < 100:
        return f"must be from 1 to 99 (got {value})"
    return None


def _plain(value: Any, default: Any) -> Any:
    if isinstance(value, list | tuple):
        return [None if one is None else float(one) for one in value]
    if value is None or isinstance(value, bool) or isinstance(default, str):
        return value
    if isinstance(value, str) and not value.replace(".", "").replace("-", "").isdigit():
        return float(value) if "e" in value.lower() and value[0].isdigit() else value
    return float(value) if float(value) != int(float(value)) else int(float(value))


@cache
def signature(name: str) -> Mapping[str, Any]:
    """The options of a class of the installed torch.optim with their defaults, from its source."""
    package = find_spec("torch")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "optim" / f"{_FILES[name]}.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = _literal(node.value, constants)
    (made,) = (
        item
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for item in node.body
        if isinstance(item, ast.FunctionDef) and item.name == "__init__"
    )
    plain = made.args.args[2:]  # after self and params
    values = [*made.args.defaults, *made.args.kw_defaults]
    names = [argument.arg for argument in [*plain, *made.args.kwonlyargs]]
    return {
        argument: _literal(value, constants) for argument, value in zip(names, values, strict=True)
    }


def _literal(node: ast.expr | None, constants: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.Tuple):
        return tuple(_literal(one, constants) for one in node.elts)
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def state_bytes(optimizer: Mapping[str, Any] | None) -> float:
    """Bytes that an optimizer keeps of each trained parameter, in fp32.

    Muon's are those of its matrices; Adafactor's rows and columns count as none.
    """
    options = dict(optimizer or {"name": "AdamW"})
    if options["name"] == "SGD":
        return 4.0 if options.get("momentum") else 0.0
    if options["name"] == "RMSprop":
        return 4.0 + 4.0 * bool(options.get("momentum")) + 4.0 * bool(options.get("centered"))
    kept = {"Adafactor": 0.0, "Adagrad": 4.0, "ASGD": 4.0, "Muon": 4.0}.get(options["name"], 8.0)
    return kept + 4.0 * bool(options.get("amsgrad"))
