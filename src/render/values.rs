//! Values become text in one place, and only those that have a text.
//!
//! The invariant: what stands in `{{…}}` is written by a helper of ours, never by handlebars itself, which would make `[object]`
//! of an object and `[a, b]` of a list without a word.

use std::collections::{BTreeSet, HashMap};

use handlebars::template::{Parameter, Subexpression, TemplateElement};
use handlebars::{JsonRender as _, Template};
use serde_json::Value;

/// The helper that writes `{{X}}`. No template can call it by its name.
pub(crate) const WRITER: &str = "{{X}}";

/// Helpers that write by themselves what they were given.
const WRITING: [&str; 6] = ["arg", "cmdline", "identify", "json", "sh", "url"];

/// Has every `{{X}}` and `{{lookup X Y}}` of a template written by [`WRITER`].
pub(crate) fn hand_over(template: &mut Template) {
    for element in &mut template.elements {
        if let TemplateElement::HelperBlock(block) = element {
            for inner in [&mut block.template, &mut block.inverse].into_iter().flatten() {
                hand_over(inner);
            }
        }
        let TemplateElement::Expression(expression) = element else { continue };
        if expression.name.as_name().is_some_and(|name| WRITING.contains(&name)) {
            continue;
        }
        let name = std::mem::replace(&mut expression.name, Parameter::Name(WRITER.to_owned()));
        let (params, hash) = (std::mem::take(&mut expression.params), std::mem::take(&mut expression.hash));
        expression.params = vec![value_of(name, params, hash)];
    }
}

/// A variable, or what a helper makes of its parameters.
fn value_of(name: Parameter, params: Vec<Parameter>, hash: HashMap<String, Parameter>) -> Parameter {
    if !params.is_empty() || !hash.is_empty() {
        return Parameter::Subexpression(Subexpression::new(name, params, hash));
    }
    // Written as a name, and meant as a path.
    if let Parameter::Name(text) = &name
        && let Ok(path) = Parameter::parse(text)
    {
        return path;
    }
    name
}

/// Whether a template goes into one of these values, so that what it names there is theirs.
pub(crate) fn goes_into(template: &Template, paths: &BTreeSet<String>) -> bool {
    template.elements.iter().any(|element| {
        let TemplateElement::HelperBlock(block) = element else { return false };
        let enters = matches!(block.name.as_name(), Some("with" | "each"));
        let path = block.params.first().and_then(Parameter::as_name);
        (enters && path.is_some_and(|path| paths.contains(path)))
            || [&block.template, &block.inverse].into_iter().flatten().any(|inner| goes_into(inner, paths))
    })
}

/// The text of a value, or how else to write it.
pub(crate) fn text_of(value: &Value, written: &str, has_json: bool) -> Result<String, String> {
    let json = |what: &str| if has_json { format!(", or {{{{json {written}}}}} for {what}") } else { String::new() };
    match value {
        Value::Array(_) => Err(format!("is a list: write {{{{#each {written}}}}}…{{{{/each}}}}{}", json("all of it"))),
        Value::Object(_) => Err(format!("is an object: name one of its values{}", json("all of it"))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(value.render()),
    }
}

/// The names of a path as it is written; one in brackets may have dots in it.
pub(crate) fn names_of(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut in_brackets = false;
    for c in path.chars() {
        match c {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '.' | '/' if !in_brackets => names.push(String::new()),
            c => names.iter_mut().last().into_iter().for_each(|name| name.push(c)),
        }
    }
    names
}
