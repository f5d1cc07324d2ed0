"""How a policy of the TTS branch speaks; as in `schema.py`."""

from dataclasses import dataclass

from rlhf_platform.recipe.field import key

CODECS = ("world", "mimi", "dac", "encodec", "snac")
CODEBOOKS_OF_CHOICE = ("world", "mimi", "dac", "encodec")
"""Residual codecs, of which the coarse codebooks alone may be used."""
WORLD_CODEBOOKS = (512, 256, 256)
"""Entries of the embedded codec's."""


@dataclass
class SpeechConfig:
    """What text becomes sound with (`branch: tts`)."""

    codec: str = key("world", choices=CODECS)
    """`world` comes with the platform; the others are read from `codec_path` (docs/codecs.md)."""
    codec_path: str | None = None
    """Checkpoint of the codec: a folder or the name of one on a hub."""
    codebooks: int | None = key(None, at_least=1, at_most=64)
    """Use only so many, the coarse ones, of a residual codec (all but `snac`): fewer tokens to learn, a worse sound.
    None: all."""
    instructions: str = key("global", choices=("none", "global", "inline"))
    """What the prompt says beside the text: `none`; `global`, how it is to be spoken as a whole; `inline`, that and
    tags within the text, as StepAudio 2.5 learns it in a second stage (docs/speech_data.md)."""
    shortest: float = key(0.03, at_least=0.0, at_most=10.0)
    """Seconds of speech per character of text before an answer may end: none is clipped. About half of what the
    fastest speech of the data takes."""
    longest: float = key(0.2, above=0.0, at_most=10.0)
    """Seconds per character after which an answer is cut, and counted as one that did not end. About twice what the
    slowest speech of the data takes."""
    workers: int = key(1, at_least=1)
    """Actors that make sound of tokens, once for all rewards."""
    cpus: float = key(0.25, above=0.0)
    """Cores per worker; below 1 a core is shared with other light actors. The embedded codec is many times faster than
    real time on one."""
