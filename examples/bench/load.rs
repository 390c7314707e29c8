//! Two kinds of load from [`CONNECTIONS`] clients: requests over loopback, from one thread that does nothing else, and
//! the same commits straight at a store.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use kiwispray::domain::{self, BootId, Fleet, Offer, Writes};
use kiwispray::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::machines::{self, CONNECTIONS, Doing};
use crate::processors::{self, Time};

/// What one round achieved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Answers per second.
    pub(crate) per_second: f64,
    /// Processor time of everything but the clients, in microseconds per answer.
    pub(crate) server_us: f64,
    /// Processor time of the clients, in microseconds per answer; none where they cannot be told apart.
    pub(crate) client_us: Option<f64>,
}

impl Sample {
    fn new(answers: u64, elapsed: Duration, whole: Time, clients: Option<Time>) -> Self {
        let answers = answers.max(1) as f64;
        let each = |time: Time| time.as_secs_f64() * 1e6 / answers;
        Self {
            per_second: answers / elapsed.as_secs_f64(),
            server_us: each(whole.saturating_sub(clients.unwrap_or_default())),
            client_us: clients.map(each),
        }
    }
}

/// Asks `/bootstrap` over kept connections. Every answer must be what such a host gets.
pub(crate) async fn requests(server: SocketAddr, hosts: u64, doing: Doing, time: Duration) -> Result<Sample> {
    let whole = processors::used_by_process()?;
    let clients = std::thread::Builder::new().name("clients".to_owned()).spawn(move || {
        let before = processors::used_by_thread()?;
        let begin = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let asking = (0..CONNECTIONS).map(|connection| ask(server, hosts, doing, connection, begin + time));
        let answers: u64 = runtime.block_on(try_join_all(asking))?.into_iter().sum();
        anyhow::Ok((answers, begin.elapsed(), processors::used_by_thread()?.saturating_sub(before)))
    })?;
    let joined = tokio::task::spawn_blocking(move || clients.join()).await?;
    let (answers, elapsed, clients) = joined.ok().context("the clients panicked")??;
    Ok(Sample::new(answers, elapsed, processors::used_by_process()?.saturating_sub(whole), Some(clients)))
}

async fn ask(server: SocketAddr, hosts: u64, doing: Doing, connection: u64, ends: Instant) -> Result<u64> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let outcome: &[u8] = match doing {
        Doing::Installing => b"x-kiwispray-outcome: boot\r\n",
        Doing::Finished => b"x-kiwispray-outcome: local\r\n",
        Doing::Waiting => b"x-kiwispray-outcome: hold\r\n",
    };
    let mut answer = Vec::with_capacity(16 * 1024);
    let mut turn = 0;
    while Instant::now() < ends {
        let question = machines::question(doing.host(hosts, connection, turn));
        let request = format!("GET {question} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: iPXE/1.21\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !is_whole(&answer)? {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the server closed a connection");
        }
        let good = answer.starts_with(b"HTTP/1.1 200 ") && find(&answer, outcome).is_some();
        ensure!(good, "a host that is {doing:?} was answered:\n{}", String::from_utf8_lossy(&answer));
        turn += 1;
    }
    Ok(turn)
}

fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(head_bytes) = find(answer, b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(answer.get(..head_bytes).unwrap_or_default())?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no content-length")?;
    Ok(answer.len() == head_bytes + 4 + length.parse::<usize>()?)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Recognises installing hosts and commits their boots, as `/bootstrap` does, with nothing else around it.
pub(crate) async fn commits(store: &Arc<Store>, hosts: u64, time: Duration) -> Result<Sample> {
    let whole = processors::used_by_process()?;
    let begin = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|client| tokio::spawn(commit_boots(Arc::clone(store), hosts, client, begin + time)))
        .collect();
    let mut answers = 0;
    for client in clients {
        answers += client.await??;
    }
    let used = processors::used_by_process()?.saturating_sub(whole);
    Ok(Sample::new(answers, begin.elapsed(), used, None))
}

async fn commit_boots(store: Arc<Store>, hosts: u64, client: u64, ends: Instant) -> Result<u64> {
    let mut turn = 0;
    while Instant::now() < ends {
        let number = Doing::Installing.host(hosts, client, turn);
        let found = store.candidates(&machines::identity(number)?).await?;
        let host = found.hosts.first().context("a host is missing")?;
        let secret = (u128::from(turn) << 64 | u128::from(number)).to_be_bytes();
        let offer = Offer {
            bootid: BootId::new(host.id, secret),
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            image: Some(host.states.current().clone()),
            writes: Writes::Disk,
            detour: false,
        };
        let offered = domain::offer(host, offer, &Fleet::default(), Timestamp::UNIX_EPOCH);
        store.commit(host, offered.map_err(|hold| anyhow::anyhow!("{hold}"))?).await?;
        turn += 1;
    }
    Ok(turn)
}
