"""Real pretrained models that judge speech, each loaded once per process, without a network (docs/tts_rewards.md).

They take mono float32 samples (n,) in [-1, 1] at 16 kHz. None of them takes silence for speech
(`rewards.scorers.sound`).
"""
