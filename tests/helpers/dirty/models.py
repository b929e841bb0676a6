"""Adapters and checkpoints: `make` changes a copy of a good folder.

torch is imported where a case is made, so that the corpus is read in a second.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.helpers.dirty import AS_IT_IS, REFUSED, Case

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FIRST = "base_model.model.model.language_model.layers.0.mlp.down_proj.lora_A.weight"
CUT = "; fetch it again, or run `dvc repro`"
Edit = Callable[[Path], None]


class Trap:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def write(name: str, content: bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-100])


def pickled(name: str, instead_of: str, folder: Path) -> None:
    import torch

    (folder / instead_of).unlink()
    torch.save({"weight": Trap()}, folder / name)


def remove(name: str, folder: Path) -> None:
    (folder / name).unlink()


def settings(name: str, folder: Path, **changed: object) -> None:
    config = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(config | changed), encoding="utf-8")


def tensors(name: str, edit: Callable[[dict[str, Any]], object], folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    held = load_file(folder / name)
    edit(held)
    save_file(held, folder / name, {"format": "pt"})


def adapter(**changed: object) -> Edit:
    return partial(settings, CONFIG, **changed)


def weights(edit: Callable[[dict[str, Any]], object]) -> Edit:
    return partial(tensors, WEIGHTS, edit)


def other_checkpoint(held: dict[str, Any]) -> None:
    """The same layers, half as wide."""
    for name, value in held.items():
        held[name] = value[:, : value.shape[1] // 2].clone() if "lora_A" in name else value[: len(value) // 2].clone()


def halved(held: dict[str, Any]) -> None:
    first = min(held)
    held[first] = held[first][: len(held[first]) // 2].clone()


def code_beside(folder: Path) -> None:
    settings("config.json", folder, auto_map={"AutoModelForCausalLM": "modelling.Model"})
    (folder / "modelling.py").write_text("import pathlib\npathlib.Path('unpickled').touch()\n", encoding="utf-8")


ADAPTERS = [
    Case("a pickle for weights", REFUSED, "no adapter_model.safetensors here",
         partial(pickled, "adapter_model.bin", WEIGHTS)),
    Case("a pickle called .safetensors", REFUSED, f"{WEIGHTS}: no safetensors file, or cut short{CUT}",
         partial(pickled, WEIGHTS, WEIGHTS)),
    Case("weights cut short", REFUSED, "no safetensors file, or cut short", partial(cut, WEIGHTS)),
    Case("weights with bytes behind them", REFUSED, "no safetensors file, or cut short",
         lambda folder: (folder / WEIGHTS).open("ab").write(b"more") and None),
    Case("an empty file of weights", REFUSED, f"{WEIGHTS}: no safetensors file, or cut short", write(WEIGHTS, b"")),
    Case("a head of four exabytes", REFUSED, f"{WEIGHTS}: no safetensors file", write(WEIGHTS, b"\xff" * 60)),
    Case("weights that Git LFS was to fetch", REFUSED, f"{WEIGHTS}: no safetensors file",
         write(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")),
    Case("no configuration", REFUSED, f"no {CONFIG} here", partial(remove, CONFIG)),
    Case("a configuration that is no JSON", REFUSED, f"{CONFIG}: not JSON", write(CONFIG, b"{")),
    Case("100,000 brackets", REFUSED, f"{CONFIG}: not JSON", write(CONFIG, b"[" * 100_000)),
    Case("a list for a configuration", REFUSED, f"{CONFIG}: [] is not a map", write(CONFIG, b"[]")),
    Case("another method than LoRA", REFUSED, f"{CONFIG}: peft_type: 'IA3'; 'LORA' is used", adapter(peft_type="IA3")),
    Case("words for a rank", REFUSED, f"{CONFIG}: r: '4' has the wrong type", adapter(r="4")),
    Case("another rank than the weights'", REFUSED, "has shape (4, 256), not (8, 256), and 79 more like it",
         adapter(r=8)),
    Case("a setting that changes the checkpoint", REFUSED, f"{CONFIG}: init_lora_weights: 'pissa'; True is used",
         adapter(init_lora_weights="pissa")),
    Case("a setting that is not used here", REFUSED, f"{CONFIG}: use_dora: True; this setting is not used",
         adapter(use_dora=True)),
    Case("a setting nobody knows", REFUSED, f"{CONFIG}: trust_me: True; this setting is not used",
         adapter(trust_me=True)),
    Case("layers by an expression that takes for ever", REFUSED, "target_modules: '(a+)+$' is not used here",
         adapter(target_modules="(a+)+$")),
    Case("layers that the checkpoint does not have", REFUSED, "Target modules {'nothing'} not found in the base model",
         adapter(target_modules=["nothing"])),
    Case("an adapter of another checkpoint, by its name", REFUSED,
         "base_model_name_or_path: 'models/checkpoints/other'; the checkpoint here is checkpoint",
         adapter(base_model_name_or_path="models/checkpoints/other")),
    Case("an adapter of another checkpoint, by its shapes", REFUSED,
         "it is of another checkpoint or recipe; `dvc repro` makes it again", weights(other_checkpoint)),
    Case("a tensor too few, which peft would draw", REFUSED,
         f"no '{FIRST}"[:70], weights(lambda held: held.pop(FIRST))),
    Case("a tensor too many", REFUSED, "is no layer of the checkpoint",
         weights(lambda held: held.update({FIRST.replace(".0.", ".99."): held[FIRST].clone()}))),
    Case("a tensor of another shape", REFUSED, "has shape (3, 256), not (4, 256)",
         weights(lambda held: held.update({FIRST: held[FIRST][:3].clone()}))),
    Case("whole numbers for weights", REFUSED, "holds I32",
         weights(lambda held: held.update({FIRST: held[FIRST].int()}))),
    Case("weights that are no numbers", REFUSED, "1 tensors hold NaN or infinity",
         weights(lambda held: held[FIRST].fill_(float("nan")))),
    Case("an infinite weight", REFUSED, "1 tensors hold NaN or infinity",
         weights(lambda held: held[FIRST][0, 0].fill_(float("inf")))),
    Case("a pickle beside good weights: not opened", AS_IT_IS, "",
         lambda folder: (folder / "adapter_model.bin").write_bytes(b"pickle") and None),
]  # fmt: skip
MODEL = "model.safetensors"
CHECKPOINTS = [
    Case("no folder", REFUSED, "no checkpoint here; `dvc repro checkpoint` makes it", partial(remove, "config.json")),
    Case("a configuration that is no JSON", REFUSED, "config.json: no JSON, or cut short", write("config.json", b"{")),
    Case("a list for a configuration", REFUSED, "config.json: [] is no map", write("config.json", b"[]")),
    Case("another model than PaliGemma", REFUSED, "config.json: model_type is 'llama'; a checkpoint of paligemma",
         partial(settings, "config.json", model_type="llama")),
    Case("a pickle for weights", REFUSED, "no *.safetensors, and pickled weights are not read",
         partial(pickled, "pytorch_model.bin", MODEL)),
    Case("weights cut short", REFUSED, "no safetensors file, or cut short", partial(cut, MODEL)),
    Case("an index of files that are not there", REFUSED, "its index names more.safetensors, not there",
         write(f"{MODEL}.index.json", b'{"weight_map": {"a": "more.safetensors"}}')),
    Case("an index that is none", REFUSED, "no index of weights", write(f"{MODEL}.index.json", b'{"weight_map": [1]}')),
    Case("a tensor too few, which the library would draw", REFUSED, "tensors are not in its weights",
         partial(tensors, MODEL, lambda held: held.pop(sorted(held)[0]))),
    Case("a tensor of another shape", REFUSED, "its weights have other shapes than config.json says",
         partial(tensors, MODEL, halved)),
    Case("no tokenizer", REFUSED, "no tokenizer.json or tokenizer.model", partial(remove, "tokenizer.json")),
    Case("a tokenizer cut short", REFUSED, "tokenizer.json: no JSON, or cut short", partial(cut, "tokenizer.json")),
    Case("code beside the weights: not run", AS_IT_IS, "", code_beside),
]  # fmt: skip
