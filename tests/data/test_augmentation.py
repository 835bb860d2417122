import pytest
import torch

from lookaround.data.augmentation import apply_moves, derived_seed, draw_moves, largest_shift, seeded


@pytest.mark.parametrize(("size", "pixels"), [(4, 1), (8, 1), (28, 3), (32, 4)])
def test_largest_shift_is_an_eighth(size, pixels):
    assert largest_shift(size) == pixels


def test_the_middle_move_changes_nothing():
    images = torch.randint(256, (3, 2, 16, 16), dtype=torch.uint8)
    assert torch.equal(apply_moves(images, torch.tensor([[2, 2, 0]] * 3)), images)


def test_mirror_alone():
    images = torch.randint(256, (2, 1, 16, 16), dtype=torch.uint8)
    moved = apply_moves(images, torch.tensor([[2, 2, 1], [2, 2, 0]]))
    assert torch.equal(moved[0], images[0].flip(-1))
    assert torch.equal(moved[1], images[1])


def test_each_image_moves_by_its_own_offset_and_zeros_come_in():
    images = torch.randint(1, 256, (2, 1, 16, 16), dtype=torch.uint8)
    moved = apply_moves(images, torch.tensor([[4, 2, 0], [2, 0, 0]]))  # up by two; right by two
    assert torch.equal(moved[0, :, :-2], images[0, :, 2:])
    assert torch.equal(moved[1, :, :, 2:], images[1, :, :, :-2])
    assert not moved[0, :, -2:].any()
    assert not moved[1, :, :, :2].any()


def test_moves_cover_their_range():
    moves = draw_moves(500, 16, flip=True)
    assert moves.amin(0).tolist() == [0, 0, 0]
    assert moves.amax(0).tolist() == [4, 4, 1]
    assert draw_moves(50, 16, flip=False)[:, 2].sum() == 0


def test_seeded_leaves_the_global_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1, 2, 3):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1, 2, 3):
        assert torch.equal(torch.rand(3), inside)


def test_neighbouring_seeds_and_epochs_are_unrelated():
    seeds = {derived_seed(seed, epoch) for seed in range(10) for epoch in range(10)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
