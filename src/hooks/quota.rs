//! How much a plugin may store: the same on a server and on its author's desk.
use super::KvError;

/// Longest key in bytes.
const KEY_MAX_BYTES: usize = 256;
/// Largest value in bytes.
const VALUE_MAX_BYTES: usize = 64 << 10;
/// Keys of one plugin.
const KEYS_MAX: u64 = 10_000;
/// Keys and values of one plugin together, in bytes.
const SPACE_MAX_BYTES: u64 = 16 << 20;
/// Keys of one answer.
const LIST_MAX: u32 = 256;

/// What a plugin's values take up, or one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvUsed {
    /// How many.
    pub keys: u64,
    /// Keys and values together, in bytes.
    pub bytes: u64,
}

impl KvUsed {
    /// What one value takes up under its key.
    #[must_use]
    pub fn of(key: &str, value_bytes: usize) -> Self {
        Self { keys: 1, bytes: (key.len() + value_bytes) as u64 }
    }

    /// One more.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { keys: self.keys + other.keys, bytes: self.bytes + other.bytes }
    }

    /// What is used with a value in another's place.
    #[must_use]
    pub fn with(self, old: Self, new: Self) -> Self {
        Self {
            keys: (self.keys + new.keys).saturating_sub(old.keys),
            bytes: (self.bytes + new.bytes).saturating_sub(old.bytes),
        }
    }

    /// What is used with a value in another's place, if there is room. What needs less room than before is always allowed.
    ///
    /// # Errors
    /// [`KvError::Full`].
    pub fn replaced(self, old: Self, new: Self) -> Result<Self, KvError> {
        let then = self.with(old, new);
        let is_full =
            (then.keys > KEYS_MAX && new.keys > old.keys) || (then.bytes > SPACE_MAX_BYTES && new.bytes > old.bytes);
        if is_full { Err(KvError::Full) } else { Ok(then) }
    }
}

/// Whether a value can stand under this key.
///
/// # Errors
/// It is empty or too long.
pub fn check_kv_key(key: &str) -> Result<(), KvError> {
    match key.len() {
        0 => Err(KvError::Denied("a key has at least one byte".to_owned())),
        1..=KEY_MAX_BYTES => Ok(()),
        _ => Err(KvError::TooLarge),
    }
}

/// Whether a value can be stored.
///
/// # Errors
/// It is too large.
pub fn check_kv_value(value: &[u8]) -> Result<(), KvError> {
    if value.len() > VALUE_MAX_BYTES { Err(KvError::TooLarge) } else { Ok(()) }
}

/// How many keys an answer holds at most, where so many were asked for, beginning with or following on these texts.
///
/// # Errors
/// No key is as long as one of the texts.
pub fn check_kv_list(prefix: &str, after: Option<&str>, limit: u32) -> Result<u32, KvError> {
    if prefix.len().max(after.map_or(0, str::len)) > KEY_MAX_BYTES {
        return Err(KvError::TooLarge);
    }
    Ok(limit.clamp(1, LIST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_keys_is_bounded_and_replacing_needs_no_room() {
        let full = KvUsed { keys: KEYS_MAX, bytes: 0 };
        let (none, one) = (KvUsed::default(), KvUsed::of("k", 9));
        assert_eq!(full.replaced(none, one), Err(KvError::Full));
        let same = full.replaced(one, one).unwrap();
        let fewer = same.replaced(one, none).unwrap();
        assert_eq!(fewer.replaced(none, one).unwrap().keys, KEYS_MAX);
        let large = KvUsed { keys: 1, bytes: SPACE_MAX_BYTES };
        assert_eq!(large.replaced(none, one), Err(KvError::Full));
    }

    #[test]
    fn keys_values_and_lists_have_their_limits() {
        assert!(matches!(check_kv_key(""), Err(KvError::Denied(_))));
        assert_eq!(check_kv_key(&"k".repeat(KEY_MAX_BYTES + 1)), Err(KvError::TooLarge));
        assert_eq!(check_kv_key(&"k".repeat(KEY_MAX_BYTES)), Ok(()));
        assert_eq!(check_kv_value(&vec![0; VALUE_MAX_BYTES + 1]), Err(KvError::TooLarge));
        assert_eq!(check_kv_list("", None, 0), Ok(1));
        assert_eq!(check_kv_list("a", Some("b"), u32::MAX), Ok(LIST_MAX));
        assert_eq!(check_kv_list("", Some(&"k".repeat(300)), 5), Err(KvError::TooLarge));
    }
}
