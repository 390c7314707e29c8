//! Templates: every one compiles and renders with sample data.

use std::path::Path;

use serde_json::Map;

use super::Finding;
use crate::render::Renderer;

const CHECK: &str = "templates";

/// Each template by name, those of images as `IMAGE/NAME`, with what is wrong with it.
pub(super) fn look(renderer: &Renderer, images_dir: &Path) -> Vec<(String, Option<String>)> {
    let trial = |dir: Option<&Path>, name: &str| renderer.trial(dir, name, &Map::new()).err().map(|e| e.to_string());
    let mut all: Vec<(String, Option<String>)> =
        renderer.list().into_iter().map(|listed| (listed.name.clone(), trial(None, &listed.name))).collect();
    // `list` cannot show what cannot be read.
    for problem in renderer.check_all() {
        if !all.iter().any(|(name, _)| *name == problem.template) {
            all.push((problem.template, Some(problem.error.to_string())));
        }
    }
    for image in renderer.list_of_images(images_dir) {
        let (folder, listed) = image;
        let name = format!("{}/{}", folder.file_name().unwrap_or_default().to_string_lossy(), listed.name);
        all.push((name, trial(Some(&folder), &listed.name)));
    }
    all
}

pub(super) fn judge(templates: &[(String, Option<String>)]) -> Vec<Finding> {
    let broken = templates.iter().filter_map(|(name, problem)| {
        let remedy = format!("correct it, then `kiwispray template check {name}`");
        Some(Finding::fail(CHECK, name, problem.as_ref()?, remedy))
    });
    let mut findings: Vec<Finding> = broken.collect();
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "all", format!("{} compile and render", templates.len())));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_broken_template_fails_with_its_place_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("images/image1");
        std::fs::create_dir_all(&image).unwrap();
        std::fs::write(image.join("post_install.sh.hbs"), "#!/bin/sh\nx={{host.nam}}\n").unwrap();
        let renderer = Renderer::new(None);
        let found = look(&renderer, &dir.path().join("images"));
        let findings = judge(&found);
        assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Fail));
        assert_eq!(findings[0].subject, "image1/post_install.sh");
        assert!(findings[0].said.contains("line 2: there is no variable host.nam"), "{}", findings[0].said);
        std::fs::remove_dir_all(&image).unwrap();
        assert_eq!(judge(&look(&renderer, &dir.path().join("images")))[0].verdict, Verdict::Ok);
    }
}
