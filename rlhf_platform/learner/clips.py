"""Clips on their way into batches: featurised once, and encoded once where the encoder is frozen."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.batch import EncodedPrompt, PolicyBatch, make_batch
from policies.policy import Policy
from rlhf_platform.types import Prompt, Sample

KEPT_CLIPS = 256
"""Clips remembered, the latest used: 300 MB of encoder output for Whisper tiny on 15 s windows."""

PACKED_POSITIONS = 1024
"""Of a row that several completions of a prompt share: beyond it the mask grows faster than what is saved."""


def on_device(batch: PolicyBatch, device: torch.device) -> PolicyBatch:
    """The batch with its tensors on the device."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{name: t.to(device) for name, t in tensors.items() if isinstance(t, Tensor)})


class Clips:
    """Makes batches of samples. With `encode_once` a batch holds its clips' encoder output instead of features.

    That is for a frozen encoder: however many samples, minibatches, epochs and steps a clip is in, it is encoded once.
    """

    def __init__(
        self, adapter: PolicyAdapter, policy: Policy, encode_once: bool, device: torch.device | None = None
    ) -> None:
        self._adapter, self._policy, self._encode_once = adapter, policy, encode_once
        self._device = device or torch.device("cpu")
        self._kept: OrderedDict[str, tuple[EncodedPrompt, Tensor | None]] = OrderedDict()

    def batch(self, samples: Sequence[Sample], packed: bool = False) -> tuple[PolicyBatch, list[Tensor] | None]:
        """The samples, padded, and the encoder output of each clip, or None where the policy is to encode them.

        `packed`: neighbours of one prompt share a row, in layouts that have such rows.
        """
        prompts: dict[str, Prompt] = {s.prompt.id: s.prompt for s in samples}
        index = {prompt_id: i for i, prompt_id in enumerate(prompts)}
        found = [self._encoded(prompt) for prompt in prompts.values()]
        rows = [index[s.prompt.id] for s in samples]
        pad = self._adapter.tokenizer.pad_token_id
        batch = make_batch([encoded for encoded, _ in found], rows, [s.tokens for s in samples], pad, self.most(packed))
        return on_device(batch, self._device), [states for _, states in found if states is not None] or None

    def most(self, packed: bool) -> int:
        """Positions of a packed row, at most; 0 where nothing is packed."""
        return PACKED_POSITIONS if packed and self._adapter.packs else 0

    def positions(self, prompt: Prompt) -> int:
        """Decoder positions that a prompt takes."""
        return len(self._encoded(prompt)[0].token_ids)

    def _encoded(self, prompt: Prompt) -> tuple[EncodedPrompt, Tensor | None]:
        if prompt.id not in self._kept:
            encoded, states = self._adapter.encode(prompt), None
            if self._encode_once and encoded.features is not None:
                with torch.no_grad():
                    (states,) = self._policy.encode(on_device(make_batch([encoded], [0], [()], 0), self._device))
                encoded = EncodedPrompt(encoded.token_ids)
            self._kept[prompt.id] = encoded, states
        self._kept.move_to_end(prompt.id)
        while len(self._kept) > KEPT_CLIPS:
            self._kept.popitem(last=False)
        return self._kept[prompt.id]
