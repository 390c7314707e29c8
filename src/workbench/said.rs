//! Answers of plugins as people write them in cases: `"pass"`, `{"hold": "text"}`, `{"image": "web"}`, a patch with only the
//! keys that it changes.
use serde_json::{Map, Value, json};

use crate::hooks::{
    BootDecision, BootPlan, BootVerdict, DiscoveryDecision, DiscoveryVerdict, Edit, NextRun, Patch, TransitionDecision,
    TransitionVerdict,
};

/// What a plugin answered, by the keys of a case's `expect`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) verdict: Option<Value>,
    pub(super) patch: Option<Value>,
    pub(super) reason: Option<String>,
    pub(super) variables: Option<Value>,
    pub(super) done: Option<u32>,
    pub(super) next: Option<Value>,
}

impl From<BootDecision> for Said {
    fn from(decision: BootDecision) -> Self {
        let verdict = match decision.verdict {
            BootVerdict::Pass => json!("pass"),
            BootVerdict::Boot(BootPlan::Image(boot)) => {
                json!({"image": boot.image, "append": boot.append, "vars": pairs(boot.vars)})
            }
            BootVerdict::Boot(BootPlan::Template(boot)) => json!({"template": boot.template, "vars": pairs(boot.vars)}),
            BootVerdict::Boot(BootPlan::LocalDisk) => json!("local-disk"),
            BootVerdict::Hold(hold) => json!({"hold": hold.text, "again_after_ms": hold.again_after_ms}),
        };
        let patch = decision.patch.map_or(Value::Null, |patch| patched(&patch));
        Self { verdict: Some(verdict), patch: Some(patch), reason: Some(decision.reason), ..Self::default() }
    }
}

impl From<DiscoveryDecision> for Said {
    fn from(decision: DiscoveryDecision) -> Self {
        let (verdict, patch) = match decision.verdict {
            DiscoveryVerdict::Admit(patch) => (json!("admit"), patched(&patch)),
            DiscoveryVerdict::Refuse(text) => (json!({"refuse": text}), Value::Null),
        };
        Self { verdict: Some(verdict), patch: Some(patch), reason: Some(decision.reason), ..Self::default() }
    }
}

impl From<TransitionDecision> for Said {
    fn from(decision: TransitionDecision) -> Self {
        let verdict = match decision.verdict {
            TransitionVerdict::Allow => json!("allow"),
            TransitionVerdict::Redirect(states) => json!({"redirect": states}),
            TransitionVerdict::Deny(why) => json!({"deny": why}),
        };
        Self { verdict: Some(verdict), reason: Some(decision.reason), ..Self::default() }
    }
}

impl From<Map<String, Value>> for Said {
    fn from(variables: Map<String, Value>) -> Self {
        Self { variables: Some(Value::Object(variables)), ..Self::default() }
    }
}

impl From<u32> for Said {
    fn from(done: u32) -> Self {
        Self { done: Some(done), ..Self::default() }
    }
}

impl From<NextRun> for Said {
    fn from(next: NextRun) -> Self {
        let next = match next {
            NextRun::AtPeriod => json!("at-period"),
            NextRun::AfterMs(ms) => json!({"after-ms": ms}),
        };
        Self { next: Some(next), ..Self::default() }
    }
}

/// The keys that a patch changes; `null` if it changes nothing.
fn patched(patch: &Patch) -> Value {
    let mut keys = Map::new();
    match &patch.hostname {
        Edit::Keep => {}
        Edit::Clear => _ = keys.insert("hostname".to_owned(), Value::Null),
        Edit::Set(name) => _ = keys.insert("hostname".to_owned(), json!(name)),
    }
    if let Some(states) = &patch.states {
        keys.insert("states".to_owned(), json!(states));
    }
    if let Some(order) = &patch.order {
        keys.insert("order".to_owned(), json!(order));
    }
    if !patch.set.is_empty() {
        keys.insert("set".to_owned(), pairs(patch.set.clone()));
    }
    if !patch.unset.is_empty() {
        keys.insert("unset".to_owned(), json!(patch.unset));
    }
    if keys.is_empty() { Value::Null } else { Value::Object(keys) }
}

fn pairs(pairs: Vec<(String, Value)>) -> Value {
    Value::Object(pairs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{Hold, ImageBoot};

    #[test]
    fn answers_read_as_people_write_them() {
        let hold = BootVerdict::Hold(Hold { text: "wait".into(), again_after_ms: None });
        let said = Said::from(BootDecision { verdict: hold, patch: None, reason: "why".into() });
        assert_eq!(said.verdict, Some(json!({"hold": "wait", "again_after_ms": null})));
        assert_eq!((said.patch, said.reason.as_deref()), (Some(Value::Null), Some("why")));
        let boot = ImageBoot { image: "web".into(), append: vec!["quiet".into()], vars: vec![("a".into(), json!(1))] };
        let verdict = BootVerdict::Boot(BootPlan::Image(boot));
        let said = Said::from(BootDecision { verdict, patch: None, reason: String::new() });
        assert_eq!(said.verdict, Some(json!({"image": "web", "append": ["quiet"], "vars": {"a": 1}})));
    }

    #[test]
    fn a_patch_has_only_the_keys_that_it_changes() {
        assert_eq!(patched(&Patch::default()), Value::Null);
        let patch = Patch {
            hostname: Edit::Clear,
            states: Some(vec![]),
            set: vec![("a.b".into(), json!(2))],
            ..Patch::default()
        };
        assert_eq!(patched(&patch), json!({"hostname": null, "states": [], "set": {"a.b": 2}}));
    }
}
