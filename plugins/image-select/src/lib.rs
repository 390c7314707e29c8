//! Gives new machines their first states, by rules from the configuration.
//!
//! The invariant: only a host whose whole queue is `new` is ever touched, and a host gets the queue of a rule once. Whoever
//! puts a host back to `new` finds it waiting.
mod rules;

use kiwispray_sdk::ask::hosts::HostsError;
use kiwispray_sdk::ask::{self, Level};
use kiwispray_sdk::select::Subject;
use kiwispray_sdk::{
    BootRequest, ConfigProblem, Description, DiscoveryDecision, Error, Event, KnownHost, NextRun, Patch, Plugin, admit,
};

use crate::rules::{NEW, Rules, problems, schema};

/// Looks at all waiting hosts, for what no event tells: the rules themselves have changed.
const LOOK: &str = "look";
const LOOK_PERIOD_S: u32 = 300;
/// Hosts asked for at a time.
const PAGE_HOSTS: u32 = 100;
/// A host that changes all the time is left for the next look.
const TRIES: usize = 3;

struct ImageSelect;

impl Plugin for ImageSelect {
    fn describe() -> Description {
        let about = Description::new(
            "image-select",
            env!("CARGO_PKG_VERSION"),
            "Gives new machines their first states, by rules over DMI, MACs and metadata",
        );
        let kinds = ["registered", "identity_learned", "identity_set", "metadata_set", "hostname_set", "finished"];
        let about = kinds.into_iter().fold(about, |about, kind| about.event(kind));
        about.config_schema(&schema()).job(LOOK, LOOK_PERIOD_S)
    }

    fn check_config(config: &str) -> Vec<ConfigProblem> {
        problems(config)
    }

    fn discovered(request: BootRequest) -> Result<DiscoveryDecision, Error> {
        if !waits(&request.host) {
            return Ok(admit(Patch::default()).because("it has states already"));
        }
        let machine = Subject::booting(&request)?;
        let rules: Rules = ask::config()?;
        let Some(rule) = rules.first(&machine) else {
            return Ok(admit(Patch::default()).because("no rule fits: it stays new"));
        };
        Ok(admit(rule.patch(&machine)).because(format!("rule `{}` gives {}", rule.name, rule.give.join(","))))
    }

    fn event(event: Event) -> Result<(), Error> {
        match event.host {
            Some(host) if waits(&host) => give(&ask::config()?, host),
            // Not waiting, or forgotten: nothing to give.
            Some(_) | None => Ok(()),
        }
    }

    fn run(_job: &str) -> Result<NextRun, Error> {
        let rules: Rules = ask::config()?;
        let mut after = None;
        loop {
            let page = ask::hosts::page(after, PAGE_HOSTS)?;
            for host in page.hosts.into_iter().filter(waits) {
                give(&rules, host)?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(NextRun::AtPeriod);
            }
        }
    }
}

/// Whether nobody has given it anything to do.
fn waits(host: &KnownHost) -> bool {
    host.states == [NEW]
}

/// Gives a waiting host what the first rule says that fits it.
fn give(rules: &Rules, mut host: KnownHost) -> Result<(), Error> {
    for _ in 0..TRIES {
        let machine = Subject::of(&host)?;
        let Some(rule) = rules.first(&machine) else { return Ok(()) };
        let patch = rule.patch(&machine);
        if patch == Patch::default() {
            return Ok(());
        }
        let id = host.id.to_string();
        match ask::hosts::apply(&host, patch) {
            Ok(_) => {
                ask::note(&format!("host {id}: rule `{}` gives {}", rule.name, rule.give.join(",")));
                ask::log(Level::Info, "a rule gave a host its states", &[("host", &id), ("rule", &rule.name)]);
                return Ok(());
            }
            // Somebody was quicker. What they did may make it another rule's, or nobody's.
            Err(HostsError::Conflict(_)) => match ask::hosts::get(host.id) {
                Ok(now) if waits(&now) => host = now,
                Ok(_) | Err(HostsError::NotFound) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            Err(HostsError::NotFound) => return Ok(()),
            // Carried out before, or not granted: the host goes on waiting, and other hosts get theirs.
            Err(HostsError::Denied(why) | HostsError::Invalid(why)) => {
                ask::log(Level::Warn, "a host stays new", &[("host", &id), ("rule", &rule.name), ("why", &why)]);
                return Ok(());
            }
            Err(error @ HostsError::Unavailable(_)) => return Err(error.into()),
        }
    }
    Ok(())
}

kiwispray_sdk::plugin!(ImageSelect: discovery, events, schedule);

#[cfg(test)]
mod tests {
    use kiwispray_sdk::DiscoveryVerdict;
    use kiwispray_sdk::testing::{Core, event, host, request};

    use super::*;

    const RULES: &str = r#"{"rules": [
        {"name": "web", "when": {"metadata.role": "web"}, "give": ["wipe", "web"], "set": {"tier": 1}},
        {"name": "lab", "when": {"product": "KVM*"}, "give": ["new"], "set": {"lab": true}}]}"#;

    fn core() -> Core {
        Core::new().config(RULES)
    }

    fn waiting(id: u64, metadata: &str) -> KnownHost {
        KnownHost { id, metadata: metadata.to_owned(), ..host(NEW) }
    }

    fn told(core: &Core, id: u64) -> Result<(), Error> {
        core.run(|| ImageSelect::event(event("metadata_set", core.host_now(id))))
    }

    #[test]
    fn a_discovered_machine_gets_the_states_of_its_rule_and_is_told_why() {
        let mut boot = request(host(NEW));
        boot.facts.push(("product".into(), "kvm guest".into()));
        boot.host.metadata = r#"{"role": "web"}"#.into();
        let decision = core().run(|| ImageSelect::discovered(boot)).unwrap();
        assert_eq!(decision.reason, "rule `web` gives wipe,web");
        let DiscoveryVerdict::Admit(patch) = decision.verdict else { panic!("refused") };
        assert_eq!(patch.states.unwrap(), ["wipe", "web"]);
        assert_eq!(patch.order.as_deref(), Some("web: wipe,web"), "the order that is not given again later");
        assert_eq!(patch.set, [("tier".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_discovered_machine_without_a_rule_stays_new_and_states_of_others_stand() {
        let decision = core().run(|| ImageSelect::discovered(request(host(NEW)))).unwrap();
        assert!(decision.reason.contains("stays new"));
        assert_eq!(decision.verdict, DiscoveryVerdict::Admit(Patch::default()));
        let mut boot = request(host("burn-in"));
        boot.host.metadata = r#"{"role": "web"}"#.into();
        let decision = core().run(|| ImageSelect::discovered(boot)).unwrap();
        assert_eq!(decision.verdict, DiscoveryVerdict::Admit(Patch::default()));
    }

    #[test]
    fn a_waiting_host_that_comes_to_fit_gets_its_states_once() {
        let core = core().host(waiting(7, r#"{"role": "web"}"#));
        told(&core, 7).unwrap();
        assert_eq!(core.host_now(7).unwrap().states, ["wipe", "web"]);
        assert_eq!(core.applied()[0].1.order.as_deref(), Some("web: wipe,web"));
        // An operator puts it back to wait: it waits.
        let core = core.clone().host(waiting(7, r#"{"role": "web"}"#));
        told(&core, 7).unwrap();
        assert_eq!(core.host_now(7).unwrap().states, ["new"]);
        assert!(core.log().iter().any(|(level, text)| *level == Level::Warn && text == "a host stays new"));
    }

    #[test]
    fn no_host_that_is_not_new_is_ever_touched() {
        for states in [vec!["finished"], vec!["web"], vec!["discover", "new"], vec![]] {
            let mut machine = waiting(7, r#"{"role": "web"}"#);
            machine.states = states.into_iter().map(str::to_owned).collect();
            let core = core().host(machine);
            told(&core, 7).unwrap();
            core.run(|| ImageSelect::run(LOOK)).unwrap();
            assert!(core.applied().is_empty());
        }
        assert_eq!(core().run(|| ImageSelect::event(event("forgotten", None))), Ok(()));
    }

    #[test]
    fn a_host_that_changed_meanwhile_is_looked_at_again() {
        let old = waiting(7, r#"{"role": "web"}"#);
        let now = KnownHost { revision: old.revision + 1, ..waiting(7, r#"{"role": "db"}"#) };
        let core = core().host(now);
        core.run(|| ImageSelect::event(event("metadata_set", Some(old.clone())))).unwrap();
        assert!(core.applied().is_empty(), "it is no web host any more");
        let core = core.host(KnownHost { revision: 9, ..old.clone() });
        core.run(|| ImageSelect::event(event("metadata_set", Some(old)))).unwrap();
        assert_eq!(core.host_now(7).unwrap().state(), "wipe");
    }

    #[test]
    fn a_rule_that_only_waits_sets_its_metadata_once_and_orders_nothing() {
        let mut machine = waiting(7, "{}");
        machine.more = r#"{"hardware": {"product": "KVM"}}"#.into();
        let core = core().host(machine);
        told(&core, 7).unwrap();
        told(&core, 7).unwrap();
        assert_eq!(core.applied().len(), 1);
        let host = core.host_now(7).unwrap();
        assert_eq!((host.states, host.metadata.as_str()), (vec!["new".to_owned()], r#"{"lab":true}"#));
    }

    #[test]
    fn the_look_reaches_every_page_and_one_refused_host_stops_nobody() {
        let core = (1..=250).fold(core(), |core, id| core.host(waiting(id, r#"{"role": "web"}"#)));
        assert_eq!(core.run(|| ImageSelect::run(LOOK)), Ok(NextRun::AtPeriod));
        assert_eq!(core.applied().len(), 250);
        let core = core.host(waiting(3, r#"{"role": "web"}"#)).host(waiting(260, r#"{"role": "web"}"#));
        core.run(|| ImageSelect::run(LOOK)).unwrap();
        assert_eq!(core.host_now(3).unwrap().state(), "new");
        assert_eq!(core.host_now(260).unwrap().state(), "wipe");
    }

    #[test]
    fn odd_metadata_fits_nothing_and_breaks_nothing() {
        for odd in [r#"{"role": null}"#, r#"{"role": {"web": 1}}"#, r#"{"role": ""}"#, r#"{"role": [[], {}, 7]}"#] {
            let core = core().host(waiting(7, odd));
            told(&core, 7).unwrap();
            assert!(core.applied().is_empty(), "{odd}");
        }
    }
}
