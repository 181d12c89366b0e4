//! An S3-compatible store (the peer `weed`) beside a fleet. It ends with its value.

use std::{
    fs,
    process::{Command as Blocking, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{ports, programs, wait::until};

/// The access key that it knows.
pub const ACCESS_KEY: &str = "dotmac-access-key";
/// The secret of that key.
pub const SECRET_KEY: &str = "dotmac-s3-Jw8pLq-secret";
/// The bucket that there is.
pub const BUCKET: &str = "backups";
/// How long it may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A store; it ends with this value.
#[derive(Debug)]
pub struct Store {
    home: TempDir,
    ports: ports::Reserved,
    server: Child,
}

impl Store {
    /// A running store with a bucket.
    ///
    /// # Errors
    /// When its program is missing, or it does not start.
    pub async fn start() -> Result<Self> {
        let program = programs::peer("weed")?;
        let home = tempfile::Builder::new()
            .prefix("weed-")
            .tempdir_in(programs::homes()?)?;
        let ports = ports::reserve()?;
        let identities = serde_json::json!({"identities": [{
            "name": "dotmac", "actions": ["Admin"],
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        }]});
        let config = home.path().join("s3.json");
        fs::write(&config, identities.to_string())?;
        let base = ports.base;
        let port = |place: u16| (base + place).to_string();
        let mut arguments = vec![
            "server".to_owned(),
            format!("-dir={}", home.path().display()),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            "-filer".to_owned(),
            "-s3".to_owned(),
            format!("-s3.config={}", config.display()),
            "-volume.max=8".to_owned(),
            "-master.volumeSizeLimitMB=64".to_owned(),
        ];
        let listeners = ["master", "volume", "filer", "s3"];
        for (place, name) in (0_u16..).zip(listeners) {
            arguments.push(format!("-{name}.port={}", port(place * 2)));
            arguments.push(format!("-{name}.port.grpc={}", port(place * 2 + 1)));
        }
        let log = fs::File::create(home.path().join("log"))?;
        let server = Command::new(&program)
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let store = Self {
            home,
            ports,
            server,
        };
        let endpoint = format!("127.0.0.1:{}", port(6));
        until("the store answers", START_WITHIN, async || {
            let socket = TcpStream::connect(&endpoint).await;
            Ok(socket.is_ok().then_some(()))
        })
        .await?;
        let master = format!("-master=127.0.0.1:{}.{}", port(0), port(1));
        until("there is a bucket", START_WITHIN, async || {
            let script = store.home.path().join("script");
            fs::write(
                &script,
                format!("s3.bucket.create -name {BUCKET}\ns3.bucket.list\n"),
            )?;
            let (program, master) = (program.clone(), master.clone());
            let made = tokio::task::spawn_blocking(move || {
                let input = fs::File::open(script)?;
                Blocking::new(program)
                    .args(["shell", &master])
                    .stdin(input)
                    .output()
            });
            let said = String::from_utf8_lossy(&made.await??.stdout).into_owned();
            Ok(said.contains(&format!("  {BUCKET}")).then_some(()))
        })
        .await?;
        Ok(store)
    }

    /// Its address.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.base + 6)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.id()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        Ok(self.server.kill().await?)
    }
}
