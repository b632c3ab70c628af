"""Search a line of states for the one where something changed."""

from collections.abc import Callable


def first_changed(count: int, is_changed: Callable[[int], bool | None]) -> tuple[int, int]:
    """Return the last of `count` states that is as the first one, and the first after it that is as the last one.

    `is_changed` says of a state between them whether it is as the last one; None where that cannot be told, and then a
    state beside it is asked. States are numbered from 0.
    """
    low, high, untold = 0, count - 1, set()
    while between := [state for state in range(low + 1, high) if state not in untold]:
        middle = min(between, key=lambda state: abs(2 * state - low - high))
        answer = is_changed(middle)
        if answer is None:
            untold.add(middle)
        elif answer:
            high = middle
        else:
            low = middle
    return low, high
