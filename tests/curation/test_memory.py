import os

import numpy as np
import pytest

from rushes.curation.memory import give_back

PARTS, PART_BYTES = 2000, 64 << 10


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the kernel tells no resident memory")
def test_what_lies_free_between_what_is_held_is_given_back():
    parts = [np.ones(PART_BYTES, np.uint8) for _ in range(PARTS)]
    held = parts[::50] + parts[-1:]  # the last one keeps the C library from giving the end of its heap back
    before = resident()
    del parts
    give_back()
    assert before - resident() > 0.7 * PARTS * PART_BYTES and all(part[0] == 1 for part in held)
