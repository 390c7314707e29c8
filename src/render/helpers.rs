//! The helpers that templates may call, per language. Each writes one value in a form that is safe in that language, or
//! refuses: a device name or URL with a `?` in place of a character would be worse than none.

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError, RenderErrorReason,
};
use serde_json::Value;

use super::cmdline::{KernelArg, SafeLine};
use super::escape;
use super::language::Language;
use super::url::is_plain_url;
use super::values::{WRITER, text_of};

/// The parameters by which a machine says who it is: the one place that lists them. iPXE fills them in; what it does not
/// know stays empty. Free text comes last: the `:uristring` of the 2019 iPXE leaves `&` and `+` as they are, so a serial
/// number with `&` in it adds parameters, and these must not stand before the true ones.
pub const IDENTIFY: &str = "net0=${net0/mac:hexhyp}&net1=${net1/mac:hexhyp}&net2=${net2/mac:hexhyp}&net3=${net3/mac:hexhyp}\
    &net4=${net4/mac:hexhyp}&net5=${net5/mac:hexhyp}&net6=${net6/mac:hexhyp}&net7=${net7/mac:hexhyp}\
    &dhcp_mac=${mac:hexhyp}&uuid=${uuid}&buildarch=${buildarch}&platform=${platform}\
    &serial=${serial:uristring}&asset=${asset:uristring}&manufacturer=${manufacturer:uristring}\
    &product=${product:uristring}&hostname=${hostname:uristring}";

/// A registry of one language: strict, with its escaper and helpers, without templates.
pub(crate) fn registry(language: Language) -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    // Indenting an included template would indent the lines of values as well.
    registry.set_prevent_indent(true);
    registry.register_escape_fn(move |value| language.escape(value));
    // It would write values into the server's log, unescaped.
    registry.unregister_helper("log");
    let mut checked = |name: &str, write: Write| registry.register_helper(name, Box::new(Checked { language, write }));
    checked(WRITER, Write::Text);
    match language {
        Language::Ipxe | Language::KernelArgs => {
            checked("url", Write::Url);
            checked("arg", Write::Arg);
        }
        Language::Shell => {
            checked("sh", Write::Text);
            checked("json", Write::Json);
        }
        Language::Yaml | Language::Json | Language::Text => checked("json", Write::Json),
    }
    if language == Language::Ipxe {
        registry.register_helper("cmdline", Box::new(cmdline));
        registry.register_helper("identify", Box::new(identify));
    }
    registry
}

/// Readers of YAML look no further than 1024 characters for the colon behind a key.
const YAML_KEY_CHARS_MAX: usize = 1000;

fn has_long_key(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            map.iter().any(|(key, value)| escape::json(key).chars().count() > YAML_KEY_CHARS_MAX || has_long_key(value))
        }
        Value::Array(items) => items.iter().any(has_long_key),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// In which form a helper writes its parameter.
#[derive(Clone, Copy)]
enum Write {
    /// As the language writes text.
    Text,
    Url,
    Arg,
    /// As JSON, which in YAML and JSON is a value, elsewhere a text.
    Json,
}

/// A helper of one parameter that writes it in a safe form or says why it cannot.
struct Checked {
    language: Language,
    write: Write,
}

impl Checked {
    fn text(&self, value: &Value, written: &str) -> Result<String, String> {
        let has_json = !matches!(self.language, Language::Ipxe | Language::KernelArgs);
        match (self.write, self.language) {
            (Write::Json, Language::Yaml) if has_long_key(value) => {
                Err(format!("has a key of more than {YAML_KEY_CHARS_MAX} characters, which readers of YAML refuse"))
            }
            (Write::Json, Language::Yaml | Language::Json) => Ok(escape::json_value(value)),
            (Write::Json, language) => Ok(language.escape(&escape::json_value(value))),
            (Write::Text, language) => Ok(language.escape(&text_of(value, written, has_json)?)),
            (Write::Url, _) => url(text_of(value, written, has_json)?),
            (Write::Arg, _) => arg(&text_of(value, written, has_json)?),
        }
    }
}

impl HelperDef for Checked {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let name = helper.name();
        let param =
            helper.param(0).ok_or_else(|| other(format!("the helper {name} needs a variable: {{{{{name} X}}}}")))?;
        if param.is_value_missing() {
            return Err(RenderError::strict_error(param.relative_path()));
        }
        let text = self
            .text(param.value(), param.relative_path().map_or("X", String::as_str))
            .map_err(|why| other(format!("{} {why}", param.relative_path().map_or("the value", String::as_str))))?;
        Ok(out.write(&text)?)
    }
}

fn url(text: String) -> Result<String, String> {
    if is_plain_url(&text) { Ok(text) } else { Err("is no plain http or https URL".to_owned()) }
}

fn arg(text: &str) -> Result<String, String> {
    text.parse::<KernelArg>().map(|arg| arg.as_str().to_owned()).map_err(|refusal| format!("was refused: {refusal}"))
}

/// The boot's finished command line, checked once more, as any JSON document may be rendered.
fn cmdline(
    _: &Helper<'_>,
    _: &Handlebars<'_>,
    context: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    match context.data().pointer("/boot/cmdline").and_then(Value::as_str) {
        Some(line) if SafeLine::is_safe(line) => Ok(out.write(line)?),
        Some(_) => Err(other("boot.cmdline is no safe kernel command line".to_owned())),
        None => Err(other("{{cmdline}} works only in templates that boot an image".to_owned())),
    }
}

fn identify(
    _: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    Ok(out.write(IDENTIFY)?)
}

fn other(why: String) -> RenderError {
    RenderErrorReason::Other(why).into()
}
