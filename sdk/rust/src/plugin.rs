//! The trait every plugin implements, and the macro that exports the hooks it names.
use core::marker::PhantomData;

use crate::bindings;
use crate::panics;
use crate::{
    BootDecision, BootRequest, ConfigProblem, Description, DiscoveryDecision, Error, Event, NextRun, RenderRequest,
    TransitionDecision, TransitionRequest,
};

/// A plugin. Only [`Plugin::describe`] has to be written, and the hooks that the macro [`plugin!`](crate::plugin!) names;
/// a hook that is exported but not written answers `fatal`, so that the mistake shows at its first use.
///
/// There is no `self`: the core makes a fresh instance for every call, so nothing could be kept in one.
pub trait Plugin {
    /// What the plugin is. Called when it is loaded, when nothing can be asked of the core.
    fn describe() -> Description;

    /// Everything wrong with a configuration (a JSON document), before it is used; empty is fine. Nothing can be asked of
    /// the core here either.
    fn check_config(config: &str) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
    }

    /// Hook `boot`: what a host boots now.
    ///
    /// # Errors
    /// `invalid` and `retry` are answers, `failed` and `fatal` are faults; all make the core follow the binding's `on_error`.
    fn boot(request: BootRequest) -> Result<BootDecision, Error> {
        let _ = request;
        Err(not_written("boot"))
    }

    /// Hook `discovery`: a machine nobody knew has asked to boot; its id is 0.
    ///
    /// # Errors
    /// As for [`Plugin::boot`]; the machine is then stored with the built-in defaults.
    fn discovered(request: BootRequest) -> Result<DiscoveryDecision, Error> {
        let _ = request;
        Err(not_written("discovery"))
    }

    /// Hook `render`: variables for a document, as a JSON object.
    ///
    /// # Errors
    /// As for [`Plugin::boot`].
    fn variables(request: RenderRequest) -> Result<String, Error> {
        let _ = request;
        Err(not_written("render"))
    }

    /// Hook `transition`: asked before a state change is committed.
    ///
    /// # Errors
    /// As for [`Plugin::boot`]; the change is then refused.
    fn before(request: TransitionRequest) -> Result<TransitionDecision, Error> {
        let _ = request;
        Err(not_written("transition"))
    }

    /// One event of the hook `events`.
    ///
    /// # Errors
    /// As for [`Plugin::boot`]; the event is delivered again.
    fn event(event: Event) -> Result<(), Error> {
        let _ = event;
        Err(not_written("events"))
    }

    /// Hook `events`: a batch, in order per host. Returns how many, from the front, are done.
    ///
    /// # Errors
    /// The error of the first event; of a later one, only the count before it is told.
    fn events(events: Vec<Event>) -> Result<u32, Error> {
        let mut done = 0;
        for event in events {
            match Self::event(event) {
                Ok(()) => done += 1,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Hook `schedule`: runs a job that [`Plugin::describe`] named.
    ///
    /// # Errors
    /// As for [`Plugin::boot`]; reported, and run again at the next period.
    fn run(job: &str) -> Result<NextRun, Error> {
        let _ = job;
        Err(not_written("schedule"))
    }
}

fn not_written(hook: &str) -> Error {
    Error::Fatal(format!("the hook `{hook}` is exported but not written"))
}

/// Exports hooks of a [`Plugin`]: `plugin!(Racks: boot, discovery);`. `about` is always exported.
#[macro_export]
macro_rules! plugin {
    ($plugin:ident $(: $($hook:ident),* $(,)?)?) => {
        // Natively there is nothing to export to, and the names of a component's exports do not link.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn is_a_plugin<P: $crate::Plugin>() {}
            is_a_plugin::<$plugin>();
            $($($crate::__export_hook!(named $hook);)*)?
        };
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, clippy::all, reason = "generated exports")]
        const _: () = {
            type Exported = $crate::plugin::Exported<$plugin>;
            $crate::__export_hook!(about, Exported);
            $($($crate::__export_hook!($hook, Exported);)*)?
        };
    };
}

/// One exported hook of [`plugin!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    (named boot) => {};
    (named discovery) => {};
    (named render) => {};
    (named transition) => {};
    (named events) => {};
    (named schedule) => {};
    (about, $t:ident) => { $crate::bindings::export_about!($t with_types_in $crate::bindings::about); };
    (boot, $t:ident) => { $crate::bindings::export_boot!($t with_types_in $crate::bindings::boot); };
    (discovery, $t:ident) => { $crate::bindings::export_discovery!($t with_types_in $crate::bindings::discovery); };
    (render, $t:ident) => { $crate::bindings::export_render!($t with_types_in $crate::bindings::render); };
    (transition, $t:ident) => { $crate::bindings::export_transition!($t with_types_in $crate::bindings::transition); };
    (events, $t:ident) => { $crate::bindings::export_events!($t with_types_in $crate::bindings::events); };
    (schedule, $t:ident) => { $crate::bindings::export_schedule!($t with_types_in $crate::bindings::schedule); };
}

/// Carries a [`Plugin`] into the generated `Guest` traits. Every entry first makes panics speak.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Plugin> bindings::about::exports::kiwispray::plugin::about::Guest for Exported<P> {
    fn describe() -> Description {
        panics::log_them();
        P::describe()
    }

    fn check_config(config: String) -> Vec<ConfigProblem> {
        panics::log_them();
        P::check_config(&config)
    }
}

impl<P: Plugin> bindings::boot::exports::kiwispray::plugin::boot::Guest for Exported<P> {
    fn decide(request: BootRequest) -> Result<BootDecision, Error> {
        panics::log_them();
        P::boot(request)
    }
}

impl<P: Plugin> bindings::discovery::exports::kiwispray::plugin::discovery::Guest for Exported<P> {
    fn discovered(request: BootRequest) -> Result<DiscoveryDecision, Error> {
        panics::log_them();
        P::discovered(request)
    }
}

impl<P: Plugin> bindings::render::exports::kiwispray::plugin::render::Guest for Exported<P> {
    fn variables(request: RenderRequest) -> Result<String, Error> {
        panics::log_them();
        P::variables(request)
    }
}

impl<P: Plugin> bindings::transition::exports::kiwispray::plugin::transition::Guest for Exported<P> {
    fn before(request: TransitionRequest) -> Result<TransitionDecision, Error> {
        panics::log_them();
        P::before(request)
    }
}

impl<P: Plugin> bindings::events::exports::kiwispray::plugin::events::Guest for Exported<P> {
    fn handle(events: Vec<Event>) -> Result<u32, Error> {
        panics::log_them();
        P::events(events)
    }
}

impl<P: Plugin> bindings::schedule::exports::kiwispray::plugin::schedule::Guest for Exported<P> {
    fn run(job: String) -> Result<NextRun, Error> {
        panics::log_them();
        P::run(&job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    struct Bare;
    impl Plugin for Bare {
        fn describe() -> Description {
            Description::new("bare", "1", "writes no hook")
        }
    }

    struct Third;
    impl Plugin for Third {
        fn describe() -> Description {
            Description::new("third", "1", "fails at the third event")
        }
        fn event(event: Event) -> Result<(), Error> {
            if event.host_seq == 3 { Err(Error::Failed("third".into())) } else { Ok(()) }
        }
    }

    fn events(from: u64) -> Vec<Event> {
        (from..from + 4)
            .map(|host_seq| Event {
                id: host_seq.to_string(),
                host_seq,
                at_ms: 0,
                kind: "booted".into(),
                host: None,
                detail: "{}".into(),
            })
            .collect()
    }

    #[test]
    fn a_hook_that_is_not_written_answers_fatal_with_its_name() {
        let error = Bare::boot(testing::request(testing::host("web"))).unwrap_err();
        assert!(matches!(error, Error::Fatal(text) if text.contains("`boot`")));
    }

    #[test]
    fn a_batch_stops_at_the_first_failure_and_tells_how_many_are_done() {
        assert_eq!(Third::events(events(1)), Ok(2));
        assert_eq!(Third::events(events(3)), Err(Error::Failed("third".into())));
        assert_eq!(Third::events(events(4)), Ok(4));
    }
}
