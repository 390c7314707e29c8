//! What a host would be answered if it booted now.
//!
//! Invariant: nothing comes of looking. No bootid is issued, nothing is committed, and plugins are told that it is a
//! rehearsal; the script carries a bootid that opens nothing.

use std::net::{IpAddr, Ipv4Addr};

use crate::domain::{Activity, Ask, BootId, Facts, Host, HostId, NextBoot, clear, next_boot};
use crate::hooks::{BootAnswer, BootPlan, Call, Hooks, Run, Trace};
use crate::render::BaseUrl;
use crate::service::plan::{Occasion, boot_request, known_host};

use super::super::Service;
use super::super::explain::Decision;
use super::error::HostsError;
use super::not_advanced;

/// An answer that was not given.
#[derive(Debug, Clone)]
pub struct Preview {
    /// What the machine would do.
    pub decision: Decision,
    /// The script of a boot.
    pub script: Option<String>,
    /// What the plugins said; none when they would not be asked.
    pub trace: Option<Trace>,
}

impl Service {
    /// Decides as `/bootstrap` would for this host, as it described itself the last time.
    pub async fn rehearse(&self, id: HostId, base: &BaseUrl) -> Result<Preview, HostsError> {
        let host = self.store.host(id).await?.ok_or(HostsError::Gone(id))?;
        Ok(self.rehearse_with(&self.hooks().rehearsing(), host, base).await)
    }

    /// The same with other plugins. Their faults must not be held against them: hand over hooks with breakers of their own.
    pub(in crate::service) async fn rehearse_with(&self, hooks: &Hooks, host: Host, base: &BaseUrl) -> Preview {
        let id = host.id;
        let newest = self.explain(id);
        let from = host.boot.as_ref().map(|boot| boot.from).or(newest.as_ref().map(|newest| newest.from));
        let facts = newest.map_or_else(
            || Facts { identity: host.identity.clone(), hardware: host.hardware.clone(), ..Facts::default() },
            |newest| newest.facts,
        );
        let now = self.clock.now();
        let activity = host.boot.as_ref().map_or(Activity::Quiet, |boot| self.progress.activity(&boot.bootid, now));
        let from = from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let only = |decision| Preview { decision, script: None, trace: None };
        let next = next_boot(&host, &Ask { from, now, activity, most_attempts: self.settings().most_attempts });
        match &next {
            NextBoot::LocalDisk if !hooks.asks_about(&known_host(&host)) => {
                return only(Decision::Local { reason: "it is finished".to_owned() });
            }
            NextBoot::Hold(reason) => return only(Decision::Hold { reason: reason.to_string() }),
            NextBoot::Advance => return only(Decision::Hold { reason: not_advanced(&host).to_string() }),
            NextBoot::LocalDisk | NextBoot::Wait | NextBoot::Offer => {}
        }
        let now_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let call = Call::new(format!("plan-{id}-{}", now.as_nanosecond()), now_ms, Run::Dry);
        let outcome = hooks.decide_boot(call, boot_request(&host, &facts)).await;
        let (decision, script) = match outcome.answer {
            BootAnswer::Hold(hold) => (Decision::Hold { reason: hold.text }, None),
            BootAnswer::Boot(_) if next == NextBoot::LocalDisk => {
                (Decision::Local { reason: "it is finished".to_owned() }, None)
            }
            BootAnswer::Boot(BootPlan::LocalDisk) => (Decision::Local { reason: outcome.reason }, None),
            BootAnswer::Boot(BootPlan::Template(plan)) if next == NextBoot::Wait && plan.template == "new" => {
                (Decision::Wait, None)
            }
            BootAnswer::Boot(plan) => {
                let cleared = host.clone();
                let occasion = Occasion { host, facts, bootid: BootId::new(id, [0; 16]), base: base.clone() };
                match self.render_plan(plan, occasion).await {
                    Ok(rendered) => match self.fleet().await.map(|fleet| clear(&cleared, rendered.writes, &fleet, now))
                    {
                        Ok(Ok(_)) => (Decision::Boot { what: rendered.what }, Some(rendered.script)),
                        Ok(Err(reason)) => (Decision::Hold { reason: reason.to_string() }, None),
                        Err(error) => (Decision::Hold { reason: format!("the store: {error}") }, None),
                    },
                    Err(refused) => (Decision::Hold { reason: refused.to_string() }, None),
                }
            }
        };
        Preview { decision, script, trace: Some(outcome.trace) }
    }
}
