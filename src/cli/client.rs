//! Talks to the admin plane.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{CliError, Result};
use super::server::Server;
use crate::wire::{
    ActOnHost, AddHost, AdoptMachine, Changed, EditHost, ForgottenView, HostView, LockHost, NEXT_CURSOR, Page, Problem,
};

/// All that may stand in a path segment, or a query value, as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const FORGOTTEN: &str = "/api/v1/forgotten";

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    server: Server,
}

/// What is done to a host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// Changes name, metadata or queue.
    Edit(EditHost),
    /// Declares the step done.
    Finish(ActOnHost),
    /// Orders the step anew.
    Retry(ActOnHost),
    /// Lets a quarantined host boot again.
    Release(ActOnHost),
    /// Lets it take no orders.
    Lock(LockHost),
    /// Lets it take orders again.
    Unlock(ActOnHost),
    /// Takes the host out of the store.
    Forget(ActOnHost),
    /// Gives it the identity of another machine.
    Adopt(AdoptMachine),
}

/// Which hosts are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Names, numbers, serial numbers, MACs, UUIDs, ranges.
    pub(crate) hosts: Vec<String>,
    /// Conditions that all have to hold.
    pub(crate) conditions: Vec<String>,
}

impl Client {
    /// A client of this server. Connects with the first request.
    pub(crate) fn new(server: Server) -> Result<Self> {
        // reqwest wants a provider of TLS even for a socket. Refused only if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy();
        let (builder, base) = match &server {
            Server::Unix(path) => (builder.unix_socket(path.as_path()), "http://kiwispray".to_owned()),
            Server::Http(url) => (builder, url.clone()),
        };
        let http = builder.build().map_err(|error| CliError::failed(format!("the HTTP client: {error}")))?;
        Ok(Self { http, base, server })
    }

    /// The address it talks to.
    pub(crate) const fn server(&self) -> &Server {
        &self.server
    }

    /// Gets a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.decode(self.request(Method::GET, path)).await
    }

    /// Every host of a selection, in the order of their numbers.
    pub(crate) async fn hosts(&self, selection: &Selection) -> Result<Vec<HostView>> {
        // A page is read on a thread of its own while the server makes the next one.
        let mut pages = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let response = self.answer(self.request(Method::GET, &selection.path(cursor.as_deref()))).await?;
            let next = response.headers().get(NEXT_CURSOR).and_then(|next| next.to_str().ok()).map(str::to_owned);
            let text = response.bytes().await.map_err(|error| self.unreachable(&error))?;
            pages.push(tokio::task::spawn_blocking(move || serde_json::from_slice::<Page<HostView>>(&text)));
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let mut hosts = Vec::new();
        for page in pages {
            let strange = |error: &dyn std::fmt::Display| {
                CliError::failed(format!("{} answered something else than expected: {error}", self.server))
            };
            hosts.extend(page.await.map_err(|error| strange(&error))?.map_err(|error| strange(&error))?.items);
        }
        Ok(hosts)
    }

    /// Does, or with `dry_run` only tries, something to a host that is still what it was when it was looked at.
    pub(crate) async fn act(&self, host: &HostView, act: &Act, dry_run: bool) -> Result<Changed> {
        let path = format!("/api/v1/hosts/{}", host.id);
        let request = match act {
            Act::Edit(edit) => self.request(Method::PATCH, &path).json(&EditHost { dry_run, ..edit.clone() }),
            Act::Finish(act) => {
                self.request(Method::POST, &format!("{path}/finish")).json(&ActOnHost { dry_run, ..act.clone() })
            }
            Act::Retry(act) => {
                self.request(Method::POST, &format!("{path}/retry")).json(&ActOnHost { dry_run, ..act.clone() })
            }
            Act::Release(act) => {
                self.request(Method::POST, &format!("{path}/release")).json(&ActOnHost { dry_run, ..act.clone() })
            }
            Act::Adopt(adopt) => {
                self.request(Method::POST, &format!("{path}/adopt")).json(&AdoptMachine { dry_run, ..adopt.clone() })
            }
            Act::Lock(lock) => {
                self.request(Method::POST, &format!("{path}/lock")).json(&LockHost { dry_run, ..lock.clone() })
            }
            Act::Unlock(act) => {
                self.request(Method::DELETE, &format!("{path}/lock")).json(&ActOnHost { dry_run, ..act.clone() })
            }
            Act::Forget(act) => self.request(Method::DELETE, &path).json(&ActOnHost { dry_run, ..act.clone() }),
        };
        self.decode(request.header(header::IF_MATCH, format!("\"{}\"", host.revision))).await
    }

    /// What is left of forgotten hosts.
    pub(crate) async fn forgotten(&self) -> Result<Vec<ForgottenView>> {
        let mut all = Vec::new();
        let mut path = FORGOTTEN.to_owned();
        loop {
            let page: Page<ForgottenView> = self.get(&path).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => path = with_query(FORGOTTEN, [("cursor", next.as_str())]),
                None => return Ok(all),
            }
        }
    }

    /// Takes away what is left of a forgotten host.
    pub(crate) async fn forget_for_good(&self, id: u64) -> Result<ForgottenView> {
        self.delete_for(&format!("{FORGOTTEN}/{id}")).await
    }

    /// Makes a host known.
    pub(crate) async fn add(&self, host: &AddHost) -> Result<Changed> {
        self.decode(self.request(Method::POST, "/api/v1/hosts").json(host)).await
    }

    /// Asks for something to be done, with a document.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, document: &impl Serialize) -> Result<T> {
        self.decode(self.request(Method::POST, path).json(document)).await
    }

    /// Asks for something to be done that needs no words and gives no answer.
    pub(crate) async fn post_for_nothing(&self, path: &str) -> Result {
        self.answer(self.request(Method::POST, path)).await.map(drop)
    }

    /// Puts a document in the place of another.
    pub(crate) async fn put_document<T: DeserializeOwned>(&self, path: &str, document: &impl Serialize) -> Result<T> {
        self.decode(self.request(Method::PUT, path).json(document)).await
    }

    /// Sends bytes.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T> {
        self.decode(self.request(Method::PUT, path).body(body)).await
    }

    /// The pieces of a long answer to bytes.
    pub(crate) async fn post_for_stream(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Unpin + use<>> {
        let response = self.answer(self.request(Method::POST, path).body(body)).await?;
        let lost = |error: reqwest::Error| CliError::unreachable(format!("the server went away: {}", cause(&error)));
        Ok(Box::pin(response.bytes_stream().map(move |piece| piece.map_err(lost))))
    }

    /// Sends a document and hands over the documents of the answer, one a line, as they come.
    pub(crate) async fn post_for_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
        mut take: impl FnMut(T),
    ) -> Result {
        let body = serde_json::to_vec(document).map_err(|error| CliError::failed(error.to_string()))?;
        let mut pieces = self.post_for_stream(path, body).await?;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(piece) = pieces.next().await {
            rest.extend_from_slice(&piece?);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = rest.drain(..=end).collect();
            for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                take(serde_json::from_slice(line).map_err(|error| {
                    CliError::failed(format!("the server answered something else than expected: {error}"))
                })?);
            }
        }
        Ok(())
    }

    /// Sends a stream of bytes.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        bytes: u64,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<T> {
        let request = self.request(Method::PUT, path).header(header::CONTENT_LENGTH, bytes);
        self.decode(request.body(reqwest::Body::wrap_stream(body))).await
    }

    /// Removes something.
    pub(crate) async fn delete(&self, path: &str) -> Result {
        self.answer(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// Removes something, and is told what.
    pub(crate) async fn delete_for<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.decode(self.request(Method::DELETE, path)).await
    }

    /// The pieces of an endless answer.
    pub(crate) async fn stream(
        &self,
        path: &str,
        last_event: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Unpin + use<>> {
        let mut request = self.request(Method::GET, path);
        if let Some(id) = last_event {
            request = request.header("last-event-id", id);
        }
        let response = self.answer(request).await?;
        let lost = |error: reqwest::Error| CliError::unreachable(format!("the server went away: {}", cause(&error)));
        Ok(Box::pin(response.bytes_stream().map(move |piece| piece.map_err(lost))))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn decode<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.answer(request).await?;
        let strange = |error: reqwest::Error| {
            CliError::failed(format!("{} answered something else than expected: {}", self.server, cause(&error)))
        };
        response.json().await.map_err(strange)
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(CliError::failed(format!("{} answered {status}", self.server))),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let text = format!("{} cannot be reached: {}", self.server, cause(error));
        if error.is_connect() || error.is_request() { CliError::unreachable(text) } else { CliError::failed(text) }
    }
}

impl Selection {
    /// Whether nothing is named at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.conditions.is_empty()
    }

    fn path(&self, cursor: Option<&str>) -> String {
        let hosts = self.hosts.iter().map(|host| ("host", host.as_str()));
        let conditions = self.conditions.iter().map(|condition| ("where", condition.as_str()));
        with_query("/api/v1/hosts", hosts.chain(conditions).chain(cursor.map(|cursor| ("cursor", cursor))))
    }
}

/// A path with a query.
pub(crate) fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.extend_pairs(pairs).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A query made of a document's fields.
pub(crate) fn query_of(path: &str, document: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(document).map_err(|error| CliError::failed(error.to_string()))?;
    let fields = value.as_object().cloned().unwrap_or_default();
    let pairs: Vec<(String, String)> = fields
        .into_iter()
        .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    Ok(with_query(path, pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
}

/// The innermost cause: what wraps it only says that a request failed.
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ImportQuery;

    #[test]
    fn selections_become_queries() {
        let selection =
            Selection { hosts: vec!["1-20".into(), "a b".into()], conditions: vec!["metadata.site=fra1".into()] };
        assert_eq!(selection.path(Some("7")), "/api/v1/hosts?host=1-20&host=a+b&where=metadata.site%3Dfra1&cursor=7");
        assert_eq!(Selection::default().path(None), "/api/v1/hosts");
    }

    #[test]
    fn absent_fields_do_not_reach_the_query() {
        let query = ImportQuery { device: Some("/dev/sda".into()), replace: true, ..ImportQuery::default() };
        assert_eq!(query_of("/x", &query).unwrap(), "/x?device=%2Fdev%2Fsda&replace=true");
        assert_eq!(query_of("/x", &ImportQuery::default()).unwrap(), "/x");
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(segment("../a b?c#d"), "..%2Fa%20b%3Fc%23d");
    }
}
