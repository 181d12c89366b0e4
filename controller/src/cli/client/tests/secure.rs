//! The client over TLS: whom it trusts is what decides, and nothing is sent to anybody else.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
};

use dotmac_runtime::entropy::Entropy;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};

use crate::cli::client::{Access, Client};

/// A server with a certificate of its own for 127.0.0.1. Gives its address, its certificate and what it was told.
fn server() -> (String, String, Arc<Mutex<Vec<String>>>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)
        .unwrap();
    let (config, told) = (Arc::new(config), Arc::new(Mutex::new(Vec::new())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let heard = Arc::clone(&told);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut head = [0; 4096];
            let Ok(length @ 1..) = stream.read(&mut head) else {
                continue;
            };
            heard
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&head[..length]).into_owned());
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\
                connection: close\r\n\r\n{\"ok\":true}";
            // A client that is gone has heard enough.
            drop(stream.write_all(answer.as_bytes()));
            stream.conn.send_close_notify();
            drop(stream.flush());
        }
    });
    (address, certificate.pem(), told)
}

async fn ask(server: &str, ca_file: Option<&Path>) -> Result<Value, String> {
    let access = Access {
        servers: vec![server.to_owned()],
        token: "canary".into(),
        ca_file: ca_file.map(Path::to_owned),
        deadline_ms: 300,
        attempt_ms: 2_000,
        voice: None,
    };
    let client = Client::new(access, Entropy::seeded(1)).map_err(|failure| failure.to_string())?;
    client
        .get("/things")
        .await
        .map_err(|failure| failure.to_string())
}

#[tokio::test]
async fn a_token_goes_only_to_a_server_that_a_trusted_authority_vouches_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (address, certificate, told) = server();
    let (_, other, _) = server();
    let (trusted, stranger) = (file("ca.pem", &certificate), file("other.pem", &other));
    let refused = ask(&address, Some(&stranger)).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    assert!(
        told.lock().unwrap().is_empty(),
        "a stranger is told nothing"
    );
    assert_eq!(ask(&address, Some(&trusted)).await, Ok(json!({"ok": true})));
    let heard = told.lock().unwrap().concat();
    assert!(heard.contains("Bearer canary"), "{heard}");
    let by_name = address.replace("127.0.0.1", "localhost");
    assert!(
        ask(&by_name, Some(&trusted)).await.is_err(),
        "it is another name"
    );
}

#[tokio::test]
async fn a_file_without_certificates_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let refused = ask("https://127.0.0.1:1", Some(&empty)).await.unwrap_err();
    assert!(
        refused.contains("empty.pem holds no certificate"),
        "{refused}"
    );
    let missing = directory.path().join("missing.pem");
    assert!(
        ask("https://127.0.0.1:1", Some(&missing))
            .await
            .unwrap_err()
            .contains("no such file")
    );
}
