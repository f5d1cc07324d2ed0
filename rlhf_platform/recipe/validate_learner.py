"""What algorithm and learner ask of each other, told before any model loads. Imports no torch."""

from collections.abc import Iterator

from rlhf_platform.recipe.algorithms import GDPO, PPO, OnlineConfig, RLConfig
from rlhf_platform.recipe.metrics import is_heldout, unknown_metric
from rlhf_platform.recipe.rewards import reward_name
from rlhf_platform.recipe.schema import LearnerConfig, Recipe

Problem = tuple[str, str]
"""The key that is to be changed, and what is wrong with its value."""


def reference(recipe: Recipe) -> Iterator[Problem]:
    """Keys of the KL that would have no effect, and a reference that cannot move."""
    algorithm = recipe.algorithm
    if not isinstance(algorithm, OnlineConfig):
        return
    published = type(algorithm)()
    if algorithm.kl_coef == 0:
        for name in ("kl_in", "kl_estimator", "kl_target", "reference_every"):
            if hasattr(algorithm, name) and getattr(algorithm, name) != getattr(published, name):
                said = "it has no effect with algorithm.kl_coef=0, which is no KL; set algorithm.kl_coef, for example "
                yield f"algorithm.{name}", said + "to 0.01, or leave this out"
    elif algorithm.reference_every and recipe.learner.lora.rank:
        rank = recipe.learner.lora.rank
        said = f"with learner.lora.rank={rank} the reference is the model without LoRA, which stays; allowed only 0"
        yield "algorithm.reference_every", said
    if isinstance(algorithm, RLConfig) and algorithm.kl_in == "reward" and algorithm.kl_estimator == "straight_through":
        said = "it is about a gradient, and a reward has none; allowed k1, k2, k3, or algorithm.kl_in=loss"
        yield "algorithm.kl_estimator", said


def critic(recipe: Recipe) -> Iterator[Problem]:
    """A critic's warm-up that leaves the policy no step."""
    algorithm = recipe.algorithm
    if isinstance(algorithm, PPO) and recipe.steps and algorithm.critic_warmup >= recipe.steps:
        said = f"steps is {recipe.steps}, so the policy would never learn; allowed 0 to {recipe.steps - 1}"
        yield "algorithm.critic_warmup", said


def terms(recipe: Recipe) -> Iterator[Problem]:
    """GDPO normalises each reward by itself."""
    if isinstance(recipe.algorithm, GDPO) and recipe.scoring.normalize == "total":
        yield "scoring.normalize", "algorithm.type=gdpo normalises each term; leave this out, or take grpo"


def rehearsal(recipe: Recipe) -> Iterator[Problem]:
    """A metric that the run measures on the way, and rows for every rank and minibatch."""
    config, algorithm = recipe.rehearsal, recipe.algorithm
    if not config.metric:
        return
    if not isinstance(algorithm, RLConfig):
        said = f"algorithm.type={algorithm.type} has no loss that rehearsal could stand beside; leave it out"
        yield "rehearsal.metric", said
        return
    heldout = [reward_name(reward) for reward in recipe.evaluation.rewards]
    unknown = unknown_metric(recipe.branch, config.metric, [reward_name(reward) for reward in recipe.rewards], heldout)
    if unknown or not is_heldout(config.metric):
        yield "rehearsal.metric", unknown or "it is of what is learnt; name one of the evaluation, as heldout_quality"
    elif recipe.evaluation.every == 0:
        yield "rehearsal.metric", "evaluation.every is 0, so no step has it; set evaluation.every, for example to 10"
    parts = recipe.learner.workers * algorithm.minibatches
    if config.samples % parts:
        fits = -(-config.samples // parts) * parts
        yield (
            "rehearsal.samples",
            f"not divisible over learner.workers={recipe.learner.workers} x algorithm.minibatches="
            f"{algorithm.minibatches}; allowed multiples of {parts}, as {fits}",
        )


def tokens(recipe: Recipe) -> Iterator[Problem]:
    """Tokens that a branch's completions do not have."""
    wanted = recipe.algorithm.train_tokens if isinstance(recipe.algorithm, OnlineConfig) else "all"
    if wanted == "audio" and recipe.branch != "tts":
        said = f"branch is {recipe.branch}, whose completions are text; allowed all or text"
        yield "algorithm.train_tokens", said


def optimizer(recipe: Recipe) -> Iterator[Problem]:
    """Numbers of AdamW, and where its state may lie."""
    learner = recipe.learner
    if learner.adam_betas != LearnerConfig().adam_betas:
        if learner.optimizer != "adamw":
            said = f"it has no effect with learner.optimizer={learner.optimizer}; leave it out, or take adamw"
            yield "learner.adam_betas", said
        elif len(learner.adam_betas) != 2 or not all(0 <= beta < 1 for beta in learner.adam_betas):
            yield "learner.adam_betas", "allowed two numbers from 0 to below 1, as [0.9, 0.999]"
    if learner.offload == "none":
        return
    least = 3 if learner.offload == "weights" else 1
    if not learner.gpus:
        said = "learner.gpus is 0, so all is in the machine's memory already; allowed only none"
        yield "learner.offload", said
    elif learner.zero_stage < least:
        said = f"learner.zero_stage is {learner.zero_stage}, DeepSpeed does it from {least} on; raise it, or take none"
        yield "learner.offload", said
