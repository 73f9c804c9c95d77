"""What a training run is: one checked, frozen record, read from YAML and `--key value`.

The defaults are the papers': Hamilton et al. (2024) for everything, and what they leave open as
their released code has it. A configuration file states only what differs.

Errors
------
SettingsError        a value is out of range, or two contradict each other
"""

from dataclasses import dataclass, field
from typing import Literal

from denseav.models.config import ImageConfig, LoraConfig, ModelConfig
from denseav.train.clusters.cluster_start import ClusterStart
from denseav.train.data.dataset import DataSettings
from denseav.train.data.recordings import SoundSettings
from denseav.train.data.toy import ToySettings
from denseav.train.distributed.fabric import Machine
from denseav.train.errors import SettingsError
from denseav.train.loss.denseav_loss import Weights
from denseav.train.loss.mix_and_separate import Separation, check_heads
from denseav.train.loss.pooling import Pooling
from denseav.train.loss.streaming import Streaming
from denseav.train.trainer.tracking.weights_and_biases import WandbSettings
from denseav.train.world.loader import WorldSettings

DENSEAV_WEIGHTS = Weights()
PAPER_NETWORK = ModelConfig(name="denseav", image=ImageConfig(lora=LoraConfig()))


@dataclass(frozen=True, kw_only=True)
class Backbones:
    """Where the encoders' first weights are from.

    Attributes
    ----------
    image
        A hub id or a folder of DINO's; "" for random weights.
    audio
        A hub id or a folder of HuBERT's; "" for random weights.
    """

    image: str = "facebook/dino-vits8"
    audio: str = "facebook/hubert-large-ls960-ft"


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How small encoders are prepared: first the audio encoder, then from it the image encoder.

    Attributes
    ----------
    steps
        Batches it learns from.
    batch_size
        Clips of a batch.
    samples
        Length of a clip, at 16 kHz.
    learning_rate
        Adam's, after `warmup_steps`, falling to zero in the last third.
    warmup_steps
        Until the rate is full.
    hidden_share
        How much of a clip is hidden, about, in stretches of 0.2 s.
    image_steps
        Batches that the image encoder learns from.
    image_batch_size
        Pictures of such a batch.
    image_learning_rate
        As `learning_rate`, of the image encoder.
    clusters
        Into how many clusters sounds are put.
    clustered
        How many clips of each class are: of sounds alone where clips tell their kind, else of
        sounds and spoken names alike.
    """

    steps: int = 1_200
    batch_size: int = 16
    samples: int = 32_000
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    hidden_share: float = 0.2
    image_steps: int = 4_000
    image_batch_size: int = 32
    image_learning_rate: float = 1e-3
    clusters: int = 40
    clustered: int = 100

    def __post_init__(self) -> None:
        whole = (self.steps, self.batch_size, self.warmup_steps, self.image_steps)
        if min(*whole, self.image_batch_size, self.clusters, self.clustered) < 1:
            raise SettingsError("pretraining: numbers of steps, clips and clusters are at least 1")
        if min(self.learning_rate, self.image_learning_rate) <= 0:
            raise SettingsError("pretraining: learning rates must be above 0")
        if not 0 < self.hidden_share < 1:
            raise SettingsError(
                f"pretraining: hidden_share must be between 0 and 1, not {self.hidden_share}"
            )

    def rates(self) -> list[float]:
        """Return the learning rate of each step of the audio encoder."""
        return self._rates(self.steps, self.learning_rate)

    def image_rates(self) -> list[float]:
        """Return the learning rate of each step of the image encoder."""
        return self._rates(self.image_steps, self.image_learning_rate)

    def _rates(self, steps: int, full: float) -> list[float]:
        return [
            full * min((step + 1) / self.warmup_steps, 3 * (steps - step) / steps, 1.0)
            for step in range(steps)
        ]


@dataclass(frozen=True, kw_only=True)
class GroupRates:
    """Which part of the learning rate each group of weights has.

    Attributes
    ----------
    aligners
        Both aligners and the calibrator.
    audio
        HuBERT, its stem too.
    image
        DINO, or the LoRA beside it.
    """

    aligners: float = 1.0
    audio: float = 1.0
    image: float = 1.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise SettingsError("optimization.rates: no part of the rate can be below 0")

    def share(self, group: str) -> float:
        """Return the part of a group of `stages`."""
        names = {"audio_aligner": "aligners", "stem": "audio"}
        share: float = getattr(self, names.get(group, group))
        return share


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """An exponential moving average of the weights, kept beside them in checkpoints.

    Attributes
    ----------
    decay
        How much of the average each step leaves as it is; less in the first steps.
    evaluate
        Validation measures the average, and `model/` is the average; otherwise both are the weights
        as the last step left them.
    """

    decay: float = 0.9999
    evaluate: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise SettingsError(
                f"optimization.average: decay must be between 0 and 1, not {self.decay}"
            )


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How weights move: Adam, with Muon or without, a linear warm-up, then a constant rate.

    Attributes
    ----------
    aligner_steps
        Steps in which only the aligners learn, at the beginning.
    steps
        All steps.
    learning_rate
        After the warm-up.
    rates
        Which part of the learning rate each group of weights has.
    warmup_steps
        Until the rate is full.
    epsilon
        Adam's, beside the root of the squares' average.
    fused
        Adam's step in one pass over the weights; not with precision 16-mixed, where gradients are
        unscaled before they are clipped.
    muon
        Whether matrices of both encoders, of their pretraining too, move by Muon and all else by
        Adam, at the same rate; for encoders that begin at random weights, which learn as much in
        two thirds of the steps by it (benchmarks/RESULTS.md). Not with FSDP.
    clip_norm
        The largest norm of the whole gradient.
    accumulate
        Batches whose gradients make one step; each has its own negatives.
    cooldown_steps
        So many steps, at the end, in which the rate falls to zero.
    contrast_steps
        So many steps, at first, learn from the contrast alone.
    ramp_steps
        In so many more the other terms come to their weight.
    restart
        Whether the second stage begins with a warm-up and averages of Adam's of its own, as in the
        released training, whose stages are runs of their own.
    learn_stem
        Whether the convolutions before HuBERT's transformer learn too; on a CPU they are most of
        the work of a small network.
    average
        An average of the weights over steps; None for none.
    """

    aligner_steps: int = 3_000
    steps: int = 803_000
    learning_rate: float = 5e-5
    rates: GroupRates = GroupRates()
    warmup_steps: int = 1_000
    epsilon: float = 1e-7
    fused: bool = True
    muon: bool = False
    clip_norm: float = 10.0
    accumulate: int = 1
    cooldown_steps: int = 0
    contrast_steps: int = 0
    ramp_steps: int = 0
    restart: bool = True
    learn_stem: bool = True
    average: Averaging | None = None

    def __post_init__(self) -> None:
        if min(self.steps, self.accumulate) < 1:
            raise SettingsError("optimization: steps and accumulate must be at least 1")
        counts = (self.aligner_steps, self.cooldown_steps, self.contrast_steps, self.ramp_steps)
        if min(counts) < 0:
            raise SettingsError("optimization: no number of steps can be below 0")
        if min(self.learning_rate, self.clip_norm, self.epsilon) <= 0 or self.warmup_steps < 0:
            raise SettingsError(
                "optimization: learning_rate, clip_norm and epsilon must be above 0"
            )


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """How often something else is done than a step, in steps.

    Attributes
    ----------
    log
        A line on the console and in the logs.
    save
        A checkpoint.
    keep
        A checkpoint that stays, `step-00001000.ckpt`, beside the last and the best; 0 for none.
    validate
        Retrieval on the validation clips, and a checkpoint.
    patience
        So many validations in a row without a better mean recall end the run; 0 for never.
    validation_clips
        At most so many clips are compared.
    model
        Of which step `best.ckpt` and `model/` are: of the validation with the best mean recall, or
        of the last, for runs whose recall tells little and whose rate falls to zero.
    """

    log: int = 50
    save: int = 1_000
    keep: int = 0
    validate: int = 10_000
    patience: int = 0
    validation_clips: int = 1_000
    model: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if min(self.log, self.save, self.validate, self.validation_clips) < 1:
            raise SettingsError("rhythm: every number but keep and patience must be at least 1")
        if min(self.keep, self.patience) < 0:
            raise SettingsError("rhythm: keep and patience cannot be below 0")


@dataclass(frozen=True, kw_only=True)
class PromptedSettings:
    """Where the prompted sets are.

    Attributes
    ----------
    speech
        The folder ADE20KSpeechPrompted; "" for none.
    sound
        The folder ADE20KSoundPrompted; "" for none.
    """

    speech: str = ""
    sound: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One training run.

    Attributes
    ----------
    network
        What is trained.
    initial
        A trained network to begin with, as `denseav.models.load` reads it; its encoders take the
        place of the backbones. "" begins with those.
    backbones
        Where its encoders begin.
    pretraining
        Prepare both encoders on the world first; None for not.
    data
        The shards to learn from.
    validation
        The shards to be measured on, its `others` too, by themselves; None for no validation.
    prompted
        ADE20K's prompted sets, which validation measures too; None for none.
    made
        Clips made in memory, in place of shards, to see that learning works.
    world
        Clips of the synthetic world, in place of shards.
    sound
        Recordings without pictures, in place of shards; with a streaming teacher alone.
    pooling
        How a pair gets its similarity: the paper's, or one of its ablations.
    loss
        What each term weighs.
    separation
        Mix-and-separate, with what its paper leaves open; None for DenseAV.
    cluster_start
        Heads that are separated without labels, by a start from clusters; None for the paper's
        objective from the first step.
    streaming
        Audio is encoded as a stream while training; None for whole windows only.
    optimization
        How weights move, and for how many steps.
    machine
        Where it runs.
    rhythm
        How often something else is done than a step.
    wandb
        Weights & Biases beside TensorBoard; None for not.
    seed
        Of weights, order and changes.
    """

    network: ModelConfig = PAPER_NETWORK
    initial: str = ""
    backbones: Backbones = Backbones()
    pretraining: Pretraining | None = None
    data: DataSettings | None = None
    validation: DataSettings | None = None
    prompted: PromptedSettings | None = None
    made: ToySettings | None = None
    world: WorldSettings | None = None
    sound: SoundSettings | None = None
    pooling: Pooling = "dense"
    loss: Weights = DENSEAV_WEIGHTS
    separation: Separation | None = None
    cluster_start: ClusterStart | None = None
    streaming: Streaming | None = None
    optimization: Optimization = Optimization()
    machine: Machine = field(default_factory=Machine)
    rhythm: Intervals = Intervals()
    wandb: WandbSettings | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if [self.data, self.made, self.world, self.sound].count(None) != 3:
            raise SettingsError("name the shards to learn from with --data.shards FOLDER")
        self._check_pooling()
        self._check_streaming()
        self._check_cluster_start()
        if self.optimization.muon and self.machine.strategy == "fsdp":
            raise SettingsError(
                "optimization.muon needs whole matrices: leave it out, or set machine.strategy ddp"
            )
        begun = self.initial or self.backbones.audio or self.backbones.image
        if self.pretraining is not None and (self.world is None or begun):
            raise SettingsError(
                "pretraining goes with the world and random encoders: set world, and "
                'initial, backbones.audio and backbones.image to ""'
            )
        if self.separation is not None:
            check_heads(self.network)
            if self.world is not None and "tune" in self.world.kinds:
                raise SettingsError("mix-and-separate has no tunes: leave tune out of world.kinds")
            if self.data is not None and self.data.mixing is None:
                raise SettingsError("mix-and-separate needs mixtures: set data.mixing")

    @property
    def taught(self) -> bool:
        """Return whether a teacher's features are all that is learned from."""
        return self.streaming is not None and self.streaming.teacher

    def _check_streaming(self) -> None:
        if self.streaming is not None and self.network.audio.pool_width > 1:
            raise SettingsError("streaming needs network.audio.pool_width 1")
        if self.taught and (not self.initial or self.separation is not None):
            raise SettingsError(
                "streaming.teacher learns from one trained network alone: name it with --initial, "
                "and leave separation out"
            )
        if self.sound is not None and not self.taught:
            raise SettingsError(
                "sound without pictures needs a teacher: set --streaming.teacher true"
            )

    def _check_cluster_start(self) -> None:
        if self.cluster_start is None:
            return
        if self.taught or self.separation is not None or self.pooling != "dense":
            raise SettingsError(
                "cluster_start goes with DenseAV's objective: leave separation and "
                "streaming.teacher out, and --pooling dense"
            )
        source = self.data or self.made or self.world
        if self.cluster_start.mixtures and source is not None and source.batch_size < 2:
            raise SettingsError(
                "cluster_start.mixtures are of two clips of a process: set batch_size to 2 or more"
            )
        if self.loss.wrong_head and not self.cluster_start.mixtures:
            raise SettingsError(
                "once the gate is open, loss.wrong_head is of clusters' mixtures alone: set "
                "cluster_start.mixtures to true, or loss.wrong_head to 0"
            )
        told = {"speech", "sound"}.intersection(self.network.heads)
        if told or len(self.network.heads) < 2:
            raise SettingsError(
                "cluster_start has two heads or more, and what each is for is found later: set "
                "--network.heads '[first, second]', and name them with denseav-export --name-heads"
            )

    def _check_pooling(self) -> None:
        aggregation = self.network.aggregation
        if (aggregation.clips, aggregation.heads) != ("misa", "max_elementwise"):
            raise SettingsError(
                "training has the paper's aggregation, misa and max_elementwise; choose its "
                "ablations with --pooling dense_sum, average, cls or simpool"
            )
        if aggregation.nonnegative or not aggregation.mask_silence:
            raise SettingsError("training needs nonnegative: false and mask_silence: true")
        if (self.pooling == "cls") != self.network.cls_similarity:
            raise SettingsError("--pooling cls goes with --network.cls_similarity true, and only")
        if self.separation is not None and self.pooling != "dense":
            raise SettingsError("mix-and-separate chooses heads: leave --pooling dense")
