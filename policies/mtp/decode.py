"""Decoding with heads, as short as it can be said: draft, verify the prefix, roll back. One text at a time.

The serving engine does the same; this is what it is held against, and what acceptance is looked into with. With a
temperature above 0 the texts are distributed as plain sampling's: a guess is kept with the probability that the
backbone gives it, and else the token is drawn from the rest (2211.17192 with a draft that is certain).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from policies.adapter import PolicyAdapter
from policies.batch import make_batch
from policies.mtp.acceptance import Acceptance
from policies.mtp.heads import Memory, MtpHeads, rope_of
from rlhf_platform.types import Prompt


@dataclass(frozen=True)
class Decoded:
    """One completion."""

    tokens: tuple[int, ...]
    forwards: int
    """Of the backbone, the one over the prompt included."""
    acceptance: Acceptance


class Decoder:
    """A backbone in evaluation mode and its heads; without heads, plain decoding.

    `temperature`: 0 takes the most likely token; above it tokens are drawn with `generator`.
    """

    def __init__(
        self,
        adapter: PolicyAdapter,
        model: PreTrainedModel,
        heads: MtpHeads | None,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self._adapter, self._model, self._heads = adapter, model, heads
        self._temperature, self._generator = temperature, generator
        self._allowed = torch.tensor(adapter.completion_token_ids)

    @torch.no_grad()
    def decode(self, prompt: Prompt, limit: int) -> Decoded:
        """The completion of at most `limit` tokens, its end token included."""
        encoded = self._adapter.encode(prompt)
        batch = make_batch([encoded], [0], [()], 0)
        clips = self._adapter.audio_states(self._model, *batch.audio) if encoded.clips else []
        cache = DynamicCache(config=self._model.get_decoder().config)
        states = self._states(self._adapter.input_embeddings(self._model, batch, clips), cache)
        found = [self._pick(self._probabilities(states[0, -1]))]
        memory = self._remember(None, states, [*encoded.token_ids[1:], found[0]])
        forwards, acceptance, ends = 1, Acceptance(), self._adapter.end_token_ids
        while found[-1] not in ends and len(found) < limit:
            drafted = self._draft(states[:, -1:], found[-1], memory)
            states = self._states(self._embedded([found[-1], *drafted]), cache)
            settled = self._settled(states[0], drafted)
            wrong = len(drafted) + 1 - len(settled)
            if wrong:
                cache.crop(-wrong)  # the first guess that did not hold, and all after it
            states = states[:, : len(settled)]
            memory = self._remember(memory, states, settled)
            forwards += 1
            if drafted:
                acceptance.count(settled, len(drafted), ends)
            end = next((i for i, token in enumerate(settled, start=1) if token in ends), len(settled))
            found += settled[:end]
        return Decoded(tuple(found[:limit]), forwards, acceptance)

    def _settled(self, states: Tensor, drafted: list[int]) -> list[int]:
        """The drafted tokens that hold, and one more: in place of the first that does not, or after the last."""
        settled: list[int] = []
        for state, guess in zip(states, drafted, strict=False):
            probabilities = self._probabilities(state)
            if float(torch.rand((), generator=self._generator)) < float(probabilities[guess]):
                settled.append(guess)
                continue
            probabilities[guess] = 0
            return [*settled, self._pick(probabilities)]
        return [*settled, self._pick(self._probabilities(states[len(drafted)]))]

    def _draft(self, state: Tensor, token: int, memory: list[Memory]) -> list[int]:
        """What each block guesses in turn, from the last settled state (1, 1, H) and the token that followed it."""
        drafted: list[int] = []
        for block, (keys, values) in zip(self._heads.blocks if self._heads else (), memory, strict=True):
            here = rope_of(self._model, state, torch.tensor([[keys.shape[2] - 1]]))
            state = block(state, self._embedded([token]), (keys, values), here)
            token = int(self._logits(state[0, 0]).argmax())
            drafted.append(token)
        return drafted

    def _remember(self, memory: list[Memory] | None, states: Tensor, following: list[int]) -> list[Memory]:
        """The blocks' memory with the settled positions of `states` added; `following`: the token after each."""
        start = memory[0][0].shape[2] if memory else 0
        rope = rope_of(self._model, states, torch.arange(start, start + len(following)).unsqueeze(0))
        tokens = self._embedded(following)
        new = [block.memory(states, tokens, rope) for block in (self._heads.blocks if self._heads else ())]
        if not memory:
            return new
        return [
            (torch.cat([old[0], more[0]], dim=2), torch.cat([old[1], more[1]], dim=2))
            for old, more in zip(memory, new, strict=True)
        ]

    def _states(self, embeddings: Tensor, cache: DynamicCache) -> Tensor:
        """Last decoder states (1, S, H); the cache then holds these positions too."""
        decoder = self._model.get_decoder()
        found: Tensor = decoder(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).last_hidden_state
        return found

    def _embedded(self, tokens: list[int]) -> Tensor:
        embedded: Tensor = self._model.get_input_embeddings()(torch.tensor([tokens]))
        return embedded

    def _logits(self, state: Tensor) -> Tensor:
        """(V,), -inf at what may not be said."""
        logits = self._model.get_output_embeddings()(state)
        masked = torch.full_like(logits, float("-inf"))
        masked[self._allowed] = logits[self._allowed]
        return masked

    def _probabilities(self, state: Tensor) -> Tensor:
        """(V,): all on the most likely token at temperature 0."""
        logits = self._logits(state)
        if self._temperature == 0:
            return torch.zeros_like(logits).index_fill_(0, logits.argmax(), 1.0)
        return torch.softmax(logits.float() / self._temperature, dim=-1)

    def _pick(self, weights: Tensor) -> int:
        return int(torch.multinomial(weights, 1, generator=self._generator))
