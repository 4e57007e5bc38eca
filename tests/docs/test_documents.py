"""What the documents say exists: their code, the names they import and mention, their links, the extras to install."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])

FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE_CODE: Final = re.compile(r"`([^`\n]+)`")
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
DOTTED: Final = re.compile(r"coatcheck(\.[A-Za-z_]\w*)+")
EXTENSION_OBJECT: Final = {"coatcheck.init_app"}
"""What is said of the `coatcheck` that docs/flask.md makes, and is no name of the package."""
THE_READERS: Final = {"Request", "add_to_cart", "auth_user_id", "create_app", "from_json", "sessions"}
"""What blocks use of the reader's application or framework, though something in the package has the same name."""
EXTRAS: Final = re.compile(r"\bcoatcheck\[([\w,]+)\]")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def python_blocks(document: Path) -> list[tuple[int, str]]:
    """Give the blocks of Python, each with the number of the line before it."""
    text = document.read_text()
    return [(text.count("\n", 0, block.start(2)), block[2]) for block in FENCE.finditer(text) if block[1] == "python"]


def parsed(document: Path) -> Iterator[ast.Module]:
    """Parse the blocks, in which `await` and `return` may stand outside of functions: they are parts of some."""
    for line, block in python_blocks(document):
        yield ast.parse("\n" * line + block, str(document))


@cache
def anchors(document: Path) -> frozenset[str]:
    """Give the anchors of a document's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", document.read_text()))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def resolves(dotted: str) -> bool:
    """Tell whether a dotted name is a module, or something in one."""
    module, _, attribute = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        if not module:
            return False
        try:
            return hasattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            return False
    return True


def test_there_are_documents() -> None:
    assert {"README.md", "flask.md", "django.md"} <= {document.name for document in DOCUMENTS}
    assert sum(len(python_blocks(document)) for document in DOCUMENTS) > 80


@each_document
def test_python_blocks_are_python(document: Path) -> None:
    for module in parsed(document):
        assert module.body


@each_document
def test_what_python_blocks_import_from_coatcheck_exists(document: Path) -> None:
    missing = []
    for module in parsed(document):
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "coatcheck":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "coatcheck"]
            else:
                continue
            missing += [f"line {node.lineno}: {name}" for name in names if not resolves(name)]
    assert missing == []


@cache
def public_names() -> frozenset[str]:
    """Give the names of all public classes and functions of the package."""
    return frozenset(
        node.name
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    )


def bound_by(node: ast.AST) -> set[str]:
    """Give the names that a node binds."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {node.name}
        case ast.Name(ctx=ast.Store()):
            return {node.id}
        case ast.arg():
            return {node.arg}
        case _:
            return set()


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.name)
def test_what_python_blocks_use_of_coatcheck_is_imported_on_the_page(document: Path) -> None:
    nodes = [node for module in parsed(document) for node in ast.walk(module)]
    bound = set().union(*map(bound_by, nodes))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert (used - bound - THE_READERS) & public_names() == set()


@each_document
def test_names_of_coatcheck_that_are_mentioned_exist(document: Path) -> None:
    mentioned = (match[0] for code in INLINE_CODE.findall(FENCE.sub("", document.read_text()))
                 if (match := DOTTED.match(code)))  # fmt: skip
    assert [name for name in mentioned if name not in EXTENSION_OBJECT and not resolves(name)] == []


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_document
def test_extras_that_are_to_be_installed_exist(document: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {extra for extras in EXTRAS.findall(document.read_text()) for extra in extras.split(",")}
    assert named <= project["optional-dependencies"].keys()
