"""The keys of a run that no file of conf/ gives."""

# So that a run without them keeps the fingerprint that it had before they were.
UNGIVEN = (
    "averaging",
    "data.file",
    "data.mean",
    "data.std",
    "data.shuffle",
    "data.folds",
    "data.fold",
    "data.drop_last",
    "data.augment.flip",
    "data.augment.crop",
    "data.augment.erase",
    "data.augment.fill",
    "metrics",
    "monitor",
    "optim.bias",
    "model.output",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "trainer.max_steps",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.profiler",
)


def names_in(above: str) -> list[str]:
    """Return the names of those directly below the key `above`, or of those below none."""
    return [name for place, _, name in (key.rpartition(".") for key in UNGIVEN) if place == above]
