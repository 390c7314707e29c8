//! How long the disk takes to make a write durable: every answer that changes a host waits for that.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Finding;

const CHECK: &str = "disk";
const ROUNDS: usize = 7;
/// A disk without a cache that survives power loss takes some 5 to 20 ms.
const SLOW: Duration = Duration::from_millis(50);

/// The median of some small synced writes to a file of its own, which is gone afterwards.
pub(super) fn look(data_dir: &Path) -> io::Result<Duration> {
    let mut file = tempfile::Builder::new().prefix(".doctor-").tempfile_in(data_dir)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        file.write_all(&[0; 4096])?;
        file.as_file().sync_data()?;
        times.push(begin.elapsed());
    }
    times.sort();
    Ok(times.get(ROUNDS / 2).copied().unwrap_or_default())
}

pub(super) fn judge(median: &io::Result<Duration>, data_dir: &Path) -> Vec<Finding> {
    let subject = data_dir.display().to_string();
    vec![match median {
        Ok(median) => {
            let said = format!("makes a write durable in {:.1} ms", median.as_secs_f64() * 1000.0);
            if *median > SLOW {
                let remedy = "machines wait that long at every step: put the data directory on a local SSD";
                Finding::warn(CHECK, subject, said, remedy)
            } else {
                Finding::ok(CHECK, subject, said)
            }
        }
        Err(error) => Finding::fail(
            CHECK,
            subject,
            format!("cannot be written to: {error}"),
            "check that its disk is mounted writable, and run this as the server's user",
        ),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_slow_disk_warns_and_one_that_cannot_be_written_to_fails() {
        let verdict = |median| judge(&median, Path::new("/data"))[0].verdict;
        assert_eq!(verdict(Ok(Duration::from_millis(4))), Verdict::Ok);
        assert_eq!(verdict(Ok(Duration::from_millis(400))), Verdict::Warn);
        assert_eq!(verdict(Err(io::ErrorKind::ReadOnlyFilesystem.into())), Verdict::Fail);
    }

    #[test]
    fn looking_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        look(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
