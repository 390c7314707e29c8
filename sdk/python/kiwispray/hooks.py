"""Between the contract and a plugin's functions: documents are parsed, answers checked, exceptions become errors with a
place."""

import json

from . import answers, core, errors
from .values import About, BootRequest, Event, RenderRequest, TransitionRequest, a_dict, a_document, a_text, a_whole, shown

WRITTEN = {
    "boot": ("boot",),
    "discovery": ("discovered",),
    "render": ("variables",),
    "transition": ("before",),
    "events": ("event", "events"),
    "schedule": ("run",),
}
"""The functions of a plugin that make each hook of the contract; any one will do."""


class NotWritten(Exception):
    """plugin.toml and plugin.py do not agree."""


class Hooks:
    """A plugin's functions in the contract's form. `err` makes the exception that carries an error of the contract."""

    def __init__(self, plugin, hooks, types, err):
        self.plugin, self.types, self.err = plugin, types, err
        for hook in hooks:
            if not any(callable(getattr(plugin, each, None)) for each in WRITTEN[hook]):
                raise NotWritten(f"plugin.toml names the hook `{hook}`, but plugin.py has no function `{WRITTEN[hook][0]}`")
        if not isinstance(getattr(plugin, "about", None), About):
            raise NotWritten("plugin.py needs `about = About(name=..., version=..., summary=...)`")
        self.about = plugin.about.lowered(types)

    def describe(self):
        return self.about

    def check_config(self, text):
        """Everything wrong with a configuration. The contract has no error here, so an exception is a problem too."""
        check = getattr(self.plugin, "check_config", None)
        if check is None:
            return []
        try:
            with core.listen():
                return [self._problem(each) for each in check(json.loads(text) if text.strip() else {}) or []]
        except Exception as raised:
            return [self.types.ConfigProblem(at="", message=errors.described(raised))]

    def _problem(self, problem):
        at, message = ("", problem) if isinstance(problem, str) else problem
        return self.types.ConfigProblem(at=a_text(at, "where a problem is"), message=a_text(message, "a problem"))

    def decide(self, raw):
        wanted = "image(...), template(...), local_disk(), hold(...) or PASS"
        return self._asked(lambda: self._answer(self.plugin.boot(BootRequest(raw)), "boot", wanted))

    def discovered(self, raw):
        wanted = "admit(...) or refuse(...)"
        return self._asked(lambda: self._answer(self.plugin.discovered(BootRequest(raw)), "discovery", wanted))

    def variables(self, raw):
        def hook():
            answer = a_dict(self.plugin.variables(RenderRequest(raw)), "the answer of the hook `render`")
            return a_document(answer, "the answer of the hook `render`")

        return self._asked(hook)

    def before(self, raw):
        wanted = "ALLOW, redirect(...) or deny(...)"
        return self._asked(lambda: self._answer(self.plugin.before(TransitionRequest(raw)), "transition", wanted))

    def handle(self, raw):
        return self._asked(lambda: self._batch(raw) if hasattr(self.plugin, "events") else self._one_by_one(raw))

    def run(self, job):
        def hook():
            answer = self.plugin.run(job)
            return self._answer(answers.AT_PERIOD if answer is None else answer, "schedule", "None or again(...)")

        return self._asked(hook)

    def _answer(self, answer, hook, wanted):
        return answers.lowered(self.types, answer, hook, wanted)

    def _asked(self, hook):
        """Runs a hook; what it raises becomes an error of the contract, and a fault is logged with the way to it."""
        with core.listen():
            try:
                return hook()
            except (Exception, SystemExit) as raised:
                error = errors.lowered(self.types, raised)
                if isinstance(error, self.types.Error_Failed):
                    self._tell(raised)
        raise self.err(error)

    def _tell(self, raised):
        way = "\n".join(f"{path}:{line} in {name}" for path, line, name in errors.frames(raised))
        core.log.error(errors.described(raised), exception=errors.place(raised) or "no place", stack=way)

    def _batch(self, raw):
        events = [Event(each) for each in raw]
        done = self.plugin.events(events)
        done = len(events) if done is None else a_whole(done, "the answer of `events`, how many are done,")
        if done > len(events):
            raise TypeError(f"`events` says that {shown(done)} of {len(events)} are done")
        return done

    def _one_by_one(self, raw):
        """In order, until one fails: the rest is delivered again. Only the first one's failure is an answer."""
        done = 0
        for each in raw:
            try:
                self.plugin.event(Event(each))
            except Exception as raised:
                if done == 0:
                    raise
                core.log.warn(f"event {each.id} is left for the next delivery: {errors.described(raised)}")
                break
            done += 1
        return done
