//! Why a command did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::io;

use crate::wire::Problem;

/// The exit codes of interface.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 1: it went wrong.
    Failed,
    /// 2: it cannot be asked like this.
    Usage,
    /// 3: there is no such thing.
    NotFound,
    /// 4: it contradicts what is there.
    Conflict,
    /// 5: there is no server to ask.
    Unreachable,
    /// 0: the reader of the output has gone, which is no fault.
    ReaderGone,
}

/// One sentence for people, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

/// What commands return.
pub(crate) type Result<T = ()> = std::result::Result<T, CliError>;

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unreachable => 5,
        }
    }
}

impl CliError {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, text: text.into() }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into() }
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self { exit: Exit::NotFound, text: text.into() }
    }

    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, text: text.into() }
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status {
            400 | 413 | 414 | 415 | 422 => Exit::Usage,
            404 => Exit::NotFound,
            409 | 412 | 428 => Exit::Conflict,
            _ => Exit::Failed,
        };
        Self { exit, text: problem.detail }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::ReaderGone } else { Exit::Failed };
        Self { exit, text: format!("the output cannot be written: {error}") }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_kind_of_problem() {
        let exit = |status| {
            let (title, detail, code) = (String::new(), String::new(), String::new());
            CliError::from(Problem { title, status, detail, code }).exit.code()
        };
        assert_eq!([400, 404, 409, 412, 500, 503].map(exit), [2, 3, 4, 4, 1, 1]);
    }

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        assert_eq!(CliError::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit.code(), 0);
        assert_eq!(CliError::from(io::Error::from(io::ErrorKind::StorageFull)).exit.code(), 1);
    }
}
