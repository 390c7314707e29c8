//! Other servers, played by a function of the test; and signatures by the test's secrets.
use std::fmt;
use std::rc::Rc;

use super::{Core, DECIDING, OUTSIDE, with};
use crate::ask::http::Request;
use crate::bindings::http as types;
use crate::bindings::http::{HttpError, Response};

/// The test's function.
#[derive(Clone)]
pub(super) struct Handler(Rc<Answer>);

type Answer = dyn Fn(&Request) -> Result<Response, HttpError>;

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

impl Core {
    /// Answers what the plugin sends: `.http(|request| Ok(response(200, &json!({"id": 7}))))`.
    #[must_use]
    pub fn http(mut self, handler: impl Fn(&Request) -> Result<Response, HttpError> + 'static) -> Self {
        self.http = Some(Handler(Rc::new(handler)));
        self
    }

    /// What was sent so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.written.borrow().requests.clone()
    }
}

/// An answer with a JSON body.
#[must_use]
pub fn response(status: u16, body: &serde_json::Value) -> Response {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Response { status, headers, body: body.to_string().into_bytes() }
}

pub(crate) fn send(request: &types::Request) -> Result<Response, HttpError> {
    let denied = |why: &str| Err(HttpError::Denied(why.to_owned()));
    let Some(core) = with(Core::clone) else { return denied(OUTSIDE) };
    if core.deciding {
        return denied(DECIDING);
    }
    let request = Request::from_sent(request);
    // The handler may look at what was sent, so nothing stays borrowed while it runs.
    core.written.borrow_mut().requests.push(request.clone());
    match &core.http {
        Some(Handler(handler)) => handler(&request),
        None => denied("the test has no `Core::http`"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::{Error, ask};

    #[test]
    fn the_test_answers_and_sees_what_was_sent() {
        let core = Core::new().http(|request| match request.url.as_str() {
            "http://cmdb/api" => Ok(response(201, &json!({"id": 7}))),
            _ => Err(HttpError::NotSent("no route".into())),
        });
        let answer =
            core.run(|| ask::http::post("http://cmdb/api").json(&json!({"a": 1})).timeout_ms(50).send()).unwrap();
        assert!(answer.is_success());
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(answer.json::<serde_json::Value>().unwrap()["id"], 7);
        let away = core.run(|| ask::http::get("http://gone/").send().map_err(Error::from));
        assert!(matches!(away, Err(Error::Retry(_))));
        let sent = core.requests();
        assert_eq!((sent[0].method.as_str(), sent[0].body.as_deref()), ("POST", Some(&br#"{"a":1}"#[..])));
        assert_eq!((sent[0].timeout_ms, sent.len()), (Some(50), 2));
    }

    #[test]
    fn a_body_that_is_no_json_is_not_sent() {
        let core = Core::new().http(|_| Ok(response(200, &json!({}))));
        let odd = BTreeMap::from([((1, 2), 3)]);
        let answer = core.run(|| ask::http::post("http://cmdb/").json(&odd).send());
        assert!(matches!(answer, Err(HttpError::Invalid(_))));
        assert!(core.requests().is_empty());
    }

    #[test]
    fn an_answer_that_does_not_fit_is_a_failure_with_its_status() {
        let answer = Response { status: 502, headers: Vec::new(), body: b"<html>".to_vec() };
        assert!(matches!(answer.json::<u64>(), Err(Error::Failed(text)) if text.contains("502")));
        assert!(!answer.is_success());
    }

    #[test]
    fn nothing_is_sent_inside_a_decision_or_without_a_server() {
        let deciding = Core::new().http(|_| Ok(response(200, &json!({})))).deciding();
        assert!(matches!(deciding.run(|| ask::http::get("http://a/").send()), Err(HttpError::Denied(_))));
        assert!(matches!(ask::http::get("http://a/").send(), Err(HttpError::Denied(_))));
    }
}
