//! The check of a compiled template before it is ever rendered.
//!
//! The invariant: a template that passes cannot write a value unescaped, or where its escaping does not hold, cannot include
//! itself, and cannot overflow the stack. Branches are followed as what they are, several places at once.

use handlebars::Template;
use handlebars::template::{HelperTemplate, Parameter, TemplateElement};

use super::language::Language;
use super::place::{Misplaced, Place};

/// Deepest nesting of blocks; the parser and the renderer recurse.
const NESTING_MAX: usize = 32;
/// Most places that branches may lead to at once.
const PLACES_MAX: usize = 32;
/// What is said of a block whose end depends on its values.
const OPEN_ENDED: (&str, &str) =
    ("the block leaves open where its text ends", "close quotes and brackets within the block that opens them");

const DECORATOR: (&str, &str) = ("decorators and inline partials are not supported", "use a file _name.….hbs");

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The partial it was found in; none: the template itself.
    pub(crate) partial: Option<String>,
    /// From 1; 0 where it is not known.
    pub(crate) line: usize,
    pub(crate) what: String,
    pub(crate) remedy: &'static str,
}

/// Refuses text whose nesting could overflow the parser's stack; to be called before parsing.
pub(crate) fn check_nesting(text: &str) -> Result<(), Flaw> {
    let mut depth: usize = 0;
    let mut parentheses: usize = 0;
    let mut in_tag = false;
    let bytes = text.as_bytes();
    let mut line = 1;
    for (i, byte) in bytes.iter().enumerate() {
        let pair = |second| bytes.get(i + 1) == Some(&second);
        match byte {
            b'\n' => line += 1,
            b'{' if pair(b'{') => {
                in_tag = true;
                parentheses = 0;
                match bytes.get(i + 2) {
                    Some(b'#') => depth += 1,
                    Some(b'/') => depth = depth.saturating_sub(1),
                    // `{{~#if` counts the same.
                    Some(b'~') if bytes.get(i + 3) == Some(&b'#') => depth += 1,
                    Some(b'~') if bytes.get(i + 3) == Some(&b'/') => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            b'}' if pair(b'}') => in_tag = false,
            b'(' | b'[' | b'{' if in_tag => parentheses += 1,
            _ => {}
        }
        if depth > NESTING_MAX || parentheses > NESTING_MAX {
            return Err(Flaw {
                partial: None,
                line,
                what: format!("blocks or parentheses are nested deeper than {NESTING_MAX}"),
                remedy: "split the template",
            });
        }
    }
    Ok(())
}

/// The partials that a template includes directly, with their lines.
pub(crate) fn partials_of(template: &Template) -> Result<Vec<(String, usize)>, Flaw> {
    let mut names = Vec::new();
    for (element, line) in elements(template) {
        if let TemplateElement::PartialExpression(partial) = element {
            names.push((partial_name(&partial.name, line)?, line));
        }
        if let TemplateElement::HelperBlock(block) = element {
            for inner in [&block.template, &block.inverse].into_iter().flatten() {
                names.extend(partials_of(inner)?);
            }
        }
        // Said here already, as the partials that they define would be looked for in files.
        if let TemplateElement::DecoratorExpression(_) | TemplateElement::DecoratorBlock(_) = element {
            let (what, remedy) = DECORATOR;
            return Err(Flaw { partial: None, line, what: what.to_owned(), remedy });
        }
    }
    Ok(names)
}

/// Checks a template together with all that it includes.
pub(crate) fn check<'t>(
    template: &'t Template,
    language: Language,
    partials: &'t dyn Fn(&str) -> Option<&'t Template>,
) -> Result<(), Flaw> {
    Walk { partials, included: Vec::new(), item: None }.template(template, vec![Place::start(language)]).map(|_| ())
}

struct Walk<'t> {
    partials: &'t dyn Fn(&str) -> Option<&'t Template>,
    /// The partials being read, outermost first.
    included: Vec<String>,
    /// Which item of the innermost `each` is being read.
    item: Option<Item>,
}

#[derive(Clone, Copy)]
struct Item {
    is_first: bool,
    is_last: bool,
}

impl<'t> Walk<'t> {
    fn template(&mut self, template: &'t Template, mut places: Vec<Place>) -> Result<Vec<Place>, Flaw> {
        for (element, line) in elements(template) {
            match element {
                TemplateElement::RawString(text) => {
                    self.each(&mut places, line, |place| place.text(text))?;
                }
                TemplateElement::Expression(_) => self.each(&mut places, line, Place::value)?,
                TemplateElement::HelperBlock(block) => places = self.block(block, places, line)?,
                TemplateElement::PartialExpression(partial) => {
                    let name = partial_name(&partial.name, line)?;
                    places = self.partial(name, places, line)?;
                }
                TemplateElement::Comment(_) => {}
                TemplateElement::HtmlExpression(_) => {
                    return Err(self.flaw(line, "{{{…}}} and {{&…}} would write a value unescaped", "write {{…}}"));
                }
                TemplateElement::DecoratorExpression(_) | TemplateElement::DecoratorBlock(_) => {
                    return Err(self.flaw(line, DECORATOR.0, DECORATOR.1));
                }
                TemplateElement::PartialBlock(_) => {
                    return Err(self.flaw(line, "{{#> …}} is not supported", "use {{> _name}}"));
                }
                // The enum may grow, and what is not understood is not safe.
                _ => return Err(self.flaw(line, "this kind of expression is not supported", "use a simpler one")),
            }
        }
        Ok(places)
    }

    /// A block's body may be written never, once or many times, or its `else` instead.
    fn block(&mut self, block: &'t HelperTemplate, before: Vec<Place>, line: usize) -> Result<Vec<Place>, Flaw> {
        let body_is_taken = self.is_taken(block);
        let mut after = match (&block.inverse, body_is_taken) {
            (_, Some(true)) => Vec::new(),
            (Some(inverse), _) => self.template(inverse, before.clone())?,
            (None, _) => before.clone(),
        };
        if let Some(body) = &block.template
            && body_is_taken != Some(false)
        {
            let ends = match block.name.as_name() {
                Some("each") => self.each_item(body, before, line)?,
                _ => self.template(body, before)?,
            };
            add_new(&mut after, ends);
        }
        if after.len() > PLACES_MAX { Err(self.flaw(line, OPEN_ENDED.0, OPEN_ENDED.1)) } else { Ok(after) }
    }

    /// One item, or a first, any number of others, and a last.
    fn each_item(&mut self, body: &'t Template, before: Vec<Place>, line: usize) -> Result<Vec<Place>, Flaw> {
        let outer = self.item;
        let run = |walk: &mut Walk<'t>, is_first, is_last, places| {
            walk.item = Some(Item { is_first, is_last });
            walk.template(body, places)
        };
        let mut after = run(self, true, true, before.clone())?;
        let mut fresh = run(self, true, false, before)?;
        let mut reached = fresh.clone();
        // Until one more item leads nowhere new.
        while !fresh.is_empty() {
            add_new(&mut after, run(self, false, true, fresh.clone())?);
            let ends = run(self, false, false, fresh)?;
            fresh = add_new(&mut reached, ends);
            if reached.len() > PLACES_MAX {
                return Err(self.flaw(line, OPEN_ENDED.0, OPEN_ENDED.1));
            }
        }
        self.item = outer;
        Ok(after)
    }

    /// Whether the body of `{{#if @last}}` and alike is written for the current item; none: it depends on values.
    fn is_taken(&self, block: &HelperTemplate) -> Option<bool> {
        let item = self.item?;
        let condition = match block.params.first()?.as_name()? {
            "@first" => item.is_first,
            "@last" => item.is_last,
            _ => return None,
        };
        match block.name.as_name()? {
            "if" => Some(condition),
            "unless" => Some(!condition),
            _ => None,
        }
    }

    fn partial(&mut self, name: String, places: Vec<Place>, line: usize) -> Result<Vec<Place>, Flaw> {
        if self.included.contains(&name) || self.included.len() >= NESTING_MAX {
            return Err(self.flaw(line, &format!("the partial {name} includes itself"), "break the circle"));
        }
        let Some(template) = (self.partials)(&name) else {
            return Err(self.flaw(
                line,
                &format!("there is no partial {name}"),
                "put its file into the templates folder",
            ));
        };
        self.included.push(name);
        let places = self.template(template, places)?;
        self.included.pop();
        Ok(places)
    }

    fn each(
        &self,
        places: &mut Vec<Place>,
        line: usize,
        mut step: impl FnMut(&mut Place) -> Result<(), Misplaced>,
    ) -> Result<(), Flaw> {
        for place in places.iter_mut() {
            step(place).map_err(|misplaced| self.flaw(line, misplaced.what, misplaced.remedy))?;
        }
        // Branches that differed often meet again, at the next line at the latest.
        let all = std::mem::take(places);
        add_new(places, all);
        Ok(())
    }

    fn flaw(&self, line: usize, what: &str, remedy: &'static str) -> Flaw {
        Flaw { partial: self.included.last().cloned(), line, what: what.to_owned(), remedy }
    }
}

/// Adds the places that are not there yet, and returns them.
fn add_new(places: &mut Vec<Place>, more: Vec<Place>) -> Vec<Place> {
    let mut added = Vec::new();
    for place in more {
        if !places.contains(&place) {
            places.push(place.clone());
            added.push(place);
        }
    }
    added
}

fn elements(template: &Template) -> impl Iterator<Item = (&TemplateElement, usize)> {
    template.elements.iter().enumerate().map(|(i, element)| (element, template.mapping.get(i).map_or(0, |at| at.0)))
}

fn partial_name(name: &Parameter, line: usize) -> Result<String, Flaw> {
    match name.as_name() {
        Some(name) if name.starts_with('_') => Ok(name.to_owned()),
        _ => Err(Flaw {
            partial: None,
            line,
            what: "a partial's name must be written out and begin with an underscore".to_owned(),
            remedy: "write {{> _name}} for the file _name.….hbs",
        }),
    }
}
