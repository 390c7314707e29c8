//! Translated templates are compiled and rendered by the code that will use them, for a host of the installation.

use std::path::Path;

use serde_json::{Value, json};

use super::image::OldImage;
use super::templates::Template;
use super::{Item, OldHost};
use crate::domain::{BootId, HostId};
use crate::render::Renderer;

/// Notes what is wrong with templates. They are written all the same: a host that needs one holds and says why.
pub(super) fn check(
    hosts: &[OldHost],
    images: &mut [(Item, Option<OldImage>)],
    templates: &mut [(Item, Option<Template>)],
) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let variables = variables(hosts);
    for (item, template) in templates {
        if let Some(template) = template {
            note(item, folder.path(), &template.name, &template.text, &variables);
        }
    }
    for (item, image) in images {
        for (name, text) in image.iter().flat_map(|image| &image.request.templates) {
            note(item, folder.path(), name.as_str(), text, &variables);
        }
    }
}

fn note(item: &mut Item, folder: &Path, name: &str, text: &str, variables: &Value) {
    let Some(document) = name.strip_suffix(".hbs") else { return };
    let path = folder.join(name);
    if std::fs::write(&path, text).is_err() {
        return;
    }
    if let Err(error) = Renderer::new(Some(folder.to_owned())).document(None, document, variables) {
        let place = format!("{}/", folder.display());
        item.notes.push(format!("write it anew where kiwispray refuses it: {}", error.to_string().replace(&place, "")));
    }
    // The next template must not find this one in place of the built-in one.
    let _ = std::fs::remove_file(&path);
}

/// Everything that any template may use, of the host with the most metadata.
fn variables(hosts: &[OldHost]) -> Value {
    let id = HostId::new(hosts.first().map_or(1, |host| host.id.get()));
    let metadata = hosts.iter().map(|host| host.metadata.as_map()).max_by_key(|map| map.len());
    let base = "http://192.0.2.1:5000";
    let bootid = BootId::new(id, [0; 16]).expose();
    json!({
        "server": {"base": base},
        "host": {
            "id": id.get(), "hostname": "node1", "serial": "S1", "uuid": "", "macs": ["52:54:00:00:00:01"],
            "manufacturer": "", "product": "", "state": "image1", "states": ["image1"], "metadata": metadata,
        },
        "image": "image1",
        "instance": format!("kiwispray-{}-1", id.get()),
        "bootid": bootid,
        "files": format!("{base}/b/{bootid}/"),
        "boot": {
            "bootid": bootid, "attempt": 1, "attempts_max": 3, "files": format!("{base}/b/{bootid}/"),
            "kernel": "kernel", "initrd": "initrd", "cmdline": "initrd=initrd", "disk": "first",
        },
        "calls": {"finish": base, "fail": base, "post_install": base, "update": base, "state": base},
        "wait": {"again_s": 3, "waited_s": 0, "next_waited_s": 3, "reboot": false},
        "reason": "finished", "sanboot": false, "vars": {},
    })
}
