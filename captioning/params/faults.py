"""Describe faults of params.yaml to its user: values outside their bounds, and names that do not fit together."""

from contextlib import suppress
from typing import Any, get_args

from pydantic import ValidationError

from captioning.base.quoting import escape, shorten
from captioning.params.sections import AUTO, ProfileName
from captioning.runtime.redaction import redact

MAX_TEXT = 500  # characters of a message, and of a list of names


def find_broken_references(raw: Any) -> list[str]:
    """Return names that do not fit together. Tolerates wrong types, so that all faults are reported at once."""
    variants, scst, profiles = sections = [raw.get(name) for name in ("variants", "scst", "profiles")]
    if not all(isinstance(section, dict) for section in sections):
        return []
    faults = _unknown_rows(_list(raw.get("rows")), _list(scst.get("starts")), variants)
    if raw.get("profile") in get_args(ProfileName) and raw["profile"] not in profiles:
        faults.append(f"profile: '{raw['profile']}' has no block under profiles")
    for key in ("seeds", "rows", "zero_shot", "scst.starts", "scst.baselines"):
        values = _list((scst if key.startswith("scst.") else raw).get(key.removeprefix("scst.")))
        if len({str(value) for value in values}) < len(values):
            faults.append(f"{key}: {shorten(values)} repeats one; each must differ")
    if "leave-one-out" in _list(scst.get("baselines")) and scst.get("samples") == 1:
        faults.append("scst.samples: 1: baseline leave-one-out needs 2 or more")
    split = raw.get("split")
    if isinstance(split, dict) and split.get("method") == "ratio" and (sources := _list(split.get("held_out"))):
        faults.append(f"split.held_out: {shorten(sources)}: needs published splits; set split.method: own, or []")
    reserved = [name for name in variants if f"{name}-".startswith(("scst-", "zero-shot-"))]
    faults += [f"{_key('variants', name)}: this name is reserved for other rows; choose another" for name in reserved]
    for name, profile in profiles.items():
        with suppress(KeyError, TypeError, ValueError):  # the types report it
            unknown = [row for row in dict(profile["finetune"]["learning_rates"]) if row not in variants]
            keys = (_key("profiles", name, "finetune.learning_rates", row) for row in unknown)
            faults += [f"{key}: no such variant; correct its name" for key in keys]
    return faults + _uneven_shares(raw)


def _key(*parts: Any) -> str:
    return ".".join(escape(str(part)) for part in parts)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _unknown_rows(rows: list[Any], starts: list[Any], variants: dict[str, Any]) -> list[str]:
    names = escape(", ".join(map(str, variants)))[:MAX_TEXT]
    unknown = [row for row in rows if isinstance(row, str) and row not in variants]
    untrained = [start for start in starts if rows and isinstance(start, str) and start not in rows]
    return [f"rows: {shorten(row)} is no variant; choose from {names}" for row in unknown] + [
        f"scst.starts: {shorten(start)} is not among rows, so it is not trained; add it there, or set scst.starts"
        for start in untrained
    ]


def _uneven_shares(raw: dict[str, Any]) -> list[str]:
    """Return what processes or micro-batches cannot share: the rows and images of a step, or one GPU."""
    try:
        profile, name, faults = raw["profiles"][raw["profile"]], f"profiles.{raw['profile']}", list[str]()
        machine, processes = profile["machine"], raw["launch"]["processes"]
        if processes > 1 and machine["device"] not in ("cpu", "cuda"):
            faults.append(f"{name}.machine.device: '{machine['device']}' is one GPU; set cuda for launch.processes")
        rows, images = raw["finetune"]["batch"] * raw["finetune"]["accumulation"], profile["scst"]["batch"]
        sizes = {"finetune.batch x accumulation": rows, f"{name}.scst.batch": images}
        uneven = {key: size for key, size in sizes.items() if size % processes}
        faults += [f"{key}: {size}: launch.processes, {processes}, must divide it" for key, size in uneven.items()]
        if not uneven:
            shares = {"training_rows": (rows // processes, "rows"), "scst_images": (images // processes, "images")}
            faults += [
                f"{name}.machine.{key}: {machine[key]}: must divide the {share} {unit} of a step and process"
                for key, (share, unit) in shares.items()
                if machine[key] != AUTO and share % min(machine[key], share)
            ]
        return faults
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):  # the types report it
        return []


def find_secrets(raw: Any, key: str = "") -> list[str]:
    """Return the keys that hold a token or password: DVC would copy it into dvc.lock, and recipes into their files."""
    if isinstance(raw, dict):
        return [line for name, value in raw.items() for line in find_secrets(value, f"{key}.{name}".lstrip("."))]
    if isinstance(raw, list):
        return [line for index, value in enumerate(raw) for line in find_secrets(value, f"{key}.{index}")]
    if isinstance(raw, str) and redact(raw) != raw:
        return [f"{key}: a token or a password; make a new one, and set it in the environment (HF_TOKEN)"]
    return []


def describe_faults(error: ValidationError) -> list[str]:
    """Return a line for each fault that pydantic reports: key, value, what is allowed."""
    return [_describe(fault) for fault in error.errors(include_url=False)]


def _describe(fault: Any) -> str:
    location = fault["loc"]  # profiles, a profile, checkpoints, the origin (which is not a key), ...
    key = _key(*(location[:3] + location[4:] if "checkpoints" in location else location))
    message = escape(fault["msg"].removeprefix("Value error, "))[:MAX_TEXT]
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or correct its spelling"
    if fault["type"] == "missing":
        return f"{key}: missing; add it"
    if fault["type"] == "value_error" and not key:
        return message
    return f"{key}: {shorten(fault['input'])}: {message}"
