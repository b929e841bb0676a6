"""Faults of params.yaml as lines for its user: what types and bounds say, and names that do not hold together."""

from typing import Any

from pydantic import ValidationError

from captioning.base.quoting import escape, shorten
from captioning.base.redaction import redact

MAX_TEXT = 500  # characters of a message, and of names to choose from


def find_broken_references(raw: Any) -> list[str]:
    """Names that do not hold together; read leniently, so that they are told along with every other fault."""
    named: list[Any] = [raw.get(name) for name in ("variants", "scst", "profiles")] if isinstance(raw, dict) else [None]
    if not all(isinstance(section, dict) for section in named):
        return []
    variants, scst, profiles = named
    profile, faults = raw.get("profile"), _unknown_rows(_list(raw.get("rows")), _list(scst.get("starts")), variants)
    if isinstance(profile, str) and profile in ("miniature", "paper") and profile not in profiles:
        faults.append(f"profile: '{profile}' has no block under profiles")
    lists = {"seeds": raw, "rows": raw, "zero_shot": raw, "starts": scst, "baselines": scst}
    for key, section in lists.items():
        values = _list(section.get(key))
        if len({str(value) for value in values}) < len(values):
            faults.append(f"{'scst.' if section is scst else ''}{key}: {shorten(values)} repeats one; each must differ")
    if "leave-one-out" in _list(scst.get("baselines")) and scst.get("samples") == 1:
        faults.append("scst.samples: 1: baseline leave-one-out needs 2 or more")
    reserved = [name for name in variants if f"{name}-".startswith(("scst-", "zero-shot-"))]
    faults += [_key("variants", name) + ": this name is taken by a row of its own; choose another" for name in reserved]
    faults += [_key("profiles", name, "finetune.learning_rates", variant) + ": no such variant; mend its name"
               for name, block in profiles.items() for variant in _rates(block) if variant not in variants]  # fmt: skip
    return faults + _on_this_machine(raw, profiles.get(profile) if isinstance(profile, str) else None)


def _key(*parts: Any) -> str:
    return ".".join(escape(str(part)) for part in parts)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _unknown_rows(rows: list[Any], starts: list[Any], variants: dict[str, Any]) -> list[str]:
    known = escape(", ".join(map(str, variants)))[:MAX_TEXT]
    unknown = [row for row in rows if isinstance(row, str) and row not in variants]
    untrained = [start for start in starts if rows and isinstance(start, str) and start not in rows]
    return [f"rows: {shorten(row)} is no variant; choose from {known}" for row in unknown] + [
        f"scst.starts: {shorten(start)} is not among rows, so it is not trained; add it there, or set scst.starts"
        for start in untrained
    ]


def _rates(block: Any) -> dict[str, Any]:
    tune = block.get("finetune") if isinstance(block, dict) else None
    rates = tune.get("learning_rates") if isinstance(tune, dict) else None
    return rates if isinstance(rates, dict) else {}


def _on_this_machine(raw: dict[str, Any], profile: Any) -> list[str]:
    """What cannot be shared out: a step's rows and images among processes and passes, one GPU among processes."""
    try:
        machine, name, faults = profile["machine"], f"profiles.{raw['profile']}", list[str]()
        processes = raw["launch"]["processes"]
        if processes > 1 and machine["device"] not in ("cpu", "cuda"):
            faults.append(f"{name}.machine.device: '{machine['device']}' is one GPU; set cuda for launch.processes")
        rows, passes = raw["finetune"]["batch"] * raw["finetune"]["accumulation"], machine["training_rows"]
        shared = {"finetune.batch x accumulation": rows, f"{name}.scst.batch": profile["scst"]["batch"]}
        uneven = [f"{key}: {value}: launch.processes, {processes}, must divide it"
                  for key, value in shared.items() if value % processes]  # fmt: skip
        if not uneven and (own := rows // processes) % min(passes, own):
            uneven = [f"{name}.machine.training_rows: {passes}: must divide the {own} rows of a step and process"]
        return faults + uneven
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):  # told by the types
        return []


def find_secrets(raw: Any, key: str = "") -> list[str]:
    """Where a token or a password stands: DVC would copy it into dvc.lock, and recipes into their files."""
    if isinstance(raw, dict):
        return [line for name, of in raw.items() for line in find_secrets(of, f"{key}.{name}".lstrip("."))]
    if isinstance(raw, list):
        return [line for place, of in enumerate(raw) for line in find_secrets(of, f"{key}.{place}")]
    if isinstance(raw, str) and redact(raw) != raw:
        return [f"{key}: a token or a password stands there; make a new one, and give it in the environment (HF_TOKEN)"]
    return []


def describe_faults(error: ValidationError) -> list[str]:
    """What pydantic found, a line each: key, value, what is allowed."""
    return [_fault(fault) for fault in error.errors(include_url=False)]


def _fault(fault: Any) -> str:
    location = fault["loc"]  # profiles, a profile, checkpoints, the origin (which is no key), ...
    key = _key(*(location[:3] + location[4:] if "checkpoints" in location else location))
    message = escape(fault["msg"].removeprefix("Value error, "))[:MAX_TEXT]
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or mend its spelling"
    if fault["type"] == "missing":
        return f"{key}: missing; add it"
    if fault["type"] == "value_error" and not key:
        return message
    return f"{key}: {shorten(fault['input'])}: {message}"
