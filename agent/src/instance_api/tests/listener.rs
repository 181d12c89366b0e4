//! The address that instances are told.

use super::bind;

#[tokio::test]
async fn the_chosen_port_is_kept_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("port");
    let listen = "127.0.0.1:0".parse().unwrap();
    let first = bind(listen, &file).await.unwrap();
    let url = first.url();
    let taken = bind(listen, &file).await.unwrap();
    assert_ne!(taken.url(), url);
    drop((first, taken));
    let again = bind(listen, &file).await.unwrap();
    assert_ne!(
        again.url(),
        url,
        "the port chosen last is the one that is kept"
    );
    let url = again.url();
    drop(again);
    assert_eq!(bind(listen, &file).await.unwrap().url(), url);
}
