"""Everything that can be known of a run before it starts: the recipe's values, then what they point at.

This lives above `recipe` because it reads manifests and imports reward functions. It imports no torch.
"""

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rewards.plugin import check_rewards, terms_of, written
from rlhf_platform.data.manifest import check_durations, check_splits, read_manifest
from rlhf_platform.data.pairs import read_pairs
from rlhf_platform.errors import PlatformError, RecipeError
from rlhf_platform.evaluation.gate_entries import check_gate, read_gate
from rlhf_platform.recipe.load import LoadedRecipe, read_recipe
from rlhf_platform.recipe.pipeline import Pipeline, load_pipeline
from rlhf_platform.recipe.preferences import JudgedConfig
from rlhf_platform.recipe.rewards import names_function, reward_name
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.validate import (
    Problem,
    located,
    origin,
    problems,
    uses_local_cluster,
)


def load_checked(
    path: Path, overrides: Sequence[str] = (), seen_from: Callable[[LoadedRecipe], LoadedRecipe] = lambda loaded: loaded
) -> LoadedRecipe:
    """The recipe at `path` with `overrides`. Raises `RecipeError` with every mistake of form and value at once.

    `seen_from`: gives the recipe as it is to be checked here, when it will run elsewhere. Audio is not decoded
    (`rlhf data check` does that) and no Ray address is tried (the run does that).
    """
    loaded, mistakes = read_recipe(path, overrides)
    found = mistakes if loaded is None else [*mistakes, *_found(seen_from(loaded))]
    if loaded is None or found:
        raise RecipeError("\n".join(found))
    return loaded


def check_pipeline(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """The pipeline at `path`, after each stage's recipe was checked as far as it can be before the stages before it
    have run.

    Raises `RecipeError` with the mistakes of all stages.
    """
    pipeline, found = load_pipeline(path, overrides), []
    for stage in pipeline.stages:
        for line in _said_by(partial(load_checked, stage.recipe, stage.unfilled())):
            found.append(f"stage {stage.name}: {line}")
    if found:
        raise RecipeError("\n".join(found))
    return pipeline


def _found(loaded: LoadedRecipe) -> list[str]:
    recipe = loaded.recipe
    found = [*problems(loaded), *_rewards(loaded), *_manifest(loaded), *_pairs(loaded), *_gate(loaded)]
    pointing = [_checkpoint, _tokens]
    pointing += [_places, _port, _memory] if uses_local_cluster(recipe) else []
    return found + [located(loaded, key, text) for check in pointing for key, text in check(recipe)]


def _said_by(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except PlatformError as error:
        return str(error).splitlines()
    return []


def _rewards(loaded: LoadedRecipe) -> list[str]:
    """What the functions are, and what they take when all of them are there."""
    recipe, lines = loaded.recipe, []
    for section, rewards in (("rewards", recipe.rewards), ("evaluation.rewards", recipe.evaluation.rewards)):
        keys = [f"{section}[{index}].fn" for index in range(len(rewards))]
        sound = [
            bool(reward.url) or (names_function(reward.fn) and key not in loaded.broken)
            for key, reward in zip(keys, rewards, strict=True)
        ]
        for term, is_sound in zip(terms_of(rewards, loaded.base_dir, section), sound, strict=True):
            lines += _said_by(partial(written, term)) if is_sound and not term.config.url else []
        names = [reward_name(reward) for reward in rewards]
        if not lines and all(sound) and len(set(names)) == len(names) > 0 and not loaded.broken:
            lines += _said_by(partial(check_rewards, rewards, loaded.base_dir, section))
    return [f"{line} ({origin(loaded, re.split('[: ]', line)[0])})" for line in lines]


def _manifest(loaded: LoadedRecipe) -> list[str]:
    """Of a bad manifest one line that names it, then the rows as they are told by `rlhf data check`."""
    data, window = loaded.recipe.data, loaded.recipe.backbone.window
    if data.manifest is None or not Path(data.manifest).is_file():
        return []  # `problems` says so

    def check() -> None:
        rows = read_manifest(str(data.manifest))
        for learnt in {data.train_split, data.rl_split} - {data.eval_split}:
            check_splits(rows, learnt, data.eval_split)
        used = {data.train_split, data.rl_split, data.eval_split}
        bounded = used - {data.eval_split} if loaded.recipe.evaluation.long_form == "vad" else used
        check_durations([row for row in rows if row.split in bounded], window)

    first, *rest = _said_by(check) or [""]
    said = first.removeprefix(f"{data.manifest}: ")
    return [located(loaded, "data.manifest", said), *rest] if first else []


def _pairs(loaded: LoadedRecipe) -> list[str]:
    """Of a bad file of pairs one line that names it, then its rows."""
    data, algorithm = loaded.recipe.data, loaded.recipe.algorithm
    if data.pairs is None or not Path(data.pairs).is_file() or not isinstance(algorithm, JudgedConfig):
        return []  # `problems` says so
    first, *rest = _said_by(lambda: read_pairs(str(data.pairs), algorithm)) or [""]
    return [located(loaded, "data.pairs", first.removeprefix(f"{data.pairs}: ")), *rest] if first else []


def _gate(loaded: LoadedRecipe) -> list[str]:
    """Of a gate all that is wrong with its file and with the recipes in it, whose own gates do not count."""
    gate = loaded.recipe.gate
    if gate is None:
        return []
    if not Path(gate).is_file():
        return [located(loaded, "gate", "no such file; a path is relative to the file that names it")]

    def checked(path: Path, overrides: Sequence[str]) -> LoadedRecipe:
        return load_checked(path, [*overrides, "gate=null"])

    lines = _said_by(lambda: check_gate(read_gate(Path(gate)), checked))
    return [f"{line} ({origin(loaded, 'gate')})" for line in lines]


def _checkpoint(recipe: Recipe) -> Iterator[Problem]:
    path = recipe.backbone.path
    if path is None or Path(path, "config.json").is_file():
        return
    if Path(path).is_dir():
        yield "backbone.path", "no config.json in it; name a Hugging Face checkpoint"
    elif not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path):
        # Otherwise a name on a hub; whether it is there, the run finds out.
        yield "backbone.path", "no such folder; give a folder or a hub name (owner/model)"


def _tokens(recipe: Recipe) -> Iterator[Problem]:
    """What a run here, or a submission from here, reads from the environment."""
    for section, rewards in (("rewards", recipe.rewards), ("evaluation.rewards", recipe.evaluation.rewards)):
        for index, reward in enumerate(rewards):
            if reward.url and reward.token_env and reward.token_env not in os.environ:
                said = "that environment variable is not set; set it to the token of the server"
                yield f"{section}[{index}].token_env", said


def _places(recipe: Recipe) -> Iterator[Problem]:
    """Where a run on this machine writes."""
    for key in ("runs_dir", "cache_dir"):
        path = Path(getattr(recipe, key)).absolute()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield key, f"{there} is no folder that can be written; name another"


def _port(recipe: Recipe) -> Iterator[Problem]:
    port = recipe.learner.port
    if port is None or not 0 < port < 65_536:
        return
    with socket.socket() as trial:
        # As the rendezvous store binds: a port in TIME_WAIT after the last run is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            yield "learner.port", f"{error.strerror}; give another, or null for a free one"


def _memory(recipe: Recipe) -> Iterator[Problem]:
    workers, each = recipe.rollout.workers, recipe.rollout.kv_cache_gib
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if workers * each > has:
        yield (
            "rollout.kv_cache_gib",
            f"x rollout.workers={workers} is more than this machine's {has:.1f} GiB; allowed below {has / workers:.1f}",
        )
