//! Addresses of controllers: which ones a token may be sent to, and how names become parts of one.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder, Url};

use crate::cli::failure::Failure;

/// Bytes of a file with certificates at most.
const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A value as one segment or value of an address.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Whether a path leads where it says. Somebody who calls a thing `..` would change another one: addresses are
/// shortened before they are sent, whatever is done to such a name.
///
/// # Errors
/// When a segment is `.` or `..`, also as escapes.
pub(super) fn check_path(path: &str) -> Result<(), Failure> {
    let path = path.split('?').next().unwrap_or_default();
    for segment in path.split('/') {
        if matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        ) {
            return Err(Failure::Usage(format!(
                "{segment} is not the name of anything"
            )));
        }
    }
    Ok(())
}

/// Tokens travel in clear over plain HTTP, so only to this machine.
///
/// # Errors
/// When it is no address of a controller, or one that a token may not be sent to.
pub(crate) fn check_server(server: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::Usage(format!("server {server}: {why}")));
    let Ok(url) = Url::parse(server) else {
        return wrong("not an address such as https://controller-1.example:8000");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("no name and no password belong into an address");
    }
    if url.query().is_some() || url.fragment().is_some() || url.path() != "/" {
        return wrong("only scheme, name and port belong into it");
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback => Ok(()),
        "http" => wrong(
            "plain HTTP is for this machine only: use https://, or forward the port (ssh -L 8000:127.0.0.1:8000 HOST)",
        ),
        _ => wrong("only https:// is spoken, and http:// on this machine"),
    }
}

/// Whom to trust: nobody where only this machine is spoken to in clear, the authorities of a file, or the system's.
///
/// # Errors
/// When the file holds no certificates.
pub(super) fn trusting(
    builder: ClientBuilder,
    servers: &[String],
    ca_file: Option<&Path>,
) -> Result<ClientBuilder, Failure> {
    if !servers.iter().any(|server| server.starts_with("https:")) {
        return Ok(builder.tls_certs_only([]));
    }
    let Some(file) = ca_file else {
        return Ok(builder);
    };
    let failed = |cause: &std::io::Error| Failure::io("read", file, cause);
    let length = std::fs::metadata(file)
        .map_err(|cause| failed(&cause))?
        .len();
    let text = match length {
        0..=CA_BYTES_MAX => std::fs::read(file).map_err(|cause| failed(&cause))?,
        _ => Vec::new(),
    };
    let certificates = Certificate::from_pem_bundle(&text).unwrap_or_default();
    if certificates.is_empty() {
        let file = file.display();
        return Err(Failure::Usage(format!(
            "{file} holds no certificate in PEM form"
        )));
    }
    Ok(builder.tls_certs_only(certificates))
}
