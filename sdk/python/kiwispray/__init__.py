"""What a plugin imports: answers, errors, and what it may ask of the core."""

from .answers import ALLOW, PASS, Answer, Patch, admit, again, assign, deny, hold, image, local_disk, pass_, redirect, refuse, template
from .core import call, catalog, config, hosts, http, kv, log, note, signing
from .errors import CoreError, Fatal, Invalid, Retry
from .values import About, BootRequest, Event, Host, RenderRequest, TransitionRequest

__all__ = [
    "ALLOW", "PASS", "About", "Answer", "BootRequest", "CoreError", "Event", "Fatal", "Host", "Invalid", "Patch",
    "RenderRequest", "Retry", "TransitionRequest", "admit", "again", "assign", "call", "catalog", "config", "deny", "hold",
    "hosts", "http", "image", "kv", "local_disk", "log", "note", "pass_", "redirect", "refuse", "signing", "template",
]
