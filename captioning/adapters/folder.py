"""An adapter's folder before it is loaded: what peft would only warn of, or do in silence, is refused here.

1. Weights from safetensors alone; a pickle is not opened, whatever stands beside it.
2. The configuration is one that `qlora.lora_config` could have written. peft knows settings that load other files,
   change the checkpoint's weights or add code paths that were never tested here.
3. Each tensor belongs to an adapted layer and has its shape: an adapter of another checkpoint, rank or target does not.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.quoting import escape, join_faults, shorten
from captioning.paligemma.tensors import Shapes, read_shapes

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
AGAIN = "`dvc repro` makes it anew, `dvc pull` fetches it"
FREE: dict[str, type | tuple[type, ...]] = {  # settings that differ from adapter to adapter
    "r": int, "lora_alpha": (int, float), "lora_dropout": (int, float), "use_rslora": bool,
    "target_modules": (list, str), "inference_mode": bool, "peft_version": str,
    "base_model_name_or_path": (str, type(None)),
    "revision": (str, type(None)),
}  # fmt: skip
FIXED = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "init_lora_weights": True,
    "megatron_core": "megatron.core", "qalora_group_size": 16,
}  # fmt: skip  # the rest is off: null, false or empty
LARGEST_CONFIG = 1 << 20  # bytes
DTYPES = ("F32", "BF16", "F16")
CHECKPOINTS = "models/checkpoints/"

Layers = Mapping[str, tuple[int, int]]  # of the model: features in and out of each linear layer, by name


def check_adapter(folder: Path, layers: Layers, checkpoint: str, patterns: Collection[str]) -> None:
    """Raises `UserError` where the adapter in `folder` is none for a model of these `layers`.

    `checkpoint`: the model's name; `patterns`: the expressions that layers may be named by.
    """
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: no {WEIGHTS} here; {AGAIN}")
    config = read_config(folder / CONFIG)
    faults = [f"{folder / CONFIG}: {fault}; {AGAIN}" for fault in _config_faults(config, checkpoint, patterns)]
    shapes = read_shapes(folder / WEIGHTS)
    if not faults and (wrong := _shape_faults(shapes, config["r"], layers)):
        more = f", and {len(wrong) - 1} more like it" if wrong[1:] else ""
        faults = [f"{folder / WEIGHTS}: {wrong[0]}{more}; it is of another checkpoint or recipe; {AGAIN}"]
    if faults:
        raise UserError(join_faults(faults))


def read_config(path: Path) -> dict[str, Any]:
    """An adapter's configuration as it stands. Raises `UserError` where it is no JSON object."""
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(LARGEST_CONFIG))
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; {AGAIN}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: no JSON; {AGAIN}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: {shorten(config)} is no map of settings; {AGAIN}")
    return config


def _config_faults(config: dict[str, Any], checkpoint: str, patterns: Collection[str]) -> list[str]:
    """What `qlora.lora_config` would not have written."""
    faults = [
        f"{key}: {shorten(config.get(key))} is of the wrong kind" for key, kind in FREE.items()
        if not isinstance(config.get(key), kind) or (isinstance(config.get(key), bool) and kind is not bool)
    ]  # fmt: skip
    faults += [f"{key}: {shorten(config.get(key))}; {shorten(value)} is used" for key, value in FIXED.items()
               if config.get(key) != value]  # fmt: skip
    faults += [f"{escape(key)}: {shorten(value)}; this setting is not used" for key, value in config.items()
               if key not in FREE and key not in FIXED and value]  # fmt: skip
    if not faults and config["r"] < 1:
        faults = [f"r: {shorten(config['r'])} is no rank"]
    targets = config.get("target_modules")
    names = targets if isinstance(targets, list) else []
    if (isinstance(targets, str) and targets not in patterns) or not all(isinstance(name, str) for name in names):
        faults.append(f"target_modules: {shorten(targets)} is not used here")
    named = str(config.get("base_model_name_or_path"))
    if named.startswith(CHECKPOINTS) and named.removeprefix(CHECKPOINTS) != checkpoint:
        faults.append(f"base_model_name_or_path: {shorten(named)}; the checkpoint here is {checkpoint}")
    return faults


def _shape_faults(shapes: Shapes, rank: int, layers: Layers) -> list[str]:
    """Tensors that belong to no layer of the model, or to none of this shape, or are no fractions."""
    faults = []
    for name, (dtype, shape) in shapes.items():
        layer, _, side = name.removeprefix("base_model.model.").partition(".lora_")
        inward, outward = layers.get(layer, (0, 0))
        wanted = {"A.weight": (rank, inward), "B.weight": (outward, rank)}.get(side)
        if layer not in layers or wanted is None:
            faults.append(f"{shorten(name)} is no layer of the checkpoint")
        elif shape != wanted:
            faults.append(f"{shorten(name)} has shape {shape}, not {wanted}")
        elif dtype not in DTYPES:
            faults.append(f"{shorten(name)} holds {dtype}")
    return faults


def missing_tensors(folder: Path, wanted: set[str]) -> None:
    """Raises `UserError` where the weights in `folder` lack some of `wanted`, which peft would leave as drawn."""
    if lacking := sorted(wanted - read_shapes(folder / WEIGHTS).keys()):
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(f"{folder / WEIGHTS}: no {shorten(lacking[0])}{more}; {AGAIN}")
