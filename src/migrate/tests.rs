use super::ipxe::{Variables, boot_script, plain_script};
use super::shell::{is_shell, translate};
use super::*;

#[test]
fn values_stand_in_assignments_and_the_script_reads_them_wherever_it_had_them() {
    let script = "#!/bin/bash\n\
        # about @id@, it's\n\
        a=@id@ b=\"x @serial@ 'y @uuid@'\" c='z @bootid@' d=$(echo '@state@' \"@id@\")\n\
        e=${f:-@id@} g=$((1 << 2)) h=\\@id@\n\
        cat <<-\"E O\" >x; cat <<F\n\
        \t$HOME @metadata.a.b@ `x`\n\
        \tE O\n\
        @metadata.a_b@ $HOME\n\
        F\n\
        for d in @metadata.disks@; do echo @id@/x; done\n\
        echo {{handlebars}} '@SERVER_IP@' \"http://@SERVER_IP@:@SERVER_PORT@/x\" @macs@\n";
    let translated = translate(script, "post_install.tmpl");
    insta::assert_snapshot!(format!("{}\n---\n{}", translated.text, translated.notes.join("\n")));
}

#[test]
fn a_script_that_calculates_with_values_is_for_a_person_to_look_at() {
    let notes = translate("#!/bin/bash\necho @id@\nx=$((@metadata.n@ + (1)))\ny=$((1 + 1)) z=@id@\n", "x").notes;
    assert_eq!(notes.len(), 1);
    assert!(notes[0].starts_with("line 3: it calculates with a value"), "{notes:?}");
}

#[test]
fn braces_of_the_original_are_no_handlebars() {
    let folder = tempfile::tempdir().unwrap();
    let text = translate("#!/bin/sh\necho {{x}} ${a[{{1}}]} '{{{y}}}'\n", "x").text;
    std::fs::write(folder.path().join("x.sh.hbs"), text).unwrap();
    let renderer = crate::render::Renderer::new(Some(folder.path().to_owned()));
    let document = renderer.document(None, "x.sh", &serde_json::json!({})).unwrap();
    assert_eq!(document.text, "#!/bin/sh\necho {{x}} ${a[{{1}}]} '{{{y}}}'\n");
}

#[test]
fn only_shells_are_shells() {
    for line in ["", "echo\n", "#!/bin/sh\n", "#! /usr/bin/env -S bash -eu\n", "#!/usr/bin/zsh -f\n"] {
        assert!(is_shell(line), "{line}");
    }
    for line in ["#!/usr/bin/python3\n", "#!/usr/bin/env perl\n", "#!\n"] {
        assert!(!is_shell(line), "{line}");
    }
    let (text, notes) = templates::post_install("#!/usr/bin/python3\nprint('@id@')\n", "post_install.tmpl");
    assert!(text.contains("post-install-was-not-translated") && notes.len() == 1, "{text}");
    assert_eq!(
        templates::post_install("#!/usr/bin/python3\nprint({1: 2})\n", "x").0,
        "#!/usr/bin/python3\nprint({1: 2})\n"
    );
}

#[test]
fn a_boot_script_becomes_a_manifest_and_what_differs_from_host_to_host() {
    let script = "#!ipxe\nset BASE http://@SERVER_IP@:@SERVER_PORT@\nset S ${BASE}/images/@state@\nset MORE a=1 b=@hostname@ c=${net0/ip} d=\"x\"\n\
        echo Hello @id@ at @SERVER_IP@\nkernel ${S}/pxeboot.kernel rd.kiwi.install.pxe rd.kiwi.install.image=${S}/i.xz ${MORE} || goto error\n\
        initrd ${S}/pxeboot.initrd.xz || goto error\nimgfetch http://elsewhere/x || exit\nboot\n:error\nexit\n";
    let found = boot_script(script, "image1");
    assert_eq!(found.kernel.as_deref(), Some("pxeboot.kernel"));
    assert_eq!(found.initrd.as_deref(), Some("pxeboot.initrd.xz"));
    assert_eq!(found.payload.as_deref(), Some("i.xz"));
    assert!(found.is_kiwi && !found.is_plain);
    assert_eq!(found.append, "a=1");
    insta::assert_snapshot!(format!("{}\n---\n{}", found.text, found.notes.join("\n")));
}

#[test]
fn settings_that_name_each_other_do_not_grow_for_ever() {
    let mut script = "#!ipxe\nset a0 xxxxxxxxxx\n".to_owned();
    for number in 1..40 {
        script.push_str(&format!("set a{number} ${{a{}}}${{a{}}}\n", number - 1, number - 1));
    }
    script.push_str("set loop ${loop}x\nkernel ${a39} ${loop}\n");
    assert!(boot_script(&script, "image1").text.len() < 1 << 20);
}

#[test]
fn leaving_for_the_disk_is_exit_1_however_it_was_written() {
    let script =
        "#!ipxe\nexit\nexit 0\nisset ${x} && exit || reboot\nfoo || exit 0 # why\nexit 1\necho exit 0\n# exit\n";
    let (text, _) = plain_script(script, Variables::State);
    insta::assert_snapshot!(text, @r"
    #!ipxe
    exit 1
    exit 1
    isset ${x} && exit 1 || reboot
    foo || exit 1 # why
    exit 1
    echo exit 0
    # exit
    ");
}
