"""params.yaml: `make` changes the bytes of the project's file."""

from collections.abc import Callable
from pathlib import Path

from tests.helpers.dirty import AS_IT_IS, REFUSED, Case

GOOD = (Path(__file__).parents[3] / "params.yaml").read_bytes()
SEEDS = b"seeds: [1]"
LINE = GOOD[: GOOD.index(SEEDS)].count(b"\n") + 1
Edit = Callable[[bytes], bytes]


def replace(old: bytes, new: bytes) -> Edit:
    assert old in GOOD, old
    return lambda content: content.replace(old, new, 1)


def append(more: bytes) -> Edit:
    return lambda content: content + more


def with_seeds(value: bytes, line_before: bytes = b"") -> Edit:
    return replace(SEEDS, line_before + b"seeds: " + value)


def with_prompt(prompt: str) -> Edit:
    return replace(b"caption en", prompt.encode())


REBOOT, OBJECT = b"!!python/object/apply:os.system [reboot]", b"!!python/object:pathlib.Path {}"
NO_CONSTRUCTOR, BAD = f":{LINE}: not readable as YAML: could not determine a constructor", "not readable as YAML: "
NOT_YAML: list[tuple[str, Edit, str]] = [
    ("an empty file", lambda _: b"", ":1: no parameters, but None"),
    ("a list", lambda _: b"- 1\n", ":1: no parameters, but [1]"),
    ("10,000 zero bytes", lambda _: bytes(10_000), f":1: {BAD}character U+0000"),
    ("UTF-16", lambda content: content.decode().encode("utf-16"), f":1: {BAD}byte 0xff"),
    ("Windows-1252", replace(SEEDS, b"s\xe9eds: [1]"), f":{LINE}: {BAD}byte 0xe9"),
    ("a tab before a key", replace(b"  rank: 16", b"\trank: 16"), f"{BAD}found character '\\t' that"),
    ("an open bracket", append(b"more: [1"), f"{BAD}expected ',' or ']'"),
    ("an unfinished merge", lambda content: b"<<<<<<< HEAD\n" + content, f"{BAD}expected"),
    ("a key twice", append(b"profile: paper\n"), 'found duplicate key "profile" with value'),
    ("two documents", append(b"---\na: 1\n"), f"{BAD}but found another document"),
    ("a tag that runs a program", with_seeds(REBOOT), NO_CONSTRUCTOR),
    ("a tag that makes an object", with_seeds(OBJECT), NO_CONSTRUCTOR),
    ("an alias for nothing", with_seeds(b"*nothing"), f":{LINE}: {BAD}found undefined alias 'nothing'"),
    ("a number of 5000 digits", with_seeds(b"[" + b"9" * 5000 + b"]"), f": {BAD}Exceeds the limit (4300 digits)"),
    ("a date that does not exist", with_seeds(b"[2001-99-99]"), f": {BAD}month must"),
    ("a map for a key", with_seeds(b"[1]", b"? {a: 1}\n: 3\n"), f"{BAD}found unhashable key"),
]
MANY_KEYS = b"".join(b"k%d: 1\n" % number for number in range(3000))
BAD_VALUES: list[tuple[str, Edit, str]] = [
    ("an unknown key", replace(b"  rank: 16", b"  rnak: 4\n  rank: 16"), "lora.rnak: unknown key"),
    ("a missing key", replace(b"  dropout: 0.0 ", b"  #"), "lora.dropout: missing"),
    ("words for a number", replace(b"  rank: 16", b"  rank: many"), "lora.rank: 'many': Input should be"),
    ("a number out of bounds", replace(b"  rank: 16", b"  rank: 0"), "lora.rank: 0: Input should be"),
    ("NaN", replace(b"  alpha: 16", b"  alpha: .nan"), "lora.alpha: nan: Input should be a finite number"),
    ("yes for true", replace(b"  rslora: false", b"  rslora: yes"), "lora.rslora: 'yes': Input should be"),
    ("a date for a seed", with_seeds(b"[2001-01-01]"), "seeds.0: datetime.date(2001, 1, 1): Input should be"),
    ("a seed of 1000 digits", with_seeds(b"[" + b"9" * 1000 + b"]"), "seeds.0: 999999"),
    ("3000 equal seeds", with_seeds(b"[" + b"1, " * 3000 + b"]"), "seeds: [1, 1, 1, 1, 1, 1, "),
    ("a number for a key", with_seeds(b"[1]", b"1: 2\n"), "1: 1: Keys should be strings"),
    ("a key with a command for the terminal", with_seeds(b"[1]", b'"a\\e[2Jb": 1\n'), "a\\x1b[2Jb: unknown key"),
    ("a prompt with a command for the terminal", with_prompt(r'"a \e[2J en"'), "finetune.prompt: 'a \\x1b[2J en': "),
    ("a prompt that reads backwards", with_prompt("a \u202e en"), "finetune.prompt: 'a \\u202e en': "),
    ("an origin with a command for the terminal", replace(b"origin: miniature", rb'origin: "\e[2J"'), "'\\x1b[2J'"),
    ("half a character", with_prompt(r'"\ud800 en"'), "finetune.prompt: '\\ud800 en': Input should be a valid"),
    ("a prompt with a mark of the model", with_prompt("<image> en"), "finetune.prompt: '<image> en': "),
    (
        "two bands",
        replace(b"bands:        ", b"bands: [4, 3] "),
        "miniature.data.bands: [4, 3]: name one band for grey",
    ),
    ("a path with NUL", replace(b"path: data/raw", rb'path: "data\0raw"'), "miniature.data.path: 'data\\x00raw'"),
    ("a path for a variant's name", replace(b"  mix: {", b"  ../mix: {checkpoint: mix}\n  mix: {"), "variants.../mix"),
    ("3000 unknown keys", append(MANY_KEYS), "k0: unknown key"),
]
RATIOS = b"validation: 0.2, test: 0.2}", b"validation: &fifth 0.2, test: *fifth}"
FINE: list[tuple[str, Edit]] = [
    ("a byte-order mark", lambda content: b"\xef\xbb\xbf" + content),
    ("line ends of Windows", lambda content: content.replace(b"\n", b"\r\n")),
    ("an anchor and its alias", replace(*RATIOS)),
    ("a number without a dot, as 2e-5", replace(b"learning_rate: 2.0e-5", b"learning_rate: 2e-5")),
    ("a prompt in another language", with_prompt("l\u00e9gende fr \u6e2f\u53e3")),
]
CASES = [
    *(Case(name, REFUSED, message, edit) for name, edit, message in NOT_YAML),
    *(Case(name, REFUSED, message, edit) for name, edit, message in BAD_VALUES),
    *(Case(name, AS_IT_IS, "", edit) for name, edit in FINE),
]
