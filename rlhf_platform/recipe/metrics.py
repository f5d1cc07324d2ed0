"""The metrics of an RL step by name, for what in a recipe names one. docs/run.md says what each is."""

METRICS = (
    "reward",
    "reward_failed",
    "sample_wer",
    "completion_tokens",
    "cut",
    "groups_with_spread",
    "kl",
    "clip_fraction",
    "entropy",
    "grad_norm",
    "learning_rate",
    "logprob_diff_max",
    "importance_weight",
    "effective_sample_share",
    "weight_version",
    "probe_diff_max",
    "seconds",
    "seconds/rollout",
    "seconds/reward",
    "seconds/update",
    "seconds/sync",
)
PER_TERM = ("reward/", "reward_failed/")
"""Followed by the name of a reward (and of its part), or by a kind of failure."""
