//! What the SDK's README promises a newcomer: every line of its walk-through is run, in an empty folder, with the real
//! binary, against a real server.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::shell::newcomer;
use crate::support::{Run, Site};

const README: &str = include_str!("../../sdk/rust/README.md");

/// The section of the README that is the walk-through.
fn walkthrough() -> &'static str {
    let (_, after) = README.split_once("## From nothing to an installed plugin\n").unwrap();
    after.split_once("\n## ").unwrap().0
}

/// The lines of its blocks of a kind.
fn lines(kind: &str) -> Vec<&'static str> {
    let blocks = walkthrough().split("```").skip(1).step_by(2);
    let of_kind = blocks.filter_map(|block| block.strip_prefix(kind)?.strip_prefix('\n'));
    of_kind.flat_map(str::lines).collect()
}

/// A folder that has nothing in it, at the same path every time: what cargo has compiled for it before is good again.
fn empty_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("walkthrough");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_readme_leads_a_newcomer_from_nothing_to_an_installed_plugin() {
    let server = Site::new().serve();
    let script = lines("sh").join("\n");
    assert!(script.contains("kiwispray plugin new") && script.contains("kiwispray plugin install"), "{script}");

    let mut shell = newcomer(&format!("exec 2>&1\nset -x\n{script}"), &empty_folder());
    shell
        .env("KIWISPRAY_SERVER", format!("unix:{}", server.site.path("data/admin.sock").display()))
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("walkthrough-target"));
    let run = Run::of(shell).done();

    let mut rest = run.out.as_str();
    for promised in lines("text") {
        let Some((_, after)) = rest.split_once(promised.trim()) else {
            panic!("{promised:?} is not in what came:\n{}", run.out);
        };
        rest = after;
    }
}
