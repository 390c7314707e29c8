//! The default plugin: the standard PXE deploy.
//!
//! A host boots the image that its state names, else the template of that name; `new` shows the waiting script. It is the
//! last in every chain, so it never passes: it boots something or says on the console why it cannot.
use kiwispray_sdk::{
    BootDecision, BootRequest, ConfigProblem, Description, DiscoveryDecision, Error, Patch, Plugin, admit, ask, hold,
    image, template,
};
use serde::Deserialize;

/// The state of a machine that nobody has given anything to do; also the name of its template.
const NEW: &str = "new";
/// The state, and image, that takes inventory.
const DISCOVER: &str = "discover";

/// What a binding can set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Whether machines that nobody knew boot the image `discover` first.
    #[serde(default)]
    discover: bool,
}

struct Standard;

impl Plugin for Standard {
    fn describe() -> Description {
        let mut about = Description::new(
            "default",
            env!("CARGO_PKG_VERSION"),
            "Boots the image or template that a host's state names",
        );
        about.config_schema = CONFIG_SCHEMA.to_owned();
        about
    }

    fn check_config(config: &str) -> Vec<ConfigProblem> {
        match ask::parse_config::<Config>(config) {
            Ok(_) => Vec::new(),
            Err(error) => vec![ConfigProblem { at: String::new(), message: error.to_string() }],
        }
    }

    fn boot(request: BootRequest) -> Result<BootDecision, Error> {
        let state = request.host.state();
        if state == NEW {
            return Ok(template(NEW).because("nobody has given it a state yet"));
        }
        if ask::has_image(state)? {
            return Ok(image(state).because("its state names this image"));
        }
        if ask::has_template(state)? {
            return Ok(template(state).because("its state names this template"));
        }
        Ok(hold(format!("The state {state} names no image and no template of this server."))
            .because("nothing of this name"))
    }

    fn discovered(request: BootRequest) -> Result<DiscoveryDecision, Error> {
        // A plugin asked before this one may have given it states; those stand.
        if request.host.states.iter().any(|state| state != NEW) {
            return Ok(admit(Patch::default()).because("it has states already"));
        }
        if ask::config::<Config>()?.discover {
            return Ok(admit(Patch::default().states([DISCOVER, NEW])).because("takes inventory first"));
        }
        Ok(admit(Patch::default().states([NEW])).because("waits for a state"))
    }
}

const CONFIG_SCHEMA: &str = r#"{"type":"object","properties":{"discover":{"type":"boolean","default":false,"description":"boot the image `discover` on machines that nobody knew"}},"additionalProperties":false}"#;

kiwispray_sdk::plugin!(Standard: boot, discovery);

#[cfg(test)]
mod tests {
    use kiwispray_sdk::testing::{Core, host, request};
    use kiwispray_sdk::{BootPlan, BootVerdict, DiscoveryVerdict};

    use super::*;

    fn decide(core: &Core, state: &str) -> Result<BootDecision, Error> {
        core.run(|| Standard::boot(request(host(state))))
    }

    fn first_states(core: &Core, states: &[&str]) -> Option<Vec<String>> {
        let mut machine = host(NEW);
        machine.states = states.iter().map(|state| (*state).to_owned()).collect();
        match core.run(|| Standard::discovered(request(machine))).unwrap().verdict {
            DiscoveryVerdict::Admit(patch) => patch.states,
            DiscoveryVerdict::Refuse(text) => panic!("refused: {text}"),
        }
    }

    #[test]
    fn a_new_host_is_shown_the_waiting_script_whatever_images_there_are() {
        let decision = decide(&Core::new().image("new"), "new").unwrap();
        assert!(matches!(decision.verdict, BootVerdict::Boot(BootPlan::Template(boot)) if boot.template == "new"));
    }

    #[test]
    fn a_state_boots_the_image_of_its_name_before_the_template() {
        let decision = decide(&Core::new().image("web").template("web"), "web").unwrap();
        assert!(matches!(decision.verdict, BootVerdict::Boot(BootPlan::Image(boot)) if boot.image == "web"));
    }

    #[test]
    fn a_state_without_image_boots_the_template_of_its_name() {
        let decision = decide(&Core::new().template("memtest"), "memtest").unwrap();
        assert!(matches!(decision.verdict, BootVerdict::Boot(BootPlan::Template(boot)) if boot.template == "memtest"));
    }

    #[test]
    fn a_state_that_names_nothing_holds_and_says_so() {
        let decision = decide(&Core::new(), "webb").unwrap();
        assert!(matches!(decision.verdict, BootVerdict::Hold(hold) if hold.text.contains("webb")));
    }

    #[test]
    fn a_catalogue_that_is_down_is_no_reason_to_boot_something_else() {
        assert!(matches!(decide(&Core::new().catalog_is_down("starting"), "web"), Err(Error::Retry(_))));
    }

    #[test]
    fn a_machine_nobody_knew_waits_or_takes_inventory_as_configured() {
        assert_eq!(first_states(&Core::new(), &["new"]), Some(vec!["new".into()]));
        let discover = Core::new().config(r#"{"discover": true}"#);
        assert_eq!(first_states(&discover, &["new"]), Some(vec!["discover".into(), "new".into()]));
    }

    #[test]
    fn states_from_an_earlier_plugin_stand() {
        let discover = Core::new().config(r#"{"discover": true}"#);
        assert_eq!(first_states(&discover, &["bios-prep", "new"]), None);
    }

    #[test]
    fn an_unknown_key_is_a_problem_before_it_is_used() {
        assert!(Standard::check_config(r#"{"discover": true}"#).is_empty());
        assert!(Standard::check_config("").is_empty());
        let problems = Standard::check_config(r#"{"dicsover": true}"#);
        assert!(problems.iter().any(|problem| problem.message.contains("dicsover")));
    }
}
