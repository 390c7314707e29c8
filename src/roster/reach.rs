//! What a binding allows, as lines that people can judge and two versions can be compared by.
use toml::Value;

use crate::config::{PluginBinding, PluginGrant};
use crate::hooks::{Grant, Hook, HookSet, OnError};
use crate::service::Reach;

use super::secrets::sources;

/// Everything that a plugin of this binding, asked in these hooks, may do.
pub(super) fn reach(binding: &PluginBinding, hooks: &HookSet) -> Vec<Reach> {
    let grant = &binding.grant;
    let mut lines: Vec<Reach> = hooks.iter().map(|hook| line(format!("hook: {hook}"), asked(*hook))).collect();
    lines.extend(Vec::from(binding.states.clone()).iter().map(|state| {
        let meaning = match state.as_str() {
            ALL => "is asked about hosts in every state but finished",
            FINISHED => "is asked about finished hosts, too",
            _ => "is asked about hosts in this state",
        };
        line(format!("state: {state}"), meaning)
    }));
    lines.push(place(binding));
    lines.push(match binding.on_error {
        OnError::Hold => line("on error: hold".to_owned(), "hosts wait while it fails"),
        OnError::Skip => {
            line("on error: skip".to_owned(), "while it fails the next plugin decides, and it guards nothing")
        }
    });
    lines.extend(grant.hosts.iter().map(|grant| {
        let (word, meaning) = about_hosts(*grant);
        line(format!("hosts: {word}"), meaning)
    }));
    if grant.hosts.contains(&Grant::States) {
        let meaning =
            format!("stops after {} orders in one run, and waits for your approval", grant.max_orders_per_run);
        lines.push(Reach { what: format!("orders per run: {}", grant.max_orders_per_run), meaning });
    }
    if grant.kv {
        lines.push(line("kv".to_owned(), "keeps data of its own in the server's store"));
    }
    if grant.catalog {
        lines.push(line("catalog".to_owned(), "learns the names of images and templates"));
    }
    lines.extend(http(grant));
    lines.extend(grant.signing.iter().map(|(name, secret)| {
        line(format!("signing: {name}{}", from(secret)), "has texts signed with this secret, which it never sees")
    }));
    lines
}

const FINISHED: &str = "finished";
const ALL: &str = "*";
const EVERYWHERE: &str = "where: all hosts";

/// The hosts that it is asked and told about.
fn place(binding: &PluginBinding) -> Reach {
    let fields = binding.selector_text.iter().map(|(field, value)| format!("{field} = {value}"));
    let fields: Vec<String> = fields.collect();
    if fields.is_empty() {
        return line(EVERYWHERE.to_owned(), "is asked about all hosts");
    }
    line(format!("where: {}", fields.join(" and ")), "is asked about these hosts only")
}

/// Where a secret comes from; never what it is.
fn from(secret: &Value) -> String {
    let sources = secret.as_str().map(sources).unwrap_or_default();
    if sources.is_empty() { ", as written".to_owned() } else { format!(" from file {}", sources.join(" and file ")) }
}

/// One line for each method and URL, and each header that the server adds.
fn http(grant: &PluginGrant) -> Vec<Reach> {
    let mut lines = Vec::new();
    for rule in &grant.http {
        let url = rule.get("url").and_then(Value::as_str).unwrap_or("(no url)");
        let methods: Vec<&str> = match rule.get("methods").and_then(Value::as_array) {
            Some(methods) => methods.iter().filter_map(Value::as_str).collect(),
            None => vec!["GET"],
        };
        lines.extend(methods.iter().map(|method| {
            let meaning =
                if matches!(*method, "GET" | "HEAD") { "reads from this server" } else { "writes to this server" };
            line(format!("http: {method} {url}"), meaning)
        }));
        let headers = rule.get("headers").and_then(Value::as_table);
        lines.extend(headers.into_iter().flatten().map(|(name, secret)| {
            line(
                format!("http: header {name} for {url}{}", from(secret)),
                "the server adds this header, whose value the plugin never sees",
            )
        }));
        if url.starts_with("https:") {
            lines.push(match rule.get("ca_file").and_then(Value::as_str) {
                Some(file) => line(
                    format!("http: certificate of {url} by file {file}"),
                    "whoever has a certificate of these authorities is believed",
                ),
                None => line(
                    format!("http: certificate of {url} by the system"),
                    "whoever has a certificate that this machine trusts is believed",
                ),
            });
        }
    }
    lines
}

fn line(what: String, meaning: &str) -> Reach {
    Reach { what, meaning: meaning.to_owned() }
}

fn asked(hook: Hook) -> &'static str {
    match hook {
        Hook::Boot => "decides what hosts boot, or that they wait",
        Hook::Discovery => "decides what becomes of unknown machines",
        Hook::Render => "adds variables to documents",
        Hook::Transition => "may refuse or redirect changes of states",
        Hook::Events => "is told what happened",
        Hook::Schedule => "runs now and then",
    }
}

fn about_hosts(grant: Grant) -> (&'static str, &'static str) {
    match grant {
        Grant::Read => ("read", "reads all hosts"),
        Grant::Hostname => ("hostname", "changes names of hosts"),
        Grant::Metadata => ("metadata", "changes metadata of hosts"),
        Grant::States => ("states", "orders images for hosts that are not finished: their disks may be erased"),
        Grant::Reinstall => ("reinstall", "orders images for finished hosts: running systems may be erased"),
        Grant::HoldFinished => ("hold-finished", "may keep finished hosts from booting"),
    }
}

/// What `new` allows that `old` does not.
pub(super) fn beyond(new: &[Reach], old: &[Reach]) -> Vec<Reach> {
    new.iter().filter(|line| !old.iter().any(|known| covers(known, line))).cloned().collect()
}

/// More orders per run cover fewer, all hosts some of them, and all states but `finished` each of them.
fn covers(known: &Reach, line: &Reach) -> bool {
    let orders = |line: &Reach| line.what.strip_prefix("orders per run: ").and_then(|most| most.parse::<u32>().ok());
    match (orders(known), orders(line)) {
        (Some(known), Some(line)) => line <= known,
        _ => {
            let state = line.what.strip_prefix("state: ");
            known.what == line.what
                || (known.what == EVERYWHERE && line.what.starts_with("where: "))
                || (known.what.strip_prefix("state: ") == Some(ALL) && state.is_some_and(|state| state != FINISHED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn lines(text: &str) -> Vec<Reach> {
        let table = toml::from_str(text).unwrap();
        let binding = Config::binding(std::path::Path::new("x.toml"), table).unwrap();
        reach(&binding, &HookSet::from([Hook::Events]))
    }

    #[test]
    fn what_a_binding_allows_is_told_in_words() {
        let lines = lines(
            "name = \"netbox\"\nstates = [\"*\", \"finished\"]\n[grant]\nhosts = [\"read\", \"states\", \"reinstall\"]\nkv = true\n\
             [[grant.http]]\nurl = \"https://netbox/api/\"\nmethods = [\"GET\", \"PATCH\"]\n\
             headers = { Authorization = \"Bearer x\" }\n[grant.signing]\nhook = \"${file:/x}\"\n",
        );
        let told: Vec<String> = lines.iter().map(|line| format!("{} - {}", line.what, line.meaning)).collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn only_more_is_more() {
        let few = lines("name = \"a\"\n[grant]\nhosts = [\"states\"]\nmax_orders_per_run = 2\n");
        let many = lines("name = \"a\"\n[grant]\nhosts = [\"states\", \"read\"]\nmax_orders_per_run = 9\nkv = true\n");
        let what = |lines: Vec<Reach>| lines.into_iter().map(|line| line.what).collect::<Vec<_>>();
        assert_eq!(what(beyond(&many, &few)), ["hosts: read", "orders per run: 9", "kv"]);
        assert_eq!(what(beyond(&few, &many)), [""; 0]);
        let some = lines("name = \"a\"\nstates = [\"web\"]\nwhere = { \"metadata.site\" = \"fra1\" }\n");
        let all = lines("name = \"a\"\n");
        assert_eq!(what(beyond(&all, &some)), ["state: *", "where: all hosts"]);
        assert_eq!(what(beyond(&some, &all)), [""; 0]);
        let finished = lines("name = \"a\"\nstates = [\"*\", \"finished\"]\n");
        assert_eq!(what(beyond(&finished, &all)), ["state: finished"]);
    }

    #[test]
    fn what_is_swapped_is_more() {
        let text = "name = \"a\"\non_error = \"hold\"\nwhere = { \"metadata.site\" = \"fra1\" }\nstates = [\"web\"]\n\
                    [grant.signing]\nhook = \"${file:/key}\"\n[[grant.http]]\nurl = \"https://a/\"\nmethods = [\"GET\"]\n\
                    ca_file = \"/ca\"\nheaders = { A = \"Bearer ${file:/token}\" }\n";
        let swaps = [
            ("\"hold\"", "\"skip\""),
            ("fra1", "ams1"),
            ("\"web\"", "\"db\""),
            ("/key", "/other"),
            ("\"/ca\"", "\"/other\""),
            ("ca_file = \"/ca\"", ""),
            ("/token", "/other"),
        ];
        for (old, new) in swaps {
            let swapped = text.replace(old, new);
            assert_ne!(swapped, text);
            assert_eq!(beyond(&lines(&swapped), &lines(text)).len(), 1, "{old} to {new}");
        }
    }
}
