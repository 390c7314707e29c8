//! What becomes of the files below `templates/`.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::ipxe::{self, Variables};
use super::shell::{self, plain};
use super::{Item, MigrateError, What, hosts::shortened};
use crate::domain::StateName;

/// A template in the words of kiwispray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its file below the templates folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// SHA-256 of every version of the original's own templates that kiwispray has a built-in counterpart for.
const SHIPPED: [&str; 9] = [
    "09d2928aed2e134d85ff731a19b6268676b0cfa200050ec8a7f19c5e1becea76",
    "3a37037c16e624e3052b4d771a8d28f75c9ea3a49d4d93c702fef11e1f4bc144",
    "5f337a692f763f65b4d372d5a5dc5608ac3e963854add7f4f3a88727b2670c6f",
    "6d3616190ab34344e9e5ae3e90d2fea70d5b9b9cc6de753e8390b62a489ccd69",
    "854933ea34aca30a400528351e2c7292ba9f30781b740cc569a91687b90c86e1",
    "86367104ff8f87878530083df00c98c11172546b11f30a577f14ef272cdbd366",
    "8a621eceabb0ffe9230a414015747b32a5885a2153f2c7ecfc8b38d0354fd070",
    "c2cce22ea135c1a96c0e329dd432b140641a0ba646dd6cd99af3652d7dcaf1b4",
    "cad4632ad68e813f34cb0137e36b2f0e135ed16544bc388748b526e055bb21c8",
];

/// Plans every file of the templates folder. `is_image` tells the states that have a folder.
pub(super) fn read(dir: &Path, is_image: &dyn Fn(&str) -> bool) -> Result<Vec<(Item, Option<Template>)>, MigrateError> {
    let folder = dir.join("templates");
    let unreadable =
        |error: std::io::Error| MigrateError::Unreadable { path: folder.clone(), error: error.to_string() };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with('.') && name != "README.md");
    names.sort();
    Ok(names.iter().map(|name| plan(&folder, name, is_image)).collect())
}

fn plan(folder: &Path, name: &str, is_image: &dyn Fn(&str) -> bool) -> (Item, Option<Template>) {
    let mut item = Item::new(What::Template, format!("templates/{}", shortened(name)));
    let text = match super::text_of(&folder.join(name)) {
        Ok(Some(text)) => text,
        Ok(None) => String::new(),
        Err(why) => {
            item.notes.push(why);
            return (item, None);
        }
    };
    let template = translate(name, &text, is_image, &mut item);
    if let Some(template) = &template {
        item.to = Some(format!("templates/{}", template.name));
    }
    (item, template)
}

fn translate(name: &str, text: &str, is_image: &dyn Fn(&str) -> bool, item: &mut Item) -> Option<Template> {
    let built_in = |item: &mut Item, counterpart: &str| {
        item.is_built_in = true;
        item.notes.push(format!("as KIWIspray shipped it: the built-in {counterpart} takes its place"));
        None
    };
    let made = |name: &str, text: String| Some(Template { name: name.to_owned(), text });
    let header = format!("{{{{!-- Translated from KIWIspray's templates/{name}. --}}}}\n");
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let is_shipped = SHIPPED.contains(&digest.as_str());
    match name {
        "post_install.tmpl" => {
            let (text, notes) = post_install(text, "templates/post_install.tmpl");
            item.notes.extend(notes);
            made("post_install.sh.hbs", text)
        }
        "new.tmpl" | "new_host.tmpl" if is_shipped || text.is_empty() => built_in(item, "new.ipxe"),
        "finished.tmpl" if is_shipped => built_in(item, "local.ipxe"),
        "known_host.tmpl" if is_shipped => built_in(item, "boot_kiwi.ipxe"),
        "bootstrap.ipxe" if is_shipped => built_in(item, "bootstrap.ipxe"),
        "new.tmpl" => {
            let (text, notes) = ipxe::plain_script(text, Variables::Waiting);
            item.notes.extend(notes);
            made("new.ipxe.hbs", header + &text)
        }
        "finished.tmpl" => {
            let (text, notes) = ipxe::plain_script(text, Variables::Local);
            item.notes.extend(notes);
            made("local.ipxe.hbs", header + &text)
        }
        "known_host.tmpl" => {
            let script = ipxe::boot_script(text, "@state@");
            item.notes.extend(script.notes);
            if script.kernel.is_none() {
                item.notes.push("it loads no kernel of an image, so no image can be booted by it".to_owned());
                return None;
            }
            if !script.append.is_empty() {
                item.notes.push(format!(
                    "its arguments {} are in the image.toml of images without a script of their own",
                    script.append
                ));
            }
            made("boot_kiwi.ipxe.hbs", header + &script.text)
        }
        "bootstrap.ipxe" => {
            item.notes.push(
                "not translated: the built-in one reports more of the machine and asks again; add to that what you need"
                    .to_owned(),
            );
            None
        }
        _ => of_state(name, text, is_image, item, &header),
    }
}

/// A script that the original ran for the state of its name.
fn of_state(
    name: &str,
    text: &str,
    is_image: &dyn Fn(&str) -> bool,
    item: &mut Item,
    header: &str,
) -> Option<Template> {
    let state = name.strip_suffix(".tmpl").and_then(|state| state.parse::<StateName>().ok());
    let Some(state) = state.filter(|_| text.starts_with("#!ipxe")) else {
        item.notes.push(
            "not translated: no state boots it. Documents that machines fetch go into their image's folder as NAME.hbs, \
             and are served below the URL of the boot"
                .to_owned(),
        );
        return None;
    };
    if is_image(state.as_str()) {
        item.is_built_in = true;
        item.notes.push(format!("it belongs to the image {state} and goes with it"));
        return None;
    }
    let (text, notes) = ipxe::plain_script(text, Variables::State);
    item.notes.extend(notes);
    item.notes.push(format!(
        "handed out once per order, as nobody can see what it does: if it changes no disk, write `Writes: nothing` into a \
         line of its header comment in {state}.ipxe.hbs"
    ));
    Some(Template { name: format!("{state}.ipxe.hbs"), text: header.to_owned() + &text })
}

/// The script that an installed system runs, and what a person should look at.
pub(super) fn post_install(text: &str, from: &str) -> (String, Vec<String>) {
    if shell::is_shell(text) {
        let translated = shell::translate(text, from);
        return (translated.text, translated.notes);
    }
    let has_values = !super::placeholder::all_in(text).is_empty();
    if !has_values {
        return (plain(text), Vec::new());
    }
    // Without it the built-in script would report a machine as done that was never set up.
    let text = format!(
        "{{{{!-- In place of KIWIspray's {from}, which is no shell script. --}}}}\n#!/bin/sh\nfail_url={{{{calls.fail}}}}\n\
         curl -fsS -o /dev/null \"$fail_url&reason=post-install-was-not-translated\"\nexit 1\n"
    );
    let note = "not translated, as it is no shell script and holds values: hosts that run it report a failure and hold \
                until it is written anew";
    (text, vec![note.to_owned()])
}
