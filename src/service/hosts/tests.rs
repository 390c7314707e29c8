use super::*;
use crate::domain::{Metadata, MetadataEdit};
use crate::service::fixtures::{Site, ada, by_ada, registration};

impl Site {
    async fn find(&self, selectors: &[&str], conditions: &[&str]) -> Result<Vec<u64>, HostsError> {
        let selection = Selection {
            selectors: selectors.iter().map(|text| text.parse().unwrap()).collect(),
            conditions: conditions.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let (hosts, _) = self.service.find(&selection, None, 100).await?;
        Ok(hosts.iter().map(|host| host.id.get()).collect())
    }
}

#[tokio::test]
async fn a_host_is_found_by_whatever_names_it() {
    let site = Site::with_three_hosts().await;
    for text in ["2", "node2", "NODE2", "sna2", " SNA2 ", "52-54-00-00-00-02"] {
        assert_eq!(site.find(&[text], &[]).await.unwrap(), [2], "{text}");
    }
    assert_eq!(site.find(&["2-9", "node1", "2"], &[]).await.unwrap(), [1, 2, 3]);
    assert_eq!(site.find(&[], &[]).await.unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn what_names_no_host_is_an_error_with_a_suggestion() {
    let site = Site::with_three_hosts().await;
    let error = site.find(&["1", "nodde3"], &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no host nodde3: is node3 meant?");
    assert_eq!(site.find(&["7-9"], &[]).await.unwrap_err().to_string(), "there is no host 7-9");
    assert_eq!(site.find(&["99"], &[]).await.unwrap_err().to_string(), "there is no host 99");
}

#[tokio::test]
async fn what_names_several_hosts_is_refused_with_all_of_them() {
    let site = Site::with_three_hosts().await;
    site.service.add(registration("node2", "52:54:00:00:00:09", None), ada(), Run::Real).await.unwrap();
    let error = site.find(&["node2"], &[]).await.unwrap_err();
    let expected = "node2 means several hosts: host 2 by its name, host 4 by its serial number; name one by its number";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn conditions_must_all_hold() {
    let site = Site::with_three_hosts().await;
    site.set(2, "web", &by_ada()).await.unwrap();
    assert_eq!(site.find(&[], &["metadata.site=fra1", "state=new"]).await.unwrap(), [1, 3]);
    assert_eq!(site.find(&["1-2"], &["state=web"]).await.unwrap(), [2]);
    assert_eq!(site.find(&[], &["metadata.rack=7", "hostname=node3"]).await.unwrap(), [3]);
    assert_eq!(site.find(&[], &["metadata.site=ams1"]).await.unwrap(), [0_u64; 0]);
    assert_eq!(site.find(&[], &["running=yes"]).await.unwrap(), [0_u64; 0]);
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps() {
    let site = Site::with_three_hosts().await;
    for selectors in [vec![], vec!["1-3".parse().unwrap()]] {
        let selection = Selection { selectors, conditions: Vec::new() };
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let (hosts, next) = site.service.find(&selection, after, 2).await.unwrap();
            seen.extend(hosts.iter().map(|host| host.id.get()));
            let Some(next) = next else { break };
            after = Some(next);
        }
        assert_eq!(seen, [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_state_that_nothing_can_boot_is_refused_when_set() {
    let site = Site::with_three_hosts().await;
    let error = site.set(1, "live,wbe", &by_ada()).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no image and no template wbe: is web meant?");
    assert!(matches!(site.set(1, "broken", &by_ada()).await, Err(HostsError::NotOffered(_))));
    assert!(site.set(1, "live,web", &by_ada()).await.is_ok());
}

#[tokio::test]
async fn a_trial_tells_what_dies_and_changes_nothing() {
    let site = Site::with_three_hosts().await;
    let trial = Terms { run: Run::Dry, ..by_ada() };
    let acted = site.set(1, "live,web", &trial).await.unwrap();
    let erased = Erased { state: "web".parse().unwrap(), disk: Some("first".to_owned()) };
    assert_eq!(acted.erases, [erased]);
    assert!(site.service.find_one("1").await.unwrap().states.is_new());
    assert!(site.set(1, "live", &trial).await.unwrap().erases.is_empty());
}

#[tokio::test]
async fn the_disk_of_the_metadata_is_the_one_that_dies() {
    let site = Site::with_three_hosts().await;
    let disk = Metadata::parse(r#"{"install_device":"/dev/sdb"}"#).unwrap();
    let edit = Edit { metadata: MetadataEdit::Merge(disk), ..Edit::default() };
    let act = Act::Set { edit, states: Some("web".parse().unwrap()), reinstall: false, abort: false };
    let acted = site.service.act(HostId::new(1), &act, &by_ada()).await.unwrap();
    assert_eq!(acted.erases[0].disk.as_deref(), Some("/dev/sdb"));
}

#[tokio::test]
async fn an_act_on_another_revision_or_serial_is_refused() {
    let site = Site::with_three_hosts().await;
    let looked_at = Terms { revision: Some(1), ..by_ada() };
    site.set(1, "web", &looked_at).await.unwrap();
    assert!(matches!(site.set(1, "live", &looked_at).await, Err(HostsError::Revised { found: 2, .. })));
    let expecting = |serial: &str| Terms { serial: serial.parse().ok(), ..by_ada() };
    assert!(site.set(1, "live", &expecting("sna1")).await.is_ok());
    let error = site.set(1, "web", &expecting("SNA2")).await.unwrap_err();
    assert_eq!(error.to_string(), "node1 has serial number SNA1, not serial number SNA2");
}

#[tokio::test]
async fn nothing_leads_out_of_finished_but_reinstall() {
    let site = Site::with_three_hosts().await;
    site.service.act(HostId::new(1), &Act::Finish { abort: false }, &by_ada()).await.unwrap();
    assert!(matches!(site.set(1, "web", &by_ada()).await, Err(HostsError::Set(_))));
    let acted = site.set_with(1, "web", true, &by_ada()).await.unwrap();
    assert_eq!(acted.after.unwrap().states.to_string(), "web");
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let site = Site::with_three_hosts().await;
    assert!(site.set(1, "web", &by_ada()).await.unwrap().changed);
    assert!(!site.set(1, "web", &by_ada()).await.unwrap().changed);
    assert_eq!(site.service.timeline(HostId::new(1), 1, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_machine_that_is_known_cannot_be_added_again() {
    let site = Site::with_three_hosts().await;
    let error = site.service.add(registration("SNA1", "52:54:00:00:00:77", None), ada(), Run::Real).await.unwrap_err();
    assert_eq!(error.to_string(), "this machine is, or may be, one that is known: host 1");
    let taken = registration("SNA7", "52:54:00:00:00:77", Some("node3"));
    let error = site.service.add(taken, ada(), Run::Real).await.unwrap_err();
    assert_eq!(error.to_string(), "host 3 is called node3 already");
}

#[tokio::test]
async fn a_forgotten_host_leaves_its_timeline() {
    let site = Site::with_three_hosts().await;
    let acted =
        site.service.act(HostId::new(2), &Act::Forget { abort: false, for_good: false }, &by_ada()).await.unwrap();
    assert!(acted.after.is_none());
    assert!(site.find(&["node2"], &[]).await.is_err());
    let timeline = site.service.timeline(HostId::new(2), 1, 10).await.unwrap();
    assert_eq!(timeline.iter().map(|event| event.kind.name()).collect::<Vec<_>>(), ["registered", "forgotten"]);
    assert_eq!(timeline[1].actor, ada());
}

#[tokio::test]
async fn a_rehearsal_issues_no_bootid() {
    let site = Site::with_three_hosts().await;
    site.set(1, "web", &by_ada()).await.unwrap();
    let base = "http://192.0.2.1:5000".parse().unwrap();
    let preview = site.service.rehearse(HostId::new(1), &base).await.unwrap();
    assert!(preview.script.unwrap().contains("/b/1-00000000000000000000000000000000/vmlinuz"));
    let host = site.service.find_one("1").await.unwrap();
    assert_eq!((host.boot, host.attempts), (None, 0));
}
