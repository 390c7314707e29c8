//! The variables of every template, described: for people who write templates, and for those who come from KIWIspray.
//!
//! The invariant: the list is the truth. A test holds it against what [`super::vars`] really hands over.

use serde::Serialize;

/// A variable that a template may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// As it is written between the braces.
    pub name: &'static str,
    /// `text`, `number`, `yes or no`, `list`, `object`, `URL`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// How it is used in a template, with the helper that its place needs.
    pub example: &'static str,
    /// The placeholder of KIWIspray's templates that meant the same.
    pub original: Option<&'static str>,
}

/// What a template is rendered for, which decides its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Bootstrap,
    New,
    Hold,
    Local,
    /// Boots an image.
    Image,
    /// A document of a boot, and a template that is a state.
    Document,
}

impl Use {
    /// By the document's name.
    pub(crate) fn of(document: &str) -> Use {
        match document {
            "bootstrap.ipxe" => Use::Bootstrap,
            "new.ipxe" => Use::New,
            "hold.ipxe" | "_wait.ipxe" => Use::Hold,
            "local.ipxe" => Use::Local,
            "boot_linux.ipxe" | "boot_kiwi.ipxe" | "host.ipxe" | "_failed.ipxe" => Use::Image,
            _ => Use::Document,
        }
    }

    fn groups(self) -> &'static [&'static [Variable]] {
        match self {
            Use::Bootstrap => &[SERVER],
            Use::New => &[SERVER, HOST, WAIT],
            Use::Hold => &[SERVER, REASON, HOST, WAIT],
            Use::Local => &[REASON, SANBOOT, HOST],
            Use::Image => &[SERVER, HOST, IMAGE, BOOT],
            Use::Document => &[SERVER, HOST, IMAGE, DOCUMENT],
        }
    }
}

/// All variables of a template, by the document's name (`post_install.sh`).
#[must_use]
pub fn variables_of(document: &str) -> Vec<&'static Variable> {
    Use::of(document).groups().iter().flat_map(|group| group.iter()).collect()
}

/// The helpers that a template of a language may call, with what each is for.
#[must_use]
pub fn helpers_of(language: super::Language) -> &'static [(&'static str, &'static str)] {
    use super::Language;
    match language {
        Language::Ipxe => &[
            ("{{url X}}", "a URL as it is; what is no plain URL is refused"),
            ("{{arg X}}", "one more kernel argument; what could be two is refused"),
            ("{{cmdline}}", "the finished kernel command line, in templates that boot an image"),
            ("{{identify}}", "the parameters by which a machine says who it is"),
        ],
        Language::Shell => &[
            ("{{sh X}}", "one word in quotes, as {{X}} is too; never put quotes around it"),
            ("{{json X}}", "any value as JSON, as one word in quotes: lists and objects too"),
        ],
        Language::Yaml | Language::Json => &[("{{json X}}", "any value as JSON: lists and objects too")],
        Language::KernelArgs => &[
            ("{{url X}}", "a URL as it is; what is no plain URL is refused"),
            ("{{arg X}}", "one kernel argument; what could be two is refused"),
        ],
        Language::Text => &[("{{json X}}", "any value as JSON: lists and objects too")],
    }
}

const fn variable(
    name: &'static str,
    kind: &'static str,
    meaning: &'static str,
    example: &'static str,
    original: Option<&'static str>,
) -> Variable {
    Variable { name, kind, meaning, example, original }
}

const SERVER: &[Variable] = &[variable(
    "server.base",
    "URL",
    "this server, without a slash at the end",
    "{{url server.base}}/bootstrap",
    Some("http://@SERVER_IP@:@SERVER_PORT@"),
)];

const REASON: &[Variable] =
    &[variable("reason", "text", "why the machine waits, or boots its own disk", "echo Why: {{reason}}", None)];

const SANBOOT: &[Variable] = &[variable(
    "sanboot",
    "yes or no",
    "iPXE boots the first disk itself instead of leaving",
    "{{#if sanboot}}sanboot --no-describe --drive 0x80{{/if}}",
    None,
)];

const HOST: &[Variable] = &[
    variable("host.id", "number", "the host's number", "echo Host {{host.id}}", Some("@id@, @HOST@")),
    variable("host.hostname", "text", "its name, or empty", "name={{host.hostname}}", Some("@hostname@")),
    variable("host.serial", "text", "its serial number, or empty", "echo {{host.serial}}", Some("@serial@")),
    variable("host.uuid", "text", "its DMI UUID, or empty", "echo {{host.uuid}}", Some("@uuid@")),
    variable(
        "host.macs",
        "list",
        "its network cards, lower case with colons",
        "{{#each host.macs}}echo MAC {{this}}\n{{/each}}",
        Some("@macs@"),
    ),
    variable(
        "host.manufacturer",
        "text",
        "who made it, as its firmware said when it last asked what to boot, or empty",
        "{{host.manufacturer}}",
        None,
    ),
    variable("host.product", "text", "its model, as its firmware said then, or empty", "{{host.product}}", None),
    variable("host.state", "text", "the state that is its turn", "{{host.state}}", Some("@state@")),
    variable("host.states", "list", "the whole queue", "{{#each host.states}}{{this}} {{/each}}", None),
    variable(
        "host.metadata",
        "object",
        "what people and plugins noted about it; a key that is missing is an error unless {{#if …}} asks for it; {{X}} writes a text, \
         number, yes or no, {{#each X}} goes through a list",
        "site={{host.metadata.site}}",
        Some("@metadata.KEY@, @HOST_DATA@"),
    ),
];

const WAIT: &[Variable] = &[
    variable("wait.again_s", "number", "seconds until the machine asks again", "sleep {{wait.again_s}}", None),
    variable("wait.waited_s", "number", "seconds that it has waited", "echo for {{wait.waited_s}} s", None),
    variable(
        "wait.next_waited_s",
        "number",
        "what it reports as `waited` next time",
        "…/bootstrap?waited={{wait.next_waited_s}}&{{identify}}",
        None,
    ),
    variable(
        "wait.reboot",
        "yes or no",
        "it has waited so long that its address must be renewed",
        "{{#if wait.reboot}}reboot{{/if}}",
        None,
    ),
];

const IMAGE: &[Variable] = &[
    variable("image", "text", "the image's name", "echo installs {{image}}", Some("@state@")),
    variable("vars", "object", "what plugins added", "{{#if vars.role}}role={{vars.role}}{{/if}}", None),
];

const BOOT: &[Variable] = &[
    variable("boot.bootid", "text", "the secret of this boot", "{{boot.bootid}}", Some("@bootid@")),
    variable("boot.attempt", "number", "which attempt this is, from 1", "attempt {{boot.attempt}}", None),
    variable("boot.attempts_max", "number", "the most there will be", "of {{boot.attempts_max}}", None),
    variable(
        "boot.files",
        "URL",
        "where this boot's files are, with a slash at the end; only what is fetched there is counted",
        "kernel {{url boot.files}}{{boot.kernel}} {{cmdline}}",
        None,
    ),
    variable("boot.kernel", "text", "the kernel's file", "kernel {{url boot.files}}{{boot.kernel}}", None),
    variable("boot.initrd", "text", "the initrd's file, or empty", "{{#if boot.initrd}}initrd …{{/if}}", None),
    variable("boot.cmdline", "text", "the finished kernel command line: write {{cmdline}}", "{{cmdline}}", None),
    variable("boot.disk", "text", "the disk that is written, or empty", "echo on {{boot.disk}}", None),
];

const DOCUMENT: &[Variable] = &[
    variable("instance", "text", "names what is installed: one order of one host", "instance-id: {{instance}}", None),
    variable("bootid", "text", "the secret of this boot", "{{bootid}}", Some("@bootid@")),
    variable("files", "URL", "where this boot's files are, with a slash at the end", "curl -O {{files}}data.tar", None),
    variable("calls.post_install", "URL", "the post-install script", "{{calls.post_install}}", None),
    variable(
        "calls.finish",
        "URL",
        "reports that the step is done",
        "curl -fsS {{calls.finish}}",
        Some("http://@SERVER_IP@:@SERVER_PORT@/finish?id=@id@&bootid=@bootid@"),
    ),
    variable("calls.fail", "URL", "reports a failure; add &reason=…", "curl -fsS {{calls.fail}}'&reason=disk'", None),
    variable("calls.update", "URL", "takes what a discovery image found", "{{calls.update}}", None),
    variable("calls.state", "URL", "answers the current state", "{{calls.state}}", None),
];
