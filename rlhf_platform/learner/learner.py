"""The DeepSpeed learner, one rank: a plain class, which a Ray actor wraps and tests call directly."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

import torch
from torch import Tensor

from policies.load import load_adapter
from policies.lora import add_lora, is_lora, lora_weights, merged_weights, save_adapter, save_merged
from policies.policy import Policy
from policies.tokenizer import audio_token_ids
from policies.weights import WeightUpdate, checksum
from rlhf_platform.algorithms.kl import kl_estimate
from rlhf_platform.algorithms.token_masks import modality_mask, turn_mask
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.critic import CriticLearner
from rlhf_platform.learner.engine import Engine, learning_rate_at
from rlhf_platform.learner.measures import Measures, mismatch
from rlhf_platform.learner.micro_batches import MicroBatch, micro_batches, packed
from rlhf_platform.learner.mtp import HeadLearner
from rlhf_platform.learner.objective import counted, learns_pairs, summed_loss
from rlhf_platform.learner.process_group import Rendezvous, join_process_group, over_ranks
from rlhf_platform.learner.reference import Reference
from rlhf_platform.learner.rehearsal import Part, Rehearsal, reference_sample
from rlhf_platform.learner.samples import Seen, TrainSample
from rlhf_platform.learner.steering import Steering, has_entropy_bonus
from rlhf_platform.recipe.algorithms import PPO, OnlineConfig, RLConfig
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Prompt, Sample

_STATE_TAG = "state"
"""DeepSpeed's name for a checkpoint: a folder in the folder."""


class Learner:
    """One rank of the policy's trainer. All ranks are given equally many samples, or they would wait for each other."""

    def __init__(self, recipe: Recipe, model: Path | str, rendezvous: Rendezvous) -> None:
        assert isinstance(recipe.algorithm, OnlineConfig)
        self._algorithm: OnlineConfig = recipe.algorithm
        self._max_new_tokens = recipe.rollout.max_new_tokens
        self._config, self._rendezvous, self._lora = recipe.learner, rendezvous, recipe.learner.lora
        self._steps = 0
        self._steering = Steering(recipe.algorithm)
        join_process_group(rendezvous)
        dtype = getattr(torch, recipe.backbone.dtype)
        self._adapter = load_adapter(recipe.backbone.adapter, model)
        loaded = self._adapter.load_model(dtype)
        if self._lora.rank:
            add_lora(self._adapter, loaded, self._lora, "learner.lora", recipe.seed)
        # Without dropout in either mode: the log-probs must be those that the rollout engine sampled from.
        self._policy = Policy(
            self._adapter,
            loaded,
            recipe.rollout.temperature,
            recipe.learner.freeze_encoder,
            entropy_gradient=has_entropy_bonus(recipe.algorithm),
        ).eval()
        if recipe.learner.activation_checkpointing:
            self._policy.checkpoint_activations()
        warmup = self._critic_warmup
        total = max(1, recipe.steps - warmup) * recipe.algorithm.epochs * recipe.algorithm.minibatches
        self._engine = Engine(
            self._policy,
            recipe.learner,
            recipe.backbone.dtype,
            rendezvous,
            lambda update: learning_rate_at(recipe.learner, update, total),
        )
        self.trainable_parameters = self._engine.trainable_parameters
        self._reference = Reference.of(recipe, self._adapter, self._engine)
        # At ZeRO 3 a weight is whole only inside the engine's own forward.
        encode_once = recipe.learner.freeze_encoder and recipe.learner.zero_stage < 3
        self._clips = Clips(self._adapter, self._policy, encode_once, self._engine.device)
        self._critic: CriticLearner | None = None
        if isinstance(recipe.algorithm, PPO):
            self._critic = CriticLearner(recipe, self._adapter, self._reference, rendezvous)
            self.trainable_parameters += self._critic.trainable_parameters
        self._heads: HeadLearner | None = None
        if recipe.rollout.speculative == "mtp":
            self._heads = HeadLearner(recipe, self._policy, Path(model), rendezvous, self._clips)
        size = self._policy.allowed.shape[1]
        self._is_audio = _marked(audio_token_ids(self._adapter.tokenizer), size, self._engine.device)
        self._is_end = _marked(self._adapter.end_token_ids, size, self._engine.device)

    @property
    def _critic_warmup(self) -> int:
        return self._algorithm.critic_warmup if isinstance(self._algorithm, PPO) else 0

    @torch.no_grad()
    def see(self, samples: Sequence[Sample], *, policy: bool = True, others: bool = True) -> list[Seen]:
        """What the `policy`, and the `others`, reference and critic, make of this rank's samples before they learn."""
        found: list[Seen | None] = [None] * len(samples)
        for micro in self._micro_batches([TrainSample(s, 0.0, True) for s in samples], unit=1):
            logprobs = self._engine(micro.batch, micro.audio)[0] if policy else None
            reference = self._reference(micro.batch, micro.audio) if others and self._reference else None
            values = self._critic.values(micro) if others and self._critic else None
            penalty = self._penalty(logprobs, reference)
            tensors = (logprobs, reference, penalty, values)
            columns = [None if tensor is None else tensor.float().cpu().numpy() for tensor in tensors]
            trained = micro.mask.bool().cpu().numpy()
            for row, index in enumerate(micro.rows):
                length = len(samples[index].tokens)
                cut = [None if column is None else column[row, :length] for column in columns]
                found[index] = Seen(trained[row, :length], *cut)
        return [seen for seen in found if seen is not None]

    def train(
        self, samples: Sequence[TrainSample], rehearsed: Sequence[Prompt] = (), rehearsal_weight: float = 0.0
    ) -> dict[str, float]:
        """One RL step on this rank's share of the samples: `epochs` x `minibatches` optimiser steps.

        `rehearsed`: rows whose references are learnt beside, as many on every rank and a multiple of the minibatches,
        which they are dealt out over; `rehearsal_weight` is what their mean loss weighs beside RL's.

        The loss is a mean over what counts in a minibatch on all ranks, tokens or samples as `normalization` says,
        whatever the number of ranks and micro-batches (law 5). Returns metrics over all ranks.
        """
        algorithm = self._algorithm
        unit = 2 if learns_pairs(algorithm) else 1
        samples = self._with_seen(samples)
        units = [samples[i : i + unit] for i in range(0, len(samples), unit)]
        minibatches = [
            list(self._micro_batches([s for pair in units[i :: algorithm.minibatches] for s in pair], unit))
            for i in range(algorithm.minibatches)
        ]
        said = [reference_sample(self._adapter, prompt) for prompt in rehearsed]
        rehearsals = [
            Rehearsal(part, self._clips, self._config, rehearsal_weight)
            for i in range(algorithm.minibatches)
            if (part := said[i :: algorithm.minibatches])
        ]
        measures = Measures()
        for micro in chain.from_iterable(minibatches):
            measures.fit(micro)
        warming_up = self._steps < self._critic_warmup
        for _ in range(algorithm.epochs):
            for minibatch, rehearsal in zip_longest(minibatches, rehearsals):
                self._update(minibatch, rehearsal, measures, learns=not warming_up)
                if self._critic:
                    self._critic.update(minibatch, measures)
        metrics = measures.metrics() | mismatch([*chain.from_iterable(minibatches)], algorithm)
        metrics["learning_rate"] = self._engine.learning_rate
        if rehearsals and not warming_up:
            metrics["rehearsal_loss"] = sum(each.mean() for each in rehearsals) / len(rehearsals) / algorithm.epochs
        metrics |= self._steering.step(metrics)
        self._steps += 1
        every = algorithm.reference_every
        if self._reference and every and self._steps % every == 0:
            self._reference.become(self._policy)
        return metrics

    def _with_seen(self, samples: Sequence[TrainSample]) -> list[TrainSample]:
        """The samples with what they need from before the step, where the caller did not ask for it.

        A later optimiser step meets a policy that has moved; a single one yields its own log-probs.
        """
        algorithm = self._algorithm
        moves = algorithm.epochs * algorithm.minibatches > 1
        if samples and samples[0].seen is None and (moves or self._reference is not None):
            seen = self.see([s.sample for s in samples], policy=moves)
            return [replace(s, seen=it) for s, it in zip(samples, seen, strict=True)]
        return list(samples)

    def logprobs(self, samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        """Log-prob of each completion token under the current policy; what the sync probe compares with."""
        seen = self.see(samples, others=False)
        return [tuple(it.logprobs.tolist()) for it in seen if it.logprobs is not None]

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
                if self._heads:
                    self._heads.save(path)
                if self._lora.rank:
                    save_adapter(self._policy.model, self._lora.rank, path.with_name("adapter"))
        torch.distributed.barrier()

    def save_state(self, path: Path) -> None:
        """Write all that the next step depends on: trained weights, optimisers, what was steered. All ranks call.

        Frozen weights are those of the checkpoint that the learner was made from.
        """
        self._engine.save_state(path, _STATE_TAG, {"steps": self._steps, "steering": self._steering.state()})
        if self._critic:
            self._critic.save_state(path)
        if self._reference:
            self._reference.save(path, self._rendezvous.rank)
        if self._heads:
            self._heads.save_state(path)

    def load_state(self, path: Path) -> None:
        """Go on from what `save_state` wrote, on as many ranks. Raises ClusterError when it is not there."""
        progress = self._engine.load_state(path, _STATE_TAG)
        self._steps = int(progress["steps"])
        self._steering.load_state(progress["steering"])
        if self._critic:
            self._critic.load_state(path)
        if self._reference:
            self._reference.load(path)
        if self._heads:
            self._heads.load_state(path)

    def refit(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Fit the heads anew to what the policy says now, on samples of it. Returns metrics over all ranks."""
        assert self._heads
        return self._heads.refit(samples)

    def heads(self, version: int) -> WeightUpdate:
        """A copy of the heads."""
        assert self._heads
        return self._heads.weights(version)

    def _micro_batches(self, samples: Sequence[TrainSample], unit: int) -> list[MicroBatch]:
        bins = packed([s.sample for s in samples], self._clips, self._config, unit)
        return list(micro_batches(samples, bins, self._clips, self._config.packing, self._trained, self._engine.device))

    def _trained(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Which completion tokens are learnt, (B, T)."""
        mask = modality_mask(tokens, self._is_audio, self._is_end, self._algorithm.train_tokens, mask)
        return turn_mask(tokens, self._is_end, self._algorithm.train_turns, mask)

    def _penalty(self, logprobs: Tensor | None, reference: Tensor | None) -> Tensor | None:
        """What the reward of each token pays for the KL, (B, T); None where the loss pays, or nothing does."""
        algorithm = self._algorithm
        if logprobs is None or reference is None or getattr(algorithm, "kl_in", "loss") != "reward":
            return None
        assert isinstance(algorithm, RLConfig)
        return self._steering.coefficients.kl * kl_estimate(logprobs, reference, algorithm.kl_estimator)

    def _update(
        self, minibatch: Sequence[MicroBatch], rehearsal: Rehearsal | None, measures: Measures, *, learns: bool
    ) -> None:
        """One optimiser step of the policy; without `learns`, only what it would have met is measured."""
        measures.begin_update()
        normalization = self._algorithm.normalization
        parts = torch.stack([counted(self._algorithm, micro.mask, normalization) for micro in minibatch])
        total = over_ranks(parts.sum()).clamp(min=1.0)

        def loss_of(micro: MicroBatch | Part) -> Tensor:
            if not isinstance(micro, MicroBatch):
                assert rehearsal
                return rehearsal.loss(self._engine, micro)
            logprobs, entropy = self._engine(micro.batch, micro.audio)
            if micro.old is None:
                micro.old = logprobs.detach()
            loss, found = summed_loss(
                self._algorithm, micro, logprobs, entropy, self._steering.coefficients, self._max_new_tokens
            )
            measures.policy(micro, loss / total, found.kl, found.clipped, entropy)
            return loss / total

        if learns:
            everything: list[MicroBatch | Part] = [*minibatch, *(rehearsal.parts if rehearsal else ())]
            measures.gradient("grad_norm", self._engine.update(everything, loss_of))
            return
        with torch.no_grad():
            for micro in minibatch:
                loss_of(micro)


def _marked(indices: Iterable[int], size: int, device: torch.device) -> Tensor:
    """(size,) bool: True at the indices."""
    marked = torch.zeros(size, dtype=torch.bool, device=device)
    marked[list(indices)] = True
    return marked
