//! What a check found.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, or may; somebody should look.
    Warn,
    /// Machines will not boot, or the server will not start.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: `ports`.
    pub check: &'static str,
    /// What was looked at: `UDP 67`.
    pub subject: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found, as the rest of a sentence about the subject.
    pub said: String,
    /// What to do about it; always there unless all is well.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, subject: impl Into<String>, said: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), verdict: Verdict::Ok, said: said.into(), remedy: None }
    }

    pub(super) fn warn(
        check: &'static str,
        subject: impl Into<String>,
        said: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { check, subject: subject.into(), verdict: Verdict::Warn, said: said.into(), remedy }
    }

    pub(super) fn fail(
        check: &'static str,
        subject: impl Into<String>,
        said: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(check, subject, said, remedy) }
    }
}

/// The worst verdict of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}
