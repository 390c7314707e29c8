//! What plugins send over http: only what a rule of the operator covers, only to where the rule's name leads.
//!
//! Invariants: no redirect is followed, no proxy of the environment is asked, no cookie is kept, nothing is sent twice. Headers
//! that a rule adds are seen by the server it names and by nobody else. What one exchange, one plugin and all of them together
//! may use up is bounded.
//!
//! Decisions cannot send anything: somebody waits for them. A dry run sends `GET` and `HEAD`, so that a rehearsal sees what a real
//! run would; everything else is answered `denied`.
use std::error::Error;
use std::sync::{Arc, Once};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Method, Response as Incoming, Url, redirect, retry};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::contract::kiwispray::plugin::http::{HttpError, Request, Response};
use super::secret::SecretError;
use crate::hooks::{Allowance, Run};
use address::{Checked, Forbidden, Surroundings, System};
pub use rule::{RawRule, Rule, RuleError};
pub use script::{Script, ScriptedFailure, ScriptedRequest, ScriptedResponse};

mod address;
mod headers;
mod rule;
mod script;

/// Requests of one plugin at once.
const OF_ONE_PLUGIN: usize = 8;
/// Requests of all plugins at once.
const OF_ALL_PLUGINS: usize = 32;
/// The body of a request.
const REQUEST_MAX_BYTES: usize = 1 << 20;
const URL_MAX_BYTES: usize = 8 << 10;
/// A server that does not even take the connection is told apart from one that is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request, if the guest says nothing else.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// What a guest keeps of its call to make something of the answer.
const ASIDE: Duration = Duration::from_millis(50);
const CA_FILE_MAX_BYTES: u64 = 1 << 20;

/// What all plugins share on their way out.
pub(super) struct Outside {
    surroundings: Arc<dyn Surroundings>,
    requests: Semaphore,
    /// Answers in place of the network.
    script: Option<Arc<dyn Script>>,
}

/// The ways out of one plugin.
pub(super) struct Egress {
    ways: Vec<Way>,
    requests: Semaphore,
    outside: Arc<Outside>,
}

/// One rule, ready to be used.
struct Way {
    rule: Rule,
    client: Client,
    added: Vec<(HeaderName, HeaderValue)>,
}

/// Why a rule cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// A header's secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A secret is no header's value: it has line ends or the like.
    #[error("the secret for the header `{0}` cannot be sent in a header")]
    Header(HeaderName),
    /// The certificates cannot be used.
    #[error("the certificates in {path}: {why}")]
    Certificates {
        /// The file, or the system's.
        path: String,
        /// Why not.
        why: String,
    },
}

impl Outside {
    pub(super) fn new() -> Arc<Self> {
        Self::within(Arc::new(System::new()))
    }

    /// Where a script answers and nothing is sent.
    pub(super) fn scripted(script: Arc<dyn Script>) -> Arc<Self> {
        let surroundings = Arc::new(System::new());
        Arc::new(Self { surroundings, requests: Semaphore::new(OF_ALL_PLUGINS), script: Some(script) })
    }

    fn within(surroundings: Arc<dyn Surroundings>) -> Arc<Self> {
        Arc::new(Self { surroundings, requests: Semaphore::new(OF_ALL_PLUGINS), script: None })
    }
}

impl Egress {
    /// Reads secrets and certificates: a matter for a thread that may block.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub(super) fn new(rules: Vec<Rule>, outside: Arc<Outside>) -> Result<Self, EgressError> {
        let ways = rules.into_iter().map(|rule| Way::new(rule, &outside)).collect::<Result<_, _>>()?;
        Ok(Self { ways, requests: Semaphore::new(OF_ONE_PLUGIN), outside })
    }

    /// Sends a request of a call that has `left` time.
    pub(super) async fn send(&self, by: &Allowance, left: Duration, request: Request) -> Result<Response, HttpError> {
        let denied = |why: &str| Err(HttpError::Denied(why.to_owned()));
        if by.hook.is_decision() {
            return denied("http is for events and jobs: somebody waits for this decision");
        }
        if request.url.len() > URL_MAX_BYTES || request.body.as_ref().is_some_and(|body| body.len() > REQUEST_MAX_BYTES)
        {
            return Err(HttpError::TooLarge);
        }
        let url = rule::requested(&request.url).map_err(|why| HttpError::Invalid(why.to_owned()))?;
        let Some(method) = rule::method(&request.method) else {
            return Err(HttpError::Invalid("this is no method".to_owned()));
        };
        let Some(way) = self.ways.iter().find(|way| way.rule.covers(&method, &url)) else {
            return Err(HttpError::Denied(format!("no grant covers {method} {}", origin(&url))));
        };
        let headers = headers::outgoing(&request.headers, &way.added)?;
        if by.run == Run::Dry && method != Method::GET && method != Method::HEAD {
            return denied("dry run: only GET and HEAD are sent");
        }
        if let Some(script) = &self.outside.script {
            return script::play(&**script, request);
        }
        let timeout = request.timeout_ms.map_or(TIMEOUT_DEFAULT, |ms| Duration::from_millis(ms.into()));
        let ends = Instant::now() + timeout.min(left.saturating_sub(ASIDE));

        let places = async { (self.requests.acquire().await, self.outside.requests.acquire().await) };
        let Ok(_places) = timeout_at(ends, places).await else {
            return Err(HttpError::NotSent("too many requests at once".to_owned()));
        };
        let mut outgoing = way.client.request(method, url).headers(headers);
        if let Some(body) = request.body {
            outgoing = outgoing.body(body);
        }
        let exchange = async { way.receive(outgoing.send().await.map_err(|error| failure(&error))?).await };
        timeout_at(ends, exchange).await.unwrap_or_else(|_| Err(HttpError::Unknown("time ran out".to_owned())))
    }
}

impl Way {
    fn new(rule: Rule, outside: &Outside) -> Result<Self, EgressError> {
        static RING: Once = Once::new();
        RING.call_once(|| {
            // Refused only if there is one already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let mut added = Vec::with_capacity(rule.headers.len());
        for (name, text) in &rule.headers {
            let secret = text.read()?;
            let value = HeaderValue::from_bytes(secret.expose());
            let mut value = value.map_err(|_| EgressError::Header(name.clone()))?;
            value.set_sensitive(true);
            added.push((name.clone(), value));
        }
        let resolver = Checked { surroundings: Arc::clone(&outside.surroundings), localhost: rule.is_localhost() };
        let mut client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(OF_ONE_PLUGIN)
            .user_agent(concat!("kiwispray/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(resolver));
        let at = |why: &dyn Error| {
            let path = rule.ca_file.as_ref().map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
            EgressError::Certificates { path, why: innermost(why) }
        };
        if rule.is_plain() || outside.script.is_some() {
            // Nothing to check a certificate for: looking for the system's would only take time.
            client = client.tls_certs_only([]);
        } else if let Some(path) = &rule.ca_file {
            let pem = super::host::read_at_most(path, CA_FILE_MAX_BYTES).map_err(|error| at(&error))?;
            client = client.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(|error| at(&error))?);
        }
        Ok(Self { client: client.build().map_err(|error| at(&error))?, rule, added })
    }

    /// Reads an answer, not more of it than the rule allows.
    async fn receive(&self, mut incoming: Incoming) -> Result<Response, HttpError> {
        let most = self.rule.response_max_bytes;
        if incoming.content_length().is_some_and(|length| length > most) {
            return Err(HttpError::TooLarge);
        }
        let status = incoming.status().as_u16();
        let headers = headers::incoming(incoming.headers(), &self.added)?;
        let mut body = Vec::new();
        while let Some(chunk) = incoming.chunk().await.map_err(|error| HttpError::Unknown(innermost(&error)))? {
            if (body.len() + chunk.len()) as u64 > most {
                return Err(HttpError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body })
    }
}

/// What became of a request that got no answer.
fn failure(error: &reqwest::Error) -> HttpError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(forbidden) = inner.downcast_ref::<Forbidden>() {
            return HttpError::Denied(forbidden.to_string());
        }
        cause = inner.source();
    }
    if error.is_connect() {
        HttpError::NotSent(innermost(error))
    } else if error.is_builder() {
        HttpError::Invalid(innermost(error))
    } else {
        HttpError::Unknown(innermost(error))
    }
}

/// The last cause, which says most and names no URL.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().chars().take(200).collect()
}

/// Scheme, host and port: a path may hold what is nobody's business.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests;
