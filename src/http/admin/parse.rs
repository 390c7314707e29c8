//! From requests to domain types.

use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use crate::domain::{Metadata, MetadataEdit, StateName, States};
use crate::service::{Condition, Selection, Selector};

use super::error::Refusal;

/// A query's parameters, those that may be repeated as lists.
#[derive(Debug, Default)]
pub(super) struct ListQuery {
    pub(super) selection: Selection,
    pub(super) cursor: Option<u64>,
    pub(super) limit: Option<u16>,
}

/// The parameters of lists and streams.
pub(super) fn list_query(query: Option<&str>) -> Result<ListQuery, Refusal> {
    let mut parsed = ListQuery::default();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "host" => parsed.selection.selectors.push(value.parse::<Selector>().map_err(bad)?),
            "where" => parsed.selection.conditions.push(value.parse::<Condition>().map_err(bad)?),
            "cursor" => parsed.cursor = Some(value.parse().map_err(|_| bad("this is no cursor"))?),
            "limit" => parsed.limit = Some(value.parse().map_err(|_| bad("the limit is a number"))?),
            other => return Err(unknown(other)),
        }
    }
    Ok(parsed)
}

/// Named parameters as a document, so that unknown names are refused like unknown fields.
pub(super) fn query<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Refusal> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let fields = pairs.map(|(name, value)| {
        let value = match value.as_ref() {
            flag @ ("true" | "false") => serde_json::Value::Bool(flag == "true"),
            text => serde_json::Value::String(text.to_owned()),
        };
        (name.into_owned(), value)
    });
    serde_json::from_value(serde_json::Value::Object(fields.collect())).map_err(bad)
}

/// The document in a body; an empty body is an empty document.
pub(super) fn document<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() { Ok(T::default()) } else { serde_json::from_slice(body).map_err(bad) }
}

/// A queue.
pub(super) fn states(names: &[String]) -> Result<States, Refusal> {
    let names = names.iter().map(|name| name.parse::<StateName>()).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if names.is_empty() {
        return Err(bad("a state is missing"));
    }
    States::from_names(names).map_err(bad)
}

/// Metadata.
fn metadata(map: serde_json::Map<String, serde_json::Value>) -> Result<Metadata, Refusal> {
    Metadata::try_from(map).map_err(bad)
}

/// Metadata of a host that nobody knew: what is said to be absent is not there.
pub(super) fn fresh_metadata(map: serde_json::Map<String, serde_json::Value>) -> Result<Metadata, Refusal> {
    Metadata::default().merged(&metadata(map)?).map_err(bad)
}

/// Metadata to be merged.
pub(super) fn merge(map: serde_json::Map<String, serde_json::Value>) -> Result<MetadataEdit, Refusal> {
    metadata(map).map(MetadataEdit::Merge)
}

/// The revision in `If-Match`, which any revision satisfies when it is absent or `*` (RFC 9110).
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    match value.to_str().unwrap_or_default().trim() {
        "*" => Ok(None),
        tag => tag.trim_matches('"').parse().map(Some).map_err(|_| bad("If-Match takes a revision, such as \"7\"")),
    }
}

/// A request that cannot be meant.
pub(super) fn bad(why: impl ToString) -> Refusal {
    Refusal::BadRequest(why.to_string())
}

fn unknown(name: &str) -> Refusal {
    bad(format_args!("there is no parameter {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EditHost, ImportQuery};

    #[test]
    fn unknown_parameters_and_fields_are_refused() {
        assert!(list_query(Some("host=1-20&where=state%3Dnew&limit=5&cursor=7")).is_ok());
        for text in ["hosts=1", "limit=x", "where=state", "where=colour=red", "host=9-2", "host="] {
            assert!(list_query(Some(text)).is_err(), "{text}");
        }
        assert!(query::<ImportQuery>(Some("device=first&replace=true")).unwrap().replace);
        assert!(query::<ImportQuery>(Some("divice=first")).is_err());
        assert_eq!(query::<ImportQuery>(Some("kernel_bytes=7")).unwrap().kernel_bytes, Some(7));
        assert!(query::<ImportQuery>(Some("kernel_bytes=x")).is_err());
        assert!(document::<EditHost>(b"{\"state\":\"x\"}").is_err());
        assert!(document::<EditHost>(b"").is_ok());
    }

    #[test]
    fn revisions_are_read_from_if_match() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, value.parse().unwrap());
            if_match(&headers)
        };
        assert_eq!(with("\"7\"").unwrap(), Some(7));
        assert_eq!(with("*").unwrap(), None);
        assert!(with("W/\"x\"").is_err());
    }
}
