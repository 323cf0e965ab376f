"""All settings of one training run, as they stand in ``config.yaml`` and on the command line."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from audiostride.audio.band import HIGHEST
from audiostride.checks import (
    ClipScore,
    Count,
    Frontend,
    HeadPooling,
    InputNorm,
    ModelSize,
    NotNegative,
    Pooling,
    PoolingPlace,
    Positive,
    Probability,
    RampBins,
    Range,
    Stride,
    WholeNumber,
    check_budget,
    check_settings,
)
from audiostride.dataset.labels import LabelSets
from audiostride.dataset.noise import SYNTHETIC
from audiostride.errors import InputError
from audiostride.models.config import ClassifierConfig
from audiostride.models.encoder_kinds import fill_encoder
from audiostride.training.augmentation.drawing import AugmentationConfig
from audiostride.training.settings import read_settings
from audiostride.training.tasks import Source, absolute_task, split_task
from audiostride.wording import settings_html

Schedule = Literal["cosine", "constant"]
Precision = Literal["auto", "32", "bf16-mixed", "16-mixed"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Balance = Literal["none", "class", "group"]
ClassWeights = Literal["none", "balanced"]
OnError = Literal["stop", "skip"]
Strategy = Literal["auto", "ddp"]
Logger = Literal["csv", "tensorboard", "wandb"]
Mixing = Literal["uniform", "proportional", "temperature"]
Keep = Literal["last", "best"]
OptimizerKind = Literal["adamw", "adam"]

EPOCHS, MIN_STEPS = 20, 2000  # of a training that is not told how long; steps are those of each task
# Rate of the strides, and with a budget, to which they have a way to go, the rate times the steps in which they learn:
# Adam moves a stride by its rate at most, by half of it over a cosine.
STRIDE_RATE, HIGHEST_STRIDE_RATE, STRIDE_REACH = 0.01, 0.1, 20.0
MAX_VALID_EVERY = 1000

# What settings were before there were such settings: a run of then must not go on, or be evaluated, with other ones.
BEFORE: dict[str, Any] = {
    "pool_after": "block",
    "head_pooling": None,
    "input_norm": "all",
    "optimizer": "adam",
    "warmup": 0.0,
    "label_smoothing": 0.0,
    "keep": "best",
    "distillation": 0.0,
    "calibrate": False,
}


@dataclass(kw_only=True)
class TrainConfig:
    """Settings of a training run.

    Raises:
        InputError: A value of another type or out of its range.
    """

    out: str
    """Run folder that is written."""
    manifest: str | None = None
    """CSV table of clips, a folder of class folders, or a store written by 'audiostride prepare'."""
    label: str = "label"
    """Column of the manifest with the labels; also the name of the task."""
    multi_label: Sequence[str] | None = None
    """Clips have any number of labels, or none: in all tasks, or in those that are named."""
    label_separator: str | None = None
    """With multi-label: what stands between labels in a cell (default: ; | or , where only one of them does)."""
    label_columns: Sequence[str] | None = None
    """Several labels per clip as a column of 0 and 1 for each class, instead of one column of labels."""
    background: str | None = None
    """Folder of recordings without any of the classes: clips of a class of its own, or with multi-label of none."""
    background_share: Annotated[float, Range(0, 1, ends=False, what="a share of the excerpts")] = 0.25
    """With background: its share of the excerpts that training sees."""
    task: Sequence[str] | None = None
    """Several tasks at once, each as NAME=MANIFEST:COLUMN, instead of a manifest and a label."""
    mixing: Mixing = "uniform"
    """Excerpts of several manifests are drawn for tasks: all alike, in proportion to their clips, or in between."""
    mixing_temperature: Positive = 2.0
    """With mixing temperature, shares go as clips^(1 / this); 1 is proportional."""
    task_weights: Sequence[Positive] | None = None
    """Weight of each task in the loss, in the order of the tasks (default: all alike)."""
    audio_root: str | None = None
    """Folder that the manifest's paths are relative to (default: the manifest's own)."""
    random_split: WholeNumber | None = None
    """Seed of a train/valid/test split (80/10/10, by group) for a manifest that has none."""
    hold_out: Annotated[float, Range(0, 1, ends=False, what="a share of the training clips")] = 0.1
    """Share of the training clips (whole groups, where there are many) that validates if there is no valid split."""
    group: str = "group"
    """Column of the manifest with what must not leak across splits, such as the speaker."""
    on_error: OnError = "stop"
    """What bad audio does: stop before training, or be skipped and listed in skipped.csv."""
    sample_rate: Count = 16000
    """Of what the network hears, in Hz; audio of other rates is resampled."""
    window_s: Positive = 1.0
    """Length of the excerpts and windows, in seconds."""
    win_ms: Positive = 25.0
    """Analysis window of a frame, in milliseconds."""
    hop_ms: Positive = 10.0
    """From one frame to the next, in milliseconds."""
    n_mels: Count = 64
    """Mel bands."""
    fmin_hz: NotNegative = 60.0
    """Lower edge of the first mel band."""
    fmax_hz: Positive | None = None
    """Upper edge of the last mel band (default: 7,800 Hz at 16,000 Hz, in proportion at other rates)."""
    frontend: Frontend = "log-mel"
    """Log-mel spectrograms, or these with per-channel energy normalisation (PCEN), fixed or learned for each band."""
    encoder: str = "separable"
    """The network: separable (the paper's), resnet18, preact_resnet18, bcresnet, timm:NAME or torchvision:NAME."""
    weights: str | None = None
    """Weights to start from: a state dict of the encoder in a .safetensors, .pt or .pth file; heads start at random."""
    width: Positive = 1.0
    """Factor on the channels of the network; 0.25 suits a CPU; of bcresnet its tau."""
    head_pooling: HeadPooling | None = None
    """What heads see of a channel's map: its maximum, its mean, or both (default: the encoder's own)."""
    input_norm: InputNorm = "all"
    """One mean and variance for all mel bands in the batch norm of spectrograms, or one for each band."""
    channels: Sequence[Count] | None = None
    """Channels of each block, of a ResNet of each stage, at width 1 (default: the encoder's own)."""
    init: str | None = None
    """Run folder or model file whose encoder it starts from; settings of the network are then those from there."""
    freeze_encoder: bool = False
    """With init: the encoder stays as it is, with its norms and strides, and the heads alone learn."""
    pooling: Pooling = "diffstride"
    """How maps shrink: strided convolution, spectral pooling, or learned strides."""
    size: ModelSize = "mixed"
    """DiffStride's masks and map sizes: the paper's, or as small as strided convolution's: nominal, folded, mixed."""
    strides: Sequence[Sequence[Stride]] | None = None
    """Stride over time and mel of each block that pools, see ClassifierConfig (default: the encoder's own)."""
    shared_strides: bool = False
    """One learned stride for both axes of a block."""
    ramp_bins: RampBins | None = None
    """Width of the mask's ramp in FFT bins (the paper's R); none is 8 for folded maps and else the paper's 4."""
    pool_after: PoolingPlace = "convolution"
    """Pool both axes after a block, or each axis right after its convolution; without effect on a ResNet."""
    stride_lr: NotNegative | None = None
    """Learning rate of the strides (default: 0.01; with a budget 20 / the steps in which they learn, 0.01 to 0.1)."""
    stride_steps: Annotated[float, Range(0, 1, what="a share of the steps")] | None = None
    """Share of the steps, from the first on, in which strides learn; then they stay (default: 1; with a budget 0.5)."""
    budget: str | None = None
    """What the network may cost: multiply-adds as a share of strided convolution's (0.5x), or per second (5M)."""
    stride_cost: NotNegative = 0.0
    """Weight of the paper's cost term (eq. 6), which drives strides up."""
    max_steps: Count | None = None
    """Optimizer steps (default: see epochs)."""
    epochs: Positive | None = None
    """Passes over the training clips, instead of max_steps (default: 20, but 2,000 steps for each task at least)."""
    batch_size: Annotated[int, Range(2, unit="(batch norm)")] = 32
    """Excerpts per step."""
    optimizer: OptimizerKind = "adamw"
    """AdamW, whose weight decay is decoupled from the gradient, or Adam."""
    lr: Positive = 2e-3
    """Highest learning rate of the weights."""
    weight_decay: NotNegative = 0.0
    """Weight decay; never on strides."""
    schedule: Schedule = "cosine"
    """Course of both learning rates."""
    warmup: Probability = 0.0
    """Share of the steps in which both learning rates rise to their height."""
    label_smoothing: Probability = 0.0
    """Share of the target that is spread over all classes."""
    keep: Keep = "last"
    """Weights that the run ends with: the last ones, or those of the highest validation accuracy, or average precision
    of several labels."""
    distillation: Probability = 0.5
    """Weight of a teacher's scores (columns score:CLASS of the manifest) beside labels; 0 leaves such columns alone."""
    calibrate: bool = False
    """Make the probabilities of validation clips hold at the end, and store thresholds of the classes in the model."""
    balance: Balance = "none"
    """What training shows equally often: clips, classes, or groups."""
    class_weights: ClassWeights = "none"
    """Weights of the classes in the loss; balanced is inverse to how often they occur."""
    time_shift_s: NotNegative = 0.0
    """Augmentation: how far an excerpt may reach beyond its clip, in seconds (zeros there)."""
    gain_db: float = 0.0
    """Augmentation: largest change of level, in dB; 0 changes none."""
    lowest_gain_db: float | None = None
    """Augmentation: lowest change of level, in dB (default: -gain_db); negative for recordings that are quieter."""
    noise: str | None = None
    """Augmentation: a folder of recordings to add as noise, or 'synthetic' for noise from white to brown."""
    noise_prob: Probability = 0.5
    """Probability that noise is added to an excerpt, where there is noise."""
    noise_snr_db: Sequence[float] = (5.0, 30.0)
    """Lowest and highest signal-to-noise ratio of added noise, in dB."""
    mixup: float = 0.0
    """Augmentation: alpha of the shares that mixup mixes pairs of excerpts by (0.2 is usual)."""
    time_masks: int = 0
    """Augmentation: stretches of time blanked out per spectrogram."""
    time_mask_s: float = 0.1
    """Longest stretch of time blanked out, in seconds."""
    mel_masks: int = 0
    """Augmentation: stretches of mel bands blanked out per spectrogram."""
    mel_mask_bands: int = 8
    """Most mel bands blanked out in one stretch."""
    seed: WholeNumber = 0
    """Seed of weights, order and excerpts."""
    valid_every: Count | None = None
    """Steps between validations, each of which saves a checkpoint (default: a tenth of all, 1,000 at most)."""
    clip_score: ClipScore = "mean"
    """What a recording has of the logits of its windows, for each class: mean, max, or the mean of the top-3."""
    eval_hop_s: Positive | None = None
    """From one window of a validation or test clip to the next, in seconds (default: the window)."""
    device: Device = "auto"
    """Where to train; auto takes a GPU where there is one."""
    devices: Count = 1
    """Processes on each machine that train together, one per GPU; each computes its share of a batch."""
    num_nodes: Count = 1
    """Machines that train together."""
    strategy: Strategy = "auto"
    """How processes train together; auto is ddp where there are several."""
    accumulate: Count = 1
    """Parts that a batch is computed in, one after another, to save memory; batch norm then sees a part at a time."""
    compile: bool = False
    """Compile the network with torch.compile; each size that a map comes to have while strides learn is compiled."""
    logger: Sequence[Logger] = ()
    """What records losses, accuracies and strides beside history.csv, in the folder logs of the run."""
    precision: Precision = "auto"
    """Arithmetic; auto is bf16-mixed on a GPU that has it, else 32."""
    workers: WholeNumber = 0
    """Processes that read audio; 0 suits sets that fit into memory."""
    memory_mib: NotNegative = 4096.0
    """Decoded audio kept in memory, in MiB."""

    def __post_init__(self) -> None:
        who = "train"
        check_settings(who, self)
        self.strides, self.channels = fill_encoder(who, self.encoder, self.strides, self.channels)
        self.fmax_hz = HIGHEST * self.sample_rate if self.fmax_hz is None else self.fmax_hz
        self._check_frontend(self.fmax_hz)
        if (self.manifest is None) == (self.task is None):
            raise InputError(
                f"{who}: either --manifest with --label or --task NAME=MANIFEST:COLUMN must be given, got "
                + ("neither" if self.task is None else "both")
            )
        # A run folder must be understood from any working directory.
        self.manifest = None if self.manifest is None else os.path.abspath(self.manifest)
        self.task = None if self.task is None else [absolute_task(entry) for entry in self.task]
        if self.task_weights is not None and len(self.task_weights) != len(self.tasks()):
            raise InputError(
                f"{who}: task_weights must have one weight per task ({len(self.tasks())}), got {len(self.task_weights)}"
            )
        if self.weights is not None and self.init is not None:
            raise InputError(f"{who}: either weights or init must be given, got {self.weights} and {self.init}")
        self.weights = None if self.weights is None else os.path.abspath(self.weights)
        self.audio_root = None if self.audio_root is None else os.path.abspath(self.audio_root)
        if self.noise is not None and self.noise != SYNTHETIC:
            self.noise = os.path.abspath(self.noise)
        self.init = None if self.init is None else os.path.abspath(self.init)
        self.background = None if self.background is None else os.path.abspath(self.background)
        if self.freeze_encoder and self.init is None:
            raise InputError(
                f"{who}: freeze_encoder must be given with init (--init RUN), got none; it keeps the encoder from there"
            )
        if self.freeze_encoder and self.stride_cost:
            raise InputError(
                f"{who}: stride_cost must be 0 with freeze_encoder, whose strides stay, got {self.stride_cost:g}"
            )
        self.augmentation()
        self._check_strides(who)
        self._check_multi_label(who)
        names = self.tasks()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"{who}: tasks must have different names, got twice: {', '.join(twice)}; rename one")
        parts = self.n_processes * self.accumulate
        if self.batch_size % parts or self.batch_size < 2 * parts:
            raise InputError(
                f"{who}: batch_size must be a multiple of devices x num_nodes x accumulate ({parts}), and at least "
                f"twice that, got {self.batch_size}; give {max(2, -(-self.batch_size // parts)) * parts}"
            )

    def _check_frontend(self, fmax_hz: float) -> None:
        """Raise, naming a value that does, unless the settings of the frontend fit each other."""
        rate = self.sample_rate
        for fits, told, got, advice in (
            (
                fmax_hz <= rate / 2,
                f"fmax_hz must be at most half of sample_rate ({rate} Hz)",
                f"{fmax_hz:g}",
                f"give {HIGHEST * rate:g}, or leave it out",
            ),
            (
                self.fmin_hz < fmax_hz,
                f"fmin_hz must be below fmax_hz ({fmax_hz:g} Hz)",
                f"{self.fmin_hz:g}",
                f"give {fmax_hz / 100:g}, or a higher fmax_hz or sample_rate",
            ),
            (
                1000 / rate <= self.hop_ms <= self.win_ms,
                f"hop_ms must lie in [{1000 / rate:g}, {self.win_ms:g}], from one sample to win_ms",
                f"{self.hop_ms:g}",
                f"give {max(0.4 * self.win_ms, 1000 / rate):g}",
            ),
            (
                self.win_ms <= 1000 * self.window_s,
                f"window_s must hold an analysis window of win_ms ({self.win_ms:g} ms)",
                f"{self.window_s:g}",
                f"give {self.win_ms / 25:g} or more, or a shorter win_ms",
            ),
        ):
            if not fits:
                raise InputError(f"train: {told}, got {got}; {advice}")

    def _check_strides(self, who: str) -> None:
        """Raise unless the settings of what strides cost, and of how long they learn, fit each other."""
        if self.stride_steps == 0:
            raise InputError(f"{who}: stride_steps must lie in (0, 1], a share of the steps, got 0; give --stride-lr 0")
        if self.budget is None:
            return
        check_budget(who, self.budget)
        for fits, other, advice in (
            (self.pooling == "diffstride", f"pooling {self.pooling}", "which learns none; give --pooling diffstride"),
            (not self.stride_cost, f"stride_cost {self.stride_cost:g}", "since it holds the cost; give one of both"),
            (not self.freeze_encoder, "freeze_encoder", "whose strides stay; train without it"),
            (self.keep == "last" or self.stride_share < 1, "keep best", "before strides have come to rest; give "
             "--keep last, or --stride-steps 0.5"),
        ):  # fmt: skip
            if not fits:
                raise InputError(f"{who}: budget must not be given with {other}, {advice}")

    def _check_multi_label(self, who: str) -> None:
        """Raise unless settings of several labels per clip fit together; all tasks are then named that have such."""
        names = self.tasks()
        if self.label_columns is not None:
            if self.task is not None or self.label_separator is not None:
                other = "task" if self.task is not None else "label_separator"
                raise InputError(
                    f"{who}: label_columns must be given without {other}, got both; they are the labels of --manifest, "
                    "and a task of --task has one column of labels with a separator"
                )
            if len(self.label_columns) < 2 or len({*self.label_columns}) < len(self.label_columns):
                raise InputError(
                    f"{who}: label_columns must be two or more different columns of 0 and 1, one for each class, got "
                    f"{', '.join(self.label_columns) or 'none'}"
                )
            self.multi_label = self.multi_label or []
        if self.label_separator is not None and (self.multi_label is None or not self.label_separator):
            raise InputError(
                f"{who}: label_separator must be text given with multi_label, got {self.label_separator!r}; add "
                "--multi-label, or leave it out"
            )
        if self.multi_label is None:
            return
        if unknown := [name for name in self.multi_label if name not in names]:
            raise InputError(
                f"{who}: multi_label must name tasks ({', '.join(names)}), got {', '.join(unknown)}; without a name it "
                "means all"
            )
        self.multi_label = [name for name in names if name in self.multi_label or not self.multi_label]
        for source in self.sources():
            several = {column for task, column in source.labels.items() if task in self.multi_label}
            if both := {column for task, column in source.labels.items() if task not in self.multi_label} & several:
                raise InputError(
                    f"{who}: a column must hold one label per clip or several, got both for {', '.join(sorted(both))} "
                    f"of {source.manifest}; name all of its tasks with --multi-label, or none"
                )
            first = next(iter(source.labels))
            if self.balance == "class" and first in self.multi_label:
                raise InputError(
                    f"{who}: balance must not be class where clips have several labels, as they have in {first}, since "
                    "a clip is then of no single class; give --class-weights balanced, which weighs in the loss"
                )

    def label_sets(self, source: Source) -> dict[str, LabelSets]:
        """How the labels of clips stand in the columns of a source where clips may have several."""
        form = LabelSets(self.label_separator, tuple(self.label_columns or ()))
        return {column: form for task, column in source.labels.items() if task in (self.multi_label or ())}

    @property
    def n_processes(self) -> int:
        """Processes on all machines."""
        return self.devices * self.num_nodes

    def with_steps(self, n_clips: int) -> "TrainConfig":
        """These settings with the steps that they mean for `n_clips` training clips."""
        steps = self.max_steps
        if steps is None:
            steps = math.ceil((self.epochs or EPOCHS) * n_clips / self.batch_size)
            steps = steps if self.epochs else max(MIN_STEPS * len(self.tasks()), steps)
        every = max(1, min(steps // 10, MAX_VALID_EVERY)) if self.valid_every is None else self.valid_every
        filled = replace(self, max_steps=steps, valid_every=every)
        if filled.stride_lr is not None:
            return filled
        needed = 0.0 if self.budget is None else STRIDE_REACH / filled.search_steps
        return replace(filled, stride_lr=min(HIGHEST_STRIDE_RATE, max(STRIDE_RATE, needed)))

    def filled_from(self, old: "TrainConfig") -> "TrainConfig":
        """These settings, with the steps and what follows from them as `old` has it where they are not given."""
        names = ("max_steps", "valid_every", "stride_lr")
        return replace(self, **{name: getattr(old, name) for name in names if getattr(self, name) is None})

    @property
    def steps(self) -> int:
        """Optimizer steps, of settings that are those of a run."""
        if self.max_steps is None:
            raise InputError("train: max_steps are known once the clips are; see TrainConfig.with_steps")
        return self.max_steps

    @property
    def stride_share(self) -> float:
        """Share of the steps in which strides learn.

        With a budget half of them: the whole sizes that keep to it are chosen when strides come to rest, and a network
        that is not trained with them afterwards may have lost all it knew (89 % of ten words became 39).
        """
        if self.stride_steps is not None:
            return self.stride_steps
        return 1.0 if self.budget is None else 0.5

    @property
    def search_steps(self) -> int:
        """Steps in which strides learn."""
        return max(1, round(self.stride_share * self.steps))

    @property
    def stride_rate(self) -> float:
        """Learning rate of the strides, of settings that are those of a run."""
        if self.stride_lr is None:
            raise InputError("train: the rate of the strides is known once the steps are; see TrainConfig.with_steps")
        return self.stride_lr

    @property
    def kept_from(self) -> int:
        """The first step whose weights may be kept: with a budget, strides must have come to rest within it."""
        return 0 if self.budget is None else self.search_steps

    def _repr_html_(self) -> str:
        return settings_html(self)

    def sources(self) -> list[Source]:
        """The manifests to train on, each with its tasks; the one-task form is one manifest with one task."""
        if self.task is None:
            return [Source(str(self.manifest), {self.label: self.label})]
        labels: dict[str, dict[str, str]] = {}
        for entry in self.task:
            name, manifest, column = split_task(entry)
            labels.setdefault(manifest, {})[name] = column
        return [Source(manifest, columns) for manifest, columns in labels.items()]

    def tasks(self) -> list[str]:
        """Names of the tasks, in the order given."""
        return [self.label] if self.task is None else [split_task(entry)[0] for entry in self.task]

    @classmethod
    def model_setting_names(cls) -> list[str]:
        """The settings that a `ClassifierConfig` has too, without those of tasks, and two that it has in samples."""
        own = {entry.name for entry in fields(cls)} - {"multi_label"}
        return ["win_ms", "hop_ms", *(entry.name for entry in fields(ClassifierConfig) if entry.name in own)]

    def model_settings(self) -> dict[str, Any]:
        """The settings of `model_setting_names` that a `ClassifierConfig` has, and their values."""
        return {name: getattr(self, name) for name in self.model_setting_names() if name not in ("win_ms", "hop_ms")}

    def given_model_settings(self) -> dict[str, Any]:
        """Those of the settings of the model that are not the defaults, as values that YAML knows."""
        values = self.to_dict()
        defaults = {entry.name: entry.default for entry in fields(self)}
        bare = replace(self, strides=None, channels=None, fmax_hz=None).to_dict()
        defaults |= {name: bare[name] for name in ("strides", "channels", "fmax_hz")}
        return {name: values[name] for name in self.model_setting_names() if values[name] != defaults[name]}

    def augmentation(self) -> AugmentationConfig:
        """What is drawn for each batch beside its excerpts."""
        return AugmentationConfig(
            gain_db=self.gain_db,
            lowest_gain_db=self.lowest_gain_db,
            noise_prob=self.noise_prob if self.noise is not None else 0.0,
            noise_snr_db=self.noise_snr_db,
            mixup=self.mixup,
            time_masks=self.time_masks,
            time_mask_s=self.time_mask_s,
            mel_masks=self.mel_masks,
            mel_mask_bands=self.mel_mask_bands,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that YAML knows."""
        values = asdict(self)
        values["strides"] = None if self.strides is None else [list(pair) for pair in self.strides]
        values["channels"] = None if self.channels is None else list(self.channels)
        values["task"] = None if self.task is None else list(self.task)
        values["multi_label"] = None if self.multi_label is None else list(self.multi_label)
        values["label_columns"] = None if self.label_columns is None else list(self.label_columns)
        values["task_weights"] = None if self.task_weights is None else list(self.task_weights)
        values["noise_snr_db"] = list(self.noise_snr_db)
        values["logger"] = list(self.logger)
        return values

    @classmethod
    def load(cls, run: str | Path) -> "TrainConfig":
        """The settings of a run folder.

        Raises:
            InputError: Not a run folder, or a ``config.yaml`` that this version does not know.
        """
        values = read_settings(run, [entry.name for entry in fields(cls)], writer="'audiostride train'")
        return cls(**{**BEFORE, **values})


def is_of_a_run(values: Mapping[str, Any]) -> bool:
    """Whether a YAML file is the ``config.yaml`` of a run, which has all settings that there were then."""
    return {"out", "seed", "max_steps", "precision", "memory_mib"} <= set(values)
