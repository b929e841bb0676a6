"""params.yaml: its types, its bounds, and the active profile folded in.

All faults are reported at once, each with its key, its value and what is allowed. Values live in params.yaml only:
there are no defaults here but those of a variant's delta, which mean "as in `lora`".
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from captioning.runlog import UserError

Positive = Annotated[int, Field(ge=1, strict=True)]
NonNegative = Annotated[int, Field(ge=0, strict=True)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rank = Annotated[int, Field(ge=1, le=256, strict=True)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Targets = Literal["table2", "decoder", "decoder-attention", "all-linear"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
Captions = Literal["first", "random", "all"]
CHECKPOINTS = ("base", "mix", "cococap", "rsvqa-lr")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)  # true is no number


class Ratios(Section):
    train: Annotated[float, Field(gt=0, lt=1)]
    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]

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


class Lora(Section):
    rank: Rank
    alpha: Annotated[float, Field(gt=0)]
    dropout: Share
    rslora: bool
    targets: Targets


class Finetune(Section):
    prompt: Annotated[str, Field(pattern=r"^[^<>\n]+$")]  # the processor adds <image>, <bos> and the newline
    captions: Captions
    batch: Positive
    accumulation: Positive
    epochs: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    scheduler: Scheduler
    warmup: Share
    gradient_clip: Annotated[float, Field(gt=0)]
    compute: Literal["bfloat16", "float32"]


class Variant(Section):
    """Deltas on `lora` and `finetune`; what is left out is as there."""

    checkpoint: Literal["base", "mix", "cococap", "rsvqa-lr"]
    rank: Rank | None = None
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Share | None = None
    rslora: bool | None = None
    targets: Targets | None = None
    captions: Captions | None = None
    learning_rate: Rate | None = None
    warmup: Share | None = None
    epochs: Positive | None = None


class Decoding(Section):
    maximum_tokens: Positive


class Scst(Section):
    start: str
    baselines: Annotated[list[Literal["greedy", "leave-one-out"]], Field(min_length=1)]
    samples: Positive
    top_k: NonNegative
    top_p: Annotated[float, Field(gt=0, le=1)]
    kl: Annotated[float, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    scheduler: Scheduler
    gradient_clip: Annotated[float, Field(gt=0)]
    validation_images: Positive


class Data(Section):
    source: Literal["overhead", "folder"]
    path: str
    images: Annotated[int, Field(ge=40, strict=True)]
    image_size: Annotated[int, Field(ge=28, le=896, strict=True)]
    seed: NonNegative


class MiniatureTraining(Section):
    images: Annotated[int, Field(ge=32, strict=True)]
    epochs: Positive
    learning_rate: Rate


class BaseTraining(MiniatureTraining):
    tower_epochs: Positive
    tower_learning_rate: Rate


class HubRepository(Section):
    repository: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)]


class MiniatureCheckpoints(Section):
    origin: Literal["miniature"]
    base: BaseTraining
    mix: MiniatureTraining
    cococap: MiniatureTraining
    rsvqa_lr: Annotated[MiniatureTraining, Field(alias="rsvqa-lr")]


class HubCheckpoints(Section):
    origin: Literal["hub", "folder"]
    base: HubRepository
    mix: HubRepository
    cococap: HubRepository
    rsvqa_lr: Annotated[HubRepository, Field(alias="rsvqa-lr")]


class ProfileFinetune(Section):
    learning_rate: Rate


class ProfileScst(Section):
    learning_rate: Rate
    temperature: Annotated[float, Field(gt=0)]
    images: NonNegative
    epochs: Positive
    batch: Positive
    validate_every: Positive


class Machine(Section):
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")]
    threads: Annotated[int, Field(ge=1, le=256, strict=True)]
    decoding_batch: Positive
    dequantise: bool


class Profile(Section):
    data: Data
    checkpoints: Annotated[MiniatureCheckpoints | HubCheckpoints, Field(discriminator="origin")]
    finetune: ProfileFinetune
    scst: ProfileScst
    machine: Machine


class Params(Section):
    profile: Literal["miniature", "paper"]
    seeds: Annotated[list[NonNegative], Field(min_length=1)]
    split: Split
    lora: Lora
    finetune: Finetune
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    zero_shot: list[Literal["base", "mix", "cococap", "rsvqa-lr"]]
    decoding: Decoding
    scst: Scst
    profiles: dict[Literal["miniature", "paper"], Profile]

    @property
    def active(self) -> Profile:
        """The block of the profile that is switched on."""
        return self.profiles[self.profile]

    @property
    def data(self) -> Data:
        return self.active.data


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `path`. Raises `UserError` with every fault at once."""
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    faults = _broken_references(raw)
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        faults = _faults(error) + faults
    if faults:
        raise UserError("\n  ".join([f"{path}: {len(faults)} fault(s)", *faults]))
    return params


def _broken_references(raw: Any) -> list[str]:
    """Names that do not hold together; read leniently, so that they are told along with every other fault."""
    named: list[Any] = [raw.get(name) for name in ("variants", "scst", "profiles")] if isinstance(raw, dict) else [None]
    if not all(isinstance(section, dict) for section in named):
        return []
    variants, scst, profiles = named
    start, profile, faults = scst.get("start"), raw.get("profile"), []
    if isinstance(start, str) and start not in variants:
        faults.append(f"scst.start: '{start}' is no variant; choose one of {', '.join(map(str, variants))}")
    if profile in ("miniature", "paper") and profile not in profiles:
        faults.append(f"profile: '{profile}' has no block under profiles")
    for key, one in (("seeds", "seed"), ("zero_shot", "checkpoint"), ("scst.baselines", "baseline")):
        values = scst.get("baselines") if key == "scst.baselines" else raw.get(key)
        if isinstance(values, list) and len({str(value) for value in values}) < len(values):
            faults.append(f"{key}: {values} repeats a {one}; each must differ")
    if "leave-one-out" in (scst.get("baselines") or []) and scst.get("samples") == 1:
        faults.append("scst.samples: 1: baseline leave-one-out needs 2 or more")
    reserved = [name for name in variants if f"{name}-".startswith(("scst-", "zero-shot-"))]
    return faults + [f"variants.{name}: this name is taken by a row of its own; choose another" for name in reserved]


def _faults(error: ValidationError) -> list[str]:
    return [line for fault in error.errors(include_url=False) for line in _fault(fault).split("\n")]


def _fault(fault: Any) -> str:
    location = fault["loc"]  # profiles, a profile, checkpoints, the origin (which is no key), ...
    key = ".".join(str(part) for part in (location[:3] + location[4:] if "checkpoints" in location else location))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or mend its spelling"
    if fault["type"] == "missing":
        return f"{key}: missing; add it"
    if fault["type"] == "value_error" and not key:
        return message
    return f"{key}: {fault['input']!r}: {message}"
