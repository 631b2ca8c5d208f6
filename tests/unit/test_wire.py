"""Words between a run and a process arrive whole, or not at all."""

import os
import threading
from multiprocessing import Pipe
from typing import Any

import pytest

from cronrunner.processes.wire import Wire


def test_words_of_any_size_from_many_threads_arrive_whole() -> None:
    near, far = Pipe()
    one, other = Wire(near), Wire(far)
    words = [os.urandom(size) for size in (0, 10, 15_999, 16_000, 70_000)] * 4
    threads = [threading.Thread(target=one.send, args=(5, word)) for word in words]
    for thread in threads:
        thread.start()
    received: list[tuple[int, Any]] = []
    while len(received) < len(words):
        received += other.receive(10)
    for thread in threads:
        thread.join()

    assert {number for number, _ in received} == {5}
    assert sorted(word for _, word in received) == sorted(words)
    assert other.receive(0) == []
    near.close()
    with pytest.raises(EOFError):
        other.receive(1)


def test_a_word_that_was_broken_off_is_not_taken_for_the_beginning_of_the_next() -> None:
    near, far = Pipe()
    one, other = Wire(near), Wire(far)
    one._write(1, 0, b"half of a word")
    one.end(1)
    one.send(2, "whole")

    assert other.receive(10) == [(1, None), (2, "whole")]
    near.close()
