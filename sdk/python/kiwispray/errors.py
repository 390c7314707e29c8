"""Errors: what a hook raises on purpose, what the core answers, and how both become an error of the contract."""

RETRY_MS = 5000
"""After how long the core tries again when nothing else was said."""


class Invalid(Exception):
    """The input makes no sense to the plugin: an answer, not a fault, not retried."""


class Retry(Exception):
    """Try again later, for example as a service is down: an answer too."""

    def __init__(self, reason, after_ms=RETRY_MS):
        super().__init__(reason)
        self.after_ms = after_ms


class Fatal(Exception):
    """Out of order until configuration or component change."""


class CoreError(Exception):
    """The core did not do what was asked. `kind` is the contract's word: `denied`, `not-found`, `conflict`, ..."""

    def __init__(self, asked, kind, detail=None):
        super().__init__(f"{asked}: {kind}" + ("" if detail is None else f" ({detail})"))
        self.kind = kind
        self.detail = detail


PASSING = ("conflict", "not-sent", "unavailable", "unknown")
"""Kinds of refusals after which the same question may get another answer."""


def lowered(types, raised):
    """What was raised, as an error of the contract."""
    if isinstance(raised, Invalid):
        return types.Error_Invalid(str(raised))
    if isinstance(raised, Fatal):
        return types.Error_Fatal(str(raised))
    if isinstance(raised, Retry):
        return types.Error_Retry(types.RetryLater(after_ms=_whole(raised.after_ms), reason=str(raised)))
    if isinstance(raised, CoreError) and raised.kind in PASSING:
        return types.Error_Retry(types.RetryLater(after_ms=RETRY_MS, reason=str(raised)))
    return types.Error_Failed(described(raised))


def _whole(ms):
    try:
        return min(max(int(ms), 0), 0xFFFFFFFF)
    except (TypeError, ValueError, OverflowError):
        return RETRY_MS


def described(raised):
    """`KeyError: 'rack' (plugin.py:12 in boot)`"""
    text = f"{type(raised).__name__}: {raised}"
    where = place(raised)
    return text if where is None else f"{text} ({where})"


def _is_own(path):
    """Not the SDK, and not Python's own modules, in a component or, for native tests, in an installation."""
    return not path.startswith((__file__.rpartition("/")[0] + "/", "/python/", "<frozen ")) and "/lib/python3" not in path


def place(raised):
    """The innermost place in the plugin's own code, or None."""
    own = [frame for frame in frames(raised) if _is_own(frame[0])]
    if not own and not (isinstance(raised, SyntaxError) and raised.filename):
        return None
    path, line, name = own[-1] if own else (raised.filename, raised.lineno, "<module>")
    return f"{path.rsplit('/', 1)[-1]}:{line} in {name}"


def frames(raised):
    """File, line and function on the way to an exception, outermost first. (`traceback` would read the source files.)"""
    found = []
    at = raised.__traceback__
    while at is not None:
        found.append((at.tb_frame.f_code.co_filename, at.tb_lineno, at.tb_frame.f_code.co_name))
        at = at.tb_next
    return found
