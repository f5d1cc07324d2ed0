"""Which tokens of a completion are learnt: by modality and by turn."""

import torch
from torch import Tensor


def modality_mask(tokens: Tensor, is_audio: Tensor, is_end: Tensor, which: str, mask: Tensor) -> Tensor:
    """`mask` (B, T) with 0 at the tokens that are not learnt, in its dtype.

    `tokens` (B, T) long; `is_audio`, `is_end` (V,) bool: codec tokens, and tokens that end a turn. `which` is `all`,
    `text` or `audio` (AQAA 2506.07967 masks the audio). An end token counts with the token of the mask before it that
    is none; where there is none, the policy said nothing at all, and the end token counts as both.
    Raises ValueError for any other `which`.
    """
    if which not in ("all", "text", "audio"):
        raise ValueError(f"algorithm.train_tokens is {which!r}: all, text or audio")
    if which == "all":
        return mask
    kept = mask > 0
    # What stands outside the mask need not be a token.
    known = tokens.masked_fill(~kept, 0)
    position = torch.arange(tokens.shape[-1], device=tokens.device).expand_as(tokens)
    before = position.masked_fill(~kept | is_end[known], -1).cummax(-1).values
    chosen = (is_audio[known] == (which == "audio")).gather(-1, before.clamp(min=0)) | (before < 0)
    return mask * chosen


def turn_mask(tokens: Tensor, is_end: Tensor, which: str, mask: Tensor) -> Tensor:
    """`mask` (B, T) with 0 at the tokens of turns that are not learnt, in its dtype.

    `tokens` (B, T) long; `is_end` (V,) bool. A turn ends with an end token, which belongs to it; what follows the last
    end token, of a completion that was cut, is a turn too. `which` is `all` or `last`, the turn of the last token.
    Raises ValueError for any other `which`.
    """
    if which not in ("all", "last"):
        raise ValueError(f"algorithm.train_turns is {which!r}: all or last")
    if which == "all":
        return mask
    kept = mask > 0
    ends = (is_end[tokens.masked_fill(~kept, 0)] & kept).long()
    turn = (ends.cumsum(-1) - ends).masked_fill(~kept, -1)
    return mask * (turn == turn.amax(-1, keepdim=True))
