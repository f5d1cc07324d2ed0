"""Whether the terms of a reward can be asked, and can become one number. Part of `recipe.validate`."""

import ipaddress
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rlhf_platform.recipe.expressions import EvaluationError, ExpressionError, parse
from rlhf_platform.recipe.keys import nearest
from rlhf_platform.recipe.preferences import JudgedConfig
from rlhf_platform.recipe.rewards import names_function, reward_name, weight_at
from rlhf_platform.recipe.schema import Recipe, RewardConfig

Problems = Iterator[tuple[str, str]]
"""Each key that is to be changed, and what is wrong with its value."""


def sources(recipe: Recipe) -> Problems:
    """What each term asks, a function or a server, and under which name."""
    judged = isinstance(recipe.algorithm, JudgedConfig) and recipe.data.pairs is not None
    if not recipe.rewards and not judged:
        yield "rewards", "at least one is needed, for example rewards=[{fn: rewards.asr:wer_reward}]"
    for key, reward in _terms(recipe):
        if not reward.fn and not reward.url:
            yield f"{key}.fn", f"so is {key}.url; give one of them, for example fn: rewards.asr:wer_reward"
        if reward.fn and not names_function(reward.fn):
            yield f"{key}.fn", "expected package.module:name or file.py:name"
        if reward.range and not (len(reward.range) == 2 and reward.range[0] < reward.range[1]):
            yield f"{key}.range", "expected two numbers, the lower first, as [0, 1]; or [] for any"
        yield from _server(reward, key)
    yield from _names(recipe.rewards, "rewards")
    yield from _names(recipe.evaluation.rewards, "evaluation.rewards")
    yield from _gpus(recipe)


def algebra(recipe: Recipe) -> Problems:
    """How the terms become one number."""
    names = [reward_name(reward) for reward in recipe.rewards]
    for index, reward in enumerate(recipe.rewards):
        key = f"rewards[{index}]"
        if reward.shape and (mistake := _mistake(reward.shape, "x")):
            yield f"{key}.shape", mistake
        yield from _weight(reward, key, recipe)
        yield from _gate(reward.gate, f"{key}.gate", names)
    yield from _gate(recipe.scoring.gate, "scoring.gate", names)
    if recipe.rewards and all(reward.weight == 0 for reward in recipe.rewards):
        yield "rewards[0].weight", "and so in every reward: nothing would be learnt; give one another weight"
    combine = recipe.scoring.combine
    if recipe.scoring.normalize == "terms" and combine in ("product", "harmonic_mean"):
        said = f"it puts half of the terms below 0, where combine={combine} has no value; choose total or none"
        yield "scoring.normalize", said


def measuring(recipe: Recipe) -> Problems:
    """Keys that have no effect on what measures only. Of speech and dialogue the terms have a sum, by which answers are
    compared."""
    plain = RewardConfig()
    summed = ("weight", "shape", "gate") if recipe.branch == "asr" else ()
    for index, reward in enumerate(recipe.evaluation.rewards):
        for name in (*summed, "schedule", "on_failure"):
            if getattr(reward, name) != getattr(plain, name):
                said = "it has no effect here, where each answer is measured by itself, as it is; leave it out"
                yield f"evaluation.rewards[{index}].{name}", said


def judges(recipe: Recipe) -> Problems:
    """Law 8, but for the recipe's own `judges`, of which a prompt decides too (`validate_dialogue.held_out`)."""
    own = {judge.name for judge in recipe.judges}
    asked = [(judge, index) for index, reward in enumerate(recipe.rewards) for judge in (reward.judge, reward.url)]
    training = {_same(judge): index for judge, index in asked if judge}
    kinds = (("judge", "judge", "a judge of another family"), ("url", "server", "another server"))
    for index, reward in enumerate(recipe.evaluation.rewards):
        for name, what, other in kinds:
            judge = getattr(reward, name)
            if judge and judge not in own and _same(judge) in training:
                yield (
                    f"evaluation.rewards[{index}].{name}",
                    f"rewards[{training[_same(judge)]}] trains on the same {what}, and what is trained to please it "
                    f"is not measured by it; name {other}",
                )


def _terms(recipe: Recipe) -> Iterator[tuple[str, RewardConfig]]:
    """All terms of the recipe with their keys."""
    for section, rewards in (("rewards", recipe.rewards), ("evaluation.rewards", recipe.evaluation.rewards)):
        for index, reward in enumerate(rewards):
            yield f"{section}[{index}]", reward


def _same(judge: str) -> str:
    """A judge under its spellings: a hub name's case, a folder's or URL's last slash."""
    return os.path.normpath(judge).casefold()


def _server(reward: RewardConfig, key: str) -> Problems:
    if not reward.url:
        for name in ("token_env", "send_audio"):
            if getattr(reward, name):
                yield f"{key}.{name}", f"it has no effect without {key}.url; give the url, or leave this out"
        return
    if reward.fn:
        yield f"{key}.url", f"{key}.fn is given too; give one of them"
    try:
        url = urlsplit(reward.url)
        host, _ = url.hostname or "", url.port  # a port that is none raises
    except ValueError:
        url, host = urlsplit(""), ""
    if url.scheme not in ("http", "https") or not host:
        yield f"{key}.url", "expected http://host:port/path or https://host/path"
    elif url.username is not None:
        yield f"{key}.url", f"it holds credentials, which would be logged; name a variable in {key}.token_env instead"
    elif reward.token_env and url.scheme == "http" and not _is_loopback(host):
        yield (
            f"{key}.token_env",
            f"{key}.url is http, where the token would travel in the open; use https, or a server on this machine",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names(rewards: Sequence[RewardConfig], section: str) -> Problems:
    names = list(map(reward_name, rewards))
    for name, count in Counter(names).items():
        if name and count > 1:
            last = len(names) - 1 - names[::-1].index(name)
            key = next(key for key in ("name", "fn", "url") if getattr(rewards[last], key))
            said = f"{count} rewards are named {name!r} in metrics; set {section}[{last}].name to tell them apart"
            yield f"{section}[{last}].{key}", said


def _gpus(recipe: Recipe) -> Problems:
    """A reward worker reserves GPUs for all its terms together, and Ray gives above one only whole ones."""
    each = {f"{key}.gpus": term.gpus for key, term in _terms(recipe) if term.gpus}
    total = sum(each.values())
    if total > 1 and abs(total - round(total)) > 1e-6:
        yield (
            list(each)[-1],
            f"the rewards of a worker together take {total:g}, and Ray gives parts of one GPU only; allowed "
            "up to 1 together, or a whole number",
        )


def _mistake(text: str, variable: str) -> str:
    """What is wrong with an expression that is a number of one variable; "" when nothing is."""
    try:
        expression = parse(text)
    except ExpressionError as error:
        return str(error)
    if expression.is_condition:
        return "it is a condition; expected a number"
    others = sorted(expression.names - {variable})
    return f"{others[0]} is not known here; allowed {variable}" if others else ""


def _weight(reward: RewardConfig, key: str, recipe: Recipe) -> Problems:
    """Weight and schedule, at every step of the run."""
    harmonic = recipe.scoring.combine == "harmonic_mean"
    if not reward.schedule:
        if harmonic and reward.weight < 0:
            yield f"{key}.weight", "scoring.combine is harmonic_mean; allowed at least 0"
    elif mistake := _mistake(reward.schedule, "step"):
        yield f"{key}.schedule", mistake
    elif reward.weight == 0:
        yield f"{key}.schedule", f"it has no effect on {key}.weight=0; give a weight, or leave this out"
    else:
        for step in range(1, max(recipe.steps, 1) + 1):  # an evaluation alone scores too
            try:
                weight = weight_at(reward, step)
            except EvaluationError as error:
                yield f"{key}.schedule", f"in step {step}: {error}"
                return
            if harmonic and weight < 0:
                said = f"in step {step} it makes the weight {weight:g}; scoring.combine is harmonic_mean, at least 0"
                yield f"{key}.schedule", said
                return


def _gate(gate: Mapping[str, Any], key: str, names: Sequence[str]) -> Problems:
    if not gate:
        return
    unknown = sorted(map(str, gate.keys() - {"if", "else"}))
    for name in unknown:
        near = nearest(name, ["if", "else"])
        hint = f"did you mean {near}?" if near else "allowed if and else; a condition with a comma stands in quotes"
        yield key, f"unknown key {name}; {hint}"
    if not unknown and len(gate) < 2:
        yield key, f"{'else' if 'if' in gate else 'if'} is missing; write {{if: CONDITION, else: NUMBER}}"
    otherwise = gate.get("else", 0)
    is_number = isinstance(otherwise, int | float) and not isinstance(otherwise, bool)
    if not is_number or not abs(otherwise) <= sys.float_info.max:
        yield f"{key}.else", "expected a finite number"
    if "if" in gate:
        yield from ((f"{key}.if", mistake) for mistake in _condition(gate["if"], names))


def _condition(text: Any, names: Sequence[str]) -> Iterator[str]:
    """What is wrong with a condition on terms. Which parts an answer has, only its function knows."""
    if not isinstance(text, str):
        yield "expected a condition, as cer < 0.2"
        return
    try:
        condition = parse(text)
    except ExpressionError as error:
        yield str(error)
        return
    if not condition.is_condition:
        yield "it is a number; expected a condition, as cer < 0.2"
    for asked in sorted(condition.names):
        if not any(asked == name or asked.startswith(f"{name}.") for name in names):
            near = nearest(asked, names) or nearest(asked.partition(".")[0], names)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}"
            yield f"no reward is named {asked}; {hint}"
