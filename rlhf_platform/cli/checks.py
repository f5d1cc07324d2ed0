"""Everything that can be known of a run before it starts: the recipe's values, then what they point at.

This lives above `recipe` because it reads manifests and imports reward functions. It imports no torch.
"""

import os
import re
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rewards.plugin import check_rewards, resolve
from rlhf_platform.data.manifest import check_durations, check_splits, read_manifest
from rlhf_platform.errors import PlatformError, RecipeError
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.recipe.validate import names_function, problems, uses_local_cluster


def check_all(loaded: LoadedRecipe) -> None:
    """Raises `RecipeError` with one line per problem.

    Audio is not decoded (`rlhf data check` does that) and no Ray address is tried (the run does that).
    """
    recipe = loaded.recipe
    found = [*problems(loaded), *_manifest(recipe), *_functions(loaded), *_checkpoint(recipe)]
    if uses_local_cluster(recipe):
        found += [*_port(recipe), *_memory(recipe)]
    # What a function takes is asked last: it repeats the faults above and stops at the first.
    found = found or _said_by(partial(check_rewards, recipe.rewards, loaded.base_dir))
    if found:
        raise RecipeError("\n".join(found))


def _said_by(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except PlatformError as error:
        return str(error).splitlines()
    return []


def _manifest(recipe: Recipe) -> list[str]:
    data = recipe.data
    if data.manifest is None or not Path(data.manifest).is_file():
        return []  # `problems` says so
    try:
        rows = read_manifest(data.manifest)
        for learnt in {data.train_split, data.rl_split}:
            check_splits(rows, learnt, data.eval_split)
        used = {data.train_split, data.rl_split, data.eval_split}
        check_durations([row for row in rows if row.split in used], recipe.backbone.window)
    except PlatformError as error:
        return [f"data.manifest: {line}" for line in str(error).splitlines()]
    return []


def _functions(loaded: LoadedRecipe) -> list[str]:
    named = [(i, reward.fn) for i, reward in enumerate(loaded.recipe.rewards) if names_function(reward.fn)]
    return [line for i, fn in named for line in _said_by(partial(resolve, fn, loaded.base_dir, f"rewards[{i}].fn"))]


def _checkpoint(recipe: Recipe) -> list[str]:
    path = recipe.backbone.path
    if path is None or Path(path, "config.json").is_file():
        return []
    if Path(path).is_dir():
        return [f"backbone.path is {path!r}: no config.json in it; name a Hugging Face checkpoint"]
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", path):
        return []  # a name on a hub; whether it is there, the run finds out
    return [f"backbone.path is {path!r}: no such folder; give a folder or a hub name (owner/model)"]


def _port(recipe: Recipe) -> list[str]:
    port = recipe.learner.port
    if port is None or not 0 < port < 65_536:
        return []
    with socket.socket() as trial:
        # As the rendezvous store binds: a port in TIME_WAIT after the last run is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            return [f"learner.port is {port}: {error.strerror}; give another, or null for a free one"]
    return []


def _memory(recipe: Recipe) -> list[str]:
    workers, each = recipe.rollout.workers, recipe.rollout.kv_cache_gib
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if workers * each <= has:
        return []
    return [
        f"rollout.kv_cache_gib is {each:g}: x rollout.workers={workers} is more than this machine's "
        f"{has:.1f} GiB; allowed below {has / workers:.1f}"
    ]
