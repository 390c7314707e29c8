//! Lets the machines of racks that are being worked on wait, whatever they were to boot.
//!
//! A machine's rack is the key `rack` of its metadata: `kiwispray host set 3 --meta '{"rack": "r7"}'`.
use kiwispray_sdk::{BootDecision, BootRequest, ConfigProblem, Description, Error, PASS, Plugin, ask, hold, plugin};
use serde::Deserialize;
use serde_json::json;

/// What a binding sets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The racks that are being worked on.
    #[serde(default)]
    racks: Vec<String>,
}

struct Maintenance;

impl Plugin for Maintenance {
    fn describe() -> Description {
        Description::new("@name@", env!("CARGO_PKG_VERSION"), "Lets machines of racks under maintenance wait")
            .config_schema(&json!({
                "type": "object",
                "properties": {"racks": {"type": "array", "items": {"type": "string"}}},
                "additionalProperties": false
            }))
    }

    fn check_config(config: &str) -> Vec<ConfigProblem> {
        match ask::parse_config::<Config>(config) {
            Ok(_) => Vec::new(),
            Err(error) => vec![ConfigProblem { at: String::new(), message: error.to_string() }],
        }
    }

    fn boot(request: BootRequest) -> Result<BootDecision, Error> {
        let config: Config = ask::config()?;
        let metadata = request.host.metadata()?;
        let Some(rack) = metadata["rack"].as_str() else {
            ask::note("its rack is not known");
            return Ok(PASS);
        };
        if config.racks.iter().any(|waiting| waiting == rack) {
            return Ok(hold(format!("Rack {rack} is being worked on.")).because("its rack is under maintenance"));
        }
        Ok(PASS)
    }
}

plugin!(Maintenance: boot);

#[cfg(test)]
mod tests {
    use kiwispray_sdk::BootVerdict;
    use kiwispray_sdk::testing::{Core, host, request};

    use super::*;

    fn decide(metadata: &str) -> BootDecision {
        let mut machine = host("web");
        machine.metadata = metadata.to_owned();
        Core::new().config(r#"{"racks": ["r7"]}"#).run(|| Maintenance::boot(request(machine))).unwrap()
    }

    #[test]
    fn a_machine_of_a_rack_under_maintenance_waits() {
        let decision = decide(r#"{"rack": "r7"}"#);
        assert!(matches!(decision.verdict, BootVerdict::Hold(hold) if hold.text.contains("r7")));
    }

    #[test]
    fn other_machines_boot_as_usual() {
        assert_eq!(decide(r#"{"rack": "r8"}"#), PASS);
        assert_eq!(decide("{}"), PASS);
    }
}
