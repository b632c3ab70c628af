"""Look after the store: python src/store.py relocate, or gc, each with --dry-run to see what it would do"""

import argparse
import os

from digitlab.config import one_line_errors, user_errors
from digitlab.loading import leave, quickly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("relocate", "gc"))
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do, and do nothing")
    arguments = parser.parse_args()
    with quickly():
        from digitlab import console, tracking, upkeep
    task = {"relocate": upkeep.relocate, "gc": upkeep.collect_garbage}[arguments.task]
    with user_errors("store"):
        store = tracking.Store(os.environ.get("MLFLOW_TRACKING_URI"), "digitlab")
        if arguments.dry_run:
            console.say("without --dry-run this would be done:")
        for line in task(store, arguments.dry_run):
            console.say(line)


if __name__ == "__main__":
    with one_line_errors():
        main()
        leave()
