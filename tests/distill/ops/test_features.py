import torch

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import promote
from kdsearch.distill.ops.features import channel_adapter, match_size, pixels, unit
from kdsearch.distill.ops.labels import labels_at, masked_mean


def test_the_coarser_map_is_brought_to_the_finer_size() -> None:
    coarse, fine = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 6, 8)
    for a, b in ((coarse, fine), (fine, coarse)):
        matched = match_size(a, b)
        assert [tuple(m.shape) for m in matched] == [(1, 2, 6, 8)] * 2
        assert any(m is fine for m in matched)
    assert match_size(coarse, coarse)[0] is coarse


def test_adapters_exist_only_where_channels_differ() -> None:
    assert not list(channel_adapter(4, 4).parameters())
    assert [tuple(p.shape) for p in channel_adapter(4, 6).parameters()] == [(6, 4, 1, 1)]


def test_unit_vectors_and_the_zero_vector() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -1e-3]], requires_grad=True)
    units = unit(vectors)
    torch.testing.assert_close(units, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]]))
    units.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    assert not vectors.grad[1].any()


def test_pixels_keep_channels_together() -> None:
    map_bchw = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    rows = pixels(map_bchw)
    assert torch.equal(rows[1 * 20 + 2 * 5 + 3], map_bchw[1, :, 2, 3])


def test_labels_shrink_without_new_classes_and_ignored_ones_can_index() -> None:
    target = torch.tensor([[[0, 1, 1, 7], [0, 0, 7, 7], [3] * 4, [IGNORE_INDEX] * 4]])
    label, valid = labels_at(target, (2, 2))
    assert label.tolist() == [[[0, 7], [0, 0]]]
    assert valid.tolist() == [[[True, True], [False, False]]]
    assert label.dtype == torch.long


def test_masked_mean_of_nothing_is_zero_with_a_graph() -> None:
    values = torch.tensor([1.0, torch.inf], requires_grad=True)
    assert masked_mean(values, torch.tensor([True, False])).item() == 1
    nothing = masked_mean(values, torch.tensor([False, False]))
    nothing.backward()
    assert nothing.item() == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0]


def test_promotion_leaves_double_precision_alone() -> None:
    kinds = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert promote(torch.zeros(1, dtype=dtype)).dtype == kinds.get(dtype, dtype)
