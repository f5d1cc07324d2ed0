"""The metrics of an RL step by name, for what in a recipe names one. docs/run.md says what each is."""

from collections.abc import Sequence

from rlhf_platform.recipe.keys import nearest
from rlhf_platform.types import FAILURE_KINDS

HELDOUT = ("heldout_wer", "heldout_gap", "heldout_quality", "heldout_ended", "heldout_unscored", "heldout_evasive")
"""Only in steps with an evaluation on the way."""
OF_TRANSCRIPTS = (
    "sample_wer",
    "substitution_rate",
    "deletion_rate",
    "insertion_rate",
    "insertion_deletion_balance",
    "words_per_second",
    "words_per_second_std",
    "heldout_wer",
    "heldout_gap",
)
"""Only where the policy writes what it hears."""
OF_TEXT = ("empty_rate", "repeated_ngram_rate", "evasive_rate")
"""Only where the policy writes text."""
OF_DIALOGUE = ("reply_words", "reasoning_words", "later_turns", "sessions_silent", "heldout_evasive")
"""Only where the policy answers."""
OF_JUDGES = ("judge_moved", "judge_accuracy")
"""Of a judge that is asked again; only some steps have them."""
OF_ANSWERS = ("heldout_quality", "heldout_ended", "heldout_unscored")
"""Only where what the policy says is held against no transcript."""
OF_SPEECH = (
    "codec_decoded",
    "codec_remembered",
    "codec_failed",
    "codec_audio_seconds",
    *(f"codebook_logprob/{place}" for place in range(64)),
    "seconds/codec",
    "seconds/codec_work",
)
"""Only where the policy speaks."""
METRICS = (
    "reward",
    "reward_std",
    "samples",
    "reward_failed",
    "reward_retried",
    "reward_cached",
    "reward_restarted",
    "reward_overlap",
    *OF_TRANSCRIPTS,
    *OF_TEXT,
    *OF_DIALOGUE,
    *OF_ANSWERS,
    *OF_SPEECH,
    "completion_tokens",
    "completion_tokens_std",
    "cut",
    "groups_with_spread",
    "groups_dropped",
    "kl",
    "clip_fraction",
    "entropy",
    "policy_loss",
    "grad_norm",
    "padding_share",
    "kl_coef",
    "entropy_coef",
    "value_loss",
    "value_clip_fraction",
    "explained_variance",
    "critic_grad_norm",
    "learning_rate",
    "rehearsal_loss",
    "rehearsal_weight",
    "logprob_diff_max",
    "importance_weight",
    "effective_sample_share",
    "weight_version",
    "probe_diff_max",
    *OF_JUDGES,
    "mtp_accepted",
    *(f"mtp_acceptance/{position}" for position in range(1, 8)),
    "mtp_refit",
    "mtp_refit_loss",
    "loss",
    "pair_accuracy",
    "heldout_pair_accuracy",
    "heldout_calibration_error",
    "reward_margin",
    "chosen_logprob",
    "rejected_logprob",
    "pairs",
    "round",
    "seconds",
    "seconds/rollout",
    "seconds/reward",
    "seconds/logprobs",
    "seconds/update",
    "seconds/sync",
    "seconds/refit",
)
_OF_TERMS = ("reward/", "reward_std/", "reward_shaped/", "reward_weight/", "seconds/reward/")
_OF_PAIRS = "reward_correlation/"
_OF_KINDS = "reward_failed/"
_OF_HELDOUT = "heldout/"
_BY_REWARD = "measure it by a reward, with weight 0 if need be"
_LACKS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "asr": ((*OF_SPEECH, *OF_DIALOGUE, *OF_ANSWERS), "speech or dialogue", "leave it out"),
    "tts": ((*OF_TRANSCRIPTS, *OF_TEXT, *OF_DIALOGUE), "transcripts or dialogue", _BY_REWARD),
    "realtime": ((*OF_TRANSCRIPTS, *OF_SPEECH), "transcripts or speech", _BY_REWARD),
}
"""By branch the metrics that it has not, what they are of, and the way out."""
PER_TERM = (*_OF_TERMS, _OF_PAIRS, _OF_KINDS, _OF_HELDOUT)
"""Followed by the name of a reward (and of its part), by two of them as `A~B`, by a kind of failure, or by the name of
one of `evaluation.rewards`."""


def is_heldout(name: str) -> bool:
    """Whether only steps with an evaluation on the way have the metric."""
    return name in HELDOUT or name.startswith(_OF_HELDOUT)


def comes_seldom(name: str) -> bool:
    """Whether a step may lack the metric in a run that has it."""
    return is_heldout(name) or name in OF_JUDGES


def unknown_metric(branch: str, name: str, terms: Sequence[str], heldout: Sequence[str] = ()) -> str:
    """What is wrong with the name of a metric in a recipe whose rewards are `terms`; "" when nothing is.

    `heldout`: the names of its `evaluation.rewards`.

    Which parts a reward answers shows only as it answers, so any part of a known reward passes.
    """
    lacks, of, instead = _LACKS[branch]
    if name in lacks:
        return f"it is of {of}, which branch={branch} has none of; {instead}"
    prefix = next((prefix for prefix in PER_TERM if name.startswith(prefix)), "")
    rest = name.removeprefix(prefix)
    if name in METRICS or (prefix in _OF_TERMS and _is_term(rest, terms)):
        return ""
    if prefix == _OF_HELDOUT:
        if not heldout:
            return "evaluation.rewards is empty, so no step has it; name a reward there"
        return "" if _is_term(rest, heldout) else _no_reward(prefix, rest, heldout)
    if prefix in _OF_TERMS:
        return _no_reward(prefix, rest, terms)
    if prefix == _OF_PAIRS:
        return _unknown_pair(rest, terms)
    if prefix == _OF_KINDS:
        return "" if rest in FAILURE_KINDS else f"no failure of that kind; allowed {', '.join(FAILURE_KINDS)}"
    near = nearest(name, METRICS)
    hint = f"did you mean {near}?" if near else f"allowed {', '.join(METRICS)}, {', '.join(PER_TERM)}NAME"
    return f"no metric of that name; {hint}"


def _unknown_pair(pair: str, terms: Sequence[str]) -> str:
    a, tilde, b = pair.partition("~")
    if not tilde or a == b:
        return f"it is of two rewards or parts; write {_OF_PAIRS}A~B"
    for one, other in ((a, f"~{b}"), (b, f"~{a}")):
        if not _is_term(one, terms):
            return _no_reward(_OF_PAIRS, one, terms, other)
    return "" if a < b else f"a pair is in alphabetical order; write {_OF_PAIRS}{b}~{a}"


def _is_term(name: str, terms: Sequence[str]) -> bool:
    return any(name == term or name.startswith(f"{term}.") for term in terms)


def _no_reward(prefix: str, name: str, terms: Sequence[str], rest: str = "") -> str:
    term, dot, part = name.partition(".")
    near = nearest(term, terms)
    hint = f"did you mean {prefix}{near}{dot}{part}{rest}?" if near else f"allowed {', '.join(terms)}"
    return f"no reward is named {term!r}; {hint}"
