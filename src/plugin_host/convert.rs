//! Between the contract's types and those of `hooks`. JSON texts of plugins are parsed here; one that does not parse is a
//! bad answer.
use serde_json::{Map, Value};

use super::contract::kiwispray::plugin::types as wit;
use crate::hooks::{
    BootDecision, BootPlan, BootRequest, BootVerdict, DiscoveryDecision, DiscoveryVerdict, Edit, Event, Hold,
    HookError, ImageBoot, KnownHost, NextRun, Patch, RenderRequest, TemplateBoot, TransitionDecision,
    TransitionRequest, TransitionVerdict,
};

pub(super) fn boot_request(request: &BootRequest) -> wit::BootRequest {
    wit::BootRequest { host: host(&request.host), facts: request.facts.clone() }
}

pub(super) fn render_request(request: &RenderRequest) -> wit::RenderRequest {
    wit::RenderRequest { host: host(&request.host), document: request.document.clone(), vars: json(&request.vars) }
}

pub(super) fn transition_request(request: &TransitionRequest) -> wit::TransitionRequest {
    wit::TransitionRequest {
        host: host(&request.host),
        to: request.to.clone(),
        cause: request.cause.clone(),
        actor: request.actor.clone(),
    }
}

pub(super) fn event(event: &Event) -> wit::Event {
    wit::Event {
        id: event.id.clone(),
        host_seq: event.host_seq,
        at_ms: event.at_ms,
        kind: event.kind.clone(),
        host: event.host.as_ref().map(host),
        detail: json(&event.detail),
    }
}

pub(super) fn host(host: &KnownHost) -> wit::KnownHost {
    wit::KnownHost {
        id: host.id,
        revision: host.revision,
        hostname: host.hostname.clone(),
        serial: host.serial.clone(),
        uuid: host.uuid.clone(),
        macs: host.macs.clone(),
        states: host.states.clone(),
        attempts: host.attempts,
        metadata: json(&host.metadata),
        more: json(&host.more),
    }
}

fn json(object: &Map<String, Value>) -> String {
    // Names that are texts, written into memory: that cannot fail.
    serde_json::to_string(object).unwrap_or_default()
}

pub(super) fn boot_decision(decision: wit::BootDecision) -> Result<BootDecision, HookError> {
    let verdict = match decision.verdict {
        wit::BootVerdict::Pass => BootVerdict::Pass,
        wit::BootVerdict::Boot(plan) => BootVerdict::Boot(boot_plan(plan)?),
        wit::BootVerdict::Hold(hold) => {
            BootVerdict::Hold(Hold { text: hold.text, again_after_ms: hold.again_after_ms })
        }
    };
    Ok(BootDecision { verdict, patch: decision.patch.map(patch).transpose()?, reason: decision.reason })
}

fn boot_plan(plan: wit::BootPlan) -> Result<BootPlan, HookError> {
    Ok(match plan {
        wit::BootPlan::Image(boot) => {
            BootPlan::Image(ImageBoot { image: boot.image, append: boot.append, vars: values(boot.vars)? })
        }
        wit::BootPlan::Template(boot) => {
            BootPlan::Template(TemplateBoot { template: boot.template, vars: values(boot.vars)? })
        }
        wit::BootPlan::LocalDisk => BootPlan::LocalDisk,
    })
}

pub(super) fn discovery_decision(decision: wit::DiscoveryDecision) -> Result<DiscoveryDecision, HookError> {
    let verdict = match decision.verdict {
        wit::DiscoveryVerdict::Admit(given) => DiscoveryVerdict::Admit(patch(given)?),
        wit::DiscoveryVerdict::Refuse(text) => DiscoveryVerdict::Refuse(text),
    };
    Ok(DiscoveryDecision { verdict, reason: decision.reason })
}

pub(super) fn variables(text: String) -> Result<Map<String, Value>, HookError> {
    serde_json::from_str(&text)
        .map_err(|error| HookError::BadAnswer(format!("the variables are no JSON object: {error}")))
}

pub(super) fn transition_decision(decision: wit::TransitionDecision) -> Result<TransitionDecision, HookError> {
    let verdict = match decision.verdict {
        wit::TransitionVerdict::Allow => TransitionVerdict::Allow,
        wit::TransitionVerdict::Redirect(states) => TransitionVerdict::Redirect(states),
        wit::TransitionVerdict::Deny(why) => TransitionVerdict::Deny(why),
    };
    Ok(TransitionDecision { verdict, reason: decision.reason })
}

pub(super) fn next_run(next: wit::NextRun) -> Result<NextRun, HookError> {
    Ok(match next {
        wit::NextRun::AtPeriod => NextRun::AtPeriod,
        wit::NextRun::AfterMs(ms) => NextRun::AfterMs(ms),
    })
}

pub(super) fn patch(patch: wit::Patch) -> Result<Patch, HookError> {
    Ok(Patch {
        hostname: match patch.hostname {
            wit::Edit::Keep => Edit::Keep,
            wit::Edit::Clear => Edit::Clear,
            wit::Edit::Set(name) => Edit::Set(name),
        },
        states: patch.states,
        order: patch.order,
        set: values(patch.set)?,
        unset: patch.unset,
    })
}

fn values(pairs: Vec<(String, String)>) -> Result<Vec<(String, Value)>, HookError> {
    let parse = |(name, text): (String, String)| match serde_json::from_str(&text) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(HookError::BadAnswer(format!("`{}` is no JSON: {error}", name.escape_default()))),
    };
    pairs.into_iter().map(parse).collect()
}

pub(super) fn error(error: wit::Error) -> HookError {
    match error {
        wit::Error::Invalid(text) => HookError::Invalid(text),
        wit::Error::Retry(later) => HookError::Retry { after_ms: later.after_ms, reason: later.reason },
        wit::Error::Failed(text) => HookError::Failed(text),
        wit::Error::Fatal(text) => HookError::Fatal(text),
    }
}
