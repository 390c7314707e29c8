"""Does in every hook what the cases ask of it."""

import datetime
import random
import time

from kiwispray import (
    ALLOW, PASS, About, CoreError, Invalid, Patch, Retry, admit, again, assign, call, catalog, config, deny, hosts, http, image,
    kv, log, note, redirect, refuse, signing,
)

about = About(name="probe", version="1", summary="for tests", events=["*"], jobs={"sync": 60})


def check_config(config):
    return [("/bad", "is bad")] if config.get("bad") else []


def boot(request):
    host = request.host
    print("asked about", host.id, request.facts)
    match host.metadata.get("do"):
        case "throw":
            return host.nothing.there
        case "nonsense":
            return "web"
        case "invalid":
            raise Invalid("no such rack")
        case "retry":
            raise Retry("later", 1234)
        case "clock":
            now = datetime.datetime.now(datetime.timezone.utc)
            note(f"now {round(time.time() * 1000)} {now.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}")
            note(f"random {random.random()} {random.random()}")
            return PASS
        case "image":
            return image(
                "web",
                append=["quiet"],
                vars={"has": catalog.has_image("web"), "lacks": catalog.has_image("db"), "site": config().get("site")},
                because=f"for {host.metadata['who']}",
                patch=Patch(hostname="n1", set={"a.b": [1, None]}, unset=["c"]),
            )
        case "plain":
            return image("web", append=["quiet"])
    return PASS


def discovered(request):
    if "asset" not in request.facts:
        return refuse("no asset tag")
    return admit(assign("wipe,web", f"asset {request.facts['asset']}"), because="its tag is known")


def variables(request):
    return request.vars | {"greeting": f"grüße, {request.document}"}


def before(request):
    if request.cause == "finish":
        return ALLOW
    if "wipe" in request.to:
        return redirect([state for state in request.to if state != "wipe"], because=f"by {request.actor}")
    return deny("nothing to do")


def event(event):
    if event.kind == "bad":
        raise ValueError(f"no {event.detail['what']}")
    log.info("handled", kind=event.kind)


def run(job):
    found = hosts.find("metadata.site", "fra1")[0]
    changed = hosts.apply(found, Patch(set={"seen.at": call.now_ms()}))
    answer = http.post("https://cmdb.example.org/api/sync", json={"host": changed.id, "name": "ü€𝄞"})
    last = {"status": answer.status, "name": answer.json()["name"], "before": kv.get_json(f"{job}/last")}
    kv.put_json(f"{job}/last", last)
    note(f"signed {signing.hmac_sha256('hook', 'data').hex()}")
    try:
        kv.put(f"{job}/last", "0", absent=True)
    except CoreError as refused:
        note(f"refused {refused.kind}")
    return again(2000)
