//! The names of plugins, and of the wishes behind their orders.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a plugin calls the wish behind an order, a CMDB's change number say: 1 to [`OrderName::LONGEST`] characters, not
/// only blanks, without control characters. For one host it is carried out once and never again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderName(String);

/// The text names no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an order's name has 1 to {} characters, without control characters", OrderName::LONGEST)]
pub struct OrderNameError;

impl OrderName {
    /// Characters.
    pub const LONGEST: usize = 200;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OrderName {
    type Err = OrderNameError;

    fn from_str(text: &str) -> Result<Self, OrderNameError> {
        let is_name =
            !text.trim().is_empty() && text.chars().nth(Self::LONGEST).is_none() && !text.chars().any(char::is_control);
        if is_name { Ok(Self(text.to_owned())) } else { Err(OrderNameError) }
    }
}

/// The instance name of a plugin: `[a-z0-9-]`, at most [`PluginName::LONGEST`] characters. It becomes part of keys, files and
/// URLs, so it can hold nothing that ends a part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PluginName(String);

/// The text names no plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginNameError {
    /// It is not written like one.
    #[error("{0:?} is no name of a plugin: 1 to {most} lower case letters, digits and hyphens are expected", most = PluginName::LONGEST)]
    Malformed(String),
    /// It stands for something else where plugins are named.
    #[error("no plugin can be called {0:?}: the admin plane means all plugins by it")]
    Reserved(&'static str),
}

/// `/plugins/reload` is a path of its own.
const RELOAD: &str = "reload";

impl PluginName {
    /// Characters.
    pub const LONGEST: usize = 40;
    /// Of the plugin that is asked last.
    pub const DEFAULT: &str = "default";

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the default plugin is meant.
    pub fn is_default(&self) -> bool {
        self.0 == Self::DEFAULT
    }
}

impl FromStr for PluginName {
    type Err = PluginNameError;

    fn from_str(text: &str) -> Result<Self, PluginNameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text == RELOAD {
            return Err(PluginNameError::Reserved(RELOAD));
        }
        if (1..=Self::LONGEST).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PluginNameError::Malformed(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for OrderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for OrderName {
    type Error = OrderNameError;

    fn try_from(text: String) -> Result<Self, OrderNameError> {
        text.parse()
    }
}

impl From<OrderName> for String {
    fn from(name: OrderName) -> Self {
        name.0
    }
}

impl TryFrom<String> for PluginName {
    type Error = PluginNameError;

    fn try_from(text: String) -> Result<Self, PluginNameError> {
        text.parse()
    }
}

impl From<PluginName> for String {
    fn from(name: PluginName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_empty_long_or_steer_a_terminal_are_refused() {
        for text in ["", "  ", "a\nb", "\u{1b}[2J", &"ä".repeat(201)] {
            assert_eq!(text.parse::<OrderName>(), Err(OrderNameError), "{text:?}");
        }
        assert!("ä".repeat(200).parse::<OrderName>().is_ok());
        assert!("CHG-0001 web".parse::<OrderName>().is_ok());
    }

    #[test]
    fn a_plugin_cannot_be_called_like_a_part_of_a_key() {
        for text in ["", "a/b", "a b", "A", "a.b", "ä", &"a".repeat(41), "reload"] {
            assert!(text.parse::<PluginName>().is_err(), "{text:?}");
        }
        assert!("image-select".parse::<PluginName>().is_ok());
    }
}
