"""Predict for many requests at once: what comes while a batch is predicted is the next batch."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor


class Batching:
    """Predict images of one shape for all who ask, in one thread.

    Args:
        predict: Maps uint8 images (N, ...) to probabilities (N, C).
        most: How many images may wait.
    """

    def __init__(self, predict: Callable[[Tensor], np.ndarray], most: int):
        self.predict, self.most = predict, most
        self.waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        self.is_at_work = False
        self.pool = ThreadPoolExecutor(1)

    async def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities (N, C) of uint8 images (N, ...); OverflowError where too many wait."""
        if self.waiting and sum(len(each) for each, _ in self.waiting) + len(images) > self.most:
            raise OverflowError
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((images, answer))
        if not self.is_at_work:
            self.is_at_work = True
            self.task = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            batch, self.waiting = self.waiting, []
            sizes, answers = [len(images) for images, _ in batch], [answer for _, answer in batch]
            try:
                stacked = torch.from_numpy(np.concatenate([images for images, _ in batch]))
                found = await loop.run_in_executor(self.pool, self.predict, stacked)
            except Exception as error:
                for answer in answers:
                    if not answer.done():  # who asked may be gone
                        answer.set_exception(error)
                continue
            for answer, part in zip(answers, np.split(found, np.cumsum(sizes)[:-1]), strict=True):
                if not answer.done():
                    answer.set_result(part)
        self.is_at_work = False
