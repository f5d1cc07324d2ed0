"""Whether the values of a recipe can be run, told before any model loads. Imports no torch."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_platform.errors import RecipeError
from rlhf_platform.recipe.keys import keys_of, nearest
from rlhf_platform.recipe.load import LoadedRecipe
from rlhf_platform.recipe.schema import BUILDS, LoraConfig, Recipe, RewardConfig

AUDIO_TOKENS_PER_SECOND = 13
"""Positions that one second of audio takes in the tiny backbone's decoder."""
PROMPT_TOKENS = 32
"""Positions kept for the text around the audio in the tiny backbone."""


def validate(loaded: LoadedRecipe) -> None:
    """Raises `RecipeError` with one line per value that cannot be run."""
    found = problems(loaded)
    if found:
        raise RecipeError("\n".join(found))


def problems(loaded: LoadedRecipe) -> list[str]:
    """One line per value that cannot be run: the key, its value, what is allowed and the way out."""
    recipe = loaded.recipe
    out_of_bounds = list(_bounds(recipe, ""))
    # The arithmetic below divides by sizes, so it waits until they are within their bounds.
    related = [] if out_of_bounds else [*_batches(recipe), *_cores(recipe), *_tiny(recipe)]
    return [
        *out_of_bounds,
        *_name(recipe),
        *_data(recipe),
        *_backbone(recipe),
        *_rewards(recipe),
        *_sampling(recipe),
        *_lora(recipe),
        *related,
    ]


def reward_name(reward: RewardConfig) -> str:
    """The name of a reward in metrics and tables: its own, else its function's."""
    return reward.name or reward.fn.rpartition(":")[2]


def names_function(fn: str) -> bool:
    """Whether `fn` has the form `package.module:name` or `file.py:name`."""
    source, _, function = fn.rpartition(":")
    return bool(source) and function.isidentifier()


def uses_local_cluster(recipe: Recipe) -> bool:
    """Whether the run starts a Ray of its own rather than joining a running one."""
    return recipe.cluster.address is None and not os.environ.get("RAY_ADDRESS")


def _bounds(section: Any, prefix: str) -> Iterator[str]:
    for key in keys_of(type(section)).values():
        value, full = getattr(section, key.name), prefix + key.name
        if key.section:
            yield from _bounds(value, full + ".")
        elif key.item:
            for index, item in enumerate(value):
                yield from _bounds(item, f"{full}[{index}].")
        elif not _allows(key.field.metadata, value):
            bounds = key.field.metadata
            yield f"{full} is {_text(value)}: allowed {allowed(bounds)}{_meant(bounds, value)}"


def _allows(bounds: Mapping[str, Any], value: Any) -> bool:
    if "choices" in bounds:
        return value in bounds["choices"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return (
        math.isfinite(value)
        and value >= bounds.get("at_least", -math.inf)
        and value <= bounds.get("at_most", math.inf)
        and value > bounds.get("above", -math.inf)
    )


def allowed(bounds: Mapping[str, Any]) -> str:
    """A field's bounds in words: "2 to 1024", "above 0 to 1", "one of off, online"; "" when it has none."""
    if "choices" in bounds:
        choices = [_text(choice) for choice in bounds["choices"]]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else f"only {choices[0]}"
    low = bounds.get("at_least", bounds.get("above"))
    above = "above " if "above" in bounds else ""
    if "at_most" in bounds:
        high = _number(bounds["at_most"])
        return f"at most {high}" if low is None else f"{above}{_number(low)} to {high}"
    return "" if low is None else f"{above or 'at least '}{_number(low)}"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _meant(bounds: Mapping[str, Any], value: Any) -> str:
    near = nearest(str(value), [str(choice) for choice in bounds.get("choices", ())])
    return f"; did you mean {near}?" if near else ""


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _name(recipe: Recipe) -> Iterator[str]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name):
        yield f"name is {recipe.name!r}: it names a folder; allowed letters, digits, then . _ - too"
    address = recipe.cluster.address
    if address is not None and not re.fullmatch(r"auto|(ray://)?[^\s:/]+:\d+", address):
        yield f"cluster.address is {address!r}: allowed auto, host:port, ray://host:port, null (local)"


def _data(recipe: Recipe) -> Iterator[str]:
    manifest, demo = recipe.data.manifest, recipe.data.demo
    if manifest is None and demo is None:
        yield "data.manifest and data.demo are null: give one of them, for example data.demo=digits"
    elif manifest is not None and demo is not None:
        yield f"data.demo is {demo} and data.manifest is {manifest!r}: give one, set the other to null"
    if manifest is not None and not Path(manifest).is_file():
        file = Path(manifest)
        near = nearest(file.name, [path.name for path in file.parent.glob("*.jsonl")])
        hint = f"did you mean {file.parent / near}?" if near else "a path is relative to the file that names it"
        yield f"data.manifest is {manifest!r}: no such file; {hint}"


def _backbone(recipe: Recipe) -> Iterator[str]:
    backbone = recipe.backbone
    reads = BUILDS.get(backbone.build)
    if backbone.path is None and reads and backbone.adapter != reads:
        yield (
            f"backbone.adapter is {backbone.adapter}: backbone.build={backbone.build} makes a checkpoint that "
            f"{reads} reads; set it to {reads}, or name a checkpoint in backbone.path"
        )


def _rewards(recipe: Recipe) -> Iterator[str]:
    if not recipe.rewards:
        yield "rewards is empty: at least one is needed, for example rewards=[{fn: rewards.asr:wer_reward}]"
    elif all(reward.weight == 0 for reward in recipe.rewards):
        yield "rewards[].weight is 0 in every reward: nothing would be learnt; give one another weight"
    for index, reward in enumerate(recipe.rewards):
        if not names_function(reward.fn):
            yield f"rewards[{index}].fn is {reward.fn!r}: expected package.module:name or file.py:name"
    for name, count in Counter(map(reward_name, recipe.rewards)).items():
        if count > 1:
            yield f"rewards[].name is {name!r} in {count} rewards: names must differ; set name in all but one"


def _sampling(recipe: Recipe) -> Iterator[str]:
    algorithm, rollout = recipe.algorithm, recipe.rollout
    if algorithm.type == "grpo" and algorithm.group_size == 1:
        yield (
            "algorithm.group_size is 1: grpo compares samples of one prompt, allowed 2 to 1024; "
            "8 is the default, 64 is published"
        )
    if 0 < rollout.top_p < 1:
        yield (
            f"rollout.top_p is {rollout.top_p:g}: only 1 is allowed, a cut tail is not the distribution "
            "that is learnt; lower rollout.temperature instead"
        )


def _lora(recipe: Recipe) -> Iterator[str]:
    """Keys of LoRA that would have no effect, and what LoRA leaves no room for."""
    for name, lora in (("align", recipe.align.lora), ("sft", recipe.sft.lora), ("learner", recipe.learner.lora)):
        idle = [key for key in ("alpha", "targets") if getattr(lora, key) != getattr(LoraConfig(), key)]
        if lora.rank == 0 and idle:
            yield (
                f"{name}.lora.rank is 0: {name}.lora.{idle[0]}={getattr(lora, idle[0])} has no effect without LoRA; "
                "set the rank, for example to 16, or leave the other out"
            )
    if recipe.align.lora.rank > 0:
        yield (
            f"align.lora.rank is {recipe.align.lora.rank}: this stage teaches the adaptor alone, allowed only 0; "
            "set sft.lora.rank for the stage after it"
        )
    rank = recipe.learner.lora.rank
    if rank > 0 and not recipe.learner.freeze_encoder:
        yield (
            f"learner.freeze_encoder is false: with learner.lora.rank={rank} LoRA alone learns; set it to true, or "
            "learner.lora.rank to 0"
        )


def _batches(recipe: Recipe) -> Iterator[str]:
    prompts, group = recipe.rollout.prompts_per_step, recipe.algorithm.group_size
    workers, parts = recipe.rollout.workers, recipe.learner.workers * recipe.algorithm.minibatches
    step = math.lcm(workers, parts // math.gcd(parts, group))
    lower, higher = prompts // step * step, (prompts // step + 1) * step
    fits = f"allowed multiples of {step}: {f'{lower} or ' if lower else ''}{higher}"
    if prompts % workers:
        yield f"rollout.prompts_per_step is {prompts}: not divisible over rollout.workers={workers}; {fits}"
    if prompts * group % parts:
        yield (
            f"rollout.prompts_per_step is {prompts}: x algorithm.group_size={group} makes {prompts * group} "
            f"samples, not divisible over learner.workers={recipe.learner.workers} x "
            f"algorithm.minibatches={recipe.algorithm.minibatches}; {fits}"
        )


def _cores(recipe: Recipe) -> Iterator[str]:
    """On a local cluster the cores that rollout and learner reserve must fit together.

    Their phases alternate, yet each keeps its cores for the whole run: two busy actors on one core take
    several times as long. Reward workers need a fraction of a core each, which the local cluster gets on top.
    """
    rollout, learner = recipe.rollout, recipe.learner
    needed = rollout.workers * rollout.cpus + learner.workers * learner.cpus
    for stage, section in (("align", recipe.align), ("sft", recipe.sft)):
        warm = learner.workers * section.cpus
        if uses_local_cluster(recipe) and section.steps > 0 and warm > recipe.cluster.cpus:
            yield (
                f"{stage}.cpus is {section.cpus}: the warm start keeps {learner.workers} x {section.cpus} cores, "
                f"cluster.cpus is {recipe.cluster.cpus}; lower {stage}.cpus or learner.workers, or raise cluster.cpus"
            )
    if uses_local_cluster(recipe) and needed > recipe.cluster.cpus:
        yield (
            f"cluster.cpus is {recipe.cluster.cpus}: rollout keeps {rollout.workers} x {rollout.cpus} cores "
            f"and learner {learner.workers} x {learner.cpus}, together {needed}; raise it to {needed}, lower "
            "workers or cpus of either, or name a cluster.address"
        )


def _tiny(recipe: Recipe) -> Iterator[str]:
    """Sizes of the backbone that is built from nothing; a checkpoint brings its own."""
    if recipe.backbone.path is not None or recipe.backbone.build != "tiny":
        return
    tiny, window = recipe.backbone.tiny, recipe.backbone.window
    if tiny.hidden_size % tiny.attention_heads:
        yield (
            f"backbone.tiny.hidden_size is {tiny.hidden_size}: not divisible by "
            f"backbone.tiny.attention_heads={tiny.attention_heads}; "
            f"nearest: {math.ceil(tiny.hidden_size / tiny.attention_heads) * tiny.attention_heads}"
        )
    if tiny.attention_heads % tiny.key_value_heads:
        divisors = [str(n) for n in range(1, tiny.attention_heads + 1) if tiny.attention_heads % n == 0]
        yield (
            f"backbone.tiny.key_value_heads is {tiny.key_value_heads}: does not divide "
            f"backbone.tiny.attention_heads={tiny.attention_heads}; allowed {', '.join(divisors)}"
        )
    audio = math.ceil(AUDIO_TOKENS_PER_SECOND * window)
    needed = audio + recipe.rollout.max_new_tokens + PROMPT_TOKENS
    if needed > tiny.max_positions:
        yield (
            f"backbone.tiny.max_positions is {tiny.max_positions}: backbone.window={window:g} s is {audio}, "
            f"rollout.max_new_tokens={recipe.rollout.max_new_tokens}, the prompt {PROMPT_TOKENS}, "
            f"together {needed}; raise it to {needed} or lower one of them"
        )


def describe(loaded: LoadedRecipe) -> str:
    """A run in one line, for a person who has just checked its recipe."""
    recipe = loaded.recipe
    samples = recipe.rollout.prompts_per_step * recipe.algorithm.group_size
    rewards = " + ".join(f"{reward.weight:g} x {reward_name(reward)}" for reward in recipe.rewards)
    align = f"{recipe.align.steps} steps for the adaptor, then " if recipe.align.steps else ""
    return (
        f"{recipe.name}: {align}{recipe.sft.steps} steps of warm start, then {recipe.steps} steps of "
        f"{recipe.algorithm.type} on {samples} samples ({recipe.rollout.prompts_per_step} prompts x "
        f"{recipe.algorithm.group_size}), reward {rewards}"
    )
