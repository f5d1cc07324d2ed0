"""A run's model as a folder of its own: weights, processor, model card. Copied whole or not at all."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from rlhf_platform.errors import RunError
from rlhf_platform.tracking.card_facts import NOTICE, Source, base_notice, facts_of
from rlhf_platform.tracking.history import find_run, read_run
from rlhf_platform.tracking.model_card import card


def export(named: Path, to: Path, parent: Path, *, keep_adapter: bool) -> Path:
    """Copy a run's model to `to` with a card; returns `to`.

    `named`: a run's folder, its name below `parent`, or a step's checkpoint in it. Raises RunError when there is
    nothing to export or `to` is taken, and leaves nothing behind then.
    """
    source = find_source(named, parent, keep_adapter)
    _check_free(to, source.weights)
    notice = base_notice(source)
    text = card(facts_of(source, notice))
    draft: Path | None = None
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=to.parent))
        shutil.copytree(source.weights, draft, dirs_exist_ok=True)
        (draft / "README.md").write_text(text, "utf-8")
        if notice:
            (draft / NOTICE).write_text(notice, "utf-8")
        draft.rename(to)  # onto an empty folder too
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"--to is {str(to)!r}: {reason}; name a folder that can be written") from None
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
    return to


def find_source(named: Path, parent: Path, keep_adapter: bool) -> Source:
    """The weights of a finished run or of a step's checkpoint. Raises RunError when they are not there."""
    folder = named if named.is_dir() else parent / named
    match = re.fullmatch(r"step-(\d+)", folder.resolve().name)
    if match and folder.resolve().parent.name == "checkpoints":
        run, step = read_run(folder.resolve().parents[1]), int(match[1])
        whole = folder / "policy"
        if not (folder / "manifest.json").is_file():
            raise RunError(f"{folder}: no manifest.json, it is not whole; take another step's checkpoint")
    else:
        run, step = find_run(named, parent), None
        folder, whole = run.path, run.path / "checkpoint"
        if run.status.get("state") != "finished":
            state = f"its state is {run.status.get('state')}, phase {run.status.get('phase')}"
            raise RunError(f"{run.path}: {state}: export takes a finished run{_steps_there(run.path)}")
    rank = run.recipe.get("learner", {}).get("lora", {}).get("rank", 0)
    if keep_adapter and not rank:
        raise RunError(f"{run.path}: learner.lora.rank is {rank}: there is no adapter; leave out --adapter kept")
    weights, file = (folder / "adapter", "adapter_config.json") if keep_adapter else (whole, "config.json")
    if not (weights / file).is_file():
        hint = "leave out --adapter kept for the merged weights" if keep_adapter else "copy the run's folder whole"
        raise RunError(f"{weights}: no {file} in it, so nothing to export; {hint}")
    return Source(run, weights, step, keep_adapter)


def _steps_there(run: Path) -> str:
    steps = sorted(path.parent for path in run.glob("checkpoints/step-*/policy"))
    return f", or one of its steps: {', '.join(map(str, steps))}" if steps else ""


def _check_free(to: Path, weights: Path) -> None:
    if to.resolve().is_relative_to(weights.resolve()):
        raise RunError(f"--to is {str(to)!r}: it lies in what is exported; name a folder elsewhere")
    if to.is_dir() and not to.is_symlink():
        if any(to.iterdir()):
            raise RunError(f"--to is {str(to)!r}: it is not empty; name a new folder, nothing is overwritten")
    elif os.path.lexists(to):
        raise RunError(f"--to is {str(to)!r}: a file of that name is there; name a new folder")
