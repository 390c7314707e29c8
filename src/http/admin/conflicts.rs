//! `/api/v1/conflicts`: machines that ask and are not recognised clearly.

use axum::Json;
use axum::extract::State;

use crate::domain::{HostId, MacAddr};
use crate::service::{Doubt, HeldMachine};
use crate::wire::ConflictView;

use super::Shared;

pub(super) async fn list(State(admin): Shared) -> Json<Vec<ConflictView>> {
    Json(admin.service.held_machines().iter().map(view).collect())
}

fn view(held: &HeldMachine) -> ConflictView {
    let (kind, hosts): (_, &[HostId]) = match &held.doubt {
        Doubt::Weak(id) => ("weak", std::slice::from_ref(id)),
        Doubt::Conflict(ids) => ("conflict", ids),
        Doubt::SharedSerial { with, .. } => ("shared_serial", with),
        Doubt::Nobody => ("nobody", &[]),
    };
    let (shown, hardware) = (&held.facts.identity, &held.facts.hardware);
    let model: Vec<&str> =
        [&hardware.manufacturer, &hardware.product].into_iter().filter_map(|text| text.as_deref()).collect();
    ConflictView {
        kind: kind.to_owned(),
        serial: shown.serial.as_ref().map(ToString::to_string),
        uuid: shown.uuid.map(|uuid| uuid.to_string()),
        macs: shown.macs.iter().map(ToString::to_string).collect(),
        model: (!model.is_empty()).then(|| model.join(" ")),
        from: held.from.to_string(),
        first_at: held.asked.0,
        at: held.asked.1,
        asks: held.asks,
        hosts: hosts.iter().map(|id| id.get()).collect(),
        findings: held.findings.iter().map(ToString::to_string).collect(),
        remedies: remedies(held),
    }
}

fn remedies(held: &HeldMachine) -> Vec<String> {
    let adopt = |id: &HostId| format!("if it is host {id}: kiwispray host adopt {} --as {id}", shown_by(held));
    match &held.doubt {
        Doubt::Weak(id) => vec![adopt(id), otherwise(&[*id])],
        Doubt::Conflict(ids) => {
            let mut remedies: Vec<String> = ids.iter().map(adopt).collect();
            remedies.push(otherwise(ids));
            if ids.len() > 1 {
                remedies.push("a card that several machines use in turn belongs into identity.ignore".to_owned());
            }
            remedies
        }
        Doubt::SharedSerial { id, .. } => vec![format!(
            "it is host {id} by its UUID and cards: nothing to do, unless firmware gives many machines this serial; then put it \
             into identity.ignore"
        )],
        Doubt::Nobody => {
            vec![
                "its firmware shows neither serial, UUID nor a usable MAC: look at its setup, or at identity.ignore"
                    .to_owned(),
            ]
        }
    }
}

/// What to do if the machine is another than the hosts that it resembles.
fn otherwise(ids: &[HostId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!(
        "if it is another machine: take from the host what is not its own, by kiwispray host identity {} --drop-mac MAC, \
         --drop-serial or --drop-uuid",
        ids.join("|")
    )
}

/// What names the machine and, if anything does, no host.
fn shown_by(held: &HeldMachine) -> String {
    let shown = &held.facts.identity;
    let is_known = |mac: &&MacAddr| {
        held.findings.iter().any(|finding| finding.macs.contains(mac) || finding.shared_macs.contains(mac))
    };
    let mac = shown.macs.iter().find(|mac| !is_known(mac)).or_else(|| shown.macs.first());
    let texts = [
        mac.map(ToString::to_string),
        shown.serial.as_ref().map(ToString::to_string),
        shown.uuid.map(|uuid| uuid.to_string()),
    ];
    texts.into_iter().flatten().next().unwrap_or_default()
}
