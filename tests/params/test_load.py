"""params.yaml: all faults are reported at once, each by key and value; numbers follow YAML 1.2."""

import re
from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from captioning.base.errors import UserError
from captioning.params.load import load_params

ROOT = Path(__file__).parents[2]
COMMITTED = (ROOT / "params.yaml").read_text(encoding="utf-8")


def edit(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """Write a copy of the project's params.yaml with changed values, keys as `section/key`."""
    yaml = YAML()
    tree = yaml.load(COMMITTED)
    for path, text in changes:
        *parents, key = path.split("/")
        section = tree
        for parent in parents:
            section = section[parent]
        section[key] = yaml.load(text)
    file = tmp_path / "params.yaml"
    yaml.dump(tree, file)
    return file


def load_faults(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_params(path)
    return str(raised.value)


def test_committed_file_loads() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.active is params.profiles[params.profile]
    assert set(params.scst.starts) <= set(params.rows) <= set(params.variants)


def test_values_are_those_of_the_file(tmp_path: Path) -> None:
    """No dependency records a validator that changes one."""
    ratios = ("split/ratios", "{train: 0.5, validation: 0.3, test: 0.2}")
    path = edit(tmp_path, ratios, ("profiles/miniature/data/bands", "[4, 3, 1]"))
    dumped = load_params(path).model_dump(by_alias=True, exclude_unset=True)
    assert dumped == YAML(typ="safe").load(path)


WRONG_VALUES = [  # key, value, how the message quotes the value
    ("lora/rank", "0", "0: Input should be greater than or equal to 1"),
    ("lora/rank", "4.5", "4.5"),
    ("lora/rank", "'4'", "'4'"),
    ("lora/alpha", "true", "True"),
    ("lora/alpha", ".inf", "inf"),
    ("lora/targets", "everything", "'everything'"),
    ("lora/dropout", "1.0", "1.0"),
    ("finetune/prompt", "<image>caption en", "'<image>caption en'"),
    ("finetune/prompt", '"caption en\\n"', "'caption en\\n'"),
    ("finetune/prompt", "''", "''"),
    ("finetune/scheduler", "exponential", "'exponential'"),
    ("finetune/epochs", "null", "None"),
    ("finetune/lora_plus", "0.5", "0.5"),
    ("variants/mix/checkpoint", "mixx", "'mixx'"),
    ("rows", "mix", "'mix'"),
    ("seeds", "[4294967296]", "4294967296"),
    ("launch/processes", "0", "0"),
    ("scst/starts", "[]", "[]"),
    ("scst/top_p", "1.1", "1.1"),
    ("scst/top_k", "-1", "-1"),
    ("profile", "[miniature]", "['miniature']"),
    ("profiles/miniature/finetune", "x", "'x'"),
    ("profiles/miniature/data/images", "39", "39"),
    ("profiles/miniature/checkpoints/base/epochs", "0", "0"),
    ("profiles/miniature/machine/optimizer", "sgd", "'sgd'"),
    ("profiles/paper/machine/dequantise", "1", "1"),
    ("profiles/paper/machine/device", "tpu", "'tpu'"),
    ("profiles/paper/data/source", "moon", "'moon'"),
    ("profiles/paper/data/repository", "riscm", "'riscm'"),
    ("profiles/paper/data/declared/sha256", "12ab", "'12ab'"),
    ("profiles/paper/data/declared", "44521", "44521"),
    ("profiles/paper/checkpoints/rsvqa-lr/revision", "''", "''"),
]


@pytest.mark.parametrize(("key", "value", "quoted"), WRONG_VALUES)
def test_wrong_value_is_named(tmp_path: Path, key: str, value: str, quoted: str) -> None:
    index = r"(\.0)?" if value.startswith("[") else ""
    pattern = rf"params\.yaml: 1 fault\(s\)\n  {re.escape(key.replace('/', '.'))}{index}: {re.escape(quoted)}"
    assert re.search(pattern, load_faults(edit(tmp_path, (key, value))))


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("lora/rnak", "4", "lora.rnak: unknown key"),
        ("rows", "[mix, rslora, nope]", "rows: 'nope' is no variant; choose from full-adapter, "),
        ("rows", "[mix, rslora, mix]", "rows: ['mix', 'rslora', 'mix'] repeats one; each must differ"),
        ("rows", "[base-r4, rslora]", "scst.starts: 'mix' is not among rows, so it is not trained; add it there"),
        ("scst/starts", "[mix, mix]", "scst.starts: ['mix', 'mix'] repeats one"),
        ("scst/baselines", "[greedy, greedy]", "scst.baselines: ['greedy', 'greedy'] repeats one"),
        ("seeds", "[1, 2, 1]", "seeds: [1, 2, 1] repeats one"),
        ("variants/zero-shot-base", "{checkpoint: mix}", "variants.zero-shot-base: this name is reserved"),
        (
            "profiles/miniature/finetune/learning_rates",
            "{nope: 0.1}",
            "profiles.miniature.finetune.learning_rates.nope",
        ),
        ("profiles/miniature/machine/training_rows", "3", "profiles.miniature.machine.training_rows: 3: must divide"),
        (
            "profiles/miniature/machine/scst_images",
            "3",
            "profiles.miniature.machine.scst_images: 3: must divide the 16 im",
        ),
        (
            "profiles/miniature/machine/training_rows",
            "0",
            "profiles.miniature.machine.training_rows: 0: write auto or a",
        ),
        ("profiles/paper/machine/decoding_batch", "all", "profiles.paper.machine.decoding_batch: 'all': write auto or"),
        ("profiles/paper/machine/decoding_batch", "true", "profiles.paper.machine.decoding_batch: True: write auto or"),
        ("profiles/paper/checkpoints/origin", "moon", "profiles.paper.checkpoints: {'origin': 'moon'"),
        (
            "split/held_out",
            "[RSICD]",
            "split.held_out: ['RSICD']: needs published splits; set split.method: own, or []",
        ),
        ("split/ratios", "{train: 0.6, validation: 0.2, test: 0.3}", "split.ratios: {'train': 0.6, "),
    ],
)
def test_values_that_do_not_fit_together_are_named(tmp_path: Path, key: str, value: str, line: str) -> None:
    message = load_faults(edit(tmp_path, (key, value)))
    assert f"params.yaml: 1 fault(s)\n  {line}" in message


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    keys = ("lora/rank", "lora/rnak", "variants/mix/checkpoint", "variants/A_b")
    message = load_faults(edit(tmp_path, *((key, "0") for key in keys), ("scst/starts", "[nope]"), ("seeds", "[1, 1]")))
    lines = ["lora.rank: 0", "lora.rnak", "variants.mix.checkpoint: 0", "scst.starts: 'nope'", "seeds: [1, 1]", "A_b"]
    assert all(line in message for line in lines)


def test_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("  dropout:", "  # dropout:", 1))
    assert "lora.dropout: missing; add it" in load_faults(path)


def test_sizes_may_be_left_to_the_machine(tmp_path: Path) -> None:
    keys = ("training_rows", "scst_images", "decoding_batch")
    params = load_params(edit(tmp_path, *((f"profiles/miniature/machine/{key}", "auto") for key in keys)))
    machines = params.profiles["miniature"].machine, params.profiles["paper"].machine
    assert all(getattr(machine, key) == "auto" for machine in machines for key in keys)
    assert load_params().active.machine.chosen("training_rows") == 16


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_each_scheduler_is_accepted(tmp_path: Path, scheduler: str) -> None:
    changes = [(f"{section}/scheduler", scheduler) for section in ("finetune", "scst")]
    params = load_params(edit(tmp_path, *changes))
    assert params.finetune.scheduler == params.scst.scheduler == scheduler


def test_leave_one_out_needs_two_samples(tmp_path: Path) -> None:
    message = load_faults(edit(tmp_path, ("scst/baselines", "[leave-one-out]"), ("scst/samples", "1")))
    assert message.endswith("scst.samples: 1: baseline leave-one-out needs 2 or more")
    assert load_params(edit(tmp_path, ("scst/baselines", "[leave-one-out]"), ("scst/samples", "2"))).scst.samples == 2
    assert load_params(edit(tmp_path, ("scst/baselines", "[greedy]"), ("scst/samples", "1"))).scst.samples == 1


def test_uneven_shares_of_processes_are_named(tmp_path: Path) -> None:
    message = load_faults(edit(tmp_path, ("launch/processes", "3"), ("profiles/miniature/machine/device", "'cuda:1'")))
    assert "\n  finetune.batch x accumulation: 16: launch.processes, 3, must divide it" in message
    assert "\n  profiles.miniature.scst.batch: 16: launch.processes, 3, must divide it" in message
    assert "\n  profiles.miniature.machine.device: 'cuda:1' is one GPU" in message
    assert load_params(edit(tmp_path, ("launch/processes", "4"))).launch.processes == 4


def test_float_without_a_dot_is_a_float(tmp_path: Path) -> None:
    """PyYAML reads 2e-5 as a string."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("learning_rate: 2.0e-5", "learning_rate: 2e-5"))
    assert "2e-5" in path.read_text()
    assert load_params(path).profiles["paper"].finetune.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"profile: !!python/object/apply:os.system [echo]", ":1: not readable as YAML: "),
        (b"profile: [miniature", ":1: not readable as YAML: "),
        (b"profile: miniature\nprofile: paper", ":2: not readable as YAML: "),
        (b"\xff\xfe\x00", ":1: not readable as YAML: "),
        (b"- 1\n", ":1: no parameters"),
        (b"", ":1: no parameters"),
    ],
)
def test_file_that_is_not_a_plain_map_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    faults = load_faults(path)
    assert faults.startswith(f"{path}{message}")
    assert "\n" not in faults


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "params.yaml") in load_faults(tmp_path / "params.yaml")


def test_round_trip_keeps_every_byte_of_params_yaml() -> None:
    """`dvc exp run -S` writes the file back: a map wider than 80 columns would be broken in two."""
    text = StringIO()
    YAML().dump(YAML().load(COMMITTED), text)
    assert text.getvalue() == COMMITTED
