//! The chapters of the manual that are made from what they are about, so that they cannot say anything else: the plugin
//! contract, made here, and the command line, made by a test of the server's (`tests/it/manual/reference.rs`), which has the
//! program at hand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use std::process::Command as Process;

use anyhow::{Context as _, ensure};
use wit_parser::{Docs, Function, Interface, Resolve, Type, TypeDef, TypeDefKind};

const CONTRACT: &str = "sdk/wit/0.1.0/plugin.wit";
const CHAPTER: &str = "docs/src/plugins/contract.md";

/// Make the manual's references of the plugin contract and of the command line.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Command {
    /// Only see whether that of the contract is up to date; the other one has a test of its own.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the checkout")?;
    let chapter = chapter(&fs::read_to_string(root.join(CONTRACT))?)?;
    let path = root.join(CHAPTER);
    if command.check {
        let found = fs::read_to_string(&path).with_context(|| CHAPTER)?;
        ensure!(found == chapter, "{CHAPTER} is not what the contract says: run `cargo xtask reference`");
        return Ok(());
    }
    fs::write(&path, chapter).with_context(|| CHAPTER)?;
    let mut cargo = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "test",
        "--quiet",
        "--package",
        "kiwispray",
        "--test",
        "it",
        "the_manual_has_the_command_line_as_it_is",
    ]);
    let status = cargo.env("WRITE_REFERENCE", "1").status().context("cannot run cargo")?;
    ensure!(status.success(), "the chapter on the command line was not made");
    Ok(())
}

fn chapter(contract: &str) -> anyhow::Result<String> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("plugin.wit", contract)?;
    let package = resolve.packages.get(package).context("the contract is a package")?;
    let mut text = format!(
        "# The contract\n\n\
         <!-- Made by `cargo xtask reference` from {CONTRACT}. -->\n\n\
         Everything that passes between the server and a plugin, as `{}` has it. What a plugin *exports* are its hooks: \
         `about`, and any of `boot`, `discovery`, `render`, `transition`, `events`, `schedule`. What it *imports* is what \
         it may ask: `call` and `log` are free, the rest is granted by the operator.\n",
        package.name
    );
    // What a plugin does comes first; the types are looked up.
    let (types, others): (Vec<_>, Vec<_>) = package.interfaces.iter().partition(|(name, _)| *name == "types");
    for (name, id) in others.into_iter().chain(types) {
        let interface = resolve.interfaces.get(*id).with_context(|| name.clone())?;
        write_interface(&mut text, &resolve, name, interface)?;
    }
    Ok(text)
}

fn write_interface(text: &mut String, resolve: &Resolve, name: &str, interface: &Interface) -> anyhow::Result<()> {
    write!(text, "\n## `{name}`\n")?;
    paragraph(text, &interface.docs)?;
    for function in interface.functions.values() {
        write!(text, "\n### `{}`\n\n```wit\n{}\n```\n", function.name, signature(resolve, function))?;
        paragraph(text, &function.docs)?;
    }
    for (name, id) in &interface.types {
        let Some(definition) = resolve.types.get(*id) else { continue };
        // Names that an interface only borrows stand where they are defined.
        if !matches!(definition.kind, TypeDefKind::Type(Type::Id(_))) {
            write_type(text, resolve, name, definition)?;
        }
    }
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is no table is told in a line")]
fn write_type(text: &mut String, resolve: &Resolve, name: &str, definition: &TypeDef) -> anyhow::Result<()> {
    write!(text, "\n### {} `{name}`\n", definition.kind.as_str())?;
    paragraph(text, &definition.docs)?;
    match &definition.kind {
        TypeDefKind::Record(record) => {
            text.push_str("\n| field | type | |\n| --- | --- | --- |\n");
            for field in &record.fields {
                writeln!(text, "| `{}` | `{}` | {} |", field.name, named(resolve, &field.ty), cell(&field.docs))?;
            }
        }
        TypeDefKind::Variant(variant) => {
            text.push_str("\n| case | holds | |\n| --- | --- | --- |\n");
            for case in &variant.cases {
                let holds = case.ty.as_ref().map(|held| format!("`{}`", named(resolve, held))).unwrap_or_default();
                writeln!(text, "| `{}` | {holds} | {} |", case.name, cell(&case.docs))?;
            }
        }
        TypeDefKind::Enum(cases) => {
            let names: Vec<String> = cases.cases.iter().map(|case| format!("`{}`", case.name)).collect();
            write!(text, "\nOne of {}.\n", names.join(", "))?;
        }
        other => write!(text, "\nA `{}`.\n", kind(resolve, other))?,
    }
    Ok(())
}

fn paragraph(text: &mut String, docs: &Docs) -> std::fmt::Result {
    match &docs.contents {
        Some(words) => write!(text, "\n{}\n", words.trim()),
        None => Ok(()),
    }
}

/// Docs as a cell of a table: on one line, and no bar ends it early.
fn cell(docs: &Docs) -> String {
    let words = docs.contents.as_deref().unwrap_or_default();
    words.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let parameter = |parameter: &wit_parser::Param| format!("{}: {}", parameter.name, named(resolve, &parameter.ty));
    let parameters: Vec<String> = function.params.iter().map(parameter).collect();
    let result = function.result.as_ref().map(|result| format!(" -> {}", named(resolve, result))).unwrap_or_default();
    format!("{}: func({}){result}", function.name, parameters.join(", "))
}

/// A type as the contract writes it.
fn named(resolve: &Resolve, of: &Type) -> String {
    let word = match of {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(id) => {
            let definition = resolve.types.get(*id);
            return match definition {
                Some(TypeDef { name: Some(name), .. }) => name.clone(),
                Some(definition) => kind(resolve, &definition.kind),
                None => String::new(),
            };
        }
    };
    word.to_owned()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a kind that the contract does not have yet shows by its name")]
fn kind(resolve: &Resolve, kind: &TypeDefKind) -> String {
    let or_nothing = |held: &Option<Type>| held.as_ref().map_or_else(|| "_".to_owned(), |held| named(resolve, held));
    match kind {
        TypeDefKind::Option(held) => format!("option<{}>", named(resolve, held)),
        TypeDefKind::List(held) => format!("list<{}>", named(resolve, held)),
        TypeDefKind::Result(result) => match (&result.ok, &result.err) {
            (Some(ok), None) => format!("result<{}>", named(resolve, ok)),
            (ok, err) => format!("result<{}, {}>", or_nothing(ok), or_nothing(err)),
        },
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<String> = tuple.types.iter().map(|held| named(resolve, held)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        TypeDefKind::Type(other) => named(resolve, other),
        // The contract has no others; a new one shows by its name.
        other => other.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_the_contract_as_it_is() {
        run(Command { check: true }).unwrap();
    }

    #[test]
    fn types_read_as_the_contract_writes_them() {
        let contract = "package a:b@1.0.0; interface i { record r { x: list<tuple<string, u32>>, } \
                        f: func(r: option<r>) -> result<_, string>; }";
        let chapter = chapter(contract).unwrap();
        assert!(chapter.contains("| `x` | `list<tuple<string, u32>>` |"), "{chapter}");
        assert!(chapter.contains("f: func(r: option<r>) -> result<_, string>"), "{chapter}");
    }
}
