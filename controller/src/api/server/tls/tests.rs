//! TLS with an authority made for the test: who gets in, which certificate he is shown, and which files are taken.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use dotmac_protocol::time::Timestamp;
use dotmac_runtime::clock::Clock;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client, server};

use super::{Tls, TlsError, TlsFiles};

const NAME: &str = "controller.test";

/// An authority and a folder for what it signs.
struct Authority {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            folder: tempfile::tempdir().unwrap(),
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.folder.path().join("api.crt"),
            key: self.folder.path().join("api.key"),
        }
    }

    /// Writes a certificate and its key; gives the certificate.
    fn write(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let files = self.files();
        fs::write(&files.certificate, signed.pem()).unwrap();
        write_key(&files.key, &key.serialize_pem(), 0o600);
        signed.der().clone()
    }

    fn load(&self) -> Result<Tls, TlsError> {
        Tls::load(self.files(), &clock())
    }

    /// What a client that knows this authority speaks.
    fn connector(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(clock()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// Within every certificate's time.
fn clock() -> Clock {
    Clock::manual(Timestamp(1_700_000_000_000)).0
}

fn write_key(path: &Path, text: &str, mode: u32) {
    let _ = fs::remove_file(path);
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

type Ends = (
    client::TlsStream<DuplexStream>,
    server::TlsStream<DuplexStream>,
);

/// Both ends of a connection, if they agree.
async fn shake(tls: &Tls, connector: TlsConnector) -> std::io::Result<Ends> {
    let (client, server) = duplex(64 * 1024);
    let name = ServerName::try_from(NAME).unwrap();
    let (client, server) = tokio::join!(
        connector.connect(name, client),
        tls.acceptor().accept(server)
    );
    Ok((client?, server?))
}

fn shown(client: &client::TlsStream<DuplexStream>) -> CertificateDer<'_> {
    client.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn only_tls_1_3_with_http_1_1_is_spoken() {
    let authority = Authority::new();
    let certificate = authority.write();
    let tls = authority.load().unwrap();
    let (client, _server) = shake(&tls, authority.connector(&[&TLS12, &TLS13]))
        .await
        .unwrap();
    let (_, session) = client.get_ref();
    assert_eq!(
        session.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(shown(&client), certificate);
    assert!(shake(&tls, authority.connector(&[&TLS12])).await.is_err());
    let stranger = Authority::new();
    assert!(shake(&tls, stranger.connector(&[&TLS13])).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_breaks_no_open_one() {
    let authority = Authority::new();
    let old = authority.write();
    let mut tls = authority.load().unwrap();
    let connector = || authority.connector(&[&TLS13]);
    let (mut client, mut server) = shake(&tls, connector()).await.unwrap();
    let new = authority.write();
    tls.read_again();
    client.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard, shown(&client)), (b"still", old));
    let (client, _server) = shake(&tls, connector()).await.unwrap();
    assert_eq!(shown(&client), new);
    // Half of a pair, or nothing at all, replaces nothing; the whole pair does as soon as it is there.
    let files = authority.files();
    let other = KeyPair::generate().unwrap();
    write_key(&files.key, &other.serialize_pem(), 0o600);
    tls.read_again();
    fs::remove_file(&files.certificate).unwrap();
    tls.read_again();
    let (client, _server) = shake(&tls, connector()).await.unwrap();
    assert_eq!(shown(&client), new);
    let newest = authority.write();
    tls.read_again();
    let (client, _server) = shake(&tls, connector()).await.unwrap();
    assert_eq!(shown(&client), newest);
}

#[test]
fn files_that_do_not_do_are_refused_by_name() {
    let authority = Authority::new();
    let files = authority.files();
    let refused = || {
        let error = authority.load().map(drop).unwrap_err();
        let text = dotmac_runtime::causes::in_full(&error);
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        text
    };
    assert!(refused().contains("api.crt cannot be read"));
    authority.write();
    let key = fs::read_to_string(&files.key).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o644] {
        write_key(&files.key, &key, mode);
        assert!(refused().contains(&format!("has mode {mode:03o}: run chmod 600")));
    }
    write_key(&files.key, "nothing", 0o600);
    assert!(refused().contains("api.key holds no private key in PEM"));
    write_key(
        &files.key,
        &KeyPair::generate().unwrap().serialize_pem(),
        0o600,
    );
    assert!(refused().contains("is not the one of the certificate in"));
    write_key(&files.key, &key, 0o400);
    assert!(authority.load().is_ok());
    fs::write(&files.certificate, &key).unwrap();
    assert!(refused().contains("api.crt holds no certificate in PEM"));
}
