//! Answers in few words: `Ok(image("web").because("rack 7"))`.
use serde_json::Value;

use crate::{
    BootDecision, BootPlan, BootVerdict, Description, DiscoveryDecision, DiscoveryVerdict, Edit, Hold, ImageBoot, Job,
    Patch, TemplateBoot, TransitionDecision, TransitionVerdict,
};

/// No opinion: the next plugin is asked.
pub const PASS: BootDecision = BootDecision { verdict: BootVerdict::Pass, patch: None, reason: String::new() };

/// Boots an image. One that writes a disk is only booted if it is the host's current state.
#[must_use]
pub fn image(name: impl Into<String>) -> BootDecision {
    decide(BootVerdict::Boot(BootPlan::Image(ImageBoot { image: name.into(), append: Vec::new(), vars: Vec::new() })))
}

/// Boots a script template.
#[must_use]
pub fn template(name: impl Into<String>) -> BootDecision {
    decide(BootVerdict::Boot(BootPlan::Template(TemplateBoot { template: name.into(), vars: Vec::new() })))
}

/// Boots the local disk.
#[must_use]
pub fn local_disk() -> BootDecision {
    decide(BootVerdict::Boot(BootPlan::LocalDisk))
}

/// Lets the host wait and ask again, with a text on its console.
#[must_use]
pub fn hold(text: impl Into<String>) -> BootDecision {
    decide(BootVerdict::Hold(Hold { text: text.into(), again_after_ms: None }))
}

/// Takes a new machine in, with a patch or with `Patch::default()`. An order's name in it counts as carried out: the same
/// wish is refused later.
#[must_use]
pub fn admit(patch: Patch) -> DiscoveryDecision {
    DiscoveryDecision { verdict: DiscoveryVerdict::Admit(patch), reason: String::new() }
}

/// Does not take a new machine in; it waits, with this text on its console.
#[must_use]
pub fn refuse(text: impl Into<String>) -> DiscoveryDecision {
    DiscoveryDecision { verdict: DiscoveryVerdict::Refuse(text.into()), reason: String::new() }
}

/// Lets a state change happen.
pub const ALLOW: TransitionDecision = TransitionDecision { verdict: TransitionVerdict::Allow, reason: String::new() };

/// Refuses a state change. A finish is committed as done all the same; the host is then held.
#[must_use]
pub fn deny(why: impl Into<String>) -> TransitionDecision {
    TransitionDecision { verdict: TransitionVerdict::Deny(why.into()), reason: String::new() }
}

/// Lets a state change lead to another queue: `redirect("burn-in,web")` or `redirect(["burn-in", "web"])`.
#[must_use]
pub fn redirect(states: impl Queue) -> TransitionDecision {
    TransitionDecision { verdict: TransitionVerdict::Redirect(states.states()), reason: String::new() }
}

/// Gives a host a queue of states, for `discovery` and for `ask::hosts::apply`: `assign("wipe,web", "CHG-4711")`.
///
/// `why` names the wish ([`Patch::order`]): the core carries out a wish once per host and refuses its repeat, so a wish
/// that stays where the plugin reads it does not install in a circle.
#[must_use]
pub fn assign(states: impl Queue, why: impl Into<String>) -> Patch {
    Patch::default().states(states.states()).order(why)
}

/// A queue of states, as people write it (`"wipe,web"`) or as a list.
pub trait Queue {
    /// The states; the first is the current one.
    fn states(self) -> Vec<String>;
}

impl Queue for &str {
    fn states(self) -> Vec<String> {
        self.split(',').map(str::trim).filter(|state| !state.is_empty()).map(str::to_owned).collect()
    }
}

impl Queue for &String {
    fn states(self) -> Vec<String> {
        self.as_str().states()
    }
}

impl Queue for String {
    fn states(self) -> Vec<String> {
        self.as_str().states()
    }
}

impl<const N: usize> Queue for [&str; N] {
    fn states(self) -> Vec<String> {
        self.map(str::to_owned).to_vec()
    }
}

impl Queue for &[String] {
    fn states(self) -> Vec<String> {
        self.to_vec()
    }
}

impl Queue for Vec<String> {
    fn states(self) -> Vec<String> {
        self
    }
}

impl Queue for Vec<&str> {
    fn states(self) -> Vec<String> {
        self.into_iter().map(str::to_owned).collect()
    }
}

fn decide(verdict: BootVerdict) -> BootDecision {
    BootDecision { verdict, patch: None, reason: String::new() }
}

impl BootDecision {
    /// Says why, in a few words: shown by `kiwispray host explain`.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Adds a kernel argument. Only images have any; other verdicts stay as they are.
    #[must_use]
    pub fn append(mut self, argument: impl Into<String>) -> Self {
        if let BootVerdict::Boot(BootPlan::Image(boot)) = &mut self.verdict {
            boot.append.push(argument.into());
        }
        self
    }

    /// Adds a variable for the image's or the template's script; other verdicts stay as they are.
    #[must_use]
    pub fn var(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let var = (name.into(), value.into().to_string());
        match &mut self.verdict {
            BootVerdict::Boot(BootPlan::Image(boot)) => boot.vars.push(var),
            BootVerdict::Boot(BootPlan::Template(boot)) => boot.vars.push(var),
            BootVerdict::Boot(BootPlan::LocalDisk) | BootVerdict::Pass | BootVerdict::Hold(_) => {}
        }
        self
    }

    /// When a held host asks again; other verdicts stay as they are.
    #[must_use]
    pub fn again_after_ms(mut self, ms: u32) -> Self {
        if let BootVerdict::Hold(hold) = &mut self.verdict {
            hold.again_after_ms = Some(ms);
        }
        self
    }

    /// Changes the host: later plugins see it, and it is committed with the decision.
    #[must_use]
    pub fn patch(mut self, patch: Patch) -> Self {
        self.patch = Some(patch);
        self
    }
}

impl DiscoveryDecision {
    /// Says why, in a few words.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

impl TransitionDecision {
    /// Says why, in a few words.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }
}

impl Description {
    /// A plugin that takes any configuration, wants no events and runs no jobs.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>, summary: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            summary: summary.into(),
            config_schema: "{}".to_owned(),
            events: Vec::new(),
            jobs: Vec::new(),
            more: "{}".to_owned(),
        }
    }

    /// Sets the JSON Schema of the configuration.
    #[must_use]
    pub fn config_schema(mut self, schema: &Value) -> Self {
        self.config_schema = schema.to_string();
        self
    }

    /// Wants the events of a kind (`finished`, `failed`, …); `*` for all.
    #[must_use]
    pub fn event(mut self, kind: impl Into<String>) -> Self {
        self.events.push(kind.into());
        self
    }

    /// Has a job that is run again and again.
    #[must_use]
    pub fn job(mut self, name: impl Into<String>, period_s: u32) -> Self {
        self.jobs.push(Job { name: name.into(), period_s });
        self
    }
}

impl Default for Edit {
    fn default() -> Self {
        Self::Keep
    }
}

impl Default for Patch {
    /// Changes nothing.
    fn default() -> Self {
        Self { hostname: Edit::Keep, states: None, order: None, set: Vec::new(), unset: Vec::new() }
    }
}

impl Patch {
    /// Names the host.
    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Edit::Set(name.into());
        self
    }

    /// Removes the host's name.
    #[must_use]
    pub fn clear_hostname(mut self) -> Self {
        self.hostname = Edit::Clear;
        self
    }

    /// Replaces the queue of states; empty means finished.
    #[must_use]
    pub fn states<S: Into<String>>(mut self, states: impl IntoIterator<Item = S>) -> Self {
        self.states = Some(states.into_iter().map(Into::into).collect());
        self
    }

    /// Names the wish behind the states. The core carries it out once per host; needed to leave `finished`.
    #[must_use]
    pub fn order(mut self, name: impl Into<String>) -> Self {
        self.order = Some(name.into());
        self
    }

    /// Sets metadata at a dotted path; a dot inside a key is written `\.`.
    #[must_use]
    pub fn set(mut self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set.push((path.into(), value.into().to_string()));
        self
    }

    /// Removes metadata at a dotted path.
    #[must_use]
    pub fn unset(mut self, path: impl Into<String>) -> Self {
        self.unset.push(path.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_collects_arguments_variables_and_a_reason() {
        let decision = image("web").append("quiet").var("site", "fra1").because("rack 7");
        assert_eq!(decision.reason, "rack 7");
        let BootVerdict::Boot(BootPlan::Image(boot)) = decision.verdict else { panic!("not an image") };
        assert_eq!((boot.image.as_str(), boot.append), ("web", vec!["quiet".to_owned()]));
        assert_eq!(boot.vars, [("site".to_owned(), "\"fra1\"".to_owned())]);
    }

    #[test]
    fn what_a_verdict_does_not_have_is_left_alone() {
        assert_eq!(PASS.append("quiet").var("a", 1).again_after_ms(5), PASS);
        assert_eq!(local_disk().append("quiet"), local_disk());
    }

    #[test]
    fn an_assignment_is_a_queue_and_the_name_of_its_wish() {
        let patch = Patch::default().states(["wipe", "web"]).order("CHG-1");
        assert_eq!(assign("wipe, web", "CHG-1"), patch);
        assert_eq!(assign(["wipe", "web"], "CHG-1"), patch);
        assert_eq!(assign("", "done").states, Some(Vec::new()));
    }

    #[test]
    fn decisions_survive_serde() {
        let decision = hold("wait").again_after_ms(5000).patch(Patch::default().hostname("n1").set("a.b", true));
        let text = serde_json::to_string(&decision).unwrap();
        assert_eq!(serde_json::from_str::<BootDecision>(&text).unwrap(), decision);
    }
}
