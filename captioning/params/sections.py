"""The sections of params.yaml: their types and bounds.

Values are in params.yaml only. The only defaults are those of a variant's changes, which mean "as in `lora`", and of
columns that a data set may lack.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1, strict=True)]
NonNegative = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]  # NumPy's limit
Rate = Annotated[float, Field(gt=0, le=1)]
Factor = Annotated[float, Field(ge=1)]
PositiveNumber = Annotated[float, Field(gt=0)]
NonNegativeNumber = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rank = Annotated[int, Field(ge=1, le=256, strict=True)]
Line = Annotated[str, Field(pattern=r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$")]  # text without control characters
# The processor adds <image>, <bos> and a newline.
Prompt = Annotated[str, Field(pattern=r"^[^<>\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Targets = Literal["table2", "decoder", "decoder-attention", "all-linear"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
Captions = Literal["first", "random", "all"]
ProfileName = Literal["miniature", "photographs", "paper"]
Checkpoint = Literal["base", "mix", "cococap", "rsvqa-lr", "paligemma2"]
AUTO: Literal["auto"] = "auto"
DEVICE = r"cpu|cuda(:\d+)?|mps"
CHECKPOINTS: tuple[str, ...] = get_args(Checkpoint)


def _auto_or_positive(value: Any) -> Any:
    if value != AUTO and (type(value) is not int or value < 1):
        raise ValueError(f"write {AUTO} or a number from 1")
    return value


# Rows or images at a time; "auto": as many as fit into memory (limits/sizes.py).
Size = Annotated[int | Literal["auto"], BeforeValidator(_auto_or_positive)]
SizeKey = Literal["training_rows", "scst_images", "decoding_batch"]  # keys of `machine`


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)  # true is not a number


class Ratios(Section):
    train: Ratio
    validation: Ratio
    test: Ratio

    @model_validator(mode="after")
    def _sum_to_one(self) -> "Ratios":
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train, validation and test must sum to 1")
        return self


class Split(Section):
    method: Literal["ratio", "own"]
    ratios: Ratios
    seed: NonNegative
    hash_distance: Annotated[int, Field(ge=0, le=16, strict=True)]
    held_out: list[Line]  # sources


class Lora(Section):
    rank: Rank
    alpha: PositiveNumber
    dropout: Share
    rslora: bool
    targets: Targets


class Finetune(Section):
    prompt: Prompt
    batch: Positive
    accumulation: Positive
    epochs: Positive
    weight_decay: NonNegativeNumber
    scheduler: Scheduler
    warmup: Share
    gradient_clip: PositiveNumber
    lora_plus: Factor


class Variant(Section):
    """Changes of `lora` and `finetune` for one row."""

    checkpoint: Checkpoint
    rank: Rank | None = None
    alpha: PositiveNumber | None = None
    dropout: Share | None = None
    rslora: bool | None = None
    targets: Targets | None = None
    captions: Captions | None = None
    learning_rate: Rate | None = None
    lora_plus: Factor | None = None
    warmup: Share | None = None
    epochs: Positive | None = None


class Decoding(Section):
    maximum_tokens: Positive


class Launch(Section):
    processes: Annotated[int, Field(ge=1, le=64, strict=True)]


class SharedScst(Section):
    """The settings of `scst` that all its rows share."""

    samples: Positive
    top_k: NonNegative
    top_p: Annotated[float, Field(gt=0, le=1)]
    kl: NonNegativeNumber
    weight_decay: NonNegativeNumber
    scheduler: Scheduler
    gradient_clip: PositiveNumber
    validation_images: Positive


class Scst(SharedScst):
    starts: Annotated[list[str], Field(min_length=1)]
    baselines: Annotated[list[Literal["greedy", "leave-one-out"]], Field(min_length=1)]


class Declared(Section):
    """The images and captions that a source must hold, over all its rows."""

    images: Positive
    captions: Positive
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]  # of the archive; "": any


class Columns(Section):
    """The columns of Parquet shards. Each that is named must exist, and no other is read."""

    image: Line
    captions: Line | Annotated[list[Line], Field(min_length=1)]  # columns of texts or of lists of texts
    split: Line | None = None
    source: Line | None = None


def _grey_or_colour(bands: list[int]) -> list[int]:
    if len(bands) not in (1, 3):
        raise ValueError("name one band for grey, or three for red, green and blue")
    return bands


class Data(Section):
    source: Literal["overhead", "folder", "archive", "hub"]
    path: Line
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Line
    columns: Columns | None
    declared: Declared | None
    set_aside: Literal["refuse", "allow"]
    images: Annotated[int, Field(ge=40, strict=True)]
    image_size: Annotated[int, Field(ge=28, le=896, strict=True)]
    seed: NonNegative
    bands: Annotated[list[Positive], AfterValidator(_grey_or_colour)] | None  # of TIFFs; None: by their colours


class MiniatureTraining(Section):
    images: Annotated[int, Field(ge=32, strict=True)]
    epochs: Positive
    learning_rate: Rate
    tag_examples: NonNegative  # rows of tags, over all epochs


class BaseTraining(MiniatureTraining):
    processes: Literal[1, 2, 4]  # they share the four micro-batches of a step
    patch: Annotated[int, Field(ge=2, le=64, strict=True)]  # pixels
    pieces: Annotated[int, Field(ge=512, le=65536, strict=True)]  # of the tokenizer
    tower_epochs: Positive
    tower_tag_examples: Positive
    tower_learning_rate: Rate


class HubRepository(Section):
    repository: Line
    revision: Line


class MiniatureCheckpoints(Section):
    origin: Literal["miniature"]
    base: BaseTraining
    mix: MiniatureTraining
    cococap: MiniatureTraining
    rsvqa_lr: Annotated[MiniatureTraining, Field(alias="rsvqa-lr")]
    paligemma2: BaseTraining


class HubCheckpoints(Section):
    origin: Literal["hub", "folder"]
    base: HubRepository
    mix: HubRepository
    cococap: HubRepository
    rsvqa_lr: Annotated[HubRepository, Field(alias="rsvqa-lr")]
    paligemma2: HubRepository


class ProfileFinetune(Section):
    captions: Captions
    minimum_steps: NonNegative
    learning_rate: Rate
    learning_rates: dict[Name, Rate]


class ProfileScst(Section):
    learning_rate: Rate
    temperature: PositiveNumber
    images: NonNegative
    epochs: Positive
    batch: Positive
    validate_every: Positive


class Machine(Section):
    device: Annotated[str, Field(pattern=f"^({DEVICE})$")]
    threads: Annotated[int, Field(ge=1, le=256, strict=True)]
    instructions: Literal["native", "avx2"]
    compute: Literal["bfloat16", "float16", "float32"]
    training_rows: Size
    scst_images: Size
    decoding_batch: Size
    dequantise: bool
    optimizer: Literal["adamw", "paged-adamw-8bit"]

    def chosen(self, key: SizeKey) -> int:
        """Return a size as a number. Raises `ValueError` if it is still `auto`."""
        size: Size = getattr(self, key)
        if size == AUTO:
            raise ValueError(f"{key} is still {AUTO}; limits/sizes.py chooses it before a model is loaded")
        return size


class Profile(Section):
    data: Data
    checkpoints: Annotated[MiniatureCheckpoints | HubCheckpoints, Field(discriminator="origin")]
    finetune: ProfileFinetune
    scst: ProfileScst
    machine: Machine


class Tracking(Section):
    report_to: Literal["none", "tensorboard", "wandb"]
    mode: Literal["offline", "online"]


class Resume(Section):
    state_interval: Annotated[float, Field(ge=0, alias="every")]  # seconds


class Viewer(Section):
    images: NonNegative


class Params(Section):
    profile: ProfileName
    seeds: Annotated[list[Seed], Field(min_length=1)]
    rows: Annotated[list[str], Field(min_length=1)]
    launch: Launch
    tracking: Tracking
    resume: Resume
    split: Split
    lora: Lora
    finetune: Finetune
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    zero_shot: list[Checkpoint]
    decoding: Decoding
    scst: Scst
    viewer: Viewer
    profiles: dict[ProfileName, Profile]

    @property
    def active(self) -> Profile:
        """The profile that `profile` names."""
        return self.profiles[self.profile]

    @property
    def data(self) -> Data:
        return self.active.data
