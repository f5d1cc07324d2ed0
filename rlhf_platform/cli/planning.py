"""`rlhf plan`: what a recipe takes, before anything is built or loaded."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_platform.cli.app import Overrides, RecipePath, app, plain_errors

if TYPE_CHECKING:
    from rlhf_platform.planning.fits import Capacity
    from rlhf_platform.recipe.load import LoadedRecipe

DOES_NOT_FIT = 3
"""Exit code of a recipe that is right and too large."""
_ON_GPUS = ("rollout.gpus", "learner.gpus")


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    gpus: Annotated[int | None, typer.Option("--gpus", metavar="N", help="GPUs of the cluster, all machines.")] = None,
    gpu_memory: Annotated[
        str | None, typer.Option("--gpu-memory", metavar="SIZE", help="Of one GPU, as 80GB, 80GiB or 80 (GiB).")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", metavar="M", help="Machines, all alike.")] = 1,
    cpus: Annotated[float | None, typer.Option("--cpus", metavar="C", help="Cores of one machine.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="Of one machine, as 64GB.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: bytes, seconds, tokens, shares.")] = False,
) -> None:
    """Say what a recipe takes and whether it fits: parameters, memory, work, placement. Nothing is built or loaded.

    Without options about a cluster it is held against this machine. Exit code 0: it fits; 3: it does not, and
    the last lines say what to change; 2: the recipe is refused.

    Example: rlhf plan recipes/asr/whisper_large.yaml --gpus 8 --gpu-memory 80GB
    """
    with plain_errors():
        asked = any(value is not None for value in (gpus, gpu_memory, cpus, memory)) or nodes > 1
        loaded = _loaded(recipe, overrides or [], asked, gpus or 0)
        capacity = _capacity(loaded, asked, gpus or 0, gpu_memory, nodes, cpus, memory)

        from rlhf_platform.cli.plan_tables import render
        from rlhf_platform.planning.plan import as_json as plain
        from rlhf_platform.planning.plan import plan_of

        given = [*(overrides or []), *_added(loaded)]
        found = plan_of(loaded.recipe, capacity, lambda changes: _allowed(recipe, [*given, *map(str, changes)], asked))
        if as_json:
            typer.echo(json.dumps(plain(found), indent=1))
        else:
            render(found, _added(loaded))
        if found.fit.problems:
            raise typer.Exit(DOES_NOT_FIT)


def _loaded(recipe: RecipePath, overrides: list[str], asked: bool, gpus: int) -> "LoadedRecipe":
    """The recipe, checked for the cluster that is asked about rather than for this machine."""
    from rlhf_platform.cli.checks import load_checked

    elsewhere = ["cluster.address=auto"] if asked else []
    loaded = load_checked(recipe, [*overrides, *elsewhere])
    if gpus:
        for key in _ON_GPUS:
            section, name = key.split(".")
            if key not in loaded.origins:
                setattr(getattr(loaded.recipe, section), name, 1)
    return loaded


def _added(loaded: "LoadedRecipe") -> list[str]:
    """GPUs that are assumed because a cluster with GPUs is asked about and the recipe says nothing of them."""
    recipe = loaded.recipe
    held = {"rollout.gpus": recipe.rollout.gpus, "learner.gpus": recipe.learner.gpus}
    return [f"{key}=1" for key in _ON_GPUS if held[key] and key not in loaded.origins]


def _allowed(recipe: RecipePath, overrides: list[str], asked: bool) -> bool:
    from rlhf_platform.cli.checks import load_checked
    from rlhf_platform.errors import PlatformError

    try:
        load_checked(recipe, [*overrides, *(["cluster.address=auto"] if asked else [])])
    except PlatformError:
        return False
    return True


def _capacity(
    loaded: "LoadedRecipe",
    asked: bool,
    gpus: int,
    gpu_memory: str | None,
    nodes: int,
    cpus: float | None,
    memory: str | None,
) -> "Capacity":
    """What to hold the recipe against. Raises RecipeError for numbers that no cluster has."""
    from rlhf_platform.errors import RecipeError
    from rlhf_platform.planning.fits import Capacity, this_machine, unknown_cluster
    from rlhf_platform.planning.units import parse_size
    from rlhf_platform.recipe.validate import uses_local_cluster

    if not asked:
        local = uses_local_cluster(loaded.recipe)
        return this_machine(loaded.recipe) if local else unknown_cluster(loaded.recipe)
    if nodes < 1 or gpus < 0 or gpus % max(nodes, 1):
        raise RecipeError(f"--gpus is {gpus}, --nodes {nodes}: give machines that are alike, as --gpus 8 --nodes 2")
    if cpus is not None and cpus <= 0:
        raise RecipeError(f"--cpus is {cpus:g}: expected cores of one machine, above 0")
    if gpu_memory is not None and not gpus:
        raise RecipeError(f"--gpu-memory is {gpu_memory}: there are no GPUs; add --gpus N")
    return Capacity(
        nodes,
        gpus // nodes,
        parse_size(gpu_memory, "--gpu-memory") if gpu_memory is not None else None,
        cpus,
        parse_size(memory, "--memory") if memory is not None else None,
        given=True,
    )
