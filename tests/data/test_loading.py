import pytest
import torch

from lookaround.data.in_memory import LabelledImages
from lookaround.data.loading import EpochSampler, TrainLoader, evaluation_loader, training_loader
from lookaround.data.preprocessing import Preprocessing

NUMBER = 23


def make_loader(num_workers: int = 0, augment: str = "shift_flip", seed: int = 0) -> TrainLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (NUMBER, 1, 8, 8), dtype=torch.uint8, generator=generator)
    dataset = LabelledImages(images, torch.arange(NUMBER)).dataset(
        Preprocessing(8, 1, (0.5,), (0.5,)), augment, seed
    )
    return training_loader(dataset, EpochSampler(NUMBER, seed), 4, num_workers)


def epoch_of(loader: TrainLoader, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def order(batches) -> list[int]:
    return torch.cat([labels for _, labels in batches]).tolist()


def test_order_is_a_function_of_seed_and_epoch():
    loader = make_loader()
    first, second = epoch_of(loader, 0), epoch_of(loader, 1)
    assert order(first) != order(second)
    assert same(epoch_of(make_loader(), 1), second)
    assert same(epoch_of(loader, 0), first)
    assert order(epoch_of(make_loader(seed=1), 0)) not in (order(first), order(second))


def test_batches_are_full_and_no_image_comes_twice():
    loader = make_loader()
    seen = order(epoch_of(loader, 0))
    assert len(loader) == 5
    assert len(seen) == len(set(seen)) == 20


def test_a_random_change_differs_between_epochs():
    loader = make_loader()
    first = {
        int(label): image
        for images, labels in epoch_of(loader, 0)
        for image, label in zip(images, labels, strict=True)
    }
    second = {
        int(label): image
        for images, labels in epoch_of(loader, 1)
        for image, label in zip(images, labels, strict=True)
    }
    common = first.keys() & second.keys()
    assert sum(not torch.equal(first[label], second[label]) for label in common) > len(common) / 2


@pytest.mark.parametrize("augment", ["none", "shift", "paper"])
def test_worker_processes_change_nothing(augment):
    alone, helped = make_loader(0, augment), make_loader(2, augment)
    for epoch in (0, 1):
        assert same(epoch_of(alone, epoch), epoch_of(helped, epoch))


def test_passes_draw_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    for augment in ("none", "shift", "paper"):
        epoch_of(make_loader(augment=augment), 0)
    list(evaluation_loader(make_loader().dataset, 4, 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("position", [0, 2, 4])
def test_goes_on_in_mid_epoch(num_workers, position):
    whole = epoch_of(make_loader(), 3)
    interrupted = make_loader()
    interrupted.sampler.set_epoch(3)
    batches = iter(interrupted)
    for _ in range(position):
        next(batches)
    state = interrupted.state_dict()
    resumed = make_loader(num_workers)
    resumed.load_state_dict(state)
    assert same(epoch_of(resumed, 3), whole[position:])
    assert len(resumed) == 5
    assert same(epoch_of(resumed, 4), epoch_of(make_loader(), 4))


def test_a_complete_epoch_is_not_gone_on_with():
    loader = make_loader()
    epoch_of(loader, 0)
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict())
    assert same(epoch_of(resumed, 1), epoch_of(make_loader(), 1))


def test_an_iterator_made_before_the_epoch_is_set_uses_the_epoch():
    loader = make_loader(1)
    early = iter(loader)
    loader.sampler.set_epoch(2)
    assert same(list(early), epoch_of(make_loader(), 2))


def test_processes_share_the_images_of_one_order():
    parts = []
    for rank in range(2):
        sampler = EpochSampler(10, seed=0, num_replicas=2, rank=rank)
        sampler.set_epoch(4)
        parts.append([index for index, epoch in sampler])
    alone = EpochSampler(10, seed=0)
    alone.set_epoch(4)
    assert [index for pair in zip(*parts, strict=True) for index in pair] == [index for index, _ in alone]


def test_evaluation_gives_every_image_in_order():
    batches = list(evaluation_loader(make_loader().dataset, 4, 0))
    assert order(batches) == list(range(NUMBER))
