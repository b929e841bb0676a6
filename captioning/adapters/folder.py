"""Check an adapter's folder before peft loads it, since peft accepts many faults with a warning or in silence.

1. Weights come from safetensors only; a pickle is never opened.
2. The configuration is one that `lora.lora_config` could have written. Other settings of peft load further files,
   change the checkpoint's weights, or run code that is not tested here.
3. Each tensor belongs to an adapted layer and has its shape; one of another checkpoint, rank or target does not.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.json_files import read_map
from captioning.base.quoting import escape, join_faults, shorten
from captioning.paligemma.safetensors_header import Shapes, read_shapes

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
REMEDY = "`dvc repro` makes it again, `dvc pull` fetches it"
FREE_SETTINGS: dict[str, type | tuple[type, ...]] = {  # they differ from adapter to adapter
    "r": int,
    "lora_alpha": (int, float),
    "lora_dropout": (int, float),
    "use_rslora": bool,
    "target_modules": (list, str),
    "inference_mode": bool,
    "peft_version": str,
    "base_model_name_or_path": (str, type(None)),
    "revision": (str, type(None)),
}
FIXED_SETTINGS = {  # all others are off: null, false or empty
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
}
DTYPES = ("F32", "BF16", "F16")
CHECKPOINTS = "models/checkpoints/"

Layers = Mapping[str, tuple[int, int]]  # input and output features of each linear layer of the model, by name


def check_adapter(folder: Path, layers: Layers, checkpoint: str, patterns: Collection[str]) -> None:
    """Raise `UserError` if the adapter in `folder` is not for a model with these `layers`. `checkpoint`: the model's
    name; `patterns`: the regular expressions that `target_modules` may be."""
    if missing := [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]:
        raise UserError(f"{folder}: no {' or '.join(missing)} here; {REMEDY}")
    config, shapes = read_map(folder / CONFIG, remedy=REMEDY), read_shapes(folder / WEIGHTS)
    faults = [f"{folder / CONFIG}: {fault}; {REMEDY}" for fault in _find_config_faults(config, checkpoint, patterns)]
    if not faults and (shape_faults := _find_shape_faults(shapes, config["r"], layers)):
        more = f", and {len(shape_faults) - 1} more like it" if shape_faults[1:] else ""
        faults = [f"{folder / WEIGHTS}: {shape_faults[0]}{more}; it is of another checkpoint or recipe; {REMEDY}"]
    if faults:
        raise UserError(join_faults(faults))


def _find_config_faults(config: dict[str, Any], checkpoint: str, patterns: Collection[str]) -> list[str]:
    faults = [
        fault for key in FREE_SETTINGS | FIXED_SETTINGS | config if (fault := _setting_fault(key, config.get(key)))
    ]
    targets, base = config.get("target_modules"), str(config.get("base_model_name_or_path"))
    if isinstance(targets, str) and targets not in patterns:
        faults.append(f"target_modules: {shorten(targets)} is not used here")
    if base.startswith(CHECKPOINTS) and base.removeprefix(CHECKPOINTS) != checkpoint:
        faults.append(f"base_model_name_or_path: {shorten(base)}; the checkpoint here is {checkpoint}")
    return faults


def _setting_fault(key: str, value: Any) -> str | None:
    if kind := FREE_SETTINGS.get(key):
        has_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        return None if has_kind else f"{key}: {shorten(value)} has the wrong type"
    if key in FIXED_SETTINGS:
        return None if value == FIXED_SETTINGS[key] else f"{key}: {shorten(value)}; {FIXED_SETTINGS[key]!r} is used"
    return f"{escape(key)}: {shorten(value)}; this setting is not used" if value else None


def _find_shape_faults(shapes: Shapes, rank: int, layers: Layers) -> list[str]:
    faults = []
    for name, (dtype, shape) in shapes.items():
        layer, _, side = name.removeprefix("base_model.model.").partition(".lora_")
        inputs, outputs = layers.get(layer, (0, 0))
        expected = {"A.weight": (rank, inputs), "B.weight": (outputs, rank)}.get(side)
        if layer not in layers or expected is None:
            faults.append(f"{shorten(name)} is no layer of the checkpoint")
        elif shape != expected:
            faults.append(f"{shorten(name)} has shape {shape}, not {expected}")
        elif dtype not in DTYPES:
            faults.append(f"{shorten(name)} holds {dtype}")
    return faults
