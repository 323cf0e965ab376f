"""Mapping with threads: in order, with errors, and never far ahead of who takes the results."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from audiostride import distributed
from audiostride.distributed import CHUNK, default_jobs, map_in_threads, needing_all
from audiostride.errors import InputError


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("n_items", [0, 1, CHUNK - 1, CHUNK, 10 * CHUNK + 3])
def test_results_come_in_order(jobs: int, n_items: int) -> None:
    assert list(map_in_threads(lambda item: -item, range(n_items), jobs=jobs)) == [-item for item in range(n_items)]


def test_results_come_in_order_whichever_chunk_is_ready_first() -> None:
    second_chunk_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_chunk_done.wait(timeout=30)  # the first item waits for the last of the second chunk
        if item == 2 * CHUNK - 1:
            second_chunk_done.set()
        return item

    assert list(map_in_threads(work, range(100 * CHUNK), jobs=2)) == list(range(100 * CHUNK))


@pytest.mark.parametrize("jobs", [1, 3])
def test_as_many_threads_work_at_a_time_as_there_are_jobs(jobs: int) -> None:
    meeting = threading.Barrier(jobs, timeout=30)  # breaks where they never are in it together
    threads = set()

    def work(item: int) -> None:
        threads.add(threading.get_ident())
        if item % CHUNK == 0:
            meeting.wait()

    list(map_in_threads(work, range(2 * jobs * CHUNK), jobs=jobs))
    assert len(threads) == jobs
    assert threading.get_ident() not in threads


def test_few_long_items_are_shared_by_all_threads() -> None:
    meeting = threading.Barrier(2, timeout=30)
    list(map_in_threads(lambda _: meeting.wait(), range(4), jobs=2))


def test_an_error_comes_out_after_the_chunks_before_it() -> None:
    bad = 3 * CHUNK + 5

    def work(item: int) -> int:
        if item == bad:
            raise ValueError(f"item {item}")
        return item

    results = map_in_threads(work, range(100 * CHUNK), jobs=2)
    taken = []
    with pytest.raises(ValueError, match=f"item {bad}"):
        taken.extend(results)
    assert taken == list(range(3 * CHUNK))
    assert list(results) == []


def test_an_error_of_the_items_comes_out() -> None:
    def items() -> Iterator[int]:
        yield from range(CHUNK)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(map_in_threads(abs, items(), jobs=2))


@pytest.mark.parametrize("jobs", [1, 4])
def test_few_items_are_taken_ahead_of_the_results(jobs: int) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = map_in_threads(abs, endless(), jobs=jobs)
    ahead = 0
    for count, result in enumerate(results, start=1):
        assert result == count
        ahead = max(ahead, taken - count)
        if count == 20 * CHUNK:
            break
    # Two chunks for each thread, the one whose results are being taken, and none beyond.
    assert ahead < (2 * jobs + 1) * CHUNK
    assert ahead >= 2 * jobs * CHUNK  # enough that no thread waits
    results.close()


def test_who_stops_early_leaves_nothing_running() -> None:
    before = threading.active_count()
    worked = []

    def work(item: int) -> int:
        worked.append(item)
        return item

    results = map_in_threads(work, range(10**9), jobs=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before
    assert len(worked) <= 6 * CHUNK
    assert list(results) == []


def test_what_was_not_begun_is_not_done_once_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = threading.Event()

    class Pool(ThreadPoolExecutor):
        def __exit__(self, *error: Any) -> None:
            stopping.set()
            super().__exit__(*error)

    monkeypatch.setattr(distributed, "ThreadPoolExecutor", Pool)
    worked = []

    def work(item: int) -> int:
        if item >= CHUNK:
            assert stopping.wait(timeout=30)  # the second chunk has begun, the third waits for the only thread
        worked.append(item)
        return item

    results = map_in_threads(work, range(10**9), jobs=1)
    assert next(results) == 0
    results.close()
    assert len(worked) in (CHUNK, 2 * CHUNK)


def test_nothing_is_done_before_the_first_result_is_asked_for() -> None:
    worked: list[int] = []
    results = map_in_threads(worked.append, range(10), jobs=2)
    assert worked == []
    assert list(results) == [None] * 10
    assert sorted(worked) == list(range(10))


def test_there_is_a_job_for_each_processor_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert default_jobs() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert default_jobs() == 7


@pytest.mark.parametrize(
    "text",
    [
        "[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:2",
        "Read error: Connection reset by peer",
        "NCCL error: remote process exited or there was a network error",
    ],
)
def test_processes_that_lost_another_one_say_so_in_one_line(text: str) -> None:
    said = r"^predict: all processes must go on, but one has ended .*; go on$"
    with pytest.raises(InputError, match=said), needing_all("predict", "go on"):
        raise RuntimeError(text)


def test_other_errors_among_processes_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^a defect$"), needing_all("predict", "go on"):
        raise RuntimeError("a defect")
