"""Adapters and checkpoints: `make` changes a copy of a good folder.

torch is imported when a case is made, so that the list of cases loads in a second.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.helpers.dirty import AS_IT_IS, REFUSED, Case

CONFIG, WEIGHTS, MODEL = "adapter_config.json", "adapter_model.safetensors", "model.safetensors"
FIRST = "base_model.model.model.language_model.layers.0.mlp.down_proj.lora_A.weight"
Edit = Callable[[Path], None]
Tensors = dict[str, Any]


class Trap:
    """Leave a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def write(name: str, content: bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut_short(name: str) -> Edit:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100]) and None


def replace_by_pickle(name: str, pickle: str) -> Edit:
    def edit(folder: Path) -> None:
        import torch

        (folder / name).unlink()
        torch.save({"weight": Trap()}, folder / pickle)

    return edit


def change_json(name: str, folder: Path, **changes: object) -> None:
    config = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(config | changes), encoding="utf-8")


def adapter_config(**changes: object) -> Edit:
    return partial(change_json, CONFIG, **changes)


def change_tensors(name: str, change: Callable[[Tensors], object]) -> Edit:
    def edit(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, {"format": "pt"})

    return edit


def halve_first(tensors: Tensors) -> None:
    name = min(tensors)
    tensors[name] = tensors[name][: len(tensors[name]) // 2].clone()


def add_code(folder: Path) -> None:
    change_json("config.json", folder, auto_map={"AutoModelForCausalLM": "modelling.Model"})
    (folder / "modelling.py").write_text("import pathlib\npathlib.Path('unpickled').touch()\n", encoding="utf-8")


OTHER_BASE = {"base_model_name_or_path": "models/checkpoints/other"}
ADAPTERS = [
    Case("a pickle for weights", REFUSED, f"no {WEIGHTS}", replace_by_pickle(WEIGHTS, "adapter_model.bin")),
    Case("a pickle called .safetensors", REFUSED, f"{WEIGHTS}: ", replace_by_pickle(WEIGHTS, WEIGHTS)),
    Case("incomplete weights", REFUSED, f"{WEIGHTS}: ", cut_short(WEIGHTS)),
    Case("an incomplete configuration", REFUSED, f"{CONFIG}: not JSON", write(CONFIG, b"{")),
    Case("another method than LoRA", REFUSED, f"{CONFIG}: peft_type: 'IA3'", adapter_config(peft_type="IA3")),
    Case("an endless regular expression", REFUSED, "'(a+)+$'", adapter_config(target_modules="(a+)+$")),
    Case("an adapter of another checkpoint", REFUSED, "models/checkpoints/other", adapter_config(**OTHER_BASE)),
    Case("a missing tensor", REFUSED, FIRST[:60], change_tensors(WEIGHTS, lambda tensors: tensors.pop(FIRST))),
    Case("a NaN", REFUSED, "NaN", change_tensors(WEIGHTS, lambda tensors: tensors[FIRST].fill_(float("nan")))),
    Case("a pickle beside good weights, not opened", AS_IT_IS, "", write("adapter_model.bin", b"pickle")),
]
OTHER_MODEL = partial(change_json, "config.json", model_type="llama")
CHECKPOINTS = [
    Case("no configuration", REFUSED, ": ", lambda folder: (folder / "config.json").unlink()),
    Case("an incomplete configuration", REFUSED, "config.json: not JSON", write("config.json", b"{")),
    Case("another model than PaliGemma", REFUSED, "config.json: model_type is 'llama'", OTHER_MODEL),
    Case("a pickle for weights", REFUSED, "*.safetensors", replace_by_pickle(MODEL, "pytorch_model.bin")),
    Case("incomplete weights", REFUSED, f"{MODEL}: ", cut_short(MODEL)),
    Case("a missing tensor", REFUSED, ": ", change_tensors(MODEL, lambda tensors: tensors.pop(min(tensors)))),
    Case("a tensor of another shape", REFUSED, "config.json", change_tensors(MODEL, halve_first)),
    Case("code beside the weights, not run", AS_IT_IS, "", add_code),
]
