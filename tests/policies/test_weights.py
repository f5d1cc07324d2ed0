"""The checksum of a weight sync (law 4) sees every change of a name, shape, value or dtype."""

import zlib

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from policies.weights import checksum

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def weights(draw: st.DrawFn) -> dict[str, Tensor]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return {name: torch.randn(draw(SHAPES), generator=generator).to(draw(st.sampled_from(DTYPES))) for name in names}


def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


@given(weights(), st.randoms(use_true_random=False))
def test_a_copy_in_any_order_has_the_same(tensors: dict[str, Tensor], random: object) -> None:
    items = list(copy(tensors).items())
    random.shuffle(items)
    assert checksum(dict(items)) == checksum(tensors)


@given(weights(), st.data())
def test_a_changed_bit_changes_it(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    changed = copy(tensors)
    raw = changed[data.draw(st.sampled_from(sorted(changed)))].view(-1).view(torch.uint8)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert checksum(changed) != checksum(tensors)


@given(weights(), st.data())
def test_a_changed_name_changes_it(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tensors)))
    changed = {f"{key}x" if key == name else key: tensor for key, tensor in tensors.items()}
    assert checksum(changed) != checksum(tensors)


@given(weights(), st.data())
def test_a_lost_or_added_tensor_changes_it(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    lost = copy(tensors)
    del lost[data.draw(st.sampled_from(sorted(lost)))]
    assert checksum(lost) != checksum(tensors)


@given(weights(), st.data())
def test_another_shape_of_the_same_bytes_changes_it(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tensors)))
    assert checksum(tensors | {name: tensors[name].unsqueeze(0)}) != checksum(tensors)


@given(weights(), st.data())
def test_another_dtype_changes_it(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tensors)))
    other = data.draw(st.sampled_from([dtype for dtype in DTYPES if dtype != tensors[name].dtype]))
    assert checksum(tensors | {name: tensors[name].to(other)}) != checksum(tensors)
    if tensors[name].element_size() == other.itemsize:  # the same bytes, read as another type
        assert checksum(tensors | {name: tensors[name].view(other)}) != checksum(tensors)


@given(weights(), st.data())
def test_two_swapped_tensors_change_it(tensors: dict[str, Tensor], data: st.DataObject) -> None:
    assume(len(tensors) > 1)
    one, two = data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=2, max_size=2, unique=True))
    assert checksum(tensors | {one: tensors[two], two: tensors[one]}) != checksum(tensors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_layout_and_gradient_do_not_matter(dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    strided = tensor.T.contiguous().T.requires_grad_()
    assert not strided.is_contiguous()
    assert checksum({"a": strided}) == checksum({"a": tensor})


def test_it_is_crc_32_of_names_shapes_and_bytes() -> None:
    tensors = {"b": torch.ones(1, 2), "a": torch.zeros(3, dtype=torch.bfloat16)}
    text = b"a(3,)torch.bfloat16" + bytes(6) + b"b(1, 2)torch.float32" + b"\0\0\x80\x3f" * 2
    assert checksum(tensors) == zlib.crc32(text)
    assert checksum({}) == 0


def test_a_tensor_without_elements_or_dimensions_counts_too() -> None:
    found = {checksum({"a": torch.zeros(shape)}) for shape in ((), (1,), (0,), (0, 2))}
    assert len(found) == 4
