"""What a plugin may ask of the core. In a component these are its imports, which `entry` connects; in tests `testing` stands
in for them."""

import json
import re

from .answers import a_patch
from .errors import CoreError
from .values import Host, a_text

_imports = {}
_Err = ()
_types = None
_listening = False


def connect(interfaces, types, err):
    """Gives the interfaces of the contract by name, its types, and the exception that carries its errors."""
    global _imports, _types, _Err
    _imports, _types, _Err = interfaces, types, err


class listen:
    """Around a hook: only now the core can be asked, at build time nobody listens. (A class, as `contextmanager` writes to the
    exceptions that pass through it, and the contract's are frozen.)"""

    def __enter__(self):
        global _listening
        self.outer, _listening = _listening, True

    def __exit__(self, *_):
        global _listening
        _listening = self.outer


def is_listening():
    return _listening


def interface(name, what=""):
    """The interface itself, for its types."""
    if not _listening:
        raise RuntimeError(
            f"{name}{what} outside of a hook: the top of a module runs when the plugin is built, where the core cannot be asked"
        )
    if name not in _imports:
        raise RuntimeError(f"plugin.toml does not name `{name}` among its imports, so it was built without")
    return _imports[name]


def ask(name, function, *values):
    found = interface(name, f".{function}")
    try:
        return getattr(found, function)(*values)
    except _Err as error:
        # An error of the contract is a case of a variant: `KvError_NotFound`.
        case = type(error.value).__name__.rsplit("_", 1)[-1]
        kind = re.sub(r"(?<!^)(?=[A-Z])", "-", case).lower()
        raise CoreError(f"{name}.{function}", kind, getattr(error.value, "value", None)) from None


class call:
    """What can be asked about the call itself."""

    @staticmethod
    def id():
        """The same for every retry of the same call: an idempotency key."""
        return ask("call", "id")

    @staticmethod
    def attempt():
        """1 for the first try."""
        return ask("call", "attempt")

    @staticmethod
    def now_ms():
        """Milliseconds since 1970, fixed for the call."""
        return ask("call", "now_ms")

    @staticmethod
    def budget_ms():
        """Milliseconds that this call has left."""
        return ask("call", "budget_ms")

    @staticmethod
    def dry_run():
        """Whether nothing of this call will be committed."""
        return ask("call", "dry_run")


def config():
    """The configuration of this binding, parsed."""
    text = ask("call", "config")
    return json.loads(text) if text.strip() else {}


def note(text):
    """A line for the trace of this decision: `kiwispray host explain` shows it."""
    ask("call", "note", a_text(str(text), "the note"))


def _write(level, message, fields):
    found = interface("log", ".write")
    named = [(name, a_text(str(value), "a field")) for name, value in fields.items()]
    found.write(getattr(found.Level, level), a_text(str(message), "the message"), named)


class log:
    """Log lines with fields: `log.info("synced", hosts=3)`. `print` and the module `logging` end here too."""

    @staticmethod
    def debug(message, **fields):
        _write("DEBUG", message, fields)

    @staticmethod
    def info(message, **fields):
        _write("INFO", message, fields)

    @staticmethod
    def warn(message, **fields):
        _write("WARN", message, fields)

    @staticmethod
    def error(message, **fields):
        _write("ERROR", message, fields)


class catalog:
    """What the server can boot. Import `catalog`."""

    @staticmethod
    def has_image(name):
        return ask("catalog", "has_image", a_text(name, "the name"))

    @staticmethod
    def has_template(name):
        return ask("catalog", "has_template", a_text(name, "the name"))

    @staticmethod
    def images():
        return ask("catalog", "images")


class hosts:
    """The machines. Import `hosts`; not in decision hooks for what writes."""

    @staticmethod
    def get(id):
        return Host(ask("hosts", "get", id))

    @staticmethod
    def find(key, value):
        """All hosts by `serial`, `uuid`, `mac`, `hostname` or a dotted metadata path."""
        found, after = [], None
        while True:
            page = ask("hosts", "find", a_text(key, "the key"), a_text(value, "the value"), after, 100)
            found += [Host(raw) for raw in page.hosts]
            after = page.next
            if after is None:
                return found

    @staticmethod
    def page(after=None, limit=100):
        """Some hosts, and what to give as `after` for the next page, or None."""
        page = ask("hosts", "page", after, limit)
        return [Host(raw) for raw in page.hosts], page.next

    @staticmethod
    def apply(host, patch):
        """Changes the host that was looked at: another revision by now is the error `conflict`."""
        return Host(ask("hosts", "apply", host.id, host.revision, a_patch(patch, "the patch of hosts.apply").lowered(_types)))


def _bytes(value):
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise TypeError(f"expected a str or bytes, not {type(value).__name__}")


class kv:
    """A store of the plugin's own. Import `kv`. With `version` or `absent` it is only written then."""

    @staticmethod
    def get(key):
        """An entry with `value` and `version`, or None."""
        return ask("kv", "get", a_text(key, "the key"))

    @staticmethod
    def get_json(key):
        """The value, parsed, or None."""
        entry = kv.get(key)
        return None if entry is None else json.loads(bytes(entry.value))

    @staticmethod
    def put(key, value, *, version=None, absent=False):
        """Returns the new version."""
        return ask("kv", "put", a_text(key, "the key"), _bytes(value), kv._expect(version, absent))

    @staticmethod
    def put_json(key, value, *, version=None, absent=False):
        return kv.put(key, json.dumps(value), version=version, absent=absent)

    @staticmethod
    def delete(key, *, version=None, absent=False):
        ask("kv", "delete", a_text(key, "the key"), kv._expect(version, absent))

    @staticmethod
    def list(prefix, after=None, limit=100):
        """Keys in order."""
        return ask("kv", "list", a_text(prefix, "the prefix"), after, limit)

    @staticmethod
    def _expect(version, absent):
        found = interface("kv")
        if version is not None:
            return found.Expect_Version(version)
        return found.Expect_Absent() if absent else found.Expect_Whatever()


class Response:
    """An answer over http."""

    def __init__(self, raw):
        self.status = raw.status
        self.headers = raw.headers
        self.body = bytes(raw.body)

    @property
    def ok(self):
        return 200 <= self.status < 300

    def header(self, name):
        """The first header of that name, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


_NOTHING = object()


class http:
    """Requests to what the grant names. Import `http`. Not in decision hooks."""

    @staticmethod
    def request(method, url, *, headers=None, json=_NOTHING, body=None, timeout_ms=None):
        found = interface("http", ".send")
        named = [(name, a_text(str(value), "a header")) for name, value in (headers or {}).items()]
        sent = None if body is None else _bytes(body)
        if json is not _NOTHING:
            sent = _dumps(json).encode()
            named.append(("content-type", "application/json"))
        request = found.Request(method=method, url=a_text(url, "the url"), headers=named, body=sent, timeout_ms=timeout_ms)
        return Response(ask("http", "send", request))

    @staticmethod
    def get(url, **options):
        return http.request("GET", url, **options)

    @staticmethod
    def post(url, **options):
        return http.request("POST", url, **options)

    @staticmethod
    def put(url, **options):
        return http.request("PUT", url, **options)

    @staticmethod
    def patch(url, **options):
        return http.request("PATCH", url, **options)

    @staticmethod
    def delete(url, **options):
        return http.request("DELETE", url, **options)


_dumps = json.dumps


class signing:
    """Secrets that the operator named in the grant, used without being seen. Import `signing`."""

    @staticmethod
    def hmac_sha256(secret, data):
        return bytes(ask("signing", "hmac_sha256", a_text(secret, "the secret"), _bytes(data)))
