//! Finds, compiles, checks and keeps templates.
//!
//! The invariant: what is kept is what the files say. Every lookup compares identity, time and size of each file that could
//! have given the template or one of its partials, so an edit works at once and without a restart; a broken file breaks only
//! the templates that use it, and its error is kept like a template until the file changes.

use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use handlebars::{Handlebars, RenderErrorReason};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::check::{self, Flaw};
use super::error::{Origin, RenderError};
use super::helpers;
use super::language::Language;
use super::values;

/// Largest template file.
const TEMPLATE_BYTES_MAX: u64 = 256 * 1024;
/// Largest rendered document.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Most compiled templates kept; beyond it all are dropped and compiled again when asked for.
const CACHE_ENTRIES_MAX: usize = 1024;

/// The templates compiled into the server, by document name.
pub(crate) const BUILT_IN: &[(&str, &str)] = &[
    ("_failed.ipxe", include_str!("../../templates/_failed.ipxe.hbs")),
    ("_wait.ipxe", include_str!("../../templates/_wait.ipxe.hbs")),
    ("boot_kiwi.ipxe", include_str!("../../templates/boot_kiwi.ipxe.hbs")),
    ("boot_linux.ipxe", include_str!("../../templates/boot_linux.ipxe.hbs")),
    ("bootstrap.ipxe", include_str!("../../templates/bootstrap.ipxe.hbs")),
    ("hold.ipxe", include_str!("../../templates/hold.ipxe.hbs")),
    ("local.ipxe", include_str!("../../templates/local.ipxe.hbs")),
    ("new.ipxe", include_str!("../../templates/new.ipxe.hbs")),
    ("config.ign", include_str!("../../templates/config.ign.hbs")),
    ("hostname", include_str!("../../templates/hostname.hbs")),
    ("meta-data", include_str!("../../templates/meta-data.hbs")),
    ("minion.conf", include_str!("../../templates/minion.conf.hbs")),
    ("motd", include_str!("../../templates/motd.hbs")),
    ("user-data", include_str!("../../templates/user-data.hbs")),
    ("vendor-data", include_str!("../../templates/vendor-data.hbs")),
    ("post_install.sh", include_str!("../../templates/post_install.sh.hbs")),
];

/// Which places are searched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// An image's folder, the templates folder, the built-in ones.
    Image(PathBuf),
    /// The templates folder, the built-in ones.
    Site,
    /// The built-in ones alone.
    BuiltIn,
}

/// Which file it is, its size, and when the system last changed anything of it, in seconds and nanoseconds; none: there is no such
/// file. The time of writing can be set by whoever brings a file, so it may be that of the file before. An error: nobody knows
/// whether there is one.
type Stamp = Result<Option<(u64, u64, u64, i64, i64)>, ErrorKind>;

/// A template's text and where it is from.
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

struct Entry {
    files: Vec<(PathBuf, Stamp)>,
    outcome: Result<Arc<Compiled>, RenderError>,
}

/// A template that may be rendered, with all that it includes.
pub(crate) struct Compiled {
    name: String,
    pub(crate) language: Language,
    registry: Handlebars<'static>,
    /// Where the template and each partial came from, by registered name.
    origins: HashMap<String, Origin>,
}

/// All templates.
pub(crate) struct Library {
    templates_dir: Option<PathBuf>,
    empty: HashMap<Language, Handlebars<'static>>,
    cache: RwLock<HashMap<(Scope, String), Arc<Entry>>>,
}

impl Library {
    pub(crate) fn new(templates_dir: Option<PathBuf>) -> Library {
        let empty = Language::ALL.into_iter().map(|language| (language, helpers::registry(language))).collect();
        Library { templates_dir, empty, cache: RwLock::default() }
    }

    pub(crate) fn templates_dir(&self) -> Option<&Path> {
        self.templates_dir.as_deref()
    }

    /// The template of a document, compiled and checked.
    pub(crate) fn get(&self, scope: &Scope, name: &str) -> Result<Arc<Compiled>, RenderError> {
        let key = (scope.clone(), name.to_owned());
        let kept = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(entry) = kept
            && entry.files.iter().all(|(path, stamp)| stamp_of(path) == *stamp)
        {
            return entry.outcome.clone();
        }
        let mut files = Vec::new();
        let outcome = self.compile(scope, name, &mut files).map(Arc::new);
        // Names that were made up must not fill the cache.
        if !matches!(outcome, Err(RenderError::Missing { .. } | RenderError::BadName { .. })) {
            let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
            if cache.len() >= CACHE_ENTRIES_MAX {
                cache.clear();
            }
            cache.insert(key, Arc::new(Entry { files, outcome: outcome.clone() }));
        }
        outcome
    }

    /// The text of a template, from the first place that has it; every place looked at is added to `files`.
    pub(crate) fn find(
        &self,
        scope: &Scope,
        name: &str,
        files: &mut Vec<(PathBuf, Stamp)>,
    ) -> Result<Source, RenderError> {
        if !is_plain_name(name) {
            return Err(RenderError::BadName { name: name.to_owned() });
        }
        let (image_dir, templates_dir) = match scope {
            Scope::Image(dir) => (Some(dir.as_path()), self.templates_dir()),
            Scope::Site => (None, self.templates_dir()),
            Scope::BuiltIn => (None, None),
        };
        for dir in [image_dir, templates_dir].into_iter().flatten() {
            let path = dir.join(format!("{name}.hbs"));
            let stamp = stamp_of(&path);
            files.push((path.clone(), stamp));
            // What cannot be looked at may be there, and no other may take its place.
            let text = match stamp {
                Ok(None) => continue,
                Ok(Some(_)) => read(&path),
                Err(kind) => Err(kind.into()),
            };
            let origin = Origin::File(path);
            return match text {
                Ok(text) => Ok(Source { text, origin }),
                Err(error) => Err(RenderError::Unreadable { origin, source: Arc::new(error) }),
            };
        }
        let (built_in, text) = BUILT_IN
            .iter()
            .find(|(built_in, _)| *built_in == name)
            .ok_or_else(|| RenderError::Missing { name: name.to_owned() })?;
        Ok(Source { text: (*text).to_owned(), origin: Origin::BuiltIn(built_in) })
    }

    fn compile(&self, scope: &Scope, name: &str, files: &mut Vec<(PathBuf, Stamp)>) -> Result<Compiled, RenderError> {
        let bad_name = || RenderError::BadName { name: name.to_owned() };
        let source = self.find(scope, name, files)?;
        let language = Language::of(name).ok_or_else(bad_name)?;
        let registry = self.empty.get(&language).cloned().ok_or_else(bad_name)?;
        let mut compiled = Compiled { name: name.to_owned(), language, registry, origins: HashMap::new() };
        let mut wanted = compiled.add(name, source)?;
        while let Some((partial, wanted_by, line)) = wanted.pop() {
            if compiled.origins.contains_key(&partial) {
                continue;
            }
            // A partial's file says its language as every template's file does.
            let document = format!("{partial}.{}", extension(language));
            let source = self.find(scope, &document, files).map_err(|error| match error {
                RenderError::Missing { .. } | RenderError::BadName { .. } => RenderError::Refused {
                    origin: wanted_by,
                    line,
                    what: format!("there is no partial {partial}"),
                    remedy: "put its file into the templates folder",
                },
                RenderError::Unreadable { .. }
                | RenderError::Refused { .. }
                | RenderError::UnknownVariable { .. }
                | RenderError::WrongKind { .. }
                | RenderError::BadValue { .. }
                | RenderError::NotJson { .. }
                | RenderError::TooLarge { .. } => error,
            })?;
            wanted.extend(compiled.add(&partial, source)?);
        }
        compiled.check()?;
        Ok(compiled)
    }
}

impl Compiled {
    /// Where the template itself came from.
    pub(crate) fn origin(&self) -> Origin {
        self.origin_of(None)
    }

    /// Whether it goes into one of these values, by `{{#with}}` or `{{#each}}`.
    pub(crate) fn goes_into(&self, paths: &BTreeSet<String>) -> bool {
        self.registry.get_templates().values().any(|template| values::goes_into(template, paths))
    }

    /// Writes the document.
    pub(crate) fn render(&self, variables: &impl serde::Serialize) -> Result<String, RenderError> {
        let mut out = Bounded { bytes: Vec::with_capacity(4096) };
        let rendered = self.registry.render_to_write(&self.name, variables, &mut out);
        rendered.map_err(|error| self.explain(&error, &serde_json::to_value(variables).unwrap_or_default()))?;
        // Handlebars writes only strings.
        let mut text = String::from_utf8_lossy(&out.bytes).into_owned();
        if self.language == Language::Ipxe {
            if !text.starts_with("#!ipxe\n") {
                return Err(RenderError::Refused {
                    origin: self.origin(),
                    line: 1,
                    what: "the script does not begin with #!ipxe, so no machine would run it".to_owned(),
                    remedy: "make #!ipxe the first line after the header comment",
                });
            }
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        // Whoever reads it would understand none of it, and mostly on a machine whose disk is written by then.
        if self.language == Language::Json
            && let Err(error) = serde_json::from_str::<IgnoredAny>(&text)
        {
            return Err(RenderError::NotJson { origin: self.origin(), error: error.to_string() });
        }
        Ok(text)
    }

    /// Registers one template; returns the partials it includes, and for each where.
    fn add(&mut self, name: &str, source: Source) -> Result<Vec<(String, Origin, usize)>, RenderError> {
        let Source { text, origin } = source;
        let refused = |flaw: Flaw| refusal(origin.clone(), flaw);
        check::check_nesting(&text).map_err(refused)?;
        self.registry.register_template_string(name, &text).map_err(|error| RenderError::Refused {
            origin: origin.clone(),
            line: error.pos().map_or(0, |(line, _)| line),
            what: error.reason().to_string(),
            remedy: "see https://handlebarsjs.com/guide/expressions.html for the syntax",
        })?;
        self.origins.insert(name.to_owned(), origin.clone());
        let Some(mut template) = self.registry.get_template(name).cloned() else { return Ok(Vec::new()) };
        let names = check::partials_of(&template).map_err(refused)?;
        values::hand_over(&mut template);
        self.registry.register_template(name, template);
        Ok(names.into_iter().map(|(partial, line)| (partial, origin.clone(), line)).collect())
    }

    fn check(&self) -> Result<(), RenderError> {
        let Some(template) = self.registry.get_template(&self.name) else { return Ok(()) };
        check::check(template, self.language, &|partial| self.registry.get_template(partial))
            .map_err(|flaw| refusal(self.origin_of(flaw.partial.as_deref()), flaw))
    }

    fn origin_of(&self, registered: Option<&str>) -> Origin {
        self.origins
            .get(registered.unwrap_or(&self.name))
            .or_else(|| self.origins.get(&self.name))
            .cloned()
            .unwrap_or_else(|| Origin::File(PathBuf::from(&self.name)))
    }

    fn explain(&self, error: &handlebars::RenderError, variables: &Value) -> RenderError {
        let origin = self.origin_of(error.template_name.as_deref());
        let line = error.line_no.unwrap_or(0);
        // Other reasons are rare and say what they are; the enum is not exhaustive.
        if let RenderErrorReason::MissingVariable(path) = error.reason() {
            let variable = path.clone().unwrap_or_else(|| "of that name".to_owned());
            let names = values::names_of(&variable);
            // `each` and `with` say "missing" of what is there and is nothing for them.
            return match names.iter().try_fold(variables, |place, name| place.get(name)) {
                Some(_) => RenderError::WrongKind { origin, line, variable },
                None => RenderError::UnknownVariable { origin, line, variable },
            };
        }
        if let RenderErrorReason::IOError(_) = error.reason() {
            return RenderError::TooLarge { origin, limit_bytes: OUTPUT_BYTES_MAX };
        }
        RenderError::BadValue { origin, line, what: error.reason().to_string() }
    }
}

/// Takes output up to the bound.
struct Bounded {
    bytes: Vec<u8>,
}

impl std::io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + more.len() > OUTPUT_BYTES_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn refusal(origin: Origin, flaw: Flaw) -> RenderError {
    RenderError::Refused { origin, line: flaw.line, what: flaw.what, remedy: flaw.remedy }
}

/// Letters, digits, `.`, `_`, `-`; no dot file, so no way out of the folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn extension(language: Language) -> &'static str {
    match language {
        Language::Ipxe => "ipxe",
        Language::Shell => "sh",
        Language::Yaml => "yaml",
        Language::Json => "json",
        Language::KernelArgs => "append",
        Language::Text => "txt",
    }
}

fn stamp_of(path: &Path) -> Stamp {
    let is_absent = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
    match std::fs::metadata(path) {
        Ok(data) => Ok(Some((data.dev(), data.ino(), data.len(), data.ctime(), data.ctime_nsec()))),
        Err(error) if is_absent(error.kind()) => match std::fs::symlink_metadata(path) {
            // A link to what is not there, on a disk that is not mounted, say.
            Ok(_) => Err(error.kind()),
            Err(error) if is_absent(error.kind()) => Ok(None),
            Err(error) => Err(error.kind()),
        },
        Err(error) => Err(error.kind()),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Error;
    // A named pipe would block the server.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(TEMPLATE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEMPLATE_BYTES_MAX {
        return Err(Error::new(ErrorKind::FileTooLarge, "it is larger than 256 KiB"));
    }
    // Neither iPXE nor a shell takes a carriage return or a byte order mark.
    Ok(text.trim_start_matches('\u{feff}').replace("\r\n", "\n"))
}
