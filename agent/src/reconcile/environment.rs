//! Tells what the copies of a unit are started with: rendered by the same code that starts them, from the order that is
//! in force. Nothing of it is written down; that it was told is in the agent's chain before anybody reads it.

use std::sync::Arc;

use dotmac_protocol::{
    frame::CopyEnvironment,
    ids::{PartName, UnitId},
    record::{Event, cut_detail},
};
use thiserror::Error;
use tokio::sync::watch;

use super::{
    goal::{Goal, GoalError, Target},
    memory::{Memory, SlotMemory},
    turn::Shared,
};
use crate::{
    driver::{
        SlotName, StartError,
        process::{Seen, UnitFiles, environment::Rendering},
    },
    limits::Caps,
    unit::{About, Desired, PlatformEnvironment, PlatformError, Wanted},
};

/// The environments of all units. Clones share what they ask.
#[derive(Clone)]
#[allow(
    missing_debug_implementations,
    reason = "it leads to secrets, which must not be printable"
)]
pub struct Environments {
    pub(super) shared: Arc<Shared>,
    pub(super) desired: watch::Receiver<Arc<Desired>>,
}

/// Why an environment cannot be told. The texts are for the asker and hold no secret.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// No order of this agent says what the unit should be.
    #[error("this agent has no order for unit {0}")]
    Unknown(UnitId),
    /// The order is one that nobody can carry out.
    #[error("{0}")]
    Order(#[from] GoalError),
    /// The release has no such component.
    #[error("the release has no component {asked}; it has {known}")]
    Component { asked: PartName, known: String },
    /// What the agent remembers of the unit cannot be read.
    #[error("what the agent remembers of unit {unit} cannot be read: {source}")]
    Disk {
        unit: UnitId,
        #[source]
        source: std::io::Error,
    },
    /// The platform does not say what the instance gets.
    #[error("the instance's environment is not to be had: {0}")]
    Platform(#[from] PlatformError),
    /// A copy has no ports yet, so its environment is not settled.
    #[error("{0} was not started on this agent yet")]
    NotStarted(SlotName),
    /// The copy cannot be started, either.
    #[error("{slot} cannot be started: {source}")]
    Start {
        slot: SlotName,
        #[source]
        source: StartError,
    },
}

impl Environments {
    /// What every copy of one component, or of all, is started with. It reads files: call it where blocking is allowed.
    ///
    /// # Errors
    /// When there is no such unit or component here, or a copy of it was not started yet.
    pub fn of(
        &self,
        unit: &UnitId,
        component: Option<&PartName>,
    ) -> Result<Vec<CopyEnvironment>, EnvironmentError> {
        let wanted = self.desired.borrow().get(unit).cloned();
        let unknown = || EnvironmentError::Unknown(unit.clone());
        let wanted = wanted.ok_or_else(unknown)?;
        let goal = Goal::of(&wanted)?;
        let target = goal.target().ok_or_else(unknown)?;
        if let Some(asked) = component.filter(|name| target.component(name).is_none()) {
            let known: Vec<&str> = target.order.iter().map(PartName::as_str).collect();
            let (asked, known) = (asked.clone(), known.join(", "));
            return Err(EnvironmentError::Component { asked, known });
        }
        let files = UnitFiles::new(&self.shared.data_dir, unit);
        let failed = |source| EnvironmentError::Disk {
            unit: unit.clone(),
            source,
        };
        let memory = Memory::load(unit, &files).map_err(failed)?;
        let platform = self.shared.platform.environment(&wanted)?;
        let names = target.order.iter();
        let asked = names.filter(|name| component.is_none_or(|one| one == *name));
        let mut copies = asked
            .flat_map(|name| target.slots(name))
            .map(|slot| self.copy((&wanted, target), &slot, &memory, &files, &platform))
            .collect::<Result<Vec<_>, _>>()?;
        for (copy, remaining) in copies.iter_mut().rev().zip(0..) {
            copy.remaining = remaining;
        }
        self.note(&wanted, component);
        Ok(copies)
    }

    fn copy(
        &self,
        (wanted, target): (&Wanted, &Target),
        slot: &SlotName,
        memory: &Memory,
        files: &UnitFiles,
        platform: &PlatformEnvironment,
    ) -> Result<CopyEnvironment, EnvironmentError> {
        let component = target
            .component(&slot.component)
            .expect("slots are those of the target's components");
        let memory = memory.slots.get(slot);
        let ports = memory.map(|memory| memory.ports.clone());
        let ports = ports.unwrap_or_default();
        if component.ports.iter().any(|port| !ports.contains_key(port)) {
            return Err(EnvironmentError::NotStarted(slot.clone()));
        }
        let running = memory.filter(|memory| self.is_running(target, slot, memory, files));
        let rendering = Rendering {
            instance: &target.instance,
            manifest: &target.manifest,
            slot,
            component,
            ports: &ports,
            files,
            platform,
            caps: Caps::of(&target.instance.resources, component.resources),
            // A process that goes on through a change keeps the one it was started with.
            trace: running.map_or_else(|| wanted.start_context(), |memory| memory.trace),
        };
        let rendered = self.shared.driver.environment(files, slot, &rendering);
        let variables = rendered.map_err(|source| EnvironmentError::Start {
            slot: slot.clone(),
            source,
        })?;
        Ok(CopyEnvironment {
            component: slot.component.clone(),
            replica: slot.replica,
            running: running.is_some(),
            remaining: 0,
            variables,
        })
    }

    /// Whether a process runs that was started from just this.
    fn is_running(
        &self,
        target: &Target,
        slot: &SlotName,
        memory: &SlotMemory,
        files: &UnitFiles,
    ) -> bool {
        let seen = self.shared.driver.look(&files.slot(slot), memory.launch);
        memory.fingerprint == Some(target.fingerprint) && matches!(seen, Ok(Seen::Running(_)))
    }

    /// A controller that asks on its own account cannot keep that from the audit.
    fn note(&self, wanted: &Wanted, component: Option<&PartName>) {
        let of = component.map_or_else(|| "all components".to_owned(), ToString::to_string);
        let detail = format!("a controller was told the environment of {of}, sealed to its asker");
        let event = Event::Audit {
            action: "instance.environment_told".to_owned(),
            detail: cut_detail(&detail),
        };
        self.shared.recorder.record(&About::wanted(wanted), event);
    }
}
