//! What the original's templates leave open: `@id@`, `@metadata.site@`, and where each of them is in kiwispray.
//!
//! The original replaced texts, nothing else: a name that it did not know, and metadata that a host did not have, stayed in
//! the output as they were. What is made of a placeholder here keeps to that, so that scripts that test for it still work.

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Value(Placeholder),
}

/// Something that the original filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Placeholder {
    /// `http://@SERVER_IP@:@SERVER_PORT@`, which is one value in kiwispray.
    Base,
    ServerIp,
    ServerPort,
    Id,
    Hostname,
    State,
    Macs,
    Serial,
    Uuid,
    BootId,
    /// Lines that show all that is known of a host.
    HostData,
    /// A key of the host's metadata; dots in it are part of the key.
    Metadata(String),
}

const BASE: &str = "http://@SERVER_IP@:@SERVER_PORT@";

const NAMES: [(&str, Placeholder); 11] = [
    ("SERVER_IP", Placeholder::ServerIp),
    ("SERVER_PORT", Placeholder::ServerPort),
    ("id", Placeholder::Id),
    ("HOST", Placeholder::Id),
    ("hostname", Placeholder::Hostname),
    ("state", Placeholder::State),
    ("macs", Placeholder::Macs),
    ("serial", Placeholder::Serial),
    ("uuid", Placeholder::Uuid),
    ("bootid", Placeholder::BootId),
    ("HOST_DATA", Placeholder::HostData),
];

/// The longest key of metadata that is looked for.
const LONGEST_KEY: usize = 128;

impl Placeholder {
    /// As the original wrote it.
    pub(super) fn original(&self) -> String {
        if let Self::Metadata(key) = self {
            return format!("@metadata.{key}@");
        }
        let name = NAMES.iter().find(|(_, known)| known == self).map(|(name, _)| format!("@{name}@"));
        // The only one without a name of its own.
        name.unwrap_or_else(|| BASE.to_owned())
    }
}

/// The path of a key of the metadata in handlebars.
pub(super) fn metadata_path(key: &str) -> String {
    format!("host.metadata.[{key}]")
}

/// Cuts a template at its placeholders.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut done, mut at) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find(['h', '@'])) {
        at += found;
        let rest = text.get(at..).unwrap_or_default();
        match placeholder(rest) {
            Some((value, length)) => {
                if done < at {
                    pieces.push(Piece::Text(text.get(done..at).unwrap_or_default()));
                }
                pieces.push(Piece::Value(value));
                at += length;
                done = at;
            }
            None => at += 1,
        }
    }
    if done < text.len() {
        pieces.push(Piece::Text(text.get(done..).unwrap_or_default()));
    }
    pieces
}

/// Every placeholder of a template once.
pub(super) fn all_in(text: &str) -> std::collections::BTreeSet<Placeholder> {
    let values = pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Value(value) => Some(value),
        Piece::Text(_) => None,
    });
    values.collect()
}

/// The placeholder that a text begins with, and its length in bytes.
fn placeholder(text: &str) -> Option<(Placeholder, usize)> {
    if text.starts_with(BASE) {
        return Some((Placeholder::Base, BASE.len()));
    }
    let (name, _) = text.strip_prefix('@')?.split_once('@')?;
    let length = name.len() + 2;
    if let Some((_, known)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some((known.clone(), length));
    }
    let key = name.strip_prefix("metadata.")?;
    let is_key = |c: char| c.is_alphanumeric() || " ._-:/+#".contains(c);
    let is_good = !key.is_empty() && key.len() <= LONGEST_KEY && key.chars().all(is_key);
    is_good.then(|| (Placeholder::Metadata(key.to_owned()), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_original_replaced_is_a_placeholder() {
        let text = "http://@SERVER_IP@:@SERVER_PORT@/x?id=@id@ root@host.example a@b@c @metadata.net.ip@";
        let expected = [
            Piece::Value(Placeholder::Base),
            Piece::Text("/x?id="),
            Piece::Value(Placeholder::Id),
            Piece::Text(" root@host.example a@b@c "),
            Piece::Value(Placeholder::Metadata("net.ip".to_owned())),
        ];
        assert_eq!(pieces(text), expected);
        // How scripts of the original ask whether a value is there.
        assert_eq!(pieces("\"@metadata\".\"site@\""), [Piece::Text("\"@metadata\".\"site@\"")]);
        assert_eq!(pieces("ä@id@ö@"), [Piece::Text("ä"), Piece::Value(Placeholder::Id), Piece::Text("ö@")]);
        assert_eq!(pieces("@@id@"), [Piece::Text("@"), Piece::Value(Placeholder::Id)]);
    }
}
