"""Entry point `vllm.general_plugins`: what vLLM must know to serve our checkpoints. Each of its processes calls it."""

import ctypes
import os
import signal

SERVER = "RLHF_VLLM_SERVER"
"""Environment variable with the process of a server of ours: what vLLM starts for it does not notice its end."""
_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Register the layouts that vLLM reads only with our names. Safe to call more than once."""
    from vllm import ModelRegistry

    from policies.mtp import config as mtp_config

    if os.environ.get(SERVER, str(os.getpid())) != str(os.getpid()):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    ModelRegistry.register_model("Qwen2AudioForConditionalGeneration", "policies.vllm_qwen2_audio:AnyWindowQwen2Audio")
    ModelRegistry.register_model("Qwen3ASRForConditionalGeneration", "policies.vllm_qwen3_asr:UntiedQwen3ASR")
    ModelRegistry.register_model("WhisperForConditionalGeneration", "policies.vllm_whisper:EncodeOnceWhisper")
    ModelRegistry.register_model(mtp_config.ARCHITECTURE, "policies.mtp.vllm_model:SpeechMtp")
    mtp_config.register()
