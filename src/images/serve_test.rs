use super::*;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::images::Coverage;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{IF_NONE_MATCH, RANGE};
use tempfile::TempDir;

/// A file that takes several chunks.
fn big() -> Vec<u8> {
    (0..700_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect()
}

fn images() -> (TempDir, ImageFiles) {
    let root = TempDir::new().unwrap();
    let image = root.path().join("image1");
    fs::create_dir(&image).unwrap();
    fs::write(image.join("B.xz"), big()).unwrap();
    fs::write(image.join("empty"), "").unwrap();
    for private in ["image.toml", "post_install.sh.hbs", ".hidden"] {
        fs::write(image.join(private), "secret").unwrap();
    }
    fs::write(root.path().join("outside"), "secret").unwrap();
    symlink("../outside", image.join("link")).unwrap();
    symlink("B.xz", image.join("inside")).unwrap();
    symlink(&image, root.path().join("image2")).unwrap();
    fs::create_dir(image.join("folder")).unwrap();
    fs::create_dir(root.path().join("finished")).unwrap();
    fs::write(root.path().join("finished/file"), "no image").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, image.join("fifo"), rustix::fs::FileType::Fifo, Mode::from(0o644), 0).unwrap();
    let files = ImageFiles::new(root.path());
    (root, files)
}

fn header<'a>(answer: &'a Response<FileBody>, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn get(files: &ImageFiles, headers: &[(hyper::header::HeaderName, &str)]) -> Response<FileBody> {
    let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
    respond(&Method::GET, &headers, files.open_path("image1/B.xz").unwrap(), None)
}

async fn bytes(answer: Response<FileBody>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

#[test]
fn nothing_but_plain_files_of_images_is_found() {
    let (_root, files) = images();
    for path in ["image1/B.xz", "image1/B%2exz", "image1/%42.xz", "image1/empty"] {
        assert!(files.open_path(path).is_ok(), "{path}");
    }
    for path in [
        "",
        "/",
        "image1",
        "image1/",
        "image1//B.xz",
        "/image1/B.xz",
        "image1/B.xz/",
        "image1/./B.xz",
        "image1/../outside",
        "image1/..%2foutside",
        "image1/%2e%2e/outside",
        "image1/%2e%2e%2foutside",
        "image1/..%5coutside",
        "image1%2fB.xz",
        "..%2fimage1/B.xz",
        "image1/%252e%252e%252foutside",
        "image1/B%252exz",
        "image1/%2foutside",
        "image1/B.xz%00",
        "image1/%ff",
        "image1/%c0%ae%c0%ae",
        "../images/image1/B.xz",
        "image1/image.toml",
        "image1/%69mage.toml",
        "image1/post_install.sh.hbs",
        "image1/post_install.sh.HBS",
        "image1/post_install.sh%2ehbs",
        "image1/.hidden",
        "image1/%2ehidden",
        "image1/link",
        "image1/inside",
        "image1/folder",
        "image1/folder/",
        "image1/fifo",
        "image2/B.xz",
        "none/B.xz",
        "image1/none",
        "finished/file",
    ] {
        assert!(matches!(files.open_path(path), Err(Refused::NotFound)), "{path}");
    }
    assert!(matches!(ImageFiles::new("/nonexistent").open_path("image1/B.xz"), Err(Refused::NotFound)));
}

#[tokio::test]
async fn a_file_is_served_as_it_is() {
    let (_root, files) = images();
    let answer = get(&files, &[]);
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "content-length"), "700000");
    assert_eq!(header(&answer, "content-type"), "application/x-xz");
    assert_eq!(header(&answer, "accept-ranges"), "bytes");
    assert!(httpdate::parse_http_date(header(&answer, "last-modified")).is_ok());
    assert_eq!(answer.body().size_hint().exact(), Some(700_000));
    let etag = header(&answer, "etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    assert_eq!(bytes(answer).await, big());

    let unchanged = get(&files, &[(IF_NONE_MATCH, &etag)]);
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(&unchanged, "content-length"), "");
    assert!(bytes(unchanged).await.is_empty());

    let empty = respond(&Method::GET, &HeaderMap::new(), files.open_path("image1/empty").unwrap(), None);
    assert_eq!((empty.status(), header(&empty, "content-length")), (StatusCode::OK, "0"));
    assert!(bytes(empty).await.is_empty());
}

#[tokio::test]
async fn a_range_is_served_as_that_part() {
    let (_root, files) = images();
    let answer = get(&files, &[(RANGE, "bytes=300000-599999")]);
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&answer, "content-range"), "bytes 300000-599999/700000");
    assert_eq!(header(&answer, "content-length"), "300000");
    assert_eq!(bytes(answer).await, big()[300_000..600_000]);

    let answer = get(&files, &[(RANGE, "bytes=-5")]);
    assert_eq!(header(&answer, "content-range"), "bytes 699995-699999/700000");
    assert_eq!(bytes(answer).await, big()[699_995..]);

    let answer = get(&files, &[(RANGE, "bytes=700000-")]);
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&answer, "content-range"), "bytes */700000");
    assert_eq!(bytes(answer).await, "the file ends before that range\n");
}

#[tokio::test]
async fn head_tells_the_length_and_sends_nothing() {
    let (_root, files) = images();
    let heard = Arc::new(Recorder::of(700_000));
    let opened = files.open_path("image1/B.xz").unwrap();
    let answer = respond(&Method::HEAD, &HeaderMap::new(), opened, Some(heard.clone()));
    assert_eq!((answer.status(), header(&answer, "content-length")), (StatusCode::OK, "700000"));
    assert!(bytes(answer).await.is_empty());
    assert_eq!(heard.delivered_bytes(), 0);
}

#[tokio::test]
async fn refusals_are_one_plain_sentence() {
    let (_root, files) = images();
    let answer = respond(&Method::POST, &HeaderMap::new(), files.open_path("image1/B.xz").unwrap(), None);
    assert_eq!((answer.status(), header(&answer, "allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    let answer = refusal(&Refused::NotFound);
    assert_eq!((answer.status(), header(&answer, "content-type")), (StatusCode::NOT_FOUND, PLAIN_TEXT));
    assert_eq!(bytes(answer).await, "there is no such file\n");
    let answer = refusal(&Refused::Unreadable(io::Error::other("/srv/secret")));
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(bytes(answer).await, "the file cannot be read\n");
}

/// A service that remembers, and may fail to record.
struct Recorder {
    coverage: Mutex<Coverage>,
    recorded: AtomicUsize,
    failing: AtomicBool,
}

impl Recorder {
    fn of(size_bytes: u64) -> Self {
        Self { coverage: Mutex::new(Coverage::new(size_bytes)), recorded: AtomicUsize::new(0), failing: false.into() }
    }

    fn delivered_bytes(&self) -> u64 {
        self.coverage.lock().unwrap().delivered_bytes()
    }

    fn recorded(&self) -> usize {
        self.recorded.load(Ordering::SeqCst)
    }
}

impl Delivery for Recorder {
    fn handing(&self, bytes: Range<u64>) -> bool {
        let mut coverage = self.coverage.lock().unwrap();
        coverage.add(bytes);
        coverage.is_whole()
    }

    fn before_last(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            if self.failing.load(Ordering::SeqCst) {
                return Err(io::Error::other("the store is down"));
            }
            self.recorded.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }
}

fn get_heard(files: &ImageFiles, range: Option<&str>, heard: &Arc<Recorder>) -> FileBody {
    let headers = range.map(|range| (RANGE, range.parse().unwrap())).into_iter().collect();
    let opened = files.open_path("image1/B.xz").unwrap();
    respond(&Method::GET, &headers, opened, Some(heard.clone())).into_body()
}

#[tokio::test]
async fn the_last_chunk_leaves_only_after_the_delivery_was_recorded() {
    let (_root, files) = images();
    let heard = Arc::new(Recorder::of(700_000));
    let mut body = get_heard(&files, None, &heard);
    let mut sent_bytes = 0;
    while let Some(frame) = body.frame().await {
        let length = frame.unwrap().into_data().unwrap().len();
        sent_bytes += length as u64;
        assert_eq!(heard.delivered_bytes(), sent_bytes);
        assert_eq!(heard.recorded(), usize::from(sent_bytes == 700_000));
    }
    assert_eq!(sent_bytes, 700_000);
}

#[tokio::test]
async fn an_aborted_transfer_is_never_recorded_as_whole() {
    let (_root, files) = images();
    let heard = Arc::new(Recorder::of(700_000));
    let mut body = get_heard(&files, None, &heard);
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    drop(body);
    assert_eq!((heard.delivered_bytes(), heard.recorded()), (first.len() as u64, 0));
}

#[tokio::test]
async fn parts_fetched_one_by_one_are_recorded_when_they_make_the_whole() {
    let (_root, files) = images();
    let heard = Arc::new(Recorder::of(700_000));
    for range in ["bytes=500000-", "bytes=0-99", "bytes=50-399999"] {
        get_heard(&files, Some(range), &heard).collect().await.unwrap();
        assert_eq!(heard.recorded(), 0, "{range}");
    }
    get_heard(&files, Some("bytes=400000-499999"), &heard).collect().await.unwrap();
    assert_eq!(heard.recorded(), 1);
}

#[tokio::test]
async fn a_payload_that_cannot_be_recorded_is_not_delivered() {
    let (_root, files) = images();
    let heard = Arc::new(Recorder::of(700_000));
    heard.failing.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let mut body = get_heard(&files, None, &heard);
        let mut sent_bytes = 0;
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(frame) => sent_bytes += frame.into_data().unwrap().len(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "the store is down");
        assert!(sent_bytes < 700_000);
        assert!(!body.is_end_stream());
    }
    heard.failing.store(false, Ordering::SeqCst);
    assert_eq!(get_heard(&files, None, &heard).collect().await.unwrap().to_bytes(), big());
}

#[tokio::test]
async fn a_file_that_became_shorter_ends_the_connection_early() {
    let (root, files) = images();
    let mut body = get_heard(&files, None, &Arc::new(Recorder::of(700_000)));
    body.frame().await.unwrap().unwrap();
    File::options().write(true).open(root.path().join("image1/B.xz")).unwrap().set_len(300_000).unwrap();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// What a machine gets over a connection: everything until the server closes it.
async fn fetched_over_http(files: ImageFiles, heard: Arc<Recorder>) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let opened = files.open_path(request.uri().path().trim_start_matches('/')).unwrap();
        let answer = respond(request.method(), request.headers(), opened, Some(heard.clone()));
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(server), service);
    let served = tokio::spawn(connection);
    let request = b"GET /image1/B.xz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    served.await.unwrap().ok();
    got
}

#[tokio::test]
async fn a_machine_sees_a_broken_transfer_when_its_payload_cannot_be_recorded() {
    let (_root, files) = images();
    let heard = Arc::new(Recorder::of(700_000));
    let got = fetched_over_http(files.clone(), heard.clone()).await;
    assert!(got.ends_with(&big()));
    assert_eq!(heard.recorded(), 1);

    let heard = Arc::new(Recorder::of(700_000));
    heard.failing.store(true, Ordering::SeqCst);
    let got = fetched_over_http(files, heard).await;
    let head = String::from_utf8_lossy(&got[..100]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(String::from_utf8_lossy(&got).contains("content-length: 700000\r\n"));
    // How much of what went before still arrives is the connection's affair.
    assert!(got.len() < 700_000, "{}", got.len());
}
