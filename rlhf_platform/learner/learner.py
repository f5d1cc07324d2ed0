"""The DeepSpeed learner, one rank: a plain class, which a Ray actor wraps and tests call directly."""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policies.batch import PolicyBatch
from policies.load import load_adapter
from policies.lora import add_lora, is_lora, lora_weights, merged_weights, save_adapter, save_merged, without_lora
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.algorithms.importance import max_mismatch, truncated_importance
from rlhf_platform.algorithms.normalization import token_shares, units
from rlhf_platform.errors import ClusterError
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.objective import token_loss
from rlhf_platform.recipe.algorithms import AlgorithmConfig
from rlhf_platform.recipe.schema import LearnerConfig, Recipe
from rlhf_platform.types import Sample

_STATE_TAG = "state"
"""DeepSpeed's name for a checkpoint: a folder in the folder."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks meet. `timeout`: seconds a rank waits for the others before it gives up (law 3)."""

    rank: int
    world_size: int
    host: str
    port: int
    timeout: float


@dataclass(frozen=True)
class TrainSample:
    """A sample with its advantage; `counts` is False where the reward failed (law 2)."""

    sample: Sample
    advantage: float
    counts: bool


@dataclass
class _MicroBatch:
    batch: PolicyBatch
    audio: list[Tensor] | None
    """Encoder output of each clip, kept when the encoder is frozen."""
    mask: Tensor
    """(B, T): completion tokens of samples that count."""
    advantages: Tensor
    behaviour: Tensor
    old: Tensor | None
    """Log-probs before the step; those of the first forward when nothing has moved the policy by then."""
    reference: Tensor | None


class Learner:
    """One rank of the policy's trainer. All ranks are given equally many samples, or they would wait for each other."""

    def __init__(self, recipe: Recipe, model: Path | str, rendezvous: Rendezvous) -> None:
        import deepspeed

        self._algorithm: AlgorithmConfig = recipe.algorithm
        self._max_new_tokens = recipe.rollout.max_new_tokens
        self._config: LearnerConfig = recipe.learner
        self._rendezvous = rendezvous
        self._updates = 0
        self._total_updates = recipe.steps * recipe.algorithm.epochs * recipe.algorithm.minibatches
        join_process_group(rendezvous)
        dtype = getattr(torch, recipe.backbone.dtype)
        self._adapter = load_adapter(recipe.backbone.adapter, model)
        self._lora = recipe.learner.lora
        temperature = recipe.rollout.temperature
        loaded = self._adapter.load_model(dtype)
        if self._lora.rank:
            add_lora(self._adapter, loaded, self._lora, "learner.lora", recipe.seed)
        # Without dropout in either mode: the log-probs must be those that the rollout engine sampled from.
        self._policy = Policy(self._adapter, loaded, temperature, recipe.learner.freeze_encoder).eval()
        self._reference: Policy | None = None
        if recipe.algorithm.kl_coef > 0 and not self._lora.rank:
            frozen = Policy(self._adapter, self._adapter.load_model(dtype), temperature, freeze_encoder=True)
            self._reference = frozen.eval().requires_grad_(False)
        trainable = [p for p in self._policy.parameters() if p.requires_grad]
        self.trainable_parameters = sum(p.numel() for p in trainable)
        self._optimizer = torch.optim.AdamW(
            trainable, lr=recipe.learner.learning_rate, weight_decay=recipe.learner.weight_decay
        )
        self._engine, *_ = deepspeed.initialize(
            model=self._policy,
            optimizer=self._optimizer,
            model_parameters=trainable,
            config=deepspeed_config(recipe.learner, recipe.backbone.dtype),
        )
        # At ZeRO 3 a weight is whole only inside the engine's own forward.
        encode_once = recipe.learner.freeze_encoder and recipe.learner.zero_stage < 3
        self._clips = Clips(self._adapter, self._policy, encode_once)

    def train(self, samples: Sequence[TrainSample]) -> dict[str, float]:
        """One RL step on this rank's share of the samples: `epochs` x `minibatches` optimiser steps.

        The loss is a mean over what counts in a minibatch on all ranks, tokens or samples as `normalization` says,
        whatever the number of ranks and micro-batches (law 5). Returns metrics over all ranks.
        """
        minibatches = [
            list(self._micro_batches(samples[i :: self._algorithm.minibatches]))
            for i in range(self._algorithm.minibatches)
        ]
        sums = torch.zeros(4, dtype=torch.float64)
        grad_norm = 0.0
        for _ in range(self._algorithm.epochs):
            for minibatch in minibatches:
                found, norm = self._update(minibatch)
                sums += found
                grad_norm = max(grad_norm, norm)
        tokens, kl, clipped, entropy = _over_ranks(sums).tolist()
        return self._mismatch([micro for minibatch in minibatches for micro in minibatch]) | {
            "kl": kl / max(tokens, 1.0),
            "clip_fraction": clipped / max(tokens, 1.0),
            "entropy": entropy / max(tokens, 1.0),
            "grad_norm": grad_norm,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
        }

    def logprobs(self, samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        """Log-prob of each completion token under the current policy; what the sync probe compares with."""
        found: list[tuple[float, ...]] = []
        for start in range(0, len(samples), self._config.micro_batch_size):
            part = samples[start : start + self._config.micro_batch_size]
            with torch.no_grad():
                values, _ = self._engine(*self._clips.batch(part))
            found += [tuple(values[i, : len(s.tokens)].tolist()) for i, s in enumerate(part)]
        return found

    def weights(self, version: int) -> WeightUpdate:
        """A copy of all that the engine lacks: its LoRA where vLLM takes one, else all weights, LoRA merged into them.

        Every rank must call it: at ZeRO 3 they gather together.
        """
        import deepspeed

        model, adapter = self._policy.model, self._adapter
        rank = self._lora.rank if adapter.vllm_serves_lora else 0
        needed = [p for name, p in model.named_parameters() if is_lora(name) or not rank]
        with deepspeed.zero.GatheredParameters(needed, enabled=self._config.zero_stage == 3):
            if rank:
                found = lora_weights(adapter, model)
            elif self._lora.rank:
                found = ((adapter.vllm_name(name), weight) for name, weight in merged_weights(model))
            else:
                found = adapter.vllm_weights(model)
            tensors = {name: value.cpu().clone() for name, value in found}
        return WeightUpdate(version, tensors, checksum(tensors), rank)

    def save(self, path: Path) -> None:
        """Write the policy in Hugging Face layout, LoRA merged into its weights (rank 0 writes, all ranks call).

        With LoRA, also the folder `adapter` beside `path`, as PEFT reads it for the weights the learner began with.
        """
        import deepspeed

        parameters = list(self._policy.model.parameters())
        with deepspeed.zero.GatheredParameters(parameters, enabled=self._config.zero_stage == 3):
            if self._rendezvous.rank == 0:
                save_merged(self._adapter, self._policy.model, path)
                if self._lora.rank:
                    save_adapter(self._policy.model, self._lora.rank, path.with_name("adapter"))
        torch.distributed.barrier()

    def save_state(self, path: Path) -> None:
        """Write all that the next step depends on: trained weights, optimiser, updates so far. All ranks call.

        Frozen weights are those of the checkpoint that the learner was made from.
        """
        progress = {"updates": self._updates}
        self._engine.save_checkpoint(
            str(path), tag=_STATE_TAG, client_state=progress, save_latest=False, exclude_frozen_parameters=True
        )

    def load_state(self, path: Path) -> None:
        """Go on from what `save_state` wrote, on as many ranks. Raises ClusterError when it is not there."""
        if not (path / _STATE_TAG).is_dir():
            raise ClusterError(f"{path}: no state of DeepSpeed in it; is the folder seen by every machine?")
        _, progress = self._engine.load_checkpoint(str(path), tag=_STATE_TAG, load_module_strict=False)
        self._updates = int(progress["updates"])

    @torch.no_grad()
    def _micro_batches(self, samples: Sequence[TrainSample]) -> Iterator[_MicroBatch]:
        """Padded micro-batches, clips of like length together, with what stays fixed during the step."""
        by_length = sorted(samples, key=lambda s: (s.sample.prompt.duration, s.sample.prompt.id))
        for start in range(0, len(by_length), self._config.micro_batch_size):
            part = by_length[start : start + self._config.micro_batch_size]
            batch, audio = self._clips.batch([s.sample for s in part])
            behaviour = torch.zeros_like(batch.completion_mask)
            for i, s in enumerate(part):
                behaviour[i, : len(s.sample.logprobs)] = torch.tensor(s.sample.logprobs)
            counts = torch.tensor([[float(s.counts)] for s in part])
            yield _MicroBatch(
                batch=batch,
                audio=audio,
                mask=batch.completion_mask * counts,
                advantages=torch.tensor([[s.advantage] for s in part]),
                behaviour=behaviour,
                # A later minibatch meets a policy that has moved; a single one yields its own old log-probs.
                old=self._engine(batch, audio)[0] if self._algorithm.minibatches > 1 else None,
                reference=self._reference_logprobs(batch, audio),
            )

    def _reference_logprobs(self, batch: PolicyBatch, audio: list[Tensor] | None) -> Tensor | None:
        """Of what the KL is to: the warm start, which a policy with LoRA still holds; None where no KL is asked for."""
        if self._algorithm.kl_coef == 0:
            return None
        if self._reference:
            return self._reference(batch, audio)[0]
        with without_lora(self._policy.model):
            return self._engine(batch, audio)[0]

    def _update(self, minibatch: Sequence[_MicroBatch]) -> tuple[Tensor, float]:
        """One optimiser step.

        Returns sums over this rank's tokens (tokens, KL, clipped tokens, entropy) and the norm of the gradient before
        clipping, over all ranks.
        """
        algorithm = self._algorithm
        counted = [units(micro.mask, algorithm.normalization) for micro in minibatch]
        total = _over_ranks(torch.stack(counted).sum()).clamp(min=1.0)
        sums = torch.zeros(4, dtype=torch.float64)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(self._config, self._updates, self._total_updates)
        for number, micro in enumerate(minibatch, start=1):
            logprobs, entropy = self._engine(micro.batch, micro.audio)
            if micro.old is None:
                micro.old = logprobs.detach()
            loss, kl, clipped = token_loss(
                algorithm, logprobs, micro.old, micro.behaviour, micro.reference, micro.advantages, micro.mask
            )
            shares = token_shares(micro.mask, algorithm.normalization, self._max_new_tokens)
            # DeepSpeed averages gradients over ranks; times the number of ranks makes that a sum.
            scaled = (loss * shares).sum() / total * self._rendezvous.world_size
            self._engine.set_gradient_accumulation_boundary(number == len(minibatch))
            self._engine.backward(scaled)
            with torch.no_grad():
                per_token = (torch.ones_like(kl), kl, clipped, entropy)
                sums += torch.stack([(values * micro.mask).sum() for values in per_token]).double()
        replicated = self._replicated_gradient_norm() if self._config.zero_stage == 0 else None
        self._engine.step()
        self._updates += 1
        return sums, float(self._engine.get_global_grad_norm() or 0.0) if replicated is None else replicated

    def _replicated_gradient_norm(self) -> float:
        """DeepSpeed reports no norm at stage 0 in float32; each rank holds the whole gradient there."""
        gradients = [p.grad for p in self._policy.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _mismatch(self, micros: Sequence[_MicroBatch]) -> dict[str, float]:
        """How far rollout and learner were apart on this step's samples before any update (law 6)."""
        old = [m.old for m in micros if m.old is not None]
        largest = torch.stack([max_mismatch(o, m.behaviour, m.mask) for o, m in zip(old, micros, strict=True)]).max()
        cap = self._algorithm.importance_cap
        weight = [truncated_importance(o, m.behaviour, cap) * m.mask for o, m in zip(old, micros, strict=True)]
        sums = torch.stack(
            [torch.stack([w.sum(), w.square().sum(), m.mask.sum()]) for w, m in zip(weight, micros, strict=True)]
        )
        total, squares, tokens = _over_ranks(sums.sum(0)).tolist()
        return {
            "logprob_diff_max": float(_over_ranks(largest, torch.distributed.ReduceOp.MAX)),
            "importance_weight": total / max(tokens, 1.0),
            "effective_sample_share": total * total / max(squares * tokens, 1e-9),
        }


def learning_rate_at(config: LearnerConfig, update: int, total: int) -> float:
    """Learning rate of optimiser step `update` (from 0) of `total`: linear warm-up, then `learner.schedule`."""
    ramp = min(1.0, (update + 1) / max(1, config.warmup_steps))
    if config.schedule == "linear":
        ramp = min(ramp, 1 - update / total)
    return config.learning_rate * ramp


def deepspeed_config(learner: LearnerConfig, dtype: str) -> dict[str, object]:
    """DeepSpeed's own settings. Micro-batches are accumulated by the learner, which alone knows the token count."""
    return {
        "train_micro_batch_size_per_gpu": learner.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": learner.max_grad_norm,
        "zero_optimization": {"stage": learner.zero_stage},
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def join_process_group(rendezvous: Rendezvous) -> None:
    """Meet the other ranks: gloo without a GPU, NCCL with one.

    Rank 0 listens on `rendezvous.host` only; torch's own store would listen on every interface (law 10).
    Raises ClusterError when the port is taken.
    """
    prepare_deepspeed()
    import deepspeed

    if rendezvous.host == "127.0.0.1":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ |= {"RANK": str(rendezvous.rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(rendezvous.world_size)}
    os.environ |= {"MASTER_ADDR": rendezvous.host, "MASTER_PORT": str(rendezvous.port)}
    timeout = timedelta(seconds=rendezvous.timeout)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend,
        store=_store(rendezvous, timeout),
        rank=rendezvous.rank,
        world_size=rendezvous.world_size,
        timeout=timeout,
    )
    deepspeed.init_distributed(backend, timeout=timeout)


def _store(rendezvous: Rendezvous, timeout: timedelta) -> Any:
    distributed: Any = torch.distributed  # documents TCPStore, and does not export it to type checkers
    host, port, size = rendezvous.host, rendezvous.port, rendezvous.world_size
    if rendezvous.rank > 0:
        return distributed.TCPStore(host, port, size, is_master=False, timeout=timeout)
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ClusterError(
            f"learner.port: {host}:{port} cannot be listened on ({error.strerror}); name another, or null"
        ) from None
    # The store closes the descriptor it is given.
    return distributed.TCPStore(host, port, size, is_master=True, timeout=timeout, master_listen_fd=listener.detach())


def prepare_deepspeed() -> None:
    """Let DeepSpeed find the op that set-up compiled; otherwise each first start compiles it anew, for a minute."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", f"{sys.prefix}/torch_extensions")
    scripts = f"{sys.prefix}/bin"
    if not os.environ["PATH"].startswith(scripts):
        os.environ["PATH"] = f"{scripts}:{os.environ['PATH']}"
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _over_ranks(value: Tensor, operation: object = None) -> Tensor:
    """Sum (or another reduction) over all ranks."""
    value = value.clone()
    torch.distributed.all_reduce(value, op=operation or torch.distributed.ReduceOp.SUM)
    return value
