//! Finds what goes wrong in practice, with the remedy, without a running server.
//!
//! The invariant: looking changes nothing but one file of its own, which it removes, and judging looks at nothing. Every
//! check is a file with both: `look` collects facts, `judge` is pure and turns them into findings. A finding that is not
//! good says what to do.

mod clock;
mod data;
mod dhcp;
mod finding;
mod firewall;
mod fsync;
mod images;
mod ipxe;
mod network;
mod plugins;
mod ports;
mod templates;

use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{Config, ConfigError, Source};
use crate::hooks::Capabilities;
use crate::images::Catalogue;
use crate::plugin_host::PluginHost;
use crate::render::Renderer;
use crate::service::{PluginCore, Shelf};

pub use finding::{Finding, Verdict, worst};
pub use ports::{PortHolder, port_holder};

/// Where tools of the administrator are, whatever the caller's own path is.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// What is not in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// By the clock of this machine.
    pub now: Timestamp,
    /// Any number, for a DHCP request.
    pub transaction: u32,
}

/// Looks at everything that a server with this configuration would meet. Takes some seconds if dnsmasq is to run.
pub async fn examine(source: &Source, circumstances: Circumstances) -> Vec<Finding> {
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => return wrong_configuration(&error),
    };
    let mut findings = vec![read(&config)];
    findings.extend(ipxe::judge(&ipxe::look(&config), config.dnsmasq.is_some()));
    findings.extend(ports::judge(&ports::look(), config.listen.port(), config.dnsmasq.is_some()));
    findings.extend(firewall::judge(&firewall::look(), config.listen.port(), config.dnsmasq.is_some()));
    if let Some(dnsmasq) = &config.dnsmasq {
        let network = network::look(&dnsmasq.interface);
        findings.extend(network::judge(&network, config.listen, config.public_url.as_ref()));
        if let Ok(interface) = &network.interface {
            let asked = interface.clone();
            let seen = tokio::task::spawn_blocking(move || dhcp::look(&asked, circumstances.transaction)).await;
            let seen = seen.unwrap_or_else(|_| Err("looking for DHCP servers was interrupted".to_owned()));
            findings.extend(dhcp::judge(&seen, dnsmasq.wish.clone(), interface));
        }
    }
    let data = data::look(&config);
    findings.extend(data::judge(&data));
    if data.folder.is_some() {
        findings.extend(fsync::judge(&fsync::look(&config.data_dir), &config.data_dir));
    }
    findings.extend(clock::judge(circumstances.now, clock::look(&config).as_ref()));
    findings.extend(contents(&config).await);
    findings
}

/// Everything that a server would say about its configuration: files, folders, templates, plugins.
pub async fn examine_config(source: &Source) -> Vec<Finding> {
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => return wrong_configuration(&error),
    };
    let mut findings = vec![read(&config)];
    findings.extend(config.check_data_dir().err().iter().flat_map(wrong_configuration));
    findings.extend(contents(&config).await);
    findings
}

/// Templates, images and plugins.
async fn contents(config: &Config) -> Vec<Finding> {
    let renderer = Arc::new(Renderer::new(Some(config.templates_dir.clone())));
    let catalogue = Arc::new(Catalogue::new(&config.images_dir));
    let mut findings = templates::judge(&templates::look(&renderer, &config.images_dir));
    findings.extend(images::judge(&images::look(&catalogue), &config.images_dir, config.discover));
    let core: Arc<dyn Capabilities> = Arc::new(PluginCore::new(Shelf::new(catalogue, renderer)));
    let host = PluginHost::new(core).map_err(|error| error.to_string());
    findings.extend(plugins::judge(&crate::roster::look(config, host).await));
    findings
}

fn wrong_configuration(error: &ConfigError) -> Vec<Finding> {
    let finding = |problem: &crate::config::Problem| {
        Finding::fail("config", problem.at.to_string(), &problem.what, "a server would not start: correct this first")
    };
    error.problems.iter().map(finding).collect()
}

fn read(config: &Config) -> Finding {
    let subject = match config.files.as_slice() {
        [] => "no file, defaults".to_owned(),
        files => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    Finding::ok("config", subject, "can be used")
}
