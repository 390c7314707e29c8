//! What a backup costs the machines that boot meanwhile: `/bootstrap` with nothing beside it and during `kiwispray backup`,
//! in turns within one run.
//!
//! Half of the clients are finished hosts, half are hosts that install, for each of whose boots the server waits for its
//! disk. Clients pause between questions, as a server that has more to do than it can measures only its queue.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench_server::{IMAGE, Server, question};

/// The 99th percentile during a backup is at most this many times that without one.
const TARGET: f64 = 3.0;
const HOSTS: u32 = 100_000;
const CLIENTS: u32 = 16;
/// Hosts for which one client asks, at most.
const HOSTS_OF_CLIENT: u32 = 256;
const PAUSE: Duration = Duration::from_millis(10);
/// Fewer answers have no 99th percentile.
const FEWEST: usize = 1_000;

const IDLE: u8 = 0;
const BACKUP: u8 = 1;
const END: u8 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many hosts the server knows. The target is for the default number.
    #[arg(long, default_value_t = HOSTS, value_parser = clap::value_parser!(u32).range(i64::from(CLIENTS)..))]
    hosts: u32,
    /// How often a backup is made, after as long without one; more if they are too short to tell.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure this kiwispray, and build none.
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
}

pub(crate) fn run(program: &Path, arguments: &Arguments) -> Result<()> {
    let server = Server::start(program, "bench-backup-data")?;
    let took = server.migrate(arguments.hosts, |n| if is_finished(n) { "finished" } else { IMAGE })?;
    println!("{} hosts, taken over in {took:.1?}; {CLIENTS} clients, {PAUSE:?} between questions", arguments.hosts);
    let mut clients = (0..CLIENTS)
        .map(|place| Client::connect(&server.address, place, arguments.hosts))
        .collect::<Result<Vec<_>>>()?;
    // Each host once, so that nothing is left to learn of it.
    together(&mut clients, Client::ask_for_each)?;
    let doing = AtomicU8::new(IDLE);
    let (answers, backups) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| together(&mut clients, |client| client.ask_until_end(&doing)));
        let backups = alternate(&server, arguments.rounds.max(1), &doing);
        doing.store(END, Ordering::SeqCst);
        let answers = asking.join().ok().context("the clients panicked")?;
        // Why the clients failed tells more than that a backup did.
        anyhow::Ok((answers?, backups?))
    })?;
    report(arguments, answers.into_iter().flatten().collect(), &backups)
}

fn report(arguments: &Arguments, answers: Vec<Answer>, backups: &[Duration]) -> Result<()> {
    let (during, idle): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.during_backup);
    let (idle, during) = (Figures::of(idle)?, Figures::of(during)?);
    let each = backups.iter().sum::<Duration>() / u32::try_from(backups.len().max(1))?;
    println!("  {} backups of {each:.2?} each", backups.len());
    println!("  /bootstrap         answers       p50       p99       max");
    for (name, figures) in [("idle", &idle), ("during a backup", &during)] {
        let Figures { count, p50, p99, max } = figures;
        println!("  {name:<16} {count:>9} {p50:>9.2?} {p99:>9.2?} {max:>9.2?}");
    }
    let ratio = during.p99.as_secs_f64() / idle.p99.as_secs_f64();
    println!("  p99 during a backup / idle: {ratio:.2}, {TARGET} at most");
    ensure!(
        arguments.hosts != HOSTS || ratio <= TARGET,
        "the p99 during a backup is {ratio:.2} times that without one, and {TARGET} is the target"
    );
    Ok(())
}

/// As long without a backup as with one, again and again, until there is enough of both. How long the backups took.
fn alternate(server: &Server, rounds: usize, doing: &AtomicU8) -> Result<Vec<Duration>> {
    let mut backups = Vec::new();
    // In which all clients get twice the fewest answers, if each came at once.
    let enough = PAUSE * u32::try_from(FEWEST)? * 2 / CLIENTS;
    while backups.len() < rounds || backups.iter().sum::<Duration>() < enough {
        let before = backups.last().copied().unwrap_or_default().max(Duration::from_secs(1));
        std::thread::sleep(before);
        doing.store(BACKUP, Ordering::SeqCst);
        let took = server.timed(&["backup", "measured.backup", "--replace"]);
        doing.store(IDLE, Ordering::SeqCst);
        backups.push(took?);
    }
    Ok(backups)
}

/// Lets every client do something, all at once.
fn together<T: Send>(clients: &mut [Client], act: impl Fn(&mut Client) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || act(client))).collect();
        threads.into_iter().map(|thread| thread.join().ok().context("a client panicked")?).collect()
    })
}

/// Every second host. All hosts of a client are of one kind, as the distance between them is even.
fn is_finished(host: u32) -> bool {
    host.is_multiple_of(2)
}

struct Answer {
    took: Duration,
    /// Whether a backup ran at its begin or end.
    during_backup: bool,
}

struct Figures {
    count: usize,
    p50: Duration,
    p99: Duration,
    max: Duration,
}

impl Figures {
    fn of(answers: Vec<Answer>) -> Result<Self> {
        let mut times: Vec<Duration> = answers.into_iter().map(|answer| answer.took).collect();
        times.sort();
        let count = times.len();
        ensure!(count >= FEWEST, "only {count} answers, too few to tell");
        let at = |percent: usize| times.get((count * percent / 100).min(count - 1)).copied().unwrap_or_default();
        Ok(Self { count, p50: at(50), p99: at(99), max: at(100) })
    }
}

/// A connection on which some hosts ask, one after the other.
struct Client {
    stream: TcpStream,
    /// Their questions, and what begins their answers.
    hosts: Vec<(String, &'static str)>,
    turn: usize,
    answer: Vec<u8>,
}

impl Client {
    fn connect(address: &str, place: u32, hosts: u32) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot connect to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let of_client = HOSTS_OF_CLIENT.min(hosts / CLIENTS);
        // Odd, and as far as the hosts of all clients can be apart: so they lie all over the store.
        let apart = (hosts / (of_client * CLIENTS) - 1) | 1;
        let numbers = (0..of_client).map(|turn| 1 + (turn * CLIENTS + place) * apart);
        let asked = numbers.map(|number| {
            let outcome = if is_finished(number) { "local" } else { "boot" };
            let question = question(number);
            (format!("GET {question} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: iPXE/1.21\r\n\r\n"), outcome)
        });
        Ok(Self { stream, hosts: asked.collect(), turn: 0, answer: Vec::new() })
    }

    fn ask_for_each(&mut self) -> Result<()> {
        (0..self.hosts.len()).try_for_each(|_| self.ask().map(drop))
    }

    fn ask_until_end(&mut self, doing: &AtomicU8) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        loop {
            let before = doing.load(Ordering::SeqCst);
            if before == END {
                return Ok(answers);
            }
            let took = self.ask()?;
            let during_backup = before == BACKUP || doing.load(Ordering::SeqCst) == BACKUP;
            answers.push(Answer { took, during_backup });
            std::thread::sleep(PAUSE);
        }
    }

    /// Asks for the next host, whose answer must be what such a host gets.
    fn ask(&mut self) -> Result<Duration> {
        let (request, outcome) = self.hosts.get(self.turn % self.hosts.len().max(1)).context("a client has no host")?;
        self.turn += 1;
        let begun = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        self.answer.clear();
        let mut piece = [0; 16 * 1024];
        while !is_whole(&self.answer)? {
            let length = self.stream.read(&mut piece).context("the server does not answer")?;
            ensure!(length > 0, "the server closed a connection");
            self.answer.extend_from_slice(piece.get(..length).unwrap_or_default());
        }
        let took = begun.elapsed();
        let answer = String::from_utf8_lossy(&self.answer);
        let good =
            answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("x-kiwispray-outcome: {outcome}\r\n"));
        ensure!(good, "a host that should get {outcome} was answered:\n{answer}");
        Ok(took)
    }
}

fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(answer.get(..head).unwrap_or_default())?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no content-length")?;
    Ok(answer.len() == head + 4 + length.parse::<usize>()?)
}
