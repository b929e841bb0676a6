"""Names are nouns and verbs of the field; functions take at most seven parameters; stages are short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("captioning", "stages", "pipeline")
FUNCTION_WORDS = frozenset(
    ["one", "own", "said", "told", "tell", "found", "place", "there", "of", "mine", "what", "every", "given"]
)
Binding = tuple[int, str]  # line, name


def bindings(tree: ast.AST) -> Iterator[Binding]:
    """Yield each name that the code binds: variables, parameters, functions, classes, attributes, imported names."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield node.lineno, name


def offenders(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    trees = ((path.relative_to(ROOT), ast.parse(path.read_bytes())) for path in files)
    return [f"{path}:{line} {name}" for path, tree in trees for line, name in bindings(tree) if name in FUNCTION_WORDS]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_is_a_function_word(package: str) -> None:
    names = offenders(package)
    assert not names, "\n".join(["these names say nothing:", *names])


CODE = """
import a as one
def f(own, *what, **given): self.told = (lambda mine: mine)(own)
for said in [tell for tell in ()]: pass
with f() as found, (place := 1): pass
class there:
    of: int = 1
def every(): pass
"""


def test_each_way_to_bind_a_name_is_seen() -> None:
    assert {name for _, name in bindings(ast.parse(CODE))} >= FUNCTION_WORDS


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_takes_more_than_seven_parameters(package: str) -> None:
    functions = [
        (path, node)
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert functions
    for path, node in functions:
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = [parameter.arg for parameter in parameters if parameter.arg not in ("self", "cls")]
        assert len(names) <= 7, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}({', '.join(names)})"


def test_a_stage_is_at_most_sixty_lines() -> None:
    files = (ROOT / "stages").glob("*.py")
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 60} == {}
