//! `/api/v1/migration/hosts`: hosts that another server knew.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};

use crate::domain::{Actor, Hardware, HostId, Hostname, Identity, Registration};
use crate::hooks::Run;
use crate::service::{Newcomer, Taken};
use crate::wire::{TakeHost, TakeHosts, TookHost};

use super::error::Refusal;
use super::parse::{bad, document, fresh_metadata, states};
use super::{Admin, Peer, Shared};

/// More than anybody has; beyond it, a number is a mistake that would leave none for others.
const HIGHEST_ID: u64 = 1_000_000_000;

pub(super) async fn take(
    State(admin): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<Vec<TookHost>>, Refusal> {
    let TakeHosts { hosts, dry_run } = document(&body)?;
    let actor = peer.actor();
    let mut ids = BTreeSet::new();
    if let Some(twice) = hosts.iter().find(|host| !ids.insert(host.id)) {
        return Err(bad(format_args!("two hosts have the number {}", twice.id)));
    }
    let newcomers: Vec<Newcomer> =
        hosts.into_iter().map(|host| newcomer(&admin, host, &actor)).collect::<Result<_, _>>()?;
    let run = if dry_run { Run::Dry } else { Run::Real };
    let taken = admin.service.take(&newcomers, &actor, run).await?;
    Ok(Json(taken.into_iter().map(view).collect()))
}

fn newcomer(admin: &Admin, host: TakeHost, actor: &Actor) -> Result<Newcomer, Refusal> {
    let TakeHost { id, hostname, serial, uuid, macs, states: queue, metadata: map, seen } = host;
    if !(1..=HIGHEST_ID).contains(&id) {
        return Err(bad(format_args!("{id} is no number of a host: 1 to {HIGHEST_ID}")));
    }
    let about = |why: Refusal| bad(format_args!("host {id}: {}", why.sentence()));
    // What identifies no machine here is left out, as it is when machines report it themselves.
    let settings = admin.service.settings();
    let ignore = &settings.ignore;
    let identity = Identity {
        serial: serial.as_deref().and_then(|text| ignore.serial(text).ok()),
        uuid: uuid.as_deref().and_then(|text| ignore.uuid(text).ok()),
        macs: macs.iter().filter_map(|text| ignore.mac(text).ok()).collect(),
    };
    if identity.macs.len() > Identity::MOST_MACS {
        return Err(bad(format_args!("host {id}: {} network cards at most", Identity::MOST_MACS)));
    }
    let by = match actor {
        Actor::Operator(name) => name.as_str(),
        Actor::Machine | Actor::Plugin(_) | Actor::Server => "nobody",
    };
    let registration = Registration {
        identity,
        hardware: Hardware::default(),
        hostname: hostname.as_deref().map(|name| name.parse::<Hostname>().map_err(bad)).transpose().map_err(about)?,
        states: states(&queue).map_err(about)?,
        metadata: fresh_metadata(map).map_err(about)?,
        why: format!("taken over from another server by {by}"),
    };
    Ok(Newcomer { id: HostId::new(id), registration, seen })
}

fn view((id, taken): (HostId, Taken)) -> TookHost {
    let (outcome, why) = match taken {
        Taken::New => ("new", None),
        Taken::There => ("there", None),
        Taken::ThereByItself => {
            let why = format!(
                "its machine became known here before and stays as it is; the original has another name, queue or metadata for it: \
                 kiwispray host set {id}"
            );
            ("there", Some(why))
        }
        Taken::Refused(why) => ("refused", Some(why)),
    };
    TookHost { id: id.get(), outcome: outcome.to_owned(), why }
}
