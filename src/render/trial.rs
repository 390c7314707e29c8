//! Trial rendering: a template with sample data, so that what is wrong shows before a machine boots.
//!
//! The invariant: sample data has the form of what the server hands over, as it is made of the same types. What only the
//! site knows (metadata, what plugins add) is invented where a template asks for it, and reported.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::library::Compiled;
use super::values::names_of;
use super::variables::Use;
use super::{
    BaseUrl, BootVars, BootstrapVars, CallVars, Document, DocumentVars, HoldVars, HostVars, ImageVars, KiwiLine,
    LocalVars, NewVars, RenderError, Renderer, SafeLine, ServerVars, WaitVars,
};
use crate::domain::{BootId, DevicePolicy, HostId};

/// What stands for a text that only the site knows: one that every helper takes.
const SAMPLE: &str = "http://192.0.2.1/sample";

/// Values of the site that a template may ask for, one after the other.
const NEEDS_MAX: usize = 200;

/// A template that works with sample data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What came out; none for a part of other templates, which stands in no script of its own.
    pub document: Option<Document>,
    /// Metadata and variables of plugins that it cannot do without: every host that gets it must have them.
    pub needs: BTreeSet<String>,
}

impl Renderer {
    /// Compiles a template strictly and renders it with sample data; `metadata` is the sample host's.
    ///
    /// # Errors
    /// What is wrong, with template, line and variable.
    pub fn trial(
        &self,
        image_dir: Option<&Path>,
        name: &str,
        metadata: &Map<String, Value>,
    ) -> Result<Trial, RenderError> {
        let mut needs = BTreeSet::new();
        let compiled = self.library.get(&super::scope_of(image_dir), name)?;
        if name.starts_with('_') {
            return Ok(Trial { document: None, needs });
        }
        let mut data = sample(name, metadata);
        let is_sites = |path: &[&str]| matches!(path, ["host", "metadata", _, ..] | ["vars", _, ..]);
        let text = compiled.render_inventing(&mut data, is_sites, &mut needs)?;
        Ok(Trial { document: text.map(|text| Document { language: compiled.language, text }), needs })
    }

    /// Renders a document that nobody gets, so that what is wrong shows in time. Where plugins add variables, these are taken as
    /// given. None: what comes out depends on them.
    ///
    /// # Errors
    /// As [`Self::document`].
    pub fn try_document(
        &self,
        image_dir: Option<&Path>,
        name: &str,
        variables: &impl serde::Serialize,
        plugins_add: bool,
    ) -> Result<Option<String>, RenderError> {
        let compiled = self.library.get(&super::scope_of(image_dir), name)?;
        let (mut data, mut needs) = (serde_json::to_value(variables).unwrap_or_default(), BTreeSet::new());
        let is_plugins = |path: &[&str]| plugins_add && matches!(path, ["vars", _, ..]);
        match compiled.render_inventing(&mut data, is_plugins, &mut needs) {
            // What is in there is the plugins' affair.
            Err(RenderError::UnknownVariable { variable, .. } | RenderError::WrongKind { variable, .. })
                if !needs.is_empty() && variable.starts_with("vars.") =>
            {
                Ok(None)
            }
            tried => tried,
        }
    }
}

impl Compiled {
    /// Renders it, and puts a sample where it looks for a value that only others know; `needs` gets their names. None: it goes
    /// into samples, and what would be in them nobody can tell.
    pub(crate) fn render_inventing(
        &self,
        data: &mut Value,
        is_others: impl Fn(&[&str]) -> bool,
        needs: &mut BTreeSet<String>,
    ) -> Result<Option<String>, RenderError> {
        let mut lists = BTreeSet::new();
        loop {
            let problem = match self.render(&*data) {
                Ok(text) => return Ok(Some(text)),
                Err(problem) => problem,
            };
            let (variable, sample) = match &problem {
                RenderError::UnknownVariable { variable, .. } if is_within(variable) && self.goes_into(needs) => {
                    return Ok(None);
                }
                RenderError::UnknownVariable { variable, .. } => (variable.clone(), json!(SAMPLE)),
                // A sample that was a text, and is asked for as a list.
                RenderError::WrongKind { variable, .. }
                    if needs.contains(variable) && lists.insert(variable.clone()) =>
                {
                    (variable.clone(), json!([SAMPLE]))
                }
                RenderError::WrongKind { .. }
                | RenderError::Missing { .. }
                | RenderError::BadName { .. }
                | RenderError::Unreadable { .. }
                | RenderError::Refused { .. }
                | RenderError::BadValue { .. }
                | RenderError::NotJson { .. }
                | RenderError::TooLarge { .. } => return Err(problem),
            };
            let names = names_of(&variable);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if !(is_others(&names) && needs.len() < NEEDS_MAX && put(data, &names, sample)) {
                return Err(problem);
            }
            needs.insert(variable);
        }
    }
}

/// Whether a path begins within what a block went into.
fn is_within(path: &str) -> bool {
    path.starts_with("this.") || path.starts_with("../") || names_of(path).len() == 1
}

/// Puts a value where a path leads, unless it leads through something else or the same is there.
fn put(data: &mut Value, names: &[&str], value: Value) -> bool {
    let Some((key, parents)) = names.split_last() else { return false };
    let mut place = data;
    for name in parents {
        let Value::Object(object) = place else { return false };
        place = object.entry(*name).or_insert_with(|| json!({}));
    }
    match place {
        Value::Object(object) => object.insert((*key).to_owned(), value.clone()) != Some(value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    }
}

/// Data as the server would hand it to a template of this name.
pub(crate) fn sample(name: &str, metadata: &Map<String, Value>) -> Value {
    let Ok(base) = "http://192.0.2.1:5000".parse::<BaseUrl>() else { return Value::Null };
    let server = || ServerVars { base: base.clone() };
    let bootid = BootId::new(HostId::new(7), [0x5a; 16]);
    let host = HostVars {
        id: 7,
        hostname: "web1".to_owned(),
        serial: "SAMPLE7".to_owned(),
        uuid: "4c4c4544-0034-4b10-8032-b4c04f503133".to_owned(),
        macs: vec!["52:54:00:00:00:07".to_owned(), "52:54:00:00:00:08".to_owned()],
        manufacturer: "Sample Inc.".to_owned(),
        product: "Server 1".to_owned(),
        state: "image1".to_owned(),
        states: vec!["image1".to_owned()],
        metadata: Value::Object(metadata.clone()),
    };
    let wait = WaitVars::new(5, 10);
    let reason = "a sample of a reason".to_owned();
    let made = match Use::of(name) {
        Use::Bootstrap => serde_json::to_value(BootstrapVars { server: server() }),
        Use::New => serde_json::to_value(NewVars { server: server(), host, wait }),
        Use::Hold => serde_json::to_value(HoldVars { server: server(), host: Some(host), reason, wait }),
        Use::Local => serde_json::to_value(LocalVars { host: Some(host), reason, sanboot: true }),
        Use::Image => match command_line(&base, &bootid) {
            Some(cmdline) => {
                let boot = BootVars {
                    bootid: bootid.expose(),
                    attempt: 1,
                    attempts_max: 3,
                    files: base.files(&bootid),
                    kernel: "image1.kernel".to_owned(),
                    initrd: "image1.initrd".to_owned(),
                    cmdline,
                    disk: "the smallest disk".to_owned(),
                };
                serde_json::to_value(ImageVars {
                    server: server(),
                    host,
                    image: "image1".to_owned(),
                    boot,
                    vars: json!({}),
                })
            }
            None => Ok(Value::Null),
        },
        Use::Document => serde_json::to_value(DocumentVars {
            server: server(),
            host,
            image: "image1".to_owned(),
            bootid: bootid.expose(),
            instance: "kiwispray-7-1".to_owned(),
            files: base.files(&bootid),
            calls: CallVars::new(&base, &bootid),
            vars: json!({}),
        }),
    };
    made.unwrap_or_default()
}

fn command_line(base: &BaseUrl, bootid: &BootId) -> Option<SafeLine> {
    SafeLine::kiwi(&KiwiLine {
        image_url: &format!("{}image1.xz", base.files(bootid)),
        disk: &DevicePolicy::Smallest,
        post_install_url: &base.post_install(bootid),
        image_append: &[],
        plugin_append: &[],
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::super::variables::variables_of;
    use super::*;

    /// The paths of all leaves; lists, and what the site fills, are leaves.
    fn leaves(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        let inside = value.as_object().filter(|_| !matches!(path, "host.metadata" | "vars"));
        let Some(object) = inside else {
            into.insert(path.to_owned());
            return;
        };
        for (key, value) in object {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            leaves(value, &path, into);
        }
    }

    #[test]
    fn every_variable_that_is_handed_over_is_described_and_no_other() {
        let names = ["bootstrap.ipxe", "new.ipxe", "hold.ipxe", "local.ipxe", "boot_kiwi.ipxe", "post_install.sh"];
        for name in names {
            let mut handed = BTreeSet::new();
            leaves(&sample(name, &Map::new()), "", &mut handed);
            let described: BTreeSet<String> = variables_of(name).iter().map(|it| it.name.to_owned()).collect();
            assert_eq!(handed, described, "{name}");
        }
    }

    #[test]
    fn every_built_in_template_passes_its_trial() {
        let renderer = Renderer::new(None);
        for listed in renderer.list() {
            let trial = renderer.trial(None, &listed.name, &Map::new()).unwrap();
            assert_eq!(trial.document.is_none(), listed.name.starts_with('_'), "{}", listed.name);
            assert!(trial.needs.is_empty(), "{}: {:?}", listed.name, trial.needs);
        }
    }

    #[test]
    fn what_plugins_add_is_taken_as_given_and_the_rest_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let renderer = Renderer::new(Some(dir.path().to_owned()));
        let data = sample("a.sh", &Map::new());
        let tried = |text: &str, plugins_add: bool| {
            std::fs::write(dir.path().join("a.sh.hbs"), text).unwrap();
            renderer.try_document(None, "a.sh", &data, plugins_add)
        };
        for text in [
            "x={{vars.x}}",
            "x={{json vars.x}} y={{vars.x.y}}",
            "{{#with vars.net}}x={{ip}}{{/with}}",
            "{{#each vars.disks}}x={{dev}} y={{../host.id}} {{/each}}",
        ] {
            assert!(tried(text, true).is_ok() && tried(text, false).is_err(), "{text}");
        }
        assert_eq!(tried("x={{host.id}}", false).unwrap().unwrap(), "x='7'");
        assert!(tried("x={{vars.x}} y={{host.metadata.y}}", true).is_err());
        assert!(tried("x={{ip}}", true).is_err());
    }

    #[test]
    fn every_helper_takes_what_is_invented() {
        let dir = tempfile::tempdir().unwrap();
        let text = "#!ipxe\nchain {{url host.metadata.mirror}} {{arg vars.word}} {{host.metadata.text}}\n";
        std::fs::write(dir.path().join("other.ipxe.hbs"), text).unwrap();
        let trial = Renderer::new(Some(dir.path().to_owned())).trial(None, "other.ipxe", &Map::new()).unwrap();
        assert_eq!(trial.needs.len(), 3);
    }

    #[test]
    fn what_only_the_site_knows_is_invented_and_named_and_the_rest_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("post_install.sh.hbs"), text).unwrap();
        let renderer = Renderer::new(Some(dir.path().to_owned()));
        let trial = |metadata: &Map<String, Value>| renderer.trial(None, "post_install.sh", metadata);

        write(
            "a={{host.metadata.site}}\nb={{sh host.metadata.net.ip}}\n{{#if vars.x}}c={{vars.x}}{{/if}}d={{vars.y}}\n",
        );
        let needs = trial(&Map::new()).unwrap().needs;
        assert_eq!(needs.iter().collect::<Vec<_>>(), ["host.metadata.net.ip", "host.metadata.site", "vars.y"]);
        let known = Map::from_iter([("site".to_owned(), json!("fra1"))]);
        let trial_of = trial(&known).unwrap();
        assert!(trial_of.document.unwrap().text.starts_with("a='fra1'\n"));

        write("a={{host.metadata.[net.ip]}}\nb={{host.metadata.[a b].c}}\n");
        assert_eq!(trial(&Map::new()).unwrap().needs.len(), 2);

        write(
            "{{#each host.metadata.disks}}\nd={{this}}\n{{/each}}\n{{#each vars.cards}}\nc={{this.mac}}\n{{/each}}\n",
        );
        assert_eq!(trial(&Map::new()).unwrap().needs.iter().collect::<Vec<_>>(), ["host.metadata.disks", "vars.cards"]);
        write("{{#with host.metadata.net}}\nip={{ip}} gw={{this.gw}}\n{{/with}}\n");
        assert_eq!(trial(&Map::new()).unwrap().needs.iter().collect::<Vec<_>>(), ["host.metadata.net"]);
        write("{{#each host.metadata.disks}}\nd={{this}}\n{{/each}}\n");
        let text = Map::from_iter([("disks".to_owned(), json!("sda"))]);
        let error = trial(&text).unwrap_err().to_string();
        assert!(error.contains("line 1: host.metadata.disks is there"), "{error}");

        write("x=1\ny={{host.hostnam}}\n");
        let error = trial(&Map::new()).unwrap_err().to_string();
        assert!(error.contains("post_install.sh.hbs line 2: there is no variable host.hostnam"), "{error}");
    }
}
