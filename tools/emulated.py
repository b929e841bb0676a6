"""Check that `machine.instructions: avx2` gives the same bytes on other processors: `python -m tools.emulated`.

The same small work (pre-train a model, fine-tune an adapter, refine it with SCST, caption, and single operations) runs
on this machine and, through qemu's user emulation (Debian's package qemu-user), on processors of Intel and AMD whose
instructions end at AVX2; the SHA-256 of each result is compared. qemu does not emulate AVX-512: only a machine that has
it shows its effect. An emulated processor takes minutes, most of them to import torch.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch.nn import functional

from captioning.adapters.lora import freeze_encoder, lora_config, save_adapter
from captioning.base.instructions import environment_variables
from captioning.checkpoints.miniature import load_checkpoint
from captioning.checkpoints.pretraining import CurriculumTexts, draw_images, pixel_values, train_decoder, train_tower
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.paligemma.model import load_frozen, load_processor
from captioning.scst.features import EncodedImages
from captioning.scst.refine import refine
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training.run import TrainingRun
from tests import conftest
from tests.helpers.sampled_captions import encode_in_memory
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe, variant_recipe

PROCESSORS = ("Haswell", "Cascadelake-Server", "EPYC")  # two of Intel's and one of AMD's
EMULATOR = "qemu-x86_64"
ROOT = Path(__file__).parents[1]
INSTRUCTION_SETS = ("avx2", "native")
STEPS = 2  # of SCST
SCENES = 32  # drawn for pre-training
DIFFERENT = {"sqrt, float32"}  # MKL starts from an estimate that depends on the processor; no training calls it
ELEMENTWISE = ("abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "sin", "cos", "tanh")
REDUCING = ("cumsum", "softmax", "log_softmax", "logsumexp", "var", "mean")  # along the last dimension
UNARY = (*ELEMENTWISE, "sigmoid", "erf", "sum", "norm", *REDUCING)
FUNCTIONAL = ("gelu", "silu", "softplus", "layer_norm", "linear", "conv2d", "cross_entropy")


def work(start: Path, folder: Path) -> dict[str, str]:
    """Return SHA-256 by result: of a training of each kind from the checkpoint `start`, and of operations in float32
    and bfloat16. Other files are written to `folder`."""
    images = [conftest.png(colour) for colour in conftest.COLOURS]
    hashes, checkpoint = pretrain(start, folder / "checkpoint"), folder / "checkpoint"
    processor = load_processor(checkpoint)
    seed_everything(1, 1)
    model = get_peft_model(load_frozen(checkpoint, "float32", "cpu", True), lora_config(4, 8.0, 0.0, False, "table2"))
    train, validation = (CaptionRows(images, conftest.CAPTIONS, conftest.PROMPT, "first", 1) for _ in range(2))
    finetune(model, processor, variant_recipe(), train, validation, TrainingRun(1, "cpu", folder / "scratch"))
    save_adapter(model, folder / "tuned", "")
    hashes["adapter"] = sha256(folder / "tuned/adapter_model.safetensors")
    freeze_encoder(model)
    hashes["step records of SCST"] = refine_adapter(model, processor, images, folder / "scst")
    save_adapter(model, folder / "refined", "")
    hashes["adapter of SCST"] = sha256(folder / "refined/adapter_model.safetensors")
    captions = greedy_captions(model, processor, images, conftest.PROMPT, 16, 4)
    hashes["captions"] = hashlib.sha256(repr(list(captions)).encode()).hexdigest()
    for compute in ("float32", "bfloat16"):
        hashes |= {f"{name}, {compute}": hash_tensor(result) for name, result in operations(compute)}
    return hashes


def pretrain(start: Path, folder: Path) -> dict[str, str]:
    """Pre-train the checkpoint `start` like the miniature for some steps, and save it in `folder`."""
    model, processor = load_checkpoint(start)
    scenes, scene_images = draw_images(SCENES, conftest.SIZE, "emulated")
    pixels = pixel_values(processor, scene_images)
    seed_everything(1, 1)
    run = TrainingRun(1, "cpu", folder / "scratch")
    train_tower(model, pixels, scenes, 1, 1e-4, run)
    train_decoder(model, processor, pixels, CurriculumTexts("base", scenes, ["alpha"], 1), 1e-4, run)
    for part in (model, processor):
        part.save_pretrained(folder)
    return {"checkpoint": sha256(folder / "model.safetensors")}


def refine_adapter(model: Any, processor: Any, images: list[bytes], scratch: Path) -> str:
    """Refine `model` in place, and return the SHA-256 of SCST's step records."""
    features = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, images))
    references = second_captions([list(captions) for captions in conftest.CAPTIONS])
    run = TrainingRun(1, "cpu", scratch)
    result = refine(model, processor, scst_recipe(epochs=STEPS), features, features, make_scorers(references), run)
    return hashlib.sha256(repr(result.records).encode()).hexdigest()


def operations(dtype_name: str) -> Iterator[tuple[str, Any]]:
    """Yield results of the operations that trainings consist of, each alone."""
    torch.manual_seed(3)
    dtype = getattr(torch, dtype_name)
    x, w = torch.randn(64, 64).to(dtype), torch.randn(64, 64).to(dtype)
    arguments: dict[str, tuple[Any, ...]] = {
        "layer_norm": (x, (64,)),
        "linear": (x, w),
        "cross_entropy": (x, torch.arange(64)),
        "conv2d": (x[None, None], w.reshape(4, 1, 32, 32), None, 8),
    }
    for name in UNARY:
        yield name, getattr(x.abs() + 0.1, name)(*((-1,) if name in REDUCING else ()))
    for name in FUNCTIONAL:
        yield name, getattr(functional, name)(*arguments.get(name, (x,)))
    row = x[None, None]
    yield "attention", functional.scaled_dot_product_attention(row, row, row)
    yield from (("product", x @ w), ("by a vector", x @ w[0]), ("dot", x[0] @ w[0]), ("division", x / w))
    yield "random", torch.cat([torch.randn(999), torch.rand(999), functional.dropout(torch.ones(999), 0.1)])


def hash_tensor(tensor: Any) -> str:
    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_work(instructions: str, processor: str | None, start: Path) -> dict[str, str]:
    """Run `work` in a new process, on this machine or an emulated one."""
    limits = environment_variables({"threads": 1, "instructions": instructions})
    paths = {"PYTHONPATH": os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)}
    emulator = [shutil.which(EMULATOR) or EMULATOR, "-cpu", processor] if processor else []
    with tempfile.TemporaryDirectory() as folder:
        command = [*emulator, os.path.realpath(sys.executable), "-m", "tools.emulated", str(start), folder]
        process = subprocess.run(command, env=os.environ | limits | paths, capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    if shutil.which(EMULATOR) is None:
        sys.exit(f"error: {EMULATOR} is missing; install Debian's package qemu-user")
    images = [conftest.png(colour) for colour in conftest.COLOURS]
    with tempfile.TemporaryDirectory() as folder:
        start = conftest.teach("gemma", images, Path(folder))  # it knows captions, so the samples of SCST end
        are_equal = [compare(instructions, start) for instructions in INSTRUCTION_SETS]
    sys.exit(not all(are_equal))


def compare(instructions: str, start: Path) -> bool:
    """Print which results differ on emulated processors; return whether all are equal or may differ."""
    hashes, differences = run_work(instructions, None, start), list[str]()
    for processor in PROCESSORS:
        emulated = run_work(instructions, processor, start)
        names = [name for name, value in emulated.items() if value != hashes[name] and name not in DIFFERENT]
        outcome = f"differ in {', '.join(names)}" if names else f"the same bytes ({len(emulated)} results)"
        print(f"{instructions}: this machine and an emulated {processor}: {outcome}", flush=True)
        differences += names
    return not differences or instructions == "native"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(work(*map(Path, sys.argv[1:]))))
    else:
        main()
