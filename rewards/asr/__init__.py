"""Verifiable rewards for speech recognition (docs/asr_rewards.md): what a recipe names as `rewards.asr:NAME`."""

from rewards.asr.errors import cer_reward, error_rates, length_reward, sentence_reward, wer_reward
from rewards.asr.form import casing_reward, punctuation_reward
from rewards.asr.group import confidence_reward, mwer_reward
from rewards.asr.hallucination import hallucination_penalty, insertion_rates, repetition, silence_penalty
from rewards.asr.keywords import keyword_rates, keyword_reward
from rewards.asr.language import language_reward, script_reward
from rewards.asr.numbers import number_form_reward, number_reward
from rewards.asr.timing import timing_reward

__all__ = [
    "casing_reward",
    "cer_reward",
    "confidence_reward",
    "error_rates",
    "hallucination_penalty",
    "insertion_rates",
    "keyword_rates",
    "keyword_reward",
    "language_reward",
    "length_reward",
    "mwer_reward",
    "number_form_reward",
    "number_reward",
    "punctuation_reward",
    "repetition",
    "script_reward",
    "sentence_reward",
    "silence_penalty",
    "timing_reward",
    "wer_reward",
]
