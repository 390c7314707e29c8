//! A command that ran to its end.

use std::process::Command;

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It did what it was asked.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It ended with this code and said this on standard error, and nothing on standard output.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, sentence: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(sentence), "{sentence:?} is not in {self:?}");
        assert_eq!(self.out, "", "a refusal is no result");
        self
    }
}
