//! What the probes are asked and have to answer: the same in each language.

use serde_json::{Value, json};

/// What differs between the languages.
pub(crate) struct Words {
    /// Where the exception of `throw` is, in the words of the language.
    pub(crate) thrown_at: &'static str,
    /// What `nonsense` is told it should have been.
    pub(crate) wanted: &'static str,
    /// What the call `case` draws: it follows from the call's id alone, on every machine.
    pub(crate) drawn: &'static str,
}

/// The cases, by name.
pub(crate) fn cases(words: &Words) -> Vec<(&'static str, Value)> {
    let boot = |what: &str, expect: Value| {
        let request = json!({"host": {"states": ["web"], "metadata": {"do": what, "who": "you"}}});
        let core = json!({"images": ["web"], "now_ms": 1_700_000_000_123_u64, "call_id": "case"});
        json!({"hook": "boot", "request": request, "core": core, "expect": expect})
    };
    let asked = |hook: &str, request: Value, expect: Value| json!({"hook": hook, "request": request, "expect": expect});
    let failed = |text: &str| json!({"error": {"class": "failed", "text": text}});
    let event = |kind: &str| json!({"kind": kind, "detail": {"what": "way"}});
    vec![
        ("an exception is failed with its place", boot("throw", failed(words.thrown_at))),
        ("nonsense is failed and says what is wanted", boot("nonsense", failed(words.wanted))),
        ("invalid is an answer", boot("invalid", json!({"error": {"class": "invalid", "text": "no such rack"}}))),
        ("retry is an answer", boot("retry", json!({"error": {"class": "retry", "text": "later"}}))),
        (
            "clock and randomness are the call's",
            boot(
                "clock",
                json!({"verdict": "pass", "notes": ["now 1700000000123 2023-11-14T22:13:20.123Z", words.drawn]}),
            ),
        ),
        (
            "an image has all that it can have",
            boot(
                "image",
                json!({
                    "verdict": {"image": "web", "append": ["quiet"], "vars": {"has": true, "lacks": false, "site": "fra1"}},
                    "patch": {"hostname": "n1", "set": {"a.b": [1, null]}, "unset": ["c"]},
                    "reason": "for you"
                }),
            ),
        ),
        (
            "a machine is admitted with a queue",
            asked(
                "discovery",
                json!({"facts": {"asset": "A7"}}),
                json!({
                    "verdict": "admit", "reason": "its tag is known",
                    "patch": {"states": ["wipe", "web"], "order": "asset A7"}
                }),
            ),
        ),
        ("a machine is refused", asked("discovery", json!({}), json!({"verdict": {"refuse": "no asset tag"}}))),
        (
            "variables are added",
            asked(
                "render",
                json!({"document": "user-data", "vars": {"a": 1}}),
                json!({"variables": {"a": 1, "greeting": "grüße, user-data"}}),
            ),
        ),
        (
            "a change is allowed",
            asked("transition", json!({"to": ["finished"], "cause": "finish"}), json!({"verdict": "allow"})),
        ),
        (
            "a change is redirected",
            asked(
                "transition",
                json!({"to": ["wipe", "web"], "actor": "ann"}),
                json!({"verdict": {"redirect": ["web"]}, "reason": "by ann"}),
            ),
        ),
        ("a change is denied", asked("transition", json!({"to": []}), json!({"verdict": {"deny": "nothing to do"}}))),
        (
            "events are done until one fails",
            asked("events", json!({"events": [event("a"), event("b"), event("bad"), event("c")]}), json!({"done": 2})),
        ),
        ("the first event's failure is told", asked("events", json!({"events": [event("bad")]}), failed("no way"))),
        ("a job uses all that it was granted", job()),
    ]
}

fn job() -> Value {
    json!({
        "hook": "schedule",
        "request": {"job": "sync"},
        "core": {
            "hosts": [{"id": 4, "states": ["web"], "metadata": {"site": "fra1"}}],
            "kv": {"sync/last": {"status": 0}},
            "http": [{
                "method": "POST", "url": "https://cmdb.example.org/api/sync",
                "response": {"status": 201, "json": {"name": "grüße €𝄞"}}
            }],
            "secrets": {"hook": "key"},
            "now_ms": 1_700_000_000_123_u64
        },
        "expect": {
            "next": {"after-ms": 2000},
            // HMAC-SHA256 of `data` by `key`.
            "notes": [
                "signed 5031fe3d989c6d1537a013fa6e739da23463fdaec3b70137d828e36ace221bd0",
                "refused conflict"
            ],
            "http": [{"method": "POST", "json": {"host": 4, "name": "ü€𝄞"}}],
            "kv": {"sync/last": {"status": 201, "name": "grüße €𝄞", "before": {"status": 0}}},
            "hosts": {"4": {"metadata": {"site": "fra1", "seen": {"at": 1_700_000_000_123_u64}}}}
        }
    })
}
