"""The checkpoints of a run whose artifacts lie elsewhere: they are written in a folder here, then uploaded."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from digitlab.platform import disk
from digitlab.tracking.deferred import DeferredClient

OURS = ("best.ckpt", "last.ckpt", "previous.ckpt")


class Uploads:
    """The folder `here` of a run, and what of it has been uploaded."""

    def __init__(self, client: MlflowClient, run_id: str, artifacts: str, here: Path):
        self.client, self.run_id, self.artifacts, self.here = client, run_id, artifacts, here
        self._there: dict[str, tuple[int, int] | None] = {}  # by path, as it was when it was uploaded

    def fetch(self) -> None:
        """Download the checkpoints that the run has."""
        uri = self.client.tracking_uri
        found = [each.path for each in MlflowClient(uri).list_artifacts(self.run_id, "checkpoints")]
        if found:
            self._there = dict.fromkeys(found)
            download_artifacts(
                run_id=self.run_id, artifact_path="checkpoints", dst_path=str(self.here), tracking_uri=uri
            )

    def share(self, newest: str) -> None:
        """Upload the checkpoint `newest`, and what changed of a user's own files.

        The best one is not uploaded as the last one too: who continues the run takes whichever is newer.
        """
        for file in sorted(self.here.rglob("*")):
            is_other = file.parent == self.here / "checkpoints" and file.name in OURS and file.name != newest
            if file.is_file() and not is_other:
                self._upload(file)

    def keep_only(self, checkpoint: str) -> None:
        """Upload the checkpoint, if that has not been done, and delete every other one."""
        folder = self.here / "checkpoints"
        self._upload(folder / checkpoint)
        disk.keep_only(folder, checkpoint)
        top = {"/".join(each.split("/")[:2]) for each in self._there if each.startswith("checkpoints/")}
        for path in sorted(top - {f"checkpoints/{checkpoint}"}):
            if isinstance(self.client, DeferredClient):
                self.client.delete_artifact(path)
            else:
                get_artifact_repository(self.artifacts, tracking_uri=self.client.tracking_uri).delete_artifacts(path)

    def _upload(self, file: Path) -> None:
        path, status = file.relative_to(self.here), file.stat()
        state = status.st_mtime_ns, status.st_size
        if self._there.get(str(path)) != state:
            folder = str(path.parent) if path.parent.name else None
            self.client.log_artifact(self.run_id, str(file), folder)
            self._there[str(path)] = state
