"""The task of benchmarks/vs_trl.py, alike for both sides: texts, a small policy over codec tokens, a verifiable reward.

A text is spelt in codec tokens, `SPELT` for each letter, and closed by the end token. Before it stands an instruction
how to speak, as prompts of speech synthesis have one, unless the task is `bare`. The policy starts half taught.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from policies.codec_lm import CodecLMAdapter
from policies.tokenizer import train_tokenizer
from rewards.types import RewardInput
from rlhf_platform.data.digits import VOCABULARY, WORD_COUNTS
from rlhf_platform.types import Prompt

CODEC = 256
SPELT = 2
MAX_NEW_TOKENS = 64
TEXTS = 512
TEMPERATURE = 1.0
LEARNING_RATE = 3e-4


@dataclass(frozen=True)
class Job:
    """What a side is to do: `steps` RL steps of `prompts` x `group` samples, on `threads` cores."""

    model: str
    out: str
    steps: int
    prompts: int
    group: int
    seed: int
    threads: int
    bare: bool
    setting: dict[str, object]


INSTRUCTIONS = (
    "speak like a night nurse who tells a child the number of its bed: softly, slowly, with a smile in the voice, and "
    "leave a short pause after every word",
    "speak like a clerk at a busy counter who calls the next ticket: loud and clear over the noise, a little tired, "
    "the last word lower than the others",
    "speak like a pilot who reads a code back to the tower: even and quick, no feeling at all, every word as long as "
    "the one before it",
    "speak like a grandmother who reads the winning numbers from the paper: amazed, faster and faster, and out of "
    "breath when the last one comes",
)


def texts() -> list[str]:
    """As the data set `digits` has them: one to four spoken digits, in its own proportions; short ones repeat."""
    rng = random.Random(0)
    counts = rng.choices(list(WORD_COUNTS), list(WORD_COUNTS.values()), k=TEXTS)
    return [" ".join(rng.choices(VOCABULARY, k=count)) for count in counts]


def spelling(text: str) -> list[int]:
    """The codec entries of a text."""
    table = random.Random(1)
    letters = {letter: table.sample(range(CODEC), SPELT) for letter in " abcdefghijklmnopqrstuvwxyz"}
    return [entry for letter in text for entry in letters[letter]]


def prompts(model: Path | str, bare: bool) -> list[Prompt]:
    """With the token ids that spell the text, as `target`, and the whole prompt as a string, as `asked`."""
    adapter = CodecLMAdapter(model)
    found = []
    for number, text in enumerate(texts()):
        said = text if bare else f"{INSTRUCTIONS[number % len(INSTRUCTIONS)]}: {text}"
        prompt = Prompt(f"text-{number}", "", said, "en", metadata={"codec": spelling(text)})
        asked = adapter.tokenizer.decode(list(adapter.encode(prompt).token_ids))
        facts = {"codec": spelling(text), "target": adapter.target(prompt), "asked": asked}
        found.append(replace(prompt, metadata=facts))
    return found


def agreement(tokens: Sequence[int], target: Sequence[int]) -> float:
    """Share of the places of the longer of the two at which they hold the same token, 0 to 1."""
    return sum(a == b for a, b in zip(tokens, target, strict=False)) / max(len(tokens), len(target))


def reward(item: RewardInput) -> float:
    """`agreement` for a recipe."""
    return agreement(item.tokens, item.metadata["target"])


def build(path: Path, teaching: int, bare: bool) -> None:
    """Write the policy, about two million parameters, taught for so many steps of 32 texts."""
    tokenizer = train_tokenizer([*texts(), *INSTRUCTIONS * 50], 600, CODEC)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    adapter = CodecLMAdapter(path)
    _teach(model, adapter, teaching, bare)
    model.save_pretrained(path)


def _teach(model: torch.nn.Module, adapter: CodecLMAdapter, steps: int, bare: bool) -> None:
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=2e-3), random.Random(2)
    known = prompts(adapter.path, bare)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 20)
        rows = [(list(adapter.encode(p).token_ids), list(adapter.target(p))) for p in rng.sample(known, 32)]
        longest = max(len(a) + len(b) for a, b in rows)
        ids = torch.tensor([a + b + [0] * (longest - len(a) - len(b)) for a, b in rows])
        labels = torch.tensor([[-100] * len(a) + b + [-100] * (longest - len(a) - len(b)) for a, b in rows])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
