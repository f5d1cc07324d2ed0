"""Judged answers as TRL's trainers take them: padded rows with their audio, and a mask of what is learnt."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from policies.adapter import PolicyAdapter
from policies.batch import EncodedPrompt, PolicyBatch, make_batch
from policies.tokenizer import audio_token_ids
from rlhf_platform.algorithms.token_masks import modality_mask
from rlhf_platform.data.pairs import Answer, Opinion, Pair
from rlhf_platform.errors import DataError
from rlhf_platform.types import Prompt

Row = dict[str, int]
"""{"row": i}, the i-th of what the collator was made with."""


def answer_tokens(adapter: PolicyAdapter, prompt: Prompt, answer: Answer, place: str) -> tuple[int, ...]:
    """The completion that an answer is.

    Raises DataError, beginning with `place`, when it is none that the backbone could write.
    """
    if answer.codec is not None:
        # The layout knows how codec indices become tokens: as those of a clip that is to be spoken.
        spoken = replace(prompt, metadata={**prompt.metadata, "codec": list(answer.codec)})
        return adapter.target(spoken)
    tokens = answer.tokens if answer.tokens is not None else adapter.transcript_tokens(answer.text or "")
    allowed = _allowed(adapter)
    for token in tokens:
        if token not in allowed:
            if answer.tokens is None:
                said = (
                    f"{answer.text!r} is text, and this backbone does not write that; give token ids or codec indices"
                )
                raise DataError(f"{place} {said}")
            raise DataError(f"{place} has token {token}, which this backbone never writes; was it made by another?")
    return tokens


@lru_cache(maxsize=4)
def _allowed(adapter: PolicyAdapter) -> frozenset[int]:
    return frozenset(adapter.completion_token_ids)


class _Encoder:
    """Prompts, featurised once where the set is small, and completions padded behind them."""

    def __init__(self, adapter: PolicyAdapter, prompts: Sequence[Prompt], train_tokens: str) -> None:
        self.adapter, self._train_tokens = adapter, train_tokens
        self.encode = lru_cache(maxsize=8192)(lambda row: adapter.encode(prompts[row]))
        size = 1 + max(*adapter.completion_token_ids, *adapter.end_token_ids, *audio_token_ids(adapter.tokenizer))
        self._is_audio, self._is_end = (
            _marked(ids, size) for ids in (audio_token_ids(adapter.tokenizer), adapter.end_token_ids)
        )

    def batch(self, prompts: Sequence[EncodedPrompt], answers: Sequence[Sequence[int]]) -> PolicyBatch:
        """Answer i to prompt i % len(prompts)."""
        index = [i % len(prompts) for i in range(len(answers))]
        return make_batch(prompts, index, answers, self.adapter.tokenizer.pad_token_id)

    def rows(self, prompts: Sequence[EncodedPrompt], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Keywords of the model, a clip for each row, and `completion_mask` (B, S), 1 where a token is learnt."""
        # The models take their clips row by row, so that a clip with two answers stands there twice.
        batch = self.batch([prompts[i % len(prompts)] for i in range(len(answers))], answers)
        inputs = self.adapter.model_inputs(batch, torch.full_like(batch.input_ids, -100))
        del inputs["labels"]
        learnt = modality_mask(
            batch.completion_ids, self._is_audio, self._is_end, self._train_tokens, batch.completion_mask
        )
        mask = torch.zeros_like(batch.input_ids)
        # Padding of completions points at position 0: adding its 0 leaves what stands there.
        return inputs | {"completion_mask": mask.scatter_add_(1, batch.logit_positions + 1, learnt.long())}


class PairCollator:
    """Rows of pairs -> the batch of TRL's DPOTrainer: the chosen answers, then the rejected ones."""

    def __init__(self, adapter: PolicyAdapter, pairs: Sequence[Pair], train_tokens: str) -> None:
        """Raises what `answer_tokens` raises, of the first answer that cannot be used."""
        self._encoder = _Encoder(adapter, [pair.prompt for pair in pairs], train_tokens)
        self._chosen, self._rejected = pair_tokens(adapter, pairs)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        index = [row["row"] for row in rows]
        answers = [self._chosen[i] for i in index] + [self._rejected[i] for i in index]
        return self._encoder.rows([self._encoder.encode(i) for i in index], answers)


class OpinionCollator:
    """Rows of single answers -> the batch of TRL's KTOTrainer; for its KL each answer moves on to the next prompt."""

    def __init__(self, adapter: PolicyAdapter, opinions: Sequence[Opinion], train_tokens: str, needs_kl: bool) -> None:
        """Raises what `answer_tokens` raises, of the first answer that cannot be used."""
        self._encoder = _Encoder(adapter, [opinion.prompt for opinion in opinions], train_tokens)
        self._opinions, self._needs_kl = opinions, needs_kl
        self._tokens = [answer_tokens(adapter, o.prompt, o.completion, f"row {o.number}: completion") for o in opinions]

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        index = [row["row"] for row in rows]
        prompts, answers = [self._encoder.encode(i) for i in index], [self._tokens[i] for i in index]
        inputs = self._encoder.rows(prompts, answers)
        inputs["label"] = torch.tensor([self._opinions[i].label for i in index])
        if self._needs_kl:
            moved = self._encoder.rows(prompts, [answers[-1], *answers[:-1]])
            names = ("input_ids", "attention_mask", "completion_mask")
            inputs |= {f"KL_{name}": moved[name] for name in names}
        return inputs


class ComparisonCollator:
    """Rows of pairs -> the fields of a PolicyBatch, chosen answers first, with `margin` and `tie` (P,)."""

    def __init__(self, adapter: PolicyAdapter, pairs: Sequence[Pair]) -> None:
        """Raises what `answer_tokens` raises, of the first answer that cannot be used."""
        self._encoder = _Encoder(adapter, [pair.prompt for pair in pairs], "all")
        self._pairs = pairs
        self._chosen, self._rejected = pair_tokens(adapter, pairs)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        index = [row["row"] for row in rows]
        answers = [self._chosen[i] for i in index] + [self._rejected[i] for i in index]
        batch = self._encoder.batch([self._encoder.encode(i) for i in index], answers)
        return batch_fields(batch) | {
            "margin": torch.tensor([self._pairs[i].margin for i in index]),
            "tie": torch.tensor([self._pairs[i].tie for i in index]),
        }


def batch_fields(batch: PolicyBatch) -> dict[str, Tensor]:
    """The tensors of a batch by name, as `policies.reward_model.RewardModel` takes them."""
    return {field.name: value for field in fields(batch) if (value := getattr(batch, field.name)) is not None}


def pair_tokens(adapter: PolicyAdapter, pairs: Sequence[Pair]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Chosen and rejected answer of each pair. Raises what `answer_tokens` raises."""
    chosen = [answer_tokens(adapter, p.prompt, p.chosen, f"row {p.number}: chosen") for p in pairs]
    return chosen, [answer_tokens(adapter, p.prompt, p.rejected, f"row {p.number}: rejected") for p in pairs]


def _marked(tokens: Sequence[int], size: int) -> Tensor:
    """(V,) bool, True at the tokens."""
    found = torch.zeros(size, dtype=torch.bool)
    found[list(tokens)] = True
    return found
