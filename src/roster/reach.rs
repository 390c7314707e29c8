//! What a binding allows, as lines that people can judge and two versions can be compared by.
use toml::Value;

use crate::config::{PluginBinding, PluginGrant};
use crate::hooks::{Grant, Hook, HookSet};
use crate::service::Reach;

/// Everything that a plugin of this binding, asked in these hooks, may do.
pub(super) fn reach(binding: &PluginBinding, hooks: &HookSet) -> Vec<Reach> {
    let grant = &binding.grant;
    let mut lines: Vec<Reach> = hooks.iter().map(|hook| line(format!("hook: {hook}"), asked(*hook))).collect();
    if binding.states.takes(FINISHED) {
        lines.push(line("state: finished".to_owned(), "is asked about finished hosts, too"));
    }
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
    lines.extend(
        grant
            .signing
            .keys()
            .map(|name| line(format!("signing: {name}"), "has texts signed with this secret, which it never sees")),
    );
    lines
}

const FINISHED: &str = "finished";

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
        lines.extend(headers.into_iter().flat_map(|headers| headers.keys()).map(|name| {
            line(
                format!("http: header {name} for {url}"),
                "the server adds this header, whose value the plugin never sees",
            )
        }));
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

/// More orders per run cover fewer.
fn covers(known: &Reach, line: &Reach) -> bool {
    let orders = |line: &Reach| line.what.strip_prefix("orders per run: ").and_then(|most| most.parse::<u32>().ok());
    match (orders(known), orders(line)) {
        (Some(known), Some(line)) => line <= known,
        _ => known.what == line.what,
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
    }
}
