"""The tunings of a grid as studies of Optuna, for its tools to show.

A file in the runs folder that `optuna.load_study` reads. It is written whole from the cells'
results, which are the truth: nothing reads it here, and deleting it loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError
from harness.grid.names import file_name
from harness.grid.sampling import distribution_of, keep_quiet, param_of
from harness.grid.tuned_methods import Trial, TunedMethod
from harness.records.files import atomic_file

if TYPE_CHECKING:
    from optuna import Study

FOLDER = "tuning"


def studies_file(runs_dir: Path, grid: str) -> Path:
    """Where the studies of a grid lie."""
    return runs_dir / FOLDER / f"{file_name(grid)}.log"


def write_studies(grid: str, tunings: Sequence[TunedMethod], runs_dir: Path) -> Path | None:
    """Writes a study for each tuning, named as `TunedMethod.label`; None where there is none.

    Raises:
        StorageError: the file cannot be written.
    """
    if not tunings:
        return None
    from optuna import create_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    keep_quiet()
    path = studies_file(runs_dir, grid)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise StorageError(f"{path.parent}: cannot be made ({fault.strerror})") from fault
    with atomic_file(path) as temporary:
        storage = JournalStorage(JournalFileBackend(str(temporary)))
        for one in tunings:
            study = create_study(
                storage=storage,
                study_name=one.label,
                direction="minimize" if one.spec.lower_is_better else "maximize",
            )
            _fill(study, one)
    return path


def _fill(study: Study, one: TunedMethod) -> None:
    study.set_user_attr("compared on", one.spec.on_words)
    study.set_user_attr("sampler", one.spec.sampler)
    if one.chosen is not None:
        study.set_user_attr("chosen trial", one.chosen)
    for trial in one.trials:
        _add(study, one, trial)


def _add(study: Study, one: TunedMethod, trial: Trial) -> None:
    from optuna.trial import TrialState, create_trial

    space = one.spec.space[one.choice.label]
    params = {name: param_of(values, trial.settings[name]) for name, values in space.items()}
    if trial.status == "to do":
        study.enqueue_trial(params)
        return
    seeds = {f"seed {seed}": value for seed, value in trial.values.items()}
    noted = {"note": trial.note} if trial.note else {}
    ended = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    study.add_trial(
        create_trial(
            state=ended[trial.status],
            value=trial.reported(one.spec),
            intermediate_values=dict(enumerate(trial.losses, start=1)),
            params=params,
            distributions={name: distribution_of(values) for name, values in space.items()},
            user_attrs={"cells": [cell.id for cell in trial.cells], **seeds, **noted},
        )
    )
