//! How much an answer weighs.
use crate::plugin_host::contract::kiwispray::plugin::{hosts, http, kv, types};

/// Something that is copied into a guest.
pub(super) trait Bytes {
    /// Its size, roughly: what does not grow counts nothing.
    fn bytes(&self) -> usize;
}

macro_rules! weigh_nothing {
    ($($small:ty),*) => { $(
        impl Bytes for $small {
            fn bytes(&self) -> usize {
                0
            }
        }
    )* };
}
weigh_nothing!((), bool, u32, u64);

impl Bytes for String {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Bytes for Vec<String> {
    fn bytes(&self) -> usize {
        self.iter().map(String::len).sum()
    }
}

/// Refusals are sentences of our own.
impl<T: Bytes, E> Bytes for Result<T, E> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, T::bytes)
    }
}

impl<T: Bytes> Bytes for Option<T> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, T::bytes)
    }
}

impl Bytes for kv::Entry {
    fn bytes(&self) -> usize {
        self.value.len()
    }
}

impl Bytes for types::KnownHost {
    fn bytes(&self) -> usize {
        let texts = [&self.serial, &self.uuid, &self.metadata, &self.more].into_iter().chain(&self.hostname);
        texts.chain(&self.macs).chain(&self.states).map(String::len).sum()
    }
}

impl Bytes for hosts::HostPage {
    fn bytes(&self) -> usize {
        self.hosts.iter().map(Bytes::bytes).sum()
    }
}

impl Bytes for http::Response {
    fn bytes(&self) -> usize {
        self.body.len() + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}
