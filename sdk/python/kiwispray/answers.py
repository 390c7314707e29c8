"""Answers in few words: `return image("web", append=["quiet"], because="rack 7")`."""

from .values import a_text, a_whole, pairs, queue, shown, texts

KEEP = object()
"""The hostname of a patch that does not touch it; None clears it."""


class Patch:
    """Changes to a host. `set` maps dotted paths into the metadata to values, `unset` lists paths that vanish, `states`
    replaces the queue, `order` names the wish behind that, and `hostname=None` clears the name."""

    def __init__(self, *, hostname=KEEP, states=None, order=None, set=None, unset=()):
        self.hostname = hostname if hostname is KEEP or hostname is None else a_text(hostname, "hostname")
        self.states = None if states is None else queue(states, "states")
        self.order = None if order is None else a_text(order, "order")
        self.set = pairs({} if set is None else set, "set")
        self.unset = texts(unset, "unset")

    def lowered(self, types):
        if self.hostname is KEEP:
            edit = types.Edit_Keep()
        elif self.hostname is None:
            edit = types.Edit_Clear()
        else:
            edit = types.Edit_Set(self.hostname)
        return types.Patch(hostname=edit, states=self.states, order=self.order, set=self.set, unset=self.unset)


def a_patch(value, what):
    if not isinstance(value, Patch):
        raise TypeError(f"{what} must be a Patch, not {shown(value)}")
    return value


def assign(states, why):
    """A patch that gives a queue, for `admit` and `hosts.apply`: `assign("wipe,web", "CHG-4711")`. `why` names the wish: the
    core carries out a wish once per host, so one that stays where the plugin reads it does not install in a circle."""
    return Patch(states=states, order=a_text(why, "why"))


class Answer:
    """What a hook answers. Only the functions below make one, so a wrong answer is seen."""

    __slots__ = ("hook", "lowered")

    def __init__(self, hook, lowered):
        self.hook = hook
        self.lowered = lowered

    def __repr__(self):
        return f"an answer to `{self.hook}`"


def lowered(types, answer, hook, wanted):
    """The contract's form of an answer to a hook, or a sentence about what came instead."""
    if isinstance(answer, Answer) and answer.hook == hook:
        return answer.lowered(types)
    raise TypeError(f"the hook `{hook}` answered {shown(answer)}; it wants {wanted}")


def _boot(verdict, because, patch):
    because = a_text(because, "because")
    if patch is not None:
        a_patch(patch, "patch")
    return Answer(
        "boot",
        lambda types: types.BootDecision(
            verdict=verdict(types), patch=None if patch is None else patch.lowered(types), reason=because
        ),
    )


def image(name, *, append=(), vars=None, because="", patch=None):
    """Boots an image. One that writes a disk is booted only if it is the host's current state."""
    fields = {"image": a_text(name, "the image"), "append": texts(append, "append"), "vars": pairs(vars or {}, "vars")}
    return _boot(lambda types: types.BootVerdict_Boot(types.BootPlan_Image(types.ImageBoot(**fields))), because, patch)


def template(name, *, vars=None, because="", patch=None):
    """Boots a script template."""
    fields = {"template": a_text(name, "the template"), "vars": pairs(vars or {}, "vars")}
    return _boot(lambda types: types.BootVerdict_Boot(types.BootPlan_Template(types.TemplateBoot(**fields))), because, patch)


def local_disk(*, because="", patch=None):
    """Boots the local disk."""
    return _boot(lambda types: types.BootVerdict_Boot(types.BootPlan_LocalDisk()), because, patch)


def hold(text, *, again_after_ms=None, because="", patch=None):
    """Lets the host wait, with a text on its console, and ask again."""
    again = None if again_after_ms is None else a_whole(again_after_ms, "again_after_ms")
    fields = {"text": a_text(text, "the text"), "again_after_ms": again}
    return _boot(lambda types: types.BootVerdict_Hold(types.Hold(**fields)), because, patch)


def pass_(*, because="", patch=None):
    """No opinion, but something to say."""
    return _boot(lambda types: types.BootVerdict_Pass(), because, patch)


PASS = pass_()
"""No opinion: the next plugin is asked."""


def admit(patch=None, *, because=""):
    """Takes a new machine in, changed by a patch. An order's name in it counts as carried out: the same wish is refused later."""
    patch = Patch() if patch is None else a_patch(patch, "the patch of admit")
    because = a_text(because, "because")
    verdict = lambda types: types.DiscoveryVerdict_Admit(patch.lowered(types))
    return Answer("discovery", lambda types: types.DiscoveryDecision(verdict=verdict(types), reason=because))


def refuse(text, *, because=""):
    """Does not take a new machine in; it waits, with this text on its console."""
    text, because = a_text(text, "the text"), a_text(because, "because")
    verdict = lambda types: types.DiscoveryVerdict_Refuse(text)
    return Answer("discovery", lambda types: types.DiscoveryDecision(verdict=verdict(types), reason=because))


def _transition(verdict, because=""):
    because = a_text(because, "because")
    return Answer("transition", lambda types: types.TransitionDecision(verdict=verdict(types), reason=because))


ALLOW = _transition(lambda types: types.TransitionVerdict_Allow())
"""Lets a state change happen."""


def redirect(states, *, because=""):
    """Lets another one happen instead."""
    states = queue(states, "the states")
    return _transition(lambda types: types.TransitionVerdict_Redirect(states), because)


def deny(why):
    """Refuses it; a finish is committed all the same, and the host is then held."""
    why = a_text(why, "why")
    return _transition(lambda types: types.TransitionVerdict_Deny(why))


def again(after_ms):
    """There is more to do: the job runs again after so long, not at its period."""
    after_ms = a_whole(after_ms, "after_ms")
    return Answer("schedule", lambda types: types.NextRun_AfterMs(after_ms))


AT_PERIOD = Answer("schedule", lambda types: types.NextRun_AtPeriod())
"""The job runs again when its period is over."""
