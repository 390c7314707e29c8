//! The variables of each template: what the service fills in, and what a template's author may use.
//!
//! The invariant: every field is always there, as a missing variable is an error in strict templates; what is unknown is an
//! empty string or list. The structs are wire types of the templates: renaming a field breaks people's templates.

use serde::Serialize;
use serde_json::Value;

use crate::domain::BootId;

use super::cmdline::SafeLine;
use super::url::BaseUrl;

/// After this long iPXE's lease, which it never renews, may be someone else's.
pub const WAIT_S_MAX: u32 = 25 * 60;

/// `server.*`
#[derive(Clone, Debug, Serialize)]
pub struct ServerVars {
    /// `http://host:port`, without a slash at the end; in iPXE write `{{url server.base}}`.
    pub base: BaseUrl,
}

/// `host.*`
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostVars {
    /// The host's number.
    pub id: u64,
    /// Its name, or empty.
    pub hostname: String,
    /// As the firmware reports it, or empty.
    pub serial: String,
    /// As the firmware reports it, or empty.
    pub uuid: String,
    /// Canonical: lower case, colons.
    pub macs: Vec<String>,
    /// As the firmware reported it at its newest request for a boot, or empty.
    pub manufacturer: String,
    /// As the firmware reported it at its newest request for a boot, or empty.
    pub product: String,
    /// The current state: the first of `states`.
    pub state: String,
    /// The queue.
    pub states: Vec<String>,
    /// The host's metadata, an object.
    pub metadata: Value,
}

/// `wait.*`: how a waiting machine goes on.
#[derive(Clone, Debug, Serialize)]
pub struct WaitVars {
    /// Seconds until it asks again; the server adds the jitter.
    pub again_s: u32,
    /// Seconds it has waited so far: the `waited` parameter of its request, 0 if there is none.
    pub waited_s: u32,
    /// What it reports as `waited` with its next request.
    pub next_waited_s: u32,
    /// It has waited for [`WAIT_S_MAX`] and reboots.
    pub reboot: bool,
}

impl WaitVars {
    /// From the pause that the server wants and the `waited` parameter of the request.
    pub fn new(again_s: u32, waited_s: u32) -> WaitVars {
        // iPXE has no clock that is cheap to compare, so the machine carries its waiting time along from script to script.
        WaitVars { again_s, waited_s, next_waited_s: waited_s.saturating_add(again_s), reboot: waited_s >= WAIT_S_MAX }
    }
}

/// Variables of `bootstrap.ipxe`.
#[derive(Clone, Debug, Serialize)]
pub struct BootstrapVars {
    /// This server.
    pub server: ServerVars,
}

/// Variables of `new.ipxe`.
#[derive(Clone, Debug, Serialize)]
pub struct NewVars {
    /// This server.
    pub server: ServerVars,
    /// The host just registered or still without an order.
    pub host: HostVars,
    /// How it goes on.
    pub wait: WaitVars,
}

/// Variables of `hold.ipxe`.
#[derive(Clone, Debug, Serialize)]
pub struct HoldVars {
    /// This server.
    pub server: ServerVars,
    /// The host, or none when the machine was not recognised.
    pub host: Option<HostVars>,
    /// Why it waits, and what would end that.
    pub reason: String,
    /// How it goes on.
    pub wait: WaitVars,
}

/// Variables of `local.ipxe`.
#[derive(Clone, Debug, Serialize)]
pub struct LocalVars {
    /// The host, or none when the machine was not recognised.
    pub host: Option<HostVars>,
    /// Why: `finished`, or what else leads to the local disk.
    pub reason: String,
    /// Boot the first disk from iPXE instead of leaving iPXE.
    pub sanboot: bool,
}

/// `boot.*` of one boot of one step.
#[derive(Clone, Debug, Serialize)]
pub struct BootVars {
    /// The boot's secret.
    pub bootid: String,
    /// Which attempt this boot will be, from 1.
    pub attempt: u32,
    /// The most attempts there will be.
    pub attempts_max: u32,
    /// URL below which this boot's files are, with a slash at the end.
    pub files: String,
    /// Name of the kernel below `files`.
    pub kernel: String,
    /// Name of the initrd below `files`, or empty.
    pub initrd: String,
    /// The finished command line; in templates write `{{cmdline}}`.
    pub cmdline: SafeLine,
    /// The disk that is written, as a person would say it, or empty.
    pub disk: String,
}

/// Variables of `boot_linux.ipxe`, `boot_kiwi.ipxe` and an image's own `host.ipxe`.
#[derive(Clone, Debug, Serialize)]
pub struct ImageVars {
    /// This server.
    pub server: ServerVars,
    /// The host that boots.
    pub host: HostVars,
    /// The image's name.
    pub image: String,
    /// This boot.
    pub boot: BootVars,
    /// What plugins added, an object.
    pub vars: Value,
}

/// `calls.*`: the URLs that the booted system may call.
#[derive(Clone, Debug, Serialize)]
pub struct CallVars {
    /// The post-install script.
    pub post_install: String,
    /// Report that the step is done.
    pub finish: String,
    /// Report a failure; add `&reason=…`.
    pub fail: String,
    /// Post inventory.
    pub update: String,
    /// Ask for the current state.
    pub state: String,
}

impl CallVars {
    /// All URLs of one boot.
    pub fn new(base: &BaseUrl, bootid: &BootId) -> CallVars {
        CallVars {
            post_install: base.post_install(bootid),
            finish: base.finish(bootid),
            fail: base.fail(bootid),
            update: base.update(bootid),
            state: base.state(bootid),
        }
    }
}

/// Variables of `post_install.sh`, `user-data` and every other document of a boot.
#[derive(Clone, Debug, Serialize)]
pub struct DocumentVars {
    /// This server.
    pub server: ServerVars,
    /// The host.
    pub host: HostVars,
    /// The image's name.
    pub image: String,
    /// The boot's secret.
    pub bootid: String,
    /// Names what is installed: one order of one host, with all its attempts.
    pub instance: String,
    /// URL below which this boot's files are, with a slash at the end.
    pub files: String,
    /// What the booted system may call.
    pub calls: CallVars,
    /// What plugins added, an object.
    pub vars: Value,
}

/// A boot script and its variables.
#[derive(Clone, Debug)]
pub enum BootScript {
    /// The first script: reports the machine and asks what to do.
    Bootstrap(BootstrapVars),
    /// A host without an order.
    New(NewVars),
    /// A machine that must wait.
    Hold(HoldVars),
    /// To the local disk.
    Local(LocalVars),
    /// A kernel and maybe an initrd.
    Linux(ImageVars),
    /// KIWI's installer.
    Kiwi(ImageVars),
}

impl BootScript {
    /// The template's name.
    pub fn template(&self) -> &'static str {
        match self {
            BootScript::Bootstrap(_) => "bootstrap.ipxe",
            BootScript::New(_) => "new.ipxe",
            BootScript::Hold(_) => "hold.ipxe",
            BootScript::Local(_) => "local.ipxe",
            BootScript::Linux(_) => "boot_linux.ipxe",
            BootScript::Kiwi(_) => "boot_kiwi.ipxe",
        }
    }
}
