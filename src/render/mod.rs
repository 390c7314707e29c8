//! Turns decisions into scripts and documents, with handlebars.
//!
//! The invariant (promise P6): text from outside never becomes code. Every language has its own registry and escaper, a
//! template that could write a value unescaped or in the wrong place is refused when it is loaded, and what even escaping
//! cannot make safe (devices, URLs, kernel arguments) has types that refuse. Nothing here reads a clock or is random: the
//! same variables give the same text.
//!
//! A template `<name>.hbs` is looked for in the image's folder, the templates folder, and among the built-in ones, and its
//! name chooses its language: see [`Language`]. Reading order: `vars` (what goes in), `library` (finding and keeping),
//! `check` and `place` (what is refused), `language` and `escape`, `cmdline` and `url` (typed parts), `fallback`.

mod check;
mod cmdline;
mod error;
mod escape;
mod fallback;
mod helpers;
mod language;
mod library;
mod place;
mod trial;
mod url;
mod values;
mod variables;
mod vars;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use library::{Library, Scope};

pub use cmdline::{
    ARG_BYTES_MAX, CmdlineError, Initrd, KernelArg, KiwiLine, LINE_BYTES_MAX, LinuxLine, LiveLine, SafeLine,
};
pub use error::{Origin, Problem, RenderError};
pub use escape::IPXE_VALUE_CHARS_MAX;
pub use fallback::{last_resort_hold, last_resort_local};
pub use helpers::IDENTIFY;
pub use language::Language;
pub use trial::Trial;
pub use url::{BadBaseUrl, BaseUrl};
pub use variables::{Variable, helpers_of, variables_of};
pub use vars::{
    BootScript, BootVars, BootstrapVars, CallVars, DocumentVars, HoldVars, HostVars, ImageVars, LocalVars, NewVars,
    ServerVars, WAIT_S_MAX, WaitVars,
};

/// A rendered document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it is written in; also gives the media type.
    pub language: Language,
    /// The whole text.
    pub text: String,
}

/// A template as `kiwispray template list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The document's name, without `.hbs`.
    pub name: String,
    /// Which file is used.
    pub origin: Origin,
    /// The header comment, which names the variables; empty if there is none.
    pub header: String,
}

/// All templates of this server; cheap to ask, safe to share.
pub struct Renderer {
    library: Library,
}

impl Renderer {
    /// With a folder of the site's own templates, which stand before the built-in ones. The folder may be missing, and may
    /// come and go.
    pub fn new(templates_dir: Option<PathBuf>) -> Renderer {
        Renderer { library: Library::new(templates_dir) }
    }

    /// Renders a boot script from the site's template, or the built-in one if the site has none.
    ///
    /// # Errors
    /// The site's template is broken. For [`BootScript::Linux`] and [`BootScript::Kiwi`] the caller holds the machine; for
    /// the others use [`Self::boot_script_or_built_in`].
    pub fn boot_script(&self, script: &BootScript) -> Result<String, RenderError> {
        self.boot_script_in(&Scope::Site, script)
    }

    /// As [`Self::boot_script`], and if the site's template is broken, the built-in one and the error to report. For scripts
    /// that write no disk, as it never fails: a broken template must keep no machine from waiting or from its own disk.
    pub fn boot_script_or_built_in(&self, script: &BootScript) -> (String, Option<RenderError>) {
        match self.boot_script(script) {
            Ok(text) => (text, None),
            Err(problem) => (self.built_in(script), Some(problem)),
        }
    }

    /// The built-in script. Reads no file.
    pub fn built_in(&self, script: &BootScript) -> String {
        match (self.boot_script_in(&Scope::BuiltIn, script), script) {
            (Ok(text), _) => text,
            (Err(_), BootScript::Bootstrap(vars)) => fallback::last_resort_bootstrap(&vars.server.base),
            (Err(_), BootScript::Local(vars)) => last_resort_local(&vars.reason),
            (Err(_), BootScript::New(vars)) => {
                last_resort_hold(&vars.server.base, "waiting for a state", vars.wait.again_s)
            }
            (Err(_), BootScript::Hold(vars)) => last_resort_hold(&vars.server.base, &vars.reason, vars.wait.again_s),
            (Err(error), BootScript::Linux(vars) | BootScript::Kiwi(vars)) => {
                last_resort_hold(&vars.server.base, &error.to_string(), 30)
            }
        }
    }

    /// Renders a document of a boot, as `post_install.sh`, `user-data` or `host.ipxe`: from the image's folder if it has the
    /// template, else from the templates folder, else the built-in one.
    ///
    /// # Errors
    /// [`RenderError::Missing`] if nobody has the template; else what is wrong with it or with a value.
    pub fn document(
        &self,
        image_dir: Option<&Path>,
        name: &str,
        variables: &impl serde::Serialize,
    ) -> Result<Document, RenderError> {
        let compiled = self.library.get(&scope_of(image_dir), name)?;
        Ok(Document { language: compiled.language, text: compiled.render(variables)? })
    }

    /// The documents for which an image brings a template of its own; boot scripts and parts are none.
    pub fn documents_of_image(&self, image_dir: &Path) -> BTreeSet<String> {
        let mut names = names_in(image_dir);
        names.retain(|name| !name.starts_with('_') && !name.ends_with(".ipxe"));
        names
    }

    /// Whether there is a template for a document, broken or not.
    pub fn has_template(&self, image_dir: Option<&Path>, name: &str) -> bool {
        match self.library.find(&scope_of(image_dir), name, &mut Vec::new()) {
            Ok(_) | Err(RenderError::Unreadable { .. }) => true,
            Err(
                RenderError::Missing { .. }
                | RenderError::BadName { .. }
                | RenderError::Refused { .. }
                | RenderError::UnknownVariable { .. }
                | RenderError::WrongKind { .. }
                | RenderError::BadValue { .. }
                | RenderError::NotJson { .. }
                | RenderError::TooLarge { .. },
            ) => false,
        }
    }

    /// Whether a document's template is the built-in one, so that nobody here wrote it.
    pub fn is_built_in(&self, image_dir: Option<&Path>, name: &str) -> bool {
        let source = self.library.find(&scope_of(image_dir), name, &mut Vec::new());
        source.is_ok_and(|source| matches!(source.origin, Origin::BuiltIn(_)))
    }

    /// Whether a site's template declares in its header comment, by a line `Writes: nothing`, that booting it changes no
    /// disk, so that it may be booted any number of times.
    pub fn says_it_writes_nothing(&self, name: &str) -> bool {
        let source = self.library.find(&Scope::Site, name, &mut Vec::new());
        source.is_ok_and(|source| header_of(&source.text).lines().any(|line| line.trim() == "Writes: nothing"))
    }

    /// Compiles and checks every template of the site and every built-in one; what is wrong with them.
    pub fn check_all(&self) -> Vec<Problem> {
        let problem = |template: String| {
            let error = self.library.get(&Scope::Site, &template).err()?;
            Some(Problem { template, error })
        };
        self.names().into_iter().filter_map(problem).collect()
    }

    /// Every template of the site and every built-in one, by name.
    pub fn list(&self) -> Vec<Listed> {
        let listed = |name: String| {
            let source = self.library.find(&Scope::Site, &name, &mut Vec::new()).ok()?;
            Some(Listed { name, header: header_of(&source.text), origin: source.origin })
        };
        self.names().into_iter().filter_map(listed).collect()
    }

    /// The templates of all images, each with its image's folder. What cannot be read is left out.
    pub fn list_of_images(&self, images_dir: &Path) -> Vec<(PathBuf, Listed)> {
        let entries = std::fs::read_dir(images_dir).into_iter().flatten().flatten();
        let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !is_hidden(path)).collect();
        folders.sort();
        let in_folder = |folder: PathBuf| {
            let names = names_in(&folder);
            names.into_iter().map(move |name| (folder.clone(), name))
        };
        let listed = |(folder, name): (PathBuf, String)| {
            let source = self.library.find(&scope_of(Some(&folder)), &name, &mut Vec::new()).ok()?;
            Some((folder, Listed { name, header: header_of(&source.text), origin: source.origin }))
        };
        folders.into_iter().flat_map(in_folder).filter_map(listed).collect()
    }

    /// A template's text, and which file it is.
    ///
    /// # Errors
    /// Nobody has the template, or it cannot be read.
    pub fn text(&self, image_dir: Option<&Path>, name: &str) -> Result<(String, Origin), RenderError> {
        let source = self.library.find(&scope_of(image_dir), name, &mut Vec::new())?;
        Ok((source.text, source.origin))
    }

    fn boot_script_in(&self, scope: &Scope, script: &BootScript) -> Result<String, RenderError> {
        let compiled = self.library.get(scope, script.template())?;
        match script {
            BootScript::Bootstrap(vars) => compiled.render(vars),
            BootScript::New(vars) => compiled.render(vars),
            BootScript::Hold(vars) => compiled.render(vars),
            BootScript::Local(vars) => compiled.render(vars),
            BootScript::Linux(vars) | BootScript::Kiwi(vars) => compiled.render(vars),
        }
    }

    fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = library::BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.extend(self.library.templates_dir().map(names_in).unwrap_or_default());
        names
    }
}

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer").field("templates_dir", &self.library.templates_dir()).finish_non_exhaustive()
    }
}

fn scope_of(image_dir: Option<&Path>) -> Scope {
    image_dir.map_or(Scope::Site, |dir| Scope::Image(dir.to_owned()))
}

/// The names of all `*.hbs` in a folder; none if it cannot be read.
fn names_in(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".hbs").map(str::to_owned))
        .filter(|name| library::is_plain_name(name))
        .collect()
}

/// The text of the comment that a template begins with.
fn header_of(text: &str) -> String {
    let comment = text.trim_start().strip_prefix("{{!--").and_then(|rest| rest.split_once("--}}"));
    comment.map(|(header, _)| header.trim().to_owned()).unwrap_or_default()
}
