//! Takes wishes from a CMDB: gives hosts states and racks, counts its runs, and tells the CMDB, signed.
use kiwispray_sdk::{Description, Error, NextRun, Plugin, ask, assign, plugin};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Wish {
    serial: String,
    state: String,
    change: String,
    rack: String,
}

struct Sync;

impl Plugin for Sync {
    fn describe() -> Description {
        Description::new("sync", "1", "Takes wishes from a CMDB").job("sync", 600)
    }

    fn run(_job: &str) -> Result<NextRun, Error> {
        let runs = ask::kv::get_json::<u64>("runs")?.unwrap_or(0) + 1;
        let wishes: Vec<Wish> = ask::http::get("https://cmdb.example.org/api/wishes").send()?.json()?;
        for wish in wishes {
            for host in ask::hosts::find("serial", &wish.serial)? {
                let patch = assign(&wish.state, &wish.change).set("rack", wish.rack.as_str());
                let changed = ask::hosts::apply(&host, patch)?;
                ask::note(&format!("host {} is at revision {}", changed.id, changed.revision));
            }
        }
        let signature: String =
            ask::signing::hmac_sha256("cmdb", b"done")?.iter().map(|byte| format!("{byte:02x}")).collect();
        let told = ask::http::post("https://cmdb.example.org/api/runs")
            .json(&json!({"run": runs, "signature": signature}))
            .send()?;
        if !told.is_success() {
            return Err(Error::Failed(format!("the CMDB answers {}", told.status)));
        }
        ask::kv::put_json("runs", &runs)?;
        Ok(NextRun::AtPeriod)
    }
}

plugin!(Sync: schedule);
