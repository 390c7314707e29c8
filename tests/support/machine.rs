//! A machine: it reports who it is, follows the boot script it gets, and calls as an installed system does.

use std::net::Ipv4Addr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Client, Response, Server};

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// What it reports, in order.
    pub(crate) parameters: Vec<(String, String)>,
    from: Ipv4Addr,
}

/// What a machine was answered.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) script: String,
    pub(crate) outcome: String,
    pub(crate) host: Option<u64>,
    from: Ipv4Addr,
}

impl Machine {
    /// A machine unlike those of other numbers.
    pub(crate) fn new(number: u32) -> Self {
        let mac = format!("52-54-00-{:02x}-{:02x}-{:02x}", number >> 16 & 255, number >> 8 & 255, number & 255);
        Self::with(&[
            ("net0", &mac),
            ("dhcp_mac", &mac),
            ("serial", &format!("SN{number:05}")),
            ("uuid", &uuid(number)),
            ("manufacturer", "Example"),
            ("product", "R640"),
            ("platform", "pcbios"),
        ])
    }

    pub(crate) fn with(parameters: &[(&str, &str)]) -> Self {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { parameters, from: Ipv4Addr::LOCALHOST }
    }

    /// The same machine, reporting something else.
    pub(crate) fn but(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|(known, _)| known != name);
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same report from another address.
    pub(crate) fn at(mut self, from: Ipv4Addr) -> Self {
        self.from = from;
        self
    }

    pub(crate) fn request(&self) -> String {
        let pairs = self
            .parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        format!("/bootstrap?{}", pairs.collect::<Vec<_>>().join("&"))
    }

    /// Asks what to boot.
    #[track_caller]
    pub(crate) fn boot(&self, server: &Server) -> Boot {
        Boot::of(&server.http().from(self.from).get(&self.request()), self.from)
    }

    /// Asks, and is told to boot.
    #[track_caller]
    pub(crate) fn boots(&self, server: &Server) -> Boot {
        let boot = self.boot(server);
        assert_eq!(boot.outcome, "boot", "{}", boot.script);
        boot
    }

    /// Asks, and is told to hold for this reason.
    #[track_caller]
    pub(crate) fn holds(&self, server: &Server, reason: &str) -> Boot {
        let boot = self.boot(server);
        assert_eq!(boot.outcome, "hold", "{}", boot.script);
        assert!(boot.script.contains(reason), "{reason:?} is not in\n{}", boot.script);
        boot
    }

    /// Asks, and is told to boot its local disk.
    #[track_caller]
    pub(crate) fn boots_its_disk(&self, server: &Server) -> Boot {
        let boot = self.boot(server);
        assert_eq!(boot.outcome, "local", "{}", boot.script);
        assert!(boot.script.ends_with("\nexit 1\n"), "{}", boot.script);
        boot
    }

    /// Becomes known, is given an image and installed.
    pub(crate) fn installed(&self, server: &Server, image: &str) -> u64 {
        let id = self.boot(server).host.unwrap();
        server.deploy(image, id);
        self.boots(server).install(server);
        id
    }
}

/// A UUID that is the same in no other byte order and for no other number.
pub(crate) fn uuid(number: u32) -> String {
    format!("{number:08x}-1234-4abc-8def-00163e{number:06x}")
}

impl Boot {
    /// Every answer to `/bootstrap` is a whole script.
    #[track_caller]
    fn of(response: &Response, from: Ipv4Addr) -> Self {
        assert_eq!(response.status, 200);
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
        let script = response.text().to_owned();
        assert!(script.starts_with("#!ipxe\n") && script.ends_with('\n'), "{script:?}");
        let outcome = response.header("x-kiwispray-outcome").unwrap().to_owned();
        if outcome == "hold" {
            assert!(script.contains("goto again"), "it does not ask again: {script}");
        }
        Self { script, outcome, host: response.header("x-kiwispray-host").map(|id| id.parse().unwrap()), from }
    }

    /// The boot that an answer hands out, for a client at 127.0.0.1.
    #[track_caller]
    pub(crate) fn of_script(response: &Response) -> Self {
        Self::of(response, Ipv4Addr::LOCALHOST)
    }

    fn client(&self, server: &Server) -> Client {
        server.http().from(self.from)
    }

    /// The words of the command that begins with this word.
    #[track_caller]
    fn command(&self, verb: &str) -> Vec<&str> {
        let line = self.script.lines().find(|line| line.split(' ').next() == Some(verb));
        line.unwrap_or_else(|| panic!("no {verb} in\n{}", self.script)).split(' ').collect()
    }

    /// The kernel command line.
    #[track_caller]
    pub(crate) fn cmdline(&self) -> Vec<&str> {
        self.command("kernel")[2..].iter().copied().take_while(|word| *word != "||").collect()
    }

    /// The value of a kernel argument.
    #[track_caller]
    pub(crate) fn argument(&self, name: &str) -> &str {
        let found = self.cmdline().into_iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.cmdline()))
    }

    /// The path of the kernel's URL.
    #[track_caller]
    pub(crate) fn kernel(&self) -> &str {
        path_of(self.command("kernel")[1])
    }

    /// The path of the initrd's URL.
    #[track_caller]
    pub(crate) fn initrd(&self) -> &str {
        path_of(self.command("initrd")[3])
    }

    /// The path of the URL of a KIWI image's payload.
    #[track_caller]
    pub(crate) fn payload(&self) -> &str {
        path_of(self.argument("rd.kiwi.install.image"))
    }

    /// The path of the URL that the installed system calls first.
    #[track_caller]
    pub(crate) fn post_install(&self) -> &str {
        path_of(self.argument("razorurl"))
    }

    /// The path of another call of this boot.
    #[track_caller]
    pub(crate) fn call(&self, name: &str) -> String {
        self.post_install().replacen("/post-install", &format!("/{name}"), 1)
    }

    /// The boot's secret.
    #[track_caller]
    pub(crate) fn bootid(&self) -> &str {
        self.post_install().split_once("bootid=").unwrap().1
    }

    /// The path of a file of this boot.
    #[track_caller]
    pub(crate) fn file(&self, name: &str) -> String {
        format!("/b/{}/{name}", self.bootid())
    }

    /// Does what iPXE does: loads kernel and initrd.
    #[track_caller]
    pub(crate) fn load(&self, server: &Server) {
        for path in [self.kernel(), self.initrd()] {
            self.client(server).get(path).expect(200);
        }
    }

    /// Fetches some bytes of a file.
    #[track_caller]
    pub(crate) fn fetch_range(&self, server: &Server, path: &str, range: &str) -> Response {
        self.client(server).get_with(path, &[("Range", &format!("bytes={range}"))]).expect(206)
    }

    /// Fetches everything and writes the disk, but does not report.
    #[track_caller]
    pub(crate) fn fetch_all(&self, server: &Server) {
        self.load(server);
        if self.script.contains("rd.kiwi.install.image=") {
            self.client(server).get(self.payload()).expect(200);
        }
    }

    /// Installs to the end and reports it.
    #[track_caller]
    pub(crate) fn install(&self, server: &Server) {
        self.fetch_all(server);
        self.client(server).get(self.post_install()).expect(200);
        self.client(server).get(&self.call("finish")).expect(200);
    }
}

fn path_of(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap();
    &rest[rest.find('/').unwrap()..]
}
