"""Say what this machine has, and choose for it what the configuration leaves to "auto"."""

import ctypes
import gc
import os
import platform
import warnings
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from digitlab.platform import gpus

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "mlflow", "numpy", "mlxtend")


def accelerator(wanted: str) -> str:
    """Return "cpu" or "gpu" for `wanted`; raise ValueError where a GPU is wanted and there is none."""
    found = torch.cuda.is_available()
    if wanted == "gpu" and not found:
        raise ValueError("no GPU found; allowed here: auto, cpu")
    return ("gpu" if found else "cpu") if wanted == "auto" else wanted


def devices(accelerator: str, place: int | None = None) -> int | list[int]:
    """Return what Lightning takes as `devices`: one CPU, or the GPU that is this process's from now on.

    That is the one at `place`, where the processes of a run share the GPUs, else the one that the fewest have taken.
    """
    if accelerator == "cpu":
        return 1
    names = tuple(str(torch.cuda.get_device_properties(each).uuid) for each in range(torch.cuda.device_count()))
    if place is not None:
        _claimed(names[place : place + 1])
        return [place]
    return [_claimed(names)[0] if len(names) > 1 else 0]


def count_devices(accelerator: str) -> tuple[int, str]:
    """Return how many processes of a run this machine has devices for, and what those are."""
    return (torch.cuda.device_count(), "GPUs") if accelerator == "gpu" else (os.cpu_count() or 1, "processors")


@cache  # which holds the claim
def _claimed(names: tuple[str, ...]) -> tuple[int, object]:
    return gpus.claim(names)


def precision(wanted: str, accelerator: str) -> str:
    """Return the precision to train in: "auto" is bf16-mixed where the hardware computes in it, else 32-true.

    Warn where another one is wanted in which the hardware does not compute.
    """
    if wanted == "auto":
        return "bf16-mixed" if computes_in_bf16(accelerator) else "32-true"
    if wanted == "16-mixed" and accelerator == "cpu":
        warnings.warn(f"trainer.precision={wanted}: is for GPUs; a CPU is up to 100 times slower in it", stacklevel=2)
    elif wanted.startswith("bf16") and not computes_in_bf16(accelerator):
        warnings.warn(f"trainer.precision={wanted}: emulated here, so slower than 32-true", stacklevel=2)
    return wanted


def computes_in_bf16(accelerator: str) -> bool:
    """Say whether the hardware computes in bfloat16, so that it is faster there than float32."""
    if accelerator == "gpu":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "avx512_bf16" in _cpu_info("flags")


def prepare_training() -> None:
    """Set up memory, CUDA and cuDNN as a run needs them."""
    disable_malloc_trim()
    disable_nvml_check()
    fix_cudnn_algorithms()
    free_gpu_memory()


def disable_malloc_trim() -> None:
    """Let freed memory stay with the process, where the C library is glibc; elsewhere do nothing.

    It would give every large tensor back to the kernel, which clears it anew at each training step: on a CPU that is up
    to half of a step's time.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for parameter in (trim_threshold, mmap_threshold):
            libc.mallopt(parameter, 1 << 30)


def disable_nvml_check() -> None:
    """Have torch ask CUDA itself whether there is a GPU, as it does unless told otherwise.

    Lightning tells it to ask NVML, so that a process that has asked may fork, which nothing here does. But every
    optimizer step asks, and loading NVML anew each time takes 0.1 ms and more, found or not.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def fix_cudnn_algorithms() -> None:
    """Have cuDNN take algorithms that give the same bits each time, and the same ones in every process.

    And forget the trainer.deterministic of a run before this one in the same process: Lightning only switches it on.
    """
    torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def trim_malloc() -> None:
    """Return to the kernel what is free of the kept memory, where the C library is glibc; elsewhere do nothing.

    joblib takes 300 MB more than after the first cell for a leak, and starts another worker: ten seconds.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def free_gpu_memory() -> None:
    """Give back the GPU's memory that nothing uses any more; do nothing where no GPU was used.

    Lightning's trainer is a circle of references: the images of a run that ended stay on the GPU until Python looks
    for circles, which it does by the number of objects, not by their size.
    """
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def accelerators() -> list[str]:
    """Name the processors found: the CPU first, then each GPU."""
    model = _cpu_info("model name") or platform.machine()
    cpu = f"CPU: {model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    gpus = [f"GPU {i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [cpu, *(gpus or ["GPU: none found"])]


def environment() -> str:
    """Describe the software and hardware that a result came from, one line each."""
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    tf32 = f"TF32 on a GPU: convolutions {convolutions}, products {products}"
    lines = [f"python {platform.python_version()}", *versions, platform.platform(), *accelerators(), tf32]
    return "\n".join(lines) + "\n"


def _cpu_info(field: str) -> str:
    """Return the first value of `field` in Linux's /proc/cpuinfo, or an empty string."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
