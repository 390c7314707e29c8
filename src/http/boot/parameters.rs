//! Query parameters and forms as they really arrive.
//!
//! Firmware sends what its DMI tables hold, so a value may be any bytes: the parser never refuses, it says which values
//! are no text.

use percent_encoding::percent_decode;

use crate::domain::Parameter;
use crate::service::Call;

/// More parameters than any request has.
const MOST: usize = 256;

/// Every parameter of an `application/x-www-form-urlencoded` text, in order.
pub(super) fn parse(encoded: &[u8]) -> Vec<Parameter> {
    encoded
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .take(MOST)
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = decode(halves.next().unwrap_or_default());
            let value = decode(halves.next().unwrap_or_default());
            Parameter { name: name.unwrap_or_else(|| "(not text)".to_owned()), value }
        })
        .collect()
}

/// The first value of a parameter.
pub(super) fn first<'a>(parameters: &'a [Parameter], name: &str) -> Option<&'a str> {
    parameters.iter().find(|parameter| parameter.name == name)?.value.as_deref()
}

/// Who calls.
pub(super) fn call(parameters: &[Parameter]) -> Call {
    let text = |name| first(parameters, name).map(str::to_owned);
    Call { id: text("id"), bootid: text("bootid") }
}

fn decode(encoded: &[u8]) -> Option<String> {
    if !encoded.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return String::from_utf8(encoded.to_vec()).ok();
    }
    let spaced: Vec<u8> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_once_and_what_is_no_text_is_said_to_be_none() {
        let parameters = parse(b"serial=A%20B+C&asset=%ff%fe&x=%2525&&empty=&flag&serial=second");
        assert_eq!(first(&parameters, "serial"), Some("A B C"));
        assert_eq!(first(&parameters, "asset"), None);
        assert_eq!(first(&parameters, "x"), Some("%25"));
        assert_eq!(first(&parameters, "empty"), Some(""));
        assert_eq!(first(&parameters, "flag"), Some(""));
        assert_eq!(parameters.len(), 6);
    }

    #[test]
    fn a_flood_of_parameters_is_cut() {
        assert_eq!(parse("a=1&".repeat(100_000).as_bytes()).len(), MOST);
    }
}
