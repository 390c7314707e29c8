//! Images that Debian's own KIWI builds, kept in the cache under a hash of what they are built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::cache;
use crate::net::run as run_command;
use crate::server::program;

/// The folder with what `tests/e2e/NAME/build.sh` makes of the description beside it, hooked by `image hook` with these options:
/// from the cache if nothing of it changed, else built.
///
/// # Errors
/// The build needs root; it leaves its log next to the folder.
pub(crate) fn image(name: &str, hook: &[&str]) -> Result<PathBuf> {
    let work = tempfile::tempdir()?;
    let description = hooked_description(work.path(), name, hook)?;
    let dir = cache::dir()?.join(format!("{name}-{}", digest_of(&description)?));
    if !dir.is_dir() {
        ensure!(rustix::process::geteuid().is_root(), "building a KIWI image needs root and loop devices");
        let log_path = dir.with_extension("log");
        println!("building the KIWI image, 3 to 11 minutes; its log is {}", log_path.display());
        let log = fs::File::create(&log_path)?;
        let mut build = Command::new("nice");
        build.arg(description.join("build.sh")).arg(&dir).stdin(Stdio::null());
        let begin = Instant::now();
        let status = build.stdout(log.try_clone()?).stderr(log).status()?;
        ensure!(status.success(), "KIWI failed ({status}), see {}", log_path.display());
        println!("built in {} s", begin.elapsed().as_secs());
    }
    Ok(dir)
}

/// The description with the unit that `image hook` puts into it, as everyone's would have.
fn hooked_description(work: &Path, name: &str, hook: &[&str]) -> Result<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(name);
    let copy = work.join(name);
    run_command("cp", &["-r", &kept.to_string_lossy(), &copy.to_string_lossy()])?;
    let hook = Command::new(program()).args(["image", "hook"]).arg(copy.join("description")).args(hook).output()?;
    ensure!(hook.status.success(), "kiwispray image hook: {}", String::from_utf8_lossy(&hook.stderr));
    let said = String::from_utf8_lossy(&hook.stdout);
    ensure!(!said.contains("left to do"), "the hook is not enough for this description: {said}");
    Ok(copy)
}

/// A short name for the content of a folder: every file's path, mode and bytes.
fn digest_of(dir: &Path) -> Result<String> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut sum = Sha256::new();
    for file in files {
        sum.update(file.strip_prefix(dir)?.to_string_lossy().as_bytes());
        sum.update([0]);
        sum.update(Sha256::digest(fs::read(&file)?));
    }
    Ok(sum.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}
