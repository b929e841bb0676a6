"""params.yaml is refused with every fault at once, each by its key and value; numbers are YAML 1.2's."""

from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from captioning.base.errors import UserError
from captioning.params.load import load_params

ROOT = Path(__file__).parents[2]
COMMITTED = (ROOT / "params.yaml").read_text(encoding="utf-8")


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the project's params.yaml with values set, keys as `section/key`."""
    yaml = YAML()
    tree = yaml.load(COMMITTED)
    text = yaml.load("\n".join(f"'{key}': {value}" for key, value in changes))
    for dotted, value in text.items():
        *parents, last = dotted.split("/")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    path = tmp_path / "params.yaml"
    with path.open("w") as file:
        yaml.dump(tree, file)
    return path


def fault(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_params(path)
    return str(raised.value)


def test_the_committed_file_loads() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.active is params.profiles[params.profile]
    assert set(params.scst.starts) <= set(params.rows) <= set(params.variants)
    assert params.data is params.active.data


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("lora/rnak", "4", "lora.rnak: unknown key"),
        ("lora/rank", "0", "lora.rank: 0: Input should be greater than or equal to 1"),
        ("lora/rank", "4.5", "lora.rank: 4.5"),
        ("lora/rank", "'4'", "lora.rank: '4'"),
        ("lora/alpha", "sixteen", "lora.alpha: 'sixteen'"),
        ("lora/alpha", "true", "lora.alpha: True"),
        ("lora/alpha", ".inf", "lora.alpha: inf"),
        ("lora/alpha", ".nan", "lora.alpha: nan"),
        ("lora/rslora", "maybe", "lora.rslora: 'maybe'"),
        ("lora/targets", "everything", "lora.targets: 'everything'"),
        ("lora/dropout", "1.0", "lora.dropout: 1.0"),
        ("finetune/captions", "second", "finetune.captions: 'second'"),
        ("finetune/prompt", "<image>caption en", "finetune.prompt: '<image>caption en'"),
        ("finetune/prompt", "caption <bos>en", "finetune.prompt: 'caption <bos>en'"),
        ("finetune/prompt", '"caption en\\n"', "finetune.prompt: 'caption en\\n'"),
        ("finetune/prompt", '"caption\\nen"', "finetune.prompt: 'caption\\nen'"),
        ("finetune/prompt", "''", "finetune.prompt: ''"),
        ("finetune/scheduler", "exponential", "finetune.scheduler: 'exponential'"),
        ("finetune/epochs", "null", "finetune.epochs: None"),
        ("variants/mix/checkpoint", "mixx", "variants.mix.checkpoint: 'mixx'"),
        ("variants/base-r4/targets", "all", "variants.base-r4.targets: 'all'"),
        ("rows", "[mix, rslora, nope]", "rows: 'nope' is no variant; choose from full-adapter, "),
        ("rows", "[mix, rslora, mix]", "rows: ['mix', 'rslora', 'mix'] repeats one; each must differ"),
        ("rows", "[base-r4, rslora]", "scst.starts: 'mix' is not among rows, so it is not trained; add it there"),
        ("scst/starts", "[]", "scst.starts: []"),
        ("scst/starts", "[mix, mix]", "scst.starts: ['mix', 'mix'] repeats one"),
        ("launch/processes", "0", "launch.processes: 0"),
        (
            "profiles/miniature/machine/training_rows",
            "3",
            "profiles.miniature.machine.training_rows: 3: must divide the 16 rows of a step and process",
        ),
        ("profiles/miniature/scst/batch", "0", "profiles.miniature.scst.batch: 0"),
        ("finetune/lora_plus", "0.5", "finetune.lora_plus: 0.5"),
        (
            "profiles/miniature/finetune/learning_rates",
            "{nope: 0.1}",
            "profiles.miniature.finetune.learning_rates.nope: no such variant",
        ),
        ("profiles/miniature/machine/optimizer", "sgd", "profiles.miniature.machine.optimizer: 'sgd'"),
        ("scst/baselines", "[]", "scst.baselines: []"),
        ("scst/baselines", "[greedy, greedy]", "scst.baselines: ['greedy', 'greedy'] repeats one"),
        ("scst/top_p", "0", "scst.top_p: 0"),
        ("scst/top_p", "1.1", "scst.top_p: 1.1"),
        ("scst/top_k", "-1", "scst.top_k: -1"),
        ("scst/kl", "-0.1", "scst.kl: -0.1"),
        ("profiles/paper/machine/dequantise", "1", "profiles.paper.machine.dequantise: 1"),
        ("scst/scheduler", "polynomial", "scst.scheduler: 'polynomial'"),
        ("scst/scheduler", "null", "scst.scheduler: None"),
        ("profiles/paper/scst/temperature", "0", "profiles.paper.scst.temperature: 0"),
        ("seeds", "[1, 2, 1]", "seeds: [1, 2, 1] repeats one"),
        ("seeds", "[]", "seeds: []"),
        ("seeds", "[-1]", "seeds.0: -1"),
        ("seeds", "[4294967296]", "seeds.0: 4294967296"),
        ("profile", "[miniature]", "profile: ['miniature']"),
        ("profiles/miniature/finetune", "x", "profiles.miniature.finetune: 'x'"),
        ("rows", "mix", "rows: 'mix'"),
        ("profile", "huge", "profile: 'huge'"),
        ("zero_shot", "[base, best]", "zero_shot.1: 'best'"),
        ("profiles/miniature/data/images", "39", "profiles.miniature.data.images: 39"),
        ("profiles/paper/data/source", "moon", "profiles.paper.data.source: 'moon'"),
        ("profiles/paper/data/path", "''", "profiles.paper.data.path: ''"),
        ("profiles/paper/data/repository", "riscm", "profiles.paper.data.repository: 'riscm'"),
        ("profiles/paper/data/revision", "''", "profiles.paper.data.revision: ''"),
        ("profiles/paper/data/declared/images", "0", "profiles.paper.data.declared.images: 0"),
        ("profiles/paper/data/declared/sha256", "12ab", "profiles.paper.data.declared.sha256: '12ab'"),
        ("profiles/paper/data/declared", "44521", "profiles.paper.data.declared: 44521"),
        ("profiles/miniature/checkpoints/base/epochs", "0", "profiles.miniature.checkpoints.base.epochs: 0"),
        ("profiles/paper/checkpoints/origin", "moon", "profiles.paper.checkpoints: {'origin': 'moon'"),
        ("profiles/paper/checkpoints/rsvqa-lr/revision", "''", "profiles.paper.checkpoints.rsvqa-lr.revision: ''"),
        ("profiles/paper/machine/device", "tpu", "profiles.paper.machine.device: 'tpu'"),
    ],
)
def test_a_fault_is_named_by_key_and_value(tmp_path: Path, key: str, value: str, named: str) -> None:
    message = fault(edited(tmp_path, (key, value)))
    assert f"\n  {named}" in message
    assert "params.yaml: 1 fault(s)" in message


@pytest.mark.parametrize("section", ["finetune", "scst"])
@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_each_scheduler_is_taken(tmp_path: Path, section: str, scheduler: str) -> None:
    params = load_params(edited(tmp_path, (f"{section}/scheduler", scheduler)))
    assert getattr(params, section).scheduler == scheduler


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("  dropout:", "  # dropout:", 1))
    assert "lora.dropout: missing; add it" in fault(path)


def test_ratios_sum_to_one(tmp_path: Path) -> None:
    message = fault(edited(tmp_path, ("split/ratios", "{train: 0.6, validation: 0.2, test: 0.3}")))
    assert "split.ratios: " in message
    assert "'test': 0.3" in message
    assert "must sum to 1" in message


def test_leave_one_out_wants_two_samples(tmp_path: Path) -> None:
    message = fault(edited(tmp_path, ("scst/baselines", "[leave-one-out]"), ("scst/samples", "1")))
    assert message.endswith("scst.samples: 1: baseline leave-one-out needs 2 or more")
    assert load_params(edited(tmp_path, ("scst/baselines", "[leave-one-out]"), ("scst/samples", "2"))).scst.samples == 2
    assert load_params(edited(tmp_path, ("scst/baselines", "[greedy]"), ("scst/samples", "1"))).scst.samples == 1


def test_names_of_rows_are_taken(tmp_path: Path) -> None:
    mix = "{checkpoint: mix}"
    message = fault(edited(tmp_path, ("variants/scst-greedy", mix), ("variants/A_b", mix)))
    assert "'A_b'" in message
    message = fault(edited(tmp_path, ("variants/zero-shot-base", "{checkpoint: mix}")))
    assert "variants.zero-shot-base: this name is taken" in message


def test_several_faults_are_named_at_once(tmp_path: Path) -> None:
    message = fault(edited(tmp_path, ("lora/rank", "0"), ("lora/rnak", "1"), ("variants/mix/checkpoint", "none")))
    assert message.count("\n") == 3
    assert "3 fault(s)" in message
    assert all(key in message for key in ("lora.rank: 0", "lora.rnak", "variants.mix.checkpoint: 'none'"))


def test_several_broken_references_are_named_at_once(tmp_path: Path) -> None:
    message = fault(edited(tmp_path, ("scst/starts", "[nope]"), ("seeds", "[1, 1]")))
    assert "2 fault(s)" in message
    assert "\n  scst.starts: 'nope'" in message
    assert "\n  seeds: [1, 1]" in message


def test_a_float_without_a_dot_is_a_float(tmp_path: Path) -> None:
    """PyYAML reads 2e-5 as a string."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("learning_rate: 2.0e-5", "learning_rate: 2e-5"))
    assert "2e-5" in path.read_text()
    assert load_params(path).profiles["paper"].finetune.learning_rate == 2e-5


@pytest.mark.parametrize(
    "text",
    [
        "profile: !!python/object/apply:os.system [echo]",
        "profile: !!python/object:pathlib.Path {}",
        "profile: [miniature",
        "profile: miniature\nprofile: paper",
        "\x00",
    ],
)
def test_what_is_not_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    message = fault(path)
    assert message.startswith(f"{path}:{text.count(chr(10)) + 1}: not readable as YAML: ")
    assert "\n" not in message


@pytest.mark.parametrize("data", [b"", b"- 1\n", b"words\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    assert str(path) in fault(path)


def test_bytes_that_are_no_text_and_no_file_at_all(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert str(path) in fault(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "not readable as YAML" in fault(path)


def test_a_round_trip_keeps_every_byte_of_params_yaml() -> None:
    """`dvc exp run -S` writes the file back: a map wider than 80 columns would be broken in two."""
    written = StringIO()
    YAML().dump(YAML().load(COMMITTED), written)
    assert written.getvalue() == COMMITTED


def test_what_processes_cannot_share_is_named(tmp_path: Path) -> None:
    message = fault(edited(tmp_path, ("launch/processes", "3"), ("profiles/miniature/machine/device", "'cuda:1'")))
    assert "\n  finetune.batch x accumulation: 16: launch.processes, 3, must divide it" in message
    assert "\n  profiles.miniature.scst.batch: 16: launch.processes, 3, must divide it" in message
    assert "\n  profiles.miniature.machine.device: 'cuda:1' is one GPU" in message
    assert load_params(edited(tmp_path, ("launch/processes", "4"))).launch.processes == 4
