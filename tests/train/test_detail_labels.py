import pytest
import torch

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.train.detail_labels import detail_labels


@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_equals_the_loop(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    target = torch.randint(3, (2, 1, 1), generator=generator).repeat(1, 9, 11)
    target[:, 4:, 6:] = 2
    target[0, :3, 8:] = 1
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE_INDEX
    binary, boundary = detail_labels(target, width)
    half = width // 2
    for b, i, j in torch.cartesian_prod(*(torch.arange(n) for n in target.shape)).tolist():
        if target[b, i, j] == IGNORE_INDEX:
            assert binary[b, i, j] == boundary[b, i, j] == IGNORE_INDEX
            continue
        window = target[b, max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1]
        seen = set(window.flatten().tolist()) - {IGNORE_INDEX}
        assert boundary[b, i, j] == (len(seen) > 1)
        assert binary[b, i, j] == (target[b, i, j] != 0)
    assert binary.dtype == boundary.dtype == torch.long


def test_ignored_pixels_make_no_boundary() -> None:
    target = torch.ones(1, 6, 6, dtype=torch.long)
    target[:, :, 3:] = IGNORE_INDEX
    _, boundary = detail_labels(target, 5)
    assert not boundary[:, :, :3].any()


def test_an_edge_is_as_wide_as_asked() -> None:
    target = torch.zeros(1, 1, 20, dtype=torch.long)
    target[..., 10:] = 1
    assert [int(detail_labels(target, width)[1].sum()) for width in (3, 5, 7)] == [2, 4, 6]


@pytest.mark.parametrize("width", [0, 4])
def test_even_widths_are_errors(width: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        detail_labels(torch.zeros(1, 2, 2, dtype=torch.long), width)
