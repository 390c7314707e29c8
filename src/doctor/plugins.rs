//! Plugins: each that is bound loads with its grants and configuration.

use super::Finding;
use crate::roster::{Looked, Outcome};

const CHECK: &str = "plugins";

pub(super) fn judge(plugins: &[Looked]) -> Vec<Finding> {
    let finding = |Looked { name, outcome }: &Looked| match outcome {
        Outcome::Works(version) => Finding::ok(CHECK, name, format!("works (version {version})")),
        Outcome::Disabled => Finding::warn(
            CHECK,
            name,
            "is switched off",
            format!("`kiwispray plugin enable {name}`, or remove its binding"),
        ),
        Outcome::Broken(why) => Finding::fail(
            CHECK,
            name,
            why,
            "correct its [[plugin]] or its component; hosts that it decides about hold until then",
        ),
    };
    plugins.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_plugin_that_does_not_load_fails() {
        let looked = |outcome| Looked { name: "cmdb".to_owned(), outcome };
        let verdict = |outcome| judge(&[looked(outcome)])[0].verdict;
        assert_eq!(verdict(Outcome::Works("1.0".to_owned())), Verdict::Ok);
        assert_eq!(verdict(Outcome::Disabled), Verdict::Warn);
        assert_eq!(verdict(Outcome::Broken("needs `http`, which it was not granted".to_owned())), Verdict::Fail);
    }
}
