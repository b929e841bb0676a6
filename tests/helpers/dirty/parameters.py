"""params.yaml: `make` changes the project's own, in bytes."""

from collections.abc import Callable
from pathlib import Path

from tests.helpers.dirty import AS_IT_IS, REFUSED, Case

GOOD = (Path(__file__).parents[3] / "params.yaml").read_bytes()
SEEDS = b"seeds: [1]"
LINE = GOOD[: GOOD.index(SEEDS)].count(b"\n") + 1
Edit = Callable[[bytes], bytes]


def put(old: bytes, new: bytes) -> Edit:
    assert old in GOOD, old
    return lambda content: content.replace(old, new, 1)


def seeds(value: bytes, before: bytes = b"") -> Edit:
    return put(SEEDS, before + b"seeds: " + value)


UNREAD: list[tuple[str, Edit, str]] = [
    ("an empty file", lambda _: b"", ":1: no parameters, but None; mend it, or take the file back from git"),
    ("a list", lambda _: b"- 1\n", ":1: no parameters, but [1]; mend it"),
    ("10,000 zero bytes", lambda _: bytes(10_000), ":1: not readable as YAML: character U+0000 is not allowed"),
    ("UTF-16", lambda content: content.decode().encode("utf-16"), ":1: not readable as YAML: byte 0xff is no UTF-8"),
    ("Windows-1252", put(SEEDS, b"s\xe9eds: [1]"), f":{LINE}: not readable as YAML: byte 0xe9 is no UTF-8; mend it"),
    ("a tab before a key", put(b"  rank: 16", b"\trank: 16"), "not readable as YAML: found character '\\t' that"),
    ("a bracket left open", lambda content: content + b"more: [1", "not readable as YAML: expected ',' or ']'"),
    ("a merge that was not finished", lambda content: b"<<<<<<< HEAD\n" + content, "not readable as YAML: expected"),
    ("a key twice", lambda content: content + b"profile: paper\n", "found duplicate key \"profile\" with value"),
    ("two documents", lambda content: content + b"---\na: 1\n", "not readable as YAML: but found another document"),
    ("a tag that runs a program", seeds(b"!!python/object/apply:os.system [reboot]"),
     f":{LINE}: not readable as YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python"),
    ("a tag that makes an object", seeds(b"!!python/object:pathlib.Path {}"),
     f":{LINE}: not readable as YAML: could not determine a constructor"),
    ("an alias for nothing", seeds(b"*nothing"), f":{LINE}: not readable as YAML: found undefined alias 'nothing'"),
    ("a number of 5000 digits", seeds(b"[" + b"9" * 5000 + b"]"),
     ": not readable as YAML: Exceeds the limit (4300 digits)"),
    ("a date that does not exist", seeds(b"[2001-99-99]"), ": not readable as YAML: month must"),
    ("a map for a key", seeds(b"[1]", b"? {a: 1}\n: 3\n"), "not readable as YAML: found unhashable key"),
]  # fmt: skip
WRONG: list[tuple[str, Edit, str]] = [
    ("an unknown key", put(b"  rank: 16", b"  rnak: 4\n  rank: 16"),
     "lora.rnak: unknown key; remove it or mend its spelling"),
    ("a missing key", put(b"  dropout: 0.0 ", b"  #"), "lora.dropout: missing; add it"),
    ("words for a number", put(b"  rank: 16", b"  rank: many"), "lora.rank: 'many': Input should be a valid integer"),
    ("a number out of bounds", put(b"  rank: 16", b"  rank: 0"), "lora.rank: 0: Input should be greater than or equal"),
    ("no number", put(b"  alpha: 16", b"  alpha: .nan"), "lora.alpha: nan: Input should be a finite number"),
    ("yes for true", put(b"  rslora: false", b"  rslora: yes"), "lora.rslora: 'yes': Input should be a valid boolean"),
    ("a date for a seed", seeds(b"[2001-01-01]"), "seeds.0: datetime.date(2001, 1, 1): Input should be a valid"),
    ("a seed of 1000 digits", seeds(b"[" + b"9" * 1000 + b"]"), "seeds.0: 999999"),
    ("3000 seeds, all the same", seeds(b"[" + b"1, " * 3000 + b"]"), "seeds: [1, 1, 1, 1, 1, 1, "),
    ("a number for a key", seeds(b"[1]", b"1: 2\n"), "1: 1: Keys should be strings"),
    ("a key with a command for the terminal", seeds(b"[1]", b'"a\\e[2Jb": 1\n'), "a\\x1b[2Jb: unknown key; remove it"),
    ("a prompt with a command for the terminal", put(b"caption en", b'"caption \\e[2J en"'),
     "finetune.prompt: 'caption \\x1b[2J en': String should match pattern"),
    ("a prompt that reads backwards", put(b"caption en", "caption \u202e en".encode()),
     "finetune.prompt: 'caption \\u202e en': String should match pattern"),
    ("an origin with a command for the terminal", put(b"origin: miniature", b'origin: "\\e[2J"'),
     "profiles.miniature.checkpoints: {'origin': '\\x1b[2J'"),
    ("half a character", put(b"caption en", b'"\\ud800 en"'), "finetune.prompt: '\\ud800 en': Input should be a valid"),
    ("a prompt with a mark of the model", put(b"caption en", b"<image> en"), "finetune.prompt: '<image> en': String"),
    ("a path with NUL", put(b"path: data/raw", b'path: "data\\0raw"'), "profiles.miniature.data.path: 'data\\x00raw'"),
    ("a variant called as a path",
     put(b"  mix: {", b"  ../mix: {checkpoint: mix}\n  mix: {"), "variants.../mix.[key]:"),
    ("3000 unknown keys", lambda content: content + b"".join(b"k%d: 1\n" % place for place in range(3000)),
     "k0: unknown key; remove it or mend its spelling"),
]  # fmt: skip
FINE: list[tuple[str, Edit]] = [
    ("a byte-order mark", lambda content: b"\xef\xbb\xbf" + content),
    ("lines that end as in Windows", lambda content: content.replace(b"\n", b"\r\n")),
    ("an anchor and its alias", put(b"{train: 0.6, validation: 0.2, test: 0.2}",
                                    b"{train: 0.6, validation: &fifth 0.2, test: *fifth}")),
    ("a number without a dot, as 2e-5", put(b"learning_rate: 2.0e-5", b"learning_rate: 2e-5")),
    ("a prompt in another language", put(b"caption en", "l\u00e9gende fr \u6e2f\u53e3".encode())),
]  # fmt: skip
CASES = [
    *(Case(what, REFUSED, told, edit) for what, edit, told in UNREAD),
    *(Case(what, REFUSED, f"fault(s)\n  {told}", edit) for what, edit, told in WRONG),
    *(Case(what, AS_IT_IS, "", edit) for what, edit in FINE),
]
