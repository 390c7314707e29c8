//! Which disk dies: decided by the server for each boot, and never by accident of naming unless someone typed `first`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which disk an image is written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DevicePolicy {
    /// The alphabetically first disk that the installer sees.
    First,
    /// The smallest disk that is large enough.
    Smallest,
    /// This device, and none other.
    Path(DevicePath),
    /// Every disk of the machine: for an image that wipes.
    All,
}

/// A device node: `/dev/` and `[A-Za-z0-9._:/+-]`, without empty, `.` or `..` components.
#[derive(Clone, PartialEq, Eq)]
pub struct DevicePath(String);

/// A text that is no [`DevicePolicy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no disk: give {choices}", choices = DevicePolicy::CHOICES)]
pub struct DevicePolicyError(String);

impl DevicePolicy {
    /// What can be given, for sentences to operators.
    pub const CHOICES: &'static str = "`/dev/disk/by-id/…`, another `/dev/…`, `smallest`, or `first` (the first disk by name), for what wipes also `all`";
}

impl DevicePath {
    const LONGEST: usize = 255;

    /// The path, beginning with `/dev/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'+' | b'-');
        let sound = |part: &str| !matches!(part, "" | "." | "..");
        let rest = text.strip_prefix("/dev/")?;
        let fits = text.len() <= Self::LONGEST && rest.bytes().all(allowed) && rest.split('/').all(sound);
        fits.then(|| Self(text.to_owned()))
    }
}

impl FromStr for DevicePolicy {
    type Err = DevicePolicyError;

    fn from_str(text: &str) -> Result<Self, DevicePolicyError> {
        match text {
            "first" => Ok(Self::First),
            "smallest" => Ok(Self::Smallest),
            "all" => Ok(Self::All),
            path => DevicePath::parse(path)
                .map(Self::Path)
                .ok_or_else(|| DevicePolicyError(path.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for DevicePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Smallest => f.write_str("smallest"),
            Self::All => f.write_str("all"),
            Self::Path(path) => f.write_str(path.as_str()),
        }
    }
}

impl fmt::Debug for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DevicePolicy {
    type Error = DevicePolicyError;

    fn try_from(text: String) -> Result<Self, DevicePolicyError> {
        text.parse()
    }
}

impl From<DevicePolicy> for String {
    fn from(policy: DevicePolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_policies_name_a_device_or_a_rule() {
        for policy in ["first", "smallest", "all", "/dev/sda", "/dev/disk/by-id/nvme-eui.00:1+x_2", "/dev/mapper/a-b"] {
            assert_eq!(policy.parse::<DevicePolicy>().unwrap().to_string(), policy);
        }
        for wrong in
            ["", "sda", "/dev/", "/dev/../etc", "/dev/a/../b", "/dev//a", "/dev/a b", "/dev/${x}", "/dev/a;b", "First"]
        {
            assert!(wrong.parse::<DevicePolicy>().is_err(), "{wrong:?}");
        }
    }
}
