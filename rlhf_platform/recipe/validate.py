"""Whether the values of a recipe can be run, told before any model loads. Imports no torch."""

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rlhf_platform.recipe import (
    validate_algorithm,
    validate_dialogue,
    validate_learner,
    validate_mtp,
    validate_rewards,
    validate_speech,
)
from rlhf_platform.recipe.algorithms import DAPO, OnlineConfig, OnlineDPO
from rlhf_platform.recipe.backbone import BUILDS
from rlhf_platform.recipe.bounds import out_of_bounds
from rlhf_platform.recipe.keys import nearest
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.metrics import OF_JUDGES, is_heldout, unknown_metric
from rlhf_platform.recipe.rewards import reward_name, served_judges
from rlhf_platform.recipe.schema import LoraConfig, Recipe

AUDIO_TOKENS_PER_SECOND = 13
"""Positions that one second of audio takes in the tiny backbone's decoder."""
PROMPT_TOKENS = 32
"""Positions kept for the text around the audio in the tiny backbone."""

Problem = tuple[str, str]
"""The key that is to be changed, and what is wrong with its value."""
Check = Callable[[Recipe], Iterator[Problem]]


def problems(loaded: LoadedRecipe) -> list[str]:
    """One line per value that cannot be run: the key, its value, what is allowed, the way out, where it was set.

    A check that reads a key which is broken, or out of its bounds, waits until that is mended.
    """
    found = [(key, text) for key, text in out_of_bounds(loaded.recipe) if key not in loaded.broken]
    unsure = {key for key, _ in found} | loaded.broken
    for check, reads in _CHECKS:
        if not any(key.startswith(reads) for key in unsure):
            found += check(loaded.recipe)
    return [located(loaded, key, text) for key, text in found]


def located(loaded: LoadedRecipe, key: str, text: str) -> str:
    """`KEY is VALUE: TEXT (FILE:LINE)`. A value from the environment is shown by its variable's name."""
    value: Any = OmegaConf.to_container(OmegaConf.create(loaded.yaml), resolve=False)
    for part in re.findall(r"[^.\[\]]+", key):
        value = value[int(part) if isinstance(value, list) else part]
    words = {None: "null", True: "true", False: "false"}
    number = isinstance(value, float)
    shown = words[value] if value is None or isinstance(value, bool) else f"{value:g}" if number else repr(value)
    return f"{key} is {shown}: {text} ({origin(loaded, key)})"


def origin(loaded: LoadedRecipe, key: str) -> str:
    """Where a key was set, or the list that it is an item of: `file.yaml:7`, `on the command line`, `the default`."""
    while key and key not in loaded.origins:
        key = re.sub(r"(\.|^)[^.\[]*$|\[\d+\]$", "", key)
    return loaded.origins.get(key, "the default")


def uses_local_cluster(recipe: Recipe) -> bool:
    """Whether the run starts a Ray of its own rather than joining a running one."""
    return recipe.cluster.address is None and not os.environ.get("RAY_ADDRESS")


def _name(recipe: Recipe) -> Iterator[Problem]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name):
        yield "name", "it names a folder; allowed letters, digits, then . _ - too"


def _address(recipe: Recipe) -> Iterator[Problem]:
    address = recipe.cluster.address
    if address is not None and not re.fullmatch(r"auto|(ray://)?[^\s:/]+:\d+", address):
        yield "cluster.address", "allowed auto, host:port, ray://host:port, null (local)"


def _data(recipe: Recipe) -> Iterator[Problem]:
    manifest, demo = recipe.data.manifest, recipe.data.demo
    if recipe.data.labelled is not None:
        if manifest is not None or demo is not None:
            yield "data.labelled", "data.manifest or data.demo is given too; give one, set the others to null"
    elif manifest is None and demo is None:
        yield "data.manifest", "so is data.demo; give one of them, for example data.demo=digits"
    elif manifest is not None and demo is not None:
        yield "data.manifest", f"data.demo is {demo} too; give one, set the other to null"
    if manifest is not None and not Path(manifest).is_file():
        file = Path(manifest)
        near = nearest(file.name, [path.name for path in file.parent.glob("*.jsonl")])
        hint = f"did you mean {file.parent / near}?" if near else "a path is relative to the file that names it"
        yield "data.manifest", f"no such file; {hint}"
    for split in ("train_split", "rl_split"):
        if getattr(recipe.data, split) == recipe.data.eval_split:
            yield f"data.{split}", "data.eval_split is the same; nothing may learn from what measures it, name another"


def _backbone(recipe: Recipe) -> Iterator[Problem]:
    backbone = recipe.backbone
    reads = BUILDS.get(backbone.build)
    if backbone.path is None and reads and backbone.adapter != reads:
        yield (
            "backbone.adapter",
            f"backbone.build={backbone.build} makes a checkpoint that {reads} reads; set it to {reads}, or name a "
            "checkpoint in backbone.path",
        )


def _sampling(recipe: Recipe) -> Iterator[Problem]:
    if recipe.rollout.top_p < 1:
        said = "only 1 is allowed, a cut tail is not the distribution that is learnt; lower rollout.temperature instead"
        yield "rollout.top_p", said
    if recipe.rollout.max_new_tokens >= recipe.rollout.max_tokens:
        limit = recipe.rollout.max_tokens
        yield "rollout.max_new_tokens", f"rollout.max_tokens={limit} holds the prompt too; allowed below {limit}"


def _lora(recipe: Recipe) -> Iterator[Problem]:
    """Keys of LoRA that would have no effect, and what LoRA leaves no room for."""
    for name, lora in (("align", recipe.align.lora), ("sft", recipe.sft.lora), ("learner", recipe.learner.lora)):
        idle = [key for key in ("alpha", "targets") if getattr(lora, key) != getattr(LoraConfig(), key)]
        if lora.rank == 0 and idle:
            yield (
                f"{name}.lora.{idle[0]}",
                f"it has no effect with {name}.lora.rank=0, which is no LoRA; set the rank, for example to 16, or "
                "leave this out",
            )
    if recipe.align.lora.rank > 0:
        said = "this stage teaches the adaptor alone, allowed only 0; set sft.lora.rank for the stage after it"
        yield "align.lora.rank", said
    rank = recipe.learner.lora.rank
    if rank > 0 and not recipe.learner.freeze_encoder:
        said = f"with learner.lora.rank={rank} LoRA alone learns; set it to true, or learner.lora.rank to 0"
        yield "learner.freeze_encoder", said


def _monitors(recipe: Recipe) -> Iterator[Problem]:
    terms = [*map(reward_name, recipe.rewards), *(["overlong"] if isinstance(recipe.algorithm, DAPO) else [])]
    for index, monitor in enumerate(recipe.monitors):
        unknown = unknown_metric(
            recipe.branch, monitor.metric, terms, list(map(reward_name, recipe.evaluation.rewards))
        )
        if unknown:
            yield f"monitors[{index}].metric", unknown
        elif is_heldout(monitor.metric) and recipe.evaluation.every == 0:
            said = "evaluation.every is 0, so no step has it; set evaluation.every, for example to 10"
            yield f"monitors[{index}].metric", said
        elif monitor.metric in OF_JUDGES and not _times_asked_again(recipe):
            said = "no judge is asked again, so no step has it; set judges[0].calibration.every, for example to 10"
            yield f"monitors[{index}].metric", said
        if (monitor.above is None) == (monitor.below is None):
            other = "neither" if monitor.above is None else "both"
            yield f"monitors[{index}].above", f"{other} of above and below are given; give one of them"
        for side in ("above", "below"):
            limit = getattr(monitor, side)
            if monitor.baseline > 0 and limit is not None and limit <= 0:
                said = f"with baseline={monitor.baseline} it is a share of what the start had; allowed above 0"
                yield f"monitors[{index}].{side}", said


def _autocast(recipe: Recipe) -> Iterator[Problem]:
    for stage in ("align", "sft"):
        if getattr(recipe, stage).autocast and recipe.backbone.dtype != "float32":
            yield f"{stage}.autocast", f"backbone.dtype={recipe.backbone.dtype} computes so already; leave it out"


def _times_asked_again(recipe: Recipe) -> int:
    """How often the judge that is asked again most often is, during RL; 0: none is."""
    return max(
        (recipe.steps // judge.calibration.every for judge in recipe.judges if judge.calibration.every), default=0
    )


def _checkpoint(recipe: Recipe) -> Iterator[Problem]:
    checkpoint, evaluation = recipe.checkpoint, recipe.evaluation
    if checkpoint.every == 0 or checkpoint.keep_best == 0 or checkpoint.best_by != "heldout_wer":
        return
    if evaluation.every == 0 or checkpoint.every % evaluation.every:
        yield (
            "checkpoint.best_by",
            f"a checkpoint every {checkpoint.every} steps has no held-out WER when evaluation.every is "
            f"{evaluation.every}; set evaluation.every={checkpoint.every}, or checkpoint.best_by=reward",
        )


def _batches(recipe: Recipe) -> Iterator[Problem]:
    algorithm = recipe.algorithm
    if not isinstance(algorithm, OnlineConfig):
        return
    prompts, group = recipe.rollout.prompts_per_step, algorithm.group_size
    workers, parts = recipe.rollout.workers, recipe.learner.workers * algorithm.minibatches
    if isinstance(algorithm, OnlineDPO):
        group = 1  # a pair of each prompt
    step = math.lcm(workers, parts // math.gcd(parts, group))
    lower, higher = prompts // step * step, (prompts // step + 1) * step
    fits = f"allowed multiples of {step}: {f'{lower} or ' if lower else ''}{higher}"
    if prompts % workers:
        yield "rollout.prompts_per_step", f"not divisible over rollout.workers={workers}; {fits}"
    if prompts * group % parts:
        what = "makes as many pairs" if isinstance(algorithm, OnlineDPO) else ""
        yield (
            "rollout.prompts_per_step",
            (what or f"x algorithm.group_size={group} makes {prompts * group} samples")
            + f", not divisible over learner.workers={recipe.learner.workers} x "
            f"algorithm.minibatches={algorithm.minibatches}; {fits}",
        )


def _cores(recipe: Recipe) -> Iterator[Problem]:
    """On a local cluster the cores and GPUs that rollout and learner reserve must fit together.

    Their phases alternate, yet each keeps its cores for the whole run: two busy actors on one core take
    several times as long. Reward workers need a fraction of a core each, which the local cluster gets on top.
    """
    if not uses_local_cluster(recipe):
        return
    rollout, learner, cluster = recipe.rollout, recipe.learner, recipe.cluster
    fitting = recipe.mtp.steps + recipe.mtp.joint_steps
    stages = (
        ("align", recipe.align.steps, recipe.align.cpus, "the warm start"),
        ("sft", recipe.sft.steps, recipe.sft.cpus, "the warm start"),
        ("mtp", fitting, recipe.mtp.cpus, "fitting the heads"),
    )
    for stage, steps, cpus, what in stages:
        if steps > 0 and learner.workers * cpus > cluster.cpus:
            yield (
                f"{stage}.cpus",
                f"{what} keeps {learner.workers} x {cpus} cores, cluster.cpus is {cluster.cpus}; lower "
                f"{stage}.cpus or learner.workers, or raise cluster.cpus",
            )
    for kind, what in (("cpus", "cores"), ("gpus", "GPUs")):
        each = [(part.workers, getattr(part, kind)) for part in (rollout, learner)]
        scored = sum(getattr(reward, kind) for reward in (*recipe.rewards, *recipe.evaluation.rewards))
        judged = sum(count for judge in served_judges(recipe) if (count := getattr(judge, kind)) >= 1)
        needed = math.ceil(sum(workers * count for workers, count in each) + recipe.scoring.workers * scored + judged)
        if needed > getattr(cluster, kind):
            kept = f"rollout keeps {each[0][0]} x {each[0][1]} {what} and learner {each[1][0]} x {each[1][1]}"
            kept += f", the rewards {recipe.scoring.workers} x {scored:g}" if scored else ""
            kept += f", the judges {judged:g}" if judged else ""
            of = "any of them" if scored or judged else "either"
            yield (
                f"cluster.{kind}",
                f"{kept}, together {needed}; raise it to {needed}, lower workers or {kind} of {of}, or name a "
                "cluster.address",
            )


def _tiny(recipe: Recipe) -> Iterator[Problem]:
    """Sizes of the backbone that is built from nothing; a checkpoint brings its own."""
    if recipe.backbone.path is not None or recipe.backbone.build != "tiny":
        return
    tiny, window = recipe.backbone.tiny, recipe.backbone.window
    heads = tiny.attention_heads
    if tiny.hidden_size % heads:
        nearest_size = math.ceil(tiny.hidden_size / heads) * heads
        said = f"not divisible by backbone.tiny.attention_heads={heads}; nearest: {nearest_size}"
        yield "backbone.tiny.hidden_size", said
    if heads % tiny.key_value_heads:
        divisors = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
        yield "backbone.tiny.key_value_heads", f"does not divide attention_heads={heads}; allowed {divisors}"
    audio = math.ceil(AUDIO_TOKENS_PER_SECOND * window)
    needed = audio + recipe.rollout.max_new_tokens + PROMPT_TOKENS
    if needed > tiny.max_positions:
        yield (
            "backbone.tiny.max_positions",
            f"backbone.window={window:g} s is {audio}, rollout.max_new_tokens={recipe.rollout.max_new_tokens}, the "
            f"prompt {PROMPT_TOKENS}, together {needed}; raise it to {needed} or lower one of them",
        )


_CHECKS: tuple[tuple[Check, tuple[str, ...]], ...] = (
    (_name, ("name",)),
    (_address, ("cluster.address",)),
    (_data, ("data.",)),
    (_backbone, ("backbone.adapter", "backbone.build", "backbone.path")),
    (validate_rewards.sources, ("rewards", "evaluation.rewards")),
    (validate_rewards.algebra, ("rewards", "scoring.combine", "scoring.normalize", "steps")),
    (validate_rewards.measuring, ("evaluation.rewards",)),
    (validate_rewards.judges, ("rewards", "evaluation.rewards")),
    (_sampling, ("rollout.",)),
    (_autocast, ("sft.autocast", "align.autocast", "backbone.dtype")),
    (_lora, ("align.lora", "sft.lora", "learner.lora", "learner.freeze_encoder")),
    (validate_learner.reference, ("algorithm.", "learner.lora.rank")),
    (validate_learner.critic, ("algorithm.", "steps")),
    (validate_learner.terms, ("algorithm.type", "scoring.normalize")),
    (validate_learner.tokens, ("algorithm.", "branch")),
    (
        validate_learner.rehearsal,
        ("rehearsal.", "algorithm.", "evaluation.", "rewards", "learner.workers", "branch"),
    ),
    (validate_learner.optimizer, ("learner.",)),
    (
        validate_algorithm.offline,
        ("algorithm.", "data.pairs", "learner.", "rollout.prompts_per_step", "steps", "backbone.adapter"),
    ),
    (validate_mtp.fitting, ("mtp.", "backbone.adapter", "learner.workers", "rollout.speculative")),
    (validate_mtp.drafting, ("mtp.", "backbone.", "learner.", "rollout.speculative", "algorithm.type")),
    (validate_speech.speech, ("branch", "speech.", "backbone.", "evaluation.", "checkpoint.", "align.steps", "sft.")),
    (validate_speech.pairs, ("algorithm.type", "steps")),
    (validate_speech.beside, ("sft.", "align.", "branch", "backbone.adapter")),
    (
        validate_dialogue.dialogue,
        ("branch", "dialogue.", "backbone.adapter", "evaluation.", "checkpoint.", "rollout.speculative", "judges"),
    ),
    (validate_dialogue.judges, ("judges", "rewards", "evaluation.rewards", "dialogue.user_judge")),
    (validate_dialogue.files, ("data.labelled", "judges", "gate", "algorithm.type")),
    (validate_dialogue.held_out, ("judges", "rewards", "evaluation.rewards")),
    (_monitors, ("monitors", "rewards", "algorithm.type", "evaluation.every", "evaluation.rewards")),
    (_checkpoint, ("checkpoint.", "evaluation.every")),
    (_batches, ("rollout.", "algorithm.", "learner.")),
    (
        _cores,
        (
            "rollout.",
            "learner.",
            "align.",
            "sft.",
            "mtp.",
            "cluster.",
            "scoring.",
            "rewards",
            "evaluation.rewards",
            "judges",
        ),
    ),
    (_tiny, ("backbone.", "rollout.max_new_tokens")),
)
"""Each check, and the keys that it reads: while one of them is wrong it would speak of what nobody wrote."""


def describe(loaded: LoadedRecipe) -> str:
    """A run in one line, for a person who has just checked its recipe."""
    recipe = loaded.recipe
    samples = recipe.rollout.prompts_per_step * recipe.algorithm.group_size
    rewards = " + ".join(f"{reward.weight:g} x {reward_name(reward)}" for reward in recipe.rewards)
    align = f"{recipe.align.steps} steps for the adaptor, then " if recipe.align.steps else ""
    fitting = recipe.mtp.steps + recipe.mtp.joint_steps
    heads = f"{fitting} steps for {recipe.mtp.blocks} heads, then " if fitting else ""
    return (
        f"{recipe.name}: {align}{recipe.sft.steps} steps of warm start, then {heads}{recipe.steps} steps of "
        f"{recipe.algorithm.type} on {samples} samples ({recipe.rollout.prompts_per_step} prompts x "
        f"{recipe.algorithm.group_size}), reward {rewards}{_too_short_for(recipe)}"
    )


def _too_short_for(recipe: Recipe) -> str:
    """The monitors that cannot trip before the run ends; not refused, for a smoke run is short on purpose."""
    evaluations = math.ceil(recipe.steps / recipe.evaluation.every) if recipe.evaluation.every else 0
    again = _times_asked_again(recipe)
    names = [
        monitor.metric
        for monitor in recipe.monitors
        if monitor.baseline + monitor.for_steps
        > (evaluations if is_heldout(name := monitor.metric) else again if name in OF_JUDGES else recipe.steps)
    ]
    return f"; too short for its monitors of {', '.join(dict.fromkeys(names))}" if names else ""
