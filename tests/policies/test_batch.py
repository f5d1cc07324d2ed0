"""Padding of prompts and completions into one batch, by hand."""

import torch

from policies.batch import Clip, EncodedPrompt, make_batch, pad_features


def encoded(tokens: tuple[int, ...], frames: int, real: int) -> EncodedPrompt:
    features, mask = torch.full((2, frames), float(frames)), (torch.arange(frames) < real).int()
    return EncodedPrompt(tokens, (Clip("", 1.0, features, mask),))


def test_rows_are_padded_on_the_right_and_predicted_from_the_position_before() -> None:
    prompts = [encoded((1, 2, 3), 4, 3), encoded((4, 5), 2, 2)]
    batch = make_batch(prompts, [1, 0, 1], [(7, 8, 9), (7,), ()], pad_id=0)
    assert batch.input_ids.tolist() == [[4, 5, 7, 8, 9], [1, 2, 3, 7, 0], [4, 5, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert batch.completion_ids.tolist() == [[7, 8, 9], [7, 0, 0], [0, 0, 0]]
    assert batch.completion_mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert batch.logit_positions[0].tolist() == [1, 2, 3]
    assert batch.logit_positions[1, 0].item() == 2
    assert batch.clip_index.tolist() == [[1], [0], [1]]


def test_completions_that_are_all_empty_make_a_batch_without_tokens() -> None:
    batch = make_batch([encoded((1,), 2, 2)], [0], [()], pad_id=0)
    assert batch.completion_mask.tolist() == [[0]]
    assert batch.input_ids.tolist() == [[1]]


def test_features_are_padded_with_zeros_to_the_longest() -> None:
    features, mask = pad_features([encoded((1,), 4, 3), encoded((1,), 2, 1)])
    assert features.tolist() == [[[4.0] * 4] * 2, [[2.0, 2.0, 0.0, 0.0]] * 2]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
