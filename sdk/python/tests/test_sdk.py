"""`python3 -m unittest` in sdk/python."""

import subprocess
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

import kiwispray as sdk
from kiwispray.testing import Core, Err, event, host, request, types

ABOUT = sdk.About(name="racks", version="1", summary="for tests")


def plugin(**functions):
    return SimpleNamespace(about=ABOUT, **functions)


def booting(boot):
    return plugin(boot=boot)


class Sdk(unittest.TestCase):
    def refused(self, core, plugin, hook="boot", asked=None):
        """What a hook raises, in the contract's types."""
        with self.assertRaises(Err) as caught:
            core.ask(plugin, hook, request("web") if asked is None else asked)
        return caught.exception.value

    def test_an_image_carries_arguments_variables_a_patch_and_a_reason(self):
        patch = sdk.Patch(hostname=None, set={"a.b": 1})
        answer = sdk.image("web", append=["quiet"], vars={"site": "fra1"}, because="rack 7", patch=patch)
        decision = Core().ask(booting(lambda _: answer), "boot", request("web"))
        plan = types.ImageBoot(image="web", append=["quiet"], vars=[("site", '"fra1"')])
        self.assertEqual(decision.verdict, types.BootVerdict_Boot(types.BootPlan_Image(plan)))
        self.assertEqual((decision.reason, decision.patch.set), ("rack 7", [("a.b", "1")]))
        self.assertEqual(decision.patch.hostname, types.Edit_Clear())

    def test_requests_come_with_their_documents_parsed(self):
        seen = []
        asked = request("web", facts={"platform": "efi"}, metadata={"rack": "r7"})
        Core().ask(booting(lambda asked: seen.append(asked) or sdk.PASS), "boot", asked)
        self.assertEqual((seen[0].host.metadata["rack"], seen[0].host.state, seen[0].facts["platform"]), ("r7", "web", "efi"))

    def test_an_exception_is_failed_with_file_line_and_function(self):
        def boot(asked):
            return {}["rack"]

        core = Core()
        error = self.refused(core, booting(boot))
        self.assertIsInstance(error, types.Error_Failed)
        self.assertRegex(error.value, r"^KeyError: 'rack' \(test_sdk.py:\d+ in boot\)$")
        self.assertEqual(core.logged[0][:2], ("error", error.value))

    def test_what_is_raised_on_purpose_is_an_answer(self):
        def raising(raised):
            def boot(_):
                raise raised

            return self.refused(Core(), booting(boot))

        self.assertEqual(raising(sdk.Invalid("odd")), types.Error_Invalid("odd"))
        self.assertEqual(raising(sdk.Retry("later", 10)), types.Error_Retry(types.RetryLater(after_ms=10, reason="later")))
        self.assertEqual(raising(sdk.Fatal("over")), types.Error_Fatal("over"))
        self.assertIsInstance(raising(SystemExit(3)), types.Error_Failed)

    def test_nonsense_is_failed_and_says_what_is_wanted(self):
        for make, said in (
            (lambda: None, "the hook `boot` answered None; it wants image"),
            (lambda: {"image": "web"}, "answered {'image': 'web'}"),
            (lambda: sdk.ALLOW, "answered an answer to `transition`"),
            (lambda: sdk.image(7), "the image must be a str, not 7"),
            (lambda: sdk.image("web", append="quiet"), "append must be a list of str"),
            (lambda: sdk.image("web", vars={"a": object()}), "vars['a'] is no JSON"),
            (lambda: sdk.hold("x", again_after_ms=-1), "again_after_ms must be a whole number"),
            (lambda: sdk.pass_(patch={"states": []}), "patch must be a Patch"),
        ):
            self.assertIn(said, self.refused(Core(), booting(lambda _: make())).value)

    def test_every_hook_has_its_answers(self):
        both = plugin(
            discovered=lambda asked: sdk.admit(sdk.assign("wipe, web", "CHG-1"), because="new"),
            variables=lambda asked: asked.vars | {"site": "fra1"},
            before=lambda asked: sdk.ALLOW if asked.cause == "finish" else sdk.redirect(asked.to[1:], because="shorter"),
            run=lambda job: sdk.again(5000) if job == "sync" else None,
        )
        core = Core()
        admitted = core.ask(both, "discovery", request("new")).verdict.value
        self.assertEqual((admitted.states, admitted.order), (["wipe", "web"], "CHG-1"))
        rendered = SimpleNamespace(host=host("web"), document="user-data", vars='{"a": 1}')
        self.assertEqual(core.ask(both, "render", rendered), '{"a": 1, "site": "fra1"}')
        change = SimpleNamespace(host=host("web"), to=["wipe", "web"], cause="operator", actor="")
        self.assertEqual(core.ask(both, "transition", change).verdict, types.TransitionVerdict_Redirect(["web"]))
        self.assertEqual(core.ask(both, "schedule", "sync"), types.NextRun_AfterMs(5000))
        self.assertEqual(core.ask(both, "schedule", "other"), types.NextRun_AtPeriod())

    def test_events_are_done_from_the_front_until_one_fails(self):
        def handle(each):
            if each.kind == "bad":
                raise ValueError("no")

        core = Core()
        self.assertEqual(core.ask(plugin(event=handle), "events", [event(kind) for kind in ("a", "b", "bad", "c")]), 2)
        self.assertIsInstance(self.refused(core, plugin(event=handle), "events", [event("bad")]), types.Error_Failed)

    def test_a_hook_that_is_not_written_stops_the_build(self):
        with self.assertRaisesRegex(Exception, "names the hook `events`, but plugin.py has no function `event`"):
            Core().ask(plugin(), "events", [])

    def test_what_the_core_refuses_means_retry_where_that_can_help(self):
        missing = self.refused(Core(), booting(lambda _: sdk.hosts.get(9)))
        self.assertIn("CoreError: hosts.get: not-found", missing.value)
        down = self.refused(Core(), booting(lambda _: sdk.http.get("https://x/")))
        self.assertIsInstance(down, types.Error_Retry)

    def test_hosts_kv_and_http_speak_shortly(self):
        hosts = [host("web", id=id, metadata={"site": "fra1" if id < 3 else "ber1"}) for id in (1, 2, 3)]
        core = Core(hosts=hosts, http=lambda sent: (200, [("X-A", "b")], '{"grüße": 1}'.encode()))

        def hook():
            found = sdk.hosts.find("site", "fra1")
            self.assertEqual([each.id for each in found], [1, 2])
            self.assertEqual(sdk.hosts.apply(found[0], sdk.Patch(set={"owner.name": "me"})).metadata["owner"]["name"], "me")
            with self.assertRaises(sdk.CoreError) as conflict:
                sdk.hosts.apply(found[0], sdk.Patch())
            self.assertEqual((conflict.exception.kind, conflict.exception.detail), ("conflict", 4))
            sdk.kv.put_json("a", {"n": 1}, absent=True)
            self.assertEqual(sdk.kv.get_json("a"), {"n": 1})
            with self.assertRaisesRegex(sdk.CoreError, "conflict"):
                sdk.kv.put("a", "x", absent=True)
            answer = sdk.http.post("https://x/", json={"a": 1}, headers={"X-B": 1})
            self.assertEqual((answer.ok, answer.header("x-a"), answer.json()), (True, "b", {"grüße": 1}))

        core.run(hook)
        self.assertEqual(core.requests[0].headers, [("X-B", "1"), ("content-type", "application/json")])

    def test_outside_of_a_hook_nothing_can_be_asked(self):
        with self.assertRaisesRegex(RuntimeError, "call.config outside of a hook"):
            sdk.config()

    def test_output_clock_randomness_and_files_come_from_the_call(self):
        # In a process of its own: the shims are there to stay.
        script = (
            "import random, sys, time, datetime, os, logging\n"
            "from kiwispray import shims\n"
            "from kiwispray.testing import Core\n"
            "out = sys.__stdout__.write\n"
            "shims.install()\n"
            "def hook(_):\n"
            "    print('host', 7); logging.getLogger('a').warning('careful')\n"
            "    try: open('/etc/hostname')\n"
            "    except PermissionError as error: print(error)\n"
            "    try: import html.parser\n"
            "    except ImportError as error: print(error)\n"
            "    assert not os.path.exists('/')\n"
            "    return (time.time(), str(datetime.datetime.now()), str(datetime.date.today()), random.random(), os.urandom(4))\n"
            "core = Core(id='a', now_ms=86_400_000)\n"
            "called = lambda core: core.run(lambda: shims.called(hook, None))\n"
            "first, again = called(core), called(Core(id='a', now_ms=86_400_000))\n"
            "assert first[:3] == (86400.0, '1970-01-02 00:00:00', '1970-01-02'), first\n"
            "assert first == again and called(Core(id='b', now_ms=86_400_000))[3:] != first[3:]\n"
            "core.logged[4:] = []\n"
            "out(repr([(level, text[:20]) for level, text, _ in core.logged]))\n"
        )
        folder = Path(__file__).parent.parent
        ran = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
        lines = [("info", "host 7"), ("warn", "careful"), ("info", "a plugin has no file"), ("info", "import html at the t")]
        self.assertEqual((ran.stdout, ran.stderr), (repr(lines), ""))
