"""From the name in a recipe to an adapter."""

from pathlib import Path

from transformers import AutoConfig

from policies.adapter import PolicyAdapter
from policies.codec_lm import CodecLMAdapter
from policies.orpheus import OrpheusAdapter
from policies.qwen2_5_omni import Qwen25OmniThinkerAdapter
from policies.qwen2_audio import Qwen2AudioAdapter
from policies.qwen3_asr import Qwen3ASRAdapter
from policies.speaking import SPEAKING, SpeechLayout
from policies.text_lm import TextLMAdapter
from policies.whisper import WhisperAdapter
from rlhf_platform.errors import RecipeError

ADAPTERS: dict[str, type[PolicyAdapter]] = {
    "qwen2_5_omni_thinker": Qwen25OmniThinkerAdapter,
    "qwen2_audio": Qwen2AudioAdapter,
    "qwen3_asr": Qwen3ASRAdapter,
    "whisper": WhisperAdapter,
    "codec_lm": CodecLMAdapter,
    "orpheus": OrpheusAdapter,
    "text_lm": TextLMAdapter,
}
"""By `backbone.adapter`."""


def load_adapter(layout: str, path: Path | str) -> PolicyAdapter:
    """The adapter named by `backbone.adapter`, for the checkpoint at `path`; its speaking form where that speaks.

    Raises RecipeError when there is no checkpoint, when it is of another architecture, and what the adapter raises.
    """
    adapter = ADAPTERS[layout]
    try:
        found = str(AutoConfig.from_pretrained(path).model_type)
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise RecipeError(f"backbone.path is {str(path)!r}: no checkpoint can be read there ({why})") from None
    if found not in adapter.model_types:
        fits = [name for name, other in ADAPTERS.items() if found in other.model_types]
        way_out = f"set backbone.adapter={fits[0]}" if fits else f"no adapter reads {found}"
        raise RecipeError(
            f"backbone.adapter is {layout}: {str(path)!r} is a checkpoint of {found}, "
            f"this adapter reads {', '.join(adapter.model_types)}; {way_out}"
        )
    if SpeechLayout.read(path) is not None:
        adapter = SPEAKING[layout]
    return adapter(path)


def decoder_positions(path: Path | str) -> int:
    """Tokens that the decoder of the checkpoint at `path` has positions for, prompt and completion together."""
    config = AutoConfig.from_pretrained(path).get_text_config(decoder=True)
    return int(getattr(config, "max_target_positions", None) or config.max_position_embeddings)
