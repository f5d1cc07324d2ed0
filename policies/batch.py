"""What a policy is fed: prompts as token ids and audio features, completions, and how they are padded and packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """A clip of a prompt.

    `features`: log-mel (M, F), `mask`: (F,), 1 where a frame is real; both None where encoder output is kept instead.
    """

    path: str
    seconds: float
    features: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt, ready for the model.

    `token_ids`: what the decoder reads before the completion; in layouts that put audio among the tokens, one
    placeholder per audio position. `clips`: what is heard there, in order; none in a prompt without audio.
    `end_from`: tokens of a completion before it may end.
    """

    token_ids: tuple[int, ...]
    clips: tuple[Clip, ...] = ()
    end_from: int = 0


@dataclass(frozen=True)
class PolicyBatch:
    """B completions of C clips in R rows, right-padded to S tokens in all and T completion tokens.

    A row is a prompt and its completion; packed, a prompt and several of its completions, none of which sees another
    (`segments`). `row_index` (B,) says in which row a completion stands, `logit_positions` (B, T) at which position of
    it stands the output that predicts completion token t. The clips of a prompt stand once, however many rows it has:
    `clip_index` (R, K) says which clips are heard in a row, in order, and is -1 where it has fewer than K. `features`
    (C, M, F) and `features_mask` (C, F) are None when no prompt has audio, or its encoder output is kept.
    """

    input_ids: Tensor
    attention_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    logit_positions: Tensor
    row_index: Tensor
    clip_index: Tensor
    features: Tensor | None
    features_mask: Tensor | None
    segments: Tensor | None = None
    """(R, S): 0 at a prompt, n at its n-th completion, -1 at padding; None where no row is packed."""
    position_ids: Tensor | None = None
    """(R, S): where each token stands in its own sequence; None where no row is packed."""
    end_from: Tensor | None = None
    """(B,): tokens of a completion before it may end; None where it may end at once."""

    def seen_by(self, dtype: torch.dtype) -> dict[str, Tensor | None]:
        """Keywords of a decoder: what each token may look at, and where it stands.

        `attention_mask` is (R, S), or of packed rows (R, 1, S, S), in the decoder's type, to be added to the scores.
        """
        if self.segments is None:
            return {"attention_mask": self.attention_mask}
        of_query, of_key = self.segments.unsqueeze(-1), self.segments.unsqueeze(-2)
        size = self.segments.shape[-1]
        earlier = torch.ones(size, size, dtype=torch.bool, device=self.segments.device).tril()
        seen = earlier & ((of_key == 0) | (of_key == of_query)) & (of_query >= 0)
        # Not -inf: a row of padding, which sees nothing, would have no softmax.
        scores = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
        return {"attention_mask": scores.unsqueeze(1), "position_ids": self.position_ids}

    @property
    def audio(self) -> tuple[Tensor, Tensor]:
        """Features and their mask. Raises ValueError for prompts without audio."""
        if self.features is None or self.features_mask is None:
            raise ValueError("the prompts of this batch have no audio")
        return self.features, self.features_mask


def pad_features(prompts: Sequence[EncodedPrompt]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Features (C, M, F) and their mask (C, F), zero-padded to the longest clip; None where no prompt has any.

    The clips of the prompts, in order. Raises ValueError when only some of them have features.
    """
    heard = [clip for prompt in prompts for clip in prompt.clips]
    clips = [(clip.features, clip.mask) for clip in heard if clip.features is not None and clip.mask is not None]
    if not clips:
        return None, None
    if len(clips) < len(heard):
        raise ValueError("some clips of the batch have features and some have none")
    frames = max(found.shape[1] for found, _ in clips)
    features = clips[0][0].new_zeros(len(clips), clips[0][0].shape[0], frames)
    mask = torch.zeros(len(clips), frames, dtype=torch.long)
    for row, (found, real) in enumerate(clips):
        features[row, :, : found.shape[1]] = found
        mask[row, : real.shape[0]] = real
    return features, mask


def packed_rows(prompt_index: Sequence[int], prompts: Sequence[int], lengths: Sequence[int], most: int) -> list[range]:
    """Which neighbouring completions share a row: those of one prompt, while the row has at most `most` positions.

    `prompts` and `lengths`: positions that each prompt and each completion takes. A longer completion stands alone.
    """
    rows: list[range] = []
    size = 0
    for i, number in enumerate(prompt_index):
        if rows and number == prompt_index[rows[-1].start] and size + lengths[i] <= most:
            rows[-1] = range(rows[-1].start, i + 1)
            size += lengths[i]
        else:
            rows.append(range(i, i + 1))
            size = prompts[number] + lengths[i]
    return rows


def make_batch(
    prompts: Sequence[EncodedPrompt],
    prompt_index: Sequence[int],
    completions: Sequence[Sequence[int]],
    pad_id: int,
    packed: int = 0,
) -> PolicyBatch:
    """Pad `completions`, of which i answers `prompts[prompt_index[i]]`, into one batch.

    `packed`: positions of a row up to which neighbours that answer one prompt share it; 0: each has a row of its own.
    """
    taken = [len(prompt.token_ids) for prompt in prompts]
    rows = packed_rows(prompt_index, taken, [len(tokens) for tokens in completions], packed)
    sizes = [taken[prompt_index[row.start]] + sum(len(completions[i]) for i in row) for row in rows]
    shape, longest = (len(rows), max(sizes)), max(1, *map(len, completions))
    input_ids = torch.full(shape, pad_id)
    segments, position_ids = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    completion_ids = torch.full((len(completions), longest), pad_id)
    completion_mask = torch.zeros(len(completions), longest)
    logit_positions = torch.zeros(len(completions), longest, dtype=torch.long)
    row_index = torch.zeros(len(completions), dtype=torch.long)
    for number, row in enumerate(rows):
        prompt = prompts[prompt_index[row.start]].token_ids
        start = len(prompt)
        input_ids[number, :start] = torch.tensor(prompt, dtype=torch.long)
        segments[number, :start] = 0
        position_ids[number, :start] = torch.arange(start)
        for segment, i in enumerate(row, start=1):
            tokens, length = completions[i], len(completions[i])
            end = start + length
            row_index[i] = number
            input_ids[number, start:end] = torch.tensor(tokens, dtype=torch.long)
            segments[number, start:end] = segment
            position_ids[number, start:end] = len(prompt) + torch.arange(length)
            completion_ids[i, :length] = torch.tensor(tokens, dtype=torch.long)
            completion_mask[i, :length] = 1
            logit_positions[i, :length] = torch.arange(start - 1, end - 1)
            logit_positions[i, : min(1, length)] = len(prompt) - 1
            start = end
    features, features_mask = pad_features(prompts)
    alone, bands = len(rows) == len(completions), any(prompt.end_from for prompt in prompts)
    return PolicyBatch(
        input_ids,
        (segments >= 0).long(),
        completion_ids,
        completion_mask,
        logit_positions,
        row_index,
        _clip_index(prompts, [prompt_index[row.start] for row in rows]),
        features,
        features_mask,
        None if alone else segments,
        None if alone else position_ids,
        torch.tensor([prompts[number].end_from for number in prompt_index]) if bands else None,
    )


def _clip_index(prompts: Sequence[EncodedPrompt], of_row: Sequence[int]) -> Tensor:
    """(R, K): the clips of the prompt of each row, which are counted through all prompts."""
    counts = [len(prompt.clips) for prompt in prompts]
    starts = [0, *accumulate(counts)]
    index = torch.full((len(of_row), max(1, *counts)), -1)
    for row, number in enumerate(of_row):
        index[row, : counts[number]] = torch.arange(starts[number], starts[number + 1])
    return index
