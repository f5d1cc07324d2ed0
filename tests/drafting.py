"""Heads that guess well for a checkpoint with random weights: fitted to what it says itself."""

from collections.abc import Sequence
from pathlib import Path

import torch

from policies.batch import make_batch
from policies.load import load_adapter
from policies.mtp.decode import Decoder
from policies.mtp.heads import new_heads
from policies.mtp.policy import offset_losses, read_by_heads
from rlhf_platform.algorithms.mtp_loss import mtp_loss
from rlhf_platform.types import Prompt

LIMIT = 24
"""Tokens of a completion."""


def write_drafting_checkpoint(source: Path, prompts: Sequence[Prompt], path: Path, blocks: int = 3) -> None:
    """The checkpoint `source` with heads that get about half of its greedy completions right."""
    torch.manual_seed(0)
    adapter = load_adapter("qwen3_asr", source)
    model = adapter.load_model(torch.float32).eval()
    said = [Decoder(adapter, model, None).decode(prompt, LIMIT).tokens for prompt in prompts]
    batch = make_batch([adapter.encode(prompt) for prompt in prompts], range(len(prompts)), said, 0)
    heads = new_heads(model, blocks, adapter.end_token_ids)
    with torch.no_grad():
        clips = adapter.audio_states(model, *batch.audio)
        states = adapter.hidden_states(model, batch, clips)
        read = read_by_heads(model, batch, states)
    optimizer = torch.optim.Adam(heads.parameters(), lr=3e-3)
    for _ in range(8):
        losses = offset_losses(batch, [states, *heads(*read)], model, learns=False)
        optimizer.zero_grad()
        mtp_loss(losses.nats, losses.tokens, 0.9, with_backbone=False).backward()
        optimizer.step()
    adapter.save(model, path)
    heads.save(path, model)
