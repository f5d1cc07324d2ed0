"""What the heads of multi-token prediction are like: the config.json beside their weights, which vLLM reads too."""

from typing import Any

from transformers import AutoConfig, Qwen3Config

ARCHITECTURE = "SpeechMtp"
"""The class that vLLM drafts with."""


class MtpConfig(Qwen3Config):
    """Blocks of a Qwen3 decoder, `num_hidden_layers` of them; all other sizes are those of the backbone's decoder."""

    model_type = "mtp"  # the type under which vLLM lets the layers of one checkpoint draft one token each

    def __init__(self, backbone_checksum: int = 0, end_token_ids: tuple[int, ...] = (), **sizes: Any) -> None:
        """`backbone_checksum`: of the embedding that the heads were fitted to. `end_token_ids`: what ends a text."""
        super().__init__(**sizes)
        self.backbone_checksum, self.end_token_ids = backbone_checksum, list(end_token_ids)
        self.n_predict = self.num_hidden_layers
        self.architectures = [ARCHITECTURE]


def register() -> None:
    """Let Transformers, and vLLM through it, read the configuration. Safe to call more than once."""
    AutoConfig.register("mtp", MtpConfig, exist_ok=True)
