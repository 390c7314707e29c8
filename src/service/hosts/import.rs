//! Hosts by the dozen, from a list that people keep.
//!
//! Invariants:
//! - The same list twice changes nothing the second time, however far its machines have come meanwhile: a queue is only
//!   given to a host that was never offered a boot, or waits as new. So a list never repeats an order, and never leads out of
//!   `finished`.
//! - Either every line can be carried out, or nothing is; unless the wrong lines were to be left out. Each host is changed in one
//!   commit, so that a list whose import broke off can be imported again.
//! - What a line says of a machine must fit one host, or none: whoever is contradicted is named.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt as _, stream};

use crate::domain::{
    Actor, Candidate, Edit, Evidence, Finding, Hardware, Host, HostId, Hostname, Identity, IdentityEdit, Match,
    Metadata, MetadataEdit, Recognition, Registration, States, recognise,
};
use crate::hooks::Run;
use crate::store::StoreError;

use super::super::{CONFLICT_RETRIES, Service};
use super::{Act, Acted, Erased, HostsError, Terms, sentence};

/// Hosts that are written at a time: as many as share a commit of the disk well.
const AT_A_TIME: usize = 64;
/// Lines that share a value are compared with so many others; more than that and it is no evidence.
const MOST_SHARING: usize = 64;

/// What a line says of a host. What is absent stays as it is.
#[derive(Debug, Clone)]
pub struct Row {
    /// What recognises it; something, at least.
    pub identity: Identity,
    /// Its name.
    pub hostname: Option<Hostname>,
    /// Its queue, if it was never offered a boot.
    pub states: Option<States>,
    /// To be merged into its metadata.
    pub metadata: Metadata,
}

/// Why a line cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which part of the line: `hostname`, `serial`, `uuid`, `macs`, `states` or `metadata`; none: the line as a whole.
    pub field: Option<&'static str>,
    /// A sentence.
    pub why: String,
}

/// What became of a line, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A host that nobody knew.
    Created,
    /// A host that is different now.
    Changed,
    /// A host that is so already.
    Same,
    /// Nothing, for these reasons.
    Refused(Vec<Problem>),
}

/// A line and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The line.
    pub line: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The host, if it is known by now.
    pub id: Option<HostId>,
    /// Its name.
    pub label: String,
    /// What changes, in sentences.
    pub changes: Vec<String>,
    /// What the line says and the host does not become, in sentences.
    pub kept: Vec<String>,
    /// Disks that die when the machine works through its queue.
    pub erases: Vec<Erased>,
}

/// What is to be done about a line.
enum Plan {
    Create(Registration),
    Change { id: HostId, act: Act, kept: Vec<String> },
    Refuse(Vec<Problem>),
}

/// What all lines are judged beside.
#[derive(Default)]
struct Beside {
    /// Who has which name; empty if no line gives one.
    names: HashMap<Hostname, HostId>,
    /// The line that gives a name.
    named: HashMap<Hostname, u64>,
    /// The line that changes a host.
    changed: HashMap<HostId, u64>,
    /// Lines that show a value.
    showing: HashMap<String, Vec<usize>>,
    /// Queues that were looked up.
    states: BTreeMap<String, Option<String>>,
}

impl Problem {
    fn of(field: &'static str, why: impl ToString) -> Self {
        Self { field: Some(field), why: why.to_string() }
    }

    fn whole(why: impl ToString) -> Self {
        Self { field: None, why: why.to_string() }
    }
}

impl Service {
    /// Makes hosts known, or changes them, as lines say. What comes out is one answer a line, in order, as it becomes known;
    /// whoever stops listening stops the import between two hosts.
    pub async fn import(
        self: Arc<Self>,
        rows: Vec<(u64, Result<Row, Vec<Problem>>)>,
        actor: Actor,
        leave_out: bool,
        run: Run,
    ) -> Result<impl Stream<Item = Imported> + Send, HostsError> {
        let plans = self.judge_rows(rows, &actor).await?;
        let mut tried = Vec::with_capacity(plans.len());
        for (line, plan) in &plans {
            tried.push(self.carry_out(*line, plan, &actor, Run::Dry).await);
        }
        let is_refused = |imported: &Imported| matches!(imported.outcome, Outcome::Refused(_));
        if run == Run::Dry || (!leave_out && tried.iter().any(is_refused)) {
            return Ok(stream::iter(tried).left_stream());
        }
        let pairs: Vec<_> = plans.into_iter().zip(tried).collect();
        let chunks: Vec<Vec<_>> = {
            let mut pairs = pairs.into_iter().peekable();
            std::iter::from_fn(|| pairs.peek().is_some().then(|| pairs.by_ref().take(AT_A_TIME).collect())).collect()
        };
        let done = stream::iter(chunks).then(move |chunk: Vec<((u64, Plan), Imported)>| {
            let (service, actor) = (Arc::clone(&self), actor.clone());
            async move {
                let each = chunk.into_iter().map(|((line, plan), tried)| {
                    let (service, actor) = (&service, &actor);
                    async move {
                        match tried.outcome {
                            Outcome::Refused(_) | Outcome::Same => tried,
                            Outcome::Created | Outcome::Changed => {
                                service.carry_out(line, &plan, actor, Run::Real).await
                            }
                        }
                    }
                });
                stream::iter(join_all(each).await)
            }
        });
        Ok(done.flatten().right_stream())
    }

    async fn judge_rows(
        &self,
        rows: Vec<(u64, Result<Row, Vec<Problem>>)>,
        actor: &Actor,
    ) -> Result<Vec<(u64, Plan)>, HostsError> {
        let mut beside = Beside::default();
        if rows.iter().any(|(_, row)| row.as_ref().is_ok_and(|row| row.hostname.is_some())) {
            beside.names = self.names().await?;
        }
        let mut plans = Vec::with_capacity(rows.len());
        // The identities of lines that were good, by their place.
        let mut shown: Vec<(u64, Identity)> = Vec::with_capacity(rows.len());
        for (line, row) in rows {
            let plan = match row {
                Ok(row) => {
                    let twins = twins(&row.identity, &shown, &mut beside);
                    shown.push((line, row.identity.clone()));
                    match twins {
                        None => self.judge_row(line, row, actor, &mut beside).await?,
                        Some(problem) => Plan::Refuse(vec![problem]),
                    }
                }
                Err(problems) => Plan::Refuse(problems),
            };
            plans.push((line, plan));
        }
        Ok(plans)
    }

    async fn judge_row(&self, line: u64, row: Row, actor: &Actor, beside: &mut Beside) -> Result<Plan, HostsError> {
        let found = self.store.candidates(&row.identity).await?;
        let host = match meant(&row.identity, &found.hosts) {
            Ok(host) => host,
            Err(problem) => return Ok(Plan::Refuse(vec![problem])),
        };
        let mut problems = Vec::new();
        // What is called so already stays so, even if others are, too.
        let is_called = |name: &&Hostname| host.is_some_and(|host| host.hostname.as_ref() == Some(*name));
        if let Some(name) = row.hostname.as_ref().filter(|name| !is_called(name)) {
            let owner = beside.names.get(name).filter(|owner| host.map(|host| host.id) != Some(**owner));
            if let Some(owner) = owner {
                problems.push(Problem::of("hostname", format_args!("host {owner} is called {name} already")));
            }
            if let Some(other) = beside.named.insert(name.clone(), line) {
                problems.push(Problem::of("hostname", format_args!("line {other} gives the name {name}, too")));
            }
        }
        if let Some(states) = &row.states {
            let judged = beside
                .states
                .entry(states.to_string())
                .or_insert_with(|| self.check_states(states).err().map(|error| error.to_string()));
            problems.extend(judged.as_ref().map(|why| Problem::of("states", why)));
        }
        if let Some(host) = host
            && let Some(other) = beside.changed.insert(host.id, line)
        {
            problems.push(Problem::whole(format_args!("line {other} means {}, too", called(host))));
        }
        if !problems.is_empty() {
            return Ok(Plan::Refuse(problems));
        }
        Ok(match host {
            Some(host) => change_of(host, row),
            None => Plan::Create(registration(row, actor)),
        })
    }

    /// The name of every host.
    async fn names(&self) -> Result<HashMap<Hostname, HostId>, StoreError> {
        let (mut names, mut after) = (HashMap::new(), None);
        loop {
            let page = self.store.hosts(after, 500).await?;
            let Some(last) = page.last() else { return Ok(names) };
            after = Some(last.id);
            names.extend(page.into_iter().filter_map(|host| Some((host.hostname?, host.id))));
        }
    }

    /// Does, or tries, what a line says.
    async fn carry_out(&self, line: u64, plan: &Plan, actor: &Actor, run: Run) -> Imported {
        let empty = Imported {
            line,
            outcome: Outcome::Same,
            id: None,
            label: String::new(),
            changes: Vec::new(),
            kept: Vec::new(),
            erases: Vec::new(),
        };
        let (mut done, kept) = match plan {
            Plan::Refuse(problems) => return Imported { outcome: Outcome::Refused(problems.clone()), ..empty },
            Plan::Create(registration) => (self.create(registration, actor, run).await, Vec::new()),
            Plan::Change { id, act, kept } => {
                let terms = Terms { actor: actor.clone(), revision: None, serial: None, run };
                (self.act_unchecked(*id, act, &terms).await, kept.clone())
            }
        };
        if let (Err(HostsError::Store(StoreError::Conflict)), Plan::Create(registration)) = (&done, plan) {
            // Neighbours that share a serial number disturb each other.
            done = self.create(registration, actor, run).await;
        }
        match done {
            Ok(Acted { before, after, changed, erases, events }) => {
                let host = after.as_ref().or(before.as_ref());
                let is_known = before.is_some() || run == Run::Real;
                Imported {
                    outcome: match (&before, changed) {
                        (None, _) => Outcome::Created,
                        (Some(_), true) => Outcome::Changed,
                        (Some(_), false) => Outcome::Same,
                    },
                    id: host.filter(|_| is_known).map(|host| host.id),
                    label: host.and_then(|host| host.hostname.as_ref()).map(ToString::to_string).unwrap_or_default(),
                    changes: events.iter().map(|event| sentence(&event.kind)).collect(),
                    kept,
                    erases,
                    ..empty
                }
            }
            Err(error) => Imported { outcome: Outcome::Refused(vec![Problem::whole(error)]), ..empty },
        }
    }

    async fn create(&self, registration: &Registration, actor: &Actor, run: Run) -> Result<Acted, HostsError> {
        let mut done = self.add_unchecked(registration.clone(), actor.clone(), run).await;
        for _ in 0..CONFLICT_RETRIES {
            if matches!(done, Err(HostsError::Store(StoreError::Conflict))) {
                done = self.add_unchecked(registration.clone(), actor.clone(), run).await;
            }
        }
        done
    }
}

/// Why a line may be the same machine as one before it. Its values are looked up by later ones.
fn twins(identity: &Identity, shown: &[(u64, Identity)], beside: &mut Beside) -> Option<Problem> {
    let serial = identity.serial.iter().map(|serial| format!("s{}", serial.key()));
    let uuid = identity.uuid.iter().map(|uuid| format!("u{:x?}", uuid.key()));
    let values: Vec<String> = serial.chain(uuid).chain(identity.macs.iter().map(|mac| format!("m{mac}"))).collect();
    let mut places: Vec<usize> =
        values.iter().filter_map(|value| beside.showing.get(value)).flatten().copied().collect();
    places.sort_unstable();
    places.dedup();
    for value in values {
        let showing = beside.showing.entry(value).or_default();
        if showing.len() < MOST_SHARING {
            showing.push(shown.len());
        }
    }
    // Lines stand in for hosts, by their number.
    let others: Vec<Candidate> = places
        .iter()
        .filter_map(|place| shown.get(*place))
        .map(|(line, identity)| Candidate {
            id: HostId::new(*line),
            identity: identity.clone(),
            seen: false,
            forgotten: false,
        })
        .collect();
    let lines = match recognise(identity, &others).0 {
        Recognition::Known(line) => vec![line],
        Recognition::Doubt { candidates, .. } => candidates,
        Recognition::New { .. } | Recognition::Returned { .. } | Recognition::Nobody => return None,
    };
    let lines: Vec<String> = lines.iter().map(|line| format!("line {line}")).collect();
    Some(Problem::whole(format_args!("this is, or may be, the same machine as {}", lines.join(" and "))))
}

/// The host that a line means; none: a machine that nobody knows. A list need not say all that identifies a machine, but
/// what it says must not contradict what is known.
fn meant<'a>(identity: &Identity, hosts: &'a [Host]) -> Result<Option<&'a Host>, Problem> {
    let candidates: Vec<Candidate> = hosts.iter().map(Into::into).collect();
    let (_, findings) = recognise(identity, &candidates);
    let relevant: Vec<(&Host, &Finding)> = findings
        .iter()
        .filter(|finding| match finding.evidence {
            Evidence::Strong | Evidence::Weak | Evidence::Conflict => true,
            Evidence::SharedSerial | Evidence::None => false,
        })
        .filter_map(|finding| Some((hosts.iter().find(|host| host.id == finding.id)?, finding)))
        .collect();
    let (host, finding) = match relevant.as_slice() {
        [] if !identity.has_dmi() && !hosts.is_empty() => {
            let owners = listed(hosts.iter());
            return Err(Problem::of(
                "macs",
                format_args!("these cards are those of {owners}: say a serial or UUID, too"),
            ));
        }
        [] => return Ok(None),
        [only] => *only,
        several => {
            let hosts = listed(several.iter().map(|(host, _)| *host));
            return Err(Problem::whole(format_args!(
                "this means {hosts}: say more of the machine, or correct them first"
            )));
        }
    };
    let number = host.id;
    let differs =
        [("serial", finding.serial), ("uuid", finding.uuid)].into_iter().find(|(_, of)| *of == Match::Differs);
    if let Some((field, _)) = differs {
        let theirs = match field {
            "serial" => host.identity.serial.as_ref().map(ToString::to_string),
            _ => host.identity.uuid.map(|uuid| uuid.to_string()),
        };
        let theirs = theirs.unwrap_or_default();
        return Err(Problem::of(
            field,
            format_args!(
                "{} shares the rest, but has {field} {theirs}: correct one of them, this line or `kiwispray host identity \
                 {number} --{field} …`",
                called(host)
            ),
        ));
    }
    let shares_cards = !finding.macs.is_empty() || !finding.shared_macs.is_empty();
    if let Some(mac) = identity.macs.first().filter(|_| !shares_cards && !host.identity.macs.is_empty()) {
        return Err(Problem::of(
            "macs",
            format_args!(
                "{} has none of these cards: if it got another, `kiwispray host identity {number} --add-mac {mac}` first",
                called(host)
            ),
        ));
    }
    Ok(Some(host))
}

fn change_of(host: &Host, row: Row) -> Plan {
    let Row { identity, hostname, states, metadata } = row;
    let mut kept = Vec::new();
    let states = states.filter(|states| {
        if *states == host.states {
            return false;
        }
        let was_offered = host.boot.is_some() || !host.past.is_empty();
        let why = if host.lock.is_some() {
            format!("as it is locked: kiwispray host unlock {}", host.id)
        } else if host.quarantined {
            format!("as it came from a backup: kiwispray release {}", host.id)
        } else if host.may_be_installed() || (was_offered && !host.states.is_new()) {
            let flag = if host.states.is_finished() { " --reinstall" } else { "" };
            format!("as it was booted: an order of its own is kiwispray host set {} --state {states}{flag}", host.id)
        } else {
            return true;
        };
        kept.push(format!("its states stay {}, {why}", host.states));
        false
    });
    let known = &host.identity;
    let identity = IdentityEdit {
        serial: identity.serial.filter(|_| known.serial.is_none()).map(Some),
        uuid: identity.uuid.filter(|_| known.uuid.is_none()).map(Some),
        add_macs: identity.macs.difference(&known.macs).copied().collect(),
        ..IdentityEdit::default()
    };
    let edit = Edit { hostname: hostname.map(Some), metadata: MetadataEdit::Merge(metadata), identity };
    Plan::Change { id: host.id, act: Act::Set { edit, states, reinstall: false, abort: false }, kept }
}

fn registration(row: Row, actor: &Actor) -> Registration {
    let Row { identity, hostname, states, metadata } = row;
    // What is said to be absent is not there anyway.
    let metadata = Metadata::default().merged(&metadata).unwrap_or(metadata);
    let by = match actor {
        Actor::Operator(name) => name.as_str(),
        Actor::Machine | Actor::Plugin(_) | Actor::Server => "nobody",
    };
    Registration {
        identity,
        hardware: Hardware::default(),
        hostname,
        states: states.unwrap_or_else(States::new_host),
        metadata,
        why: format!("imported by {by}"),
    }
}

/// `node3 (host 3)`, or `host 3`.
fn called(host: &Host) -> String {
    host.hostname.as_ref().map_or_else(|| format!("host {}", host.id), |name| format!("{name} (host {})", host.id))
}

fn listed<'a>(hosts: impl Iterator<Item = &'a Host>) -> String {
    hosts.map(called).collect::<Vec<_>>().join(" and ")
}
