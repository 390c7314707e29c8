//! What one call of one plugin may do: the one place where grants are looked at.
//!
//! Invariant: whatever version of the contract a plugin speaks, and whichever way a change comes (the import `hosts`, or the
//! patch of an answer), it passes the same checks. Every refusal names the grant, or says why no grant helps.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::types::{FINISHED, NEW};
use super::{Edit, Grant, Hook, Patch, Run, parse_path};

/// The inventory state, which a discovery may give without a grant: its image writes nothing.
pub(crate) const DISCOVER: &str = "discover";
/// Metadata that decides which disk dies and how machines leave for their own: who changes it changes what an order does.
pub const ORDERING_METADATA: [&str; 2] = ["install_device", "local"];

/// What the operator grants a binding, beyond what is free. What it may reach over http stands with the plugin host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// What it may read and change of hosts.
    pub hosts: BTreeSet<Grant>,
    /// Whether it has a store of its own.
    pub kv: bool,
    /// Orders of one run; above, it stops and waits for `kiwispray plugin approve`.
    pub max_orders_per_run: u32,
}

/// What one call of one plugin may do.
#[derive(Debug)]
pub struct Allowance {
    /// The instance's name.
    pub plugin: Arc<str>,
    /// What it was granted.
    pub grants: Arc<Grants>,
    /// The hook that it runs in.
    pub hook: Hook,
    /// Whether anything comes of it.
    pub run: Run,
    /// Under which name its orders are counted: the same for every retry of the same call, and for calls that go on from it.
    pub call: String,
    orders: AtomicU32,
}

/// Why a plugin may not do something, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each is its sentence")]
pub enum Denied {
    #[error("reading hosts needs the grant `read`")]
    Read,
    #[error("changing the hostname needs the grant `hostname`")]
    Hostname,
    #[error("changing metadata needs the grant `metadata`")]
    Metadata,
    #[error("changing the metadata `{0}` changes what an order does, and needs the grant `states`")]
    OrderingMetadata(&'static str),
    #[error("changing states needs the grant `states`")]
    States,
    #[error("a finished host is installed again only with the grant `reinstall`")]
    Reinstall,
    #[error("a finished host is installed again only under an order's name that was never used for it")]
    Nameless,
    #[error("first states other than `discover` and `new` need the grant `states`")]
    FirstStates,
    #[error("an order's name without states names nothing")]
    OrderOfNothing,
    #[error("a plugin cannot order in a boot decision")]
    BootOrder,
    #[error("hosts are not changed in the hook `{0}`: changes travel in the answer")]
    ApplyInDecision(Hook),
    #[error("nothing is stored in the hook `{0}`: it is asked before anything is decided")]
    StoreInDecision(Hook),
    #[error("a store of its own needs the grant `kv`")]
    Kv,
    #[error(
        "more than {most} orders in one run need `kiwispray plugin approve {plugin}`: the grant is `max_orders_per_run`"
    )]
    TooManyOrders { plugin: Arc<str>, most: u32 },
    #[error(
        "it was stopped for wanting more orders than `max_orders_per_run`: `kiwispray plugin approve {plugin}` goes on"
    )]
    Stopped { plugin: Arc<str> },
    /// A backup was restored, and nobody approved since.
    #[error(
        "a backup was restored, and it may order again what was done since: `kiwispray plugin approve {plugin}` lets it"
    )]
    Restored { plugin: Arc<str> },
}

impl Allowance {
    /// For one call.
    #[must_use]
    pub fn new(plugin: Arc<str>, grants: Arc<Grants>, hook: Hook, run: Run, call: String) -> Self {
        Self { plugin, grants, hook, run, call, orders: AtomicU32::new(0) }
    }

    /// Counts one more order of this call. Returns how many that makes.
    pub fn count_order(&self) -> u32 {
        self.orders.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether it may read hosts.
    ///
    /// # Errors
    /// The missing grant.
    pub fn may_read(&self) -> Result<(), Denied> {
        self.needs(Grant::Read, Denied::Read)
    }

    /// Whether it may apply this patch, by the import `hosts`, to a host that is, or may be, installed, or to one that is not.
    ///
    /// # Errors
    /// The first grant that is missing, or that the hook allows no changes.
    pub fn may_apply(&self, patch: &Patch, is_installed: bool) -> Result<(), Denied> {
        self.may_read()?;
        if self.hook.is_decision() {
            return Err(Denied::ApplyInDecision(self.hook));
        }
        may_edit(patch, &self.grants.hosts)?;
        let Some(states) = &patch.states else { return Ok(()) };
        self.needs(Grant::States, Denied::States)?;
        let stays_finished = states.iter().all(|state| state == FINISHED);
        if is_installed && !stays_finished {
            self.needs(Grant::Reinstall, Denied::Reinstall)?;
            patch.order.as_ref().map(|_| ()).ok_or(Denied::Nameless)?;
        }
        Ok(())
    }

    /// The same, with what was taken from the plugin since the call began.
    ///
    /// # Errors
    /// As for [`Self::may_apply`].
    pub fn may_still_apply(
        &self,
        granted_now: &BTreeSet<Grant>,
        patch: &Patch,
        is_installed: bool,
    ) -> Result<(), Denied> {
        let hosts = self.grants.hosts.intersection(granted_now).copied().collect();
        let grants = Arc::new(Grants { hosts, ..Grants::clone(&self.grants) });
        let now = Self::new(Arc::clone(&self.plugin), grants, self.hook, self.run, self.call.clone());
        now.may_apply(patch, is_installed)
    }

    /// Whether it may read its own store.
    ///
    /// # Errors
    /// The missing grant.
    pub fn may_read_kv(&self) -> Result<(), Denied> {
        if self.grants.kv { Ok(()) } else { Err(Denied::Kv) }
    }

    /// Whether it may write its own store.
    ///
    /// # Errors
    /// The missing grant, or that the hook allows no changes.
    pub fn may_write_kv(&self) -> Result<(), Denied> {
        self.may_read_kv()?;
        if self.hook.is_decision() { Err(Denied::StoreInDecision(self.hook)) } else { Ok(()) }
    }

    fn needs(&self, grant: Grant, denied: Denied) -> Result<(), Denied> {
        if self.grants.hosts.contains(&grant) { Ok(()) } else { Err(denied) }
    }
}

/// Whether a plugin with these grants may give this patch in its answer.
pub(super) fn may_answer(patch: &Patch, hook: Hook, grants: &BTreeSet<Grant>) -> Result<(), Denied> {
    match hook {
        Hook::Boot if patch.states.is_some() || patch.order.is_some() => Err(Denied::BootOrder),
        Hook::Boot => may_edit(patch, grants),
        // A machine that nobody knows may be named and described. Its first states are an order that no run counts: the
        // operator bounds them by `limits.new_hosts_per_minute`.
        Hook::Discovery => {
            let is_harmless = |state: &String| state == NEW || state == DISCOVER;
            let harmless =
                patch.states.as_ref().is_none_or(|states| !states.is_empty() && states.iter().all(is_harmless));
            if !harmless && !grants.contains(&Grant::States) {
                return Err(Denied::FirstStates);
            }
            if patch.order.is_some() && patch.states.is_none() {
                return Err(Denied::OrderOfNothing);
            }
            may_change_orders(patch, grants)
        }
        // Their answers carry no patch.
        Hook::Render | Hook::Transition | Hook::Events | Hook::Schedule => Ok(()),
    }
}

/// Name and metadata.
fn may_edit(patch: &Patch, grants: &BTreeSet<Grant>) -> Result<(), Denied> {
    if patch.hostname != Edit::Keep && !grants.contains(&Grant::Hostname) {
        return Err(Denied::Hostname);
    }
    if (!patch.set.is_empty() || !patch.unset.is_empty()) && !grants.contains(&Grant::Metadata) {
        return Err(Denied::Metadata);
    }
    may_change_orders(patch, grants)
}

/// Metadata that changes what an order does.
fn may_change_orders(patch: &Patch, grants: &BTreeSet<Grant>) -> Result<(), Denied> {
    if grants.contains(&Grant::States) {
        return Ok(());
    }
    // The path as it will be applied: there is more than one way to write it.
    let first = |path: &str| parse_path(path).and_then(|keys| keys.into_iter().next());
    let paths = patch.set.iter().map(|(path, _)| path).chain(&patch.unset);
    let touched: BTreeSet<String> = paths.filter_map(|path| first(path)).collect();
    match ORDERING_METADATA.into_iter().find(|key| touched.contains(*key)) {
        Some(key) => Err(Denied::OrderingMetadata(key)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allowance(hosts: &[Grant], kv: bool, hook: Hook) -> Allowance {
        let grants = Grants { hosts: hosts.iter().copied().collect(), kv, max_orders_per_run: 1 };
        Allowance::new("p".into(), Arc::new(grants), hook, Run::Real, "c1".to_owned())
    }

    fn states(states: &[&str], order: Option<&str>) -> Patch {
        let states = Some(states.iter().map(|state| (*state).to_owned()).collect());
        Patch { states, order: order.map(str::to_owned), ..Patch::default() }
    }

    fn set(path: &str) -> Patch {
        Patch { set: vec![(path.to_owned(), json!("/dev/sdb"))], ..Patch::default() }
    }

    fn unset(path: &str) -> Patch {
        Patch { unset: vec![path.to_owned()], ..Patch::default() }
    }

    #[test]
    fn every_missing_grant_is_named() {
        use Grant::{Hostname, Metadata, Read, Reinstall, States};
        let named = Patch { hostname: Edit::Set("n1".to_owned()), ..Patch::default() };
        let cleared = Patch { hostname: Edit::Clear, ..Patch::default() };
        let all_but = |grant: Grant| -> Vec<Grant> {
            [Read, Hostname, Metadata, States, Reinstall].into_iter().filter(|other| *other != grant).collect()
        };
        for (without, patch, finished, name) in [
            (Read, Patch::default(), false, "`read`"),
            (Hostname, named, false, "`hostname`"),
            (Hostname, cleared, true, "`hostname`"),
            (Metadata, set("site"), false, "`metadata`"),
            (Metadata, unset("site"), true, "`metadata`"),
            (States, states(&["web"], None), false, "`states`"),
            (States, states(&[], None), true, "`states`"),
            (States, set("install_device"), false, "`states`"),
            (States, set("install_device.x"), false, "`states`"),
            (States, set(r"install\_device"), false, "`states`"),
            (States, unset("local"), true, "`states`"),
            (Reinstall, states(&["web"], Some("CHG1")), true, "`reinstall`"),
            (Reinstall, states(&["new"], Some("CHG1")), true, "`reinstall`"),
            (Reinstall, states(&["finished", "web"], Some("CHG1")), true, "`reinstall`"),
        ] {
            let refused = allowance(&all_but(without), false, Hook::Schedule).may_apply(&patch, finished).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused} names {name}");
            let granted = [Read, Hostname, Metadata, States, Reinstall];
            assert_eq!(allowance(&granted, false, Hook::Schedule).may_apply(&patch, finished), Ok(()), "{patch:?}");
        }
        assert!(allowance(&[], false, Hook::Boot).may_read_kv().unwrap_err().to_string().contains("`kv`"));
        assert!(allowance(&[], false, Hook::Schedule).may_write_kv().unwrap_err().to_string().contains("`kv`"));
    }

    #[test]
    fn a_finished_host_needs_an_order_with_a_name() {
        let all = [Grant::Read, Grant::States, Grant::Reinstall];
        let allowance = allowance(&all, false, Hook::Events);
        assert_eq!(allowance.may_apply(&states(&["web"], None), true), Err(Denied::Nameless));
        assert_eq!(allowance.may_apply(&states(&["web"], None), false), Ok(()));
        assert_eq!(allowance.may_apply(&states(&["finished"], None), true), Ok(()));
    }

    #[test]
    fn decision_hooks_read_and_write_nothing() {
        let all = [Grant::Read, Grant::Hostname, Grant::Metadata, Grant::States, Grant::Reinstall, Grant::HoldFinished];
        for hook in Hook::ALL {
            let allowance = allowance(&all, true, hook);
            assert_eq!((allowance.may_read(), allowance.may_read_kv()), (Ok(()), Ok(())), "{hook}");
            let writes = [allowance.may_apply(&Patch::default(), false), allowance.may_write_kv()];
            assert!(writes.iter().all(|write| write.is_err() == hook.is_decision()), "{hook}: {writes:?}");
        }
    }

    #[test]
    fn the_disk_that_dies_is_not_chosen_without_the_grant_in_answers_either() {
        let metadata = BTreeSet::from([Grant::Metadata, Grant::Hostname]);
        for hook in [Hook::Boot, Hook::Discovery] {
            for patch in [set("install_device"), set(r"\local"), unset("install_device"), unset("local.x")] {
                assert!(matches!(may_answer(&patch, hook, &metadata), Err(Denied::OrderingMetadata(_))), "{patch:?}");
            }
            assert_eq!(may_answer(&set("site"), hook, &metadata), Ok(()));
        }
    }

    #[test]
    fn an_order_by_name_is_nothing_for_answers_but_for_the_first_states_of_a_machine() {
        let all = BTreeSet::from([Grant::States, Grant::Reinstall]);
        let patch = states(&["web"], Some("CHG1"));
        assert_eq!(may_answer(&patch, Hook::Boot, &all), Err(Denied::BootOrder));
        assert_eq!(may_answer(&patch, Hook::Discovery, &all), Ok(()));
        assert_eq!(may_answer(&patch, Hook::Discovery, &BTreeSet::new()), Err(Denied::FirstStates));
        let nothing = Patch { states: None, ..patch };
        assert_eq!(may_answer(&nothing, Hook::Discovery, &all), Err(Denied::OrderOfNothing));
    }
}
