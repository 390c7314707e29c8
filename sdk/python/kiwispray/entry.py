"""The module that componentize-py makes a component of: it exports exactly the hooks of the generated world."""

import importlib

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types

from . import core, shims

shims.install()

import plugin  # noqa: E402  After the shims, so that nothing of it sees Python's own clock, output and files.

from .hooks import WRITTEN, Hooks  # noqa: E402


def _imported(name):
    try:
        return importlib.import_module(f"wit_world.imports.{name}")
    except ImportError:
        return None


_interfaces = {name: _imported(name) for name in ("call", "log", "catalog", "hosts", "kv", "http", "signing")}
core.connect({name: found for name, found in _interfaces.items() if found is not None}, types, Err)

_CLASSES = {
    "boot": ("Boot", "decide"),
    "discovery": ("Discovery", "discovered"),
    "render": ("Render", "variables"),
    "transition": ("Transition", "before"),
    "events": ("Events", "handle"),
    "schedule": ("Schedule", "run"),
}
_named = [hook for hook in WRITTEN if hasattr(exports, _CLASSES[hook][0])]
_hooks = Hooks(plugin, _named, types, Err)


class About(exports.About):
    def describe(self):
        return _hooks.describe()

    def check_config(self, config):
        return shims.called(_hooks.check_config, config)


def _exported(name, function):
    asked = getattr(_hooks, function)
    return type(name, (getattr(exports, name),), {function: lambda self, value: shims.called(asked, value)})


for _hook in _named:
    globals()[_CLASSES[_hook][0]] = _exported(*_CLASSES[_hook])
