//! Images: whole, and with a disk policy where they write one.

use std::path::Path;

use super::Finding;
use crate::images::{Catalogue, NotOffered};

const CHECK: &str = "images";

const NOT_BUILT: &str = "its README.md says how to build it; a host in this state holds";

/// Each image's folder, and why it is not offered; or why the folder of all cannot be read.
pub(super) type Found = Result<Vec<(String, Option<Problem>)>, String>;

/// Why an image is not offered, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) why: String,
    pub(super) remedy: &'static str,
}

pub(super) fn look(catalogue: &Catalogue) -> Found {
    let images = catalogue.list().map_err(|error| error.to_string())?;
    let problem = |why: NotOffered| Problem { remedy: remedy(&why), why: why.to_string() };
    Ok(images.into_iter().map(|(name, image)| (name, image.err().map(problem))).collect())
}

fn remedy(why: &NotOffered) -> &'static str {
    match why {
        NotOffered::MissingFile { .. } | NotOffered::WrongSize { .. } | NotOffered::EmptyPayload { .. } => {
            "import the image again: `kiwispray image import NAME FILE --device … --replace`"
        }
        NotOffered::NotBuilt(_) => NOT_BUILT,
        NotOffered::NoDevice(_) => {
            "add `device = \"smallest\"`, or a disk's name under /dev/disk/by-id, to its image.toml"
        }
        NotOffered::NoManifest(_) => "import it by `kiwispray image import`, or write an image.toml",
        NotOffered::BadManifest { .. } | NotOffered::NotText(_) => "correct its image.toml",
        NotOffered::BuiltIn(_) | NotOffered::FolderName(_) => "give the folder another name",
        NotOffered::NotAFolder(_) => "move the folder itself into the images folder",
        NotOffered::NoFolder(_) | NotOffered::Unreadable { .. } => "make it readable for the server's user",
    }
}

pub(super) fn judge(found: &Found, images_dir: &Path, discover: bool) -> Vec<Finding> {
    let folder = images_dir.display().to_string();
    let images = match found {
        Ok(images) => images,
        Err(why) => {
            let remedy = "make the folder readable for the server's user";
            return vec![Finding::fail(CHECK, folder, format!("cannot be read: {why}"), remedy)];
        }
    };
    let mut findings: Vec<Finding> = images
        .iter()
        .map(|(name, problem)| match problem {
            None => Finding::ok(CHECK, name, "can be booted"),
            // Such folders ship, and nobody has to build them.
            Some(Problem { why, remedy }) if *remedy == NOT_BUILT => Finding::warn(CHECK, name, why, *remedy),
            Some(Problem { why, remedy }) => Finding::fail(CHECK, name, why, *remedy),
        })
        .collect();
    if images.is_empty() {
        let remedy = "import one: `kiwispray image import NAME FILE --device smallest`";
        findings.push(Finding::warn(CHECK, folder, "holds no image", remedy));
    }
    if discover && !images.iter().any(|(name, problem)| name == "discover" && problem.is_none()) {
        findings.push(Finding::warn(
            CHECK,
            "discover",
            "is set, and there is no image of that name: unknown machines will hold",
            "import an image `discover`, or serve without --discover",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Ok as Good, Warn};
    use super::*;

    #[test]
    fn images_that_are_not_offered_fail_and_none_at_all_warns() {
        let verdicts = |found: &Found, discover| {
            judge(found, Path::new("/images"), discover).iter().map(|it| it.verdict).collect::<Vec<_>>()
        };
        let broken = Some(Problem { why: "the image b has no image.toml".to_owned(), remedy: "write one" });
        let found = Ok(vec![("a".to_owned(), None), ("b".to_owned(), broken)]);
        assert_eq!(verdicts(&found, false), [Good, Fail]);
        assert_eq!(verdicts(&Ok(Vec::new()), false), [Warn]);
        assert_eq!(verdicts(&Ok(vec![("discover".to_owned(), None)]), true), [Good]);
        assert_eq!(verdicts(&Ok(vec![("a".to_owned(), None)]), true), [Good, Warn]);
        assert_eq!(verdicts(&Err("denied".to_owned()), false), [Fail]);
    }

    #[test]
    fn an_image_without_a_disk_policy_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image1");
        std::fs::create_dir(&image).unwrap();
        std::fs::write(image.join("vmlinuz"), "x").unwrap();
        std::fs::write(image.join("image.toml"), "kind = \"linux\"\nkernel = \"vmlinuz\"\nwrites = \"disk\"\n")
            .unwrap();
        let findings = judge(&look(&Catalogue::new(dir.path())), dir.path(), false);
        assert_eq!((findings.len(), findings[0].verdict), (1, Fail));
        assert!(findings[0].said.contains("does not say which"), "{:?}", findings[0]);
    }
}
