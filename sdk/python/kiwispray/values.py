"""What the core tells, with its documents parsed, and checks of what plugins give back: a wrong type would end the call in
a bare trap."""

import json
from dataclasses import dataclass, field


class Host:
    """A machine. `metadata` and `more` are parsed; `hostname` may be None."""

    def __init__(self, raw):
        self.id = raw.id
        self.revision = raw.revision
        self.hostname = raw.hostname
        self.serial = raw.serial
        self.uuid = raw.uuid
        self.macs = list(raw.macs)
        self.states = list(raw.states)
        self.attempts = raw.attempts
        self.metadata = json.loads(raw.metadata)
        self.more = json.loads(raw.more)

    @property
    def state(self):
        """The current state: the first of the queue."""
        return self.states[0] if self.states else "finished"

    @property
    def is_finished(self):
        """Whether the host has nothing left to do."""
        return self.state == "finished"

    def __repr__(self):
        return f"Host(id={self.id}, hostname={self.hostname!r}, states={self.states!r})"


class BootRequest:
    """For `boot` and `discovered`. `facts` by name: platform, buildarch, manufacturer, product, asset, ..."""

    def __init__(self, raw):
        self.host = Host(raw.host)
        self.facts = dict(raw.facts)


class RenderRequest:
    """For `variables`: the document's name, and its variables so far."""

    def __init__(self, raw):
        self.host = Host(raw.host)
        self.document = raw.document
        self.vars = json.loads(raw.vars)


class TransitionRequest:
    """For `before`: where the host is to go, why and by whom."""

    def __init__(self, raw):
        self.host = Host(raw.host)
        self.to = list(raw.to)
        self.cause = raw.cause
        self.actor = raw.actor


class Event:
    """For `event` and `events`. `host` may be None; `detail` is parsed."""

    def __init__(self, raw):
        self.id = raw.id
        self.host_seq = raw.host_seq
        self.at_ms = raw.at_ms
        self.kind = raw.kind
        self.host = None if raw.host is None else Host(raw.host)
        self.detail = json.loads(raw.detail)


@dataclass(frozen=True)
class About:
    """What a plugin is. `jobs` gives each its period in seconds, `config_schema` is a JSON Schema."""

    name: str
    version: str
    summary: str
    config_schema: dict = field(default_factory=dict)
    events: tuple = ()
    jobs: dict = field(default_factory=dict)
    more: dict = field(default_factory=dict)

    def lowered(self, types):
        jobs = a_dict(self.jobs, "About.jobs").items()
        return types.Description(
            name=a_text(self.name, "About.name"),
            version=a_text(self.version, "About.version"),
            summary=a_text(self.summary, "About.summary"),
            config_schema=a_document(a_dict(self.config_schema, "About.config_schema"), "About.config_schema"),
            events=texts(self.events, "About.events"),
            jobs=[
                types.Job(name=a_text(name, "the name of a job"), period_s=a_whole(seconds, f"the period of the job {name!r}"))
                for name, seconds in jobs
            ],
            more=a_document(a_dict(self.more, "About.more"), "About.more"),
        )


def shown(value):
    """A value in a message, short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def a_text(value, what):
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {shown(value)}")
    # Half a character would be no UTF-8.
    return value.encode("utf-8", "replace").decode("utf-8")


def a_whole(value, what):
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFFFFFF:
        raise TypeError(f"{what} must be a whole number, 0 or more, not {shown(value)}")
    return value


def a_dict(value, what):
    if not isinstance(value, dict):
        raise TypeError(f"{what} must be a dict, not {shown(value)}")
    return value


def texts(value, what):
    """A list of texts."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{what} must be a list of str, not {shown(value)}")
    return [a_text(each, f"each of {what}") for each in value]


def queue(value, what):
    """A queue of states, as people write it (`"wipe,web"`) or as a list."""
    if not isinstance(value, str):
        return texts(value, what)
    return [state.strip() for state in a_text(value, what).split(",") if state.strip()]


def a_document(value, what):
    """A JSON document. NaN is none."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} is no JSON: {error}") from None


def pairs(value, what):
    """Names and JSON values."""
    return [(a_text(name, f"each name in {what}"), a_document(each, f"{what}[{name!r}]")) for name, each in a_dict(value, what).items()]
