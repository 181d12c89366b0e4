//! The processes of a local fleet: three controllers and an agent per region, each with a directory, a configuration
//! file and a pid file of its own.

use std::path::PathBuf;

use crate::backup::recipient::Recipient;

use super::{
    layout::{Layout, Settings},
    pids::PidFile,
    ports::Port,
};

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A controller and its number.
    Controller(u16),
    /// An agent and its place in the port plan.
    Agent(u16),
}

/// One process of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name, which is that of its directory too.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// Its program.
    pub(crate) program: PathBuf,
    /// Where its pid is noted.
    pub(crate) pid_file: PidFile,
}

impl Member {
    /// All of them, controllers first.
    pub(crate) fn all(layout: &Layout) -> Vec<Self> {
        let controllers = Layout::controllers().map(|(node, name)| (name, Kind::Controller(node)));
        let agents = Layout::agents().map(|(place, name)| (name.to_owned(), Kind::Agent(place)));
        controllers
            .chain(agents)
            .map(|(name, kind)| Self::new(layout, name, kind))
            .collect()
    }

    /// All but the controllers that left the cluster for ever.
    pub(crate) fn present(layout: &Layout) -> Vec<Self> {
        let mut members = Self::all(layout);
        members.retain(|member| !member.is_retired());
        members
    }

    fn new(layout: &Layout, name: String, kind: Kind) -> Self {
        let program = match kind {
            Kind::Controller(_) => "dotmac-controller",
            Kind::Agent(_) => "dotmac-agent",
        };
        Self {
            directory: layout.process(&name),
            program: layout.program(program),
            pid_file: PidFile::new(layout, &name),
            name,
            kind,
        }
    }

    /// Whether it is a controller.
    pub(crate) fn is_controller(&self) -> bool {
        matches!(self.kind, Kind::Controller(_))
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join(if self.is_controller() {
            "controller.toml"
        } else {
            "agent.toml"
        })
    }

    /// Everything it keeps.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The log it writes and rotates itself.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join(if self.is_controller() {
            "controller.log"
        } else {
            "agent.log"
        })
    }

    /// What it says outside its log: panics, and errors before the log is open.
    pub(crate) fn crash_log(&self) -> PathBuf {
        self.directory.join("crash.log")
    }

    /// What a new agent enrols with.
    pub(crate) fn join_token(&self) -> PathBuf {
        self.directory.join("join.token")
    }

    /// Where it is noted that the cluster calls a controller's disk retired.
    pub(crate) fn retired(&self) -> PathBuf {
        self.directory.join("retired")
    }

    /// Which life of its disk a controller has; none before it has keys.
    pub(crate) fn incarnation(&self) -> Option<String> {
        let path = self.data().join("keys/incarnation");
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned())
    }

    /// Whether it is noted that the disk which this controller has now left the cluster for ever.
    pub(crate) fn is_retired(&self) -> bool {
        let noted = std::fs::read_to_string(self.retired()).ok();
        noted.is_some_and(|noted| self.incarnation().as_deref() == Some(noted.trim()))
    }

    /// Whether it is to run and everything it needs for its start is there: an agent cannot enrol without a join token.
    pub(crate) fn may_start(&self) -> bool {
        match self.kind {
            Kind::Controller(_) => !self.is_retired(),
            Kind::Agent(_) => self.join_token().is_file(),
        }
    }

    /// Ports it listens on itself; those of an agent's instances are not among them.
    pub(crate) fn ports(&self, settings: &Settings) -> Vec<Port> {
        let ports = settings.ports();
        match self.kind {
            Kind::Controller(node) => vec![Port::Tcp(ports.api(node)), Port::Udp(ports.link(node))],
            Kind::Agent(place) => vec![Port::Tcp(ports.instance_api(place))],
        }
    }

    /// Where people reach it.
    pub(crate) fn address(&self, settings: &Settings) -> String {
        let ports = settings.ports();
        match self.kind {
            Kind::Controller(node) => format!("http://127.0.0.1:{}", ports.api(node)),
            Kind::Agent(place) => {
                let instances = ports.instances(place);
                let instances = format!("instances on {}-{}", instances.start(), instances.end());
                match std::fs::read_to_string(self.data().join("status.port")) {
                    Ok(port) => format!("http://127.0.0.1:{} {instances}", port.trim()),
                    Err(_) => instances,
                }
            }
        }
    }

    /// The text of its configuration file.
    pub(crate) fn render(
        &self,
        layout: &Layout,
        settings: &Settings,
        recipient: &Recipient,
    ) -> String {
        let ports = settings.ports();
        let header = "# Written by `make up` at every start. For a configuration of your own see config/ in the checkout.\n";
        let log = "[log]\nbytes_max = 8388608\nkeep = 3\n";
        let telemetry = settings.otlp_endpoint.as_ref().map(|endpoint| {
            let endpoint = toml::Value::String(endpoint.to_string());
            format!("\n[telemetry]\notlp_endpoint = {endpoint}\n")
        });
        let telemetry = telemetry.unwrap_or_default();
        match self.kind {
            Kind::Controller(node) => format!(
                "{header}node = {node}\ndata_dir = \"data\"\ngenesis = {genesis}\nseal_key_file = \"seal.key\"\n\n\
                 [api]\nlisten = \"127.0.0.1:{api}\"\nstop_notice_ms = 100\n\n\
                 [link]\nlisten = \"127.0.0.1:{link}\"\nadvertise = \"127.0.0.1:{link}\"\n\n\
                 {log}file = \"controller.log\"\n{telemetry}\n\
                 [backup]\ntarget = {backups}\nrecipients = [\"{recipient}\"]\n",
                backups = quoted(&PathBuf::from(format!(
                    "file://{}",
                    layout.backups().display()
                ))),
                genesis = quoted(&layout.genesis()),
                api = ports.api(node),
                link = ports.link(node),
            ),
            Kind::Agent(place) => format!(
                "{header}region = \"{region}\"\ndata_dir = \"data\"\njoin_token_file = \"join.token\"\ntenants = []\n\n\
                 [instance_api]\nlisten = \"127.0.0.1:{api}\"\n\n\
                 [process]\nport_first = {first}\nport_last = {last}\n\n{log}file = \"agent.log\"\n{telemetry}",
                region = self.name,
                api = ports.instance_api(place),
                first = ports.instances(place).start(),
                last = ports.instances(place).end(),
            ),
        }
    }
}

/// A path as a TOML string.
fn quoted(path: &std::path::Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::Member;
    use crate::local::layout::{Layout, Settings};

    #[test]
    fn a_fleet_is_three_controllers_and_five_agents_with_sound_configurations() {
        let layout = Layout::new(PathBuf::from("/tmp/a \"quoted\" home"));
        let recipient = format!("dotmac-recipient-1.{}", "A".repeat(43))
            .parse()
            .unwrap();
        let settings = Settings {
            port_base: 9000,
            grace_ms: 10_000,
            otlp_endpoint: None,
        };
        let members = Member::all(&layout);
        let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(
            names[..4],
            [
                "controller-1",
                "controller-2",
                "controller-3",
                "aws-eu-west-1"
            ]
        );
        assert_eq!(names.len(), 8);
        for member in &members {
            let parsed: toml::Table = member
                .render(&layout, &settings, &recipient)
                .parse()
                .unwrap();
            assert_eq!(parsed["data_dir"].as_str(), Some("data"));
        }
        let exporting = Settings {
            otlp_endpoint: "http://127.0.0.1:4318".parse().ok(),
            ..settings.clone()
        };
        for member in &members {
            let parsed: toml::Table = member
                .render(&layout, &exporting, &recipient)
                .parse()
                .unwrap();
            let endpoint = parsed["telemetry"]["otlp_endpoint"].as_str();
            assert_eq!(endpoint, Some("http://127.0.0.1:4318/"));
        }
        let second: toml::Table = members[1]
            .render(&layout, &settings, &recipient)
            .parse()
            .unwrap();
        assert_eq!(second["api"]["listen"].as_str(), Some("127.0.0.1:9001"));
        assert_eq!(
            second["genesis"].as_str(),
            Some("/tmp/a \"quoted\" home/genesis.json")
        );
    }
}
