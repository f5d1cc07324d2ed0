"""The vLLM engine that generates: a plain class, which a Ray actor wraps and tests call directly."""

import gc
import importlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

# Before vLLM is imported: engine in this process, memory bounded, no report to anyone (law 10).
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import torch

from policies.load import load_adapter
from policies.lora import write_lora
from policies.mtp.acceptance import Acceptance
from policies.mtp.config import MtpConfig
from policies.token_rule import END_FROM
from policies.weights import WeightUpdate, checksum
from rlhf_platform.errors import RecipeError, SyncError
from rlhf_platform.types import Prompt, Sample, StopReason
from rollout.latency import Latency, Load, first_token_latency, spoken


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are drawn. `seed` makes a call repeatable; `temperature` 0 is greedy."""

    samples: int
    temperature: float
    max_new_tokens: int
    seed: int


class RolloutEngine:
    """An audio policy served by vLLM, at a known weight version.

    `model`: checkpoint in Hugging Face layout. `kv_cache_gib`: memory of the KV cache. `threads`: cores to compute on.
    `max_tokens`: prompt and completion together. `lora_rank`: above 0, and where vLLM takes LoRA for the layout,
    updates are LoRA of that rank for the weights of `model`. `heads`: folder of the heads that draft (`policies.mtp`).
    `clips`: of a prompt, at most.
    """

    def __init__(
        self,
        adapter: str,
        model: Path | str,
        dtype: str,
        max_tokens: int,
        max_sequences: int,
        kv_cache_gib: float,
        lora_rank: int = 0,
        heads: Path | None = None,
        clips: int = 1,
    ) -> None:
        """Raises RecipeError when the checkpoint is of another layout or this vLLM does not know its architecture."""
        import vllm
        from vllm import LLM, ModelRegistry

        from policies.vllm_kernels import spare_llvmlite
        from policies.vllm_plugin import register

        register()
        spare_llvmlite()
        self._adapter = load_adapter(adapter, model)
        if self._adapter.vllm_architecture not in ModelRegistry.get_supported_archs():
            raise RecipeError(
                f"backbone.adapter is {adapter}: this vLLM ({vllm.__version__}) does not know "
                f"{self._adapter.vllm_architecture}; install the version that `make setup` installs"
            )
        self._lora_rank = lora_rank if self._adapter.vllm_serves_lora else 0
        self._lora: Any = None
        lora: dict[str, Any] = {}
        if self._lora_rank:
            lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _served_rank(self._lora_rank)}
        self._heads = heads
        drafting = {} if heads is None else _drafting(heads)
        self._rule = self._adapter.rule if len(self._adapter.rule.codebooks) > 1 else None
        processors: dict[str, Any] = {}
        if self._rule is not None:
            from rollout.rule_processor import processor_of

            processors = {"logits_processors": [processor_of(self._rule)]}
        on_cpu = not torch.cuda.is_available()
        # vLLM's CPU backend would take this, in whole GiB, over the size that it is given below.
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
        self._llm = LLM(
            model=str(model),
            dtype=dtype,
            max_model_len=max_tokens,
            max_num_seqs=max_sequences,
            kv_cache_memory_bytes=int(kv_cache_gib * 2**30),
            enforce_eager=on_cpu,
            limit_mm_per_prompt={"audio": clips},
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            seed=0,
            **lora,
            **drafting,
            **processors,
        )
        self.version = 0

    def generate(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> list[Sample]:
        """`settings.samples` completions of each prompt, in order, with behaviour log-probs (law 6)."""
        # The engine samples in this process from torch's generator. A seed per request would be one generator a
        # request, which vLLM 0.32 cannot rewind on the CPU after a partial prefill.
        torch.manual_seed(settings.seed)
        if self._heads is not None:
            self._llm.collective_rpc(_count_anew)
        inputs: list[Any] = [self._adapter.vllm_prompt(prompt) for prompt in prompts]
        params = [self._params(prompt, settings) for prompt in prompts]
        outputs = self._llm.generate(inputs, params, use_tqdm=False, lora_request=self._lora)
        return [
            self._sample(prompt, completion)
            for prompt, output in zip(prompts, outputs, strict=True)
            for completion in output.outputs
        ]

    def _params(self, prompt: Prompt, settings: SamplingSettings) -> Any:
        from vllm import SamplingParams

        adapter = self._adapter
        band = adapter.band(prompt)
        # The rule says what may stand where; with one codebook, vLLM's own two keys say as much.
        allowed: dict[str, Any] = {"extra_args": {END_FROM: band.least}}
        if self._rule is None:
            allowed = {"allowed_token_ids": list(adapter.completion_token_ids), "min_tokens": band.least}
        return SamplingParams(
            n=settings.samples,
            temperature=settings.temperature,
            max_tokens=min(settings.max_new_tokens, band.most or settings.max_new_tokens),
            logprobs=0,
            stop_token_ids=list(adapter.end_token_ids),
            detokenize=False,
            **allowed,
        )

    def _sample(self, prompt: Prompt, completion: Any) -> Sample:
        tokens = tuple(completion.token_ids)
        logprobs = tuple(step[token].logprob for token, step in zip(tokens, completion.logprobs, strict=True))
        ended = bool(tokens) and tokens[-1] in self._adapter.end_token_ids
        return Sample(
            prompt=prompt,
            tokens=tokens,
            logprobs=logprobs,
            text=self._adapter.completion_text(tokens),
            stop_reason=StopReason.EOS if ended else StopReason.LENGTH,
            weight_version=self.version,
        )

    def latency(self, prompts: Sequence[Prompt], load: Load, settings: SamplingSettings, timeout: float) -> Latency:
        """How long each prompt waits for its first token, and for the first that is spoken, under the load.

        All that was computed before is forgotten first. `settings.samples` is 1. Raises WaitTimeout.
        """
        self.forget()
        inputs: list[Any] = [self._adapter.vllm_prompt(prompt) for prompt in prompts]
        params = [self._params(prompt, settings) for prompt in prompts]

        def speaks(tokens: Sequence[int]) -> bool:
            return spoken(self._adapter.completion_text(tokens))

        return first_token_latency(self._llm, inputs, params, load, speaks, timeout=timeout, lora_request=self._lora)

    def close(self) -> None:
        """Give the engine's memory back; nothing can be generated afterwards."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()

    def acceptance(self) -> Acceptance:
        """What became of the tokens that the heads guessed in the last call of `generate`."""
        found: Acceptance = self._llm.collective_rpc(_acceptance)[0]
        return found

    def load_heads(self, update: WeightUpdate) -> None:
        """Take new heads in place, and forget what the old ones remember.

        Raises SyncError when they are not those that were sent. No probe is needed: what they guess is verified.
        """
        _check_arrival(update)
        self._llm.collective_rpc(_reload_heads, args=(list(update.tensors.items()),))
        self.forget()

    def forget(self) -> None:
        """Drop all that was computed from prompts: prefixes, prepared inputs, encoder outputs."""
        self._llm.reset_prefix_cache()
        self._llm.reset_mm_cache()
        self._llm.llm_engine.engine_core.reset_encoder_cache()
        self._llm.apply_model(_forget_encoded)

    def load_weights(self, update: WeightUpdate) -> int:
        """Take `update` in place and forget all that old weights computed. Returns the version now held (law 4).

        Raises SyncError when the tensors that arrived are not those that were sent, or not of the kind expected.
        """
        _check_arrival(update)
        if update.lora_rank != self._lora_rank:
            raise SyncError(
                f"weights of version {update.version} are LoRA of rank {update.lora_rank} (0: whole weights), "
                f"this engine was started for rank {self._lora_rank}"
            )
        if update.lora_rank:
            self._replace_lora(update)
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(update.tensors.items())})
            self._llm.apply_model(_repack_tied_head)
        self.forget()
        self.version = update.version
        return self.version

    def _replace_lora(self, update: WeightUpdate) -> None:
        """Load LoRA under a number of its own: vLLM would take a number that it has met for the LoRA it has met."""
        from vllm.lora.request import LoRARequest

        number = 1
        if self._lora is not None:
            number = self._lora.lora_int_id + 1
            self._llm.llm_engine.remove_lora(self._lora.lora_int_id)
        with tempfile.TemporaryDirectory() as folder:
            write_lora(update.tensors, update.lora_rank, Path(folder))
            self._lora = LoRARequest(f"update {number}", number, folder)
            self._llm.llm_engine.add_lora(self._lora)


def _drafting(heads: Path) -> dict[str, Any]:
    """Arguments of vLLM for drafting with heads. Raises RecipeError when this vLLM has not what that takes."""
    import vllm

    try:
        importlib.import_module("policies.mtp.vllm_worker")
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"rollout.speculative is mtp: this vLLM ({vllm.__version__}) cannot draft with heads ({error}); "
            "install the version that `make setup` installs, or set it to none"
        ) from None
    blocks = MtpConfig.from_pretrained(heads).num_hidden_layers
    return {
        "speculative_config": {"method": "mtp", "model": str(heads), "num_speculative_tokens": blocks},
        "worker_cls": "policies.mtp.vllm_worker.MtpWorker",
    }


def _check_arrival(update: WeightUpdate) -> None:
    received = checksum(update.tensors)
    if received != update.checksum:
        raise SyncError(
            f"weights of version {update.version} arrived with checksum {received:#010x}, "
            f"sent was {update.checksum:#010x}"
        )


def _acceptance(worker: Any) -> Acceptance:
    found: Acceptance = worker.model_runner.drafter.acceptance
    return found


def _count_anew(worker: Any) -> None:
    worker.model_runner.drafter.acceptance = Acceptance()


def _reload_heads(worker: Any, weights: list[tuple[str, torch.Tensor]]) -> None:
    worker.model_runner.drafter.reload(weights)


def _served_rank(rank: int) -> int:
    """The least rank that vLLM sets memory aside for and that holds `rank`."""
    from vllm.config.lora import MaxLoRARanks

    return min(served for served in get_args(MaxLoRARanks) if served >= rank)


def _repack_tied_head(model: torch.nn.Module) -> None:
    """Pack an output head that shares its weight with the embedding anew, where vLLM packs it (CPU).

    vLLM 0.32 updates the shared weight and packs no layer again that was sent nothing of its own: the head would go on
    with its old weights, without an error.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for layer in model.modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)


def _forget_encoded(model: torch.nn.Module) -> None:
    """Layouts whose encoder outputs vLLM does not share keep them in their model class."""
    forget: Any = getattr(model, "forget_encoded", None)
    if forget is not None:
        forget()
