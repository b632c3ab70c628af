"""Write the descriptions that MLflow shows above a run and above the run of a sweep, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

from digitlab.platform.secrets import redact
from digitlab.tracking.store import Store

TAG = "mlflow.note.content"


def of_run(result: str, command: str, model: str) -> str:
    """Describe a run: what it came to, the command, and how to load the `model`, an address; "" for none."""
    loading = f'```python\nimport mlflow\n\nmodel = mlflow.pyfunc.load_model("{model}")\n```'
    parts = [f"**{result}**", f"```bash\n{command}\n```", loading if model else "No model is logged."]
    return "\n\n".join(parts)[:MAX_TAG_VAL_LENGTH]


def of_sweep(store: Store, name: str, cells: Sequence[Mapping[str, Any]], answer: str = "") -> str:
    """Describe a sweep: the `answer` of its report, if there is one, and a row for each cell with a link to its run.

    `cells` are those of sweep.json. Rows that MLflow has no room for are counted.
    """
    told = answer or f"What it shows: `python src/report.py report.sweep={name}`"
    head = f"{told}\n\n| run | status | val/acc | test/acc |\n| --- | --- | ---: | ---: |"
    rows = []
    for cell in cells:
        linked = f"[{cell['name']}]({store.run_path(cell['run_id'])})" if cell.get("run_id") else cell["name"]
        values = ("" if cell.get(key) is None else f"{cell[key]:.4f}" for key in ("val_acc", "test_acc"))
        rows.append(" | ".join([f"\n| {linked}", cell.get("status") or "", *values]) + " |")
    room = MAX_TAG_VAL_LENGTH - len(head) - 60
    shown = next((count for count in range(len(rows), 0, -1) if len("".join(rows[:count])) <= room), 0)
    more = "" if shown == len(rows) else f"\n\nAnd {len(rows) - shown} more, in sweep.json."
    return f"{head}{''.join(rows[:shown])}{more}"[:MAX_TAG_VAL_LENGTH]


def write(store: Store, run_id: str, text: str) -> None:
    store.client.set_tag(run_id, TAG, redact(text))
