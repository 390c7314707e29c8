//! `kiwispray template …`: for those who write templates. Works on the folders, without a server.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Context;
use super::doctor::source;
use super::error::{CliError, Result};
use super::screen::{Format, Look, Paint};
use super::table::{cell, optional, table};
use super::words::harmless;
use crate::config::{Config, ServeArgs};
use crate::render::{Language, Listed, Origin, RenderError, Renderer, Trial, Variable, helpers_of, variables_of};

/// What can be done with templates.
#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List built-in templates, yours, and those of images
    List(Folders),
    /// Print a template's text, as a beginning for your own
    Show {
        /// As `template list` names it: NAME or IMAGE/NAME
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        folders: Folders,
    },
    /// Explain every variable of a template
    Vars {
        /// As `template list` names it, or the name that it shall have
        #[arg(value_name = "NAME", default_value = "post_install.sh")]
        name: String,
    },
    /// Compile templates strictly and render them with sample data
    Check(Check),
}

/// Checks one template, or all.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// As `template list` names it, or a file [default: all]
    #[arg(value_name = "NAME|FILE")]
    what: Option<String>,
    /// The sample host's metadata
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Map<String, Value>>,
    #[command(flatten)]
    folders: Folders,
}

/// Where templates are.
#[derive(Debug, Default, Args)]
pub(crate) struct Folders {
    /// Configuration file, which names the folders
    #[arg(long, value_name = "FILE", env = "KIWISPRAY_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// One folder per image
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_IMAGES_DIR", hide_env = true)]
    images_dir: Option<PathBuf>,
    /// Your own templates
    #[arg(long, value_name = "DIR", env = "KIWISPRAY_TEMPLATES_DIR", hide_env = true)]
    templates_dir: Option<PathBuf>,
}

/// A template in a list.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// `built-in`, `site` or `image`.
    from: &'static str,
    /// The file; none for a built-in one.
    file: Option<PathBuf>,
    language: Option<String>,
    /// What booting it as a state writes; none if it is no state.
    writes: Option<&'static str>,
}

/// A template that was checked.
#[derive(Debug, Serialize)]
struct Checked {
    name: String,
    problem: Option<String>,
    /// Metadata and variables of plugins that a host must have.
    needs: Vec<String>,
}

fn object(text: &str) -> std::result::Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("a JSON object such as {{\"site\":\"fra1\"}}: {error}"))
}

/// The site's templates, and where images are.
struct Shelf {
    renderer: Renderer,
    images_dir: PathBuf,
}

impl Folders {
    fn open(self) -> Result<Shelf> {
        let Self { config, images_dir, templates_dir } = self;
        let args = ServeArgs { config, images_dir, templates_dir, ..ServeArgs::default() };
        let config: Config = source(args)?.load().map_err(|error| CliError::usage(error.to_string()))?;
        Ok(Shelf { renderer: Renderer::new(Some(config.templates_dir)), images_dir: config.images_dir })
    }
}

impl TemplateCommand {
    pub(crate) fn run(self, context: &Context) -> Result {
        match self {
            Self::List(folders) => list(context, &folders.open()?),
            Self::Show { name, folders } => show(context, &folders.open()?, &name),
            Self::Vars { name } => variables(context, &name),
            Self::Check(check) => check.run(context),
        }
    }
}

fn list(context: &Context, shelf: &Shelf) -> Result {
    let rows = shelf.rows();
    if context.screen.format == Format::Json {
        return context.screen.json(&rows);
    }
    let look = context.screen.look();
    let mut table = table(["NAME", "FROM", "WRITES", "LANGUAGE", "FILE"]);
    for row in &rows {
        let paint = if row.from == "built-in" { Paint::Faint } else { Paint::Plain };
        table.add_row([
            cell(&row.name, Paint::Plain, look),
            cell(row.from, paint, look),
            optional(row.writes, look),
            optional(row.language.as_deref(), look),
            optional(row.file.as_ref().map(|file| file.display().to_string()).as_deref(), look),
        ]);
    }
    context.screen.line(&table.rendered())
}

impl Shelf {
    fn rows(&self) -> Vec<Row> {
        let site = self.renderer.list().into_iter().map(|listed| row(listed.name.clone(), listed));
        let images = self.renderer.list_of_images(&self.images_dir).into_iter();
        let images = images.map(|(folder, listed)| {
            let image = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Row { from: "image", writes: None, ..row(format!("{image}/{}", listed.name), listed) }
        });
        site.chain(images).collect()
    }

    /// Where a template is that is named as in the list: its image's folder, and its name there.
    fn place(&self, name: &str) -> (Option<PathBuf>, String) {
        match name.strip_suffix(".hbs").unwrap_or(name).split_once('/') {
            // A folder's name and nothing that leads elsewhere.
            Some((image, name)) if !image.starts_with('.') => (Some(self.images_dir.join(image)), name.to_owned()),
            Some(_) | None => (None, name.strip_suffix(".hbs").unwrap_or(name).to_owned()),
        }
    }
}

fn row(name: String, listed: Listed) -> Row {
    let Listed { name: document, origin, header } = listed;
    let (from, file) = match origin {
        Origin::BuiltIn(_) => ("built-in", None),
        Origin::File(path) => ("site", Some(path)),
    };
    let is_reserved = Renderer::new(None).has_template(None, &document) || document == "host.ipxe";
    let is_state = !is_reserved && !document.starts_with('_') && document.ends_with(".ipxe");
    let says_nothing = header.lines().any(|line| line.trim() == "Writes: nothing");
    Row {
        name,
        from,
        file,
        language: Language::of(&document).map(|language| language.to_string()),
        writes: is_state.then_some(if says_nothing { "nothing" } else { "disk" }),
    }
}

fn show(context: &Context, shelf: &Shelf, name: &str) -> Result {
    let (image_dir, document) = shelf.place(name);
    let (text, origin) = shelf.renderer.text(image_dir.as_deref(), &document).map_err(|error| refused(&error))?;
    if context.screen.format == Format::Json {
        return context.screen.json(&json!({ "name": name, "origin": origin.to_string(), "text": text }));
    }
    context.screen.detail(&format!("from {origin}"));
    context.screen.line(text.trim_end())
}

fn refused(error: &RenderError) -> CliError {
    match error {
        RenderError::Missing { .. } => {
            CliError::not_found(format!("{error}; `kiwispray template list` shows them all"))
        }
        RenderError::BadName { .. } => CliError::usage(error.to_string()),
        RenderError::Unreadable { .. }
        | RenderError::Refused { .. }
        | RenderError::UnknownVariable { .. }
        | RenderError::WrongKind { .. }
        | RenderError::BadValue { .. }
        | RenderError::NotJson { .. }
        | RenderError::TooLarge { .. } => CliError::failed(error.to_string()),
    }
}

fn variables(context: &Context, name: &str) -> Result {
    let document = name.rsplit('/').next().unwrap_or(name);
    let document = document.strip_suffix(".hbs").unwrap_or(document);
    let Some(language) = Language::of(document) else {
        return Err(refused(&RenderError::BadName { name: document.to_owned() }));
    };
    let variables = variables_of(document);
    if context.screen.format == Format::Json {
        let helpers: Vec<Value> =
            helpers_of(language).iter().map(|(name, meaning)| json!({ "name": name, "meaning": meaning })).collect();
        return context.screen.json(&json!({
            "template": document,
            "language": language.to_string(),
            "variables": variables,
            "helpers": helpers,
        }));
    }
    context.screen.line(&described(&variables, language, context.screen.look()))
}

/// A table of variables, and the helpers below.
fn described(variables: &[&Variable], language: Language, look: Look) -> String {
    let mut table = table(["VARIABLE", "TYPE", "KIWISPRAY'S", "MEANING", "EXAMPLE"]);
    for variable in variables {
        table.add_row([
            cell(variable.name, Paint::Good, look),
            cell(variable.kind, Paint::Plain, look),
            optional(variable.original, look),
            cell(variable.meaning, Paint::Plain, look),
            cell(&variable.example.replace('\n', " "), Paint::Faint, look),
        ]);
    }
    let mut text = table.rendered();
    text.push_str(&format!("\n\nThe template writes {language}, and every value is escaped for it."));
    for (helper, meaning) in helpers_of(language) {
        text.push_str(&format!("\n  {helper:14}  {meaning}"));
    }
    text
}

impl Check {
    fn run(self, context: &Context) -> Result {
        let metadata = self.metadata.unwrap_or_default();
        let shelf = self.folders.open()?;
        let checked: Vec<Checked> = match self.what.as_deref() {
            Some(file) if is_file(file) => vec![check_file(&shelf, Path::new(file), &metadata)?],
            Some(name) => {
                let (image_dir, document) = shelf.place(name);
                let trial = shelf.renderer.trial(image_dir.as_deref(), &document, &metadata);
                if let Err(error @ (RenderError::Missing { .. } | RenderError::BadName { .. })) = &trial {
                    return Err(refused(error));
                }
                vec![checked(name.to_owned(), trial)]
            }
            None => all(&shelf, &metadata),
        };
        tell(context, &checked)
    }
}

fn is_file(what: &str) -> bool {
    what.ends_with(".hbs") && Path::new(what).is_file()
}

/// A file anywhere, with the parts beside it and those of the site.
fn check_file(shelf: &Shelf, file: &Path, metadata: &Map<String, Value>) -> Result<Checked> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".hbs"));
    let name = name.ok_or_else(|| CliError::usage(format!("{} is no name for a template", file.display())))?;
    Ok(checked(file.display().to_string(), shelf.renderer.trial(Some(folder), name, metadata)))
}

fn all(shelf: &Shelf, metadata: &Map<String, Value>) -> Vec<Checked> {
    let mut all = Vec::new();
    for row in shelf.rows() {
        let (image_dir, document) = shelf.place(&row.name);
        all.push(checked(row.name, shelf.renderer.trial(image_dir.as_deref(), &document, metadata)));
    }
    // What cannot even be read is in no list.
    for problem in shelf.renderer.check_all() {
        if !all.iter().any(|checked| checked.name == problem.template) {
            all.push(checked(problem.template, Err(problem.error)));
        }
    }
    all
}

fn checked(name: String, trial: std::result::Result<Trial, RenderError>) -> Checked {
    match trial {
        Ok(trial) => Checked { name, problem: None, needs: trial.needs.into_iter().collect() },
        Err(error) => Checked { name, problem: Some(error.to_string()), needs: Vec::new() },
    }
}

fn tell(context: &Context, all: &[Checked]) -> Result {
    let wrong = all.iter().filter(|checked| checked.problem.is_some()).count();
    match context.screen.format {
        Format::Json => context.screen.json(&all)?,
        Format::Text => {
            let look = context.screen.look();
            for Checked { name, problem, needs } in all {
                let name = harmless(name);
                context.screen.line(&match problem {
                    None if needs.is_empty() => format!("{}  {name}", Paint::Good.on("ok  ", look.color)),
                    None => format!(
                        "{}  {name}: every host that gets it needs {}",
                        Paint::Busy.on("ok  ", look.color),
                        harmless(&needs.join(", "))
                    ),
                    Some(problem) => {
                        format!("{}  {name}: {}", Paint::Bad.on("fail", look.color), harmless(problem))
                    }
                })?;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(CliError::failed("1 template cannot be used")),
        many => Err(CliError::failed(format!("{many} templates cannot be used"))),
    }
}
