"""A stand-in for the core: `Core(images=["web"]).ask(plugin, "boot", request("new"))`, in plain `python3 -m unittest`."""

import json
from types import SimpleNamespace

from . import core
from .hooks import Hooks


class Record:
    """A value of the contract's types, as componentize-py would make it: `BootVerdict_Hold(value)`, `Patch(states=...)`."""

    def __init__(self, *values, **fields):
        if values:
            (self.value,) = values
        self.__dict__.update(fields)

    def __eq__(self, other):
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


class Types:
    """Makes the contract's types as they are asked for."""

    def __getattr__(self, name):
        made = type(name, (Record,), {})
        setattr(self, name, made)
        return made


types = Types()


class Err(Exception):
    """Carries an error of the contract."""

    def __init__(self, value):
        super().__init__(repr(value))
        self.value = value


def host(state, **fields):
    """A host in a state, as the core would tell it. `fields` may give any of its fields; metadata as a dict."""
    known = {
        "id": 7,
        "revision": 3,
        "hostname": None,
        "serial": "S7",
        "uuid": "4c4c4544-0000-1000-8000-000000000007",
        "macs": ["52:54:00:00:00:07"],
        "states": [state],
        "attempts": 0,
    }
    documents = {name: json.dumps(fields.pop(name, {})) for name in ("metadata", "more")}
    return SimpleNamespace(**known | fields | documents)


def request(state, facts=None, **fields):
    """A boot of a host, for the hooks `boot` and `discovery`."""
    return SimpleNamespace(host=host(state, **fields), facts=list((facts or {}).items()))


def event(kind, detail=None, about=None):
    """An event, for the hook `events`."""
    about = host("new") if about is None else about
    return SimpleNamespace(id=f"{kind}-1", host_seq=1, at_ms=0, kind=kind, host=about, detail=json.dumps(detail or {}))


class Core:
    """The core in a test. `hosts` are made with `host`; `http` is a function from a request to `(status, headers, body)`;
    `secrets` are names. What was logged (level, message, fields), noted, sent and applied is kept."""

    def __init__(
        self, *, images=(), templates=(), config=None, hosts=(), http=None, secrets=(), now_ms=0, id="test", attempt=1, dry_run=False
    ):
        self.logged, self.notes, self.requests, self.applied = [], [], [], []
        self._config = json.dumps(config or {})
        call = {"id": id, "attempt": attempt, "now_ms": now_ms, "budget_ms": 200, "dry_run": dry_run, "config": self._config}
        self._interfaces = {
            "call": SimpleNamespace(**{name: _answering(value) for name, value in call.items()}, note=self.notes.append),
            "log": SimpleNamespace(
                Level=SimpleNamespace(DEBUG="debug", INFO="info", WARN="warn", ERROR="error"),
                write=lambda level, message, fields: self.logged.append((level, message, dict(fields))),
            ),
            "catalog": SimpleNamespace(
                has_image=lambda name: name in images, has_template=lambda name: name in templates, images=lambda: list(images)
            ),
            "hosts": _Hosts(hosts, self.applied),
            "kv": _Kv(),
            "http": SimpleNamespace(Request=lambda **fields: SimpleNamespace(**fields), send=self._sending(http)),
            "signing": SimpleNamespace(hmac_sha256=lambda secret, data: _signed(secret, data, secrets)),
        }

    def ask(self, plugin, hook, asked):
        """Asks a hook of a plugin (`import plugin`) and returns its answer in the contract's types, or raises `Err`."""
        self._connect()
        functions = {"boot": "decide", "discovery": "discovered", "render": "variables"}
        functions |= {"transition": "before", "events": "handle", "schedule": "run"}
        return getattr(Hooks(plugin, [hook], types, Err), functions[hook])(asked)

    def run(self, hook):
        """Runs any function as inside of a hook."""
        self._connect()
        with core.listen():
            return hook()

    def _connect(self):
        core.connect(self._interfaces, types, Err)

    def _sending(self, http):
        def send(sent):
            self.requests.append(sent)
            if http is None:
                refuse("HttpError_NotSent", f"nothing answers {sent.method} {sent.url} in this test")
            status, headers, body = http(sent)
            return SimpleNamespace(status=status, headers=headers, body=body)

        return send


def refuse(case, *detail):
    """Answers with an error of the contract: `refuse("KvError_Full")`."""
    raise Err(getattr(types, case)(*detail))


def _answering(value):
    return lambda: value


def _signed(secret, data, secrets):
    """Not the real thing: a test sees which secret was used over which data."""
    return f"{secret}:{len(data)}".encode() if secret in secrets else refuse("SigningError_NotFound")


class _Hosts:
    def __init__(self, hosts, applied):
        self._known, self._applied = {each.id: each for each in hosts}, applied

    def get(self, id):
        return self._known.get(id) or refuse("HostsError_NotFound")

    def page(self, after, limit):
        return self._some(lambda _: True, after, limit)

    def find(self, key, value, after, limit):
        return self._some(lambda each: _fits(each, key, value), after, limit)

    def _some(self, fits, after, limit):
        rest = [each for id, each in sorted(self._known.items()) if fits(each) and (after is None or id > after)]
        return SimpleNamespace(hosts=rest[:limit], next=rest[limit - 1].id if len(rest) > limit else None)

    def apply(self, id, revision, patch):
        known = self.get(id)
        if known.revision != revision:
            refuse("HostsError_Conflict", known.revision)
        self._applied.append((id, patch))
        changed = SimpleNamespace(**vars(known) | {"revision": revision + 1, "states": patch.states or known.states})
        if not isinstance(patch.hostname, types.Edit_Keep):
            changed.hostname = getattr(patch.hostname, "value", None)
        metadata = json.loads(known.metadata)
        for path, text in patch.set:
            *way, last = path.split(".")
            _at(metadata, way)[last] = json.loads(text)
        for path in patch.unset:
            *way, last = path.split(".")
            _at(metadata, way).pop(last, None)
        changed.metadata = json.dumps(metadata)
        self._known[id] = changed
        return changed


def _fits(each, key, value):
    if key == "mac":
        return value in each.macs
    if key in ("serial", "uuid", "hostname"):
        return getattr(each, key) == value
    at = json.loads(each.metadata)
    for name in key.split("."):
        at = at.get(name) if isinstance(at, dict) else None
    return at is not None and str(at) == value


def _at(metadata, way):
    for name in way:
        metadata = metadata.setdefault(name, {})
    return metadata


class _Kv:
    def __init__(self):
        self._entries, self._version = {}, 0

    def get(self, key):
        return self._entries.get(key)

    def put(self, key, value, expect):
        self._expected(key, expect)
        self._version += 1
        self._entries[key] = SimpleNamespace(value=value, version=self._version)
        return self._version

    def delete(self, key, expect):
        self._expected(key, expect)
        self._entries.pop(key, None)

    def list(self, prefix, after, limit):
        return [key for key in sorted(self._entries) if key.startswith(prefix) and (after is None or key > after)][:limit]

    def _expected(self, key, expect):
        entry = self._entries.get(key)
        version = None if entry is None else entry.version
        if isinstance(expect, self.Expect_Absent) and version is not None:
            refuse("KvError_Conflict", version)
        if isinstance(expect, self.Expect_Version) and version != expect.value:
            refuse("KvError_Conflict", version or 0)


_Kv.Expect_Whatever, _Kv.Expect_Absent, _Kv.Expect_Version = types.Expect_Whatever, types.Expect_Absent, types.Expect_Version
