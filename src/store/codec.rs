//! The binary form of small records: numbers of seven bits per byte, texts and lists behind their length.
//!
//! Invariant: whatever [`Writer`] wrote, [`Reader`] reads, and no bytes make the reader panic or reserve memory.
use std::net::IpAddr;

use bytes::Bytes;
use jiff::Timestamp;

use super::record::RecordError;

/// Puts a record together.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.byte(u8::from(flag));
    }

    /// Seven bits per byte, lowest first; the highest bit says that more follow.
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    /// Seconds and nanoseconds since 1970, in 12 bytes.
    pub(super) fn time(&mut self, time: Timestamp) {
        self.bytes(&time.as_second().to_be_bytes());
        self.bytes(&time.subsec_nanosecond().to_be_bytes());
    }

    pub(super) fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.byte(4);
                self.bytes(&address.octets());
            }
            IpAddr::V6(address) => {
                self.byte(6);
                self.bytes(&address.octets());
            }
        }
    }

    pub(super) fn done(self) -> Bytes {
        self.0.into()
    }
}

/// Takes a record apart, from its second byte on.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that was not read yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn end(&self) -> Result<(), RecordError> {
        if self.is_empty() { Ok(()) } else { Err(RecordError::Long) }
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(super) fn flag(&mut self) -> Result<bool, RecordError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Field { field: "flag" }),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, RecordError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(RecordError::Field { field: "number" })
    }

    pub(super) fn bytes<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], RecordError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, RecordError> {
        let length = usize::try_from(self.number()?).map_err(|_| RecordError::Short)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(RecordError::Short)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| RecordError::Field { field: "text" })
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, RecordError> {
        let seconds = i64::from_be_bytes(self.bytes()?);
        let nanoseconds = i32::from_be_bytes(self.bytes()?);
        Timestamp::new(seconds, nanoseconds).map_err(|_| RecordError::Field { field: "time" })
    }

    pub(super) fn address(&mut self) -> Result<IpAddr, RecordError> {
        match self.byte()? {
            4 => Ok(IpAddr::from(self.bytes::<4>()?)),
            6 => Ok(IpAddr::from(self.bytes::<16>()?)),
            _ => Err(RecordError::Field { field: "address" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u64, text: String, seconds in -9_999_999_999_i64..99_999_999_999, flag: bool, v6: [u8; 16]) {
            let time = Timestamp::new(seconds, 7).unwrap();
            let mut to = Writer::new(1);
            to.number(number);
            to.text(&text);
            to.time(time);
            to.flag(flag);
            to.address(IpAddr::from(v6));
            let bytes = to.done();
            let mut from = Reader::new(&bytes[1..]);
            prop_assert_eq!(from.number(), Ok(number));
            prop_assert_eq!(from.text(), Ok(text));
            prop_assert_eq!(from.time(), Ok(time));
            prop_assert_eq!(from.flag(), Ok(flag));
            prop_assert_eq!(from.address(), Ok(IpAddr::from(v6)));
            prop_assert_eq!(from.end(), Ok(()));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let mut from = Reader::new(&bytes);
            drop((from.number(), from.text(), from.time(), from.address(), from.end()));
        }
    }
}
