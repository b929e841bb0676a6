"""Log what a stage unpickles, runs or calls, as JSON lines with the stack; mark when it begins and ends.

helpers/project_copy.py puts this folder on PYTHONPATH; Python imports a file of this name when it starts.
"""

import atexit
import json
import os
import sys

PROGRAMS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.startfile")
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
DOWNLOADED = tuple(os.path.join(os.getcwd(), name) for name in ("models", "data", ".cache"))
FRAMES = 12  # of the stack, from the innermost
RUNNING = ".cache/running"  # if this folder exists, it holds a file for the stage that runs (tests/helpers/opened.py)


def describe(event: str, arguments: tuple) -> str | None:
    """Describe an event that must be logged; return None for all others."""
    if event in ("pickle.find_class", *PROGRAMS):
        return " ".join(map(str, arguments[:2]))
    if event in ("socket.connect", "socket.sendto"):
        return str(arguments[1])
    if event == "open" and str(arguments[0]).endswith(PICKLES):
        return str(arguments[0])
    if event == "import" and str(arguments[0]).startswith("transformers_modules"):
        return str(arguments[0])
    if event == "exec" and code_file(arguments[0]).startswith((*DOWNLOADED, os.environ["HF_HOME"])):
        return code_file(arguments[0])
    return None


def code_file(code: object) -> str:
    return os.path.abspath(getattr(code, "co_filename", ""))


def stack() -> list[str]:
    """List file and function of the innermost frames outside this file."""
    frame, lines = sys._getframe(2), []
    while frame is not None and len(lines) < FRAMES:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back
    return lines


def install(stage: str, folder: str) -> None:
    log = os.open(os.path.join(folder, f"{stage}-{os.getpid()}.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple) -> None:
        if (text := describe(event, arguments)) is not None:
            record = {"stage": stage, "event": event, "what": text, "stack": stack()}
            os.write(log, (json.dumps(record) + "\n").encode())

    sys.addaudithook(hook)


def mark_running(stage: str) -> None:
    path = os.path.join(RUNNING, stage)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    atexit.register(os.remove, path)


names = [name.removeprefix("stages.") for name in sys.orig_argv if name.startswith("stages.")]
if names and "AUDIT_LOG" in os.environ:
    install(names[0], os.environ["AUDIT_LOG"])
    if "DVC_STAGE" in os.environ and os.path.isdir(RUNNING):
        mark_running(os.environ["DVC_STAGE"])
