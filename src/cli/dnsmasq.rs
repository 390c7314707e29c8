//! `kiwispray dnsmasq …`: for those who run dnsmasq themselves.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Context;
use super::error::{CliError, Result};
use crate::dnsmasq::{Account, Config, DhcpRange, Interface, IpxeFiles, Mode};
use crate::render::BaseUrl;

/// What can be done about dnsmasq.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsmasqCommand {
    /// Print a complete configuration
    Config(Print),
}

/// Prints a configuration.
#[derive(Debug, Args)]
pub(crate) struct Print {
    /// The interface that machines boot on
    #[arg(long, value_name = "IFACE")]
    interface: String,
    /// Addresses to hand out, first and last
    #[arg(long, value_name = "A,B", env = "KIWISPRAY_DHCP_RANGE", hide_env = true)]
    dhcp_range: Option<DhcpRange>,
    /// Another server gives the addresses
    #[arg(long, conflicts_with = "dhcp_range")]
    proxy_dhcp: bool,
    /// What machines call the server [default: this machine's address on the interface, port 5000]
    #[arg(long, value_name = "URL", env = "KIWISPRAY_PUBLIC_URL", hide_env = true)]
    public_url: Option<BaseUrl>,
    /// Where iPXE's binaries are, if not where the distribution puts them
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_IPXE_DIR", hide_env = true)]
    ipxe_dir: Option<PathBuf>,
    /// Where dnsmasq keeps its leases
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kiwispray")]
    data_dir: PathBuf,
}

/// The port that machines are answered on unless a URL says otherwise.
const PORT: u16 = 5000;

impl DnsmasqCommand {
    pub(crate) fn run(self, context: &Context) -> Result {
        let Self::Config(print) = self;
        print.run(context)
    }
}

impl Print {
    fn run(self, context: &Context) -> Result {
        let interface = Interface::find(&self.interface).map_err(|error| CliError::usage(error.to_string()))?;
        let mode = match (self.dhcp_range, self.proxy_dhcp) {
            (Some(range), _) => Mode::Full(range),
            (None, true) => Mode::Proxy,
            (None, false) => {
                return Err(CliError::usage(format!(
                    "say who gives addresses: this machine, such as --dhcp-range {}, or another one, --proxy-dhcp",
                    interface.suggested_range()
                )));
            }
        };
        let address = (interface.address(), PORT).into();
        let config = Config {
            public_url: self.public_url.unwrap_or_else(|| BaseUrl::of_address(address)).to_string(),
            ipxe: IpxeFiles::find(self.ipxe_dir.as_deref()),
            data_dir: self.data_dir,
            account: Account::Own,
            interface,
            mode,
        };
        let text = config.text().map_err(|error| CliError::usage(error.to_string()))?;
        context.screen.line(text.trim_end())
    }
}
