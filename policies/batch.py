"""What a policy is fed: prompts as token ids and audio features, completions, and how they are padded together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt, ready for the model.

    `token_ids`: what the decoder reads before the completion; in layouts that put audio among the tokens, one
    placeholder per audio position. `features`: log-mel (M, F), `features_mask`: (F,), 1 where a frame is real; both
    None for a prompt without audio, and for one whose encoder output is kept instead. `has_audio` tells the two apart.
    """

    token_ids: tuple[int, ...]
    features: Tensor | None = None
    features_mask: Tensor | None = None
    has_audio: bool = True


@dataclass(frozen=True)
class PolicyBatch:
    """B completions of C clips, right-padded to S tokens in all and T completion tokens.

    A clip stands once, however many completions it has: `clip_index` (B,) says which clip a row belongs to, -1 for a
    row whose prompt has no audio. `logit_positions` (B, T): the position whose output predicts completion token t.
    `features` (C, M, F) and `features_mask` (C, F) are None when no prompt has audio, or its encoder output is kept.
    """

    input_ids: Tensor
    attention_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    logit_positions: Tensor
    clip_index: Tensor
    features: Tensor | None
    features_mask: Tensor | None

    @property
    def audio(self) -> tuple[Tensor, Tensor]:
        """Features and their mask. Raises ValueError for prompts without audio."""
        if self.features is None or self.features_mask is None:
            raise ValueError("the prompts of this batch have no audio")
        return self.features, self.features_mask


def pad_features(prompts: Sequence[EncodedPrompt]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Features (C, M, F) and their mask (C, F), zero-padded to the longest clip; None where no prompt has any.

    Prompts without audio are left out: C counts the others. Raises ValueError when only some of those have features.
    """
    clips = [(p.features, p.features_mask) for p in prompts if p.features is not None and p.features_mask is not None]
    if not clips:
        return None, None
    if len(clips) < sum(p.has_audio for p in prompts):
        raise ValueError("some clips of the batch have features and some have none")
    frames = max(found.shape[1] for found, _ in clips)
    features = clips[0][0].new_zeros(len(clips), clips[0][0].shape[0], frames)
    mask = torch.zeros(len(clips), frames, dtype=torch.long)
    for row, (found, real) in enumerate(clips):
        features[row, :, : found.shape[1]] = found
        mask[row, : real.shape[0]] = real
    return features, mask


def make_batch(
    prompts: Sequence[EncodedPrompt],
    prompt_index: Sequence[int],
    completions: Sequence[Sequence[int]],
    pad_id: int,
) -> PolicyBatch:
    """Pad `completions`, row i answering `prompts[prompt_index[i]]`, into one batch."""
    rows = [(*prompts[number].token_ids, *tokens) for number, tokens in zip(prompt_index, completions, strict=True)]
    size, longest = max(map(len, rows)), max(1, *map(len, completions))
    input_ids = torch.full((len(rows), size), pad_id)
    attention_mask = torch.zeros(len(rows), size, dtype=torch.long)
    completion_ids = torch.full((len(rows), longest), pad_id)
    completion_mask = torch.zeros(len(rows), longest)
    logit_positions = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, (row, tokens) in enumerate(zip(rows, completions, strict=True)):
        input_ids[i, : len(row)] = torch.tensor(row)
        attention_mask[i, : len(row)] = 1
        completion_ids[i, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        completion_mask[i, : len(tokens)] = 1
        start = len(row) - len(tokens) - 1
        logit_positions[i, : len(tokens)] = torch.arange(start, start + len(tokens))
    features, features_mask = pad_features(prompts)
    heard = accumulate(prompt.has_audio for prompt in prompts)
    clips = [count - 1 if prompt.has_audio else -1 for prompt, count in zip(prompts, heard, strict=True)]
    return PolicyBatch(
        input_ids,
        attention_mask,
        completion_ids,
        completion_mask,
        logit_positions,
        torch.tensor([clips[number] for number in prompt_index], dtype=torch.long),
        features,
        features_mask,
    )
