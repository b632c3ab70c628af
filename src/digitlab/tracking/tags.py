"""Tags of runs."""

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException


def remove_tag(client: MlflowClient, run_id: str, key: str) -> None:
    """Remove a tag, if nobody has: another host, or the same request whose answer was lost."""
    try:
        client.delete_tag(run_id, key)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
