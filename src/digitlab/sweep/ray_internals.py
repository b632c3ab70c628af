"""Every use of Ray's private parts; tests/services/test_ray.py fails when they change."""

import signal
from collections.abc import Callable, Mapping
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray._private import utils, worker  # pyright: ignore[reportMissingImports]

AS_ENTRY_POINT = "digitlab sweep"
RAYS_OWN = ("raylet", "autoscaler")  # in the place of a worker's process id


def connect(show: Callable[[str], None], address: str, **how: Any) -> None:
    """Connect to the cluster at an address, or start one at "local", and `show` each line that a worker prints.

    Ray would print them its own way, with pages of its own on a worker that ended, and would leave out lines that
    differ in numbers only, as those of epochs do. It would keep the command line, which may hold a password, in its
    record of jobs, and end the program its own way on SIGTERM.
    """

    def show_lines(data: Mapping[str, Any], **_: Any) -> None:
        if data.get("pid") not in RAYS_OWN:
            for line in data.get("lines", ()):
                show(line)

    worker.print_to_stdstream = show_lines
    utils.get_entrypoint_name = lambda: AS_ENTRY_POINT
    utils.set_sigterm_handler = lambda handler: None
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(address, log_to_driver=True, configure_logging=False, **how)
    signal.signal(signal.SIGTERM, handler)  # before it, Ray has put one that writes a page and kills the process
