//! From a plugin's plan to a finished boot script: what is checked here is what keeps a verdict from being an order.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Service;
use super::documents::Rehearsal;
use crate::domain::{BootId, DevicePolicy, Facts, HoldReason, Host, Stage, StateName, StatesError, Writes};
use crate::hooks::{BootPlan, BootRequest, Hook, ImageBoot, KnownHost, TemplateBoot};
use crate::images::{Catalogue, Image, Kind, NotOffered};
use crate::render::{
    BaseUrl, BootScript, BootVars, CallVars, CmdlineError, DocumentVars, HostVars, ImageVars, Initrd, KernelArg,
    KiwiLine, LinuxLine, LiveLine, RenderError, Renderer, SafeLine, ServerVars,
};

/// A boot that everybody agreed on, rendered.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) script: String,
    /// The image; none for a template.
    pub(super) image: Option<StateName>,
    pub(super) writes: Writes,
    /// Whether it is something else than the current state.
    pub(super) detour: bool,
    /// For people.
    pub(super) what: String,
}

/// Why a plan is not carried out; the machine holds, and reads this.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanRefused {
    #[error(transparent)]
    NotOffered(#[from] NotOffered),
    #[error(transparent)]
    Name(#[from] StatesError),
    #[error("a plugin wants to boot {image}, which writes a disk, but the state is {state}: a plugin cannot order")]
    NotOrdered { image: StateName, state: StateName },
    #[error("a plugin wants to boot {0}, but the host waits for a state")]
    NoState(String),
    #[error("the kernel command line of {image}: {error}")]
    Cmdline { image: StateName, error: CmdlineError },
    #[error("the host's metadata names {0:?} as install_device: {choices} is expected", choices = DevicePolicy::CHOICES)]
    Device(String),
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error(
        "the boot script of {0} does not fetch its payload below boot.files: its installation could not be followed"
    )]
    Untracked(StateName),
    #[error("{0}")]
    Spent(HoldReason),
    #[error("the server has a fault, see its log")]
    Fault,
}

/// A host's metadata may name another disk than its image does, under this key.
pub(super) const INSTALL_DEVICE: &str = "install_device";

/// Turns plans into scripts. It looks at folders of images and templates, which may be on a disk that hangs, so it is
/// asked on threads of its own.
struct Planner {
    catalogue: Arc<Catalogue>,
    renderer: Arc<Renderer>,
    most_attempts: u32,
    /// Whether plugins add variables to documents.
    plugins_add: bool,
}

impl Service {
    /// Turns a plan into a script, on a thread of its own.
    pub(super) async fn render_plan(&self, plan: BootPlan, occasion: Occasion) -> Result<Rendered, PlanRefused> {
        let planner = Planner {
            catalogue: Arc::clone(&self.catalogue),
            renderer: Arc::clone(&self.renderer),
            most_attempts: self.settings().most_attempts,
            plugins_add: self.hooks().asked(Hook::Render).next().is_some(),
        };
        tokio::task::spawn_blocking(move || planner.render(&plan, &occasion)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "rendering a boot script failed");
            Err(PlanRefused::Fault)
        })
    }
}

/// What a plan is carried out for.
#[derive(Clone)]
pub(super) struct Occasion {
    pub(super) host: Host,
    pub(super) facts: Facts,
    pub(super) bootid: BootId,
    pub(super) base: BaseUrl,
}

impl Planner {
    /// Turns a plan into a script for this boot.
    fn render(&self, plan: &BootPlan, occasion: &Occasion) -> Result<Rendered, PlanRefused> {
        let rendered = match plan {
            BootPlan::Image(plan) => self.render_image(plan, occasion)?,
            BootPlan::Template(plan) => self.render_template(plan, occasion)?,
            BootPlan::LocalDisk => return Err(PlanRefused::NoState("the local disk".to_owned())),
        };
        // A plugin that boots harmless images in between must not win further attempts for an order.
        let host = &occasion.host;
        if rendered.writes.is_order() && host.attempts >= self.most_attempts {
            return Err(PlanRefused::Spent(HoldReason::TooManyAttempts(host.id, host.attempts)));
        }
        Ok(rendered)
    }

    fn render_image(&self, plan: &ImageBoot, occasion: &Occasion) -> Result<Rendered, PlanRefused> {
        let Occasion { host, facts, bootid, base } = occasion;
        let name: StateName = plan.image.parse()?;
        let state = host.states.current();
        if state.is_built_in() {
            return Err(PlanRefused::NoState(plan.image.clone()));
        }
        let image = self.catalogue.image(&name)?;
        let writes = image.manifest.writes;
        if writes.is_order() && name != *state {
            return Err(PlanRefused::NotOrdered { image: name, state: state.clone() });
        }
        let files = base.files(bootid);
        let disk = install_disk(host, &image)?;
        let cmdline = command_line(&image, plan, disk.as_ref(), &files, &base.post_install(bootid))
            .map_err(|error| PlanRefused::Cmdline { image: name.clone(), error })?;
        let variables = ImageVars {
            server: ServerVars { base: base.clone() },
            host: host_vars(host, facts),
            image: name.to_string(),
            boot: BootVars {
                bootid: bootid.expose(),
                attempt: host.attempts.saturating_add(1),
                attempts_max: self.most_attempts,
                files: files.clone(),
                kernel: image.manifest.kernel.to_string(),
                initrd: image.manifest.initrd.as_ref().map(ToString::to_string).unwrap_or_default(),
                cmdline,
                disk: disk.as_ref().map(ToString::to_string).unwrap_or_default(),
            },
            vars: object(&plan.vars),
        };
        let script = if self.renderer.has_template(Some(&image.folder), "host.ipxe") {
            self.renderer.document(Some(&image.folder), "host.ipxe", &variables)?.text
        } else {
            self.renderer.boot_script(&match image.manifest.kind {
                Kind::Kiwi => BootScript::Kiwi(variables),
                Kind::Linux | Kind::Live => BootScript::Linux(variables),
            })?
        };
        // What is fetched elsewhere is not counted, so an order could be carried out twice.
        let is_tracked =
            image.payload.as_ref().is_some_and(|payload| script.contains(&format!("{files}{}", payload.name)));
        if writes.is_order() && !is_tracked {
            return Err(PlanRefused::Untracked(name));
        }
        if writes.is_order() {
            self.rehearsal(occasion).of_image(&image, name.as_str())?;
        }
        Ok(Rendered { script, what: format!("image {name}"), detour: name != *state, image: Some(name), writes })
    }

    fn render_template(&self, plan: &TemplateBoot, occasion: &Occasion) -> Result<Rendered, PlanRefused> {
        let Occasion { host, facts, bootid, base } = occasion;
        let name: StateName = plan.template.parse()?;
        let state = host.states.current();
        if state.is_built_in() {
            return Err(PlanRefused::NoState(plan.template.clone()));
        }
        let document = format!("{name}.ipxe");
        // Nobody can see what a template makes a machine do, so it is an order unless it says otherwise.
        let writes = if self.renderer.says_it_writes_nothing(&document) { Writes::Nothing } else { Writes::Disk };
        if writes.is_order() && name != *state {
            return Err(PlanRefused::NotOrdered { image: name, state: state.clone() });
        }
        let mut variables = document_vars(host, bootid, base, name.as_str());
        variables.host = host_vars(host, facts);
        variables.vars = object(&plan.vars);
        let script = self.renderer.document(None, &document, &variables)?.text;
        if writes.is_order() {
            self.rehearsal(occasion).of_script(&script, name.as_str())?;
        }
        Ok(Rendered { script, what: format!("template {name}"), detour: name != *state, image: None, writes })
    }

    fn rehearsal<'a>(&'a self, occasion: &'a Occasion) -> Rehearsal<'a> {
        let Occasion { host, bootid, base, .. } = occasion;
        Rehearsal { renderer: &self.renderer, host, bootid, base, plugins_add: self.plugins_add }
    }
}

/// What plugins are told.
pub(super) fn boot_request(host: &Host, facts: &Facts) -> BootRequest {
    let facts = facts.described().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    BootRequest { host: known_host(host), facts }
}

/// A host as plugins see it.
pub(super) fn known_host(host: &Host) -> KnownHost {
    let mut more = Map::new();
    more.insert("created_at".to_owned(), Value::from(host.created_at.to_string()));
    more.insert("changed_at".to_owned(), Value::from(host.changed_at.to_string()));
    more.insert("seen".to_owned(), Value::from(host.seen));
    let hardware = &host.hardware;
    let told = [
        ("manufacturer", &hardware.manufacturer),
        ("product", &hardware.product),
        ("asset", &hardware.asset),
        ("buildarch", &hardware.buildarch),
        ("platform", &hardware.platform),
    ];
    let told = told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value.clone()?))));
    more.insert("hardware".to_owned(), Value::Object(told.collect()));
    if let Some(boot) = host.current_boot() {
        let stage = match boot.stage {
            Stage::Offered => "offered",
            Stage::Started => "started",
            Stage::Delivered => "delivered",
            Stage::Failed { .. } => "failed",
            Stage::Done { .. } => "done",
        };
        more.insert("boot".to_owned(), serde_json::json!({ "stage": stage, "held": boot.held }));
    }
    KnownHost {
        id: host.id.get(),
        revision: host.revision,
        hostname: host.hostname.as_ref().map(ToString::to_string),
        serial: host.identity.serial.as_ref().map(ToString::to_string).unwrap_or_default(),
        uuid: host.identity.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
        macs: host.identity.macs.iter().map(ToString::to_string).collect(),
        states: host.states.iter().map(ToString::to_string).collect(),
        attempts: host.attempts,
        metadata: host.metadata.as_map().clone(),
        more,
    }
}

/// A host as templates see it.
pub(super) fn host_vars(host: &Host, facts: &Facts) -> HostVars {
    let told =
        |now: &Option<String>, before: &Option<String>| now.clone().or_else(|| before.clone()).unwrap_or_default();
    HostVars {
        id: host.id.get(),
        hostname: host.hostname.as_ref().map(ToString::to_string).unwrap_or_default(),
        serial: host.identity.serial.as_ref().map(ToString::to_string).unwrap_or_default(),
        uuid: host.identity.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
        macs: host.identity.macs.iter().map(ToString::to_string).collect(),
        manufacturer: told(&facts.hardware.manufacturer, &host.hardware.manufacturer),
        product: told(&facts.hardware.product, &host.hardware.product),
        state: host.states.current().to_string(),
        states: host.states.iter().map(ToString::to_string).collect(),
        metadata: Value::Object(host.metadata.as_map().clone()),
    }
}

/// The variables of a document of one boot.
pub(super) fn document_vars(host: &Host, bootid: &BootId, base: &BaseUrl, image: &str) -> DocumentVars {
    let secret = bootid.expose();
    DocumentVars {
        server: ServerVars { base: base.clone() },
        host: host_vars(host, &Facts::default()),
        image: image.to_owned(),
        instance: format!("kiwispray-{}-{}", host.id, host.step.get()),
        files: base.files(bootid),
        calls: CallVars::new(base, bootid),
        bootid: secret,
        vars: Value::Object(Map::new()),
    }
}

fn command_line(
    image: &Image,
    plan: &ImageBoot,
    disk: Option<&DevicePolicy>,
    files: &str,
    post_install_url: &str,
) -> Result<SafeLine, CmdlineError> {
    let manifest = &image.manifest;
    let mut image_append = manifest.append.words().map(str::parse).collect::<Result<Vec<KernelArg>, _>>()?;
    let plugin_append =
        plan.append.iter().map(|word| KernelArg::from_plugin(word)).collect::<Result<Vec<KernelArg>, _>>()?;
    let line = match (manifest.kind, &image.payload, disk) {
        (Kind::Kiwi, Some(payload), Some(disk)) => SafeLine::kiwi(&KiwiLine {
            image_url: &format!("{files}{}", payload.name),
            disk,
            post_install_url,
            image_append: &image_append,
            plugin_append: &plugin_append,
        }),
        (Kind::Live, Some(iso), None) => SafeLine::live(&LiveLine {
            iso_url: &format!("{files}{}", iso.name),
            iso_bytes: iso.size_bytes,
            post_install_url,
            image_append: &image_append,
            plugin_append: &plugin_append,
        }),
        (Kind::Kiwi | Kind::Linux | Kind::Live, _, disk) => {
            // So that an image that is no KIWI installer knows which disk it was given, too.
            if let Some(disk) = disk {
                image_append.push(format!("kiwispray.device={disk}").parse()?);
            }
            SafeLine::linux(&LinuxLine {
                initrd: if manifest.initrd.is_some() { Initrd::Loaded } else { Initrd::Absent },
                post_install_url,
                image_append: &image_append,
                plugin_append: &plugin_append,
            })
        }
    }?;
    match manifest.first_boot {
        Some(first_boot) => line.with_first_boot(first_boot, files),
        None => Ok(line),
    }
}

fn install_disk(host: &Host, image: &Image) -> Result<Option<DevicePolicy>, PlanRefused> {
    if !image.manifest.writes.is_order() {
        return Ok(None);
    }
    match host.metadata.get(INSTALL_DEVICE) {
        None | Some(Value::Null) => Ok(image.manifest.device.clone()),
        Some(value) => {
            let refuse = || PlanRefused::Device(value.to_string().chars().take(80).collect());
            let disk: DevicePolicy = value.as_str().ok_or_else(refuse)?.parse().map_err(|_| refuse())?;
            // Only what wipes is for all disks at once.
            if disk == DevicePolicy::All && image.manifest.writes != Writes::Wipe {
                Err(refuse())
            } else {
                Ok(Some(disk))
            }
        }
    }
}

fn object(vars: &[(String, Value)]) -> Value {
    Value::Object(vars.iter().cloned().collect())
}
