"""Entry point `vllm.general_plugins`: what vLLM must know to serve our checkpoints."""


def register() -> None:
    """Register the layouts that vLLM reads only with our names. Safe to call more than once."""
    from vllm import ModelRegistry

    from policies.mtp import config as mtp_config

    ModelRegistry.register_model("Qwen2AudioForConditionalGeneration", "policies.vllm_qwen2_audio:AnyWindowQwen2Audio")
    ModelRegistry.register_model("Qwen3ASRForConditionalGeneration", "policies.vllm_qwen3_asr:UntiedQwen3ASR")
    ModelRegistry.register_model("WhisperForConditionalGeneration", "policies.vllm_whisper:EncodeOnceWhisper")
    ModelRegistry.register_model(mtp_config.ARCHITECTURE, "policies.mtp.vllm_model:SpeechMtp")
    mtp_config.register()
