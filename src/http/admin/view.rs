//! From domain to wire.

use serde_json::{Map, Value};

use crate::domain::{Actor, Event, Host, Safeguard};
use crate::images::{Image, NotOffered};
use crate::service::{Acted, Decision, Erased, Explanation, FileProgress, Preview, Service, sentence};
use crate::wire::{
    Changed, Erasure, EventView, ExplanationView, HostView, IgnoredView, ImageView, ManifestView, PlanView,
    ProgressView, SafeguardView,
};

/// A host with what the server knows of it besides.
pub(super) fn host(service: &Service, host: &Host) -> HostView {
    let hardware = &host.hardware;
    let model: Vec<&str> =
        [&hardware.manufacturer, &hardware.product].into_iter().filter_map(|t| t.as_deref()).collect();
    let running = host.is_attempt_open();
    let progress = service.progress(host.id).filter(|_| running).map(|progress| progress_of(&progress.newest));
    HostView {
        id: host.id.get(),
        revision: host.revision,
        hostname: host.hostname.as_ref().map(ToString::to_string),
        serial: host.identity.serial.as_ref().map(ToString::to_string),
        uuid: host.identity.uuid.map(|uuid| uuid.to_string()),
        macs: host.identity.macs.iter().map(ToString::to_string).collect(),
        model: (!model.is_empty()).then(|| model.join(" ")),
        platform: hardware.platform.clone(),
        state: host.states.current().to_string(),
        states: host.states.iter().map(ToString::to_string).collect(),
        attempts: host.attempts,
        running,
        hold: service.held_for(host).map(|reason| reason.to_string()),
        progress,
        metadata: host.metadata.as_map().clone(),
        last_seen: service.last_seen(host.id),
        seen: host.seen,
        quarantined: host.quarantined,
        lock: host.lock.as_ref().map(safeguard),
        created_at: host.created_at,
        changed_at: host.changed_at,
    }
}

/// A lock, or a freeze.
pub(super) fn safeguard(safeguard: &Safeguard) -> SafeguardView {
    SafeguardView { by: actor(&safeguard.by), at: safeguard.at, why: safeguard.why.clone() }
}

fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Machine => "machine".to_owned(),
        Actor::Server => "server".to_owned(),
        Actor::Operator(name) => format!("operator {name}"),
        Actor::Plugin(name) => format!("plugin {name}"),
    }
}

fn progress_of(file: &FileProgress) -> ProgressView {
    let hundredths = file.delivered_bytes.saturating_mul(100).checked_div(file.size_bytes).unwrap_or(100);
    ProgressView {
        file: file.name.clone(),
        bytes: file.delivered_bytes,
        total: file.size_bytes,
        percent: u8::try_from(hundredths.min(100)).unwrap_or(100),
    }
}

/// What an act changed.
pub(super) fn changed(service: &Service, acted: &Acted) -> Changed {
    let view = |of: &Option<Host>| of.as_ref().map(|of| host(service, of));
    Changed {
        before: view(&acted.before),
        after: view(&acted.after),
        changed: acted.changed,
        erases: acted.erases.iter().map(erasure).collect(),
    }
}

pub(super) fn erasure(erased: &Erased) -> Erasure {
    Erasure { state: erased.state.to_string(), disk: erased.disk.clone() }
}

/// An event. Its fields beside those that every event has become `data`.
pub(super) fn event(service: &Service, event: &Event) -> EventView {
    let mut data = match serde_json::to_value(&event.kind) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | Err(_) => Map::new(),
    };
    data.remove("kind");
    EventView {
        id: service.event_id(event),
        host: event.host.get(),
        seq: event.seq,
        at: event.at,
        actor: actor(&event.actor),
        kind: event.kind.name().to_owned(),
        text: sentence(&event.kind),
        data,
    }
}

/// How the newest boot of a host was judged.
pub(super) fn explanation(host: &Host, explanation: &Explanation) -> ExplanationView {
    let findings = explanation.findings.iter().map(ToString::to_string);
    let plugins = explanation.trace.iter().flat_map(|trace| &trace.steps).map(|step| format!("plugin {step}"));
    let ignored = explanation.facts.ignored.iter();
    ExplanationView {
        at: explanation.at,
        from: explanation.from.to_string(),
        recognition: host.label(),
        findings: findings.chain(plugins).collect(),
        ignored: ignored.map(|p| IgnoredView { name: p.name.clone(), reason: p.reason.clone() }).collect(),
        answer: told(&explanation.decision).1,
    }
}

/// What a host would be answered.
pub(super) fn plan(preview: Preview) -> PlanView {
    let (outcome, text) = told(&preview.decision);
    PlanView { outcome: outcome.to_owned(), text, script: preview.script }
}

/// A decision as a word and a sentence.
pub(super) fn told(decision: &Decision) -> (&'static str, String) {
    match decision {
        Decision::Local { reason } => ("local", format!("boot its local disk: {reason}")),
        Decision::Wait => ("wait", "wait until it is given a state".to_owned()),
        Decision::Hold { reason } => ("hold", format!("hold: {reason}")),
        Decision::Boot { what } => ("boot", format!("boot {what}")),
    }
}

/// An image folder.
pub(super) fn image(name: &str, image: &Result<Image, NotOffered>) -> ImageView {
    match image {
        Err(problem) => ImageView { name: name.to_owned(), problem: Some(problem.to_string()), manifest: None },
        Ok(image) => ImageView { name: name.to_owned(), problem: None, manifest: Some(manifest(image)) },
    }
}

fn manifest(image: &Image) -> ManifestView {
    let manifest = &image.manifest;
    ManifestView {
        kind: word(&manifest.kind),
        writes: word(&manifest.writes),
        device: manifest.device.as_ref().map(ToString::to_string),
        append: manifest.append.to_string(),
        kernel: manifest.kernel.to_string(),
        initrd: manifest.initrd.as_ref().map(ToString::to_string),
        payload: image.payload.as_ref().map(|payload| payload.name.to_string()),
        payload_bytes: image.payload.as_ref().map(|payload| payload.size_bytes),
        total_bytes: image.size_bytes,
    }
}

/// A value of an enum as manifests write it.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
