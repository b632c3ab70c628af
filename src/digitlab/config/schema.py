"""Every key of the configuration: its type, its range, its default and its meaning."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from digitlab.config.claimed import Claim
from digitlab.config.data_keys import Data
from digitlab.config.fields import (
    Address,
    Built,
    Count,
    Keys,
    Metric,
    Name,
    Natural,
    Positive,
    Recorded,
    Seed,
    Several,
    Share,
    Time,
)  # fmt: skip

CONV_NET = "digitlab.models.networks.ConvNet"


class ConvNet(Built):
    blocks: list[dict[str, Any]] = Field(
        default=[],
        description="convolution blocks in order: {channels, kernel, padding, activation, pool, pool_kind, "
        "pool_stride, pool_ceil_mode, dropout, spatial_dropout, batch_norm, init}",
    )
    hidden: list[dict[str, Any]] = Field(
        default=[],
        description="dense layers in order, before the one of the classes: {units, activation, dropout, batch_norm, "
        "init}",
    )
    output: dict[str, Any] = Field(default={}, description="of the layer of the classes: {activation, init}")
    dropout: bool = Field(default=True, description="false: without any dropout")
    init: Literal["keras", "torch"] | dict[str, Any] = Field(
        default="keras",
        description="initial values: keras (Glorot uniform weights, zero biases), torch (PyTorch's own), or "
        "{weights, biases}, each a name (he_normal), a number, or {normal: its standard deviation}",
    )


class Bias(Keys):
    lr: Positive | None = Field(default=None, description="learning rate of biases; null: as of weights")
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="weight decay of biases; null: as of weights"
    )


class Optim(Built):
    lr: Positive = Field(
        default=1e-3, description="learning rate, each optimizer's own by default; with a scheduler the highest one"
    )
    bias: Bias = Field(default_factory=Bias)


class Scheduler(Built):
    T_max: Count | Literal["???"] = Field(
        default="???", description="steps of half a cosine, of cosine; ???: those of the run"
    )
    total_steps: Count | Literal["???"] = Field(default="???", description="steps of one_cycle; ???: those of the run")
    steps: Count | Literal["???"] = Field(default="???", description="steps of warmup_cosine; ???: those of the run")


class Trainer(Built):
    accelerator: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="where to train; auto: the GPU if there is one"
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed"] = Field(
        default="32-true",
        description="bf16-mixed: faster, other numbers; bf16-true: weights too in bfloat16; 16-mixed: float16, with "
        "scaled losses; auto: bf16-mixed where the hardware computes in it",
    )
    devices: Count = Field(
        default=1,
        description="processes on a machine that share each batch, each with a GPU of its own or all on the CPU",
    )
    num_nodes: Count = Field(default=1, description="machines with so many processes, which torchrun or srun starts")
    max_epochs: Count = Field(default=12, description="passes over the training images")
    max_steps: Count | None = Field(
        default=None, description="end after so many optimizer steps, if they are fewer; the last epoch is then shorter"
    )
    accumulate_grad_batches: Count | None = Field(
        default=None, description="batches whose gradients make one optimizer step, of all their images; null: 1"
    )
    gradient_clip_val: Positive | None = Field(default=None, description="largest norm of the gradient; null: any")
    num_sanity_val_steps: Natural = Field(
        default=0,
        description="validation batches before training; the untrained network is evaluated as step 0 instead",
    )
    enable_progress_bar: bool = Field(default=False, description="Lightning's progress bar; callbacks.progress is ours")
    enable_model_summary: bool = Field(default=False, description="Lightning's summary; ours is printed and recorded")
    use_distributed_sampler: Literal[False] = Field(
        default=False, description="Lightning's sampler; the order of images is made from (seed, epoch)"
    )
    profiler: Literal["simple", "advanced"] | None = Field(
        default=None, description="print how long each part took; null: do not measure it"
    )
    callbacks: dict[str, Built | None] = Field(
        default={}, description="Lightning callbacks by a name of your own; null leaves one out"
    )


class Averaging(Keys):
    kind: Literal["ema", "swa"] | None = Field(
        default=None,
        description="what is validated, tested and kept: ema, an average of the weights that forgets older ones; swa, "
        "the mean of those after each of the last epochs; null: the weights themselves",
    )
    decay: Share | None = Field(default=None, description="share of the average that a step leaves in it; null: 0.999")
    start: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="share of the epochs before the first that is in the mean; null: 0.75"
    )


class EarlyStopping(Keys):
    patience: Count | None = Field(
        default=None, description="stop after so many epochs without a better monitor; null: never"
    )


class Sweep(Keys):
    name: Name | None = Field(default=None, description="what the sweep is called; null: a name made of its cells")
    seeds: Count | Literal["auto"] = Field(
        default=1,
        description="repeat every cell with the seeds 0 .. seeds - 1; auto: three of each cell, then more of those "
        "that may still be the best, in looks that share an error of 5 %; of a claim five, then more where it is open",
    )
    max_seeds: Annotated[int, Field(ge=3, le=1000)] | None = Field(
        default=None, description="of a cell at most, with sweep.seeds=auto; null: 20"
    )
    budget: Time | None = Field(
        default=None,
        description="with sweep.seeds=auto, start no run that would end later than so long from now; null: any time",
    )
    fresh_seeds: Count | None = Field(
        default=None,
        description="first test no cell; then test its learning rate of lowest val/loss with so many seeds of its own",
    )
    dry_run: bool = Field(default=False, description="true: say what there is to do and stop")
    detach: bool = Field(
        default=False,
        description="true, with hydra/launcher=slurm: submit the jobs and stop; the same command says how they stand",
    )
    parent: Name | None = Field(default=None, description="the run that a cell belongs to; the sweep sets it")


class Tracking(Keys):
    uri: str | None = Field(
        default=None,
        description="sqlite:///FILE or a server's address; null: mlruns/mlflow.db; by default $MLFLOW_TRACKING_URI",
    )
    experiment: Annotated[str, Field(pattern=r"\S")] = Field(
        default="digitlab", description="MLflow experiment that the runs belong to"
    )


class Race(Keys):
    margin: Share | None = Field(
        default=None,
        description="with sweep.seeds=auto, stop where the cells left are shown to differ by less; null: go on",
    )


def _network(node: Any) -> str:
    return "ConvNet" if isinstance(node, dict) and node.get("_target_") == CONV_NET else "Built"


class Run(Keys):
    """What `digitlab train` and each cell of a sweep is told."""

    model: Annotated[Annotated[ConvNet, Tag("ConvNet")] | Annotated[Built, Tag("Built")], Discriminator(_network)]
    optim: Optim
    data: Data
    scheduler: Scheduler | None = None
    trainer: Trainer
    seed: Seed = Field(default=0, description="initial weights, order of the images, dropout")
    loss: Literal["cross_entropy", "clipped_cross_entropy"] | Built = Field(
        default="cross_entropy",
        description="what is minimized; clipped_cross_entropy: as Keras <= 2.2 computed it; "
        "{_target_}: a module of logits and labels, such as torch.nn.CrossEntropyLoss",
    )
    evaluate_on: Literal["best", "last", "none"] = Field(
        default="best",
        description="test with the weights of the best epoch by monitor, or of the last one; "
        "none: the test images are not read",
    )
    metrics: list[
        Literal["f1_macro", "precision_macro", "recall_macro", "top2", "top3", "top5", "auroc", "mcc", "kappa", "ece"]
        | Built
    ] = Field(
        default=[],
        description="measured beside loss and accuracy, in validation and test: names, or {_target_}: a class of "
        "torchmetrics.classification or yours",
    )
    monitor: Literal["val/loss", "val/acc"] = Field(
        default="val/loss",
        description="what an epoch is judged by, in evaluate_on=best, early_stopping and ReduceLROnPlateau: "
        "the lowest val/loss, or the highest val/acc",
    )
    early_stopping: EarlyStopping
    averaging: Averaging = Field(default_factory=Averaging)
    rerun: bool = Field(default=False, description="true: run again what is already done")
    vs: str | None = Field(
        default=None,
        description="a run, as digitlab compare takes it, that this one is compared with at its end; null: none",
    )
    sweep: Sweep
    tracking: Tracking
    report: Race | None = None
    claim: Claim | None = None
    names: dict[str, Any] = Field(
        default={},
        description="what was chosen in each group; digitlab writes it",
        json_schema_extra={"is_internal": True},
    )


class Report(Keys):
    sweep: Name | None = Field(
        default=None, description="the sweep's name, or latest; null: the latest one, or with a filter no sweep"
    )
    filter: str | None = Field(
        default=None,
        description="runs by MLflow's search, of the sweep or of the experiment: params.`optim.lr` = '0.01'",
    )
    counterparts: Name | None = Field(
        default="counterparts",
        description="the sweep of counterparts that a report on claims includes, where it has been run",
    )
    margin: Share | None = Field(
        default=None, description="cells whose accuracies are shown to differ by less are called equivalent; null: none"
    )
    arm: Several | None = Field(default=None, description="of others' runs, what is compared: params.net,params.opt")
    seed: Recorded | None = Field(default=None, description="with report.arm, the seed; null: runs are numbered")
    metric: Metric | None = Field(default=None, description="with report.arm, the accuracy: metrics.test_acc")
    dir: str | None = Field(
        default=None,
        description="folder to write to; null: in the repository reports/<sweep>, or reports/<sweep>-<filter>",
    )


class ReportJob(Keys):
    """What `digitlab report` is told."""

    report: Report
    tracking: Tracking


class Ray(Keys):
    address: Address | None = Field(
        default=None,
        description="a cluster of Ray that is there, of which this machine is a part; auto: the one of this machine; "
        "null: workers of this machine, for this sweep alone",
    )
    n_jobs: Count | Literal[-1] = Field(default=-1, description="cells at once; -1: as many as there is room for")
    cpus: Count = Field(default=1, description="processors of a cell, and its threads unless OMP_NUM_THREADS says")
    gpus: Natural | Share | None = Field(
        default=None,
        description="GPUs of a cell, 0.5 for two cells on each; null: one, or its share of them with n_jobs, "
        "where this machine has some",
    )


class Launcher(Keys):
    launcher: Ray


class RaySweep(Keys):
    """What hydra/launcher=ray is told."""

    hydra: Launcher
