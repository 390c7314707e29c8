//! Decompresses a payload while it is stored, to know that it is whole and what it sums to.
//!
//! Invariant: [`RawCheck::finish`] answers only if every xz stream of the payload decompressed to its end with a valid
//! check of its own and nothing but padding followed. Nothing decompressed is kept, so a bomb costs time at most, and
//! that ends at the size limit.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{MtStreamBuilder, Stream};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};

use super::kiwi::Algorithm;

/// Memory that a header of an archive may ask for: xz's largest preset needs 65 MiB.
const MEMORY_LIMIT_BYTES: u64 = 256 << 20;
/// Memory up to which blocks are decompressed side by side: two of the 24 MiB blocks of `xz -6 -T0` per core.
const PARALLEL_MEMORY_BYTES: u64 = 512 << 20;
const THREADS_MOST: usize = 8;
/// Chunks on their way to the decompressing thread; with 64 KiB each this is 2 MiB.
const CHUNKS_UNDER_WAY: usize = 32;
/// Decompressed pieces on their way to the summing thread: 2 MiB.
const PIECES_UNDER_WAY: usize = 8;
const PIECE_BYTES: usize = 256 * 1024;

/// A payload on its way through decompression.
pub(super) struct RawCheck {
    chunks: SyncSender<Vec<u8>>,
    thread: JoinHandle<Result<RawSums, PayloadError>>,
}

/// What a payload decompressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawSums {
    pub(super) size_bytes: u64,
    sums: Vec<(Algorithm, Vec<u8>)>,
}

/// Why a payload is not whole.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// No xz data, damaged xz data, or xz data that ends too early.
    #[error("the disk image does not decompress: {0}")]
    Xz(io::Error),
    /// More raw bytes than the checksum file speaks of, or than any disk image has.
    #[error("the disk image decompresses to more than {0} bytes")]
    TooLarge(u64),
    /// The system could not start a thread, or the thread died.
    #[error("the disk image could not be checked: {0}")]
    Thread(io::Error),
}

impl RawCheck {
    /// Starts a thread that computes these sums, up to this many raw bytes.
    pub(super) fn start(algorithms: &[Algorithm], raw_limit_bytes: u64) -> Result<Self, PayloadError> {
        let (chunks, incoming) = sync_channel(CHUNKS_UNDER_WAY);
        let sums = Sums::new(algorithms);
        let work = move || {
            let source = Incoming { chunks: incoming, chunk: Vec::new(), read_bytes: 0 };
            decompress(source, sums, raw_limit_bytes)
        };
        let thread = thread::Builder::new().name("image-check".to_owned()).spawn(work).map_err(PayloadError::Thread)?;
        Ok(Self { chunks, thread })
    }

    /// The next compressed bytes; `false` once the thread has given up, for the reason that [`Self::finish`] tells.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.chunks.send(bytes.to_vec()).is_ok()
    }

    /// The compressed bytes have ended: waits for the sums.
    pub(super) fn finish(self) -> Result<RawSums, PayloadError> {
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|_| Err(PayloadError::Thread(io::Error::other("the thread panicked"))))
    }
}

/// Decompresses in this thread and sums in another, as each takes long.
fn decompress(source: Incoming, mut sums: Sums, raw_limit_bytes: u64) -> Result<RawSums, PayloadError> {
    let (pieces, to_sum) = sync_channel::<Vec<u8>>(PIECES_UNDER_WAY);
    let (used, to_use_again) = sync_channel::<Vec<u8>>(PIECES_UNDER_WAY);
    thread::scope(|scope| {
        let sum = move || {
            for piece in to_sum {
                sums.update(&piece);
                // If there are enough to use again, this one goes.
                let _ = used.try_send(piece);
            }
            sums.finish()
        };
        let summing = thread::Builder::new().name("image-sum".to_owned()).spawn_scoped(scope, sum);
        let summing = summing.map_err(PayloadError::Thread)?;
        let mut raw = XzStreams::new(source, decoder_threads()).map_err(PayloadError::Xz)?;
        let mut size_bytes = 0;
        loop {
            let mut piece = to_use_again.try_recv().unwrap_or_default();
            piece.resize(PIECE_BYTES, 0);
            let read = raw.read(&mut piece).map_err(PayloadError::Xz)?;
            if read == 0 {
                break;
            }
            size_bytes += read as u64;
            if size_bytes > raw_limit_bytes {
                return Err(PayloadError::TooLarge(raw_limit_bytes));
            }
            piece.truncate(read);
            if pieces.send(piece).is_err() {
                break;
            }
        }
        drop(pieces);
        let sums = summing.join().map_err(|_| PayloadError::Thread(io::Error::other("the thread panicked")))?;
        Ok(RawSums { size_bytes, sums })
    })
}

impl RawSums {
    /// The sum of this algorithm, if it was asked for.
    pub(super) fn sum(&self, algorithm: Algorithm) -> Option<&[u8]> {
        self.sums.iter().find(|(known, _)| *known == algorithm).map(|(_, sum)| sum.as_slice())
    }
}

#[derive(Default)]
struct Sums {
    md5: Option<Md5>,
    sha256: Option<Sha256>,
    sha512: Option<Sha512>,
}

impl Sums {
    fn new(algorithms: &[Algorithm]) -> Self {
        let mut sums = Self::default();
        for algorithm in algorithms {
            match algorithm {
                Algorithm::Md5 => sums.md5 = Some(Md5::new()),
                Algorithm::Sha256 => sums.sha256 = Some(Sha256::new()),
                Algorithm::Sha512 => sums.sha512 = Some(Sha512::new()),
            }
        }
        sums
    }

    fn update(&mut self, bytes: &[u8]) {
        self.md5.iter_mut().for_each(|sum| sum.update(bytes));
        self.sha256.iter_mut().for_each(|sum| sum.update(bytes));
        self.sha512.iter_mut().for_each(|sum| sum.update(bytes));
    }

    fn finish(self) -> Vec<(Algorithm, Vec<u8>)> {
        let md5 = self.md5.map(|sum| (Algorithm::Md5, sum.finalize().to_vec()));
        let sha256 = self.sha256.map(|sum| (Algorithm::Sha256, sum.finalize().to_vec()));
        let sha512 = self.sha512.map(|sum| (Algorithm::Sha512, sum.finalize().to_vec()));
        [md5, sha256, sha512].into_iter().flatten().collect()
    }
}

fn decoder_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MOST)
}

/// All xz streams of a source, one after the other: `xz` writes one, `pixz`, `pxz` and `cat` make several.
///
/// liblzma's parallel decoder stops at the end of a stream, and its other one is not parallel; hence this.
pub(super) struct XzStreams<R> {
    /// `None` after an error or the end.
    decoder: Option<XzDecoder<R>>,
    threads: u32,
}

impl<R: BufRead> XzStreams<R> {
    pub(super) fn new(source: R, threads: usize) -> io::Result<Self> {
        let threads = u32::try_from(threads).unwrap_or(1);
        Ok(Self { decoder: Some(XzDecoder::new_stream(source, stream_decoder(threads)?)), threads })
    }

    /// Goes on to the next stream, past padding; `false` at the end of the source.
    fn next_stream(&mut self) -> io::Result<bool> {
        let Some(decoder) = self.decoder.take() else { return Ok(false) };
        let mut source = decoder.into_inner();
        let mut padding_bytes = 0;
        loop {
            let buffer = source.fill_buf()?;
            if buffer.is_empty() {
                return if padding_bytes % 4 == 0 { Ok(false) } else { Err(garbage()) };
            }
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            let at_data = zeros < buffer.len();
            source.consume(zeros);
            padding_bytes += zeros;
            if at_data {
                break;
            }
        }
        if padding_bytes % 4 != 0 {
            return Err(garbage());
        }
        self.decoder = Some(XzDecoder::new_stream(source, stream_decoder(self.threads)?));
        Ok(true)
    }
}

impl<R: BufRead> Read for XzStreams<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let read = decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if !self.next_stream()? {
                break;
            }
        }
        Ok(0)
    }
}

fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "there is something else behind the xz data")
}

fn stream_decoder(threads: u32) -> io::Result<Stream> {
    let decoder = if threads > 1 {
        let mut builder = MtStreamBuilder::new();
        builder.threads(threads).memlimit_threading(PARALLEL_MEMORY_BYTES).memlimit_stop(MEMORY_LIMIT_BYTES);
        builder.decoder()
    } else {
        Stream::new_stream_decoder(MEMORY_LIMIT_BYTES, 0)
    };
    decoder.map_err(io::Error::from)
}

/// The compressed bytes, as the storing thread hands them over.
struct Incoming {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    read_bytes: usize,
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.read_bytes >= self.chunk.len() {
            // The sender is gone at the end of the payload; a truncated one does not reach its xz index.
            let Ok(chunk) = self.chunks.recv() else { return Ok(&[]) };
            self.chunk = chunk;
            self.read_bytes = 0;
        }
        Ok(self.chunk.get(self.read_bytes..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.read_bytes += amount;
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use liblzma::bufread::XzEncoder;

    const ALL: [Algorithm; 3] = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512];

    fn raw(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * n / 7) as u8).collect()
    }

    fn xz(raw: &[u8]) -> Vec<u8> {
        let mut compressed = Vec::new();
        XzEncoder::new(raw, 1).read_to_end(&mut compressed).unwrap();
        compressed
    }

    /// As `xz -T` writes it: several blocks in one stream, which are decompressed side by side.
    fn xz_blocks(raw: &[u8]) -> Vec<u8> {
        let encoder = MtStreamBuilder::new().threads(2).block_size(64 * 1024).preset(0).encoder().unwrap();
        let mut compressed = Vec::new();
        XzEncoder::new_stream(raw, encoder).read_to_end(&mut compressed).unwrap();
        compressed
    }

    fn check(compressed: &[u8], limit: u64) -> Result<RawSums, PayloadError> {
        let mut check = RawCheck::start(&ALL, limit).unwrap();
        for chunk in compressed.chunks(1000) {
            if !check.feed(chunk) {
                break;
            }
        }
        check.finish()
    }

    #[test]
    fn sums_are_those_of_the_raw_bytes() {
        let raw = raw(1_000_000);
        for compressed in [xz(&raw), xz_blocks(&raw)] {
            let sums = check(&compressed, u64::MAX).unwrap();
            assert_eq!(sums.size_bytes, 1_000_000);
            assert_eq!(sums.sum(Algorithm::Md5).unwrap(), Md5::digest(&raw).as_slice());
            assert_eq!(sums.sum(Algorithm::Sha256).unwrap(), Sha256::digest(&raw).as_slice());
            assert_eq!(sums.sum(Algorithm::Sha512).unwrap(), Sha512::digest(&raw).as_slice());
        }
    }

    #[test]
    fn several_streams_and_padding_are_one_payload() {
        let compressed = [xz(b"first "), vec![0; 8], xz(b"second"), vec![0; 4]].concat();
        let sums = check(&compressed, u64::MAX).unwrap();
        assert_eq!(sums.sum(Algorithm::Md5).unwrap(), Md5::digest(b"first second").as_slice());
        for tail in [&b"garbage"[..], &[0; 3], &[0, 0, 0, 0, 1]] {
            assert!(matches!(check(&[xz(b"first"), tail.to_vec()].concat(), u64::MAX), Err(PayloadError::Xz(_))));
        }
    }

    #[test]
    fn truncated_or_damaged_payloads_are_never_whole() {
        let compressed = xz_blocks(&raw(300_000));
        for length in [0, 1, 6, 12, 100, compressed.len() / 2, compressed.len() - 12, compressed.len() - 1] {
            assert!(matches!(check(&compressed[..length], u64::MAX), Err(PayloadError::Xz(_))), "{length}");
        }
        let mut damaged = compressed.clone();
        damaged[compressed.len() / 2] ^= 1;
        assert!(matches!(check(&damaged, u64::MAX), Err(PayloadError::Xz(_))));
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let bomb = xz(&vec![0; 5_000_000]);
        assert!(matches!(check(&bomb, 1_000_000), Err(PayloadError::TooLarge(1_000_000))));
    }
}
