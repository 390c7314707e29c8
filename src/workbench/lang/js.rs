//! JavaScript, by componentize-qjs: QuickJS with the plugin's modules evaluated into it.
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::{LangError, Make, Manifest, SAID_MAX_LINES, Tool, WORK, WORLD, absolute, program, write};

pub(super) const MAKE: Make = Make {
    tool: Tool {
        package: "componentize-qjs",
        version: VERSION,
        install,
        remedy: "JavaScript plugins are built with Node.js 20 or later and its npm: https://nodejs.org",
    },
    command,
    said,
};

/// From npm. The SDK is tested with this one.
const VERSION: &str = "0.4.5";

fn install(folder: &Path) -> Vec<Command> {
    let mut npm = program("npm", folder);
    npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix", "."]);
    npm.arg(format!("componentize-qjs@{VERSION}"));
    vec![npm]
}

fn command(tool: &Path, folder: &Path, manifest: &Manifest, out: &Path) -> Result<Command, LangError> {
    let entry = folder.join(WORK).join("entry.js");
    write(&entry, &entry_for(manifest))?;
    let mut node = program("node", folder);
    node.arg(absolute(tool)?.join("node_modules/componentize-qjs/cli.mjs"))
        // Synchronous and without WASI: the core runs it in one thread and offers it nothing but the contract.
        .args(["--sync", "--stub-wasi", "--world", WORLD, "--module-root", ".", "--wit"])
        .arg(format!("{WORK}/wit"))
        .arg("--js")
        .arg(format!("{WORK}/entry.js"))
        .arg("--output")
        .arg(absolute(out)?);
    Ok(node)
}

/// The module that is made a component: imports of the contract stand in the text of a module, so it is written for each world.
fn entry_for(manifest: &Manifest) -> String {
    let mut interfaces = vec!["call".to_owned(), "log".to_owned()];
    interfaces.extend(manifest.imports.iter().map(ToString::to_string));
    let hooks: Vec<_> = manifest.hooks.iter().map(ToString::to_string).collect();
    let mut text = "// Written by `kiwispray plugin build` for what plugin.toml names.\n\
                    import '../kiwispray/install.js';\n\
                    import * as plugin from '../plugin.js';\n\
                    import { connect } from '../kiwispray/core.js';\n\
                    import { exported } from '../kiwispray/hooks.js';\n"
        .to_owned();
    for name in &interfaces {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "import * as {name} from 'kiwispray:plugin/{name}@0.1.0';");
    }
    let _ = writeln!(text, "\nconnect({{ {} }});", interfaces.join(", "));
    let _ = writeln!(text, "const interfaces = exported(plugin, {});", serde_json::json!(hooks));
    for name in std::iter::once("about").chain(hooks.iter().map(String::as_str)) {
        let _ = writeln!(text, "export const {name} = interfaces.{name};");
    }
    text
}

/// The exception, without the tool's preamble and the SDK's own frames.
fn said(text: &str) -> String {
    let from = text.find("Error: ").and_then(|at| text.get(at..)).unwrap_or(text);
    let mut text = from.trim_start_matches("Error: : ");
    for stage in [
        "Failed to evaluate user JavaScript module: ",
        "Failed to declare JavaScript module: ",
        "Failed to finish JavaScript module evaluation: ",
    ] {
        text = text.strip_prefix(stage).unwrap_or(text);
    }
    let is_own = |line: &&str| !line.contains("(/kiwispray/") && !line.contains(WORK) && !line.trim().is_empty();
    text.lines().filter(is_own).take(SAID_MAX_LINES).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_imports_and_exports_what_is_named() {
        let manifest = "name = \"x\"\nlang = \"js\"\nhooks = [\"boot\", \"events\"]\nimports = [\"kv\"]";
        let entry = entry_for(&toml::from_str(manifest).unwrap());
        let lines: Vec<_> = entry.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "import '../kiwispray/install.js';",
                "import * as plugin from '../plugin.js';",
                "import { connect } from '../kiwispray/core.js';",
                "import { exported } from '../kiwispray/hooks.js';",
                "import * as call from 'kiwispray:plugin/call@0.1.0';",
                "import * as log from 'kiwispray:plugin/log@0.1.0';",
                "import * as kv from 'kiwispray:plugin/kv@0.1.0';",
                "",
                "connect({ call, log, kv });",
                "const interfaces = exported(plugin, [\"boot\",\"events\"]);",
                "export const about = interfaces.about;",
                "export const boot = interfaces.boot;",
                "export const events = interfaces.events;",
            ]
        );
    }

    #[test]
    fn of_what_the_tool_says_the_exception_is_left() {
        let text = "componentize-qjs\n  WIT: wit\nError: : Failed to evaluate user JavaScript module: Failed to finish \
                    JavaScript module evaluation: Error: rack is not defined\n    at <anonymous> (/plugin.js:2:1)\n    \
                    at exported (/kiwispray/hooks.js:7:1)\n\n";
        assert_eq!(said(text), "Error: rack is not defined\n    at <anonymous> (/plugin.js:2:1)");
        assert_eq!(said("killed"), "killed");
    }
}
