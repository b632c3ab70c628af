"""digitlab: which differences between image classifiers are real?"""

import os
from pathlib import Path

# Read when mlflow is imported, whoever imports it first.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

REPOSITORY = Path(__file__).resolve().parents[2]
