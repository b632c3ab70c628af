"""Put the files of a user's own ModelCheckpoint into the run's folder, and find them there again."""

from pathlib import Path, PurePath

from pytorch_lightning.callbacks import ModelCheckpoint

OURS = ("checkpoints", "figures")  # folders of a run that hold something else


def place_checkpoints(callback: ModelCheckpoint, folder: str) -> None:
    """Have `callback` write to `folder`, which lies in the run's; raise ValueError where it would lie elsewhere."""
    path = PurePath(folder)
    if path.is_absolute() or ".." in path.parts or folder.startswith("~") or "://" in folder or path.parts[:1] == ():
        raise ValueError(f"dirpath={folder}: must be a folder inside the run's own, such as mine, or left out")
    if path.parts[0] in OURS:
        raise ValueError(f"dirpath={folder}: is digitlab's; allowed: any other folder inside the run's own")
    name = PurePath(callback.filename or "")
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"filename={name}: must lie inside dirpath")
    callback.dirpath = folder
    callback._enable_version_counter = False  # an epoch that is trained again after an interruption is the same file


def move_checkpoints(callback: ModelCheckpoint, root: Path) -> None:
    """Have `callback` write under `root`, the folder of the run, which is known only when there is one."""
    callback.dirpath = str(root / (callback.dirpath or ""))


def follow(callback: ModelCheckpoint, state: dict) -> None:
    """Change the paths in a saved `state` of `callback` to where its files are now, if the folder has moved since."""
    there, here = state["dirpath"], str(callback.dirpath)
    for name, value in state.items():
        if isinstance(value, str):
            state[name] = value.replace(there, here, 1) if value.startswith(there) else value
    state["best_k_models"] = {path.replace(there, here, 1): score for path, score in state["best_k_models"].items()}
