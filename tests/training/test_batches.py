"""Steps of several processes hold the rows of one process's steps, dealt in turn."""

import pytest

from captioning.checkpoints.pretraining import ExampleRows
from captioning.compute.processes import Processes
from captioning.training.batches import EpochLoader, StepBatches


def dealt(rows: int, batch: int, accumulation: int, count: int, epoch: int = 0, seed: int = 1) -> list[list[list[int]]]:
    """Micro-batches by process."""
    found = []
    for rank in range(count):
        batches = StepBatches(range(rows), batch, accumulation // count, seed, Processes(rank, count))
        batches.epoch = epoch
        found.append(list(batches))
        assert len(found[-1]) == len(batches)
    return found


@pytest.mark.parametrize("rows", [1, 3, 15, 16, 17, 29, 48])
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_share_the_rows_of_a_step(rows: int, count: int) -> None:
    (alone,) = dealt(rows, 4, 4, 1)
    shares = dealt(rows, 4, 4, count)
    assert len({len(share) for share in shares}) == 1  # else one waits for the others for ever
    own = 4 // count
    for number in range(-(-rows // 16)):
        step = [row for batch in alone[number * 4 : number * 4 + 4] for row in batch]
        for rank, share in enumerate(shares):
            batches = share[number * own : (number + 1) * own]
            assert [row for batch in batches for row in batch] == step[rank::count]
            assert all(len(batch) == 4 for batch in batches[: len(step[rank::count]) // 4])


def test_an_epoch_holds_every_row_once_in_an_order_of_its_own() -> None:
    orders = [[row for batch in dealt(20, 3, 2, 1, epoch, seed)[0] for row in batch]
              for epoch, seed in ((0, 1), (1, 1), (0, 2), (0, 1))]  # fmt: skip
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


def test_the_loader_tells_batches_and_rows_the_epoch() -> None:
    class Rows(list):
        epoch = 0

    rows = Rows(range(6))
    batches = StepBatches(rows, 2, 1, 1)
    loader = EpochLoader(rows, batch_sampler=batches)
    loader.set_epoch(3)
    assert rows.epoch == batches.epoch == 3
    assert sorted(int(row) for batch in loader for row in batch) == list(range(6))


def steps(rank: int, count: int, lengths: list[int] | None) -> list[list[int]]:
    """The rows that a process takes of each step of eight, in its order."""
    batches = list(StepBatches(ExampleRows([{}] * 29, lengths), 2, 4 // count, 1, Processes(rank, count)))
    own = 4 // count
    return [[row for batch in batches[begin : begin + own] for row in batch] for begin in range(0, len(batches), own)]


def test_rows_sorted_by_length_stay_in_their_steps() -> None:
    """Each step holds the rows it holds unsorted; its micro-batches hold neighbours in length."""
    lengths = [(7 * row) % 13 for row in range(29)]
    plain, by_length = steps(0, 1, None), steps(0, 1, lengths)
    assert list(map(sorted, plain)) == list(map(sorted, by_length))
    assert by_length == [sorted(step, key=lengths.__getitem__) for step in by_length] != plain
    assert [steps(rank, 2, lengths) for rank in (0, 1)] == [[step[rank::2] for step in by_length] for rank in (0, 1)]
