"""vLLM's Qwen3-ASR with the one name it lacks: an untied output head, as Transformers saves it (`lm_head.weight`)."""

from vllm.model_executor.models.qwen3_asr import Qwen3ASRForConditionalGeneration
from vllm.model_executor.models.utils import WeightsMapper


class UntiedQwen3ASR(Qwen3ASRForConditionalGeneration):
    """vLLM 0.32 maps every other name of this layout; the published checkpoints tie the head and never need it."""

    hf_to_vllm_mapper = (
        WeightsMapper(orig_to_new_prefix={"lm_head.": "language_model.lm_head."})
        | Qwen3ASRForConditionalGeneration.hf_to_vllm_mapper
    )
