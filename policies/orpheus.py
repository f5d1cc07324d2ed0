"""Orpheus-TTS (canopylabs/orpheus-3b-0.1-ft, Apache-2.0): a Llama 3.2 that writes the codes of SNAC at 24 kHz.

Tokens and prompt are those of its publishers (github.com/canopyai/Orpheus-TTS at 835ac7c, and their notebook that
prepares data): `<custom_token_N>` is id 128256 + N, code e at place k of a frame is token 10 + 4096 k + e, and seven
make a frame, in the order of `policies.codec.snac`: a b c c b c c.
"""

from policies.adapter import refuse_dialogue
from policies.batch import EncodedPrompt
from policies.codec_lm import CodecLMAdapter
from policies.tokenizer import orpheus_slot, orpheus_token
from rlhf_platform.types import Prompt

FRAME_CODES = 7

_TEXT_START, _TEXT_END = "<|begin_of_text|>", "<|eot_id|>"  # Llama 3's own; the last is Orpheus's end of text
_SPEECH_START, _SPEECH_END, _HUMAN_START, _HUMAN_END, _AI_START = map(orpheus_token, range(1, 6))


class OrpheusAdapter(CodecLMAdapter):
    """Prompt: a human turn with `voice: text`, the AI's turn and its speech opened, all as in the published training.

    The voice is `metadata["voice"]`, else the prompt's speaker; with neither there is none, as in the pretrained model.
    """

    model_types = ("llama",)
    first_slot = orpheus_slot(0)
    controls = (_HUMAN_START, _TEXT_START, _TEXT_END, _HUMAN_END, _AI_START, _SPEECH_START, _SPEECH_END)
    end = _SPEECH_END
    pad = orpheus_token(7)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        refuse_dialogue(prompt, "speaks")
        return EncodedPrompt(self.turns(self.by_voice(prompt, prompt.reference)))

    def turns(self, text: str) -> tuple[int, ...]:
        """The human's turn with `text`, and the AI's opened."""
        human, start, *after = (self._controls[name] for name in self.controls[:-1])
        return (human, start, *self.pieces(text), *after)

    @staticmethod
    def by_voice(prompt: Prompt, text: str) -> str:
        """The text as the prompt's voice is asked for it."""
        voice = prompt.metadata.get("voice") or prompt.speaker
        return f"{voice}: {text}" if voice else text
