"""How a plan is printed, in at most 100 columns."""

from collections.abc import Iterator, Mapping, Sequence

import typer

from rlhf_platform.cli.tables import show, table
from rlhf_platform.planning.batches import rounds_of
from rlhf_platform.planning.plan import Plan
from rlhf_platform.planning.sizes import Sizes
from rlhf_platform.planning.units import count, gib
from rlhf_platform.recipe.algorithms import PPO
from rlhf_platform.recipe.preferences import JudgedConfig


def render(plan: Plan, assumed: Sequence[str]) -> None:
    """Print the plan. `assumed`: overrides that the command added."""
    recipe = plan.recipe
    typer.echo(f"{recipe.name}: {count(plan.sizes.parameters)} parameters, {count(plan.sizes.trained)} trainable")
    if assumed:
        typer.echo(f"assumed: {' '.join(assumed)}, since there are GPUs and the recipe says nothing of them")
    typer.echo()
    show(table(("part", "parameters", "trainable"), _parts(plan.sizes), right=("parameters", "trainable")))
    for title, where in (("memory of one GPU actor", "device"), ("memory of one actor on its machine", "host")):
        rows = list(_memory(plan, where))
        if rows:
            typer.echo(f"\n{title}, GiB")
            kinds = [kind for kind, actor in plan.actors.items() if getattr(actor, where)]
            heads = [f"{kind} x {plan.actors[kind].count}" for kind in kinds]
            show(table(("part", *heads), rows, right=heads))
    typer.echo(f"\n{_unit(plan)}")
    for line in _work(plan):
        typer.echo(f"  {line}")
    typer.echo("\nplacement")
    show(table(("machine", "actors", "GPUs", "cores"), _placement(plan), right=("cores",)))
    typer.echo()
    for line in _verdict(plan):
        typer.echo(line)


def _parts(sizes: Sizes) -> Iterator[Sequence[str]]:
    for part, number in sizes.total.items():
        if number:
            yield part, f"{number:,}", f"{sizes.trainable[part]:,}"
    yield "all", f"{sizes.parameters:,}", f"{sizes.trained:,}"


def _memory(plan: Plan, where: str) -> Iterator[Sequence[str]]:
    held: dict[str, Mapping[str, int]] = {kind: getattr(actor, where) for kind, actor in plan.actors.items()}
    held = {kind: parts for kind, parts in held.items() if parts}
    names = list(dict.fromkeys(name for parts in held.values() for name, size in parts.items() if size))
    for name in sorted(names, key=lambda name: name == "process"):
        yield name, *(gib(parts[name]) if name in parts else "" for parts in held.values())
    if held:
        yield "all", *(gib(sum(parts.values())) for parts in held.values())


def _unit(plan: Plan) -> str:
    """What the work is of."""
    if not isinstance(plan.recipe.algorithm, JudgedConfig):
        return "one RL step"
    rounds = rounds_of(plan.recipe)
    return f"one of {rounds} rounds" if rounds > 1 else "the one round"


def _work(plan: Plan) -> Iterator[str]:
    work, recipe, clips = plan.work, plan.recipe, plan.clips
    if work.samples:
        yield f"{work.samples} samples: {work.prompts} prompts x {recipe.algorithm.group_size}"
    if work.answers != work.samples:
        yield f"{work.answers} answers to learn from"
    if work.most_audio_seconds:
        longest = f"{work.most_audio_seconds:,.0f} s at most"
        if clips is None:
            yield f"audio: {longest}; the mean is unknown until the data set is built"
        else:
            yield f"audio: {work.audio_seconds:,.0f} s, {longest} ({clips.number} clips of {clips.mean_seconds:.1f} s)"
    yield f"tokens: {work.completion_tokens:,} to write, {work.learner_tokens:,} to learn from, at most"
    steps = f"optimiser steps: {work.optimiser_steps}"
    if isinstance(recipe.algorithm, PPO):
        steps += ", and as many of the critic"
    if work.sync_bytes:
        steps += f"; a sync sends {gib(work.sync_bytes)} GiB to each rollout worker"
    yield steps
    if plan.earlier:
        times = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in plan.earlier.seconds.items())
        when = f"the last {plan.earlier.steps} steps of {plan.earlier.path}"
        yield f"longest phase: {plan.bottleneck}, measured in {when}"
        yield f"  {times}"
    else:
        each = ", ".join(f"{phase} {count(operations)}FLOP" for phase, operations in work.arithmetic.items())
        times = f", {work.ratio:.1f} times the other" if work.samples else ""
        yield f"longest phase: {plan.bottleneck}{times}, estimated from arithmetic per actor"
        yield f"  {each}; rewards are not estimated"


def _placement(plan: Plan) -> Iterator[Sequence[str]]:
    nodes = sorted({place.node for place in plan.fit.places if place.node is not None})
    for node in nodes:
        here = [place for place in plan.fit.places if place.node == node]
        for kind in dict.fromkeys(place.kind for place in here):
            those = [place for place in here if place.kind == kind]
            gpus = ", ".join(str(place.gpu) for place in those if place.gpu is not None)
            numbers = f"{kind} {those[0].index}" + (f" to {those[-1].index}" if len(those) > 1 else "")
            yield str(node), numbers, gpus or "none", f"{sum(place.cpus for place in those):g}"


def _verdict(plan: Plan) -> Iterator[str]:
    rooms = {(room.what, room.needs): room for room in plan.fit.rooms}
    for room in rooms.values():
        if room.fits:
            yield f"{room.what}: needs {gib(room.needs)} of {gib(room.has)} GiB, {room.margin:.0%} left"
    if not plan.fit.problems:
        if plan.fit.judged:
            yield "fits"
        else:
            yield "memory is not judged: say what the cluster has, as --gpus 8 --gpu-memory 80GB --memory 512GB"
        return
    yield "does not fit:"
    yield from (f"  {problem}" for problem in plan.fit.problems)
    if plan.proposals:
        yield "fits with any of these changes, the smallest first:"
        yield from ("  " + " ".join(map(str, proposal)) for proposal in plan.proposals)
    else:
        yield "no change of up to three keys was found that makes it fit; give it more machines or a smaller model"
