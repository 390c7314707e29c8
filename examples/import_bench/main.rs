//! How fast an image is imported, as a ratio within one run: to what `xz -dc FILE | sha256sum` takes for its disk image. Run
//! it by `cargo xtask bench import`.
//!
//! The import is the server's own, without the socket before it: it stores the archive, sums every file, decompresses the disk
//! image, sums that and syncs. Both take turns, round after round, so that whatever else the machine does befalls both alike.
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use kiwispray::domain::DevicePolicy;
use kiwispray::images::{Contents, ImportRequest, KernelArgs, import};

/// The server's own, see `src/main.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the import promises, as a share of the pipe's throughput.
const TARGET: f64 = 0.9;

/// Measure how fast images are imported.
#[derive(Parser)]
struct Arguments {
    /// Folder for the archives and the images, emptied first; on a real disk.
    folder: PathBuf,
    /// Size of the disk image in megabytes.
    #[arg(long, default_value_t = 600)]
    raw_mb: usize,
    /// How often each thing is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// An archive, and the same disk image as a file of its own.
struct Subject {
    what: &'static str,
    archive: PathBuf,
    payload: PathBuf,
    /// Of each round: the import, and the pipe.
    rounds: Vec<(Took, Took)>,
}

/// What something took.
#[derive(Clone, Copy, Debug)]
struct Took {
    wall: Duration,
    /// Of all processors together.
    processor: Duration,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    ensure!(arguments.rounds > 0 && arguments.raw_mb > 0, "something must be measured");
    let folder = &arguments.folder;
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let raw = folder.join("raw");
    write_raw(&raw, arguments.raw_mb)?;
    let mut subjects = vec![
        // As KIWI calls it.
        subject(folder, "several blocks", &raw, &["--threads=0", "--block-size=24MiB"])?,
        subject(folder, "one block", &raw, &["--threads=1"])?,
    ];
    let size = fs::metadata(&raw)?.len();
    fs::remove_file(&raw)?;
    // The first round warms up and is not counted.
    for round in 0..=arguments.rounds {
        for subject in &mut subjects {
            let pipe = time(|| pipe(&subject.payload))?;
            let import = time(|| import_once(folder, &subject.archive))?;
            if round > 0 {
                subject.rounds.push((import, pipe));
            }
        }
    }
    let failed = report(&subjects, size);
    fs::remove_dir_all(folder)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints everything; whether the target is missed.
fn report(subjects: &[Subject], raw_bytes: u64) -> bool {
    let head = ["import MB/s", "pipe MB/s", "ratio", "(least-most)", "target", "", "processor time / pipe's"];
    let [import, pipe, ratio, range, target, verdict, processor] = head;
    println!(
        "\n{:<16} {import:>11} {pipe:>11} {ratio:>6} {range:>13} {target:>7} {verdict:>11} {processor:>23}",
        "disk image of"
    );
    let mut failed = false;
    for subject in subjects {
        let median_of = |of: fn(&(Took, Took)) -> f64| median(subject.rounds.iter().map(of));
        let megabytes = raw_bytes as f64 / 1e6;
        let import = megabytes / median_of(|round| round.0.wall.as_secs_f64()).1;
        let pipe = megabytes / median_of(|round| round.1.wall.as_secs_f64()).1;
        let (least, ratio, most) = median_of(|(import, pipe)| pipe.wall.as_secs_f64() / import.wall.as_secs_f64());
        let of_processor =
            |(import, pipe): &(Took, Took)| import.processor.as_secs_f64() / pipe.processor.as_secs_f64();
        let processor = median_of(of_processor).1;
        let verdict = if ratio >= TARGET { "pass" } else { "falls short" };
        failed |= ratio < TARGET;
        let (what, range, target) = (subject.what, format!("({least:.2}-{most:.2})"), format!(">= {TARGET}"));
        println!(
            "{what:<16} {import:>11.0} {pipe:>11.0} {ratio:>6.2} {range:>13} {target:>7} {verdict:>11} {processor:>23.2}"
        );
    }
    failed
}

/// The least, the median and the most.
fn median(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

fn time(work: impl FnOnce() -> Result<()>) -> Result<Took> {
    let (begin, before) = (Instant::now(), processor_time()?);
    work()?;
    Ok(Took { wall: begin.elapsed(), processor: processor_time()?.saturating_sub(before) })
}

/// Used so far by this process and those that it waited for.
fn processor_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(") ").context("no name in /proc/self/stat")?;
    let ticks = fields.split(' ').skip(11).take(4).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    // Linux shows hundredths of a second to all programs.
    Ok(Duration::from_millis(10) * ticks)
}

fn pipe(payload: &Path) -> Result<()> {
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", "xz -dc \"$0\" | sha256sum"]).arg(payload).output().context("cannot run sh")?;
    ensure!(output.status.success() && output.stderr.is_empty(), "xz failed: {output:?}");
    Ok(())
}

fn import_once(folder: &Path, archive: &Path) -> Result<()> {
    let request = ImportRequest {
        name: "image".parse()?,
        contents: Contents::Built { file: None },
        device: Some(DevicePolicy::First),
        append: KernelArgs::default(),
        inventory: false,
        replace: true,
        keep_free_bytes: 0,
    };
    import(&folder.join("images"), &request, File::open(archive)?, |_| {})?;
    Ok(())
}

/// Compresses the disk image and puts it into an archive as KIWI does, where the sum comes first.
fn subject(folder: &Path, what: &'static str, raw: &Path, xz: &[&str]) -> Result<Subject> {
    let place = folder.join(what);
    fs::create_dir(&place)?;
    let payload = place.join("B.xz");
    let mut compress = Command::new("xz");
    // A low level takes less time to compress, and not much less to decompress.
    let status =
        compress.args(["-1", "--keep", "--stdout"]).args(xz).arg(raw).stdout(File::create(&payload)?).status()?;
    ensure!(status.success(), "xz failed: {status}");
    let sum = Command::new("sha256sum").arg(raw).output()?.stdout;
    let sum = String::from_utf8(sum)?.split(' ').next().unwrap_or_default().to_owned();
    fs::write(place.join("B.sha256"), format!("{sum} {} 1\n", fs::metadata(raw)?.len()))?;
    fs::write(place.join("B.append"), "console=ttyS0\n")?;
    // In a real archive, they have 14 and 38 MB for 592 of the disk image.
    let raw_bytes = usize::try_from(fs::metadata(raw)?.len())?;
    fs::write(place.join("pxeboot.B.kernel"), vec![1; raw_bytes / 42])?;
    fs::write(place.join("pxeboot.B.initrd"), vec![2; raw_bytes / 16])?;
    let archive = folder.join(format!("{what}.install.tar"));
    let names = ["B.append", "B.sha256", "B.xz", "pxeboot.B.initrd", "pxeboot.B.kernel"];
    let status = Command::new("tar").arg("-C").arg(&place).arg("-cf").arg(&archive).args(names).status()?;
    ensure!(status.success(), "tar failed: {status}");
    let bytes = fs::metadata(&payload)?.len();
    println!("{what}: {} MB of disk image in {} MB", raw_bytes / 1_000_000, bytes / 1_000_000);
    Ok(Subject { what, archive, payload, rounds: Vec::new() })
}

/// Something like a disk image: free space, text, programs, and what is compressed already.
fn write_raw(path: &Path, megabytes: usize) -> Result<()> {
    const PAGE_BYTES: usize = 4096;
    const WORDS: usize = 4096;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // xorshift64, by Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<[u8; 8]> = (0..WORDS).map(|_| random().to_be_bytes()).collect();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut page = Vec::with_capacity(PAGE_BYTES);
    for _ in 0..megabytes * 1_000_000 / PAGE_BYTES {
        page.clear();
        let kind = random() % 100;
        while page.len() < PAGE_BYTES {
            match kind {
                0..30 => page.resize(PAGE_BYTES, 0),
                30..45 => page.extend_from_slice(&random().to_le_bytes()),
                // Few words are frequent and most are rare.
                _ => {
                    let place = (random() as usize % WORDS) & (random() as usize);
                    let length = 2 + random() as usize % 7;
                    page.extend(words.get(place).into_iter().flatten().take(length));
                }
            }
        }
        page.truncate(PAGE_BYTES);
        file.write_all(&page)?;
    }
    file.flush()?;
    Ok(())
}
