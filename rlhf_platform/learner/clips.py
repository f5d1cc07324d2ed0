"""Clips on their way into batches: featurised once, and encoded once where the encoder is frozen."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import fields, replace
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.batch import Clip, EncodedPrompt, PolicyBatch, make_batch
from policies.policy import Policy
from rlhf_platform.data.dialogue import is_dialogue, session_of
from rlhf_platform.types import Prompt, Sample

KEPT_CLIPS = 256
"""Prompts whose clips are remembered, the latest used: with one clip each, 300 MB of encoder output for Whisper tiny on
15 s windows."""

PACKED_POSITIONS = 1024
"""Of a row that several completions of a prompt share: beyond it the mask grows faster than what is saved."""


def on_device(batch: PolicyBatch, device: torch.device) -> PolicyBatch:
    """The batch with its tensors on the device."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{name: t.to(device) for name, t in tensors.items() if isinstance(t, Tensor)})


def key_of(prompt: Prompt) -> Hashable:
    """What tells prompts apart: the later turns of a session share an id, whatever was said in it before."""
    return prompt.id, session_of(prompt.audio, prompt.metadata) if is_dialogue(prompt.metadata) else None


class Clips:
    """Makes batches of samples. With `encode_once` a batch holds its clips' encoder output instead of features.

    That is for a frozen encoder: however many samples, turns, minibatches, epochs and steps a clip is in, it is encoded
    once.
    """

    def __init__(
        self, adapter: PolicyAdapter, policy: Policy, encode_once: bool, device: torch.device | None = None
    ) -> None:
        self._adapter, self._policy, self._encode_once = adapter, policy, encode_once
        self._device = device or torch.device("cpu")
        self._kept: OrderedDict[Hashable, tuple[EncodedPrompt, list[Tensor]]] = OrderedDict()
        self._states: WeakValueDictionary[str, Tensor] = WeakValueDictionary()
        """Encoder output of the clips of kept prompts, by path."""

    def batch(self, samples: Sequence[Sample], packed: bool = False) -> tuple[PolicyBatch, list[Tensor] | None]:
        """The samples, padded, and the encoder output of each clip, or None where the policy is to encode them.

        `packed`: neighbours of one prompt share a row, in layouts that have such rows.
        """
        prompts = {key_of(s.prompt): s.prompt for s in samples}
        index = {key: i for i, key in enumerate(prompts)}
        found = [self._encoded(prompt) for prompt in prompts.values()]
        rows = [index[key_of(s.prompt)] for s in samples]
        pad = self._adapter.tokenizer.pad_token_id
        batch = make_batch([encoded for encoded, _ in found], rows, [s.tokens for s in samples], pad, self.most(packed))
        return on_device(batch, self._device), [clip for _, states in found for clip in states] or None

    def most(self, packed: bool) -> int:
        """Positions of a packed row, at most; 0 where nothing is packed."""
        return PACKED_POSITIONS if packed and self._adapter.packs else 0

    def positions(self, prompt: Prompt) -> int:
        """Decoder positions that a prompt takes."""
        return len(self._encoded(prompt)[0].token_ids)

    def seconds(self, prompt: Prompt) -> list[float]:
        """Lengths of the clips of a prompt; of one without audio, its duration, which is 0."""
        return [*(clip.seconds for clip in self._encoded(prompt)[0].clips[:-1]), prompt.duration]

    def _encoded(self, prompt: Prompt) -> tuple[EncodedPrompt, list[Tensor]]:
        key = key_of(prompt)
        if key not in self._kept:
            encoded, states = self._adapter.encode(prompt), list[Tensor]()
            if self._encode_once:
                states = [self._encode(clip) for clip in encoded.clips]
                encoded = replace(encoded, clips=tuple(Clip(clip.path, clip.seconds) for clip in encoded.clips))
            self._kept[key] = encoded, states
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_CLIPS:
            self._kept.popitem(last=False)
        return self._kept[key]

    @torch.no_grad()
    def _encode(self, clip: Clip) -> Tensor:
        states = self._states.get(clip.path)
        if states is None:
            alone = make_batch([EncodedPrompt((0,), (clip,))], [0], [()], 0)
            (states,) = self._policy.encode(on_device(alone, self._device))
            self._states[clip.path] = states
        return states
