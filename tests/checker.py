"""Checks of annotations while tests run: shapes and dtypes of arrays by jaxtyping, other types by beartype.

jaxtyping's own import hook decorates every function, those that are defined inside others at each call: two fifths of
the tests' time. Here a function costs what its annotations need.
"""

import ast
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from inspect import get_annotations
from types import CodeType, ModuleType
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype, with ints where floats are expected, as pyright has it."""


def checked(decorated: Any) -> Any:
    """Check a function, or what a dataclass is made of, by its annotations.

    Where arrays are among them their axes must agree. Functions inside functions, which are decorated at each call of
    the outer one, are checked only then.
    """
    if isinstance(decorated, type):
        if _has_arrays(decorated):
            return jaxtyped(typechecker=typechecked)(decorated)
        if is_dataclass(decorated):
            decorated.__init__ = typechecked(decorated.__init__)
        return decorated
    code = decorated.__code__
    if code not in _ARRAYS:
        _ARRAYS[code] = _has_arrays(decorated)
    if _ARRAYS[code]:
        return jaxtyped(typechecker=typechecked)(decorated)
    return decorated if "<locals>" in decorated.__qualname__ else typechecked(decorated)


_ARRAYS: dict[CodeType, bool] = {}
"""Whether arrays are among a function's annotations."""


def _has_arrays(decorated: Any) -> bool:
    return any(map(_is_array, get_annotations(decorated).values()))


def _is_array(annotation: Any) -> bool:
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return (isinstance(annotation, type) and issubclass(annotation, AbstractArray)) or any(map(_is_array, parts))


class _Decorate(ast.NodeVisitor):
    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        node.decorator_list.insert(0, _name(node))  # outermost: a dataclass first
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        node.decorator_list.append(_name(node))
        self.generic_visit(node)


def _name(node: ast.stmt) -> ast.Name:
    return ast.copy_location(ast.Name("_checked", ast.Load()), node)


class _Loader(SourceFileLoader):
    """Loads a module with its checks; never from a compiled file, which has none."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        _Decorate().visit(tree)
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["_checked"] = checked
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, rooms: Sequence[str]) -> None:
        self.rooms = tuple(rooms)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(tuple(room + "." for room in self.rooms)) and fullname not in self.rooms:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def check_annotations(*rooms: str) -> None:
    """Check what is imported of these packages from now on."""
    sys.meta_path.insert(0, _Finder(rooms))
