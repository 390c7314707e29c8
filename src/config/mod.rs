//! Files, environment and flags become one validated [`Config`].
//!
//! The invariant: who holds a [`Config`] need not check anything again. Two steps lead there: what was written, all of it
//! optional ([`ServeArgs`], the files), and what it means, with defaults filled in and every bound checked. All problems are
//! reported together, each in one sentence that names the file and key.

mod args;
mod changes;
mod data_dir;
mod file;
mod plugin;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};

use crate::dnsmasq::{DhcpRange, Wish};
use crate::images::LocalBoot;
use crate::render::BaseUrl;

pub use args::ServeArgs;
pub use changes::Change;
pub use plugin::{DEFAULT_PLUGIN, Digest, DigestError, PluginBinding, PluginGrant, PluginName, PluginNameError};

use file::Files;

/// The folder of the files that `kiwispray plugin install` writes.
const PLUGINS_D: &str = "plugins.d";

/// Everything that can be set, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// The folder of the configuration file, and of `conf.d`, which may be missing.
    pub config_dir: PathBuf,
    /// Where hosts and events are kept.
    pub data_dir: PathBuf,
    /// Whether a store may be made in the data directory when there is none.
    pub missing_data_dir: MissingDataDir,
    /// One folder per image.
    pub images_dir: PathBuf,
    /// The site's own templates; the folder may be missing.
    pub templates_dir: PathBuf,
    /// Plugin components; the folder may be missing.
    pub plugins_dir: PathBuf,
    /// iPXE's binaries, if not where the distribution puts them.
    pub ipxe_dir: Option<PathBuf>,
    /// Address of the boot plane.
    pub listen: SocketAddr,
    /// What machines call this server; none: the address that a request arrived on.
    pub public_url: Option<BaseUrl>,
    /// Unknown machines first boot the image `discover`.
    pub discover: bool,
    /// `[boot]`
    pub boot: BootConfig,
    /// `[identity] ignore`: serials, UUIDs and MACs that identify nobody.
    pub identity_ignore: Vec<String>,
    /// `[limits]`
    pub limits: Limits,
    /// `[store]`
    pub store: StoreConfig,
    /// `[admin] group`: who may use the admin socket besides its owner.
    pub admin_group: Option<String>,
    /// dnsmasq as a supervised child; none: it runs elsewhere.
    pub dnsmasq: Option<DnsmasqConfig>,
    /// `[[plugin]]` of all files, those of `plugins.d` too; no name twice.
    pub plugins: Vec<PluginBinding>,
    /// Where plugins that are installed are written: `plugins.d` beside the configuration file if the server may write
    /// there, else in the data directory. Both are read.
    pub plugins_d: PathBuf,
}

/// What a data directory means that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingDataDir {
    /// It is made: nobody named it.
    Create,
    /// A first start, whatever tells against it: someone said `--init`.
    Init,
    /// Someone named it, so it should be there: an empty store in its place would make a whole fleet unknown.
    Refuse,
}

/// `[boot]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// `/state` answers without a bootid.
    pub open_state: bool,
    /// `/hosts` answers machines.
    pub open_hosts: bool,
    /// Attempts per step, 1 to 100.
    pub attempts: u32,
    /// Shortest pause of a waiting machine in seconds.
    pub again_s_min: u32,
    /// Longest pause of a waiting machine in seconds.
    pub again_s_max: u32,
    /// How long a client may take for the head of a request.
    pub header_timeout: Duration,
    /// How long a connection may stand still.
    pub idle_timeout: Duration,
    /// How machines leave for their own disk.
    pub local: LocalBoot,
    /// How long transfers may stream on after the server was told to end.
    pub drain: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Machines registered per minute; none: as many as come.
    pub new_hosts_per_minute: Option<u32>,
    /// Installed hosts that are installed again within an hour, at most 10,000; 0: none.
    pub reinstalls_per_hour: u32,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Memory for the store's cache, in MiB.
    pub cache_mb: u32,
    /// Below this much free disk, in MiB, nothing new is accepted.
    pub free_space_floor_mb: u32,
}

/// dnsmasq as a supervised child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsmasqConfig {
    /// The interface it serves.
    pub interface: String,
    /// Addresses, proxy, or to be found out.
    pub wish: Wish,
}

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// A key of a file, written `section.key`.
    File {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
    },
    /// A line of a file.
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A whole file or folder.
    Whole {
        /// The file or folder.
        file: PathBuf,
    },
    /// A flag or its environment variable.
    Flag(&'static str),
    /// Nobody set it.
    Defaults,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Problem {
    /// Where.
    pub at: Where,
    /// What, and what to do.
    pub what: String,
}

/// What a configuration is read from, so that it can be read again.
#[derive(Clone, Debug)]
pub struct Source {
    /// The flags that the server was started with.
    pub args: ServeArgs,
    /// The folders that defaults are looked for in.
    pub around: Surroundings,
}

impl Source {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All problems found, at least one.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.args, &self.around)
    }
}

/// The configuration cannot be used; every problem is listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// The folders that defaults are looked for in; a value, so that tests have their own.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The working directory.
    pub working_dir: PathBuf,
    /// `/etc/kiwispray`
    pub etc_dir: PathBuf,
    /// `/var/lib/kiwispray`
    pub var_dir: PathBuf,
}

impl Surroundings {
    /// Those of an installed server that runs here.
    pub fn of_system(working_dir: PathBuf) -> Surroundings {
        Surroundings { working_dir, etc_dir: "/etc/kiwispray".into(), var_dir: "/var/lib/kiwispray".into() }
    }

    /// Whether the working directory is kiwispray's own source.
    fn is_checkout(&self) -> bool {
        std::fs::read_to_string(self.working_dir.join("Cargo.toml"))
            .is_ok_and(|manifest| manifest.lines().any(|line| line.trim() == "name = \"kiwispray\""))
    }

    /// The configuration file that is used when none was named, and the folder whose `conf.d` is read.
    fn default_file(&self) -> (Option<PathBuf>, Option<PathBuf>) {
        for dir in [&self.working_dir, &self.etc_dir] {
            let file = dir.join("kiwispray.toml");
            if file.exists() {
                return (Some(file), Some(dir.clone()));
            }
        }
        // A package may bring only fragments.
        (None, Some(self.etc_dir.clone()))
    }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All problems found, at least one.
    pub fn load(args: &ServeArgs, around: &Surroundings) -> Result<Config, ConfigError> {
        let (main, folder) = match &args.config {
            Some(file) => {
                let file = around.working_dir.join(file);
                (Some(file.clone()), file.parent().map(Path::to_owned))
            }
            None => around.default_file(),
        };
        let mut files = Files::read(main.as_deref(), folder.as_deref()).map_err(|problems| ConfigError { problems })?;
        let data_dir = data_dir(args, &files, around).0;
        let in_data = data_dir.join(PLUGINS_D);
        let config_dir = folder.clone().unwrap_or_else(|| around.etc_dir.clone());
        let beside = folder.map(|folder| folder.join(PLUGINS_D));
        let folders: Vec<PathBuf> = beside
            .iter()
            .cloned()
            .chain([in_data.clone()].into_iter().filter(|dir| Some(dir) != beside.as_ref()))
            .collect();
        let problems = files.read_installed(&folders);
        let plugins_d = beside.filter(|dir| main.is_some() && may_write(dir)).unwrap_or(in_data);
        let mut checks = Checks { files: &files, problems };
        let config = checks.config(args, around, config_dir, plugins_d);
        if checks.problems.is_empty() { Ok(config) } else { Err(ConfigError { problems: checks.problems }) }
    }

    /// Reads one binding that is to be written to a file of `plugins.d`.
    ///
    /// # Errors
    /// All problems found, at least one.
    pub fn binding(file: &Path, table: toml::Table) -> Result<PluginBinding, ConfigError> {
        let mut problems = Vec::new();
        let whole = toml::Table::from_iter([("plugin".to_owned(), toml::Value::Array(vec![table.into()]))]);
        let binding = plugin::bindings(file, &whole, &mut problems).pop();
        binding.filter(|_| problems.is_empty()).ok_or(ConfigError { problems })
    }

    /// Refuses a data directory that should have a store and has none, as that of a disk that is not mounted; to be
    /// called before a store is opened. Whether a store that is there is whole is for that to tell.
    ///
    /// # Errors
    /// The sentence for the operator.
    pub fn check_data_dir(&self) -> Result<(), ConfigError> {
        if self.missing_data_dir == MissingDataDir::Init || data_dir::has_store(&self.data_dir) {
            return Ok(());
        }
        let wrong = if let Some(disk) = data_dir::unmounted(&self.data_dir) {
            format!("holds no store, and /etc/fstab names a file system that is not mounted at {}.", disk.display())
        } else if data_dir::has_remains(&self.data_dir) {
            "holds no store, though a server ran there.".to_owned()
        } else if self.missing_data_dir == MissingDataDir::Refuse && !data_dir::is_there(&self.data_dir) {
            "is missing; is its disk mounted?".to_owned()
        } else {
            return Ok(());
        };
        let what = format!("the data directory {wrong} To start with a new, empty store, add --init");
        let at = Where::Whole { file: self.data_dir.clone() };
        Err(ConfigError { problems: vec![Problem { at, what }] })
    }
}

/// The folder of the data directory in which the store is.
pub const STORE_FOLDER: &str = "store";

/// The second step: from what was written to what it means.
struct Checks<'f> {
    files: &'f Files,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    fn config(&mut self, args: &ServeArgs, around: &Surroundings, config_dir: PathBuf, plugins_d: PathBuf) -> Config {
        let raw = &self.files.raw;
        let here = |path: &PathBuf| around.working_dir.join(path);
        let (data_dir, is_named) = data_dir(args, self.files, around);
        let folder = |flag: &Option<PathBuf>, written: &Option<PathBuf>, name: &str| {
            let named = flag.as_ref().map(here).or_else(|| written.clone());
            named.unwrap_or_else(|| default_folder(&data_dir, around, name))
        };
        Config {
            files: self.files.read.iter().map(|(path, _)| path.clone()).collect(),
            config_dir,
            images_dir: folder(&args.images_dir, &raw.images_dir, "images"),
            templates_dir: folder(&args.templates_dir, &raw.templates_dir, "templates"),
            plugins_dir: folder(&args.plugins_dir, &raw.plugins_dir, "plugins"),
            ipxe_dir: args.ipxe_dir.as_ref().map(here).or_else(|| raw.ipxe_dir.clone()),
            missing_data_dir: match (args.init, is_named) {
                (true, _) => MissingDataDir::Init,
                (false, true) => MissingDataDir::Refuse,
                (false, false) => MissingDataDir::Create,
            },
            data_dir,
            listen: args.listen.or(raw.listen).unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 5000).into()),
            public_url: args.public_url.clone().or_else(|| self.public_url()),
            discover: args.discover.or(raw.discover).unwrap_or(false),
            boot: self.boot(),
            identity_ignore: raw.identity.ignore.clone(),
            limits: self.limits(),
            store: StoreConfig {
                cache_mb: self.number("store.cache_mb", raw.store.cache_mb, 128, 8..=65_536),
                free_space_floor_mb: self.number(
                    "store.free_space_floor_mb",
                    raw.store.free_space_floor_mb,
                    256,
                    0..=1_048_576,
                ),
            },
            admin_group: raw.admin.group.clone(),
            dnsmasq: self.dnsmasq(args),
            plugins: self.plugins(),
            plugins_d,
        }
    }

    fn plugins(&mut self) -> Vec<PluginBinding> {
        let files = self.files.read.iter().chain(&self.files.installed);
        let bindings: Vec<PluginBinding> =
            files.flat_map(|(file, table)| plugin::bindings(file, table, &mut self.problems)).collect();
        plugin::duplicates(&bindings, &mut self.problems);
        bindings
    }

    fn public_url(&mut self) -> Option<BaseUrl> {
        let text = self.files.raw.public_url.as_ref()?;
        text.parse().map_err(|error: crate::render::BadBaseUrl| self.problem("public_url", error.to_string())).ok()
    }

    fn boot(&mut self) -> BootConfig {
        let raw = &self.files.raw.boot;
        let seconds = |number: u32| Duration::from_secs(number.into());
        let again_s_min = self.number("boot.again_s_min", raw.again_s_min, 3, 1..=600);
        let again_s_max = self.number("boot.again_s_max", raw.again_s_max, again_s_min.max(30), 1..=600);
        if again_s_max < again_s_min {
            self.problem("boot.again_s_max", format!("{again_s_max} is less than boot.again_s_min, {again_s_min}"));
        }
        BootConfig {
            open_state: raw.open_state.unwrap_or(false),
            open_hosts: raw.open_hosts.unwrap_or(false),
            attempts: self.number("boot.attempts", raw.attempts, 3, 1..=100),
            again_s_min,
            again_s_max,
            header_timeout: seconds(self.number("boot.header_timeout_s", raw.header_timeout_s, 10, 1..=300)),
            idle_timeout: seconds(self.number("boot.idle_timeout_s", raw.idle_timeout_s, 60, 1..=3600)),
            local: raw.local.unwrap_or(LocalBoot::Exit),
            drain: seconds(self.number("boot.drain_s", raw.drain_s, 3600, 0..=86_400)),
        }
    }

    fn limits(&mut self) -> Limits {
        let raw = &self.files.raw.limits;
        let per_minute = self.number("limits.new_hosts_per_minute", raw.new_hosts_per_minute, 60, 0..=1_000_000);
        // Unlike above, 0 means what it says: who limits what kills disks must not get it without limit.
        let per_hour = self.number("limits.reinstalls_per_hour", raw.reinstalls_per_hour, 10, 0..=10_000);
        Limits { new_hosts_per_minute: (per_minute > 0).then_some(per_minute), reinstalls_per_hour: per_hour }
    }

    fn dnsmasq(&mut self, args: &ServeArgs) -> Option<DnsmasqConfig> {
        let raw = &self.files.raw.dnsmasq;
        let written_range = raw.range.as_ref().and_then(|text| {
            text.parse::<DhcpRange>().map_err(|error| self.problem("dnsmasq.range", error.to_string())).ok()
        });
        let wants_proxy = raw.proxy.unwrap_or(false);
        if wants_proxy && raw.range.is_some() {
            self.problem("dnsmasq.proxy", "a proxy hands out no addresses; remove dnsmasq.range or this".to_owned());
        }
        // A flag replaces what the files say about the mode as a whole.
        let wish = match (args.dhcp_range, args.proxy_dhcp, written_range, wants_proxy) {
            (Some(range), ..) | (None, false, Some(range), false) => Wish::Range(range),
            (None, true, ..) | (None, false, _, true) => Wish::Proxy,
            (None, false, None, false) => Wish::Unstated,
        };
        let interface = args.dnsmasq.clone().or_else(|| raw.interface.clone());
        if interface.is_none() && wish != Wish::Unstated {
            let at = match (args.dhcp_range, args.proxy_dhcp) {
                (Some(_), _) => Where::Flag("--dhcp-range"),
                (None, true) => Where::Flag("--proxy-dhcp"),
                (None, false) => self.files.place_of(if wants_proxy { "dnsmasq.proxy" } else { "dnsmasq.range" }),
            };
            self.problems.push(Problem { at, what: "this needs an interface: add --dnsmasq IFACE".to_owned() });
        }
        interface.map(|interface| DnsmasqConfig { interface, wish })
    }

    fn number(
        &mut self,
        key: &'static str,
        written: Option<u64>,
        default: u32,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let Some(written) = written else { return default };
        match u32::try_from(written) {
            Ok(number) if bounds.contains(&number) => number,
            _ => {
                self.problem(key, format!("{written} is not between {} and {}", bounds.start(), bounds.end()));
                default
            }
        }
    }

    fn problem(&mut self, key: &'static str, what: String) {
        self.problems.push(Problem { at: self.files.place_of(key), what });
    }
}

/// The data directory, and whether someone named it.
fn data_dir(args: &ServeArgs, files: &Files, around: &Surroundings) -> (PathBuf, bool) {
    let named = args.data_dir.as_ref().map(|path| around.working_dir.join(path));
    match named.or_else(|| files.raw.data_dir.clone()) {
        Some(named) => (named, true),
        None if around.is_checkout() => (around.working_dir.join("data"), false),
        None => (around.var_dir.clone(), false),
    }
}

/// Whether files can be made in a folder, or the folder itself if it is not there.
fn may_write(folder: &Path) -> bool {
    let nearest = if folder.is_dir() { Some(folder) } else { folder.parent() };
    nearest.is_some_and(|folder| access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok())
}

/// A folder beside the data directory, else in `/etc/kiwispray`, if it is there; else inside the data directory.
fn default_folder(data_dir: &Path, around: &Surroundings, name: &str) -> PathBuf {
    // What stands beside /var/lib/kiwispray belongs to others.
    let beside = data_dir.parent().filter(|_| data_dir != around.var_dir).map(|parent| parent.join(name));
    let candidates = beside.into_iter().chain([around.etc_dir.join(name)]);
    candidates.into_iter().find(|dir| dir.is_dir()).unwrap_or_else(|| data_dir.join(name))
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Where::File { file, key } => write!(f, "{}: {key}", file.display()),
            Where::Line { file, line } => write!(f, "{} line {line}", file.display()),
            Where::Whole { file } => write!(f, "{}", file.display()),
            Where::Flag(flag) => f.write_str(flag),
            Where::Defaults => f.write_str("the configuration"),
        }
    }
}
