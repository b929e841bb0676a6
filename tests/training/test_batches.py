"""The steps of several processes hold the rows of one process's steps, dealt in turn."""

import pytest

from captioning.checkpoints.pretraining import ExampleRows
from captioning.compute.processes import Processes
from captioning.training.batches import EpochLoader, StepBatches


def steps(rows: ExampleRows, rank: int, count: int, epoch: int = 0, seed: int = 1) -> list[list[list[int]]]:
    """Return one process's micro-batches by step, of four steps of 16 rows."""
    batches = StepBatches(rows, 4, 4 // count, seed, Processes(rank, count))
    batches.set_epoch(epoch)
    micro_batches = list(batches)
    assert len(micro_batches) == len(batches)
    return [micro_batches[start : start + 4 // count] for start in range(0, len(batches), 4 // count)]


def flatten(micro_batches: list[list[int]]) -> list[int]:
    return [row for micro_batch in micro_batches for row in micro_batch]


@pytest.mark.parametrize("number", [1, 3, 15, 16, 17, 29, 48])
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_share_the_rows_of_a_step(number: int, count: int) -> None:
    rows = ExampleRows([{}] * number)
    alone = steps(rows, 0, 1)
    shares = [steps(rows, rank, count) for rank in range(count)]
    assert len({sum(map(len, share)) for share in shares}) == 1  # otherwise a process would wait forever
    for rank, share in enumerate(shares):
        for step, full_step in zip(share, alone, strict=True):
            expected = flatten(full_step)[rank::count]
            assert flatten(step) == expected
            assert all(len(micro_batch) == 4 for micro_batch in step[: len(expected) // 4])


def test_each_epoch_and_seed_orders_all_rows_differently() -> None:
    rows = ExampleRows([{}] * 20)
    orders = [
        [row for step in steps(rows, 0, 1, epoch, seed) for row in flatten(step)]
        for epoch, seed in ((0, 1), (1, 1), (0, 2), (0, 1))
    ]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] == orders[3]
    assert len(set(map(tuple, orders))) == 3


def test_the_loader_passes_the_epoch_to_batches_and_rows() -> None:
    class EpochRows(list):
        epoch = 0

    rows = EpochRows(range(6))
    batches = StepBatches(rows, 2, 1, 1)
    loader = EpochLoader(rows, batch_sampler=batches)
    loader.set_epoch(3)
    assert rows.epoch == batches.epoch == 3
    assert sorted(int(row) for batch in loader for row in batch) == list(range(6))


def test_sorting_by_length_keeps_the_rows_of_each_step() -> None:
    lengths = [(7 * row) % 13 for row in range(29)]
    rows, by_length = ExampleRows([{}] * 29), ExampleRows([{}] * 29, lengths)
    unsorted, alone, *shares = (
        list(map(flatten, steps(dataset, rank, count)))
        for dataset, rank, count in ((rows, 0, 1), (by_length, 0, 1), (by_length, 0, 2), (by_length, 1, 2))
    )
    assert alone == [sorted(step, key=lengths.__getitem__) for step in unsorted] != unsorted
    assert shares == [[step[rank::2] for step in alone] for rank in (0, 1)]
