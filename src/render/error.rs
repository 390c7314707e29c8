//! What can go wrong between a template and its output. Every error names the template, the place and the remedy.

use std::path::PathBuf;
use std::sync::Arc;

/// Where a template's text came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Compiled into the server.
    BuiltIn(&'static str),
    /// A file of the templates folder or of an image.
    File(PathBuf),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::BuiltIn(name) => write!(f, "built-in {name}.hbs"),
            Origin::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a document could not be rendered. Cheap to clone, as a broken template's error is kept until its file changes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RenderError {
    /// No such template in the image's folder, the templates folder or the built-in ones.
    #[error("there is no template {name}; put {name}.hbs into the templates folder or the image's folder")]
    Missing {
        /// The document's name, without `.hbs`.
        name: String,
    },
    /// The name does not say which language the template writes, or is not a plain file name.
    #[error(
        "{name:?} is no name for a template: use a plain file name that ends in .ipxe, .sh, .yaml, .json or .txt, or user-data, meta-data, vendor-data, network-config, config.bootoptions"
    )]
    BadName {
        /// The document's name as asked for.
        name: String,
    },
    /// The file is there and cannot be read.
    #[error("{origin} cannot be read; make it a readable UTF-8 file of at most 256 KiB")]
    Unreadable {
        /// The template's file.
        origin: Origin,
        /// The system's reason.
        source: Arc<std::io::Error>,
    },
    /// The template is not valid handlebars, or uses what is refused.
    #[error("{origin} line {line}: {what}; {remedy}")]
    Refused {
        /// The template's file.
        origin: Origin,
        /// Line in the template, from 1; 0 where it is not known.
        line: usize,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The template uses a variable that was not given.
    #[error("{origin} line {line}: there is no variable {variable}; {}", remedy(variable))]
    UnknownVariable {
        /// The template's file.
        origin: Origin,
        /// Line in the template, from 1; 0 where it is not known.
        line: usize,
        /// The variable as written.
        variable: String,
    },
    /// A block was given a value that it can do nothing with.
    #[error(
        "{origin} line {line}: {variable} is there, and nothing for this block: {{{{#each}}}} takes a list or an object, {{{{#with}}}} what is not empty"
    )]
    WrongKind {
        /// The template's file.
        origin: Origin,
        /// Line in the template, from 1; 0 where it is not known.
        line: usize,
        /// The variable as written.
        variable: String,
    },
    /// A value cannot be written into this language at this place, and changing it would be worse than refusing.
    #[error("{origin} line {line}: {what}")]
    BadValue {
        /// The template's file.
        origin: Origin,
        /// Line in the template, from 1; 0 where it is not known.
        line: usize,
        /// Which value, and why not.
        what: String,
    },
    /// What came out is read by no reader of JSON.
    #[error("{origin}: what comes out of it is no JSON: {error}; look at the commas between values")]
    NotJson {
        /// The template's file.
        origin: Origin,
        /// The reader's words, with line and column of the document.
        error: String,
    },
    /// The output has outgrown its bound.
    #[error(
        "{origin}: the rendered document is larger than {limit_bytes} bytes; make the template or its data smaller"
    )]
    TooLarge {
        /// The template's file.
        origin: Origin,
        /// The bound.
        limit_bytes: usize,
    },
}

/// What to do about a variable that is not there.
fn remedy(variable: &str) -> String {
    let known = match variable.strip_prefix("host.metadata.") {
        Some(_) => "put it into the host's metadata",
        None => "see the template's header comment for those that exist",
    };
    format!("{known}, or guard it with {{{{#if {variable}}}}}")
}

/// A template that cannot be used, as found by [`check_all`](super::Renderer::check_all).
#[derive(Clone, Debug)]
pub struct Problem {
    /// The document's name, without `.hbs`.
    pub template: String,
    /// What is wrong and what to do.
    pub error: RenderError,
}
