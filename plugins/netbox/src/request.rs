//! A request in a custom field: acted on once per change of the field, then cleared.
//!
//! What was acted on is written down before and after acting. A request that could not be cleared is therefore known again,
//! and a server that was lost in between asks the core for the same order by the same name, which carries it out once.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::device::{Device, plain};

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// As it stands in the field.
    pub(crate) text: String,
    /// The queue it asks for.
    pub(crate) states: Vec<String>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acted {
    pub(crate) device: u64,
    /// As it stood in the field.
    pub(crate) text: String,
    /// Its name towards the core.
    pub(crate) order: String,
    /// Whether the core has taken the order. If not, it is given again, by the same name.
    pub(crate) done: bool,
    /// Why the core did not take it, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

/// What is to be done about a request field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is asked for, and nothing was.
    Nothing,
    /// The field is empty again: what was acted on need not be remembered.
    Forget,
    /// Give this order, then clear the field.
    Order(Wish, Acted),
    /// It was acted on: only the field is still to be cleared.
    Clear(Acted),
    /// It cannot be acted on; why. The field stays, for the one who wrote it.
    Unfit(String),
}

/// What a device's field asks for, given what was acted on before.
pub(crate) fn step(device: &Device, config: &Config, acted: Option<&Acted>) -> Step {
    let Some(field) = &config.request_field else { return Step::Nothing };
    let acted = acted.filter(|acted| acted.device == device.id);
    let value = device.custom_fields.get(field).unwrap_or(&Value::Null);
    if config.is_no_request(value) {
        return if acted.is_some() { Step::Forget } else { Step::Nothing };
    }
    let text = text(value).unwrap_or_default();
    if !matches!(plain(value), Value::String(_) | Value::Array(_)) {
        return Step::Unfit(format!("the request `{}` is no text, choice or list of choices", shown(&text)));
    }
    if let Some(acted) = acted.filter(|acted| acted.done && acted.text == text) {
        return Step::Clear(acted.clone());
    }
    let wish = match parse(&text) {
        Ok(wish) => wish,
        Err(why) => return Step::Unfit(why),
    };
    if let Some(acted) = acted.filter(|acted| acted.text == text) {
        return Step::Order(wish, acted.clone());
    }
    // The time at which the device was changed tells this request from an equal one before it.
    let Some(changed) = &device.last_updated else {
        return Step::Unfit("the device has no `last_updated`, by which requests are told apart".into());
    };
    let order = format!("netbox:{}:{changed}", device.id);
    Step::Order(wish, Acted { device: device.id, text, order, done: false, refused: None })
}

/// A field's value as text: of a choice its value, of a list all its entries.
pub(crate) fn text(value: &Value) -> Option<String> {
    match plain(value) {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        Value::Null => None,
        odd @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Some(odd.to_string()),
    }
}

/// Reads `wipe,image1`. That the states are images of the server is for the core to say.
fn parse(text: &str) -> Result<Wish, String> {
    let states: Vec<String> = text.split(',').map(|state| state.trim().to_owned()).collect();
    for state in &states {
        if !is_state(state) {
            return Err(format!("the request `{}` is no list of states, as `wipe,web`", shown(text)));
        }
        if state == "finished" {
            return Err("`finished` cannot be asked for: it is reached by installing".into());
        }
    }
    Ok(Wish { text: text.to_owned(), states })
}

fn is_state(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::sample;
    use crate::device::tests::answer;

    fn device(request: &Value, changed: &str) -> Device {
        let mut answer = answer();
        answer["custom_fields"]["kiwispray_request"] = request.clone();
        answer["last_updated"] = json!(changed);
        Device::read(&answer).unwrap()
    }

    fn ordered(step: Step) -> (Vec<String>, Acted) {
        match step {
            Step::Order(wish, acted) => (wish.states, acted),
            other @ (Step::Nothing | Step::Forget | Step::Clear(_) | Step::Unfit(_)) => panic!("no order: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_ordered_by_the_time_of_its_change() {
        let (states, acted) = ordered(step(&device(&json!("wipe, web"), "2026-11-22T08:05Z"), &sample(), None));
        assert_eq!((states, acted.order.as_str()), (vec!["wipe".into(), "web".into()], "netbox:1:2026-11-22T08:05Z"));
    }

    #[test]
    fn a_request_that_was_acted_on_is_only_cleared_however_often_the_device_changes() {
        let (_, mut acted) = ordered(step(&device(&json!("web"), "T1"), &sample(), None));
        acted.done = true;
        assert_eq!(step(&device(&json!("web"), "T2"), &sample(), Some(&acted)), Step::Clear(acted.clone()));
        assert_eq!(step(&device(&json!(null), "T3"), &sample(), Some(&acted)), Step::Forget);
        assert_eq!(step(&device(&json!(""), "T3"), &sample(), None), Step::Nothing);
    }

    #[test]
    fn an_order_that_may_have_been_given_is_given_again_by_the_same_name() {
        let (_, acted) = ordered(step(&device(&json!("web"), "T1"), &sample(), None));
        let (_, again) = ordered(step(&device(&json!("web"), "T2"), &sample(), Some(&acted)));
        assert_eq!(again.order, acted.order);
    }

    #[test]
    fn another_request_is_another_order() {
        let (_, mut acted) = ordered(step(&device(&json!("web"), "T1"), &sample(), None));
        acted.done = true;
        let (states, next) = ordered(step(&device(&json!("db"), "T2"), &sample(), Some(&acted)));
        assert_eq!((states, next.order.as_str(), next.done), (vec!["db".to_owned()], "netbox:1:T2", false));
        // After the field was seen empty, the same text is a new request too.
        assert_eq!(ordered(step(&device(&json!("web"), "T3"), &sample(), None)).1.order, "netbox:1:T3");
    }

    #[test]
    fn what_another_device_asked_for_is_no_memory_of_this_one() {
        let (_, mut acted) = ordered(step(&device(&json!("web"), "T1"), &sample(), None));
        (acted.done, acted.device) = (true, 99);
        assert_eq!(ordered(step(&device(&json!("web"), "T1"), &sample(), Some(&acted))).1.device, 1);
    }

    #[test]
    fn choices_and_lists_are_requests_too() {
        for (value, states) in [
            (json!({"value": "web", "label": "Web server"}), vec!["web"]),
            (json!([{"value": "wipe", "label": "W"}, {"value": "web", "label": "X"}]), vec!["wipe", "web"]),
            (json!(["wipe", "web"]), vec!["wipe", "web"]),
        ] {
            assert_eq!(ordered(step(&device(&value, "T1"), &sample(), None)).0, states);
        }
        let mut config = sample();
        config.request_none = Some("none".into());
        let idle = json!({"value": "none", "label": "None"});
        assert_eq!(step(&device(&idle, "T1"), &config, None), Step::Nothing);
    }

    #[test]
    fn what_is_no_queue_is_never_ordered() {
        for odd in
            [json!("a b"), json!("web,,db"), json!("../x"), json!("finished"), json!(7), json!({"a": 1}), json!("ä")]
        {
            assert!(matches!(step(&device(&odd, "T1"), &sample(), None), Step::Unfit(_)), "{odd}");
        }
        let mut timeless = device(&json!("web"), "T1");
        timeless.last_updated = None;
        assert!(matches!(step(&timeless, &sample(), None), Step::Unfit(why) if why.contains("last_updated")));
    }

    #[test]
    fn without_a_request_field_nothing_is_ever_ordered() {
        let mut config = sample();
        config.request_field = None;
        assert_eq!(step(&device(&json!("web"), "T1"), &config, None), Step::Nothing);
    }
}
