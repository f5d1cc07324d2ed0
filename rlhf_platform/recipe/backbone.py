"""The keys of `backbone`: the model that all branches share. Importing this file imports no torch."""

from dataclasses import dataclass, field

from rlhf_platform.recipe.field import key


@dataclass
class TinyBackbone:
    """Sizes of a backbone built from nothing in the layout of `adapter`; about 1.5 M parameters by default."""

    hidden_size: int = key(128, at_least=32, at_most=1024)
    """Width of encoder and decoder."""
    decoder_layers: int = key(4, at_least=1, at_most=48)
    """Layers of the decoder, which writes the text."""
    encoder_layers: int = key(3, at_least=1, at_most=48)
    """Layers of the audio encoder."""
    attention_heads: int = key(4, at_least=1, at_most=64)
    """Heads of encoder and decoder; the decoder's are 32 wide, the least that vLLM's CPU attention takes."""
    key_value_heads: int = key(2, at_least=1, at_most=64)
    """Heads for keys and values, shared by the attention heads, whose number they divide."""
    conv_channels: int = key(16, at_least=8, at_most=512)
    """Channels of the three convolutions that turn 100 frames a second into 13 positions a second."""
    text_pieces: int = key(400, at_least=256, at_most=100_000)
    """Byte-level text pieces, learnt from the training texts."""
    audio_slots: int = key(256, at_least=0, at_most=65_536)
    """Codec tokens kept in the vocabulary for the TTS branch."""
    max_positions: int = key(512, at_least=64, at_most=131_072)
    """Prompt and completion together, in tokens."""
    seed: int = key(0, at_least=0)
    """Seed of the initial weights, apart from the run's `seed` so that runs share a warm start."""


BUILDS = {"tiny": "qwen3_asr", "whisper_tiny_en": "whisper", "small": "qwen2_audio", "smollm2": "text_lm"}
"""The adapter that reads what `backbone.build` makes."""
ADAPTERS = ("qwen3_asr", "whisper", "qwen2_audio", "qwen2_5_omni_thinker", "codec_lm", "orpheus", "text_lm")


@dataclass
class BackboneConfig:
    """The audio-language model all branches share."""

    adapter: str = key("qwen3_asr", choices=ADAPTERS)
    """Which layout of `policies/` reads, feeds and exports the model."""
    path: str | None = None
    """A checkpoint in Hugging Face layout (folder or hub name); none: `build` one."""
    build: str = key("tiny", choices=tuple(BUILDS))
    """What to build when `path` is null: `tiny` from nothing; `whisper_tiny_en`, pretrained, from a Python package;
    `small`, Whisper's encoder and SmolLM2-135M with a new adaptor between them, from packages too."""
    tiny: TinyBackbone = field(default_factory=TinyBackbone)
    """Sizes for `build: tiny`; its `audio_slots` count for `build: small` too."""
    window: float = key(4.0, above=0.0, at_most=1200.0)
    """Longest clip in seconds; a longer one is refused, never cut, but for held-out ones with `evaluation.long_form`.
    Layouts that pad every clip (Whisper, Qwen2-Audio) pad to it: half the window is half the encoder's work. Whisper
    loses its way below 15."""
    dtype: str = key("float32", choices=("float32", "bfloat16"))
    """Of weights in rollout and learner alike; log-prob parity below 1e-4 needs float32."""
