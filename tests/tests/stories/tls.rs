//! A controller that other machines reach: with TLS, or not at all.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dotmac_tests::{cli, fleet::Fleet, wait::until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::tls::{Certificate, TlsInfo, Version};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

/// How long a thing that is not what is measured may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, and a controller's folder with what it signed.
struct Site {
    fleet: Fleet,
    authority: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Site {
    fn new() -> Result<Self> {
        let fleet = Fleet::prepare("tls")?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = Certificate::from_pem(params.self_signed(&key)?.pem().as_bytes())?;
        let issuer = Issuer::new(params, key);
        Ok(Self {
            fleet,
            authority,
            issuer,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fleet.home().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a certificate for this machine and its key; gives the certificate.
    fn write_certificate(&self) -> Result<Vec<u8>> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        let signed = params.signed_by(&key, &self.issuer)?;
        fs::write(self.path("api.crt"), signed.pem())?;
        fs::write(self.path("api.key"), key.serialize_pem())?;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path("api.key"), mode)?;
        Ok(signed.der().to_vec())
    }

    fn write_config(&self, api: &str) -> Result<()> {
        let link = format!("127.0.0.1:{}", self.fleet.port_base() + 1);
        let text = format!(
            "node = 1\ndata_dir = \"data\"\ngenesis = \"genesis.json\"\nseal_key_file = \"seal.key\"\n\n\
             [api]\nlisten = \"0.0.0.0:{}\"\n{api}\n\
             [link]\nlisten = \"{link}\"\nadvertise = \"{link}\"\n\n[log]\nfile = \"controller.log\"\n",
            self.fleet.port_base()
        );
        Ok(fs::write(self.path("controller.toml"), text)?)
    }

    async fn controller(&self, verb: &str) -> Result<cli::Ran> {
        let config = self.text("controller.toml");
        let program = self.path("bin/dotmac-controller");
        cli::run(&program, &[verb, "--config", &config], &[]).await
    }

    /// Makes a cluster of this one controller.
    async fn found(&self) -> Result<()> {
        let card = self.controller("init").await?.ok()?.out;
        ensure!(
            card.contains("https://127.0.0.1:"),
            "its card does not say so: {card}"
        );
        fs::write(self.path("card.json"), card)?;
        let files = [
            "card.json",
            "root.key",
            "approver.key",
            "admin.token",
            "genesis.json",
        ]
        .map(|name| self.text(name));
        let flags = [
            "--card",
            "--root-key-file",
            "--approver-key-file",
            "--admin-token-file",
            "--out",
        ];
        let mut arguments = vec!["cluster", "create", "--region", "here-1"];
        for (flag, file) in flags.iter().zip(&files) {
            arguments.extend([*flag, file.as_str()]);
        }
        cli::run(&self.path("bin/dotmac"), &arguments, &[])
            .await?
            .ok()?;
        Ok(())
    }

    fn run(&self) -> Result<Child> {
        let child = Command::new(self.path("bin/dotmac-controller"))
            .args(["run", "--config", &self.text("controller.toml")])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(child)
    }

    fn client(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .tls_certs_only([self.authority.clone()])
            .tls_info(true)
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://127.0.0.1:{}{path}", self.fleet.port_base())
    }
}

fn shown(response: &reqwest::Response) -> Vec<u8> {
    let info = response.extensions().get::<TlsInfo>();
    info.and_then(TlsInfo::peer_certificate)
        .unwrap_or_default()
        .to_vec()
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let pid = id.and_then(Pid::from_raw).context("it has ended")?;
    Ok(kill_process(pid, signal)?)
}

/// Off the loopback there is TLS 1.3 or nothing; a new certificate is shown without a restart.
pub(crate) async fn a_controller_off_the_loopback_speaks_tls_or_does_not_start() -> Result<()> {
    let site = Site::new()?;
    site.write_config("")?;
    for verb in ["init", "run"] {
        let refused = site.controller(verb).await?.with_code(3)?;
        for key in ["api.listen", "api.tls_certificate", "api.tls_key"] {
            ensure!(
                refused.err.contains(key),
                "{key} is not named: {}",
                refused.err
            );
        }
    }
    let old = site.write_certificate()?;
    let advertise = format!("advertise = \"127.0.0.1:{}\"", site.fleet.port_base());
    site.write_config(&format!(
        "{advertise}\ntls_certificate = \"api.crt\"\ntls_key = \"api.key\""
    ))?;
    site.found().await?;
    // A key that others may read is no secret.
    fs::set_permissions(site.path("api.key"), fs::Permissions::from_mode(0o644))?;
    let refused = site.controller("run").await?.with_code(3)?;
    ensure!(
        refused.err.contains("has mode 644: run chmod 600"),
        "{}",
        refused.err
    );
    fs::set_permissions(site.path("api.key"), fs::Permissions::from_mode(0o600))?;

    let mut running = site.run()?;
    let client = site.client().build()?;
    let ready = until("it is ready", PATIENCE, async || {
        let response = client
            .get(site.url("https", "/health/ready"))
            .send()
            .await?;
        Ok((response.status() == 200).then_some(response))
    })
    .await?;
    let stays = ready.headers().get("strict-transport-security");
    ensure!(
        stays.is_some_and(|value| value == "max-age=31536000"),
        "{ready:?}"
    );
    ensure!(shown(&ready) == old, "another certificate");
    let token = fs::read_to_string(site.path("admin.token"))?;
    let asked = client
        .get(site.url("https", "/api/v1/agents"))
        .bearer_auth(token.trim());
    let agents: Value = asked.send().await?.error_for_status()?.json().await?;
    ensure!(agents["items"].is_array(), "{agents}");
    let plain = client.get(site.url("http", "/health/live")).send().await;
    ensure!(plain.is_err(), "it speaks without TLS: {plain:?}");
    let weak = site.client().tls_version_max(Version::TLS_1_2).build()?;
    let weak = weak.get(site.url("https", "/health/live")).send().await;
    ensure!(weak.is_err(), "it speaks TLS 1.2: {weak:?}");

    let new = site.write_certificate()?;
    signal(&running, Signal::HUP)?;
    until("the new certificate is shown", PATIENCE, async || {
        let fresh = site.client().build()?;
        let response = fresh.get(site.url("https", "/health/live")).send().await?;
        Ok((shown(&response) == new).then_some(()))
    })
    .await?;
    let kept = client.get(site.url("https", "/health/live")).send().await?;
    ensure!(shown(&kept) == old, "the open connection was broken");
    signal(&running, Signal::TERM)?;
    let ended = tokio::time::timeout(PATIENCE, running.wait()).await??;
    ensure!(ended.success(), "{ended}");
    let log = fs::read_to_string(site.path("controller.log"))?;
    ensure!(
        !log.contains("PRIVATE KEY") && log.contains("read again"),
        "{log}"
    );
    Ok(())
}
