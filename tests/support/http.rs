//! A client of HTTP/1.1 that is small enough to send what no proper client would.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    server: SocketAddr,
    from: Ipv4Addr,
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server, from: Ipv4Addr::LOCALHOST }
    }

    /// The same, but at another address of this machine.
    pub(crate) fn from(self, from: Ipv4Addr) -> Self {
        Self { from, ..self }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::new(IpAddr::V4(self.from), 0)).unwrap();
        connect(&socket, &self.server).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    #[track_caller]
    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers, b"")
    }

    #[track_caller]
    pub(crate) fn head(&self, path: &str) -> Response {
        self.request("HEAD", path, &[], b"")
    }

    /// Posts a form.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, form: &str) -> Response {
        self.request("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes())
    }

    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut request = head_of(method, path, headers);
        if !body.is_empty() || method == "POST" {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let bytes = [request.as_bytes(), b"\r\n", body].concat();
        self.send(&bytes).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// Sends these very bytes; none if the server hangs up without an answer.
    pub(crate) fn send(&self, bytes: &[u8]) -> Option<Response> {
        let mut stream = self.connect();
        // A server that refuses a request need not read all of it.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::ConnectionReset) => panic!("{error}"),
            Ok(_) | Err(_) => Response::parse(&answer),
        }
    }

    /// Gets the beginning of a file: at least this many bytes of it have arrived. The transfer goes on as long as the
    /// stream lives.
    pub(crate) fn begin(&self, path: &str, bytes: usize) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(format!("{}\r\n", head_of("GET", path, &[])).as_bytes()).unwrap();
        let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let read = stream.read(&mut buffer).unwrap();
            assert_ne!(read, 0, "the transfer of {path} ended: {:?}", Response::parse(&seen).map(|r| r.status));
            seen.extend_from_slice(&buffer[..read]);
            let body = seen.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| seen.len() - at - 4);
            if body >= bytes {
                return stream;
            }
        }
    }
}

fn head_of(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: kiwispray\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

impl Response {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Some(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// It has this status, and is a short sentence if it is a refusal.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        // The answer to HEAD has none.
        if status >= 400 && !self.body.is_empty() {
            let text = self.text();
            assert!(text.len() < 300 && text.ends_with('\n') && text.trim_end().lines().count() == 1, "{text:?}");
        }
        self
    }
}
