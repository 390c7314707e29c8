//! What the original allowed everybody, as settings.

use std::path::Path;

use super::{Item, What};

/// A setting that makes kiwispray as open as the original was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The key below `[boot]`.
    pub key: &'static str,
    /// The path of the original that answered everybody.
    pub path: &'static str,
}

const ALL: [Setting; 2] =
    [Setting { key: "open_state", path: "/state" }, Setting { key: "open_hosts", path: "/hosts" }];

/// The settings of an installation: older versions of the original had neither path.
pub(super) fn read(dir: &Path) -> Vec<Setting> {
    let program = super::text_of(&dir.join("KS/handler.py")).ok().flatten();
    let had =
        |setting: &Setting| program.as_ref().is_none_or(|program| program.contains(&format!("'{}'", setting.path)));
    ALL.into_iter().filter(had).collect()
}

impl Setting {
    pub(super) fn item(&self) -> Item {
        let mut item = Item::new(What::Setting, self.path.to_owned());
        item.to = Some(format!("boot.{} = true", self.key));
        item.notes.push(format!("the original answered {} to everybody", self.path));
        item
    }
}

/// The file of `conf.d` with these settings.
pub fn settings_file(settings: &[Setting]) -> String {
    let lines =
        settings.iter().map(|setting| format!("# {} answers everybody.\n{} = true\n", setting.path, setting.key));
    format!(
        "# As the original KIWIspray had it. What you do not need is better closed.\n[boot]\n{}",
        lines.collect::<String>()
    )
}
