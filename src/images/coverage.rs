//! Which bytes of a file were delivered, over any number of requests.
//!
//! Invariant: a [`Coverage`] never forgets a delivered byte. When the pieces become too many to remember it counts as
//! whole: doubt about an installation means hold, and whoever fetches an image in hundreds of scattered ranges is no
//! installer.

use std::iter;
use std::ops::Range;

/// The delivered bytes of one file of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    size_bytes: u64,
    /// Sorted, not empty, neither overlapping nor touching.
    pieces: Vec<Range<u64>>,
}

impl Coverage {
    /// The most pieces that are remembered.
    pub const MOST_PIECES: usize = 64;

    /// Nothing delivered yet of a file of this size. An empty file is whole at once.
    pub fn new(size_bytes: u64) -> Self {
        Self { size_bytes, pieces: Vec::new() }
    }

    /// Notes that these bytes were delivered; what lies outside the file is ignored.
    pub fn add(&mut self, delivered: Range<u64>) {
        let delivered = delivered.start..delivered.end.min(self.size_bytes);
        if delivered.is_empty() {
            return;
        }
        // The pieces that touch the new one are neighbours: those from `first` up to, not including, `last`.
        let first = self.pieces.partition_point(|piece| piece.end < delivered.start);
        let last = self.pieces.partition_point(|piece| piece.start <= delivered.end);
        let start = self.pieces.get(first).map_or(delivered.start, |piece| piece.start.min(delivered.start));
        let before_last = last.checked_sub(1).filter(|index| *index >= first);
        let end = before_last.and_then(|index| self.pieces.get(index)).map_or(delivered.end, |piece| piece.end);
        let joined = start..end.max(delivered.end);
        self.pieces.splice(first..last.max(first), iter::once(joined));
        if self.pieces.len() > Self::MOST_PIECES {
            self.pieces.clear();
            self.pieces.push(0..self.size_bytes);
        }
    }

    /// Whether every byte was delivered, or might have been.
    pub fn is_whole(&self) -> bool {
        self.delivered_bytes() == self.size_bytes
    }

    /// How many bytes were delivered, each counted once.
    pub fn delivered_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.end - piece.start).sum()
    }

    /// The delivered bytes, in order.
    pub fn pieces(&self) -> &[Range<u64>] {
        &self.pieces
    }

    /// The size of the file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_in_any_order_make_a_whole() {
        let mut coverage = Coverage::new(10);
        coverage.add(5..10);
        coverage.add(0..2);
        assert_eq!((coverage.delivered_bytes(), coverage.is_whole()), (7, false));
        coverage.add(1..5);
        assert!(coverage.is_whole());
    }

    #[test]
    fn more_pieces_than_can_be_remembered_count_as_whole() {
        let mut coverage = Coverage::new(1_000);
        for piece in 0..64 {
            coverage.add(piece * 3..piece * 3 + 1);
            assert!(!coverage.is_whole());
        }
        coverage.add(999..1_000);
        assert!(coverage.is_whole());
    }

    proptest! {
        #[test]
        fn coverage_agrees_with_a_list_of_bytes(ranges in prop::collection::vec((0_u64..120, 0_u64..40), 0..60)) {
            let size = 100;
            let mut coverage = Coverage::new(size);
            let mut bytes = [false; 100];
            for (start, length) in ranges {
                coverage.add(start..start + length);
                for at in start..(start + length).min(size) {
                    bytes[at as usize] = true;
                }
                let delivered = bytes.iter().filter(|byte| **byte).count() as u64;
                prop_assert_eq!(coverage.delivered_bytes(), delivered);
                prop_assert_eq!(coverage.is_whole(), delivered == size);
                prop_assert!(coverage.pieces.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }
}
