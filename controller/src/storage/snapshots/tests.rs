//! What holds for snapshot files.

use std::{io::Read as _, sync::Arc};

use dotmac_runtime::disk::{SystemDisk, cut::CutDisk};

use super::{SnapshotError, SnapshotFile, Snapshots};

fn open(home: &std::path::Path) -> Snapshots {
    Snapshots::open(home, SystemDisk::shared()).unwrap()
}

fn write(snapshots: &Snapshots, index: u64, body: &[u8]) -> SnapshotFile {
    let header = index.to_string();
    snapshots
        .write(index, header.as_bytes(), |writer| writer.write_all(body))
        .unwrap()
}

fn body(file: &SnapshotFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.body().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn names(home: &std::path::Path) -> Vec<String> {
    let folder = home.join("snapshots");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_last_two_are_kept_and_the_newest_is_found() {
    let home = tempfile::tempdir().unwrap();
    let snapshots = open(home.path());
    assert!(snapshots.newest().unwrap().is_none());
    for index in [5, 9, 12] {
        write(&snapshots, index, &index.to_be_bytes());
    }
    assert_eq!(names(home.path()).len(), 2);
    let newest = open(home.path()).newest().unwrap().unwrap();
    assert_eq!(
        (newest.header(), body(&newest)),
        (&b"12"[..], 12_u64.to_be_bytes().to_vec())
    );
}

#[test]
fn a_damaged_newest_is_refused_and_the_one_before_is_used() {
    let home = tempfile::tempdir().unwrap();
    let snapshots = open(home.path());
    write(&snapshots, 5, b"older");
    let newest = write(&snapshots, 9, b"newer");
    let good = std::fs::read(newest.path()).unwrap();
    for position in [0, 9, 13, good.len() - 40, good.len() - 1] {
        let mut bad = good.clone();
        bad[position] ^= 4;
        std::fs::write(newest.path(), &bad).unwrap();
        let found = snapshots.newest().unwrap().unwrap();
        assert_eq!(body(&found), b"older", "byte {position}");
    }
    std::fs::write(newest.path(), &good[..20]).unwrap();
    assert_eq!(body(&snapshots.newest().unwrap().unwrap()), b"older");
}

#[test]
fn a_snapshot_travels_in_pieces_and_counts_once_it_is_adopted() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let file = write(&open(here.path()), 7, &long);
    let receiver = open(there.path());
    let mut incoming = receiver.receive(7).unwrap();
    let pieces = file.pieces().unwrap();
    let mut offset = 0;
    loop {
        let piece = pieces.read(offset).unwrap();
        if piece.is_empty() {
            break;
        }
        incoming.write(offset, &piece).unwrap();
        offset += piece.len() as u64;
    }
    assert!(matches!(
        incoming.write(3, b"x"),
        Err(SnapshotError::Order { .. })
    ));
    let arrived = incoming.finish().unwrap();
    assert!(receiver.newest().unwrap().is_none());
    let adopted = receiver.adopt(&arrived).unwrap();
    drop(arrived);
    assert_eq!(body(&adopted), long);
    assert_eq!(body(&receiver.newest().unwrap().unwrap()), long);
    assert_eq!(names(there.path()).len(), 1);
}

#[test]
fn what_was_received_in_part_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let snapshots = open(home.path());
    let mut incoming = snapshots.receive(7).unwrap();
    incoming.write(0, b"half a file").unwrap();
    assert!(matches!(
        incoming.finish(),
        Err(SnapshotError::Damaged { .. })
    ));
    assert!(names(home.path()).is_empty());
}

#[test]
fn a_snapshot_that_was_reported_survives_a_power_cut() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(CutDisk::new(home.path()).unwrap());
    let snapshots = Snapshots::open(home.path(), disk.clone()).unwrap();
    write(&snapshots, 5, b"first");
    write(&snapshots, 6, b"second");
    disk.cut_power().unwrap();
    assert_eq!(body(&snapshots.newest().unwrap().unwrap()), b"second");
    disk.lose_syncs_after(0);
    write(&snapshots, 7, b"never synced");
    disk.cut_power().unwrap();
    assert_eq!(body(&snapshots.newest().unwrap().unwrap()), b"second");
}
