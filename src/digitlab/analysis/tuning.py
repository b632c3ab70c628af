"""Say how the learning rates of cells were chosen, and what limits that."""

from collections.abc import Sequence

from digitlab.analysis.cells import Cell, name_unusual


def describe_tuning(cells: Sequence[Cell]) -> list[str]:
    """Say how learning rates were chosen, and what may be wrong with that."""
    tuned = [cell for cell in cells if cell.rates]
    if not tuned:
        return []
    notes = []
    held_out = [cell for cell in tuned if cell.is_held_out]
    if held_out:
        notes.append(
            f"Learning rates of {_name_cells(held_out)} were chosen by mean validation loss in runs that did not read "
            "the test images. The accuracy is that of runs with the chosen rate and other seeds, each tested once."
        )
    if len(held_out) < len(tuned):
        notes.append(
            f"Learning rates of {_name_cells([cell for cell in tuned if not cell.is_held_out])} were chosen by mean "
            "validation loss among tested runs; their test accuracy is of the same runs, and the test images were read "
            "for every rate. sweep=tune tests the chosen rate only, with other seeds."
        )
    at_edge = [cell for cell in tuned if len(cell.rates) > 1 and (cell.rates[0].is_chosen or cell.rates[-1].is_chosen)]
    if at_edge:
        notes.append(
            f"At the edge of the learning rates tried: {_name_cells(at_edge)}. A better rate may lie outside; try more."
        )
    single = [cell for cell in tuned if any(len(rate.values) == 1 for rate in cell.rates)]
    if single:
        notes.append(
            f"One seed for a learning rate in {_name_cells(single)}: another seed may choose another one; "
            "sweep.seeds=3 tries each with three."
        )
    uneven = [cell for cell in tuned if len({len(rate.values) for rate in cell.rates}) > 1]
    if uneven:
        notes.append(f"Learning rates with unequal numbers of seeds in {_name_cells(uneven)}.")
    counts = {cell.name: max(len(cell.rates), 1) for cell in cells}
    if len(set(counts.values())) > 1:
        usual, listed = name_unusual(counts, lambda name, count: f"{count} of {name}")
        notes.append(
            f"Unequal numbers of learning rates tried: {usual} of most cells, {listed}. The more are tried, the better "
            "the chosen one can be."
        )
    return notes


def _name_cells(cells: Sequence[Cell]) -> str:
    return ", ".join(cell.name for cell in cells) if len(cells) <= 3 else f"{len(cells)} cells"
