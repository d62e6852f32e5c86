"""Puts a mutant into the process: imported by Python itself at its start when this folder is on PYTHONPATH."""

import importlib.machinery
import importlib.util
import os
import runpy
import sys
from pathlib import Path

_name = os.environ.get("FAULTS_MUTANT", "")


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        path = self.get_filename(fullname)
        return compile(_changed(_name, fullname, Path(path).read_text()), path, "exec")


class _Finder:
    """Finds the modules that the mutant changes, and nothing else."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in _modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            raise ImportError(f"mutant {_name}: there is no module {fullname}")
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=_Loader(fullname, spec.origin))


if _name:
    _changes = runpy.run_path(str(Path(__file__).with_name("changes.py")))
    _changed = _changes["changed"]
    _modules = {change.module for change in (_changes["MUTANTS"] | _changes["FINER"])[_name]}
    sys.meta_path.insert(0, _Finder())
