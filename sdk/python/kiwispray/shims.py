"""What programs expect of the world, from the contract: a component has no output, clock, randomness or files of its own,
and touching Python's would trap."""

import builtins
import datetime
import importlib.abc
import io
import linecache
import logging
import os
import random
import sys
import time

from . import core


def install():
    """Puts the shims in place. Called by `entry` before the plugin is imported."""
    sys.stdout, sys.stderr = _Lines(core.log.info, sys.stdout), _Lines(core.log.error, sys.stderr)
    _clock()
    os.urandom = lambda length: random.randbytes(length)
    random._urandom = os.urandom
    builtins.open = io.open = _no_files
    for name in ("open", "stat", "lstat", "listdir", "scandir", "mkdir", "remove", "unlink", "rename", "rmdir", "getcwd"):
        setattr(os, name, _no_files)
    # They would read the source files, to show lines of them.
    linecache.updatecache = lambda *_: []
    linecache.checkcache = lambda *_: None
    logging.basicConfig(handlers=[_Handler()], level=logging.DEBUG, format="%(message)s")
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False


def called(hook, value):
    """Runs a hook of the contract. Every call is a fresh copy of the plugin as it was built."""
    with core.listen():
        # So that a replay of the call sees the same. Not for secrets.
        random.seed(f"{core.call.id()}:{core.call.attempt()}")
        sys.meta_path[:] = [_NoImports()]
        try:
            return hook(value)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


class _Lines(io.TextIOBase):
    """A stream whose lines are log lines; while the plugin is built, the tool's own stream."""

    def __init__(self, write, tools):
        self._write, self._tools, self._rest = write, tools, ""

    def writable(self):
        return True

    def write(self, text):
        if not core.is_listening():
            return self._tools.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line:
                self._write(line)
        return len(text)

    def flush(self):
        rest, self._rest = self._rest, ""
        if rest:
            self._write(rest)


class _Handler(logging.Handler):
    """The module `logging`."""

    def emit(self, record):
        level = core.log.debug
        for least, write in ((logging.INFO, core.log.info), (logging.WARNING, core.log.warn), (logging.ERROR, core.log.error)):
            if record.levelno >= least:
                level = write
        level(self.format(record), logger=record.name)


class _NoImports(importlib.abc.MetaPathFinder):
    """Modules are found when the plugin is built; in a call there are no files to look into."""

    def find_spec(self, fullname, path=None, target=None):
        raise ImportError(f"import {fullname} at the top of a module: in a call there are no files to find it in", name=fullname)


def _no_files(*_, **__):
    raise PermissionError("a plugin has no files: keep what must last in `kv`, and what never changes in a module")


def _now():
    return core.call.now_ms() / 1000


def _no_sleep(_):
    raise RuntimeError("a plugin cannot sleep: raise Retry(reason, after_ms)")


def _clock():
    """The time of the call, which stands still in it, so that a replay sees the same."""
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name, _now)
        setattr(time, f"{name}_ns", lambda: core.call.now_ms() * 1_000_000)
    time.sleep = _no_sleep
    gmtime, strftime, asctime = time.gmtime, time.strftime, time.asctime
    now_if_none = lambda seconds: _now() if seconds is None else seconds
    # There is no time zone but UTC.
    time.gmtime = time.localtime = lambda seconds=None: gmtime(now_if_none(seconds))
    time.strftime = lambda form, at=None: strftime(form, time.gmtime() if at is None else at)
    time.asctime = lambda at=None: asctime(time.gmtime() if at is None else at)
    time.ctime = lambda seconds=None: asctime(time.gmtime(seconds))
    datetime.datetime, datetime.date = _DateTime, _Date


class _DateTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        at = cls.fromtimestamp(_now(), datetime.timezone.utc)
        return at.replace(tzinfo=None) if tz is None else at.astimezone(tz)

    @classmethod
    def utcnow(cls):
        return cls.now()

    @classmethod
    def today(cls):
        return cls.now()


class _Date(datetime.date):
    @classmethod
    def today(cls):
        at = _DateTime.now()
        return cls(at.year, at.month, at.day)
