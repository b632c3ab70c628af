"""The private parts of Lightning that we use behave as expected: this fails where a release changes them."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger
from torch.utils.data import DataLoader, TensorDataset

from digitlab.training.lightning_internals import count_optimizer_steps, step_of_metrics, write_epoch_metrics


class CallLogger(Logger):
    name, version = "calls", "0"

    def __init__(self):
        super().__init__()
        self.calls = []

    def log_metrics(self, metrics, step=None):
        self.calls.append(set(metrics))

    def log_hyperparams(self, *_, **__):
        pass


class ByHand(pl.LightningModule):
    """Take two optimizer steps a batch without Lightning's wrapper, and record `step_of_metrics`."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.layer, self.steps = torch.nn.Linear(1, 1), []

    def training_step(self, batch, index):
        count_optimizer_steps(self.trainer, 2)
        self.log("value", float(index), on_step=False, on_epoch=True)

    def validation_step(self, batch, index):
        self.steps.append(step_of_metrics(self.trainer))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class EpochEnd(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        module.steps.append(step_of_metrics(trainer))

    def on_train_epoch_end(self, trainer, module):
        module.steps.append(step_of_metrics(trainer))
        write_epoch_metrics(trainer)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_steps_are_counted_and_epoch_metrics_are_written_once_on_request():
    module, logger = ByHand(), CallLogger()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=logger, callbacks=[EpochEnd()], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(torch.zeros(3, 1)))
    trainer.validate(module, loader, verbose=False)
    trainer.fit(module, loader, DataLoader(TensorDataset(torch.zeros(1, 1))))
    assert trainer.global_step == 2 * 3 * 2
    untrained, first, second = [0, 0, 0], [2, 4, 6, 1, 1], [8, 10, 12, 2, 2]  # steps, validation, the epoch's end
    assert module.steps == untrained + first + second
    assert logger.calls == [{"value", "epoch"}] * 2
