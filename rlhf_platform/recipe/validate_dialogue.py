"""Whether the keys of a recipe that talks fit each other, and those of the models that judge it. Imports no torch."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rlhf_platform.recipe.algorithms import DAPO, OnlineConfig
from rlhf_platform.recipe.dialogue import DialogueConfig
from rlhf_platform.recipe.judges import JudgeConfig
from rlhf_platform.recipe.keys import nearest
from rlhf_platform.recipe.preferences import MakePairs, RewardModel
from rlhf_platform.recipe.schema import EvaluationConfig, Recipe, RewardConfig

Problems = Iterator[tuple[str, str]]

HEARS_TURNS = ("qwen3_asr", "qwen2_audio", "qwen2_5_omni_thinker")
"""Layouts whose prompt may have several clips."""


def dialogue(recipe: Recipe) -> Problems:
    """The key that is to be changed, and what is wrong with its value; as the checks of `recipe.validate`."""
    if recipe.branch != "realtime":
        for name in vars(DialogueConfig()):
            if getattr(recipe.dialogue, name) != getattr(DialogueConfig(), name):
                yield f"dialogue.{name}", f"it has no effect with branch={recipe.branch}; leave it out"
        return
    if recipe.backbone.adapter not in HEARS_TURNS:
        fits = ", ".join(HEARS_TURNS)
        yield "backbone.adapter", f"its prompt has one clip, or none; branch=realtime takes one of {fits}"
    if recipe.rollout.speculative != "none":
        yield "rollout.speculative", "drafting heads are fitted to transcripts; with branch=realtime set it to none"
    yield from _measured(recipe)
    yield from _sessions(recipe)


def judges(recipe: Recipe) -> Problems:
    """Each judge has a name, and one source; what asks a judge that is not there has misspelt it."""
    names = Counter(judge.name for judge in recipe.judges)
    for index, judge in enumerate(recipe.judges):
        key = f"judges[{index}]"
        if not judge.name or names[judge.name] > 1:
            yield f"{key}.name", "rewards ask a judge by it; give each one of its own"
        yield from _source(judge, key)
        if judge.name and not _asked(recipe, judge.name):
            yield f"{key}.name", "nothing asks it; name it in a reward's judge, or leave the judge out"
    for key, reward in _terms(recipe):
        if recipe.judges and reward.judge and reward.judge not in names and _is_name(reward.judge):
            near = nearest(reward.judge, list(names))
            hint = f"did you mean {near}?" if near else f"allowed {', '.join(names)}"
            yield f"{key}.judge", f"no judge of that name; {hint}"


DEFAULT_PROMPTS = {"Preference": {"prompt": "pairwise-1"}, "RubricScore": {"prompt": "rubric-1", "rubric": "realtime"}}
"""What judges are asked with where a recipe does not say."""


def held_out(recipe: Recipe) -> Problems:
    """Law 8 for judges by name: another model, or the same with another prompt."""
    training = {_identity(recipe, reward): index for index, reward in enumerate(recipe.rewards) if reward.judge}
    for index, reward in enumerate(recipe.evaluation.rewards):
        found = training.get(_identity(recipe, reward)) if reward.judge else None
        if found is not None and any(judge.name == reward.judge for judge in recipe.judges):
            yield (
                f"evaluation.rewards[{index}].judge",
                f"rewards[{found}] trains on the same model with the same prompt, and what is trained to please it is "
                "not measured by it; name another judge, or give kwargs.prompt another value",
            )


def _identity(recipe: Recipe, reward: RewardConfig) -> tuple[str, ...]:
    for judge in recipe.judges:
        if judge.name == reward.judge:
            asks = {**DEFAULT_PROMPTS.get(reward.fn.rpartition(":")[2], {}), **reward.kwargs}
            asked = [str(asks.get(name, "")) for name in ("prompt", "rubric")]
            return judge.model.casefold(), judge.lora, judge.url.casefold().rstrip("/"), reward.fn, *asked
    return (reward.judge, reward.fn)


def _source(judge: JudgeConfig, key: str) -> Problems:
    if not judge.model and not judge.url:
        yield f"{key}.model", f"so is {key}.url; name what to serve, for example smollm2, or give an url"
    if judge.url and not judge.url.startswith(("http://", "https://")):
        yield f"{key}.url", "expected http://host:port/v1 or https://host/v1"
    if judge.url and judge.lora:
        yield f"{key}.lora", "it is merged into a model that the platform serves; with url leave it out"
    if judge.api_key_env and not judge.url:
        yield f"{key}.api_key_env", "it has no effect without url; leave it out"
    elif judge.api_key_env and judge.api_key_env not in os.environ:
        yield f"{key}.api_key_env", "that environment variable is not set; set it to the key of the endpoint"


def files(recipe: Recipe) -> Problems:
    """What judges, and what learns to judge, are read from; and a gate has two policies to compare."""
    named = [("data.labelled", recipe.data.labelled)]
    named += [(f"judges[{n}].calibration.pairs", judge.calibration.pairs) for n, judge in enumerate(recipe.judges)]
    for key, file in named:
        if file is not None and not Path(file).is_file():
            yield key, "no such file; a path is relative to the file that names it"
    for index, judge in enumerate(recipe.judges):
        if judge.lora and not Path(judge.lora, "adapter_config.json").is_file():
            yield f"judges[{index}].lora", "no LoRA is there; name a folder with adapter_config.json"
    if recipe.gate is not None and isinstance(recipe.algorithm, MakePairs | RewardModel):
        yield "gate", f"algorithm.type={recipe.algorithm.type} leaves no policy to measure; leave it out"


def _measured(recipe: Recipe) -> Problems:
    if not recipe.evaluation.rewards:
        yield "evaluation.rewards", "with branch=realtime they are all that is measured; name at least one"
    for name in ("normalizer", "long_form"):
        if getattr(recipe.evaluation, name) != getattr(EvaluationConfig(), name):
            yield f"evaluation.{name}", "it is of transcripts; with branch=realtime leave it out"
    if recipe.checkpoint.best_by == "heldout_wer":
        yield "checkpoint.best_by", "branch=realtime has no held-out WER; set it to reward"


def _sessions(recipe: Recipe) -> Problems:
    config = recipe.dialogue
    online = isinstance(recipe.algorithm, OnlineConfig) and not isinstance(recipe.algorithm, DAPO)
    if config.turns > 1 and not online:
        said = f"algorithm.type={recipe.algorithm.type} answers single prompts; set it to 1, or take another algorithm"
        yield "dialogue.turns", said
    if config.turns == 1 and config.session_weight:
        yield "dialogue.session_weight", "with dialogue.turns=1 a session is its one turn; leave it out"
    if config.user == "llm" and config.user_judge not in [judge.name for judge in recipe.judges]:
        yield "dialogue.user_judge", "dialogue.user=llm asks one of judges for the user's words; name it here"
    if config.user == "script" and config.user_judge:
        yield "dialogue.user_judge", "it has no effect with dialogue.user=script; leave it out"


def _asked(recipe: Recipe, name: str) -> bool:
    return name == recipe.dialogue.user_judge or any(reward.judge == name for _, reward in _terms(recipe))


def _is_name(judge: str) -> bool:
    """Rather than a folder, a hub name or an address, which a function may take as well."""
    return "/" not in judge and ":" not in judge


def _terms(recipe: Recipe) -> Iterator[tuple[str, RewardConfig]]:
    for section, rewards in (("rewards", recipe.rewards), ("evaluation.rewards", recipe.evaluation.rewards)):
        for index, reward in enumerate(rewards):
            yield f"{section}[{index}]", reward
