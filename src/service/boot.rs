//! `/bootstrap`: recognise, ask plugins, commit, answer.
//!
//! Invariant: there is always an answer, and in time (P2). An installer is handed out only after strong recognition, an
//! agreed plan and a durable commit (P3); everything that goes wrong on the way ends in a hold script, or for a finished
//! host in its local disk.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::domain::{
    Activity, Actor, Ask, Change, EventKind, Evidence, Facts, Finding, HoldReason, Host, HostId, Identity, Metadata,
    NextBoot, Offer, OrderName, Parameter, PluginName, Recognition, Registration, StateName, States, advance, learn,
    next_boot, note, note_hold, recognise, register, take_back,
};
use crate::hooks::{
    BootAnswer, BootOutcome, BootPlan, Call, DISCOVER, DiscoveryAnswer, GivenPatch, Hold, KnownHost, Run, Trace,
};
use crate::images::LocalBoot;
use crate::render::{BaseUrl, BootScript, HoldVars, LocalVars, NewVars, ServerVars, WaitVars};
use crate::store::{Candidates, StoreError};

use super::explain::{Decision, Explanation};
use super::held::Doubt;
use super::plan::{Occasion, Rendered, boot_request, host_vars};
use super::plugins::{By, PatchRefused};
use super::transition::MayBecome;
use super::{ANSWER_WITHIN, CONFLICT_RETRIES, Service, jitter, random_bootid};

/// A request to `/bootstrap`.
#[derive(Debug, Clone)]
pub struct BootstrapRequest {
    /// Every parameter, in order.
    pub parameters: Vec<Parameter>,
    /// Where it came from.
    pub from: IpAddr,
    /// The URL under which the machine reaches this server.
    pub base: BaseUrl,
}

/// The answer: always a whole script.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The iPXE script.
    pub script: String,
    /// What it makes the machine do.
    pub outcome: Outcome,
    /// The host, where the machine was recognised.
    pub host: Option<HostId>,
}

/// What an answer makes the machine do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Boot an image or template.
    Boot,
    /// Boot its own disk.
    Local,
    /// Wait and ask again.
    Hold,
}

impl Outcome {
    /// As the header `X-Kiwispray-Outcome` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Local => "local",
            Self::Hold => "hold",
        }
    }
}

/// Notes about strangers take no longer than this out of an answer.
const NOTE_WITHIN: Duration = Duration::from_millis(300);

/// What was decided, and for whom.
struct Told {
    host: Option<Host>,
    decision: Decision,
    /// The script of a boot.
    script: Option<String>,
    /// After how many seconds to ask again, if a plugin said so.
    again_s: Option<u32>,
}

impl Told {
    fn hold(host: Option<Host>, reason: impl ToString) -> Self {
        Self { host, decision: Decision::Hold { reason: reason.to_string() }, script: None, again_s: None }
    }

    /// As a plugin wants it.
    fn hold_as_told(host: Host, hold: Hold) -> Self {
        let again_s = hold.again_after_ms.map(|ms| ms.div_ceil(1_000).max(1));
        Self { again_s, ..Self::hold(Some(host), hold.text) }
    }

    fn local(host: Option<Host>, reason: impl ToString) -> Self {
        Self { host, decision: Decision::Local { reason: reason.to_string() }, script: None, again_s: None }
    }
}

/// What is noted on the way, for whoever asks why.
#[derive(Default)]
struct Trail {
    findings: Vec<Finding>,
    trace: Option<Trace>,
}

struct Asking<'a> {
    facts: &'a Facts,
    from: IpAddr,
    base: &'a BaseUrl,
}

impl Service {
    /// Answers a machine that wants to know what to boot.
    pub async fn bootstrap(&self, request: &BootstrapRequest) -> Answer {
        let facts = Facts::from_parameters(request.parameters.iter().cloned(), &self.settings().ignore);
        let asking = Asking { facts: &facts, from: request.from, base: &request.base };
        let mut trail = Trail::default();
        let told = match timeout(ANSWER_WITHIN, self.decide(&asking, &mut trail)).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                tracing::error!(%error, "could not decide a boot");
                self.degraded(&facts.identity, "the server cannot reach its store")
            }
            Err(_) => {
                tracing::error!("a boot was not decided in time");
                self.degraded(&facts.identity, "the server is too slow")
            }
        };
        if let Some(host) = &told.host {
            self.explanations.keep(host.id, self.explanation(told.decision.clone(), &asking, trail));
        }
        self.answer(told, request, &facts).await
    }

    /// What the answer would be, for who only looks: nothing is registered, offered or noted.
    pub async fn glance(&self, request: &BootstrapRequest) -> (Outcome, Option<HostId>) {
        let facts = Facts::from_parameters(request.parameters.iter().cloned(), &self.settings().ignore);
        let Ok(Ok(found)) = timeout(ANSWER_WITHIN, self.store.candidates(&facts.identity)).await else {
            return (Outcome::Hold, None);
        };
        let known = match recognise(&facts.identity, &found.judged()).0 {
            Recognition::Known(id) => found.hosts.into_iter().find(|host| host.id == id),
            Recognition::Returned { .. } => return (Outcome::Local, None),
            Recognition::New { .. } | Recognition::Doubt { .. } | Recognition::Nobody => None,
        };
        let Some(host) = known else { return (Outcome::Hold, None) };
        let outcome = match next_boot(&host, &self.ask(&host, request.from)) {
            NextBoot::LocalDisk => Outcome::Local,
            NextBoot::Wait | NextBoot::Hold(_) | NextBoot::Advance => Outcome::Hold,
            NextBoot::Offer => Outcome::Boot,
        };
        (outcome, Some(host.id))
    }

    /// The answer after a fault of ours: a finished host boots its disk, every other machine waits.
    pub async fn answer_after_fault(&self, request: &BootstrapRequest) -> Answer {
        let facts = Facts::from_parameters(request.parameters.iter().cloned(), &self.settings().ignore);
        let told = self.degraded(&facts.identity, "the server has a fault, see its log");
        self.answer(told, request, &facts).await
    }

    /// The answer when nothing could be decided.
    fn degraded(&self, identity: &Identity, reason: &str) -> Told {
        match self.finished.recognise(identity) {
            Some(id) => Told::local(None, format_args!("host {id} was finished, and {reason}")),
            None => Told::hold(None, reason),
        }
    }

    async fn decide(&self, asking: &Asking<'_>, trail: &mut Trail) -> Result<Told, StoreError> {
        for _ in 0..CONFLICT_RETRIES {
            *trail = Trail::default();
            match self.decide_once(asking, trail).await {
                Err(StoreError::Conflict) => {}
                done => return done,
            }
        }
        Ok(Told::hold(None, "this host is being changed by someone else right now"))
    }

    async fn decide_once(&self, asking: &Asking<'_>, trail: &mut Trail) -> Result<Told, StoreError> {
        let found = self.store.candidates(&asking.facts.identity).await?;
        let (recognition, findings) = recognise(&asking.facts.identity, &found.judged());
        trail.findings = findings;
        match recognition {
            Recognition::Nobody => {
                self.held.keep(asking.facts, asking.from, self.clock.now(), Doubt::Nobody, &[]);
                Ok(Told::hold(None, "this machine reports no usable serial number, UUID or MAC address"))
            }
            Recognition::Known(id) => match found.hosts.into_iter().find(|host| host.id == id) {
                Some(host) => {
                    self.held.resolved(&asking.facts.identity, asking.from);
                    self.serve(host, asking, trail).await
                }
                None => Err(StoreError::Conflict),
            },
            Recognition::New { serial_shared_with } => self.welcome(&found, &serial_shared_with, asking, trail).await,
            Recognition::Returned { was, evidence } => self.welcome_back(&found, &was, evidence, asking).await,
            Recognition::Doubt { candidates, forgotten, weak } => {
                let doubt = match candidates.as_slice() {
                    [only] if weak => Doubt::Weak(*only),
                    several => Doubt::Conflict(several.to_vec()),
                };
                self.held.keep(asking.facts, asking.from, self.clock.now(), doubt, &trail.findings);
                let doubtful = found.hosts.into_iter().filter(|host| candidates.contains(&host.id)).collect();
                let remedy = match (forgotten.first(), weak) {
                    (Some(id), _) => format!("If host {id} is gone: kiwispray host forget --for-good {id}"),
                    (None, true) => {
                        "`kiwispray host conflicts` shows the command that says it is the same machine".to_owned()
                    }
                    (None, false) => "A card that several machines share belongs into identity.ignore".to_owned(),
                };
                Ok(self.doubt(doubtful, &remedy, asking, trail).await)
            }
        }
    }

    /// A machine that nobody knows.
    async fn welcome(
        &self,
        found: &Candidates,
        twins: &[HostId],
        asking: &Asking<'_>,
        trail: &mut Trail,
    ) -> Result<Told, StoreError> {
        let now = self.clock.now();
        if !self.admission.admit(now) {
            return Ok(Told::hold(
                None,
                "too many unknown machines asked within a minute: limits.new_hosts_per_minute",
            ));
        }
        let unborn = Registration {
            identity: asking.facts.identity.clone(),
            hardware: asking.facts.hardware.clone(),
            hostname: None,
            states: States::new_host(),
            metadata: Metadata::default(),
            why: match twins {
                [] => "nobody shares its serial number, UUID or cards".to_owned(),
                twins => format!("its serial number is shared with {twins:?}, but neither UUID nor cards are"),
            },
        };
        let stand_in = register(HostId::new(0), unborn.clone(), Actor::Machine, now).host;
        let call = Call::new(format!("discovery-{}", now.as_nanosecond()), milliseconds(now), Run::Real);
        let outcome = self.hooks().discovered(call, boot_request(&stand_in, asking.facts)).await;
        trail.trace = Some(outcome.trace);
        let mut registration = match outcome.answer {
            DiscoveryAnswer::Refuse { text, .. } => return Ok(Told::hold(None, text)),
            DiscoveryAnswer::Admit(known) => admitted(unborn, &known),
        };
        // Spent with the registration: whoever puts the machine back to `new` finds it waiting.
        let mut order: Option<OrderName> = outcome.order.and_then(|name| name.parse().ok());
        let is_order = |state: &StateName| !state.is_built_in() && state.as_str() != DISCOVER;
        if registration.states.iter().any(is_order)
            && let Some(plugin) = self.stopped_greeter().await?
        {
            tracing::warn!(%plugin, states = %registration.states, "a new machine waits: the plugin may not order until `kiwispray plugin approve`");
            registration.states = States::new_host();
            order = None;
        }
        let build = |id| Change { order, ..register(id, registration, Actor::Machine, now) };
        let registered = self.store.register(found, build).await?;
        tracing::info!(host = %registered.id, from = %asking.from, state = %registered.states, "registered");
        if !twins.is_empty() {
            let doubt = Doubt::SharedSerial { id: registered.id, with: twins.to_vec() };
            self.held.keep(asking.facts, asking.from, now, doubt, &trail.findings);
        }
        self.serve(registered, asking, trail).await
    }

    /// A machine that was, or may have been, a host that was forgotten after it was installed. It boots its own disk, as a host
    /// that is finished: no plugin is asked, as none may give it a queue, and whatever else goes wrong, it is its own disk.
    async fn welcome_back(
        &self,
        found: &Candidates,
        was: &[HostId],
        evidence: Evidence,
        asking: &Asking<'_>,
    ) -> Result<Told, StoreError> {
        let was = found.forgotten(was);
        let names = was.iter().map(|tombstone| tombstone.described()).collect::<Vec<_>>().join(", or ");
        let registration = Registration {
            identity: asking.facts.identity.clone(),
            hardware: asking.facts.hardware.clone(),
            hostname: None,
            states: States::finished(),
            metadata: Metadata::default(),
            why: match evidence {
                Evidence::Strong => format!("it was {names}"),
                Evidence::Weak | Evidence::Conflict | Evidence::SharedSerial | Evidence::None => {
                    format!("it may be {names}")
                }
            },
        };
        let now = self.clock.now();
        // In doubt the machine that is meant may still come.
        let gone = was.first().copied().filter(|_| evidence == Evidence::Strong);
        let build = |id| take_back(id, registration, &was, true, Actor::Machine, now);
        match self.store.register_back(found, gone, build).await {
            Ok(host) => {
                tracing::warn!(host = %host.id, from = %asking.from, was = names, "a forgotten machine came back; it boots its own disk");
                if let Some(gone) = gone {
                    self.finished.forget(gone.id);
                }
                self.finished.keep(&host);
                Ok(Told::local(Some(host), "it was forgotten after it was installed, and is finished"))
            }
            Err(StoreError::Conflict) => Err(StoreError::Conflict),
            Err(error) => {
                tracing::error!(%error, was = names, "a forgotten machine came back, and that could not be noted");
                Ok(Told::local(None, "it was forgotten after it was installed"))
            }
        }
    }

    /// A machine that might be one of these hosts: nothing is installed.
    async fn doubt(&self, hosts: Vec<Host>, remedy: &str, asking: &Asking<'_>, trail: &Trail) -> Told {
        let why = trail.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        // A slow disk must not keep finished hosts waiting; what is dropped here is written all the same.
        let noted = join_all(hosts.iter().map(|host| {
            let kind = EventKind::Doubted { why: why.clone(), from: asking.from };
            let decision = Decision::Hold { reason: why.clone() };
            let explanation =
                self.explanation(decision, asking, Trail { findings: trail.findings.clone(), trace: None });
            self.note_once(host, kind, &why, Some(explanation))
        }));
        let _ = timeout(NOTE_WITHIN, noted).await;
        if hosts.iter().all(|host| host.states.is_finished()) {
            return Told::local(None, "whichever host this is, it is finished");
        }
        Told::hold(None, format_args!("this machine cannot be told from others for certain. {remedy}. {why}"))
    }

    /// A recognised machine.
    async fn serve(&self, mut host: Host, asking: &Asking<'_>, trail: &mut Trail) -> Result<Told, StoreError> {
        self.finished.keep(&host);
        if let Some(change) = learn(&host, asking.facts, self.clock.now()) {
            host = match self.commit(&host, change).await {
                Ok(host) => host,
                // What is new can be learned at a later boot; its own disk must not wait for that.
                Err(error) if host.states.is_finished() => {
                    tracing::warn!(host = %host.id, %error, "could not note what a finished host reported");
                    host
                }
                Err(error) => return Err(error),
            };
        }
        if next_boot(&host, &self.ask(&host, asking.from)) == NextBoot::Advance {
            host = match self.move_on(host).await? {
                Ok(host) => host,
                Err(told) => return Ok(*told),
            };
        }
        match next_boot(&host, &self.ask(&host, asking.from)) {
            NextBoot::LocalDisk => Ok(self.leave_finished_alone(host, asking, trail).await),
            NextBoot::Hold(reason) => Ok(self.hold(host, &reason, asking).await),
            NextBoot::Advance => Ok(Told::hold(Some(host), "its step is done, and its queue has not moved on")),
            next @ (NextBoot::Wait | NextBoot::Offer) => self.ask_plugins(host, &next, asking, trail).await,
        }
    }

    /// The queue of a host whose step is done moves on, if plugins allow it by now; else the host holds.
    async fn move_on(&self, host: Host) -> Result<Result<Host, Box<Told>>, StoreError> {
        let next = host.states.after_current();
        let to = match self.may_become(&host, &next, "finish", &Actor::Machine, Run::Real).await {
            Ok(MayBecome::Asked) => None,
            Ok(MayBecome::Other { to, .. }) => Some(to),
            Err(refused) => {
                let reason = HoldReason::NotAdvanced(host.id, refused.to_string());
                return Ok(Err(Box::new(Told::hold(Some(host), reason))));
            }
        };
        self.commit(&host, advance(&host, to, Actor::Machine, self.clock.now())).await.map(Ok)
    }

    /// A finished host boots its own disk. Plugins whose binding names `finished` are told, and may let it wait if they
    /// were granted that; whatever goes wrong with them, and whatever else they want, it is its own disk.
    async fn leave_finished_alone(&self, host: Host, asking: &Asking<'_>, trail: &mut Trail) -> Told {
        let hooks = self.hooks();
        let request = boot_request(&host, asking.facts);
        if !hooks.asks_about(&request.host) {
            return Told::local(Some(host), "it is finished");
        }
        let now = self.clock.now();
        let call = Call::new(format!("boot-{}-{}", host.id, now.as_nanosecond()), milliseconds(now), Run::Real);
        let mut outcome = hooks.decide_boot(call, request).await;
        trail.trace = Some(std::mem::take(&mut outcome.trace));
        let host = match self.apply_patches(host.clone(), &outcome).await {
            Ok(Ok(host) | Err((host, _))) => host,
            Err(error) => {
                tracing::warn!(host = %host.id, %error, "a plugin's change to a finished host was not committed");
                host
            }
        };
        match outcome.answer {
            BootAnswer::Hold(hold) => Told::hold_as_told(host, hold),
            BootAnswer::Boot(BootPlan::LocalDisk) => Told::local(Some(host), outcome.reason),
            BootAnswer::Boot(BootPlan::Image(_) | BootPlan::Template(_)) => {
                Told::local(Some(host), "it is finished: a plugin wants to boot something else, but cannot order")
            }
        }
    }

    /// What a host's own record is asked.
    fn ask(&self, host: &Host, from: IpAddr) -> Ask {
        let now = self.clock.now();
        let activity = host.boot.as_ref().map_or(Activity::Quiet, |boot| self.progress.activity(&boot.bootid, now));
        Ask { from, now, activity, most_attempts: self.settings().most_attempts }
    }

    /// The host's own record makes it wait.
    async fn hold(&self, host: Host, reason: &HoldReason, asking: &Asking<'_>) -> Told {
        if let HoldReason::InUse(_) = reason {
            let kind = EventKind::ForeignBoot { from: asking.from };
            self.note_once(&host, kind, &asking.from.to_string(), None).await;
        } else if let Some(change) = note_hold(&host, reason, self.clock.now())
            && let Err(error) = self.commit(&host, change).await
        {
            tracing::warn!(host = %host.id, %error, "could not note that a host holds");
        }
        self.note_safeguard(&host, reason).await;
        Told::hold(Some(host), reason)
    }

    async fn ask_plugins(
        &self,
        mut host: Host,
        next: &NextBoot,
        asking: &Asking<'_>,
        trail: &mut Trail,
    ) -> Result<Told, StoreError> {
        let now = self.clock.now();
        let call = Call::new(format!("boot-{}-{}", host.id, now.as_nanosecond()), milliseconds(now), Run::Real);
        let mut outcome = self.hooks().decide_boot(call, boot_request(&host, asking.facts)).await;
        trail.trace = Some(std::mem::take(&mut outcome.trace));
        host = match self.apply_patches(host, &outcome).await? {
            Ok(host) => host,
            Err((host, why)) => return Ok(Told::hold(Some(host), why)),
        };
        let plan = match outcome.answer {
            BootAnswer::Hold(hold) => return Ok(Told::hold_as_told(host, hold)),
            BootAnswer::Boot(BootPlan::LocalDisk) => return Ok(Told::local(Some(host), outcome.reason)),
            BootAnswer::Boot(plan) => plan,
        };
        if *next == NextBoot::Wait && is_the_new_template(&plan) {
            return Ok(Told { host: Some(host), decision: Decision::Wait, script: None, again_s: None });
        }
        let Some(bootid) = random_bootid(host.id) else {
            return Ok(Told::hold(Some(host), "the server has no randomness for a bootid"));
        };
        let facts = asking.facts.clone();
        let occasion = Occasion { host: host.clone(), facts, bootid, base: asking.base.clone() };
        let rendered = match self.render_plan(plan, occasion).await {
            Ok(rendered) => rendered,
            Err(refused) => return Ok(Told::hold(Some(host), refused)),
        };
        let Rendered { script, image, writes, detour, what } = rendered;
        let offered = Offer { bootid, from: asking.from, image, writes, detour };
        let host = match self.hand_out(&host, offered).await? {
            Ok(host) => host,
            Err(reason) => return Ok(self.hold(host, &reason, asking).await),
        };
        Ok(Told { host: Some(host), decision: Decision::Boot { what }, script: Some(script), again_s: None })
    }

    /// Commits what plugins changed with their decision; or says what of it cannot be, as those asked later decided on it.
    async fn apply_patches(
        &self,
        mut host: Host,
        outcome: &BootOutcome,
    ) -> Result<Result<Host, (Host, String)>, StoreError> {
        for GivenPatch { plugin, patch } in &outcome.patches {
            let change = match plugin.parse::<PluginName>() {
                Ok(plugin) => self.change_by_plugin(&host, patch, &plugin, By::Answer).await,
                Err(error) => Err(error.into()),
            };
            match change {
                Ok(Some(change)) => host = self.commit(&host, change).await?,
                Ok(None) => {}
                Err(PatchRefused::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(host = %host.id, plugin, %error, "a plugin's change was not applied");
                    return Ok(Err((host, format!("the plugin {plugin} wants a change that cannot be made: {error}"))));
                }
            }
        }
        Ok(Ok(host))
    }

    /// Puts an event about a stranger on the timeline, unless the same was noted of late: machines ask every few seconds.
    pub(super) async fn note_once(&self, host: &Host, kind: EventKind, what: &str, explanation: Option<Explanation>) {
        let now = self.clock.now();
        if !self.notes.is_first(host.id, what, now) {
            return;
        }
        if let Some(explanation) = explanation {
            self.explanations.keep(host.id, explanation);
        }
        if let Err(error) = self.commit(host, note(host, kind, Actor::Machine, now)).await {
            tracing::warn!(host = %host.id, %error, "could not note a doubtful request");
        }
    }

    /// Some firmware does not go on to the disk when iPXE exits: then iPXE boots it.
    fn wants_sanboot(&self, host: Option<&Host>) -> bool {
        match host.and_then(|host| host.metadata.get("local")).and_then(|value| value.as_str()) {
            Some("sanboot") => true,
            Some("exit") => false,
            Some(_) | None => self.settings().local == LocalBoot::Sanboot,
        }
    }

    fn explanation(&self, decision: Decision, asking: &Asking<'_>, trail: Trail) -> Explanation {
        let (at, from, facts) = (self.clock.now(), asking.from, asking.facts.clone());
        Explanation { at, from, facts, findings: trail.findings, trace: trail.trace, decision }
    }

    async fn answer(&self, told: Told, request: &BootstrapRequest, facts: &Facts) -> Answer {
        let id = told.host.as_ref().map(|host| host.id);
        if let (Decision::Boot { .. }, Some(script)) = (&told.decision, told.script) {
            return Answer { script, outcome: Outcome::Boot, host: id };
        }
        let server = ServerVars { base: request.base.clone() };
        let host = told.host.as_ref().map(|host| host_vars(host, facts));
        let wait = || WaitVars::new(told.again_s.unwrap_or_else(|| jitter(self.settings().again_s)), waited_s(request));
        let (outcome, script) = match (told.decision, host) {
            (Decision::Local { reason }, host) => {
                let sanboot = self.wants_sanboot(told.host.as_ref());
                (Outcome::Local, BootScript::Local(LocalVars { host, reason, sanboot }))
            }
            (Decision::Wait, Some(host)) => (Outcome::Hold, BootScript::New(NewVars { server, host, wait: wait() })),
            (Decision::Hold { reason }, host) => {
                (Outcome::Hold, BootScript::Hold(HoldVars { server, host, reason, wait: wait() }))
            }
            (Decision::Wait | Decision::Boot { .. }, host) => {
                let reason = "the server has no script for this boot".to_owned();
                (Outcome::Hold, BootScript::Hold(HoldVars { server, host, reason, wait: wait() }))
            }
        };
        let script = self.script_or_built_in(script).await;
        Answer { script, outcome, host: id }
    }
}

/// The registration as the discovery hooks left it. What they made unusable stays as it was.
fn admitted(mut unborn: Registration, known: &KnownHost) -> Registration {
    unborn.hostname = known.hostname.as_ref().and_then(|name| name.parse().ok());
    if let Ok(states) = known.states.join(",").parse() {
        unborn.states = states;
    }
    if let Ok(metadata) = Metadata::try_from(known.metadata.clone()) {
        unborn.metadata = metadata;
    }
    unborn
}

fn is_the_new_template(plan: &BootPlan) -> bool {
    matches!(plan, BootPlan::Template(plan) if plan.template == "new")
}

/// How long the machine has been waiting, as it says itself.
fn waited_s(request: &BootstrapRequest) -> u32 {
    let waited = request.parameters.iter().find(|parameter| parameter.name == "waited");
    waited.and_then(|parameter| parameter.value.as_deref()?.parse().ok()).unwrap_or(0)
}

fn milliseconds(now: jiff::Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or(0)
}
