"""Fitting the heads of multi-token prediction: before RL, in two stages, and anew when RL has moved the policy."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from policies.adapter import PolicyAdapter
from policies.load import load_adapter
from policies.mtp.heads import FOLDER, MtpHeads, load_heads, new_heads
from policies.mtp.policy import MtpPolicy, OffsetLosses, offset_losses, read_by_heads
from policies.policy import Policy
from policies.weights import WeightUpdate, checksum
from rlhf_platform.algorithms.mtp_loss import mtp_loss
from rlhf_platform.learner.clips import Clips
from rlhf_platform.learner.engine import Engine, learning_rate_at
from rlhf_platform.learner.process_group import Rendezvous, join_process_group, over_ranks
from rlhf_platform.learner.sft import clip_order
from rlhf_platform.learner.trainer import Progress
from rlhf_platform.recipe.schema import Recipe
from rlhf_platform.types import Prompt, Sample, StopReason

_STATE_TAG = "heads"
_JOINT_RATE = 0.1
"""Of the learning rate, when all learn together (StepAudio 2.5: 2e-5 after 2e-4)."""


class HeadTrainer:
    """Teaches heads, alone or together with the backbone, on completions that are given. One rank's part."""

    def __init__(
        self,
        recipe: Recipe,
        policy: Policy,
        heads: MtpHeads,
        rendezvous: Rendezvous,
        clips: Clips,
        steps: int,
        *,
        joint: bool = False,
    ) -> None:
        """`steps`: after which the learning rate begins anew. `joint`: adaptor and decoder learn too."""
        self._policy, self._heads, self._clips, self._joint = policy, heads, clips, joint
        self._decay = recipe.mtp.decay
        rate = recipe.mtp.learning_rate * (_JOINT_RATE if joint else 1.0)
        config = replace(
            recipe.learner, learning_rate=rate, schedule="cosine", warmup_steps=min(recipe.mtp.warmup_steps, steps // 4)
        )
        self._micro_batch = recipe.learner.micro_batch_size
        module: nn.Module = MtpPolicy(policy.adapter, policy.model, heads) if joint else heads
        self.engine = Engine(
            module,
            config,
            recipe.backbone.dtype,
            rendezvous,
            lambda step: learning_rate_at(config, step % steps, steps),
        )

    def update(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One optimiser step on this rank's samples, each a completion to predict.

        Returns over all ranks `loss`, in nats, and `mtp_accuracy/h`, the share of tokens that offset h has first.
        """
        ordered = sorted(samples, key=lambda sample: len(sample.tokens))
        parts = [ordered[i : i + self._micro_batch] for i in range(0, len(ordered), self._micro_batch)]
        offsets = len(self._heads.blocks) + 1
        lengths = torch.tensor([len(sample.tokens) for sample in samples])
        tokens = over_ranks(torch.stack([(lengths - offset).clamp(min=0).sum() for offset in range(offsets)]))
        seen = torch.zeros(2, offsets)

        def loss_of(part: Sequence[Sample]) -> Tensor:
            losses = self._losses(part)
            seen[0] += losses.nats.detach().cpu()
            seen[1] += losses.hits.cpu()
            return mtp_loss(losses.nats, tokens.to(losses.nats.device), self._decay, self._joint)

        self.engine.update(parts, loss_of)
        nats, hits = over_ranks(seen)
        found = {"loss": float(mtp_loss(nats, tokens, self._decay, self._joint))}
        return found | {f"mtp_accuracy/{h}": float(hits[h] / tokens[h].clamp(min=1)) for h in range(1, offsets)}

    def _losses(self, samples: Sequence[Sample]) -> OffsetLosses:
        batch, audio = self._clips.batch(samples)
        if self._joint:
            found: OffsetLosses = self.engine(batch, audio)
            return found
        model, adapter = self._policy.model, self._policy.adapter
        with torch.no_grad():
            states = adapter.hidden_states(model, batch, audio or self._policy.encode(batch))
            read = read_by_heads(model, batch, states)
        return offset_losses(batch, [states, *self.engine(*read)], model, learns=False)


class HeadLearner:
    """The heads of a policy in RL: frozen, until they are to be fitted anew. One rank's part."""

    def __init__(self, recipe: Recipe, policy: Policy, model: Path, rendezvous: Rendezvous, clips: Clips) -> None:
        """`model`: the checkpoint that the policy began with. Raises RecipeError when its heads are another's."""
        self._policy, self._heads = policy, load_heads(model / FOLDER, policy.model)
        self._steps, self._share = recipe.mtp.refit_steps, recipe.mtp.batch_size // rendezvous.world_size
        self._rng = random.Random(f"{recipe.seed} {rendezvous.rank}")
        self._trainer = HeadTrainer(recipe, policy, self._heads, rendezvous, clips, self._steps)

    def refit(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Teach the heads these samples, drawn at random with replacement; the metrics of the last step."""
        found: dict[str, float] = {}
        for _ in range(self._steps):
            found = self._trainer.update(self._rng.choices(samples, k=self._share))
        return found

    def weights(self, version: int) -> WeightUpdate:
        """A copy of the heads."""
        tensors = {name: value.detach().cpu().clone() for name, value in self._heads.state_dict().items()}
        return WeightUpdate(version, tensors, checksum(tensors))

    def save(self, path: Path) -> None:
        """Write them beside the policy, which is saved in `path`."""
        self._heads.save(path, self._policy.model)

    def save_state(self, path: Path) -> None:
        self._trainer.engine.save_state(path, _STATE_TAG, {"random": self._rng.getstate()})

    def load_state(self, path: Path) -> None:
        version, numbers, gauss = self._trainer.engine.load_state(path, _STATE_TAG)["random"]
        self._rng.setstate((version, tuple(numbers), gauss))


def fit_heads(
    recipe: Recipe, model: Path | str, prompts: Sequence[Prompt], rendezvous: Rendezvous, out: Path, report: Progress
) -> dict[str, float]:
    """Give the checkpoint `model` heads fitted to the prompts' transcripts, and write both to `out` (rank 0).

    First the blocks alone, `mtp.steps`; then, `mtp.joint_steps`, adaptor and decoder with them at a tenth of the rate.
    """
    join_process_group(rendezvous)
    import deepspeed

    mtp, split = recipe.mtp, recipe.learner.zero_stage == 3
    torch.manual_seed(mtp.seed)
    adapter = load_adapter(recipe.backbone.adapter, model)
    backbone = adapter.load_model(getattr(torch, recipe.backbone.dtype)).eval()
    policy = Policy(adapter, backbone, 1.0, freeze_encoder=True).eval()
    heads = new_heads(backbone, mtp.blocks, adapter.end_token_ids)
    clips = Clips(adapter, policy, encode_once=False)  # far more clips than it would keep
    share = mtp.batch_size // rendezvous.world_size
    done, found = 0, {}
    for joint, steps in ((False, mtp.steps), (True, mtp.joint_steps)):
        if not steps:
            continue
        trainer = HeadTrainer(recipe, policy, heads, rendezvous, clips, steps, joint=joint)
        order = clip_order([p.duration for p in prompts], steps * mtp.batch_size, 0.0, mtp.seed + joint)
        for step in range(steps):
            start = step * mtp.batch_size + rendezvous.rank * share
            found = trainer.update([_transcript(adapter, prompts[i]) for i in order[start : start + share]])
            done += 1
            report(done, found["loss"])
    with deepspeed.zero.GatheredParameters([*backbone.parameters(), *heads.parameters()], enabled=split):
        if rendezvous.rank == 0:
            adapter.save(backbone, out)
            heads.save(out, backbone)
    return found


def _transcript(adapter: PolicyAdapter, prompt: Prompt) -> Sample:
    """The transcript as if it had been said."""
    tokens = adapter.target(prompt)
    return Sample(prompt, tokens, (0.0,) * len(tokens), prompt.reference, StopReason.EOS, 0)
