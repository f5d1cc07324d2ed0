"""Rewards for speech (docs/tts_rewards.md): what a recipe names as `rewards.tts:NAME`."""

from rewards.tts.acoustic import teacher_distance
from rewards.tts.duration import duration_band, pause_match
from rewards.tts.instruction import instruction_match, instruction_match_praat
from rewards.tts.intelligibility import phonemes, whisper_cer
from rewards.tts.naturalness import mos
from rewards.tts.variety import ended, f0_spread, loops, token_diversity
from rewards.tts.voice import similarity

__all__ = [
    "duration_band",
    "ended",
    "f0_spread",
    "instruction_match",
    "instruction_match_praat",
    "loops",
    "mos",
    "pause_match",
    "phonemes",
    "similarity",
    "teacher_distance",
    "token_diversity",
    "whisper_cer",
]
