//! The flags of `kiwispray serve`; each is also an environment variable, and a flag wins. `--init` alone is none: in the
//! environment of a service it would outlast the first start, and let a store that vanished begin anew.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::dnsmasq::DhcpRange;
use crate::render::BaseUrl;

/// What the command line and the environment say; none: not said.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Configuration file; otherwise ./kiwispray.toml, then /etc/kiwispray/kiwispray.toml
    #[arg(long, value_name = "FILE", env = "KIWISPRAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where hosts and events are kept
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Begin a new store if the data directory has none, or is missing
    #[arg(long)]
    pub init: bool,
    /// Address for machines [default: 0.0.0.0:5000]
    #[arg(long, value_name = "ADDRESS", env = "KIWISPRAY_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// One folder per image
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_IMAGES_DIR")]
    pub images_dir: Option<PathBuf>,
    /// Your own templates, before the built-in ones
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_TEMPLATES_DIR")]
    pub templates_dir: Option<PathBuf>,
    /// Plugin components
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_PLUGINS_DIR")]
    pub plugins_dir: Option<PathBuf>,
    /// What machines call this server [default: the address that a request arrived on]
    #[arg(long, value_name = "URL", env = "KIWISPRAY_PUBLIC_URL")]
    pub public_url: Option<BaseUrl>,
    /// Unknown machines first boot the image `discover`, which takes inventory
    #[arg(
        long,
        env = "KIWISPRAY_DISCOVER",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub discover: Option<bool>,
    /// Run dnsmasq on this interface
    #[arg(long, value_name = "IFACE", env = "KIWISPRAY_DNSMASQ")]
    pub dnsmasq: Option<String>,
    /// Addresses for dnsmasq to hand out, first and last
    #[arg(long, value_name = "A,B", env = "KIWISPRAY_DHCP_RANGE")]
    pub dhcp_range: Option<DhcpRange>,
    /// Another server gives the addresses; dnsmasq adds only what booting needs
    #[arg(long, env = "KIWISPRAY_PROXY_DHCP", conflicts_with = "dhcp_range")]
    pub proxy_dhcp: bool,
    /// Where iPXE's binaries are, if not where the distribution puts them
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_IPXE_DIR")]
    pub ipxe_dir: Option<PathBuf>,
}
