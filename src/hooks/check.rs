//! Answers that no plugin may give, whatever its grants.
//!
//! The core's own kernel arguments say which disk dies and where the host reports; a plugin that could override them could
//! order. The kernel takes the last of two arguments, so they are refused, not reordered.
use std::collections::BTreeSet;

use super::{
    BootDecision, BootPlan, BootVerdict, DiscoveryDecision, DiscoveryVerdict, Grant, Hook, HookError, KnownHost,
    TransitionDecision, TransitionVerdict,
};

/// Names that belong to the core, as prefixes.
const RESERVED_ARGUMENTS: [&str; 20] = [
    "rd.kiwi.",
    "kiwispray.",
    "razorurl",
    "initrd",
    "init",
    "root",
    "BOOTIF",
    // What starts a program of its own, or an unattended installation, in an image that writes nothing by itself.
    "rdinit",
    "systemd.run",
    "systemd.unit",
    "systemd.wants",
    "inst.",
    "ks=",
    "autoyast",
    "auto=",
    "ignition.",
    "coreos.",
    "cloud-config-url",
    "ds=",
    "preseed",
];
/// Of all arguments of one plugin together: half of what x86 kernels take (2048).
const ARGUMENTS_MAX_BYTES: usize = 1024;

/// More states than any queue has.
const REDIRECT_MAX_STATES: usize = 32;

/// An answer that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// The argument belongs to the core.
    #[error("the kernel argument `{argument}` belongs to the server (`{reserved}…`)")]
    ReservedArgument {
        /// As the plugin gave it.
        argument: String,
        /// The prefix it starts with.
        reserved: &'static str,
    },
    /// Not one argument: empty, with a space, a quote at its start or a control character, or the `--` that ends the kernel's own.
    #[error("`{}` is not one kernel argument", argument.escape_default())]
    NotOneArgument {
        /// As the plugin gave it.
        argument: String,
    },
    /// The kernel would cut them off.
    #[error("the kernel arguments have {bytes} bytes, more than {ARGUMENTS_MAX_BYTES}")]
    TooManyArguments {
        /// All together.
        bytes: usize,
    },
}

/// Checks the kernel arguments that a plugin adds.
///
/// # Errors
/// The first argument that may not be there.
pub fn check_kernel_arguments(arguments: &[String]) -> Result<(), BadAnswer> {
    for argument in arguments {
        // A leading quote is dropped by the kernel, so `"root=…` would be `root=…`.
        let one = !argument.is_empty()
            && argument != "--"
            && !argument.starts_with('"')
            && !argument.contains(|c: char| c.is_whitespace() || c.is_control());
        if !one {
            return Err(BadAnswer::NotOneArgument { argument: argument.clone() });
        }
        if let Some(reserved) = RESERVED_ARGUMENTS.into_iter().find(|name| argument.starts_with(name)) {
            return Err(BadAnswer::ReservedArgument { argument: argument.clone(), reserved });
        }
    }
    let bytes = arguments.iter().map(|argument| argument.len() + 1).sum();
    if bytes > ARGUMENTS_MAX_BYTES {
        return Err(BadAnswer::TooManyArguments { bytes });
    }
    Ok(())
}

/// Checks what a plugin with these grants answers to `boot.decide` about this host, before anything follows from it.
///
/// # Errors
/// The first thing that it may not answer.
pub fn check_boot(decision: &BootDecision, host: &KnownHost, grants: &BTreeSet<Grant>) -> Result<(), HookError> {
    check_verdict(&decision.verdict).map_err(|bad| HookError::BadAnswer(bad.to_string()))?;
    if host.is_finished() && matches!(decision.verdict, BootVerdict::Hold(_)) && !grants.contains(&Grant::HoldFinished)
    {
        return Err(HookError::Denied("letting a finished host wait needs the grant `hold-finished`".to_owned()));
    }
    decision.patch.as_ref().map_or(Ok(()), |patch| patch.check_grants(Hook::Boot, grants))
}

/// The same of an answer to `discovery.discovered`.
///
/// # Errors
/// As for [`check_boot`].
pub fn check_discovery(decision: &DiscoveryDecision, grants: &BTreeSet<Grant>) -> Result<(), HookError> {
    match &decision.verdict {
        DiscoveryVerdict::Admit(patch) => patch.check_grants(Hook::Discovery, grants),
        DiscoveryVerdict::Refuse(_) => Ok(()),
    }
}

/// The same of an answer to `transition.before`.
///
/// # Errors
/// As for [`check_boot`].
pub fn check_transition(decision: &TransitionDecision, grants: &BTreeSet<Grant>) -> Result<(), HookError> {
    match &decision.verdict {
        TransitionVerdict::Redirect(_) if !grants.contains(&Grant::States) => {
            Err(HookError::Denied("redirecting needs the grant `states`".to_owned()))
        }
        TransitionVerdict::Redirect(to) if to.len() > REDIRECT_MAX_STATES => {
            Err(HookError::BadAnswer(format!("redirects to more than {REDIRECT_MAX_STATES} states")))
        }
        TransitionVerdict::Allow | TransitionVerdict::Redirect(_) | TransitionVerdict::Deny(_) => Ok(()),
    }
}

fn check_verdict(verdict: &BootVerdict) -> Result<(), BadAnswer> {
    match verdict {
        BootVerdict::Boot(BootPlan::Image(boot)) => check_kernel_arguments(&boot.append),
        BootVerdict::Boot(BootPlan::Template(_) | BootPlan::LocalDisk) | BootVerdict::Pass | BootVerdict::Hold(_) => {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(argument: &str) -> Result<(), BadAnswer> {
        check_kernel_arguments(&[argument.to_owned()])
    }

    #[test]
    fn arguments_of_the_core_cannot_be_given_by_a_plugin() {
        for argument in
            ["rd.kiwi.oem.installdevice=/dev/sda", "razorurl=http://evil", "initrd=x", "init=/bin/sh", "root=/dev/sda1"]
        {
            assert!(matches!(check(argument), Err(BadAnswer::ReservedArgument { .. })), "{argument}");
        }
    }

    #[test]
    fn ordinary_arguments_pass() {
        for argument in ["quiet", "console=ttyS0,115200n8", "rd.break", "site=fra1", "dyndbg=\"file\""] {
            assert_eq!(check(argument), Ok(()), "{argument}");
        }
    }

    #[test]
    fn nothing_is_smuggled_in_beside_an_argument() {
        for argument in
            ["", "quiet root=/dev/sda", "quiet\trd.kiwi.x=1", "quiet\ninit=/bin/sh", "\"root=/dev/sda", "--"]
        {
            assert!(matches!(check(argument), Err(BadAnswer::NotOneArgument { .. })), "{argument:?}");
        }
    }

    #[test]
    fn a_command_line_is_not_cut_off_by_a_plugin() {
        let many = vec!["a=0123456789".to_owned(); 100];
        assert!(matches!(check_kernel_arguments(&many), Err(BadAnswer::TooManyArguments { bytes: 1300 })));
    }
}
