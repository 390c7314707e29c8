//! Against real servers on the loopback: what they get, and what plugins get of it.
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant as Clock;
use std::{fs, io};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::hooks::{Grants, Hook};

/// Names as a test wants them: each lookup takes the next answer, the last one stays.
#[derive(Default)]
struct Names(Mutex<VecDeque<Vec<IpAddr>>>);

impl Names {
    fn answering(answers: &[&str]) -> Arc<Self> {
        let answers = answers.iter().map(|ip| if ip.is_empty() { vec![] } else { vec![ip.parse().unwrap()] });
        Arc::new(Self(Mutex::new(answers.collect())))
    }

    fn left(&self) -> MutexGuard<'_, VecDeque<Vec<IpAddr>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Surroundings for Names {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut left = self.left();
        let answer = if left.len() > 1 { left.pop_front() } else { left.front().cloned() };
        async move { answer.ok_or_else(|| io::Error::other("no such name")) }.boxed()
    }

    /// The loopback stands for the world, and 127.0.0.9 for this machine.
    fn is_own(&self, ip: IpAddr) -> bool {
        ip.to_string() == "127.0.0.9"
    }
}

/// What a server does with a connection, once it has read a request's head.
type Serve = fn(TcpStream) -> BoxFuture<'static, ()>;

/// A server that keeps the heads of the requests it got.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(serve: Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    kept.lock().unwrap().push(String::from_utf8(head).unwrap());
                    serve(stream).await;
                });
            }
        });
        Self { address, heads }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn write(mut stream: TcpStream, answer: &[u8]) {
    // A client that has had enough closes first.
    let _ = stream.write_all(answer).await;
}

fn fine(stream: TcpStream) -> BoxFuture<'static, ()> {
    write(stream, b"HTTP/1.1 200 OK\r\nX-Kind: fine\r\nContent-Length: 2\r\n\r\nok").boxed()
}

fn rule(url: &str, more: &str) -> Rule {
    toml::from_str(&format!("url = '{url}'\nmethods = ['GET', 'HEAD', 'POST']\n{more}")).unwrap()
}

fn egress(rules: Vec<Rule>) -> Egress {
    Egress::new(rules, Outside::new()).unwrap()
}

fn named(url: &str, names: Arc<Names>) -> Egress {
    Egress::new(vec![rule(url, "")], Outside::within(names)).unwrap()
}

fn get(url: impl Into<String>) -> Request {
    Request { method: "GET".into(), url: url.into(), headers: vec![], body: None, timeout_ms: Some(2_000) }
}

fn allowance(hook: Hook, run: Run) -> Allowance {
    Allowance::new("guest".into(), Arc::new(Grants::default()), hook, run, "c1".to_owned())
}

async fn send(egress: &Egress, request: Request) -> Result<Response, HttpError> {
    egress.send(&allowance(Hook::Schedule, Run::Real), Duration::from_secs(10), request).await
}

#[track_caller]
fn is_denied(answer: &Result<Response, HttpError>, why: &str) {
    assert!(matches!(answer, Err(HttpError::Denied(text)) if text.contains(why)), "{answer:?}");
}

#[tokio::test]
async fn a_covered_request_arrives_once_with_the_headers_of_its_rule_and_is_answered() {
    let server = Server::start(fine).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "s3cret\n").unwrap();
    let headers = format!("headers = {{ Authorization = 'Bearer ${{file:{}}}' }}", token.display());
    let egress = egress(vec![rule(&server.url("/api/"), &headers)]);
    let mut request = get(server.url("/api/x?q=1"));
    request.headers.push(("Accept".into(), "text/plain".into()));
    let answer = send(&egress, request.clone()).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"ok".as_slice()));
    assert!(answer.headers.contains(&("x-kind".to_owned(), "fine".to_owned())));
    let [head] = server.heads().try_into().unwrap();
    assert!(head.starts_with("GET /api/x?q=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer s3cret\r\n") && head.contains("accept: text/plain\r\n"), "{head}");

    request.headers.push(("authorization".into(), "mine".into()));
    is_denied(&send(&egress, request).await, "the header `authorization` is the core's");
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test]
async fn what_no_rule_covers_is_denied_and_nothing_is_sent() {
    let server = Server::start(fine).await;
    let egress = egress(vec![rule(&server.url("/api/"), "")]);
    let port = server.address.port();
    let others = [
        server.url("/"),
        server.url("/apiary"),
        format!("http://localhost:{port}/api/"),
        format!("http://127.0.0.2:{port}/api/"),
        format!("http://[::ffff:127.0.0.1]:{port}/api/"),
        format!("https://127.0.0.1:{port}/api/"),
    ];
    for url in others {
        is_denied(&send(&egress, get(url)).await, "no grant covers GET");
    }
    let patch = Request { method: "PATCH".into(), ..get(server.url("/api/")) };
    is_denied(&send(&egress, patch).await, "no grant covers PATCH");
    for (method, url) in [("CONNECT", "/api/"), ("get", "/api/"), ("GET /x", "/api/"), ("GET", "/api/..%2f")] {
        let request = Request { method: method.into(), ..get(server.url(url)) };
        assert!(matches!(send(&egress, request).await, Err(HttpError::Invalid(_))), "{method} {url}");
    }
    assert_eq!(server.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    fn elsewhere(stream: TcpStream) -> BoxFuture<'static, ()> {
        write(stream, b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n")
            .boxed()
    }
    let server = Server::start(elsewhere).await;
    let egress = egress(vec![rule(&server.url("/"), "")]);
    let answer = send(&egress, get(server.url("/"))).await.unwrap();
    assert_eq!(answer.status, 302);
    assert!(answer.headers.iter().any(|(name, value)| name == "location" && value.contains("169.254")));
    is_denied(&send(&egress, get("http://169.254.169.254/latest/")).await, "no grant covers");
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test]
async fn decisions_send_nothing_and_a_dry_run_only_reads() {
    let server = Server::start(fine).await;
    let egress = egress(vec![rule(&server.url("/"), "")]);
    let left = Duration::from_secs(10);
    for hook in Hook::ALL.into_iter().filter(|hook| hook.is_decision()) {
        let answer = egress.send(&allowance(hook, Run::Real), left, get(server.url("/"))).await;
        is_denied(&answer, "http is for events and jobs");
    }
    assert_eq!(server.heads().len(), 0);
    let dry = allowance(Hook::Events, Run::Dry);
    let post = Request { method: "POST".into(), body: Some(b"{}".to_vec()), ..get(server.url("/")) };
    is_denied(&egress.send(&dry, left, post.clone()).await, "dry run");
    assert!(egress.send(&dry, left, get(server.url("/"))).await.is_ok());
    assert!(send(&egress, post).await.is_ok());
    assert_eq!(server.heads().len(), 2);
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_however_it_is_written() {
    let server = Server::start(fine).await;
    let url = format!("http://cmdb.example:{}/", server.address.port());
    for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "64:ff9b::7f00:1"] {
        let egress = named(&url, Names::answering(&[ip]));
        is_denied(&send(&egress, get(&url)).await, &format!("cmdb.example leads to {ip}"));
    }
    is_denied(&send(&named(&url, Names::answering(&[""])), get(&url)).await, "leads nowhere");
    let unknown = send(&named(&url, Arc::default()), get(&url)).await;
    assert!(matches!(&unknown, Err(HttpError::NotSent(why)) if why.contains("no such name")), "{unknown:?}");
    assert_eq!(server.heads().len(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_checked_each_time_it_is_asked() {
    // The first answer is another machine's (where nobody listens), the next ones are the loopback's.
    let server = Server::start(fine).await;
    let url = format!("http://cmdb.example:{}/", server.address.port());
    let names = Names::answering(&["192.0.2.1", "127.0.0.1"]);
    let egress = named(&url, Arc::clone(&names));
    let first = Request { timeout_ms: Some(300), ..get(&url) };
    let first = send(&egress, first).await;
    assert!(matches!(first, Err(HttpError::Unknown(_) | HttpError::NotSent(_))), "{first:?}");
    assert_eq!(names.left().len(), 1, "one question for one request");
    is_denied(&send(&egress, get(&url)).await, "cmdb.example leads to 127.0.0.1");
    assert_eq!(server.heads().len(), 0);
}

#[tokio::test]
async fn localhost_and_addresses_are_reached_only_where_a_rule_names_them() {
    let server = Server::start(fine).await;
    let url = format!("http://localhost:{}/", server.address.port());
    // What the system says about the name does not matter.
    let egress = named(&url, Names::answering(&["169.254.169.254"]));
    assert!(send(&egress, get(&url)).await.is_ok());
    is_denied(&send(&egress, get(server.url("/"))).await, "no grant covers");
}

#[tokio::test]
async fn a_server_that_takes_no_connection_got_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let answer = send(&egress(vec![rule(&url, "")]), get(&url)).await;
    assert!(matches!(answer, Err(HttpError::NotSent(_))), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_breaks_off_or_is_slow_may_have_acted() {
    fn silent(stream: TcpStream) -> BoxFuture<'static, ()> {
        async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream);
        }
        .boxed()
    }
    fn drops(stream: TcpStream) -> BoxFuture<'static, ()> {
        async move { drop(stream) }.boxed()
    }
    fn trickles(mut stream: TcpStream) -> BoxFuture<'static, ()> {
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        .boxed()
    }
    fn garbage(stream: TcpStream) -> BoxFuture<'static, ()> {
        write(stream, b"SMTP 220 ready\r\n\r\n").boxed()
    }
    for serve in [silent as Serve, drops, trickles, garbage] {
        let server = Server::start(serve).await;
        let egress = egress(vec![rule(&server.url("/"), "")]);
        let start = Clock::now();
        let answer = send(&egress, Request { timeout_ms: Some(200), ..get(server.url("/")) }).await;
        assert!(matches!(answer, Err(HttpError::Unknown(_))), "{answer:?}");
        assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
        assert_eq!(server.heads().len(), 1, "nothing is sent twice");
    }
    // Without a wish of the guest, the call's time is the limit, and some of it is left over.
    let server = Server::start(silent).await;
    let egress = egress(vec![rule(&server.url("/"), "")]);
    let request = Request { timeout_ms: None, ..get(server.url("/")) };
    let start = Clock::now();
    let by = allowance(Hook::Events, Run::Real);
    assert!(matches!(egress.send(&by, Duration::from_millis(250), request).await, Err(HttpError::Unknown(_))));
    assert!(start.elapsed() >= Duration::from_millis(190) && start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn what_is_too_large_is_not_taken() {
    fn announces(stream: TcpStream) -> BoxFuture<'static, ()> {
        write(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n").boxed()
    }
    fn chunks(mut stream: TcpStream) -> BoxFuture<'static, ()> {
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            // Never ends: many small chunks.
            let flood = b"4\r\nabcd\r\n".repeat(4_000);
            while stream.write_all(&flood).await.is_ok() {}
        }
        .boxed()
    }
    fn until_closed(mut stream: TcpStream) -> BoxFuture<'static, ()> {
        async move {
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
        }
        .boxed()
    }
    fn headers(stream: TcpStream) -> BoxFuture<'static, ()> {
        let head = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X-A: 1\r\n".repeat(90));
        async move { write(stream, head.as_bytes()).await }.boxed()
    }
    for serve in [announces as Serve, chunks, until_closed, headers] {
        let server = Server::start(serve).await;
        let egress = egress(vec![rule(&server.url("/"), "")]);
        let answer = send(&egress, get(server.url("/"))).await;
        assert!(matches!(answer, Err(HttpError::TooLarge)), "{answer:?}");
    }
    let server = Server::start(fine).await;
    let small = egress(vec![rule(&server.url("/"), "max_response_bytes = 1")]);
    assert!(matches!(send(&small, get(server.url("/"))).await, Err(HttpError::TooLarge)));
    let body = Some(vec![0; REQUEST_MAX_BYTES + 1]);
    let large = Request { method: "POST".into(), body, ..get(server.url("/")) };
    assert!(matches!(send(&small, large).await, Err(HttpError::TooLarge)));
    assert!(matches!(send(&small, get("x".repeat(URL_MAX_BYTES + 1))).await, Err(HttpError::TooLarge)));
}

#[tokio::test]
async fn a_second_request_cannot_be_smuggled_into_the_first() {
    let server = Server::start(fine).await;
    let egress = egress(vec![rule(&server.url("/"), "")]);
    let smuggled = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut request = Request { method: "POST".into(), body: Some(smuggled.into()), ..get(server.url("/")) };
    for (name, value) in [("Content-Length", "0"), ("Transfer-Encoding", "chunked"), ("Host", "a"), ("Connection", "x")]
    {
        request.headers = vec![(name.to_owned(), value.to_owned())];
        is_denied(&send(&egress, request.clone()).await, "is the core's");
    }
    request.headers = vec![("X-A".to_owned(), format!("1\r\n\r\n{smuggled}"))];
    assert!(matches!(send(&egress, request).await, Err(HttpError::Invalid(_))));
    // Line ends in a URL vanish or are escaped when it is parsed.
    send(&egress, get(server.url("/a\r\nX-B: 1\r\n/b c"))).await.unwrap();
    let [head] = server.heads().try_into().unwrap();
    assert!(head.starts_with("GET /aX-B:%201/b%20c HTTP/1.1\r\n"), "{head}");
    let names: BTreeSet<_> = head.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, BTreeSet::from(["", "accept", "host", "user-agent"]));
}

#[tokio::test]
async fn a_plugin_has_a_few_requests_at_once_and_the_next_waits_for_its_turn() {
    fn slow(stream: TcpStream) -> BoxFuture<'static, ()> {
        async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            fine(stream).await;
        }
        .boxed()
    }
    let server = Server::start(slow).await;
    let egress = egress(vec![rule(&server.url("/"), "")]);
    // All but the last have time for the answer.
    let timeouts = std::iter::repeat_n(5_000, OF_ONE_PLUGIN).chain([100]);
    let requests = timeouts.map(|ms| send(&egress, Request { timeout_ms: Some(ms), ..get(server.url("/")) }));
    let mut answers = futures_util::future::join_all(requests).await;
    let last = answers.pop().unwrap();
    assert!(matches!(last, Err(HttpError::NotSent(_))), "{last:?}");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(server.heads().len(), OF_ONE_PLUGIN);
}

#[tokio::test]
async fn secrets_and_certificates_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    let headers = format!("headers = {{ A = '${{file:{}}}' }}", missing.display());
    let refused = |more: &str| match Egress::new(vec![rule("https://a.example/", more)], Outside::new()) {
        Ok(_) => panic!("was taken"),
        Err(error) => error.to_string(),
    };
    assert!(refused(&headers).contains("none"));
    assert!(refused(&format!("ca_file = '{}'", missing.display())).contains("none"));
    let pem = dir.path().join("ca.pem");
    fs::write(&pem, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refused(&format!("ca_file = '{}'", pem.display())).contains("ca.pem"));
    fs::write(&missing, "a\nb").unwrap();
    let two_lines = refused(&headers);
    assert!(two_lines.contains("cannot be sent in a header") && !two_lines.contains("a\nb"), "{two_lines}");
}

#[tokio::test]
async fn https_to_a_server_without_tls_sends_nothing_in_the_clear() {
    let server = Server::start(fine).await;
    let url = format!("https://{}/", server.address);
    let Ok(egress) = Egress::new(vec![rule(&url, "")], Outside::new()) else {
        // A machine without any certificates of its own says so when the rule is loaded; there is nothing to send with.
        return;
    };
    let answer = send(&egress, get(&url)).await;
    assert!(matches!(answer, Err(HttpError::NotSent(_) | HttpError::Unknown(_))), "{answer:?}");
    assert_eq!(server.heads().len(), 0);
}
