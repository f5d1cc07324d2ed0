"""The token rule of a policy that speaks, as vLLM applies it: to what it samples and to the log-probs it reports."""

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from policies.token_rule import END_FROM, TokenRule


def processor_of(rule: TokenRule) -> type[LogitsProcessor]:
    """A class for vLLM, which makes its own object of it, that lets nothing but what the rule allows be sampled."""

    class RuleProcessor(LogitsProcessor):
        def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
            size = vllm_config.model_config.get_vocab_size()
            self._forbidden = ~rule.masks(size).to(device)
            self._requests: dict[int, tuple[int, list[int]]] = {}

        @classmethod
        def validate_params(cls, sampling_params: SamplingParams) -> None:
            """Every request of ours has what is needed."""

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: BatchUpdate | None) -> None:
            """Follow the requests from row to row: which may end when, and what each has written, which vLLM goes on
            appending to."""
            if batch_update is None:
                return
            held = self._requests
            for row in batch_update.removed:
                held.pop(row, None)
            for row, params, _, written in batch_update.added:
                held[row] = (int((params.extra_args or {}).get(END_FROM, 0)), written)
            for source, target, direction in batch_update.moved:
                moved, replaced = held.pop(source, None), held.pop(target, None)
                if moved is not None:
                    held[target] = moved
                if replaced is not None and direction == MoveDirectionality.SWAP:
                    held[source] = replaced

        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            requests = [self._requests[row] for row in range(len(logits))]
            steps = torch.tensor([len(written) for _, written in requests])
            rows = rule.rows(steps, torch.tensor([end_from for end_from, _ in requests]))
            return logits.masked_fill_(self._forbidden[rows.to(logits.device)], -torch.inf)

    return RuleProcessor
