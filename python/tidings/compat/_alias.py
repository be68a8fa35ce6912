"""One package under a second name: the same module objects, so that a class that is patched is patched in both."""

from __future__ import annotations

import sys
from importlib import import_module, util
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def install(alias: str, package: str) -> None:
    """Has `import alias` and everything below it find `package`."""
    if any(isinstance(finder, _Finder) and finder.alias == alias for finder in sys.meta_path):
        return
    if alias in sys.modules:
        raise RuntimeError(
            f"{alias} is imported already, from {sys.modules[alias].__file__}: install the stand-in before anything "
            "imports it"
        )
    sys.meta_path.insert(0, _Finder(alias, package))


class _Finder(MetaPathFinder):
    def __init__(self, alias: str, package: str) -> None:
        self.alias = alias
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.alias and not fullname.startswith(f"{self.alias}."):
            return None
        real = self.package + fullname.removeprefix(self.alias)
        try:
            found = util.find_spec(real)
        except ModuleNotFoundError:
            found = None
        if found is None:
            # Whatever else is on the package's path, such as its tests.
            return None
        return ModuleSpec(fullname, _Same(real), is_package=found.submodule_search_locations is not None)


class _Same(Loader):
    """Loads a module by taking the one that has another name."""

    def __init__(self, real: str) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.real)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just given it the spec of the alias.
        module.__spec__ = self._own
