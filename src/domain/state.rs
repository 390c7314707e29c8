//! State names and the queue of states that a host works through.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a state: `new`, `finished`, or an image (or template) to boot.
///
/// `[A-Za-z0-9._-]`, at most 64 characters, beginning with a letter or digit: the name becomes a folder's name and part
/// of URLs that pass unquoted through KIWI's installer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StateName(String);

/// The queue of a host, written `wipe,image1`: the first is current, and it is never empty.
///
/// `new` and `finished` stand only last; after the last state comes `finished`, which is therefore not written behind
/// others.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct States(Vec<StateName>);

/// Why a text is no state or no queue of states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatesError {
    /// No state at all.
    #[error("a state is missing: give a name, or several as `wipe,image1`")]
    Empty,
    /// A character or length that a name cannot have.
    #[error("{0:?} is no state name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, 64 at most")]
    Name(String),
    /// `new` or `finished` before the end of the queue.
    #[error("`{0}` can stand only at the end of the queue")]
    BuiltInNotLast(StateName),
    /// More than [`States::MOST`].
    #[error("{0} states are too many: {most} at most", most = States::MOST)]
    TooMany(usize),
}

impl StateName {
    const LONGEST: usize = 64;

    /// `new`: a machine nobody has ordered anything for.
    pub fn new_host() -> Self {
        Self("new".to_owned())
    }

    /// `finished`: the machine boots its own disk.
    pub fn finished() -> Self {
        Self("finished".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `new`.
    pub fn is_new(&self) -> bool {
        self.0 == "new"
    }

    /// Whether this is `finished`.
    pub fn is_finished(&self) -> bool {
        self.0 == "finished"
    }

    /// Whether this is `new` or `finished`, which name no image.
    pub fn is_built_in(&self) -> bool {
        self.is_new() || self.is_finished()
    }
}

impl FromStr for StateName {
    type Err = StatesError;

    fn from_str(text: &str) -> Result<Self, StatesError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let begins_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if begins_well && text.len() <= Self::LONGEST && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(StatesError::Name(text.chars().take(80).collect()))
        }
    }
}

impl States {
    /// The longest queue: more is a mistake in a script rather than a plan.
    pub const MOST: usize = 32;

    /// The queue of a machine nobody has ordered anything for.
    pub fn new_host() -> Self {
        Self(vec![StateName::new_host()])
    }

    /// The queue of a machine that boots its own disk.
    pub fn finished() -> Self {
        Self(vec![StateName::finished()])
    }

    /// A queue of these states; nothing means finished.
    pub fn from_names(mut names: Vec<StateName>) -> Result<Self, StatesError> {
        if names.len() > Self::MOST {
            return Err(StatesError::TooMany(names.len()));
        }
        if names.len() > 1 && names.last().is_some_and(StateName::is_finished) {
            names.pop();
        }
        if let Some((_, before_last)) = names.split_last()
            && let Some(name) = before_last.iter().find(|name| name.is_built_in())
        {
            return Err(StatesError::BuiltInNotLast(name.clone()));
        }
        if names.is_empty() {
            return Ok(Self::finished());
        }
        Ok(Self(names))
    }

    /// The state whose turn it is.
    #[expect(clippy::expect_used, reason = "every constructor makes a queue of at least one state")]
    pub fn current(&self) -> &StateName {
        self.0.first().expect("a queue is never empty")
    }

    /// The queue once the current state is done. After the last state, and after `finished`, that is `finished`.
    pub fn after_current(&self) -> Self {
        match self.0.split_first() {
            Some((_, rest)) if !rest.is_empty() => Self(rest.to_vec()),
            Some(_) | None => Self::finished(),
        }
    }

    /// Whether the machine boots its own disk.
    pub fn is_finished(&self) -> bool {
        self.current().is_finished()
    }

    /// Whether nobody has ordered anything yet.
    pub fn is_new(&self) -> bool {
        self.current().is_new()
    }

    /// The states, current first.
    pub fn iter(&self) -> impl Iterator<Item = &StateName> {
        self.0.iter()
    }
}

impl FromStr for States {
    type Err = StatesError;

    fn from_str(text: &str) -> Result<Self, StatesError> {
        if text.trim().is_empty() {
            return Err(StatesError::Empty);
        }
        Self::from_names(text.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            f.write_str(name.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for StateName {
    type Error = StatesError;

    fn try_from(text: String) -> Result<Self, StatesError> {
        text.parse()
    }
}

impl From<StateName> for String {
    fn from(name: StateName) -> Self {
        name.0
    }
}

impl TryFrom<String> for States {
    type Error = StatesError;

    fn try_from(text: String) -> Result<Self, StatesError> {
        text.parse()
    }
}

impl From<States> for String {
    fn from(states: States) -> Self {
        states.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_advances_to_finished_and_stays_there() {
        let states: States = "wipe,image1".parse().unwrap();
        assert_eq!(states.current().as_str(), "wipe");
        let states = states.after_current();
        assert_eq!(states.to_string(), "image1");
        let states = states.after_current();
        assert_eq!(states, States::finished());
        assert_eq!(states.after_current(), States::finished());
    }

    #[test]
    fn built_in_states_stand_only_last() {
        assert!("discover,new".parse::<States>().is_ok());
        assert_eq!("image1,finished".parse::<States>().unwrap().to_string(), "image1");
        assert!(matches!("new,image1".parse::<States>(), Err(StatesError::BuiltInNotLast(_))));
        assert!(matches!("finished,image1".parse::<States>(), Err(StatesError::BuiltInNotLast(_))));
    }

    #[test]
    fn names_that_could_leave_their_folder_or_url_are_refused() {
        for name in ["", "..", ".hidden", "-s", "a/b", "a b", "a;b", "a\n", "ä", &"x".repeat(65)] {
            assert!(name.parse::<StateName>().is_err(), "{name:?}");
        }
        assert!("SLES-15.6_x86".parse::<StateName>().is_ok());
    }
}
