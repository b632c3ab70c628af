"""Look after the store: python src/store.py relocate, or gc, each with --dry-run to see what it would do"""

import argparse
import os

from digitlab.config.errors import one_line_errors, user_errors
from digitlab.platform.startup import fast_exit, fast_imports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("relocate", "gc"))
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do, and do nothing")
    arguments = parser.parse_args()
    with fast_imports():
        from digitlab.platform import console
        from digitlab.tracking import maintenance
        from digitlab.tracking.store import Store
    task = {"relocate": maintenance.relocate, "gc": maintenance.collect_garbage}[arguments.task]
    with user_errors("store"):
        store = Store(os.environ.get("MLFLOW_TRACKING_URI"), "digitlab")
        if arguments.dry_run:
            console.say("without --dry-run this would be done:")
        for line in task(store, arguments.dry_run):
            console.say(line)


if __name__ == "__main__":
    with one_line_errors():
        main()
        fast_exit()
