//! A plugin that tries what it must not. Its configuration names the trick; at the second attempt of a call it behaves, so that
//! tests see whether the next call works. What the core answered comes back as the error `invalid`.
use std::fmt::Debug;

use kiwispray_sdk::ask::kv::Expect;
use kiwispray_sdk::ask::{self, hosts, http, kv, signing};
use kiwispray_sdk::{
    ALLOW, BootDecision, BootRequest, Description, DiscoveryDecision, Edit, Error, Event, Job, NextRun, PASS, Patch,
    Plugin, RenderRequest, TransitionDecision, TransitionRequest, admit,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    trick: String,
    #[serde(default)]
    url: String,
}

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> Description {
        let mut about = Description::new("hostile", "1", "Does what it must not");
        about.jobs.push(Job { name: "harm".into(), period_s: 60 });
        about
    }

    fn boot(_: BootRequest) -> Result<BootDecision, Error> {
        play()?;
        Ok(PASS)
    }

    fn discovered(_: BootRequest) -> Result<DiscoveryDecision, Error> {
        play()?;
        Ok(admit(Patch::default()))
    }

    fn variables(_: RenderRequest) -> Result<String, Error> {
        play()?;
        Ok("{}".into())
    }

    fn before(_: TransitionRequest) -> Result<TransitionDecision, Error> {
        play()?;
        Ok(ALLOW)
    }

    fn events(_: Vec<Event>) -> Result<u32, Error> {
        play()?;
        Ok(0)
    }

    fn run(_: &str) -> Result<NextRun, Error> {
        play()?;
        Ok(NextRun::AtPeriod)
    }
}

kiwispray_sdk::plugin!(Hostile: boot, discovery, render, transition, events, schedule);

fn play() -> Result<(), Error> {
    if ask::attempt() > 1 {
        return Ok(());
    }
    let config: Config = ask::config()?;
    match config.trick.as_str() {
        "nothing" => Ok(()),
        "panic" => panic!("on purpose"),
        "memory" => fill(1 << 30),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "ask-forever" => loop {
            let _ = ask::has_image("web");
        },
        "sign-forever" => loop {
            let _ = signing::hmac_sha256("key", &[0; 4096]);
        },
        "log-forever" => loop {
            ask::log(ask::Level::Info, &"x".repeat(10_000), &[("a", "b")]);
        },
        "note-forever" => loop {
            ask::note("again");
        },
        "huge-answer" => Err(Error::Invalid("x".repeat(8 << 20))),
        "get" => told(
            http::get(config.url).send().map(|answer| (answer.status, answer.header("location").map(str::to_owned))),
        ),
        // Follows where it is sent.
        "follow" => {
            let first = http::get(config.url).send()?;
            told(http::get(first.header("location").unwrap_or_default()).send().map(|answer| answer.status))
        }
        "kv" => {
            let keys = ["../other/key", "other\0key", "", "/", "plugin/other/key"];
            told(keys.map(|key| (kv::get(key).is_err(), kv::put(key, b"x", Expect::Whatever).is_err())))
        }
        "wipe" => wipe(),
        trick => Err(Error::Fatal(format!("`{trick}` is no trick"))),
    }
}

/// Takes memory, and uses it.
fn fill(bytes: usize) -> Result<(), Error> {
    let mut taken = Vec::new();
    while taken.len() < bytes >> 20 {
        taken.push(vec![1_u8; 1 << 20]);
    }
    told(taken.iter().map(|part| part.len()).sum::<usize>())
}

/// Whatever the contract has that could make host 7, which is finished, install again.
fn wipe() -> Result<(), Error> {
    let host = hosts::get(7)?;
    let order = |states: &[&str], name: Option<&str>| Patch {
        states: Some(states.iter().map(|state| (*state).to_owned()).collect()),
        order: name.map(str::to_owned),
        ..Patch::default()
    };
    let metadata =
        |path: &str, value: &str| Patch { set: vec![(path.to_owned(), value.to_owned())], ..Patch::default() };
    let patches = [
        order(&["web"], None),
        order(&["web"], Some("order-1")),
        order(&["new"], None),
        order(&["web", "finished"], Some("")),
        metadata("install_device", "\"/dev/sda\""),
        metadata("local", "\"exit\""),
        Patch { unset: vec!["install_device".into()], ..Patch::default() },
        Patch { hostname: Edit::Set("other".into()), ..Patch::default() },
    ];
    told(patches.map(|patch| hosts::apply(&host, patch).map(|host| host.states)))
}

fn told(what: impl Debug) -> Result<(), Error> {
    Err(Error::Invalid(format!("{what:?}")))
}
