//! A fleet full of canaries: none of them may come out in a bundle.

use std::{
    collections::BTreeMap, fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path,
};

use flate2::read::GzDecoder;
use serde_json::json;

use super::Bundle;
use crate::local::{layout::Layout, member::Member};

/// A fleet's directory with a canary in every secret place, and logs that repeat them.
fn fleet(home: &Path) -> Layout {
    let layout = Layout::new(home.to_owned());
    let write = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        &home.join("fleet.json"),
        r#"{"port_base": 16100, "grace_ms": 1000}"#,
    );
    write(&layout.admin_token(), "dotmac-token-1.canary-admin\n");
    write(&layout.root_key(), "canary root key\n");
    write(&layout.approver_key(), "canary approver key\n");
    let line = json!({"timestamp": "2026-11-23T08:00:00Z", "level": "ERROR", "fields": {"message": "canary root key",
        "header": "Authorization: Bearer canary-bearer", "database_url": "canary", "env": {"A": "canary"},
        "url": "postgres://isp:canary@db/isp", "request": "0123456789abcdef0123456789abcdef",
        "sealed": "63616e61727963616e61727963616e61727963616e61727963616e617279"}});
    for member in Member::all(&layout) {
        write(
            &member.join_token(),
            &format!("canary-join-{}\n", member.name),
        );
        let text = format!(
            "{line}\nplain canary-join-{} dotmac-token-1.canary-admin\nkept: started\n",
            member.name
        );
        write(&member.log(), &text);
        write(
            &member.data().join("slots/x/output.log"),
            "canary of a customer\n",
        );
    }
    layout
}

fn unpacked(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(path).unwrap()));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    entries.collect()
}

#[test]
fn no_secret_of_a_fleet_comes_out_in_a_bundle_and_its_list_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let layout = fleet(&directory.path().join("home"));
    let mut bundle = Bundle::new(None, Some(&layout));
    bundle.json(
        "checks.json",
        &json!({"detail": "the token is dotmac-token-1.canary-admin"}),
    );
    bundle.deployments(&[
        json!({"id": "x-0190a1b2", "status": "failed", "custom_config": {"a": "canary"},
        "tenant_name": "canary", "domain_name": "canary.example", "credentials": ["canary"],
        "waiting": {"reason": "it crashed", "since": 1, "who": "canary"}}),
    ]);
    bundle.machine(["DOTMAC_TOKEN".to_owned(), "HOME".to_owned()].into_iter());
    bundle.logs(&layout);
    let path = directory.path().join("bundle.tar.gz");
    let listed = bundle.write(&path, 0).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let files = unpacked(&path);
    for (name, text) in &files {
        assert!(!text.contains("canary"), "{name}: {text}");
        assert!(!text.contains("63616e617279"), "{name}: {text}");
    }
    assert_eq!(listed.len(), files.len());
    for line in &listed {
        let name = line.split_whitespace().last().unwrap();
        assert!(
            files.contains_key(&format!("dotmac-doctor/{name}")),
            "{line}"
        );
    }
    let log = &files["dotmac-doctor/logs/controller-1.log"];
    assert!(
        log.contains("kept: started") && log.contains("0123456789abcdef0123456789abcdef"),
        "{log}"
    );
    let deployments = &files["dotmac-doctor/deployments.json"];
    assert!(
        deployments.contains("x-0190a1b2") && deployments.contains("it crashed"),
        "{deployments}"
    );
    assert!(files["dotmac-doctor/machine/variables.json"].contains("DOTMAC_TOKEN"));
}
