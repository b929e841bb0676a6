"""`make bench`: run the benchmarks."""

import stages  # noqa: F401  # sets how long threads spin
from benchmarks import reward, scst, supervised_step
from benchmarks.side_by_side import HEADER

if __name__ == "__main__":
    print(HEADER)
    for benchmark in (reward, supervised_step, scst):
        print(benchmark.run(), flush=True)
