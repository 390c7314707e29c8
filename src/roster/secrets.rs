//! The files with secrets that a grant names.
//!
//! Invariant: what is in them is compared by its digest and never kept.
use std::fs;
use std::io::{self, Read as _};

use toml::Value;

use crate::config::{Digest, PluginGrant};

/// Certificates are the longest of them; more is cut off here, and refused by whoever reads it to use it.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// The paths in a text like `Bearer ${file:/etc/token}`.
pub(super) fn sources(text: &str) -> Vec<&str> {
    text.split("${file:").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
}

/// A digest of what is in all files that a grant names: another one as soon as a secret was rotated. Reads these files.
pub(super) fn fingerprint(grant: &PluginGrant) -> Digest {
    let rules = grant.http.iter();
    let headers = rules.clone().filter_map(|rule| rule.get("headers")?.as_table()).flat_map(toml::Table::values);
    let texts = headers.chain(grant.signing.values()).filter_map(Value::as_str).flat_map(sources);
    let certificates = rules.filter_map(|rule| rule.get("ca_file")?.as_str());
    let mut all = Vec::new();
    for path in texts.chain(certificates) {
        // One that cannot be read differs from every one that can.
        let contents = read(path).map_or_else(|_| "unreadable".to_owned(), |bytes| Digest::of(&bytes).to_string());
        all.extend_from_slice(contents.as_bytes());
    }
    Digest::of(&all)
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_wherever_they_stand_in_a_text() {
        assert_eq!(sources("Bearer ${file:/a} and ${file:/b c}."), ["/a", "/b c"]);
        assert_eq!(sources("Bearer ${file:/a and $"), [""; 0]);
    }

    #[test]
    fn a_rotated_secret_changes_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["token", "key", "ca"].map(|name| folder.path().join(name));
        let [token, key, ca] = names.clone().map(|path| path.display().to_string());
        let grant = PluginGrant {
            http: vec![
                toml::from_str(&format!("ca_file = {ca:?}\nheaders = {{ A = \"Bearer ${{file:{token}}}\" }}")).unwrap(),
            ],
            signing: toml::from_str(&format!("hook = \"${{file:{key}}}\"")).unwrap(),
            ..PluginGrant::default()
        };
        let mut seen = vec![fingerprint(&grant)];
        for path in &names {
            fs::write(path, "x").unwrap();
            seen.push(fingerprint(&grant));
            assert_eq!(seen.last(), Some(&fingerprint(&grant)));
        }
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }
}
